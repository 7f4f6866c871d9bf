//! The message about each mistake in a configuration, word by word, and the documentation page.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::reader::Source;
use super::{Config, Environment, Reading, configuration_page, show};

const GOOD: (&str, &str) = ("GENKAN_PUBLIC_URL", "https://example.com");

fn problems(pairs: &[(&str, &str)], file: Option<&Path>) -> String {
    match Config::load(&Environment::from_pairs(pairs.iter().copied()), file) {
        Ok(_) => "fine".to_owned(),
        Err(problems) => problems.to_string(),
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table of one case a line")]
fn each_mistake_has_its_line() {
    // One byte repeated: an example that somebody copied, and not a random key.
    let weak = "aa".repeat(32);
    let zero = "00".repeat(32);
    let strong = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
    let beyond = "fffefdfcfbfaf9f8f7f6f5f4f3f2f1f0efeeedecebeae9e8e7e6e5e4e3e2e1e0"
        .replace("fffefdfcfbfaf9f8f7f6f5f4f3f2f1f0", &"ff".repeat(16));
    let cases: &[(&[(&str, &str)], &str)] = &[
        (&[], "GENKAN_PUBLIC_URL: is required; set it, for example, to https://example.com"),
        (
            &[("GENKAN_PUBLIC_URL", "http://example.com")],
            "GENKAN_PUBLIC_URL: http://example.com does not use https; use https://; http:// is allowed for loopback addresses only",
        ),
        (
            &[("GENKAN_PUBLIC_URL", "https://example.com/")],
            "GENKAN_PUBLIC_URL: \"https://example.com/\" must end after the host and port: no path, query or slash; use an origin such as https://example.com, without a path or trailing slash",
        ),
        (
            &[("PDS_HOSTNAME", "exa mple.com")],
            "PDS_HOSTNAME: \"https://exa mple.com\" is not a URL; use an origin such as https://example.com, without a path or trailing slash",
        ),
        (
            &[("GENKAN_PUBLIC_URL", "http://localhost:2583")],
            "GENKAN_HANDLE_DOMAINS: \".test\" is reserved for special use and does not resolve on the internet; use a domain that you own, or set GENKAN_DEVELOPMENT=true for a development network",
        ),
        (
            &[GOOD, ("PDS_EMAIL_SMTP_URL", "smtps://me:hunter2@mail.example.com")],
            "GENKAN_MAIL_FROM: is required when GENKAN_MAIL_SMTP_URL or GENKAN_MAIL_FOLDER is set; set it to the sender, such as hello@example.com or Example <hello@example.com>",
        ),
        (
            &[GOOD, ("GENKAN_MAIL_SMTP_URL", "smtp://me:hunter2@mail.example.com?tls=off")],
            "GENKAN_MAIL_SMTP_URL: would send the password without encryption; use smtps://user:password@host:465 or smtp://user:password@host:587",
        ),
        (
            &[GOOD, ("GENKAN_HANDLE_DOMAINS", "example.com")],
            "GENKAN_HANDLE_DOMAINS: \"example.com\" has no leading dot; use .example.com",
        ),
        (
            &[GOOD, ("PDS_SERVICE_HANDLE_DOMAINS", ".Example.com")],
            "PDS_SERVICE_HANDLE_DOMAINS: \".Example.com\" is not a domain; use lower-case letters, digits and hyphens, such as .example.com",
        ),
        (
            &[GOOD, ("GENKAN_HANDLE_DOMAINS", ",")],
            "GENKAN_HANDLE_DOMAINS: is empty; set at least one domain, such as .example.com",
        ),
        (
            &[GOOD, ("GENKAN_SERVICE_DID", "example.com")],
            "GENKAN_SERVICE_DID: \"example.com\" is not a DID; use a DID such as did:web:example.com",
        ),
        (
            &[GOOD, ("GENKAN_DEVELOPMENT", "yes")],
            "GENKAN_DEVELOPMENT: \"yes\" is neither true nor false; use true or false",
        ),
        (
            &[GOOD, ("GENKAN_CONTACT_EMAIL", "me")],
            "GENKAN_CONTACT_EMAIL: \"me\" is not an email address; use the form name@example.com",
        ),
        (
            &[GOOD, ("PDS_PRIVACY_POLICY_URL", "javascript:alert(1)")],
            "PDS_PRIVACY_POLICY_URL: \"javascript:alert(1)\" is not a web URL; use a URL that begins with https://",
        ),
        (
            &[GOOD, ("GENKAN_LISTEN", "2583")],
            "GENKAN_LISTEN: \"2583\" is not an IP address with a port; use an IP address and port such as 127.0.0.1:2583 or [::]:2583",
        ),
        (
            &[GOOD, ("PDS_PORT", "no")],
            "PDS_PORT: \"0.0.0.0:no\" is not an IP address with a port; use an IP address and port such as 127.0.0.1:2583 or [::]:2583",
        ),
        (
            &[GOOD, ("GENKAN_OPS_LISTEN", "127.0.0.1:2583")],
            "GENKAN_OPS_LISTEN: 127.0.0.1:2583 is also the address of GENKAN_LISTEN; use another port",
        ),
        (
            &[GOOD, ("GENKAN_DIRECTORY_FRONT_LISTEN", "127.0.0.1:2584")],
            "GENKAN_DIRECTORY_FRONT_LISTEN: 127.0.0.1:2584 is also the address of GENKAN_OPS_LISTEN; use another port",
        ),
        (
            &[GOOD, ("GENKAN_DIRECTORY_FRONT_URL", "http://127.0.0.1:2585")],
            "GENKAN_DIRECTORY_FRONT_URL: http://127.0.0.1:2585 contains an IP address, and hosts accept only a name for the directory; use a name, such as http://localhost:2585 or https://plc.example.com",
        ),
        (
            &[GOOD, ("GENKAN_DIRECTORY_FRONT_LISTEN", "10.0.0.7:2585")],
            "GENKAN_DIRECTORY_FRONT_LISTEN: 10.0.0.7:2585 has no name that hosts could use; set GENKAN_DIRECTORY_FRONT_URL to the origin at which hosts reach it",
        ),
        (
            &[GOOD, ("GENKAN_DIRECTORY_FRONT_LISTEN", "0.0.0.0:2585")],
            "GENKAN_DIRECTORY_FRONT_LISTEN: 0.0.0.0:2585 means every interface, which is no origin that hosts could use; set GENKAN_DIRECTORY_FRONT_URL to the origin at which hosts reach it",
        ),
        (
            &[GOOD, ("GENKAN_TRUSTED_PROXIES", "proxy.local")],
            "GENKAN_TRUSTED_PROXIES: \"proxy.local\" is not an IP address or network; use an IP address or network such as 127.0.0.1 or 10.0.0.0/8",
        ),
        (&[GOOD, ("GENKAN_WORKERS", "0")], "GENKAN_WORKERS: 0 is out of range; use 1 to 1024"),
        (
            &[GOOD, ("GENKAN_HEAD_TIMEOUT", "10")],
            "GENKAN_HEAD_TIMEOUT: \"10\" is not a duration; use a whole number with a unit, such as 250ms, 30s, 15m, 2h or 90d",
        ),
        (
            // The target is a part of the head, so its range depends on the other limit.
            &[GOOD, ("GENKAN_HEAD_LIMIT", "1KiB")],
            "GENKAN_HEAD_LIMIT: 1KiB is out of range; use 8KiB to 1MiB\nGENKAN_TARGET_LIMIT: 16KiB is out of range; use 1KiB to 1KiB",
        ),
        (
            &[GOOD, ("GENKAN_UPLOAD_LIMIT", "5 megabytes")],
            "GENKAN_UPLOAD_LIMIT: \"5 megabytes\" is not a size; use a whole number with a unit, such as 150kB, 32KiB, 5MiB or 1GiB",
        ),
        (
            &[GOOD, ("GENKAN_RATE_GLOBAL", "3000")],
            "GENKAN_RATE_GLOBAL: \"3000\" is not a rate; use a count and a duration, such as 30/5m or 300/1d",
        ),
        (
            &[GOOD, ("GENKAN_DATABASE_URL", "mysql://me:hunter2@db/x")],
            "GENKAN_DATABASE_URL: is neither an SQLite nor a PostgreSQL URL; use sqlite:<path> or postgres://user:password@host/name",
        ),
        (
            &[GOOD, ("GENKAN_DATABASE_URL", "postgres://me:hunter2@db")],
            "GENKAN_DATABASE_URL: does not name a database; use sqlite:<path> or postgres://user:password@host/name",
        ),
        (
            &[GOOD, ("GENKAN_DATA_DIR", "/dev/null")],
            "GENKAN_DATA_DIR: /dev/null is not a folder; use a folder, or a path where Genkan can create one",
        ),
        (
            &[GOOD, ("GENKAN_SEALING_KEY", "hunter2")],
            "GENKAN_SEALING_KEY: is not hexadecimal; use 64 hexadecimal digits, as `openssl rand -hex 32` prints",
        ),
        (
            &[GOOD, ("GENKAN_SEALING_KEY", "abcd")],
            "GENKAN_SEALING_KEY: has 4 hexadecimal digits instead of 64; use 64 hexadecimal digits, as `openssl rand -hex 32` prints",
        ),
        (
            &[GOOD, ("GENKAN_SEALING_KEY", &weak)],
            "GENKAN_SEALING_KEY: is not random; generate one with `openssl rand -hex 32`",
        ),
        (
            &[GOOD, ("PDS_PLC_ROTATION_KEY_K256_PRIVATE_KEY_HEX", &zero)],
            "PDS_PLC_ROTATION_KEY_K256_PRIVATE_KEY_HEX: is not random; generate one with `openssl rand -hex 32`",
        ),
        (
            &[GOOD, ("GENKAN_PLC_ROTATION_KEY", &beyond)],
            "GENKAN_PLC_ROTATION_KEY: is not a secp256k1 private key; generate one with `openssl rand -hex 32`",
        ),
        (
            &[GOOD, ("GENKAN_PLC_ROTATION_KEY", strong), ("GENKAN_SEALING_KEY", strong)],
            "GENKAN_PLC_ROTATION_KEY: is the same key as GENKAN_SEALING_KEY; generate one with `openssl rand -hex 32`",
        ),
        (
            &[GOOD, ("PDS_ADMIN_PASSWORD", "hunter2")],
            "PDS_ADMIN_PASSWORD: is shorter than 16 characters; generate one with `openssl rand -hex 16`",
        ),
        (
            &[GOOD, ("GENKAN_RECOVERY_DID_KEY", "did:key:zQ3")],
            "GENKAN_RECOVERY_DID_KEY: \"did:key:zQ3\" is not a did:key; use a public key of the form did:key:z…",
        ),
        (
            &[GOOD, ("GENKAN_DIRECTORY_URL", "http://plc.directory")],
            "GENKAN_DIRECTORY_URL: http://plc.directory does not use https; use https://; http:// is allowed for loopback addresses only",
        ),
        (
            &[GOOD, ("GENKAN_EXTRA_CA_FILE", "/nowhere.pem")],
            "GENKAN_EXTRA_CA_FILE: cannot read /nowhere.pem: no such file; use a PEM file that Genkan's user can read",
        ),
        (&[GOOD, ("GENKAN_PASSWORD_MIN", "4")], "GENKAN_PASSWORD_MIN: 4 is too small; use 8 or more"),
        (
            &[GOOD, ("GENKAN_REFRESH_LIFETIME", "1h")],
            "GENKAN_REFRESH_LIFETIME: must be longer than GENKAN_ACCESS_LIFETIME; use 90d, for example",
        ),
        (
            &[GOOD, ("GENKAN_LOG_FORMAT", "xml")],
            "GENKAN_LOG_FORMAT: \"xml\" is not one of the choices; use text or json",
        ),
        (
            &[GOOD, ("GENKAN_RESERVED_HANDLES", "admin.example.com")],
            "GENKAN_RESERVED_HANDLES: \"admin.example.com\" is not a valid first part of a handle; use lower-case letters, digits and hyphens, without a domain",
        ),
        (
            &[GOOD, ("GENKAN_BLOCKED_EMAIL_DOMAINS", "a@b.example")],
            "GENKAN_BLOCKED_EMAIL_DOMAINS: \"a@b.example\" is not a domain; use the form mail.example",
        ),
        (
            &[GOOD, ("GENKAN_LISTENS", "127.0.0.1:1")],
            "GENKAN_LISTENS: unknown setting; did you mean GENKAN_LISTEN?",
        ),
        (
            &[GOOD, ("GENKAN_FLUX_CAPACITOR", "on")],
            "GENKAN_FLUX_CAPACITOR: unknown setting; remove it, or look up its name in docs/configuration.md",
        ),
        (
            &[GOOD, ("GENKAN_LISTEN_FILE", "/x")],
            "GENKAN_LISTEN_FILE: unknown setting; set GENKAN_LISTEN instead; only secrets and lists can be read from a file",
        ),
        (
            &[("GENKAN_WORKERS", "many"), ("GENKAN_LOGLEVEL", "info")],
            "GENKAN_LOGLEVEL: unknown setting; did you mean GENKAN_LOG_LEVEL?\nGENKAN_PUBLIC_URL: is required; set it, for example, to https://example.com\nGENKAN_WORKERS: \"many\" is not a whole number; use a whole number",
        ),
    ];
    for (pairs, line) in cases {
        assert_eq!(problems(pairs, None), *line, "{pairs:?}");
    }
}

#[test]
fn no_problem_repeats_a_secret() {
    for (name, value) in [
        ("GENKAN_SEALING_KEY", "hunter2"),
        ("GENKAN_PLC_ROTATION_KEY", "hunter2"),
        ("GENKAN_ADMIN_PASSWORD", "hunter2"),
        ("GENKAN_DATABASE_URL", "hunter2://me:hunter2@db"),
    ] {
        let line = problems(&[GOOD, (name, value)], None);
        assert!(line.starts_with(name), "{line}");
        assert!(!line.contains("hunter2"), "{line}");
    }
}

#[test]
fn files_are_read_checked_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, mode: u32, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path.to_string_lossy().into_owned()
    };
    let secret = "a long enough password\n";
    let open = write("open", 0o644, secret);
    let tight = write("tight", 0o640, secret);
    let list = write("list", 0o644, "# disposable\nmail.example # why\n\nother.example\n");
    let absent = folder.path().join("absent").to_string_lossy().into_owned();

    assert_eq!(
        problems(&[GOOD, ("GENKAN_ADMIN_PASSWORD_FILE", &open)], None),
        format!(
            "GENKAN_ADMIN_PASSWORD_FILE: every user of this machine can read {open} (mode 0644); run chmod o= {open}"
        )
    );
    assert_eq!(
        problems(&[GOOD, ("GENKAN_ADMIN_PASSWORD_FILE", &absent)], None),
        format!(
            "GENKAN_ADMIN_PASSWORD_FILE: cannot read {absent}: no such file; use a text file that Genkan's user can read"
        )
    );
    assert_eq!(
        problems(&[GOOD, ("GENKAN_ADMIN_PASSWORD_FILE", &tight), ("GENKAN_ADMIN_PASSWORD", "x")], None),
        "GENKAN_ADMIN_PASSWORD_FILE: GENKAN_ADMIN_PASSWORD is set as well; remove one of them"
    );
    let pairs =
        [GOOD, ("GENKAN_ADMIN_PASSWORD_FILE", tight.as_str()), ("GENKAN_BLOCKED_EMAIL_DOMAINS_FILE", &list)];
    let config = Config::load(&Environment::from_pairs(pairs), None).unwrap();
    assert_eq!(config.keys.admin_password.unwrap().expose(), "a long enough password");
    assert_eq!(config.sign_up.blocked_email_domains, ["mail.example", "other.example"]);
}

#[test]
fn a_toml_file_is_read_below_the_environment_and_its_mistakes_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("genkan.toml");
    let name = path.display().to_string();
    let with = |text: &str, pairs: &[(&str, &str)]| {
        fs::write(&path, text).unwrap();
        problems(pairs, Some(&path))
    };
    for (text, line) in [
        (
            "[service]\npublic_url = \"https://example.com\"\n[listen]\nworkers = 2\nhead_timeout = \"5s\"\n",
            "fine".to_owned(),
        ),
        ("[servise]\n", format!("{name}: unknown section [servise]; did you mean [service]?")),
        (
            "[listen]\nworker = 2\n",
            format!("{name}: unknown setting listen.worker; did you mean listen.workers?"),
        ),
        (
            "workers = 2\n",
            format!(
                "{name}: workers is outside of any section; move it into one of [service], [brand], [listen], [database], [keys], [directory], [network], [fleet], [external], [sign_up], [sessions], [oauth], [links], [mail], [limits], [telemetry]"
            ),
        ),
        (
            "[listen]\nhead_timeout = 5\n",
            format!(
                "listen.head_timeout in {name}: \"5\" is not a duration; use a whole number with a unit, such as 250ms, 30s, 15m, 2h or 90d"
            ),
        ),
        ("[listen]\nworkers = 0\n", format!("listen.workers in {name}: 0 is out of range; use 1 to 1024")),
        (
            "[service]\nhandle_domains = [1]\n",
            format!(
                "{name}: service.handle_domains is not text, a number, true, false or a list of texts; see docs/configuration.md for its form"
            ),
        ),
    ] {
        assert_eq!(with(text, &[GOOD]), line, "{text}");
    }
    assert!(with("[listen\n", &[GOOD]).starts_with(&format!("{name}: invalid TOML in line 1: ")));
    fs::remove_file(&path).unwrap();
    assert_eq!(
        problems(&[GOOD], Some(&path)),
        format!("{name}: cannot be read: no such file; pass a readable file with --config or GENKAN_CONFIG")
    );

    fs::write(&path, "[listen]\nworkers = 2\nhead_fields = 50\n").unwrap();
    let environment = Environment::from_pairs([GOOD, ("GENKAN_WORKERS", "3")]);
    let config = Config::load(&environment, Some(&path)).unwrap();
    assert_eq!((config.listen.workers, config.listen.head_fields), (3, 50));
}

#[test]
fn a_section_is_read_under_its_former_name_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("genkan.toml");
    let name = path.display().to_string();
    let load = |text: &str| {
        fs::write(&path, text).unwrap();
        Config::load(&Environment::from_pairs([GOOD]), Some(&path)).map_err(|problems| problems.to_string())
    };
    for section in ["external", "elsewhere"] {
        let config = load(&format!("[{section}]\nread_streams = 7\n")).unwrap();
        assert_eq!(config.external.read_streams, 7, "{section}");
    }
    assert_eq!(
        load("[elsewhere]\nread_streams = 0\n").unwrap_err(),
        format!("elsewhere.read_streams in {name}: 0 is too small; use 1 or more")
    );
    assert_eq!(
        load("[elsewhere]\nread_streams = 7\n[external]\nread_streams = 8\n").unwrap_err(),
        format!(
            "{name}: [elsewhere] is the former name of [external], which the file has too; move all its settings into [external]"
        )
    );
}

#[test]
fn genkans_name_comes_before_the_reference_name_and_defaults_follow() {
    let environment = Environment::from_pairs([
        ("PDS_HOSTNAME", "pds.example.org"),
        ("PDS_PORT", "3000"),
        ("PDS_DATA_DIRECTORY", "/pds"),
        ("PDS_INVITE_REQUIRED", "true"),
        ("GENKAN_INVITE_REQUIRED", "false"),
        ("GENKAN_LISTEN", ""),
        ("PDS_SOMETHING_ELSE", "is no business of ours"),
        ("GENKAN_TEST_POSTGRES", "is our tests'"),
    ]);
    let config = Config::load(&environment, None).unwrap();
    assert_eq!(config.service.public_url.as_str(), "https://pds.example.org");
    assert_eq!(config.service.did.as_str(), "did:web:pds.example.org");
    assert_eq!(config.service.handle_domains, [".pds.example.org"]);
    assert_eq!(config.listen.address.to_string(), "0.0.0.0:3000");
    assert_eq!(config.database.url.to_string(), "sqlite:/pds/genkan.db");
    assert!(!config.sign_up.invite_required);

    let folder = tempfile::tempdir().unwrap();
    let tests = Config::for_tests(folder.path());
    assert_eq!(tests.service.did.as_str(), "did:web:localhost%3A2583");
    assert_eq!(tests.service.handle_domains, [".test"]);
}

#[test]
fn show_prints_each_value_and_its_source_but_no_secret() {
    let key = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
    let environment = Environment::from_pairs([
        GOOD,
        ("GENKAN_PLC_ROTATION_KEY", key),
        ("PDS_ADMIN_PASSWORD", "correct horse battery"),
        ("GENKAN_DATABASE_URL", "postgres://me:correct horse@db/genkan".replace(' ', "").as_str()),
        ("PDS_BLOB_UPLOAD_LIMIT", "5242880"),
    ]);
    let reading = Reading::of(&environment, None);
    assert!(reading.problems.is_empty(), "{}", reading.problems);
    let text = show(&reading.shown);
    for line in [
        "public_url = https://example.com  # GENKAN_PUBLIC_URL",
        "did = did:web:example.com  # default",
        "plc_rotation_key = [sealed]  # GENKAN_PLC_ROTATION_KEY",
        "admin_password = [sealed]  # PDS_ADMIN_PASSWORD",
        "sealing_key = (none)  # default",
        "url = postgres://[sealed]@db/genkan  # GENKAN_DATABASE_URL",
        "upload = 5MiB  # PDS_BLOB_UPLOAD_LIMIT",
        "shutdown_grace = 1m  # default",
    ] {
        assert!(text.lines().any(|shown| shown == line), "no line {line:?} in\n{text}");
    }
    for secret in ["0203", "correct", "horse"] {
        assert!(!text.contains(secret) && !format!("{:?}", reading.config).contains(secret));
    }
    assert!(reading.shown.iter().any(|shown| shown.source == Source::Default));
}

#[test]
fn names_are_unique_and_every_key_is_documented() {
    let keys = super::load::all_keys();
    let mut names: Vec<&str> =
        keys.iter().map(|key| key.env).chain(keys.iter().filter_map(|key| Some(key.alias?.name))).collect();
    let all = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), all);
    assert!(keys.iter().all(|key| key.env.starts_with("GENKAN_") && !key.doc.concat().trim().is_empty()));
}

#[test]
fn the_page_of_documentation_is_fresh() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
    let kept = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        kept == configuration_page(),
        "run: cargo run -p genkan -- docs configuration > docs/configuration.md"
    );
}
