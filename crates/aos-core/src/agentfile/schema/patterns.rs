//! The grammars of texts as regular expressions (ECMA-262, as JSON Schema has them). A text that a
//! type takes matches its pattern; what a pattern cannot say (a range, a length in bytes) the type
//! still refuses.

/// Characters that no path and no visible text has: `is_hidden` of our messages, as far as a pattern
/// without flags reaches.
const HIDDEN: &str =
    r"\u0000-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb";
/// Any text without NUL: arguments and values of variables.
pub(super) const ANY: &str = r"^[^\u0000]*$";
/// Semantic versioning's own (<https://semver.org>).
pub(super) const VERSION: &str = r"^(?:0|[1-9][0-9]*)\.(?:0|[1-9][0-9]*)\.(?:0|[1-9][0-9]*)(?:-(?:0|[1-9][0-9]*|[0-9]*[a-zA-Z-][0-9a-zA-Z-]*)(?:\.(?:0|[1-9][0-9]*|[0-9]*[a-zA-Z-][0-9a-zA-Z-]*))*)?(?:\+[0-9a-zA-Z-]+(?:\.[0-9a-zA-Z-]+)*)?$";
/// A package's name.
pub(super) const PACKAGE_NAME: &str = r"^(?!.*\.\.)[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?$";
/// A stage's name.
pub(super) const STAGE_NAME: &str = r"^[a-z0-9_-]+$";
/// A label's name.
pub(super) const LABEL_NAME: &str = r"^[A-Za-z0-9][A-Za-z0-9._/-]*$";
/// A variable's name.
pub(super) const ENV_NAME: &str = r"^[A-Za-z_][A-Za-z0-9_]*$";
/// A size.
pub(super) const SIZE: &str = r"^[1-9][0-9]{0,19}[KMGT]?$";
/// A share of CPU time.
pub(super) const CPU: &str = r"^[1-9][0-9]{0,5}%$";
/// A span of time; at least one part is there and is not 0.
pub(super) const DURATION: &str = r"^(?=.*[1-9])(?:(?:0|[1-9][0-9]*)d)?(?:(?:0|[1-9][0-9]*)h)?(?:(?:0|[1-9][0-9]*)m)?(?:(?:0|[1-9][0-9]*)s)?$";
/// A count as text.
pub(super) const COUNT: &str = r"^[1-9][0-9]{0,6}$";
/// A port, 1 to 65535.
const PORT: &str = "(?:[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])";

/// Lines of visible text.
pub(super) fn visible(newlines: bool) -> String {
    if newlines { format!(r"^(?:\n|[^{HIDDEN}])*$") } else { format!("^[^{HIDDEN}]*$") }
}

/// One segment of a path: not empty, `.` or `..`.
fn segment() -> String {
    format!(r"(?!\.{{1,2}}(?:/|$))[^/{HIDDEN}]+")
}

/// An absolute path in normal form.
pub(super) fn absolute() -> String {
    format!("^/(?:{0}(?:/{0})*)?$", segment())
}

/// The target of a copy step: a path, or a directory with a closing slash.
pub(super) fn copy_target() -> String {
    format!("^/(?:{0}(?:/{0})*/?)?$", segment())
}

/// The source of a copy step: a path below the folder, or `.`.
pub(super) fn copy_source() -> String {
    format!(r"^(?:\.|{0}(?:/{0})*)$", segment())
}

/// The program: a path below the root or below `/app`.
pub(super) fn program() -> String {
    format!("^/?{0}(?:/{0})*$", segment())
}

/// The value of a capability, without anchors; `None` for a name that has no pattern here.
pub(super) fn capability_value(name: &str) -> Option<String> {
    match name {
        "file_read" | "file_write" | "exec" => Some(format!(
            r"(?!.*\*\*(?!$))(?!.*[^/]\*\*$)/(?:(?!\.{{1,2}}(?:/|$))[^/?\[\]{{}}\\{HIDDEN}]+(?:/(?!\.{{1,2}}(?:/|$))[^/?\[\]{{}}\\{HIDDEN}]+)*)?"
        )),
        "net" => {
            let label = "[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?";
            Some(format!(r"(?!(?:[^:]*\.)?(?:[0-9]+|0x[0-9a-f]*):)(?:\*\.)?{label}(?:\.{label})*:{PORT}"))
        }
        "listen" => Some(PORT.to_owned()),
        _ => None,
    }
}
