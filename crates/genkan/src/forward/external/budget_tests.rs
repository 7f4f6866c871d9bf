//! Real time passes here, so nothing depends on how much. `host_tests` has the rules of time.

use super::super::hosts::MOST_HOSTS;
use super::*;
use crate::base::monotonic_now;
use crate::config::Rate;
use crate::limits::ClientNetwork;

const RULES: CallBudgetRules = CallBudgetRules {
    calls: Rate { count: 20, per: Duration::from_secs(2) },
    repos: Rate { count: 2, per: Duration::from_secs(100) },
    uploads: Rate { count: 2, per: Duration::from_secs(1000) },
    account_calls: Rate { count: 100, per: Duration::from_secs(100) },
    account_writes: Rate { count: 3, per: Duration::from_secs(100) },
    wait: Duration::from_secs(30),
};
/// Windows that end after every test.
const LONG: CallBudgetRules =
    CallBudgetRules { calls: Rate { count: 20, per: Duration::from_hours(10) }, ..RULES };

fn pds() -> Origin {
    "https://pds.example.com".parse().unwrap()
}

fn account(letter: char) -> CallOwner {
    CallOwner::Did(format!("did:plc:{}", letter.to_string().repeat(24)).parse().unwrap())
}

fn client(number: u32) -> CallOwner {
    CallOwner::Client(ClientNetwork::of(std::net::Ipv4Addr::from(number).into()))
}

impl CallBudgets {
    fn known_count(&self) -> usize {
        self.hosts().len()
    }
}

fn budgets(rules: CallBudgetRules) -> CallBudgets {
    CallBudgets::new(rules, LiveReplicas::one())
}

async fn use_quarter(fair: &CallBudgets) {
    for _ in 0..5 {
        assert_eq!(fair.admit(&pds(), &account('a'), CallKind::Read).await, Ok(Admission::Immediate));
    }
}

/// Begins a call that waits.
async fn wait(
    fair: &CallBudgets,
    owner: CallOwner,
) -> tokio::task::JoinHandle<Result<Admission, BudgetError>> {
    let before = fair.host(&pds(), CallClass::Linked).unwrap().lock().waiting();
    let task = tokio::spawn({
        let fair = fair.clone();
        async move { fair.admit(&pds(), &owner, CallKind::Read).await }
    });
    while fair.host(&pds(), CallClass::Linked).unwrap().lock().waiting() == before && !task.is_finished() {
        tokio::task::yield_now().await;
    }
    task
}

#[tokio::test]
async fn waiting_calls_leave_by_themselves() {
    let fair = budgets(RULES);
    use_quarter(&fair).await;
    for task in [wait(&fair, account('a')).await, wait(&fair, account('b')).await] {
        assert_eq!(task.await.unwrap(), Ok(Admission::AfterWaiting));
    }
}

/// Runs a future to its end, and counts how often it was polled.
async fn counting_polls<T>(future: impl Future<Output = T>) -> (T, usize) {
    let mut future = std::pin::pin!(future);
    let mut polls = 0;
    let outcome = std::future::poll_fn(|context| {
        polls += 1;
        future.as_mut().poll(context)
    })
    .await;
    (outcome, polls)
}

/// With many calls that wait, each look at the queue costs a lock and time of the thread.
#[tokio::test]
async fn waiting_calls_and_the_task_that_admits_them_sleep_until_a_turn_is_due() {
    let fair = budgets(RULES);
    use_quarter(&fair).await;
    let host = fair.host(&pds(), CallClass::Linked).unwrap();
    // The test drives the queue itself.
    host.lock().is_driven = true;
    let waiting = ['a', 'b', 'c', 'd'].map(|letter| {
        let fair = fair.clone();
        tokio::spawn(
            async move { counting_polls(fair.admit(&pds(), &account(letter), CallKind::Read)).await },
        )
    });
    // On a machine that stood still a turn may be due at once.
    let gone = || waiting.iter().filter(|call| call.is_finished()).count();
    while host.lock().waiting() + gone() < waiting.len() {
        tokio::task::yield_now().await;
    }
    // The turns are 133 ms apart.
    let driver = admit_waiting(Arc::clone(&host), LiveReplicas::one(), RULES.wait);
    let ((), polls) = counting_polls(driver).await;
    assert!(polls <= 2 * waiting.len(), "{polls}");
    for call in waiting {
        let (outcome, polls) = call.await.unwrap();
        assert!(outcome.is_ok() && polls <= 3, "{outcome:?} {polls}");
    }
}

#[tokio::test]
async fn waiting_calls_leave_when_the_pds_says_that_more_are_left() {
    let fair = budgets(LONG);
    use_quarter(&fair).await;
    let waiting = wait(&fair, account('b')).await;
    assert!(!waiting.is_finished());
    let told = [
        ("ratelimit-limit", "1000"),
        ("ratelimit-remaining", "990"),
        ("ratelimit-reset", "30000"),
        ("ratelimit-policy", "1000;w=36000"),
    ]
    .map(|(name, value)| (http::HeaderName::from_static(name), http::HeaderValue::from_static(value)));
    let now = Timestamp::from_seconds(1_700_000_000);
    let headers = told.into_iter().collect();
    fair.hear(&pds(), &account('a'), CallKind::Read, StatusCode::OK, &headers, now);
    assert_eq!(waiting.await.unwrap(), Ok(Admission::AfterWaiting));
    assert_eq!(fair.known(), (1, 0));
}

#[tokio::test]
async fn a_call_waits_no_longer_than_it_may_and_then_no_task_is_left() {
    let fair = budgets(CallBudgetRules { wait: Duration::from_millis(10), ..LONG });
    use_quarter(&fair).await;
    let refused = fair.admit(&pds(), &account('a'), CallKind::Read).await.unwrap_err();
    assert_eq!((refused.rate, refused.wait), (LONG.calls, LONGEST_GUESS));
    let host = fair.host(&pds(), CallClass::Linked).unwrap();
    let until = monotonic_now() + Duration::from_secs(30);
    // The task that admits calls, which also holds it, ends by itself.
    while Arc::strong_count(&host) > 2 || host.lock().has_waiting() {
        assert!(monotonic_now() < until);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(!host.lock().is_driven);
}

#[tokio::test]
async fn each_pds_has_a_budget_of_its_own() {
    let fair = budgets(CallBudgetRules { wait: Duration::ZERO, ..LONG });
    while fair.admit(&pds(), &account('a'), CallKind::Read).await.is_ok() {}
    let other = "https://other.example.com".parse().unwrap();
    assert_eq!(fair.admit(&other, &account('a'), CallKind::Read).await, Ok(Admission::Immediate));
}

#[tokio::test]
async fn replicas_together_stay_within_a_pds_limit() {
    let replicas = LiveReplicas::one();
    let all: Vec<_> = (0..4)
        .map(|_| CallBudgets::new(CallBudgetRules { wait: Duration::ZERO, ..LONG }, replicas.clone()))
        .collect();
    replicas.set(4);
    let mut admitted = 0;
    for fair in &all {
        let refused = loop {
            match fair.admit(&pds(), &account('a'), CallKind::Read).await {
                Ok(_) => admitted += 1,
                Err(refused) => break refused,
            }
        };
        assert_eq!(refused.rate.count, 5, "a quarter of 20");
    }
    assert!((4..=20).contains(&admitted), "{admitted}");
}

#[tokio::test]
async fn a_flood_of_pdses_forgets_no_pds_whose_budget_is_spent_or_in_use() {
    let fair = budgets(LONG);
    use_quarter(&fair).await;
    let waiting = wait(&fair, account('b')).await;
    let spent: Origin = "https://spent.example.com".parse().unwrap();
    while fair.admit(&spent, &account('a'), CallKind::Repo).await.is_ok() {}
    let linked: Origin = "https://linked.example.com".parse().unwrap();
    fair.admit(&linked, &account('a'), CallKind::Read).await.unwrap();
    for number in 0..3 * MOST_HOSTS {
        let other = format!("https://{number}.example.com").parse().unwrap();
        fair.admit(&other, &client(1), CallKind::Read).await.unwrap();
    }
    assert!(fair.known().0 <= MOST_HOSTS);
    assert!(fair.admit(&spent, &account('a'), CallKind::Repo).await.is_err());
    let has = |pds: &Origin| fair.hosts().get(pds, CallClass::Read).is_some();
    assert!(has(&linked), "those that are only read go first");
    assert!(has(&pds()) && !waiting.is_finished());
    waiting.abort();
}

/// A PDS decides what its headers say, and one owner of names has as many PDSes as it likes.
#[tokio::test]
async fn pdses_that_allow_no_more_calls_keep_no_other_pds_out() {
    let told = [("retry-after", "86400"), ("ratelimit-policy", "1;w=7")]
        .map(|(name, value)| (http::HeaderName::from_static(name), http::HeaderValue::from_static(value)));
    let headers = told.into_iter().collect();
    let now = Timestamp::from_seconds(1_700_000_000);
    for flood in [client(1), account('z')] {
        let fair = budgets(LONG);
        let linked: Origin = "https://linked.example.com".parse().unwrap();
        while fair.admit(&linked, &account('a'), CallKind::Repo).await.is_ok() {}
        for number in 0..2 * MOST_HOSTS {
            let pds = format!("https://{number}.example.com").parse().unwrap();
            let _ = fair.admit(&pds, &flood, CallKind::Read).await;
            fair.hear(&pds, &flood, CallKind::Read, StatusCode::TOO_MANY_REQUESTS, &headers, now);
        }
        for (number, owner) in [account('b'), client(2)].into_iter().enumerate() {
            let other = format!("https://other{number}.example.com").parse().unwrap();
            let admission = fair.admit(&other, &owner, CallKind::Read).await;
            assert_eq!(admission, Ok(Admission::Immediate), "{flood:?} {owner:?}");
        }
        let again = fair.admit(&linked, &account('a'), CallKind::Repo).await;
        assert!(again.is_err(), "{flood:?}: what linked accounts used up is forgotten last");
        assert!(fair.known().0 <= MOST_HOSTS);
    }
}

#[tokio::test]
async fn pdses_that_are_only_read_leave_a_quarter_of_the_memory() {
    let fair = budgets(LONG);
    for number in 0..2 * MOST_HOSTS {
        let pds = format!("https://{number}.example.com").parse().unwrap();
        fair.admit(&pds, &client(1), CallKind::Read).await.unwrap();
        assert!(fair.known_count() <= MOST_HOSTS / 4 * 3);
    }
    for number in 0..MOST_HOSTS {
        let pds = format!("https://linked{number}.example.com").parse().unwrap();
        fair.admit(&pds, &account('a'), CallKind::Read).await.unwrap();
    }
    assert!(fair.known_count() > MOST_HOSTS / 10 * 9);
    fair.admit(&pds(), &client(1), CallKind::Read).await.unwrap();
}
