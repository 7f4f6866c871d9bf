//! `[brand]`: appearance of the pages.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use super::problem::Findings;
use super::section::section;
use super::value::Setting;

section! {
    /// Appearance of the pages.
    pub struct Brand = "brand" {
        /// Name at the top of every page. Default: `name` of `[service]`.
        name: Option<String> { env: "GENKAN_BRAND_NAME" },
        /// Colour of the background, buttons and links. Genkan darkens or lightens it where text
        /// needs more contrast.
        color: Colour { env: "GENKAN_BRAND_COLOR", alias: "PDS_PRIMARY_COLOR", default: "#3b6e5a" },
        /// Logo next to the name: an .svg, .png, .webp or .jpg file of at most 256 KiB, shown at 40
        /// × 40 pixels.
        logo_file: Option<PathBuf> { env: "GENKAN_BRAND_LOGO_FILE" },
    }
}

impl Brand {
    fn check(&self, found: &mut Findings) {
        if self.name.as_ref().is_some_and(|name| name.trim().is_empty() || name.chars().count() > 60) {
            found.add("GENKAN_BRAND_NAME", "is empty or too long", "use 1 to 60 characters");
        }
    }
}

/// An RGB colour, written as in CSS: `#rrggbb`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Colour {
    pub red: u8,
    pub green: u8,
    pub blue: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not a colour")]
pub struct NoColour;

impl FromStr for Colour {
    type Err = NoColour;

    fn from_str(text: &str) -> Result<Self, NoColour> {
        let digits = text.strip_prefix('#').ok_or(NoColour)?;
        let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(digits.as_bytes()).map_err(|_| NoColour)?;
        let [red, green, blue] = bytes.try_into().map_err(|_| NoColour)?;
        Ok(Self { red, green, blue })
    }
}

impl fmt::Display for Colour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{:02x}{:02x}{:02x}", self.red, self.green, self.blue)
    }
}

impl Setting for Colour {
    const FORM: &'static str = "a colour such as #3b6e5a";

    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map_err(|error: NoColour| error.to_string())
    }

    fn show(&self) -> Option<String> {
        Some(self.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_six_digits() {
        assert_eq!("#3B6e5a".parse::<Colour>().unwrap().to_string(), "#3b6e5a");
        for text in ["", "3b6e5a", "#fff", "#3b6e5a00", "#gggggg", "red"] {
            assert!(text.parse::<Colour>().is_err(), "{text}");
        }
    }
}
