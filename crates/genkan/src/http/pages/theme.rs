//! The theme of the pages: the operator's name, colour and logo, and the files that pages load.
//!
//! Each file has a hash of its content in its name, so that browsers may cache it without limit.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::Router;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use data_encoding::HEXLOWER;
use http::HeaderValue;
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use sha2::{Digest as _, Sha256};

use super::colour::Palette;
use crate::config::Config;

/// The operator's theme. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Theme {
    pub(super) name: Arc<str>,
    pub(super) css: Arc<File>,
    pub(super) script: Arc<File>,
    pub(super) logo: Option<Arc<File>>,
}

/// A file that pages load.
#[derive(Debug)]
pub(super) struct File {
    pub(super) path: String,
    kind: &'static str,
    content: axum::body::Bytes,
}

/// Why the theme could not be loaded.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ThemeError {
    #[error("GENKAN_BRAND_LOGO_FILE: {0} cannot be read ({1})")]
    Unreadable(String, std::io::ErrorKind),
    #[error(
        "GENKAN_BRAND_LOGO_FILE: {0} is not an image that can be used; give a .svg, .png, .webp or .jpg of at most 256 KiB"
    )]
    NoImage(String),
}

impl Theme {
    pub(super) fn of(config: &Config) -> Result<Self, ThemeError> {
        let css = format!("{}{}", Palette::of(config.brand.color).css(), STYLE);
        let name = config.brand.name.as_deref().unwrap_or(&config.service.name);
        Ok(Self {
            name: name.into(),
            css: File::new("genkan", "css", "text/css; charset=utf-8", css.into_bytes()),
            script: File::new("submit", "js", "text/javascript; charset=utf-8", SCRIPT.into()),
            logo: config.brand.logo_file.as_deref().map(logo).transpose()?,
        })
    }

    /// The routes of the files.
    pub(super) fn routes<S: Clone + Send + Sync + 'static>(&self) -> Router<S> {
        let files = [Some(&self.css), Some(&self.script), self.logo.as_ref()];
        files.into_iter().flatten().fold(Router::new(), |routes, file| {
            let file = Arc::clone(file);
            routes.route(&file.path.clone(), get(move || async move { file.answer() }))
        })
    }
}

impl File {
    fn new(name: &str, ending: &str, kind: &'static str, content: Vec<u8>) -> Arc<Self> {
        let mut hash = HEXLOWER.encode(&Sha256::digest(&content));
        hash.truncate(16);
        let path = format!("{FOLDER}{name}-{hash}.{ending}");
        Arc::new(Self { path, kind, content: content.into() })
    }

    fn answer(&self) -> Response {
        let headers = [
            (CONTENT_TYPE, self.kind),
            // The content of a path never changes, because its hash is in the path.
            (CACHE_CONTROL, "public, max-age=31536000, immutable"),
            (X_CONTENT_TYPE_OPTIONS, "nosniff"),
            // An SVG opened by itself is a document.
            (CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'; sandbox"),
        ];
        let mut response = self.content.clone().into_response();
        for (name, value) in headers {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        response
    }
}

fn logo(path: &std::path::Path) -> Result<Arc<File>, ThemeError> {
    let shown = || path.display().to_string();
    // The ending decides the content type. Browsers do not guess, because of `nosniff`.
    let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default().to_ascii_lowercase();
    let (ending, kind) = match ending.as_str() {
        "svg" => ("svg", "image/svg+xml"),
        "png" => ("png", "image/png"),
        "webp" => ("webp", "image/webp"),
        "jpg" | "jpeg" => ("jpg", "image/jpeg"),
        _ => return Err(ThemeError::NoImage(shown())),
    };
    let content = std::fs::read(path).map_err(|error| ThemeError::Unreadable(shown(), error.kind()))?;
    // The logo is loaded with every page, and it stays in memory.
    if content.is_empty() || content.len() > LARGEST_LOGO {
        return Err(ThemeError::NoImage(shown()));
    }
    Ok(File::new("logo", ending, kind, content))
}

impl Palette {
    /// The colours as variables that the style sheet uses.
    fn css(&self) -> String {
        let mut text = String::new();
        let block = |text: &mut String, shades: &super::colour::Shades| {
            let _ = write!(
                text,
                ":root{{--brand:{};--on-brand:{};--accent:{};--wall:{}}}",
                shades.brand, shades.on_brand, shades.accent, shades.wall
            );
        };
        block(&mut text, &self.light);
        text.push_str("@media (prefers-color-scheme:dark){");
        block(&mut text, &self.dark);
        text.push_str("}\n");
        text
    }
}

/// The folder of the files.
pub(super) const FOLDER: &str = "/assets/";
const STYLE: &str = include_str!("../../../templates/pages/style.css");
const SCRIPT: &str = include_str!("../../../templates/pages/submit.js");
const LARGEST_LOGO: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_files_name_changes_with_its_content() {
        let one = File::new("a", "css", "text/css", b"x".to_vec());
        assert_eq!(one.path, "/assets/a-2d711642b726b044.css");
        assert_ne!(one.path, File::new("a", "css", "text/css", b"y".to_vec()).path);
    }

    #[test]
    fn only_images_are_logos() {
        let folder = std::env::temp_dir().join(format!("genkan-logo-{}", crate::base::random::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (good, bad) = (folder.join("logo.SVG"), folder.join("logo.html"));
        std::fs::write(&good, "<svg/>").unwrap();
        std::fs::write(&bad, "<svg/>").unwrap();
        assert_eq!(logo(&good).unwrap().kind, "image/svg+xml");
        assert!(matches!(logo(&bad), Err(ThemeError::NoImage(_))));
        assert!(matches!(logo(&folder.join("none.png")), Err(ThemeError::Unreadable(..))));
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
