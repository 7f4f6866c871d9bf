//! Another key for everything that is sealed, while Genkan goes on working.

use serde_json::{Value, json};

use crate::store;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_is_resealed_while_genkan_serves() {
    let mut net = store::sqlite().set("GENKAN_SEALING_KEY", "").hosts(2).await;
    let alice = net.sign_up("alice").await;
    let folder = net.database_file().parent().unwrap().to_path_buf();
    let key_before = std::fs::read_to_string(folder.join("sealing.key")).unwrap();
    let shown = |text: String| serde_json::from_str::<Value>(&text).unwrap();
    let id_before = shown(net.command(&["key", "show", "--json"]).await.ok())["sealingKeyId"].clone();

    let rotating = net.command(&["key", "rotate-sealing", "--json"]);
    let meanwhile = async {
        for name in ["bob", "carol", "dave"] {
            net.sign_up(name).await;
        }
    };
    let (ran, ()) = tokio::join!(rotating, meanwhile);
    let printed = ran.ok();
    let done = shown(printed[printed.find('{').unwrap()..].to_owned());
    assert_eq!((&done["left"], &done["unopened"]), (&json!(0), &json!([])), "{done}");
    assert!(done["resealed"].as_u64().unwrap() >= 5, "keys and hosts' passwords: {done}");
    assert_ne!(done["sealingKeyId"], id_before);
    assert!(!printed.contains(key_before.trim()), "a key is never printed");
    // The old key is put aside, and opens nothing of today.
    let aside = done["putAside"][0].as_str().unwrap();
    assert_eq!(std::fs::read_to_string(aside).unwrap(), key_before);
    let today = std::fs::read_to_string(folder.join("sealing.key")).unwrap();
    assert!(!today.contains(key_before.trim()) && today.lines().count() == 1);

    // The server that was there all the time goes on, and so does the next one.
    net.sign_up("erin").await;
    net.restart().await;
    net.client_of(&alice).query("com.atproto.server.getSession", &[]).await.ok();
    net.sign_up("frank").await;
    let again = shown(net.command(&["key", "rotate-sealing", "--only-reseal", "--json"]).await.ok());
    assert_eq!((&again["resealed"], &again["left"]), (&json!(0), &json!(0)), "{again}");
}

/// The operator's own key is not Genkan's to change: the message says how.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_was_given_is_changed_by_whoever_gave_it() {
    let net = store::sqlite().await;
    let ran = net.command(&["key", "rotate-sealing"]).await;
    assert!(ran.status != 0 && ran.output.contains("GENKAN_SEALING_KEY_OLDER"), "{}", ran.output);
    net.command(&["key", "rotate-sealing", "--only-reseal"]).await.ok();
}
