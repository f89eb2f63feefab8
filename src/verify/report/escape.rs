//! Text of drivers and cases inside XML, HTML and Markdown.

/// For the text and the attributes of XML and HTML: markup as entities, without the characters that XML
/// forbids even as entities.
pub(super) fn markup(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars().filter(|c| allowed(*c)) {
        match c {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

fn allowed(c: char) -> bool {
    matches!(c, '\t' | '\n') || (!c.is_control() && !matches!(c, '\u{fffe}' | '\u{ffff}'))
}

/// For running text and table cells of Markdown, on one line.
pub(super) fn markdown(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => escaped.push_str("&lt;"),
            '&' => escaped.push_str("&amp;"),
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' => escaped.extend(['\\', c]),
            c if c.is_control() => escaped.push(' '),
            c => escaped.push(c),
        }
    }
    escaped
}

/// A code span of Markdown: fenced by more backquotes than it holds in a row.
pub(super) fn code(text: &str) -> String {
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let (mut longest, mut run) = (0, 0);
    for c in text.chars() {
        run = if c == '`' { run + 1 } else { 0 };
        longest = longest.max(run);
    }
    let fence = "`".repeat(longest + 1);
    let space = if longest > 0 { " " } else { "" };
    format!("{fence}{space}{text}{space}{fence}")
}

/// One argument of a shell, quoted where it has to be.
pub(super) fn shell(argument: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@".contains(c);
    if !argument.is_empty() && argument.chars().all(plain) {
        argument.to_owned()
    } else if !argument.contains(['"', '$', '`', '\\', '!']) {
        // Understood by every shell, those of Windows too.
        format!("\"{argument}\"")
    } else {
        format!("'{}'", argument.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::{code, markdown, markup, shell};

    #[test]
    fn what_means_something_elsewhere_is_escaped() {
        assert_eq!(
            markup("a<b & \"c\" 'd'\0\u{1b}\u{ffff}é"),
            "a&lt;b &amp; &quot;c&quot; &#39;d&#39;é"
        );
        assert_eq!(markdown("a|b <i>*\n"), "a\\|b &lt;i>\\* ");
        assert_eq!(code("a `b`` c"), "``` a `b`` c ```");
        assert_eq!(code("mask[1, 2]"), "`mask[1, 2]`");
        assert_eq!(shell("tests/golden"), "tests/golden");
        assert_eq!(shell("f32 mask[1, 2]"), "\"f32 mask[1, 2]\"");
        assert_eq!(shell("it's $5"), r"'it'\''s $5'");
        assert_eq!(shell(""), "\"\"");
    }
}
