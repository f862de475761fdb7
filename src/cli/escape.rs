//! Text of strangers on its way to the user: names, comments and failure messages may hold characters that
//! command a terminal or turn text around. Here they become visible escapes. (HOSTILE: a comment is an
//! attack until it has been through here.)

use serde::Serialize;
use std::fmt::{self, Write};

/// Shows `text` with every control and direction character as `\u{…}`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plain<'a>(pub(super) &'a str);

impl fmt::Display for Plain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| {
            if is_unsafe(c) { write!(f, "{}", c.escape_unicode()) } else { f.write_char(c) }
        })
    }
}

/// JSON on one line, in which such characters are escaped too; JSON itself asks it for some of them only.
pub(super) fn json(value: &impl Serialize) -> Result<String, serde_json::Error> {
    let text = serde_json::to_string(value)?;
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if is_unsafe(c) {
            // All of them lie in the basic plane, and outside of strings JSON has none.
            let _ = write!(safe, "\\u{:04x}", u32::from(c));
        } else {
            safe.push(c);
        }
    }
    Ok(safe)
}

fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminals_see_no_commands_and_no_reordering() {
        let hostile = "a\x1b[31m\r\n\u{9b}2J\u{202e}gpj\x07é東";
        let shown = Plain(hostile).to_string();
        assert_eq!(shown, "a\\u{1b}[31m\\u{d}\\u{a}\\u{9b}2J\\u{202e}gpj\\u{7}é東");
        let line = json(&hostile).unwrap();
        assert!(!line.chars().any(is_unsafe));
        assert_eq!(serde_json::from_str::<String>(&line).unwrap(), hostile);
    }
}
