//! Every text of the pages, in each language.
//!
//! `english.rs` declares the texts. Another language is one more file of the same shape, and the
//! compiler reports missing texts. [`Messages::with`] replaces `{}` in a text.

mod english;
mod german;

use std::fmt::Display;

use crate::base::Language;

pub(super) use english::Messages;

impl Messages {
    pub(super) const fn of(language: Language) -> &'static Self {
        match language {
            Language::English => &english::ENGLISH,
            Language::German => &german::GERMAN,
        }
    }

    /// Returns `text` with `value` in place of `{}`.
    #[expect(clippy::unused_self, reason = "templates can call methods only")]
    pub(super) fn with(&self, text: impl AsRef<str>, value: impl Display) -> String {
        text.as_ref().replacen("{}", &value.to_string(), 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_language_fills_the_same_places() {
        let (english, german) = (english::ENGLISH.all(), german::GERMAN.all());
        assert!(english.len() > 100);
        for ((name, one), (_, other)) in english.iter().zip(&german) {
            assert!(!one.is_empty() && !other.is_empty(), "{name}");
            assert_eq!(one.matches("{}").count(), other.matches("{}").count(), "{name}");
            assert!(one.matches("{}").count() <= 1, "{name}");
        }
        let same = english.iter().zip(&german).filter(|(one, other)| one.1 == other.1).count();
        assert!(same <= 12, "{same} texts are not translated");
    }
}
