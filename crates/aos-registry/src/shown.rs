//! How a registry's own words appear in our messages: escaped and cut, so that they can neither
//! flood nor steer a terminal or a log.

use crate::bounds::SHOWN_MAX;

/// The text without control, formatting and other characters that do not show, cut to
/// [`SHOWN_MAX`] characters.
pub(crate) fn shown(text: &str) -> String {
    let mut escaped: String = text.chars().take(SHOWN_MAX).flat_map(char::escape_debug).collect();
    if text.chars().nth(SHOWN_MAX).is_some() {
        escaped.push('…');
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_and_cuts() {
        assert_eq!(shown("no\x1b[2Jway\u{202e}\n"), "no\\u{1b}[2Jway\\u{202e}\\n");
        assert_eq!(shown(&"x".repeat(10_000)).chars().count(), SHOWN_MAX + 1);
        assert_eq!(shown("größer 漢"), "größer 漢");
    }
}
