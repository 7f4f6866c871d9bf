//! Reads of accounts on external PDSes. Tests named `cNN` are lines of the contract's checklist.

use std::time::Duration;

use genkan_testing::Gate;

use super::fake_rooms::{ALICE, BOB};
use super::network::{ExternalSetup, Network, eventually, retry_after, summary};
use super::raw_host::{HostConnection, RawHost, answers, answers_at, answers_ok, answers_once, stays_silent};
use crate::config::{Rate, TargetReads};
use crate::identity::{self, PdsLocation, PdsLocationError};

pub(super) const ZOE: &str = "did:plc:zzzzzzzzzzzzzzzzzzzzzzzz";
const READ: &str = "GET /xrpc/com.atproto.sync.getRepo?did=did:plc:zzzzzzzzzzzzzzzzzzzzzzzz";

/// Starts an edge that finds Zoe's account on this external PDS, by its DID and by its handle.
async fn zoe_at(there: &RawHost) -> Network {
    let network = Network::with_external(ExternalSetup::listing(&[there]), |_| {}).await;
    network.lives(ZOE, ZOE, &there.origin);
    network.lives("zoe.external.com", ZOE, &there.origin);
    network
}

#[tokio::test]
async fn c01_every_read_that_names_an_account_goes_to_that_account_in_any_letter_case() {
    let there = RawHost::start(answers_ok).await;
    let network = zoe_at(&there).await;
    let sync = [
        "getRepo",
        "getRecord",
        "getBlob",
        "listBlobs",
        "getLatestCommit",
        "getRepoStatus",
        "getBlocks",
        "getHead",
        "getCheckout",
    ];
    let repo = ["getRecord", "listRecords", "describeRepo"];
    let sync = sync.map(|name| (format!("com.atproto.sync.{name}"), format!("did={ZOE}")));
    let repo = repo.iter().flat_map(|name| {
        ["zoe.external.com", ZOE].map(|who| (format!("com.atproto.repo.{name}"), format!("repo={who}")))
    });
    let mut lines = Vec::new();
    for (method, query) in sync.into_iter().chain(repo) {
        for method in [method.clone(), method.replace("com.atproto", "COM.Atproto").replace("get", "GET")] {
            for verb in ["GET", "HEAD"] {
                // The unknown parameter shows that the query crosses byte by byte.
                let line = format!("{verb} /xrpc/{method}?{query}&x=%2F");
                assert!(network.ask(&line, "").await.starts_with("HTTP/1.1 200 "), "{line}");
                lines.push(format!("{line} HTTP/1.1"));
            }
        }
    }
    let heard = there.heard();
    let heard: Vec<_> = heard.iter().map(|head| head.lines().next().unwrap()).collect();
    assert_eq!(heard, lines, "as they came, and nothing else");
    assert_eq!(network.one.connections() + network.two.connections(), 0);
}

#[tokio::test]
async fn c02_nothing_of_the_caller_reaches_an_external_pds_and_a_stale_token_does_not_matter() {
    let there = RawHost::start(answers_ok).await;
    let network = zoe_at(&there).await;
    let fields = "authorization: Bearer expired\r\ndpop: x\r\ncookie: a=b\r\nhabitat-auth-method: nonsense\r\n\
        x-forwarded-for: 6.6.6.6\r\nforwarded: for=6.6.6.6\r\nproxy-authorization: x\r\norigin: https://x\r\nreferer: x\r\n\
        atproto-proxy: did:web:x#y\r\natproto-accept-labelers: x\r\nx-atproto-thing: x\r\nx-bsky-topics: x\r\n\
        user-agent: curl\r\naccept: application/vnd.ipld.car\r\nrange: bytes=0-9\r\nif-none-match: \"x\"\r\n";
    for line in [READ, "GET /xrpc/com.atproto.repo.describeRepo?repo=zoe.external.com"] {
        assert!(network.ask(line, fields).await.starts_with("HTTP/1.1 200 "));
    }
    for heard in there.heard() {
        let mut names: Vec<_> =
            heard.lines().skip(1).filter_map(|line| Some(line.split_once(": ")?.0)).collect();
        names.sort_unstable();
        assert_eq!(
            names,
            ["accept", "accept-encoding", "host", "if-none-match", "range", "user-agent", "via"],
            "{heard}"
        );
        assert!(heard.contains("user-agent: Genkan/") && heard.contains("accept-encoding: identity\r\n"));
    }
}

#[tokio::test]
async fn c03_an_account_that_leads_nowhere_is_502_by_name() {
    let there = RawHost::start(answers_ok).await;
    let network = zoe_at(&there).await;
    let unresolved: PdsLocationError = identity::Error::Passing("the directory is away".into()).into();
    for (did, problem, expected) in [
        ("did:plc:cccccccccccccccccccccccc", unresolved, "502 DidResolutionFailed"),
        ("did:plc:dddddddddddddddddddddddd", identity::Error::Ended.into(), "502 DidResolutionFailed"),
        ("did:plc:eeeeeeeeeeeeeeeeeeeeeeee", PdsLocationError::Unconfirmed, "502 DidResolutionFailed"),
        ("did:plc:ffffffffffffffffffffffff", PdsLocationError::NoPds, "502 PdsNotFound"),
    ] {
        network.external().locations.insert(did.to_owned(), Err(problem));
        let answer = network.ask(&format!("GET /xrpc/com.atproto.sync.getRepo?did={did}"), "").await;
        assert_eq!(summary(&answer), expected);
        assert!(
            answer.contains("x-genkan-error: gateway\r\n")
                && answer.contains("content-type: application/json\r\n")
        );
    }
    for (query, expected) in [
        ("com.atproto.repo.describeRepo?repo=nobody.external.com", "502 DidResolutionFailed"),
        ("com.atproto.repo.describeRepo?repo=nobody.genkan.example", "400 RepoNotFound"),
        ("com.atproto.sync.getRepo?did=zoe.external.com", "400 InvalidRequest"),
        (
            "com.atproto.sync.getRepo?did=did:key:zQ3shXjHeiBuRCKmM36cuYnm7YEMzhGnCmCyW92sRJ9pribSF",
            "400 InvalidRequest",
        ),
        ("com.atproto.sync.getRepo", "400 InvalidRequest"),
        ("com.atproto.sync.getRepo?did=", "400 InvalidRequest"),
        (&format!("com.atproto.sync.getRepo?did={ZOE}&did={ZOE}"), "400 InvalidRequest"),
    ] {
        assert_eq!(summary(&network.ask(&format!("GET /xrpc/{query}"), "").await), expected, "{query}");
    }
    assert_eq!(there.connections(), 0);
}

#[tokio::test]
async fn c04_fifty_cids_arrive_byte_identical() {
    let there = RawHost::start(answers_ok).await;
    let network = zoe_at(&there).await;
    let cids: Vec<_> = (0..50).map(|number| format!("&cids=bafyrei%{number:02}x{number}+")).collect();
    let cids = cids.concat();
    let target = format!("/xrpc/com.atproto.sync.getBlocks?cids=first&did={ZOE}{cids}&&=&x");
    assert!(network.ask(&format!("GET {target}"), "").await.starts_with("HTTP/1.1 200 "));
    assert!(there.heard()[0].starts_with(&format!("GET {target} HTTP/1.1\r\n")));
}

#[tokio::test]
async fn c17_what_a_hostile_pds_serves_does_nothing_on_our_origin() {
    // Everything by which a server could act on the origin of the sign-in pages.
    let page = "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\nset-cookie: a=b\r\nlocation: https://x/\r\n\
        access-control-allow-origin: https://evil\r\naccess-control-allow-credentials: true\r\nrefresh: 0;url=/\r\n\
        link: </x>; rel=preload\r\nclear-site-data: \"*\"\r\nstrict-transport-security: max-age=0\r\nalt-svc: h3=\":1\"\r\n\
        content-security-policy: default-src *\r\nwww-authenticate: Bearer error=\"invalid_token\"\r\ndpop-nonce: x\r\n\
        x-genkan-error: gateway\r\ncontent-disposition: inline; filename=\"a.html\"\r\ncontent-length: 8\r\n\r\n<script>";
    let there = RawHost::start(answers(page)).await;
    let network = zoe_at(&there).await;
    let answer = network.ask(&READ.replace("getRepo", "getBlob"), "").await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert_eq!(body, "<script>");
    let mut names: Vec<_> = head.lines().skip(1).map(|line| line.split_once(": ").unwrap().0).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "access-control-allow-origin",
            "access-control-expose-headers",
            "connection",
            "content-disposition",
            "content-length",
            "content-security-policy",
            "content-type",
            "cross-origin-resource-policy",
            "date",
            "referrer-policy",
            "x-content-type-options",
        ]
    );
    for line in [
        "access-control-allow-origin: *",
        "content-security-policy: default-src 'none'; sandbox",
        "content-disposition: attachment; filename=\"a.html\"",
        "x-content-type-options: nosniff",
    ] {
        assert!(head.contains(line), "{line}: {head}");
    }
}

/// Every way in which an answer can fail to arrive.
#[tokio::test]
async fn c17_garbage_is_502_and_silence_504() {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n";
    let ten_megabytes = "x".repeat(10 << 20);
    for (garbage, expected) in [
        (
            format!("{head}x-secret: {ten_megabytes}\r\ncontent-length: 6\r\n\r\nsecret"),
            "502 UpstreamFailure",
        ),
        (format!("{head}content-length: 6\r\ncontent-length: 6\r\n\r\nsecret"), "502 UpstreamFailure"),
        (format!("{head}content-length: 6\r\ncontent-length: 7\r\n\r\nsecret"), "502 UpstreamFailure"),
        (format!("{head}content-length: 5000000000\r\n\r\nsecret"), "502 UpstreamFailure"),
        ("secret\r\n\r\n".to_owned(), "502 UpstreamFailure"),
        ("HTTP/1.1 302 Found\r\ncontent-length: 0\r\n\r\n".to_owned(), "502 UpstreamFailure"),
        (String::new(), "502 UpstreamFailure"),
    ] {
        let there = RawHost::start(answers_once(&garbage)).await;
        let network = zoe_at(&there).await;
        let answer = network.ask(READ, "").await;
        assert_eq!(summary(&answer), expected, "{garbage:.80}");
        assert!(!answer.contains("secret") && answer.contains("x-genkan-error: gateway\r\n"), "{answer}");
    }
    // Silence takes the whole limit, so it has an edge of its own with a short one.
    let hush = RawHost::start(stays_silent).await;
    let network = Network::with_external(ExternalSetup::listing(&[&hush]), |settings| {
        settings.forward.answer_head = Duration::from_millis(200);
    })
    .await;
    network.lives(ZOE, ZOE, &hush.origin);
    assert_eq!(summary(&network.ask(READ, "").await), "504 UpstreamTimeout");
}

#[tokio::test]
async fn c17_cut_slow_and_endless_bodies_end_as_cuts() {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/vnd.ipld.car\r\n";
    let cut: &str = format!("{head}content-length: 20\r\n\r\nhalf").leak();
    let slow: &str = format!("{head}transfer-encoding: chunked\r\n\r\n4\r\nslow\r\n").leak();
    let endless: &str = format!(
        "{head}transfer-encoding: chunked\r\n\r\n{}",
        "400\r\n".to_owned() + &"x".repeat(1024) + "\r\n"
    )
    .leak();
    let there = RawHost::start(move |mut connection: HostConnection| async move {
        let asked = connection.request().await.unwrap();
        if asked.contains("getHead") {
            connection.say(cut).await;
        } else if asked.contains("getCheckout") {
            connection.say(slow).await;
            std::future::pending::<()>().await;
        } else {
            connection.say(endless).await;
            for _ in 0..100_000 {
                connection.say(endless.split_once("\r\n\r\n").unwrap().1).await;
            }
        }
    })
    .await;
    let network = Network::with_external(ExternalSetup::listing(&[&there]), |settings| {
        settings.forward.idle = Duration::from_millis(300);
        settings.forward.answer = 1 << 20;
    })
    .await;
    network.lives(ZOE, ZOE, &there.origin);
    let answer = network.ask(&READ.replace("getRepo", "getHead"), "").await;
    assert!(answer.contains("content-length: 20\r\n") && answer.ends_with("half"), "{answer}");
    let answer = network.ask(&READ.replace("getRepo", "getCheckout"), "").await;
    assert!(answer.contains("slow") && !answer.ends_with("0\r\n\r\n"), "{answer}");
    let answer = network.ask(READ, "").await;
    assert!(answer.len() > 500_000 && answer.len() < 3 << 20, "{}", answer.len());
    assert!(!answer.ends_with("0\r\n\r\n"));
}

#[tokio::test]
async fn c20_errors_of_a_pds_pass_as_they_are_compressed_ones_too() {
    for status in [
        "304 Not Modified",
        "400 Bad Request",
        "401 Unauthorized",
        "404 Not Found",
        "416 X",
        "429 X",
        "500 X",
        "503 X",
    ] {
        let is_empty = status.starts_with("304");
        let body = if is_empty { "" } else { "\u{1f}\u{8b}not json \u{0}" };
        let whole = format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-encoding: gzip\r\nretry-after: 7\r\n\
             ratelimit-remaining: 3\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let there = RawHost::start(answers(whole.leak())).await;
        let network = zoe_at(&there).await;
        let answer = network.ask(READ, "").await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {}", &status[..3])), "{answer}");
        assert!(answer.ends_with(&format!("\r\n\r\n{body}")), "{answer}");
        assert!(answer.contains("retry-after: 7\r\n") && answer.contains("ratelimit-remaining: 3\r\n"));
        assert!(!answer.contains("x-genkan-error") && !answer.contains("www-authenticate: "), "{answer}");
        assert!(is_empty || answer.contains("content-encoding: gzip\r\n"), "{answer}");
    }
}

#[tokio::test]
async fn an_account_that_is_not_there_any_more_is_looked_for_once() {
    let gone = "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: 24\r\n\r\n{\"error\":\"RepoNotFound\"}";
    let (old, new) = (RawHost::start(answers(gone)).await, RawHost::start(answers_ok).await);
    let network = Network::with_external(ExternalSetup::listing(&[&old, &new]), |_| {}).await;
    network.lives(ZOE, ZOE, &old.origin);
    let answer = network.ask(READ, "").await;
    assert!(
        answer.ends_with("{\"error\":\"RepoNotFound\"}") && !answer.contains("x-genkan-error"),
        "{answer}"
    );
    assert_eq!(
        (network.external().asked_again, old.heard().len()),
        (1, 1),
        "the same place is not asked twice"
    );
    // The directory knows a new place: the read is made again there, and only once.
    let moved = PdsLocation { did: ZOE.parse().unwrap(), pds: new.origin.parse().unwrap() };
    network.external().moved.insert(ZOE.to_owned(), moved);
    assert!(network.ask(READ, "").await.ends_with("{\"ok\":true}"));
    assert_eq!((old.heard().len(), new.heard().len()), (2, 1));
    // A closed port is no answer, so the account may have moved as well.
    let mut dead = RawHost::start(answers_ok).await;
    dead.close().await;
    network.lives(ZOE, ZOE, "http://127.0.0.1:1");
    assert_eq!(summary(&network.ask(READ, "").await), "502 PdsNotAllowed", "and is no answer to refusal");
    let network = Network::with_external(ExternalSetup::listing(&[&dead, &new]), |_| {}).await;
    network.lives(ZOE, ZOE, &dead.origin);
    network
        .external()
        .moved
        .insert(ZOE.to_owned(), PdsLocation { did: ZOE.parse().unwrap(), pds: new.origin.parse().unwrap() });
    assert!(network.ask(READ, "").await.ends_with("{\"ok\":true}"), "who refuses connections, too");
}

#[tokio::test]
async fn a_pds_that_claims_to_be_ours_is_a_loop_or_does_not_have_the_account() {
    let network = Network::with_external(ExternalSetup::listing(&[]), |_| {}).await;
    network.lives(ZOE, ZOE, "https://genkan.example.com");
    assert_eq!(summary(&network.ask(READ, "").await), "502 UpstreamFailure");
    network.lives(ZOE, ZOE, &network.one.origin.clone());
    assert_eq!(summary(&network.ask(READ, "").await), "400 RepoNotFound");
    assert_eq!(network.one.connections(), 0);
    // A request that has passed this server comes back by a loop of servers.
    let passed = network.ask(&READ.replace(ZOE, BOB), "via: 1.1 genkan-test\r\n").await;
    assert_eq!(summary(&passed), "502 UpstreamFailure");
}

#[tokio::test]
async fn the_operator_says_who_may_read_and_from_where() {
    let there = RawHost::start(answers_ok).await;
    let with = async |change: &dyn Fn(&mut ExternalSetup)| {
        let mut setup = ExternalSetup::listing(&[&there]);
        change(&mut setup);
        let network = Network::with_external(setup, |_| {}).await;
        network.lives(ZOE, ZOE, &there.origin);
        network
    };
    let off = with(&|setup| setup.policy.target_reads = TargetReads::Off).await;
    assert_eq!(summary(&off.ask(READ, "").await), "400 RepoNotFound");
    let members = with(&|setup| setup.policy.target_reads = TargetReads::Authenticated).await;
    for (fields, expected) in [
        ("", "401 AuthMissing"),
        ("authorization: Bearer expired\r\n", "400 ExpiredToken"),
        ("authorization: DPoP alice\r\n", "401 invalid_dpop_proof"),
        ("authorization: Bearer alice\r\n", "200 -"),
        ("authorization: DPoP alice\r\ndpop: good\r\n", "200 -"),
    ] {
        assert_eq!(summary(&members.ask(READ, fields).await), expected, "{fields}");
        let record = "GET /xrpc/com.atproto.repo.describeRepo?repo=did:plc:zzzzzzzzzzzzzzzzzzzzzzzz";
        assert_eq!(summary(&members.ask(record, fields).await), expected, "{fields}");
    }
    assert!(there.heard().iter().all(|heard| !heard.contains("authorization")));
    let before = there.heard().len();
    // `127.0.0.1` counts as a name under `0.0.1` here, as a subdomain would.
    let host = with(&|setup| setup.policy.blocked_hosts = vec!["0.0.1".to_owned()]).await;
    let account = with(&|setup| setup.policy.blocked_dids = vec![ZOE.parse().unwrap()]).await;
    for network in [host, account] {
        assert_eq!(summary(&network.ask(READ, "").await), "502 PdsNotAllowed");
    }
    assert_eq!(there.heard().len(), before);
}

#[tokio::test]
async fn a_client_reads_only_so_much_at_external_pdses_and_at_home_as_ever() {
    let gate = Gate::closed();
    let slow = RawHost::start(answers_at(&gate)).await;
    let mut setup = ExternalSetup::listing(&[&slow]);
    setup.policy.reads.streams = 1;
    setup.policy.reads.rate = Some(Rate { count: 3, per: Duration::from_mins(5) });
    let network = Network::with_external(setup, |_| {}).await;
    network.lives(ZOE, ZOE, &slow.origin);
    // The gate holds the first read at the PDS until the second was refused.
    let (first, second) = tokio::join!(network.ask(READ, ""), async {
        eventually("the first is at the PDS", || slow.heard().len() == 1).await;
        let refused = network.ask(READ, "").await;
        gate.open();
        refused
    });
    assert_eq!((summary(&first), summary(&second)), ("200 -".to_owned(), "429 RateLimitExceeded".to_owned()));
    assert!(
        second.contains("retry-after: 1\r\n") && second.contains("ratelimit-remaining: 0\r\n"),
        "{second}"
    );
    assert_eq!(summary(&network.ask(READ, "").await), "200 -", "the stream's place came back");
    let over = network.ask(READ, "").await;
    assert_eq!(summary(&over), "429 RateLimitExceeded");
    assert!((240..=300).contains(&retry_after(&over)), "{over}");
    assert!(network.ask(&READ.replace(ZOE, ALICE), "").await.starts_with("HTTP/1.1 200 "));
}

/// A document of another server costs memory and a request, so a client that may not read causes
/// no lookup.
#[tokio::test]
async fn a_client_over_its_limits_causes_no_lookup() {
    let there = RawHost::start(answers_ok).await;
    let mut setup = ExternalSetup::listing(&[&there]);
    setup.policy.reads.rate = Some(Rate { count: 2, per: Duration::from_mins(5) });
    let network = Network::with_external(setup, |_| {}).await;
    network.lives(ZOE, ZOE, &there.origin);
    let unknown = READ.replace(ZOE, "did:plc:cccccccccccccccccccccccc");
    assert_eq!(summary(&network.ask(READ, "").await), "200 -");
    assert_eq!(summary(&network.ask(&unknown, "").await), "502 DidResolutionFailed", "a lookup counts");
    let before = network.external().looked_up;
    for read in [READ, &unknown] {
        assert_eq!(summary(&network.ask(read, "").await), "429 RateLimitExceeded");
    }
    assert_eq!(network.external().looked_up, before);
}

/// Row 9: no call while a host's window is used up, and the truth about when it is over.
#[tokio::test]
async fn a_pds_that_has_had_enough_is_left_alone_and_the_others_are_not() {
    let enough = "HTTP/1.1 429 Too Many Requests\r\nretry-after: 70\r\ncontent-type: application/json\r\n\
        content-length: 29\r\n\r\n{\"error\":\"RateLimitExceeded\"}";
    let (there, other) = (RawHost::start(answers(enough)).await, RawHost::start(answers_ok).await);
    let network = Network::with_external(ExternalSetup::listing(&[&there, &other]), |_| {}).await;
    network.lives(ZOE, ZOE, &there.origin);
    network.lives("kim.external.com", ALICE, &other.origin);
    let read = READ.replace("getRepo", "getLatestCommit");
    let first = network.ask(&read, "").await;
    assert!(first.contains("retry-after: 70\r\n") && !first.contains("x-genkan-error"), "theirs: {first}");
    let second = network.ask(&read, "").await;
    assert!(second.contains("x-genkan-error: gateway\r\n"), "ours: {second}");
    assert!((10..=70).contains(&retry_after(&second)), "{second}");
    assert_eq!(there.heard().len(), 1);
    let kim = network.ask("GET /xrpc/com.atproto.repo.describeRepo?repo=kim.external.com", "").await;
    assert!(kim.starts_with("HTTP/1.1 200 "), "{kim}");
}

#[tokio::test]
async fn a_pds_that_fails_is_left_alone_for_a_moment() {
    let mut there = RawHost::start(answers_ok).await;
    there.close().await;
    let network = zoe_at(&there).await;
    for _ in 0..5 {
        assert_eq!(summary(&network.ask(READ, "").await), "502 UpstreamFailure");
    }
    there.reopen().await;
    assert!(network.ask(READ, "").await.contains("failed repeatedly"));
    assert_eq!(there.connections(), 0, "the PDS is not asked");
    assert!(network.ask(&READ.replace(ZOE, ALICE), "").await.starts_with("HTTP/1.1 200 "));
}
