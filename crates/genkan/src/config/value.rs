//! Types of values: how each is parsed, shown and described.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use genkan_protocol::syntax::Did;
use ipnet::IpNet;

use crate::base::{Origin, Secret};

/// A type of value that a key can have.
pub(super) trait Setting: Sized {
    /// Form of a value, such as "a whole number". Ends the sentence "use …".
    const FORM: &'static str;
    const SECRET: bool = false;
    /// Whether a key has several values of that form.
    const LIST: bool = false;

    /// Parses a value.
    ///
    /// # Errors
    ///
    /// The error ends the sentence "`text` …". It never repeats the text, which may be a secret.
    fn parse(text: &str) -> Result<Self, String>;

    /// Value of a key that is not set, for types that can be absent.
    fn absent() -> Option<Self> {
        None
    }

    /// The value as an operator would write it. `None` if the key is not set.
    fn show(&self) -> Option<String>;
}

impl<T: Setting> Setting for Option<T> {
    const FORM: &'static str = T::FORM;
    const SECRET: bool = T::SECRET;

    fn parse(text: &str) -> Result<Self, String> {
        // An empty value counts as not set, so a word is needed to remove a default.
        if text == "off" { Ok(None) } else { T::parse(text).map(Some) }
    }

    fn absent() -> Option<Self> {
        Some(None)
    }

    fn show(&self) -> Option<String> {
        self.as_ref().and_then(Setting::show)
    }
}

impl<T: Setting> Setting for Vec<T> {
    const FORM: &'static str = T::FORM;
    const LIST: bool = true;

    fn parse(text: &str) -> Result<Self, String> {
        // Empty items are skipped, so that a trailing comma or a list over several lines does no
        // harm.
        text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(T::parse).collect()
    }

    fn absent() -> Option<Self> {
        Some(Self::new())
    }

    fn show(&self) -> Option<String> {
        let items: Vec<String> = self.iter().filter_map(Setting::show).collect();
        (!items.is_empty()).then(|| items.join(","))
    }
}

/// Implements [`Setting`] for types whose `Display` is the form in which they are written.
macro_rules! plain {
    ($($Type:ty: $form:literal, $wrong:literal;)+) => {$(
        impl Setting for $Type {
            const FORM: &'static str = $form;

            fn parse(text: &str) -> Result<Self, String> {
                text.parse().map_err(|_| $wrong.to_owned())
            }

            fn show(&self) -> Option<String> {
                Some(self.to_string())
            }
        }
    )+};
}

plain! {
    bool: "true or false", "is neither true nor false";
    u32: "a whole number", "is not a whole number";
    usize: "a whole number", "is not a whole number";
    String: "text", "is not text";
    Did: "a DID such as did:web:example.com", "is not a DID";
}

impl Setting for SocketAddr {
    const FORM: &'static str = "an IP address and port such as 127.0.0.1:2583 or [::]:2583";

    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| "is not an IP address with a port".to_owned())
    }

    fn show(&self) -> Option<String> {
        Some(self.to_string())
    }
}

impl Setting for PathBuf {
    const FORM: &'static str = "a path";

    fn parse(text: &str) -> Result<Self, String> {
        Ok(Self::from(text))
    }

    fn show(&self) -> Option<String> {
        Some(self.display().to_string())
    }
}

impl Setting for Origin {
    const FORM: &'static str = "an origin such as https://example.com, without a path or trailing slash";

    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map_err(|error| format!("{error}"))
    }

    fn show(&self) -> Option<String> {
        Some(self.to_string())
    }
}

impl Setting for IpNet {
    const FORM: &'static str = "an IP address or network such as 127.0.0.1 or 10.0.0.0/8";

    fn parse(text: &str) -> Result<Self, String> {
        text.parse()
            // A single address is the network that contains only it.
            .or_else(|_| text.parse::<IpAddr>().map(Self::from))
            .map_err(|_| "is not an IP address or network".to_owned())
    }

    fn show(&self) -> Option<String> {
        Some(self.to_string())
    }
}

impl Setting for Secret<String> {
    const FORM: &'static str = "secret text";
    const SECRET: bool = true;

    fn parse(text: &str) -> Result<Self, String> {
        Ok(Self::new(text.to_owned()))
    }

    fn show(&self) -> Option<String> {
        Some(self.to_string())
    }
}

impl Setting for Secret<[u8; 32]> {
    const FORM: &'static str = "64 hexadecimal digits, as `openssl rand -hex 32` prints";
    const SECRET: bool = true;

    fn parse(text: &str) -> Result<Self, String> {
        let bytes = data_encoding::HEXLOWER_PERMISSIVE
            .decode(text.as_bytes())
            .map_err(|_| "is not hexadecimal".to_owned())?;
        // The message counts digits, which is what the operator sees.
        let bytes: [u8; 32] = bytes
            .try_into()
            .map_err(|bytes: Vec<u8>| format!("has {} hexadecimal digits instead of 64", bytes.len() * 2))?;
        Ok(Self::new(bytes))
    }

    fn show(&self) -> Option<String> {
        Some(self.to_string())
    }
}

const DURATION_UNITS: [(&str, u64); 5] =
    [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

impl Setting for Duration {
    const FORM: &'static str = "a whole number with a unit, such as 250ms, 30s, 15m, 2h or 90d";

    fn parse(text: &str) -> Result<Self, String> {
        number_with_unit(text, &DURATION_UNITS)
            .map(Self::from_millis)
            .ok_or_else(|| "is not a duration".to_owned())
    }

    fn show(&self) -> Option<String> {
        Some(duration_text(*self))
    }
}

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

impl Size {
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// The number as a `usize`, for buffers in memory. Saturates where `usize` is smaller.
    pub fn in_memory(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

const SIZE_UNITS: [(&str, u64); 7] = [
    ("kB", 1000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("B", 1),
];

impl Setting for Size {
    const FORM: &'static str = "a whole number with a unit, such as 150kB, 32KiB, 5MiB or 1GiB";

    fn parse(text: &str) -> Result<Self, String> {
        text.parse()
            .ok()
            // A bare number is in bytes, as in the settings of the reference PDS.
            .or_else(|| number_with_unit(text, &SIZE_UNITS))
            .map(Self)
            .ok_or_else(|| "is not a size".to_owned())
    }

    fn show(&self) -> Option<String> {
        Some(self.to_string())
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&with_largest_unit(self.0, &SIZE_UNITS))
    }
}

/// A maximum count per duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    pub count: u32,
    pub per: Duration,
}

impl Setting for Rate {
    const FORM: &'static str = "a count and a duration, such as 30/5m or 300/1d";

    fn parse(text: &str) -> Result<Self, String> {
        let wrong = || "is not a rate".to_owned();
        let (count, per) = text.split_once('/').ok_or_else(wrong)?;
        let count: u32 = count.trim().parse().map_err(|_| wrong())?;
        let per = Duration::parse(per.trim()).map_err(|_| wrong())?;
        // A count of 0 would refuse every request.
        if count == 0 || per < Duration::from_secs(1) {
            return Err("has a count of 0 or a duration below 1s".to_owned());
        }
        Ok(Self { count, per })
    }

    fn show(&self) -> Option<String> {
        Some(self.to_string())
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.count, duration_text(self.per))
    }
}

fn number_with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.find(|character: char| !character.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    // The names are compared as a whole, so `m` and `ms` cannot be confused.
    let (_, factor) = units.iter().find(|(name, _)| *name == unit.trim_start())?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

fn duration_text(duration: Duration) -> String {
    with_largest_unit(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX), &DURATION_UNITS)
}

/// Writes a number with the largest unit that leaves it whole.
fn with_largest_unit(number: u64, units: &[(&str, u64)]) -> String {
    let zero = number == 0;
    let largest = units
        .iter()
        // Zero is a multiple of every unit. It is shown in seconds or bytes.
        .filter(|(name, factor)| number.is_multiple_of(*factor) && (!zero || ["s", "B"].contains(name)))
        .max_by_key(|(_, factor)| *factor);
    match largest {
        Some((unit, factor)) => format!("{}{unit}", number / factor),
        None => number.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_sizes_and_rates_print_as_they_are_written() {
        for text in ["250ms", "0s", "90s", "15m", "36h", "90d"] {
            assert_eq!(Duration::parse(text).unwrap().show().unwrap(), text);
        }
        for text in ["0B", "1B", "150kB", "32KiB", "5MiB", "1GiB", "1500B"] {
            assert_eq!(Size::parse(text).unwrap().show().unwrap(), text);
        }
        for text in ["30/5m", "300/1d"] {
            assert_eq!(Rate::parse(text).unwrap().show().unwrap(), text);
        }
        assert_eq!(Size::parse("5242880").unwrap(), Size(5 << 20));
    }

    #[test]
    fn a_value_without_a_unit_or_beyond_its_range_is_refused() {
        for text in
            ["", "10", "m", "-1s", "1.5h", "5 minutes", "99999999999999999999s", "18446744073709551615d"]
        {
            assert!(Duration::parse(text).is_err(), "{text}");
        }
        for text in ["", "5mb", "five", "-5", "99999999999GiB"] {
            assert!(Size::parse(text).is_err(), "{text}");
        }
        for text in ["", "30", "30/5", "0/5m", "30/0s", "x/5m"] {
            assert!(Rate::parse(text).is_err(), "{text}");
        }
    }
}
