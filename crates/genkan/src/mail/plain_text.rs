//! The text of an HTML email, for readers without HTML.

/// Converts HTML to text: drops tags, turns blocks into lines and common entities into characters.
///
/// Never fails: text that is not HTML stays as it is. The result ends with a line end.
pub(super) fn plain_text(html: &str) -> String {
    let mut text = String::with_capacity(html.len());
    let mut rest = html;
    while let Some(at) = rest.find('<') {
        let (before, tag_on) = rest.split_at(at);
        push_words(&mut text, before);
        // A `<` without a `>` is not a tag but text, such as in "a < b".
        let Some(end) = tag_on.find('>') else {
            rest = tag_on;
            break;
        };
        let (tag, after) = tag_on.split_at(end + 1);
        rest = after;
        let name: String = tag
            .trim_start_matches(['<', '/'])
            .chars()
            .take_while(char::is_ascii_alphanumeric)
            .map(|letter| letter.to_ascii_lowercase())
            .collect();
        // The content of these elements is not text for readers: skip to the closing tag.
        if HIDDEN.contains(&name.as_str()) && !tag.starts_with("</") {
            let closing = format!("</{name}");
            // Lower-case ASCII has the same byte positions, so the index found in it is valid in
            // `after`.
            rest = match after.to_ascii_lowercase().find(&closing) {
                Some(at) => after.get(at..).unwrap_or_default(),
                None => "",
            };
        // Several block tags in a row, such as `</p><p>`, make one line end only.
        } else if BLOCKS.contains(&name.as_str()) && !text.is_empty() && !text.ends_with('\n') {
            text.truncate(text.trim_end_matches(' ').len());
            text.push('\n');
        }
    }
    push_words(&mut text, rest);
    let mut text = text.trim().to_owned();
    text.push('\n');
    text
}

const HIDDEN: [&str; 4] = ["head", "script", "style", "title"];
const BLOCKS: [&str; 14] =
    ["br", "p", "div", "li", "ul", "ol", "tr", "table", "h1", "h2", "h3", "h4", "blockquote", "hr"];

/// Appends `raw` with entities replaced and runs of white space collapsed.
fn push_words(text: &mut String, raw: &str) {
    let mut raw = raw.to_owned();
    // `&amp;` comes last: `&amp;lt;` is the text `&lt;`, not `<`.
    for (entity, character) in
        [("&nbsp;", " "), ("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#39;", "'"), ("&amp;", "&")]
    {
        raw = raw.replace(entity, character);
    }
    for character in raw.chars() {
        if !character.is_whitespace() {
            text.push(character);
        } else if !text.is_empty() && !text.ends_with([' ', '\n']) {
            text.push(' ');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn html_reads_as_text() {
        for (html, text) in [
            ("Just words", "Just words\n"),
            ("<p>One</p>\n<p>Two <b>bold</b>  word</p>", "One\nTwo bold word\n"),
            ("a<br>b<BR/>c", "a\nb\nc\n"),
            ("<head><title>no</title></head><style>p { }</style>yes", "yes\n"),
            ("1 &lt; 2 &amp;amp; 3", "1 < 2 &amp; 3\n"),
            ("a < b", "a < b\n"),
            ("<script>alert(1)", "\n"),
            ("", "\n"),
        ] {
            assert_eq!(plain_text(html), text, "{html}");
        }
    }
}
