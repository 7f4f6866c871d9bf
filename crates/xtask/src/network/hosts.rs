//! Settings of a reference PDS, as its operator would write them.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use serde::Serialize;

use super::state::State;

/// A reference PDS of the network.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Host {
    pub name: String,
    pub url: String,
    pub did: String,
    pub admin_password: String,
    /// Whether the host runs in development mode, in which it checks the entryway's answers against
    /// the lexicons.
    pub dev_mode: bool,
    #[serde(skip)]
    pub port: u16,
}

/// Names for the hosts of a fleet, given out in this order.
pub const NAMES: [&str; 8] = ["oak", "elm", "ash", "fir", "yew", "bay", "box", "may"];

/// 128 MiB, so that the host does not refuse the large bodies that Genkan streams.
const LARGEST_UPLOAD: &str = "134217728";

impl Host {
    /// Chooses the host's port and password, or finds them in the state.
    pub fn plan(state: &mut State, name: &str, dev_mode: bool) -> Result<Self> {
        let port = state.port(name)?;
        Ok(Self {
            name: name.to_owned(),
            url: format!("http://localhost:{port}"),
            did: format!("did:web:localhost%3A{port}"),
            admin_password: state.secret(&format!("{name} admin password"))?,
            dev_mode,
            port,
        })
    }

    /// Returns the settings that every PDS needs, behind an entryway or not.
    pub fn settings(&self, state: &mut State, data: &Path) -> Result<BTreeMap<String, String>> {
        let folder = data.join(&self.name);
        std::fs::create_dir_all(folder.join("blobs"))?;
        std::fs::create_dir_all(data.join("logs"))?;
        let text = |path: std::path::PathBuf| path.to_string_lossy().into_owned();
        let appview_port = state.port("appview")?;
        let settings = [
            ("PDS_HOSTNAME", "localhost".to_owned()),
            ("PDS_PORT", self.port.to_string()),
            ("PDS_SERVICE_DID", self.did.clone()),
            ("PDS_DATA_DIRECTORY", text(folder.clone())),
            ("PDS_BLOBSTORE_DISK_LOCATION", text(folder.join("blobs"))),
            ("PDS_BLOBSTORE_DISK_TMP_LOCATION", text(folder.join("blobs-arriving"))),
            ("PDS_BLOB_UPLOAD_LIMIT", LARGEST_UPLOAD.to_owned()),
            ("PDS_MAX_REPO_IMPORT_SIZE", LARGEST_UPLOAD.to_owned()),
            ("PDS_ADMIN_PASSWORD", self.admin_password.clone()),
            ("PDS_JWT_SECRET", state.secret(&format!("{} session secret", self.name))?),
            // All but about one in 2^127 values of 32 bytes are keys on this curve.
            (
                "PDS_PLC_ROTATION_KEY_K256_PRIVATE_KEY_HEX",
                state.secret(&format!("{} rotation key", self.name))?,
            ),
            ("PDS_BSKY_APP_VIEW_URL", format!("http://localhost:{appview_port}")),
            ("PDS_BSKY_APP_VIEW_DID", format!("did:web:localhost%3A{appview_port}")),
            ("PDS_INVITE_REQUIRED", "false".to_owned()),
            ("PDS_DEV_MODE", self.dev_mode.to_string()),
            ("PDS_DISABLE_SSRF_PROTECTION", "true".to_owned()),
            ("LOG_ENABLED", "true".to_owned()),
            ("LOG_LEVEL", "info".to_owned()),
            ("LOG_DESTINATION", text(data.join("logs").join(format!("{}.jsonl", self.name)))),
        ];
        Ok(settings.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    }
}
