//! The languages of pages and emails.

/// A language in which every text exists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Language {
    #[default]
    English,
    German,
}

impl Language {
    pub(crate) const ALL: [Self; 2] = [Self::English, Self::German];

    /// The tag of the language (RFC 5646), for the `lang` attribute and `Content-Language`.
    pub(crate) const fn tag(self) -> &'static str {
        match self {
            Self::English => "en",
            Self::German => "de",
        }
    }

    /// Returns the language that a tag such as `de-AT` names, if Genkan has it.
    pub(crate) fn of_tag(tag: &str) -> Option<Self> {
        let primary = tag.trim().split(['-', '_']).next().unwrap_or_default();
        Self::ALL.into_iter().find(|language| primary.eq_ignore_ascii_case(language.tag()))
    }

    /// Returns the language of the first tag that names one that Genkan has.
    pub(crate) fn first_of<'a>(tags: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        tags.into_iter().find_map(Self::of_tag)
    }

    /// Returns the best language for an `Accept-Language` header (RFC 9110 §12.5.4).
    pub(crate) fn accepted(header: &str) -> Option<Self> {
        let mut wanted: Vec<(Self, f32)> = header
            .split(',')
            .take(MOST_TAGS)
            .filter_map(|item| {
                let (tag, parameters) = item.split_once(';').unwrap_or((item, ""));
                let weight = match parameters.trim().strip_prefix("q=") {
                    Some(number) => number.trim().parse().unwrap_or(0.0),
                    None => 1.0,
                };
                Some((Self::of_tag(tag)?, weight)).filter(|(_, weight)| *weight > 0.0)
            })
            .collect();
        // The sort is stable: of languages with equal weight, the first in the header wins.
        wanted.sort_by(|one, other| other.1.total_cmp(&one.1));
        wanted.first().map(|(language, _)| *language)
    }
}

/// Maximum number of tags that are read. Browsers send fewer than ten.
const MOST_TAGS: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_preferred_supported_language_is_chosen() {
        for (header, expected) in [
            ("de", Some(Language::German)),
            ("de-AT,de;q=0.9,en;q=0.8", Some(Language::German)),
            ("fr;q=1.0, en;q=0.3, de;q=0.7", Some(Language::German)),
            ("EN-us", Some(Language::English)),
            ("en, de", Some(Language::English)),
            ("de;q=0, en;q=0.1", Some(Language::English)),
            ("de;q=banana, fr", None),
            ("", None),
            ("*", None),
        ] {
            assert_eq!(Language::accepted(header), expected, "{header:?}");
        }
        assert_eq!(Language::first_of(["fr", "de-CH", "en"]), Some(Language::German));
        assert_eq!(Language::first_of(["fr"]), None);
    }
}
