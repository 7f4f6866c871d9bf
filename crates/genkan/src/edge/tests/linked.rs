//! Calls of a linked account, at its own PDS. Tests named `cNN` are lines of the
//! contract's checklist.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::external_reads::ZOE;
use super::network::{ExternalSetup, Network, summary};
use super::raw_host::{HostConnection, RawHost, answers, answers_ok};
use crate::forward::LinkNonce;

pub(super) const ZOES: &str = "authorization: DPoP zoe\r\ndpop: good\r\n";
pub(super) const POST: &str = "POST /xrpc/com.atproto.repo.createRecord";
const OK: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 11\r\n\r\n{\"ok\":true}";

/// Starts an edge with a linked session of Zoe, whose account is on this external PDS.
pub(super) async fn zoe_at(there: &RawHost) -> Network {
    zoe_within(there, |_| {}).await
}

pub(super) async fn zoe_within(there: &RawHost, adjust: impl FnOnce(&mut crate::edge::Settings)) -> Network {
    let network = Network::with_external(ExternalSetup::listing(&[there]), adjust).await;
    network.external().link = Some((there.origin.parse().unwrap(), 1));
    network
}

/// Sends a POST with this body, as Zoe's app does.
pub(super) async fn post(network: &Network, line: &str, fields: &str, body: &str) -> String {
    let length = body.len();
    network
        .raw(format!(
            "{line} HTTP/1.1\r\nhost: genkan.example\r\nconnection: close\r\n{fields}content-length: {length}\r\n\r\n{body}"
        ))
        .await
}

/// Returns the nonce in a request's proof.
fn nonce_of(heard: &str) -> &str {
    let proof = heard.lines().find_map(|line| line.strip_prefix("dpop: ")).unwrap_or_default();
    proof.rsplit('!').next().unwrap_or_default()
}

/// A PDS that changes its nonce with every answer and accepts only the newest one.
fn rotates() -> impl Fn(HostConnection) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> {
    let count = Arc::new(AtomicUsize::new(0));
    move |mut connection| {
        let count = Arc::clone(&count);
        Box::pin(async move {
            while let Some(request) = connection.request().await {
                // The first request has no nonce that could be right, so it is always challenged.
                let before = count.fetch_add(1, Ordering::SeqCst);
                let nonce = format!("dpop-nonce: nonce-{}\r\n", before + 1);
                if before > 0 && nonce_of(&request) == format!("nonce-{before}") {
                    connection.say(OK.replace("\r\n\r\n", &format!("\r\n{nonce}\r\n"))).await;
                } else {
                    connection.say(challenge(&nonce)).await;
                }
            }
        })
    }
}

fn challenge(fields: &str) -> String {
    format!(
        "HTTP/1.1 401 Unauthorized\r\nwww-authenticate: DPoP algs=\"ES256\", error=\"use_dpop_nonce\"\r\n{fields}\
         content-type: application/json\r\ncontent-length: 26\r\n\r\n{{\"error\":\"use_dpop_nonce\"}}"
    )
}

#[tokio::test]
async fn c01_every_call_of_the_callers_own_goes_to_their_pds_in_any_letter_case() {
    let there = RawHost::start(answers_ok).await;
    let network = zoe_at(&there).await;
    let procedures = [
        "repo.applyWrites",
        "repo.createRecord",
        "repo.putRecord",
        "repo.deleteRecord",
        "repo.uploadBlob",
        "repo.importRepo",
        "sync.requestCrawl",
        "sync.notifyOfUpdate",
        "repo.somethingNew",
    ];
    let queries = [
        "repo.listMissingBlobs",
        "sync.listRepos",
        "sync.listReposByCollection",
        "sync.listHosts",
        "sync.getHostStatus",
        "server.getServiceAuth",
        "sync.somethingNew",
    ];
    let mut expected = Vec::new();
    for (verb, name) in
        procedures.map(|name| ("POST", name)).into_iter().chain(queries.map(|name| ("GET", name)))
    {
        for name in [format!("com.atproto.{name}"), format!("COM.atproto.{}", name.to_uppercase())] {
            // A grant for plain Bearer tokens gets the same calls. The PDS sees DPoP in either
            // case.
            for fields in [ZOES, "authorization: Bearer bearer-zoe\r\n"] {
                let line = format!("{verb} /xrpc/{name}?aud=x&aud=%2F");
                let answer = if verb == "POST" {
                    post(&network, &line, fields, "{\"a\":1}").await
                } else {
                    network.ask(&line, fields).await
                };
                assert_eq!(summary(&answer), "200 -", "{line}: {answer}");
                assert!(
                    answer.contains("cache-control: private, no-store\r\n")
                        && answer.contains("vary: authorization\r\n")
                );
                expected.push((format!("{line} HTTP/1.1"), format!("dpop: {verb}!/xrpc/{name}!none")));
            }
        }
    }
    let heard = there.heard();
    for (heard, (line, proof)) in heard.iter().zip(&expected) {
        assert!(heard.starts_with(line.as_str()), "{heard}");
        assert!(
            heard.contains("authorization: DPoP opaque-1\r\n") && heard.contains(proof.as_str()),
            "{heard}"
        );
    }
    assert_eq!(heard.len(), expected.len());
    assert_eq!(network.one.connections() + network.two.connections(), 0);
}

#[tokio::test]
async fn only_the_lists_headers_cross_and_nothing_of_the_app() {
    let there = RawHost::start(answers_ok).await;
    let network = zoe_at(&there).await;
    let fields = format!(
        "{ZOES}cookie: a=b\r\nhabitat-auth-method: OAuth\r\nx-forwarded-for: 6.6.6.6\r\norigin: https://x\r\n\
         atproto-proxy: did:web:x.example.com#y\r\natproto-accept-labelers: x\r\nx-bsky-topics: x\r\nx-atproto-thing: x\r\n\
         content-type: application/json\r\ncontent-encoding: gzip\r\naccept-language: de\r\nuser-agent: curl\r\n"
    );
    assert_eq!(summary(&post(&network, POST, &fields, "{}").await), "200 -");
    let [whole] = there.heard().try_into().unwrap();
    let head = whole.split_once("\r\n\r\n").unwrap().0;
    let mut names: Vec<_> = head.lines().skip(1).filter_map(|line| Some(line.split_once(": ")?.0)).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "accept-encoding",
            "accept-language",
            "atproto-accept-labelers",
            "atproto-proxy",
            "authorization",
            "content-encoding",
            "content-length",
            "content-type",
            "dpop",
            "host",
            "user-agent",
            "via",
            "x-bsky-topics",
        ]
    );
}

#[tokio::test]
async fn targets_are_read_without_her_credentials_also_her_own() {
    let (there, kims) = (RawHost::start(answers_ok).await, RawHost::start(answers_ok).await);
    let network = Network::with_external(ExternalSetup::listing(&[&there, &kims]), |_| {}).await;
    network.external().link = Some((there.origin.parse().unwrap(), 1));
    network.lives(ZOE, ZOE, &there.origin);
    network.lives("kim.external.com", ZOE, &kims.origin);
    for query in [
        format!("com.atproto.sync.getRepo?did={ZOE}"),
        "com.atproto.repo.describeRepo?repo=kim.external.com".to_owned(),
        "com.atproto.repo.describeRepo?repo=alice.example".to_owned(),
    ] {
        assert_eq!(summary(&network.ask(&format!("GET /xrpc/{query}"), ZOES).await), "200 -", "{query}");
    }
    for heard in [there.heard(), kims.heard(), network.one.heard()] {
        assert!(
            heard.len() == 1 && !heard[0].contains("authorization") && !heard[0].contains("dpop"),
            "{heard:?}"
        );
    }
}

#[tokio::test]
async fn c06_a_pds_that_rotates_its_nonce_with_every_answer_challenges_once() {
    let there = RawHost::start(rotates()).await;
    let network = zoe_at(&there).await;
    for number in 0..10 {
        let answer = post(&network, POST, ZOES, "{\"n\":1}").await;
        assert_eq!(summary(&answer), "200 -", "{number}: {answer}");
        assert!(answer.contains("dpop-nonce: our-nonce\r\n") && !answer.contains("nonce-1"), "{answer}");
    }
    let heard = there.heard();
    assert_eq!(heard.len(), 11, "one challenge, at the beginning");
    assert!(heard.iter().all(|heard| heard.ends_with("{\"n\":1}")), "the same body again");
    assert_eq!(there.connections(), 1, "and over the same connection");
}

#[tokio::test]
async fn a_pds_that_always_demands_another_nonce_is_called_twice() {
    let there = RawHost::start(answers(challenge("dpop-nonce: again\r\n").leak())).await;
    let network = zoe_at(&there).await;
    let answer = post(&network, POST, ZOES, "{}").await;
    assert_eq!(summary(&answer), "502 UpstreamAuthUnavailable");
    assert!(answer.contains("retry-after: 5\r\n") && !answer.contains("use_dpop_nonce\""), "{answer}");
    assert_eq!(there.heard().len(), 2);
    // Without a nonce in the challenge, a second attempt could only fail again.
    let silent = RawHost::start(answers(challenge("").leak())).await;
    let network = zoe_at(&silent).await;
    assert_eq!(summary(&post(&network, POST, ZOES, "{}").await), "502 UpstreamAuthUnavailable");
    assert_eq!(silent.heard().len(), 1, "a challenge without a nonce");
}

/// The client gets one upload or an answer to retry, and neither a raw 401 nor a second upload.
#[tokio::test]
async fn c07_what_cannot_be_kept_goes_once_after_a_small_question() {
    // Larger than what Genkan keeps of a body, so it can be sent only once.
    let size = 3 << 20;
    let upload = async |network: &Network| {
        let head = format!(
            "POST /xrpc/com.atproto.repo.uploadBlob HTTP/1.1\r\nhost: genkan.example\r\n{ZOES}content-type: video/mp4\r\n\
             content-length: {size}\r\n\r\n"
        );
        let mut client = network.connect().await;
        client.send(head).await;
        client.send(vec![b'x'; size]).await;
        client.answer().await
    };
    let there = RawHost::start(rotates()).await;
    let network = zoe_at(&there).await;
    assert_eq!(summary(&upload(&network).await), "200 -", "nothing was known of the nonce");
    let heard = there.heard();
    let lines: Vec<_> = heard.iter().map(|heard| heard.split(' ').nth(1).unwrap()).collect();
    let ask = "/xrpc/com.atproto.server.getSession";
    // The first call learns the nonce, the second proves that it is accepted.
    assert_eq!(lines, [ask, ask, "/xrpc/com.atproto.repo.uploadBlob"]);
    assert!(heard[0].starts_with("GET ") && heard[0].contains("authorization: DPoP opaque-1\r\n"));
    assert_eq!(summary(&upload(&network).await), "200 -", "now it is");
    assert_eq!(there.heard().len(), 4);
    // An old nonce may have been replaced, so it is tried out on a small call again.
    network.external().link_nonce.as_mut().unwrap().age = Duration::from_secs(2);
    assert_eq!(summary(&upload(&network).await), "200 -", "and then it was a while ago");
    assert_eq!(there.heard().len(), 6);

    // This PDS accepts the nonce on the small call and challenges the upload all the same.
    let changes_its_mind = RawHost::start(|mut connection: HostConnection| async move {
        while let Some(request) = connection.request().await {
            if request.starts_with("GET ") {
                connection.say(OK).await;
            } else {
                connection.say(challenge("dpop-nonce: newer\r\n")).await;
            }
        }
    })
    .await;
    let network = zoe_at(&changes_its_mind).await;
    let answer = upload(&network).await;
    assert_eq!(summary(&answer), "503 UpstreamNotReady");
    assert!(answer.contains("retry-after: 0\r\n"), "{answer}");
    let uploads = changes_its_mind.heard().iter().filter(|heard| heard.starts_with("POST")).count();
    assert_eq!(uploads, 1);
    assert_eq!(&*network.external().link_nonce.clone().unwrap().nonce, "newer", "the next one will do");
}

#[tokio::test]
async fn a_chunked_body_is_asked_for_as_well_and_goes_on_chunked() {
    let there = RawHost::start(|mut connection: HostConnection| async move {
        connection.request().await;
        connection.say(OK).await;
        connection.request().await;
        let mut body = vec![0; 15];
        tokio::io::AsyncReadExt::read_exact(&mut connection.stream, &mut body).await.unwrap();
        connection
            .say(OK.replace(
                "{\"ok\":true}",
                if body == b"5\r\nhello\r\n0\r\n\r\n" { "exactly yes" } else { "not so good" },
            ))
            .await;
    })
    .await;
    let network = zoe_at(&there).await;
    let request = format!(
        "POST /xrpc/com.atproto.repo.uploadBlob HTTP/1.1\r\nhost: genkan.example\r\nconnection: close\r\n{ZOES}\
         transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
    );
    let answer = network.raw(request).await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("exactly yes"), "{answer}");
    assert!(there.heard()[1].contains("transfer-encoding: chunked\r\n"), "{:?}", there.heard());
}

#[tokio::test]
async fn c08_a_400_that_brings_a_nonce_is_delivered_once_and_its_nonce_learnt() {
    let no = "HTTP/1.1 400 Bad Request\r\ndpop-nonce: fresh\r\ncontent-type: application/json\r\ncontent-length: 26\r\n\r\n{\"error\":\"InvalidRequest\"}";
    let there = RawHost::start(answers(no)).await;
    let network = zoe_at(&there).await;
    let answer = post(&network, POST, ZOES, "{}").await;
    assert!(
        answer.starts_with("HTTP/1.1 400 ") && answer.ends_with("{\"error\":\"InvalidRequest\"}"),
        "{answer}"
    );
    assert!(!answer.contains("fresh") && !answer.contains("x-genkan-error"), "{answer}");
    assert_eq!(there.heard().len(), 1);
    post(&network, POST, ZOES, "{}").await;
    assert_eq!(nonce_of(&there.heard()[1]), "fresh");
}

#[tokio::test]
async fn a_token_that_is_refused_is_renewed_once_and_the_call_made_again() {
    let there = RawHost::start(|mut connection: HostConnection| async move {
        while let Some(request) = connection.request().await {
            if request.contains("authorization: DPoP opaque-1\r\n") {
                connection.say("HTTP/1.1 401 Unauthorized\r\nwww-authenticate: DPoP error=\"invalid_token\"\r\ncontent-length: 2\r\n\r\n{}").await;
            } else {
                connection.say(OK).await;
            }
        }
    })
    .await;
    let network = zoe_at(&there).await;
    assert_eq!(summary(&post(&network, POST, ZOES, "{\"b\":2}").await), "200 -");
    let heard = there.heard();
    assert!(
        heard[1].contains("authorization: DPoP opaque-2\r\n") && heard[1].ends_with("{\"b\":2}"),
        "{heard:?}"
    );
    assert_eq!((heard.len(), network.external().link_refused), (2, 0));
    network.external().link = Some((there.origin.parse().unwrap(), 1));
    // A body of this size is not kept.
    let large = "x".repeat(2 << 20);
    network.external().link_nonce = Some(LinkNonce { nonce: "n".into(), age: Duration::ZERO });
    let answer = post(&network, "POST /xrpc/com.atproto.repo.uploadBlob", ZOES, &large).await;
    assert_eq!(
        summary(&answer),
        "503 UpstreamNotReady",
        "what was not kept cannot go again, but the token is new"
    );
    assert_eq!(
        summary(&post(&network, "POST /xrpc/com.atproto.repo.uploadBlob", ZOES, &large).await),
        "200 -"
    );
}

#[tokio::test]
async fn a_token_that_was_renewed_for_a_new_pds_never_goes_to_the_former_one() {
    let refused = "HTTP/1.1 401 Unauthorized\r\nwww-authenticate: DPoP error=\"invalid_token\"\r\ncontent-length: 2\r\n\r\n{}";
    let (former, new) = (RawHost::start(answers(refused)).await, RawHost::start(answers_ok).await);
    let network = Network::with_external(ExternalSetup::listing(&[&former, &new]), |_| {}).await;
    network.external().link = Some((former.origin.parse().unwrap(), 1));
    network.external().link_moves_to = Some(new.origin.parse().unwrap());
    assert_eq!(summary(&post(&network, POST, ZOES, "{}").await), "503 UpstreamNotReady");
    // The client repeats the call. Genkan chooses the PDS once per call.
    assert_eq!(new.connections(), 0);
    assert_eq!(summary(&post(&network, POST, ZOES, "{}").await), "200 -");
    for (pds, token) in [(&former, "opaque-1"), (&new, "opaque-2")] {
        let [heard] = pds.heard().try_into().unwrap();
        assert!(heard.contains(&format!("authorization: DPoP {token}\r\n")), "{heard}");
    }
    assert_eq!(network.external().link_refused, 0);
}

#[tokio::test]
async fn a_401_after_every_attempt_ends_the_session() {
    let never = "HTTP/1.1 401 Unauthorized\r\nwww-authenticate: DPoP error=\"invalid_token\"\r\ncontent-length: 12\r\n\r\n{\"theirs\":1}";
    for (fields, expected, scheme) in [
        (ZOES, "401 invalid_token", "DPoP algs="),
        ("authorization: Bearer bearer-zoe\r\n", "401 InvalidToken", "Bearer error="),
    ] {
        let there = RawHost::start(answers(never)).await;
        let network = zoe_at(&there).await;
        let answer = network.ask("GET /xrpc/com.atproto.sync.listRepos", fields).await;
        assert_eq!(summary(&answer), expected);
        assert!(answer.contains(&format!("www-authenticate: {scheme}")), "{answer}");
        assert!(answer.contains("error=\"invalid_token\"") && answer.contains("sign in again"), "{answer}");
        assert!(!answer.contains("theirs"));
        assert_eq!((there.heard().len(), network.external().link_refused), (2, 1));
    }
}

#[tokio::test]
async fn a_401_by_another_scheme_ends_no_session() {
    let never = "HTTP/1.1 401 Unauthorized\r\nwww-authenticate: Bearer error=\"invalid_token\"\r\ncontent-length: 12\r\n\r\n{\"theirs\":1}";
    let there = RawHost::start(answers(never)).await;
    let network = zoe_at(&there).await;
    let answer = network.ask("GET /xrpc/com.atproto.sync.listRepos", ZOES).await;
    assert!(answer.starts_with("HTTP/1.1 401 ") && answer.ends_with("{\"theirs\":1}"), "{answer}");
    assert!(!answer.contains("www-authenticate: ") && !answer.contains("x-genkan-error"), "{answer}");
    assert_eq!((there.heard().len(), network.external().link_refused), (2, 0), "renewed, and no more");
}

#[tokio::test]
async fn a_pds_that_hangs_up_on_a_large_body_over_its_nonce_is_told_from_one_that_is_broken() {
    for (is_about_nonce, expected) in [(true, "503 UpstreamNotReady"), (false, "502 UpstreamFailure")] {
        let there = RawHost::start(move |mut connection: HostConnection| async move {
            let mut head = Vec::new();
            // Only the head is read. The connection is then closed while the body arrives.
            while !head.ends_with(b"\r\n\r\n") {
                head.push(tokio::io::AsyncReadExt::read_u8(&mut connection.stream).await.unwrap());
            }
            if head.starts_with(b"GET ") {
                let answer = if is_about_nonce { challenge("dpop-nonce: newer\r\n") } else { OK.to_owned() };
                connection.say(answer).await;
            }
        })
        .await;
        let network = zoe_at(&there).await;
        network.external().link_nonce = Some(LinkNonce { nonce: "stale".into(), age: Duration::ZERO });
        let mut client = network.connect().await;
        client
            .send(format!(
                "POST /xrpc/com.atproto.repo.uploadBlob HTTP/1.1\r\nhost: genkan.example\r\n{ZOES}content-length: {}\r\n\r\n",
                8 << 20
            ))
            .await;
        // The edge may stop reading in the middle of the body.
        let _ = tokio::io::AsyncWriteExt::write_all(&mut client.stream, &vec![b'x'; 8 << 20]).await;
        let answer = client.answer().await;
        assert_eq!(summary(&answer), expected, "{answer}");
    }
}

#[tokio::test]
async fn a_small_body_survives_a_challenge_and_then_a_refused_token() {
    let refused = "HTTP/1.1 401 Unauthorized\r\nwww-authenticate: DPoP error=\"invalid_token\"\r\ncontent-length: 2\r\n\r\n{}";
    let there = RawHost::start(move |mut connection: HostConnection| async move {
        while let Some(request) = connection.request().await {
            if request.contains("authorization: DPoP opaque-2\r\n") {
                connection.say(OK).await;
            } else if nonce_of(&request) == "fresh" {
                connection.say(refused).await;
            } else {
                connection.say(challenge("dpop-nonce: fresh\r\n")).await;
            }
        }
    })
    .await;
    let network = zoe_at(&there).await;
    let body = "{\"text\":\"twice two\"}";
    let answer = post(&network, POST, ZOES, body).await;
    assert_eq!(summary(&answer), "200 -", "{answer}");
    let heard = there.heard();
    assert!(heard.len() == 3 && heard.iter().all(|heard| heard.ends_with(body)), "{heard:?}");
}
