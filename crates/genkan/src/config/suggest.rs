//! The known name that is nearest to a mistyped one.

/// Returns the nearest of `known`, if it is near enough to be the intended one.
pub(super) fn nearest<'a>(typed: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|name| (distance(typed, name), name))
        .min()
        // Two slips in a short name, a quarter of a long one. Anything further would be a guess.
        .filter(|(distance, name)| *distance <= 2.max(name.len() / 4))
        .map(|(_, name)| name)
}

/// Levenshtein distance: the number of characters to insert, delete or replace.
///
/// `row` holds the distances of all prefixes of `other` to the part of `one` that was read so far.
fn distance(one: &str, other: &str) -> usize {
    let mut row: Vec<usize> = (0..=other.chars().count()).collect();
    for (line, left) in one.chars().enumerate() {
        // One row is enough: `diagonal` keeps the only value of the row before that would be
        // overwritten too early.
        let mut diagonal = line;
        let mut before = line + 1;
        for (cell, right) in row.iter_mut().skip(1).zip(other.chars()) {
            let changed = diagonal + usize::from(left != right);
            diagonal = *cell;
            before = changed.min(diagonal + 1).min(before + 1);
            *cell = before;
        }
        if let Some(first) = row.first_mut() {
            *first = line + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_edits() {
        for (one, other, edits) in
            [("", "", 0), ("", "ab", 2), ("kitten", "sitting", 3), ("same", "same", 0), ("ab", "ba", 2)]
        {
            assert_eq!(distance(one, other), edits, "{one} {other}");
            assert_eq!(distance(other, one), edits, "{other} {one}");
        }
    }

    #[test]
    fn suggests_only_what_is_near() {
        let known = ["GENKAN_LISTEN", "GENKAN_PUBLIC_URL"];
        assert_eq!(nearest("GENKAN_LISTENS", known), Some("GENKAN_LISTEN"));
        assert_eq!(nearest("GENKAN_PUBLIC_URI", known), Some("GENKAN_PUBLIC_URL"));
        assert_eq!(nearest("GENKAN_FLUX_CAPACITOR", known), None);
    }
}
