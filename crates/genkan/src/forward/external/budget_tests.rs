use super::*;
use crate::base::monotonic_now;
use crate::routing::table;

const RULES: CallBudgetRules = CallBudgetRules {
    calls: Rate { count: 20, per: Duration::from_secs(2) },
    repos: Rate { count: 2, per: Duration::from_secs(100) },
    uploads: Rate { count: 2, per: Duration::from_secs(1000) },
    account_calls: Rate { count: 100, per: Duration::from_secs(100) },
    account_writes: Rate { count: 3, per: Duration::from_secs(100) },
    wait: Duration::from_secs(5),
};

fn pds() -> Origin {
    "https://pds.example.com".parse().unwrap()
}

fn account(letter: char) -> CallOwner {
    CallOwner::Did(format!("did:plc:{}", letter.to_string().repeat(24)).parse().unwrap())
}

fn fields(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    pairs
        .iter()
        .map(|(name, value)| (http::HeaderName::from_static(name), http::HeaderValue::from_static(value)))
        .collect()
}

async fn use_half(fair: &CallBudgets) {
    for _ in 0..10 {
        assert_eq!(fair.admit(&pds(), &account('a'), CallKind::Read).await, Ok(Admission::Immediate));
    }
}

#[tokio::test]
async fn the_second_half_of_a_window_lasts_until_its_end_and_accounts_take_turns() {
    let fair = CallBudgets::new(RULES);
    use_half(&fair).await;
    let began = monotonic_now();
    let order = Arc::new(Mutex::new(Vec::new()));
    let mut waiting = Vec::new();
    for letter in ['a', 'a', 'a', 'a', 'b'] {
        let (fair, order) = (fair.clone(), Arc::clone(&order));
        waiting.push(tokio::spawn(async move {
            fair.admit(&pds(), &account(letter), CallKind::Read).await.unwrap();
            order.lock().unwrap().push((letter, began.elapsed()));
        }));
        tokio::task::yield_now().await;
    }
    for task in waiting {
        task.await.unwrap();
    }
    let order = order.lock().unwrap();
    let letters: String = order.iter().map(|(letter, _)| *letter).collect();
    assert_eq!(letters, "abaaa", "{order:?}");
    // Ten are left for two seconds.
    for (number, (_, waited)) in (1..).zip(order.iter()) {
        assert!(*waited >= Duration::from_millis(170) * number, "{order:?}");
    }
}

#[tokio::test]
async fn a_caller_that_waits_too_long_learns_when_to_retry_and_one_that_leaves_is_skipped() {
    let rules = CallBudgetRules { wait: Duration::from_millis(50), ..RULES };
    let fair = CallBudgets::new(rules);
    use_half(&fair).await;
    let refused = fair.admit(&pds(), &account('a'), CallKind::Read).await.unwrap_err();
    assert_eq!(refused.rate, RULES.calls);
    assert!(refused.wait > Duration::from_secs(1) && refused.wait < Duration::from_secs(2), "{refused:?}");
    let asking = async { fair.admit(&pds(), &account('a'), CallKind::Read).await };
    let _ = tokio::time::timeout(Duration::from_millis(20), asking).await;
    tokio::time::sleep(Duration::from_millis(90)).await;
    let began = monotonic_now();
    assert_eq!(fair.admit(&pds(), &account('b'), CallKind::Read).await, Ok(Admission::AfterWaiting));
    assert!(began.elapsed() < Duration::from_millis(50), "those who left cost nobody a turn");
}

#[tokio::test]
async fn a_used_up_window_admits_no_call_until_it_ends() {
    let fair = CallBudgets::new(RULES);
    let told = fields(&[
        ("ratelimit-limit", "20"),
        ("ratelimit-remaining", "0"),
        ("ratelimit-reset", "1"),
        ("ratelimit-policy", "20;w=2"),
    ]);
    let now = Timestamp::from_seconds(1_700_000_000);
    assert!(fair.admit(&pds(), &account('a'), CallKind::Read).await.is_ok());
    fair.hear(&pds(), &account('a'), CallKind::Read, StatusCode::OK, &told, now);
    let refused = fair.admit(&pds(), &account('b'), CallKind::Read).await.unwrap_err();
    assert!(
        refused.wait > Duration::from_millis(800) && refused.wait <= Duration::from_secs(1),
        "the truth, for everybody"
    );
    assert_eq!(fair.known(), (1, 1));
    let other = "https://other.example.com".parse().unwrap();
    assert!(fair.admit(&other, &account('a'), CallKind::Read).await.is_ok(), "each host by itself");
    assert!(fair.admit(&pds(), &account('a'), CallKind::Repo).await.is_ok(), "counted apart");
    tokio::time::sleep(Duration::from_millis(1050)).await;
    assert!(fair.admit(&pds(), &account('b'), CallKind::Read).await.is_ok());
}

#[tokio::test]
async fn a_window_of_an_account_stops_that_account_alone() {
    let fair = CallBudgets::new(RULES);
    assert!(fair.admit(&pds(), &account('a'), CallKind::Write).await.is_ok());
    let told = fields(&[("retry-after", "30"), ("ratelimit-policy", "5000;w=3600")]);
    let now = Timestamp::from_seconds(1_700_000_000);
    fair.hear(&pds(), &account('a'), CallKind::Write, StatusCode::TOO_MANY_REQUESTS, &told, now);
    let refused = fair.admit(&pds(), &account('a'), CallKind::Read).await.unwrap_err();
    assert!(refused.wait > Duration::from_secs(29) && refused.wait <= Duration::from_secs(30));
    assert!(fair.admit(&pds(), &account('b'), CallKind::Write).await.is_ok());
}

#[tokio::test]
async fn writes_uploads_and_repositories_have_budgets_of_their_own() {
    let fair = CallBudgets::new(RULES);
    for _ in 0..3 {
        assert!(fair.admit(&pds(), &account('a'), CallKind::Write).await.is_ok());
    }
    assert!(fair.admit(&pds(), &account('a'), CallKind::Write).await.is_err());
    assert!(fair.admit(&pds(), &account('a'), CallKind::Read).await.is_ok());
    for _ in 0..2 {
        assert!(fair.admit(&pds(), &account('b'), CallKind::Upload).await.is_ok());
        assert!(fair.admit(&pds(), &account('b'), CallKind::Repo).await.is_ok());
    }
    let refused = fair.admit(&pds(), &account('c'), CallKind::Upload).await.unwrap_err();
    assert!(refused.rate == RULES.uploads && refused.wait > Duration::from_secs(990), "{refused:?}");
    assert!(fair.admit(&pds(), &account('c'), CallKind::Repo).await.is_err());
}

#[tokio::test]
async fn headers_of_an_upload_count_for_calls_unless_they_name_uploads() {
    let now = Timestamp::from_seconds(1_700_000_000);
    for (policy, calls, uploads) in
        [("1000;w=1000", true, false), ("20;w=2", false, false), ("", false, false)]
    {
        let fair = CallBudgets::new(RULES);
        assert!(fair.admit(&pds(), &account('a'), CallKind::Upload).await.is_ok());
        let mut told = fields(&[("ratelimit-remaining", "0"), ("ratelimit-reset", "1")]);
        if !policy.is_empty() {
            told.insert("ratelimit-policy", http::HeaderValue::from_static(policy));
        }
        fair.hear(&pds(), &account('a'), CallKind::Upload, StatusCode::OK, &told, now);
        assert_eq!(fair.admit(&pds(), &account('b'), CallKind::Read).await.is_ok(), calls, "{policy}");
        assert_eq!(fair.admit(&pds(), &account('b'), CallKind::Upload).await.is_ok(), uploads, "{policy}");
    }
}

#[test]
fn methods_are_told_apart_in_any_letter_case() {
    for (method, is_write, kind) in [
        ("com.atproto.repo.uploadBlob", true, CallKind::Upload),
        ("COM.ATPROTO.REPO.UPLOADBLOB", true, CallKind::Upload),
        ("com.atproto.sync.getRepo", false, CallKind::Repo),
        ("com.atproto.repo.createRecord", true, CallKind::Write),
        ("com.atproto.repo.getRecord", false, CallKind::Read),
    ] {
        let verb = if is_write { Method::POST } else { Method::GET };
        assert_eq!(CallKind::of(table::row(method).weight, &verb), kind, "{method}");
    }
}
