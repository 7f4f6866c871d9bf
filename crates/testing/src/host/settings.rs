//! The variables that configure a host.

use std::sync::Arc;

use genkan_protocol::crypto::{Curve, PublicKey};
use genkan_protocol::oauth::nonce::Nonces;

/// The settings that the operator made.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) public_url: String,
    pub(super) service_did: String,
    pub(super) admin_password: String,
    pub(super) directory_url: Option<String>,
    pub(super) handle_domains: Vec<String>,
    pub(super) entryway: Option<Entryway>,
    /// The nonces of proofs. A host has random ones until it is configured.
    pub(super) nonces: Arc<Nonces>,
    /// The parts of an entryway that are set so far.
    url: Option<String>,
    did: Option<String>,
    verify_key: Option<PublicKey>,
    rotation_key: Option<String>,
}

/// The host's entryway.
#[derive(Clone, Debug)]
pub(super) struct Entryway {
    pub(super) url: String,
    pub(super) did: String,
    /// The one key that signs sessions.
    pub(super) verify_key: PublicKey,
    pub(super) rotation_key: String,
}

impl Settings {
    pub(super) fn new(admin_password: &str) -> Self {
        Self {
            public_url: String::new(),
            service_did: String::new(),
            admin_password: admin_password.to_owned(),
            directory_url: None,
            handle_domains: vec![".test".to_owned()],
            entryway: None,
            // A secret that Genkan does not have. Proofs work only after the host is configured, or
            // after a retry.
            nonces: Arc::new(Nonces::new(&[7; 32], Nonces::INTERVAL)),
            url: None,
            did: None,
            verify_key: None,
            rotation_key: None,
        }
    }

    pub(super) fn listens_at(&mut self, port: u16) {
        self.public_url = format!("http://localhost:{port}");
        self.service_did = format!("did:web:localhost%3A{port}");
    }

    pub(super) fn read(&mut self, lines: &str) {
        for line in lines.lines() {
            // The lines come from `genkan host env`, or from a test that writes them as in a shell.
            let line = line.trim().trim_start_matches("export ");
            let Some((name, value)) = line.split_once('=') else { continue };
            self.set(name, value.trim_matches(['"', '\'']));
        }
        // Without the URL this is a stand-alone server. With it, the other three settings are
        // mandatory.
        let Some(url) = &self.url else { return };
        self.entryway = Some(Entryway {
            url: url.clone(),
            did: self.did.clone().expect("PDS_ENTRYWAY_DID must be set"),
            verify_key: self
                .verify_key
                .clone()
                .expect("PDS_ENTRYWAY_JWT_VERIFY_KEY_K256_PUBLIC_KEY_HEX must be set"),
            rotation_key: self.rotation_key.clone().expect("PDS_ENTRYWAY_PLC_ROTATION_KEY must be set"),
        });
    }

    fn set(&mut self, name: &str, value: &str) {
        let value = value.to_owned();
        match name {
            "PDS_HOSTNAME" => {
                self.public_url = format!("https://{value}");
                self.service_did = format!("did:web:{value}");
            }
            "PDS_ADMIN_PASSWORD" => self.admin_password = value,
            "PDS_SERVICE_DID" => self.service_did = value,
            "PDS_DID_PLC_URL" => self.directory_url = Some(value.trim_end_matches('/').to_owned()),
            "PDS_SERVICE_HANDLE_DOMAINS" => {
                self.handle_domains = value.split(',').map(str::to_owned).collect();
            }
            "PDS_ENTRYWAY_URL" => {
                let (_, rest) = value.split_once("://").expect("PDS_ENTRYWAY_URL is a URL");
                assert!(!rest.contains(['/', '?', '#']), "PDS_ENTRYWAY_URL must be a bare origin");
                self.url = Some(value);
            }
            "PDS_DPOP_SECRET" => {
                let secret = data_encoding::HEXLOWER.decode(value.as_bytes()).unwrap();
                self.nonces = Arc::new(Nonces::new(&secret.try_into().unwrap(), Nonces::INTERVAL));
            }
            "PDS_ENTRYWAY_DID" => self.did = Some(value),
            "PDS_ENTRYWAY_JWT_VERIFY_KEY_K256_PUBLIC_KEY_HEX" => {
                let point = data_encoding::HEXLOWER_PERMISSIVE.decode(value.as_bytes()).unwrap();
                self.verify_key = Some(PublicKey::from_sec1(Curve::K256, &point).unwrap());
            }
            "PDS_ENTRYWAY_PLC_ROTATION_KEY" => {
                PublicKey::from_did_key(&value).unwrap();
                self.rotation_key = Some(value);
            }
            _ => {}
        }
    }
}
