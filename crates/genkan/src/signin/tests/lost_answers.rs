//! Answers with a rotated cookie that come late, or not at all.

use std::time::Duration;

use super::harness::{SignInHarness, seen, seen_by};
use crate::base::WaitingClient;
use crate::db::{self, Db, on_each_database};
use crate::signin::service::{LOST_ANSWER, ROTATE_EVERY, TOLERANCE};
use crate::signin::types::FRESH;
use crate::signin::{Cookies, Error, Persistence};

on_each_database!(
    a_browser_whose_answer_was_lost_stays_signed_in,
    a_browser_that_repeated_a_lost_request_and_then_rested_stays_signed_in,
    answers_that_are_lost_again_and_again_sign_nobody_out,
    a_stolen_cookie_is_noticed_as_soon_as_both_were_shown,
    a_lost_answer_of_a_request_that_rotated_twice_signs_nobody_out,
    a_slow_answer_undoes_no_good_one,
    two_lost_answers_of_parallel_requests_sign_nobody_out,
    a_form_that_is_sent_twice_signs_nobody_out,
    a_lost_answer_undoes_only_the_sign_in_that_it_was_for,
    of_many_late_requests_one_rotates_the_cookie,
    a_late_cookie_does_not_carry_the_sign_in_that_replaced_it,
    a_browser_that_was_answered_before_the_end_of_the_work_keeps_its_cookie,
    a_cookie_between_two_rotations_that_was_sent_after_all_signs_nobody_out,
);

async fn a_browser_whose_answer_was_lost_stays_signed_in(db: Db) {
    let harness = SignInHarness::new(db);
    let ann = harness.account("ann").await;
    let mut visit = harness.visit(None).await;
    harness.sign_in(&mut visit, &ann, Persistence::Remembered).await;
    let old = visit.to_set().unwrap().clone();
    harness.wait(ROTATE_EVERY);
    let lost = harness.visit(Some(&old)).await.to_set().unwrap().clone();

    harness.wait(LOST_ANSWER);
    let late = harness.visit(Some(&old)).await;
    assert_eq!(harness.dids(&late, None).await, [ann.as_str()]);
    let next = late.to_set().expect("another cookie").clone();
    assert!(![&old, &lost].map(Cookies::session_hash).contains(&next.session_hash()));
    // Other requests that were under way with the old cookie.
    harness.wait(TOLERANCE);
    let parallel = harness.visit(Some(&old)).await;
    assert_eq!((&parallel.device, parallel.to_set().is_none()), (&visit.device, true));
    assert_eq!(harness.dids(&harness.visit(Some(&next)).await, None).await, [ann.as_str()]);

    // It was accepted once. The second time is a theft, within the minute too.
    harness.wait(Duration::from_millis(1));
    assert_ne!(harness.visit(Some(&old)).await.device, visit.device);
    assert_eq!(harness.sign_ins.devices_of(&ann).await.unwrap(), []);
    assert_ne!(harness.visit(Some(&next)).await.device, visit.device);
}

/// A browser repeats a request by itself when its connection breaks, within milliseconds. The repeated
/// one is tolerated as a parallel request and gets no cookie.
async fn a_browser_that_repeated_a_lost_request_and_then_rested_stays_signed_in(db: Db) {
    let harness = SignInHarness::new(db);
    let ann = harness.account("ann").await;
    let mut visit = harness.visit(None).await;
    harness.sign_in(&mut visit, &ann, Persistence::Remembered).await;
    let old = visit.to_set().unwrap().clone();
    harness.wait(ROTATE_EVERY);
    harness.visit(Some(&old)).await.to_set().expect("an answer with a cookie, which is lost");
    harness.wait(Duration::from_millis(300));
    assert!(harness.visit(Some(&old)).await.to_set().is_none());

    harness.wait(Duration::from_hours(24));
    let back = harness.visit(Some(&old)).await;
    assert_eq!((&back.device, back.to_set().is_some()), (&visit.device, true));
    assert_eq!(harness.dids(&back, None).await, [ann.as_str()]);
}

async fn answers_that_are_lost_again_and_again_sign_nobody_out(db: Db) {
    let harness = SignInHarness::new(db);
    let ann = harness.account("ann").await;
    let mut visit = harness.visit(None).await;
    harness.sign_in(&mut visit, &ann, Persistence::Remembered).await;
    let mut shown = visit.to_set().unwrap().clone();
    for round in 0..3 {
        harness.wait(ROTATE_EVERY);
        for lost in 0..4 {
            let back = harness.visit(Some(&shown)).await;
            assert_eq!(harness.dids(&back, None).await, [ann.as_str()], "{round}, {lost}");
            assert!(back.to_set().is_some(), "{round}, {lost}");
            harness.wait(if lost % 2 == 0 { TOLERANCE * 2 } else { LOST_ANSWER * 2 });
        }
        shown = harness.visit(Some(&shown)).await.to_set().unwrap().clone();
    }
}

/// The owner's answer was lost, and a thief has the same cookie. Each shows what it has in turn.
async fn a_stolen_cookie_is_noticed_as_soon_as_both_were_shown(db: Db) {
    for thief_is_first in [false, true] {
        let harness = SignInHarness::new(db.clone());
        let ann = harness.account(if thief_is_first { "anna" } else { "ann" }).await;
        let mut visit = harness.visit(None).await;
        harness.sign_in(&mut visit, &ann, Persistence::Remembered).await;
        let stolen = visit.to_set().unwrap().clone();
        harness.wait(ROTATE_EVERY);
        let first = harness.visit(Some(&stolen)).await.to_set().unwrap().clone();
        harness.wait(LOST_ANSWER * 2);
        let second = harness.visit(Some(&stolen)).await.to_set().unwrap().clone();
        harness.wait(LOST_ANSWER * 2);
        let (one, other) = if thief_is_first { (first, second) } else { (second, first) };
        let one = harness.visit(Some(&one)).await;
        if one.device == visit.device {
            harness.wait(LOST_ANSWER * 2);
            assert_ne!(harness.visit(Some(&other)).await.device, visit.device);
        }
        assert_eq!(harness.sign_ins.devices_of(&ann).await.unwrap(), []);
    }
}

/// A request that comes after a while rotates the cookie when it begins, and again when it is
/// decided. The browser gets only the last cookie.
async fn a_lost_answer_of_a_request_that_rotated_twice_signs_nobody_out(db: Db) {
    for (decision, wait) in
        ["sign in", "sign out", "decide", "move"].into_iter().flat_map(|one| [(one, 1), (one, 10)])
    {
        let harness = SignInHarness::new(db.clone());
        let name = |who: &str| format!("{who}-{}-{wait}", decision.replace(' ', "-"));
        let (ann, bob) = (harness.account(&name("ann")).await, harness.account(&name("bob")).await);
        let mut visit = harness.visit(None).await;
        harness.sign_in(&mut visit, &ann, Persistence::Remembered).await;
        let old = visit.to_set().unwrap().clone();
        let mut lost = if decision == "move" {
            harness.wait(LOST_ANSWER);
            harness.sign_ins.visit(Some(&old), &seen("192.0.2.9")).await.unwrap()
        } else {
            harness.wait(ROTATE_EVERY);
            harness.visit(Some(&old)).await
        };
        match decision {
            "sign out" => harness.sign_ins.sign_out(&mut lost, &bob).await.unwrap(),
            "decide" => harness.sign_ins.rotate(&mut lost).await.unwrap(),
            _ => harness.sign_in(&mut lost, &bob, Persistence::Remembered).await,
        }

        harness.wait(Duration::from_secs(wait));
        let late = harness.sign_ins.visit(Some(&old), &seen("192.0.2.9")).await.unwrap();
        assert_eq!(late.device, visit.device, "{decision}, {wait} s later");
        assert_eq!(harness.dids(&late, None).await, [ann.as_str()], "{decision}, {wait} s later");
        assert_eq!(late.to_set().is_some(), wait > TOLERANCE.as_secs());
    }
}

/// Two programs have the cookies: one came late with the old one, the other has the one that the
/// first did not get.
async fn a_late_cookie_does_not_carry_the_sign_in_that_replaced_it(db: Db) {
    let harness = SignInHarness::new(db);
    let (ann, bob) = (harness.account("ann").await, harness.account("bob").await);
    let mut visit = harness.visit(None).await;
    harness.sign_in(&mut visit, &ann, Persistence::Remembered).await;
    let planted = visit.to_set().unwrap().clone();
    harness.wait(Duration::from_secs(10));
    let mut visit = harness.visit(Some(&planted)).await;
    harness.sign_in(&mut visit, &bob, Persistence::Remembered).await;
    let owners = visit.to_set().unwrap().clone();

    harness.wait(TOLERANCE * 2);
    let late = harness.visit(Some(&planted)).await;
    assert_eq!(harness.dids(&late, None).await, [ann.as_str()], "what it could do before, and no more");
    let next = late.to_set().unwrap().clone();
    assert_eq!(harness.dids(&harness.visit(Some(&next)).await, None).await, [ann.as_str()]);
    // The other one's cookie may have come with a slow answer. Whichever of them comes again shows
    // that there are two.
    harness.wait(TOLERANCE * 2);
    let owner = harness.visit(Some(&owners)).await;
    assert_eq!(harness.dids(&owner, None).await, [ann.as_str()]);
    let last = owner.to_set().unwrap().clone();
    harness.wait(TOLERANCE * 2);
    assert_ne!(harness.visit(Some(&next)).await.device, visit.device);
    assert_ne!(harness.visit(Some(&last)).await.device, visit.device);
    assert_eq!(harness.sign_ins.devices_of(&ann).await.unwrap(), []);
}

/// An answer is slow, the browser asks again meanwhile, and then the slow answer replaces the cookie of
/// the second one.
async fn a_slow_answer_undoes_no_good_one(db: Db) {
    let harness = SignInHarness::new(db);
    let ann = harness.account("ann").await;
    let mut visit = harness.visit(None).await;
    harness.sign_in(&mut visit, &ann, Persistence::Remembered).await;
    let old = visit.to_set().unwrap().clone();
    harness.wait(ROTATE_EVERY);
    let slow = harness.visit(Some(&old)).await.to_set().unwrap().clone();
    harness.wait(Duration::from_secs(6));
    let second = harness.visit(Some(&old)).await.to_set().unwrap().clone();

    harness.wait(Duration::from_secs(3));
    let tolerated = harness.visit(Some(&slow)).await;
    assert_eq!((&tolerated.device, tolerated.to_set().is_none()), (&visit.device, true));
    harness.wait(Duration::from_secs(3));
    let back = harness.visit(Some(&slow)).await;
    assert_eq!(harness.dids(&back, None).await, [ann.as_str()]);
    let third = back.to_set().expect("another cookie").clone();
    // Requests that were under way with either.
    for cookies in [&slow, &second] {
        assert_eq!(harness.visit(Some(cookies)).await.device, visit.device);
    }
    assert_eq!(harness.dids(&harness.visit(Some(&third)).await, None).await, [ann.as_str()]);
    // Neither is accepted a second time.
    harness.wait(TOLERANCE * 2);
    let newer = {
        harness.wait(ROTATE_EVERY);
        harness.visit(Some(&third)).await.to_set().unwrap().clone()
    };
    assert_ne!(harness.visit(Some(&second)).await.device, visit.device);
    assert_ne!(harness.visit(Some(&newer)).await.device, visit.device);
}

async fn two_lost_answers_of_parallel_requests_sign_nobody_out(db: Db) {
    for shows_first in [false, true] {
        let harness = SignInHarness::new(db.clone());
        let name = |who: &str| format!("{who}{}", if shows_first { "x" } else { "y" });
        let (ann, bob) = (harness.account(&name("ann")).await, harness.account(&name("bob")).await);
        let mut visit = harness.visit(None).await;
        harness.sign_in(&mut visit, &ann, Persistence::Remembered).await;
        let old = visit.to_set().unwrap().clone();
        harness.wait(ROTATE_EVERY);
        let first = harness.visit(Some(&old)).await.to_set().unwrap().clone();
        let mut second = harness.visit(Some(&old)).await;
        harness.wait(Duration::from_secs(1));
        harness.sign_in(&mut second, &bob, Persistence::Remembered).await;

        harness.wait(TOLERANCE * 2);
        let late = harness.visit(Some(if shows_first { &first } else { &old })).await;
        assert_eq!(late.device, visit.device);
        assert_eq!(harness.dids(&late, None).await, [ann.as_str()]);
    }
}

/// The browser keeps the answer to either request.
async fn a_form_that_is_sent_twice_signs_nobody_out(db: Db) {
    for (number, (wait, keeps_first, seconds)) in [
        (ROTATE_EVERY, true, 1),
        (ROTATE_EVERY, false, 1),
        (ROTATE_EVERY, true, 10),
        (ROTATE_EVERY, false, 10),
        (Duration::from_secs(1), true, 10),
        (Duration::from_secs(1), false, 10),
    ]
    .into_iter()
    .enumerate()
    {
        let harness = SignInHarness::new(db.clone());
        let (ann, bob) =
            (harness.account(&format!("ann{number}")).await, harness.account(&format!("bob{number}")).await);
        let mut visit = harness.visit(None).await;
        harness.sign_in(&mut visit, &ann, Persistence::Remembered).await;
        let old = visit.to_set().unwrap().clone();
        harness.wait(wait);
        // Only the first of them may rotate the cookie, and the second is decided first.
        let mut rotating = harness.visit(Some(&old)).await;
        let mut other = harness.visit(Some(&old)).await;
        harness.sign_in(&mut other, &bob, Persistence::Remembered).await;
        harness.wait(Duration::from_millis(10));
        harness.sign_in(&mut rotating, &bob, Persistence::Remembered).await;
        let kept = if keeps_first { &rotating } else { &other };
        harness.wait(Duration::from_secs(seconds));
        let next = harness.visit(kept.to_set()).await;
        assert_eq!(next.device, visit.device, "{number}");
        assert!(harness.dids(&next, None).await.contains(&ann.to_string()), "{number}");
    }
}

/// The password of an account that is signed in is typed again, and the answer is lost.
async fn a_lost_answer_undoes_only_the_sign_in_that_it_was_for(db: Db) {
    let harness = SignInHarness::new(db);
    let ann = harness.account("ann").await;
    let mut visit = harness.visit(None).await;
    harness.sign_in(&mut visit, &ann, Persistence::Remembered).await;
    let (first, old) = (harness.clock.now(), visit.to_set().unwrap().clone());
    harness.wait(FRESH * 2);
    let mut again = harness.visit(Some(&old)).await;
    harness.sign_in(&mut again, &ann, Persistence::Remembered).await;

    harness.wait(TOLERANCE * 2);
    let late = harness.visit(Some(&old)).await;
    let found = harness.sign_ins.signed_in(&late, None).await.unwrap();
    assert_eq!(found.iter().map(|one| (&one.account.did, one.at)).collect::<Vec<_>>(), [(&ann, first)]);
    assert!(!found[0].is_fresh(harness.clock.now()), "it may not act without the password");
}

async fn of_many_late_requests_one_rotates_the_cookie(db: Db) {
    let harness = SignInHarness::new(db);
    let ann = harness.account("ann").await;
    let mut visit = harness.visit(None).await;
    harness.sign_in(&mut visit, &ann, Persistence::Remembered).await;
    let old = visit.to_set().unwrap().clone();
    harness.wait(ROTATE_EVERY);
    harness.visit(Some(&old)).await;
    harness.wait(TOLERANCE * 2);
    let late: Vec<_> = (0..8)
        .map(|_| {
            let (sign_ins, old) = (harness.sign_ins.clone(), old.clone());
            tokio::spawn(async move { sign_ins.visit(Some(&old), &seen("192.0.2.1")).await.unwrap() })
        })
        .collect();
    let mut given = Vec::new();
    for one in late {
        let one = one.await.unwrap();
        assert_eq!(one.device, visit.device);
        given.extend(one.to_set().cloned());
    }
    assert_eq!(given.len(), 1, "one of them got a new cookie");
    assert_eq!(harness.dids(&harness.visit(given.first()).await, None).await, [ann.as_str()]);
}

/// A form takes longer than its browser waits. The answer has what was rotated until then, and the work
/// goes on.
async fn a_browser_that_was_answered_before_the_end_of_the_work_keeps_its_cookie(db: Db) {
    for (number, (leaves_first, wait)) in
        [false, true].into_iter().flat_map(|first| [1, 10, 1200].map(|wait| (first, wait))).enumerate()
    {
        let harness = SignInHarness::new(db.clone());
        let ann = harness.account(&format!("ann{number}")).await;
        let bob = harness.account(&format!("bob{number}")).await;
        let mut visit = harness.visit(None).await;
        harness.sign_in(&mut visit, &ann, Persistence::Remembered).await;
        let old = visit.to_set().unwrap().clone();
        harness.wait(ROTATE_EVERY);
        let client = WaitingClient::new();
        if leaves_first {
            assert!(client.leave());
        }
        let seen = seen_by(client.clone(), "192.0.2.1");
        let mut form = harness.sign_ins.visit(Some(&old), &seen).await.unwrap();
        assert_eq!(form.to_set().is_none(), leaves_first);
        let sent = form.to_set().unwrap_or(&old).clone();
        assert!(client.leave());
        let account = harness.accounts.find(&bob).await.unwrap().unwrap();
        let late = harness.sign_ins.sign_in(&mut form, &account, Persistence::Remembered).await;
        assert!(matches!(late, Err(Error::Storage(db::Error::ClientGone))), "{late:?}");
        assert!(harness.sign_ins.rotate(&mut form).await.is_err());

        harness.wait(Duration::from_secs(wait));
        let back = harness.visit(Some(&sent)).await;
        assert_eq!(back.device, visit.device, "{number}");
        assert_eq!(harness.dids(&back, None).await, [ann.as_str()], "{number}");
    }
}

/// The database does not say that a sign-in was committed, so the answer has the cookie from before it.
async fn a_cookie_between_two_rotations_that_was_sent_after_all_signs_nobody_out(db: Db) {
    for wait in [1, 10] {
        let harness = SignInHarness::new(db.clone());
        let (ann, bob) =
            (harness.account(&format!("ann{wait}")).await, harness.account(&format!("bob{wait}")).await);
        let mut visit = harness.visit(None).await;
        harness.sign_in(&mut visit, &ann, Persistence::Remembered).await;
        harness.wait(ROTATE_EVERY);
        let mut form = harness.visit(visit.to_set()).await;
        let sent = form.to_set().unwrap().clone();
        harness.sign_in(&mut form, &bob, Persistence::Remembered).await;
        harness.wait(Duration::from_secs(wait));
        let back = harness.visit(Some(&sent)).await;
        assert_eq!((&back.device, back.to_set().is_some()), (&visit.device, wait > TOLERANCE.as_secs()));
        assert_eq!(harness.dids(&back, None).await, [ann.as_str()]);
    }
}
