//! One line for each request, and nothing in it that is nobody's business.

use genkan_testing::Plan;
use genkan_testing::network::eventually;
use serde_json::Value;

use crate::store::on_each_database;

on_each_database!(each_request_leaves_one_line);

async fn each_request_leaves_one_line(plan: Plan) {
    let net = plan.set("GENKAN_LOG_FORMAT", "json").await;
    let alice = net.sign_up("alice").await;
    let client = net.client_of(&alice);
    let local = client.query("com.atproto.server.getSession", &[]).await.ok();
    let refused = net.visitor().bearer("a.b.c").query("com.atproto.server.getSession", &[]).await;
    let forwarded = net.visitor().query("app.bsky.actor.getPreferences", &[("secret", "in-a-query")]).await;
    client.query("app.bsky.feed.getTimeline", &[]).await.ok();
    let lines_of = |path: &str| -> Vec<Value> {
        let printed = net.printed();
        let lines = printed.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines
            .filter(|line| line.to_string().contains(path) && line.to_string().contains("http.status"))
            .collect()
    };
    for (path, count) in [
        ("/xrpc/com.atproto.server.createAccount", 1),
        ("/xrpc/com.atproto.server.getSession", 2),
        ("/xrpc/app.bsky.actor.getPreferences", 1),
        ("/xrpc/app.bsky.feed.getTimeline", 1),
    ] {
        eventually(&format!("{path} is told"), async || lines_of(path).len() >= count).await;
        let lines = lines_of(path);
        assert_eq!(lines.len(), count, "{lines:#?}");
        for line in lines {
            for field in
                ["request.id", "http.method", "http.path", "http.status", "duration_ms", "client.address"]
            {
                assert!(line.to_string().contains(&format!("\"{field}\"")), "{field} is missing: {line}");
            }
        }
    }
    // The request id on an answer that Genkan made finds its line in the log.
    for answer in [&local, &refused, &forwarded] {
        let id = answer.headers.get("x-request-id").unwrap().to_str().unwrap().to_owned();
        assert_eq!(net.printed().matches(&id).count(), 1, "{}", answer.transcript());
    }
    assert!(!net.printed().contains("in-a-query"));
}
