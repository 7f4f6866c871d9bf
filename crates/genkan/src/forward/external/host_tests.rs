//! Each test moves time itself, so no bound depends on the machine's speed.

use http::{HeaderMap, StatusCode};

use super::*;
use crate::base::{Timestamp, monotonic_now};
use crate::config::Rate;

const RULES: CallBudgetRules = CallBudgetRules {
    calls: Rate { count: 20, per: Duration::from_secs(2) },
    repos: Rate { count: 2, per: Duration::from_secs(100) },
    uploads: Rate { count: 2, per: Duration::from_secs(1000) },
    account_calls: Rate { count: 100, per: Duration::from_secs(100) },
    account_writes: Rate { count: 3, per: Duration::from_secs(100) },
    wait: Duration::from_secs(5),
};

/// One PDS, and a clock that the test moves.
struct Trial {
    calls: HostCalls,
    rules: CallBudgetRules,
    now: Instant,
}

impl Trial {
    fn new() -> Self {
        Self::with(RULES)
    }

    fn with(rules: CallBudgetRules) -> Self {
        let now = monotonic_now();
        Self { calls: HostCalls::new(&rules, &Owners::new(), now), rules, now }
    }

    fn ask(&mut self, asked: Asked) -> CallDecision {
        self.calls.ask(asked, &self.rules, self.now)
    }

    fn goes(&mut self, asked: Asked) -> bool {
        matches!(self.ask(asked), CallDecision::Go)
    }

    fn refused(&mut self, asked: Asked) -> BudgetError {
        match self.ask(asked) {
            CallDecision::NotNow(refused) => refused,
            CallDecision::Go | CallDecision::Wait(_) => panic!("it was not refused"),
        }
    }

    fn waits(&mut self, asked: Asked) -> oneshot::Receiver<()> {
        match self.ask(asked) {
            CallDecision::Wait(turn) => turn,
            CallDecision::Go | CallDecision::NotNow(_) => panic!("it does not wait"),
        }
    }

    fn use_quarter(&mut self) {
        for _ in 0..5 {
            assert!(self.goes(linked('a')));
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
    }

    fn hear(&mut self, asked: Asked, status: StatusCode, fields: &[(&'static str, &'static str)]) {
        let headers: HeaderMap = fields
            .iter()
            .map(|(name, value)| (http::HeaderName::from_static(name), http::HeaderValue::from_static(value)))
            .collect();
        let told = RateLimitReport::of(status, &headers, Timestamp::from_seconds(1_700_000_000)).unwrap();
        self.calls.hear(asked, &told, self.now);
    }
}

fn linked(letter: char) -> Asked {
    Asked { owner: OwnerKey::of(letter.into()), class: CallClass::Linked, kind: CallKind::Read }
}

fn stranger(number: u64) -> Asked {
    Asked { owner: OwnerKey::of(number), class: CallClass::Read, kind: CallKind::Read }
}

fn of_kind(kind: CallKind, asked: Asked) -> Asked {
    Asked { kind, ..asked }
}

#[test]
fn the_rest_of_a_window_lasts_until_its_end_and_accounts_take_turns() {
    let mut trial = Trial::new();
    trial.use_quarter();
    let mut waiting: Vec<_> =
        ['a', 'a', 'a', 'a', 'b'].map(|letter| (letter, trial.waits(linked(letter)))).into();
    let mut order = String::new();
    // Fifteen are left for two seconds.
    for number in 1..=5 {
        let due = trial.calls.call_next(trial.now).unwrap();
        assert_eq!(order.len(), number - 1, "none before it is due");
        assert_eq!((due - trial.now).as_millis(), 133);
        trial.now = due;
        let _ = trial.calls.call_next(trial.now);
        waiting.retain_mut(|(letter, turn)| {
            let is_due = turn.try_recv().is_ok();
            order.extend(is_due.then_some(*letter));
            !is_due
        });
    }
    assert_eq!(order, "abaaa");
    assert_eq!(trial.calls.call_next(trial.now), None, "none waits");
}

#[test]
fn a_call_that_left_costs_no_other_one_its_turn() {
    let mut trial = Trial::new();
    trial.use_quarter();
    drop(trial.waits(linked('a')));
    trial.pass(Duration::from_millis(50));
    let waited = trial.calls.waited_in_vain(trial.now);
    assert_eq!((waited.rate, waited.wait), (RULES.calls, Duration::from_millis(1950)));
    let mut turn = trial.waits(linked('b'));
    trial.pass(Duration::from_millis(150));
    assert_eq!(trial.calls.call_next(trial.now), None);
    assert!(turn.try_recv().is_ok());
}

#[test]
fn a_used_up_window_admits_no_call_until_it_ends() {
    let mut trial = Trial::new();
    assert!(trial.goes(linked('a')));
    let told = [
        ("ratelimit-limit", "20"),
        ("ratelimit-remaining", "0"),
        ("ratelimit-reset", "1"),
        ("ratelimit-policy", "20;w=2"),
    ];
    trial.hear(linked('a'), StatusCode::OK, &told);
    assert_eq!(trial.refused(linked('b')).wait, Duration::from_secs(1), "the truth, for everybody");
    assert!(trial.goes(of_kind(CallKind::Repo, linked('a'))), "counted apart");
    trial.pass(Duration::from_secs(1));
    assert!(trial.goes(linked('b')));
}

#[test]
fn a_window_of_an_account_stops_that_account_alone() {
    let mut trial = Trial::new();
    let write = of_kind(CallKind::Write, linked('a'));
    assert!(trial.goes(write));
    // As long as the window of an account's writes.
    let told = [("retry-after", "30"), ("ratelimit-policy", "5000;w=100")];
    trial.hear(write, StatusCode::TOO_MANY_REQUESTS, &told);
    assert_eq!(trial.refused(write).wait, Duration::from_secs(30));
    assert_eq!(trial.refused(of_kind(CallKind::Upload, linked('a'))).wait, Duration::from_secs(30));
    assert!(trial.goes(linked('a')), "reads go on");
    assert!(trial.goes(of_kind(CallKind::Write, linked('b'))));
    trial.pass(Duration::from_secs(30));
    assert!(trial.goes(write));
}

/// The reference PDS allows ten calls of `updateHandle` in five minutes, and fifty in a day.
#[test]
fn a_limit_of_one_method_does_not_stop_the_account() {
    for (policy, reset) in [("10;w=2", "2"), ("50;w=86400", "80000")] {
        let mut trial = Trial::new();
        let write = of_kind(CallKind::Write, linked('a'));
        assert!(trial.goes(write));
        let told = [("ratelimit-remaining", "0"), ("ratelimit-reset", reset), ("ratelimit-policy", policy)];
        trial.hear(write, StatusCode::OK, &told);
        assert!(trial.goes(linked('a')) && trial.goes(write), "{policy}: the last call was allowed");
        trial.hear(write, StatusCode::TOO_MANY_REQUESTS, &told);
        assert!(trial.goes(linked('a')), "{policy}: a read");
        assert_eq!(trial.refused(write).wait, RULES.calls.per, "{policy}: not for a day");
        trial.pass(RULES.calls.per);
        assert!(trial.goes(write), "{policy}");
    }
}

#[test]
fn a_window_that_a_pds_names_stops_a_stranger_no_longer_than_the_common_one() {
    let mut trial = Trial::new();
    assert!(trial.goes(stranger(1)));
    let told = [("ratelimit-remaining", "0"), ("ratelimit-reset", "86400"), ("ratelimit-policy", "1;w=7")];
    trial.hear(stranger(1), StatusCode::OK, &told);
    assert_eq!(trial.refused(stranger(1)).wait, RULES.calls.per);
    assert!(trial.goes(stranger(2)) && trial.goes(linked('a')));
    trial.pass(RULES.calls.per);
    assert!(trial.calls.is_over(trial.now), "nothing is kept of it");
}

/// A refusal that names no window may be meant for one account.
#[test]
fn a_bare_refusal_stops_one_account_and_a_second_one_all() {
    for kind in [CallKind::Read, CallKind::Write, CallKind::Upload, CallKind::Repo] {
        let (repos, uploads) = (Rate { count: 20, ..RULES.repos }, Rate { count: 20, ..RULES.uploads });
        let mut trial = Trial::with(CallBudgetRules { repos, uploads, ..RULES });
        let refuse = |trial: &mut Trial, asked, seconds| {
            trial.hear(asked, StatusCode::TOO_MANY_REQUESTS, &[("retry-after", seconds)]);
        };
        let of = |letter| of_kind(kind, linked(letter));
        refuse(&mut trial, of('a'), "30");
        assert!(trial.goes(of('a')), "{kind:?}: it has no share yet");
        for _ in 0..3 {
            refuse(&mut trial, of('a'), "30");
        }
        assert_eq!(trial.refused(of('a')).wait, Duration::from_secs(30), "{kind:?}");
        assert!(trial.goes(of('b')), "{kind:?}");
        refuse(&mut trial, of('b'), "1");
        assert_eq!(trial.refused(of('c')).wait, Duration::from_secs(1), "{kind:?}: a second account");
        trial.pass(Duration::from_secs(1));
        assert!(trial.goes(of('c')), "{kind:?}");
        // The second refusal confirms the first only while that one's pause lasts.
        trial.pass(RULES.repos.per);
        assert!(trial.goes(of('d')) && trial.goes(of('e')), "{kind:?}");
        refuse(&mut trial, of('d'), "1");
        trial.pass(Duration::from_secs(1));
        refuse(&mut trial, of('e'), "1");
        assert!(trial.goes(of('d')), "{kind:?}");
    }
}

#[test]
fn bare_refusals_of_reads_stop_no_linked_account() {
    for kind in [CallKind::Read, CallKind::Repo] {
        let calls = Rate { count: 400, per: Duration::from_secs(100) };
        let mut trial = Trial::with(CallBudgetRules { calls, repos: calls, ..RULES });
        let read = |number| of_kind(kind, stranger(number));
        assert!(trial.goes(read(1)) && trial.goes(read(2)) && trial.goes(of_kind(kind, linked('a'))));
        trial.hear(read(1), StatusCode::TOO_MANY_REQUESTS, &[("retry-after", "7")]);
        assert_eq!(trial.refused(read(1)).wait, Duration::from_secs(7));
        assert!(trial.goes(read(2)));
        trial.hear(read(2), StatusCode::TOO_MANY_REQUESTS, &[("retry-after", "7")]);
        assert_eq!(trial.refused(read(3)).wait, Duration::from_secs(7), "a second stranger");
        // Nor does the refusal of one linked account confirm them.
        trial.hear(of_kind(kind, linked('a')), StatusCode::TOO_MANY_REQUESTS, &[]);
        for number in 0..40 {
            assert!(trial.goes(of_kind(kind, linked('b'))), "{number}");
        }
        trial.pass(Duration::from_secs(7));
        assert!(trial.goes(read(3)));
    }
}

/// The reference PDS limits single methods, such as `updateHandle`, in a window as long as the common
/// one.
#[test]
fn a_lower_limit_of_the_common_length_is_believed_from_two_accounts_and_never_from_writes() {
    let mut trial = Trial::with(CallBudgetRules { calls: Rate { count: 40, ..RULES.calls }, ..RULES });
    let fields = |remaining| {
        [
            ("ratelimit-limit", "15"),
            ("ratelimit-remaining", remaining),
            ("ratelimit-reset", "2"),
            ("ratelimit-policy", "15;w=2"),
        ]
    };
    let write = |letter| of_kind(CallKind::Write, linked(letter));
    for letter in ['a', 'b'] {
        assert!(trial.goes(write(letter)));
        trial.hear(write(letter), StatusCode::TOO_MANY_REQUESTS, &fields("0"));
        assert_eq!(trial.refused(write(letter)).wait, Duration::from_secs(2));
    }
    for number in [1, 2] {
        assert!(trial.goes(stranger(number)));
        trial.hear(stranger(number), StatusCode::OK, &fields("9"));
    }
    assert!(trial.goes(linked('c')));
    trial.hear(linked('c'), StatusCode::OK, &fields("9"));
    trial.hear(linked('c'), StatusCode::OK, &fields("9"));
    assert_eq!(trial.calls.calls.rate().count, 40);
    assert!(trial.goes(linked('d')));
    trial.hear(linked('d'), StatusCode::OK, &fields("9"));
    assert_eq!(trial.calls.calls.rate().count, 15);
}

#[test]
fn writes_uploads_and_repositories_have_budgets_of_their_own() {
    let mut trial = Trial::with(CallBudgetRules { calls: Rate { count: 40, ..RULES.calls }, ..RULES });
    let [write, upload, repo] = [CallKind::Write, CallKind::Upload, CallKind::Repo]
        .map(|kind| move |letter| of_kind(kind, linked(letter)));
    for _ in 0..3 {
        assert!(trial.goes(write('a')));
    }
    assert_eq!(trial.refused(write('a')).rate, RULES.account_writes);
    assert!(trial.goes(linked('a')));
    for _ in 0..2 {
        assert!(trial.goes(upload('b')) && trial.goes(repo('b')));
    }
    let refused = trial.refused(upload('c'));
    assert_eq!((refused.rate, refused.wait), (RULES.uploads, Duration::from_secs(1000)));
    assert_eq!(trial.refused(repo('c')).rate, RULES.repos);
}

#[test]
fn headers_of_an_upload_count_for_calls_unless_they_name_uploads() {
    for (policy, calls, uploads) in [("1000;w=1000", true, false), ("20;w=2", false, false), ("", true, true)]
    {
        let mut trial = Trial::new();
        let upload = |letter| of_kind(CallKind::Upload, linked(letter));
        assert!(trial.goes(upload('a')));
        let told = [("ratelimit-remaining", "0"), ("ratelimit-reset", "1"), ("ratelimit-policy", policy)];
        let named = if policy.is_empty() { &told[..2] } else { &told };
        trial.hear(upload('a'), StatusCode::OK, named);
        assert_eq!(trial.goes(linked('b')), calls, "{policy}");
        assert_eq!(trial.goes(upload('b')), uploads, "{policy}");
    }
}

/// A stranger with many addresses, and a linked account with a few calls.
#[test]
fn reads_of_strangers_make_no_linked_call_wait_or_fail() {
    let calls = Rate { count: 400, per: Duration::from_secs(100) };
    let mut trial = Trial::with(CallBudgetRules { calls, ..RULES });
    let mut waiting = Vec::new();
    for number in 0..3000 {
        match trial.ask(stranger(number)) {
            CallDecision::Go | CallDecision::NotNow(_) => {}
            CallDecision::Wait(turn) => waiting.push(turn),
        }
    }
    assert_eq!(waiting.len(), 384, "three quarters of the places");
    for second in 0..100 {
        let _ = trial.calls.call_next(trial.now);
        for number in 0..1000 {
            let _ = trial.ask(stranger(second * 1000 + number)).waits_into(&mut waiting);
        }
        assert!(trial.goes(linked('a')), "{second}");
        trial.pass(Duration::from_secs(1));
    }
    // An account with many calls waits for the pace of linked accounts and not for the strangers.
    let mut trial = Trial::with(CallBudgetRules { calls, ..RULES });
    for number in 0..3000 {
        let _ = trial.ask(stranger(number)).waits_into(&mut waiting);
    }
    // Eight reads left, and a quarter of the window is a hundred calls.
    for _ in 0..92 {
        assert!(trial.goes(linked('a')));
    }
    let mut turn = trial.waits(linked('a'));
    assert!(trial.goes(linked('b')));
    trial.pass(Duration::from_secs(1));
    let _ = trial.calls.call_next(trial.now);
    assert!(turn.try_recv().is_ok());
}

/// A quarter of the calls would not do for this account.
#[test]
fn reads_leave_what_linked_accounts_lately_needed() {
    let calls = Rate { count: 400, per: Duration::from_secs(100) };
    let account_calls = Rate { count: 300, per: Duration::from_secs(100) };
    let mut trial = Trial::with(CallBudgetRules { calls, account_calls, ..RULES });
    let (mut waiting, mut reads) = (Vec::new(), 0);
    for tick in 0..600 {
        for number in 0..100 {
            reads += u32::from(trial.goes(stranger(tick * 100 + number)));
        }
        for number in 0..20 {
            let _ = trial.ask(stranger(1_000_000 + number)).waits_into(&mut waiting);
        }
        assert!(trial.goes(linked('a')), "{tick}");
        trial.pass(Duration::from_millis(500));
        let _ = trial.calls.call_next(trial.now);
    }
    reads += u32::try_from(waiting.iter_mut().filter_map(|turn| turn.try_recv().ok()).count()).unwrap();
    assert!((590..=610).contains(&reads), "reads have the other half of three windows: {reads}");
}

/// One person may have many accounts at a PDS, each within its own limit.
#[test]
fn linked_accounts_with_many_calls_make_no_other_one_wait_or_fail() {
    let calls = Rate { count: 3000, per: Duration::from_mins(5) };
    let account_calls = Rate { count: 1500, per: Duration::from_mins(5) };
    for burst in [0, 500] {
        let mut trial = Trial::with(CallBudgetRules { calls, account_calls, ..RULES });
        let (mut left, mut turns) = (0, Vec::new());
        for tick in 0..6000 {
            for loud in ['x', 'y', 'z'] {
                let count = if tick == 0 { burst } else { u32::from(tick % 2 == 0) };
                for _ in 0..count {
                    match trial.ask(linked(loud)) {
                        CallDecision::Go => left += 1,
                        CallDecision::Wait(turn) => turns.push((tick, turn)),
                        CallDecision::NotNow(_) => {}
                    }
                }
            }
            if tick % 7 == 3 {
                assert!(trial.goes(linked('a')), "{tick}, after a burst of {burst}");
            }
            // Calls wait for two seconds at most.
            turns.retain_mut(|(since, turn)| {
                let has_come = turn.try_recv().is_ok();
                left += u32::from(has_come);
                !has_come && tick - *since < 20
            });
            trial.pass(Duration::from_millis(100));
            let _ = trial.calls.call_next(trial.now);
        }
        // In ten minutes the PDS allows 6000 calls, of which the quiet account makes 857.
        assert!((4000..6000).contains(&left), "{left} after a burst of {burst}");
    }
}

#[test]
fn many_reads_at_once_leave_one_after_the_other() {
    let calls = Rate { count: 3000, per: Duration::from_mins(5) };
    let mut trial = Trial::with(CallBudgetRules { calls, ..RULES });
    let burst = (0..1000).filter(|number| trial.goes(stranger(*number))).count();
    assert_eq!(burst, 60);
    let mut waiting = Vec::new();
    for number in 0..1000 {
        let _ = trial.ask(stranger(number)).waits_into(&mut waiting);
        trial.pass(Duration::from_millis(10));
        let _ = trial.calls.call_next(trial.now);
    }
    let left = waiting.iter_mut().filter_map(|turn| turn.try_recv().ok()).count();
    assert!((68..=74).contains(&left), "7.3 a second for ten seconds: {left}");
    assert!(trial.goes(linked('a')));
}

#[test]
fn linked_accounts_have_the_places_that_reads_leave() {
    let mut trial = Trial::new();
    trial.use_quarter();
    let mut turns = Vec::new();
    for number in 0..600_u32 {
        let _ = trial.ask(linked(char::from_u32(1000 + number).unwrap())).waits_into(&mut turns);
    }
    assert_eq!(turns.len(), MOST_WAITING);
}

#[test]
fn a_pds_is_forgotten_only_when_nothing_of_it_counts() {
    let mut trial = Trial::new();
    assert!(trial.calls.is_over(trial.now) && trial.calls.loss(trial.now) == Some((0, false, 0)));
    assert!(trial.goes(stranger(1)) && trial.goes(linked('a')));
    assert!(!trial.calls.is_over(trial.now));
    assert_eq!(trial.calls.loss(trial.now), Some((1, false, 2)));
    for _ in 0..3 {
        assert!(trial.goes(linked('a')));
    }
    assert_eq!(trial.calls.loss(trial.now), Some((4, true, 5)), "a quarter is used");
    let turn = trial.waits(linked('a'));
    trial.pass(RULES.calls.per);
    assert_eq!((trial.calls.is_over(trial.now), trial.calls.loss(trial.now)), (false, None), "one waits");
    drop(turn);
    let _ = trial.calls.call_next(trial.now);
    assert!(trial.calls.is_over(trial.now));
    assert!(trial.goes(of_kind(CallKind::Upload, linked('a'))));
    trial.pass(RULES.calls.per);
    assert_eq!(trial.calls.loss(trial.now), Some((1, true, 1)), "half of the day's uploads");
}

impl CallDecision {
    fn waits_into(self, turns: &mut Vec<oneshot::Receiver<()>>) -> bool {
        match self {
            Self::Wait(turn) => {
                turns.push(turn);
                true
            }
            Self::Go | Self::NotNow(_) => false,
        }
    }
}
