//! The grammars of texts as regular expressions (ECMA-262, as JSON Schema has them). A text that a
//! type takes matches its pattern; what a pattern cannot say (a range, a length in bytes) the type
//! still refuses.

use crate::capability::{Approval, MemoryUse, QUALIFIERS};

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
/// A value that names a build argument: what it becomes the decoder checks.
pub(super) const ARGUMENT: &str = r"\$\{[A-Za-z_][A-Za-z0-9_]*\}";
/// A Debian suite.
const SUITE: &str = "[a-z][a-z0-9-]{0,62}";
/// A Debian package, with a version or without.
pub(super) const DEBIAN_PACKAGE: &str =
    r"^[a-z0-9][a-z0-9+.-]*[a-z0-9+.](?:=[0-9](?:[A-Za-z0-9+.:~-]*[A-Za-z0-9+.:~])?)?$";
/// A part of a repository's path.
const PATH_PART: &str = "[a-z0-9]+(?:(?:[.]|_{1,2}|-+)[a-z0-9]+)*";
/// A label of a registry's host.
const HOST_LABEL: &str = "[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?";
/// A tag.
const TAG: &str = "[A-Za-z0-9_][A-Za-z0-9._-]{0,127}";
/// A manifest's digest.
const DIGEST: &str = "sha256:[0-9a-f]{64}";
/// The owner of copies.
pub(super) const OWNER: &str = "^(?:0|[1-9][0-9]{0,9}):(?:0|[1-9][0-9]{0,9})$";
/// The permissions of copies.
pub(super) const FILE_MODE: &str = "^0?[0-7]{3}$";
/// The name of a build secret.
pub(super) const SECRET_NAME: &str = "^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$";
/// A range of versions: comparators, in what is common to all of them.
pub(super) const REQUIREMENT: &str = r"^ *(?:[*xX]|(?:[=~^]|[<>]=?)? *[0-9][0-9A-Za-z.*+-]*(?: *, *(?:[=~^]|[<>]=?)? *[0-9][0-9A-Za-z.*+-]*)*) *$";
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

/// The source of a copy step: a path or pattern below the folder, or `.`; with a slash in front one of a
/// stage or package.
pub(super) fn copy_source() -> String {
    format!(r"^(?:\.|/|/?{0}(?:/{0})*)$", segment())
}

/// A path or pattern below some folder.
pub(super) fn glob() -> String {
    format!("^{0}(?:/{0})*$", segment())
}

/// `HOST[:PORT]/PATH`, where the host can be told from a part of a path.
fn remote() -> String {
    format!(
        r"(?:localhost|(?=[^/]*[.:])(?:{HOST_LABEL}(?:\.{HOST_LABEL})*|\[[0-9a-f:.]+\]))(?::{PORT})?/{PATH_PART}(?:/{PATH_PART})*"
    )
}

/// A repository's path that is not read as one with a registry.
fn local() -> String {
    format!("(?![^/]*[.:][^/]*/){PATH_PART}(?:/{PATH_PART})*")
}

/// A tag, a digest or both.
fn specific() -> String {
    format!("(?::{TAG}(?:@{DIGEST})?|@{DIGEST})")
}

/// What a stage starts from.
pub(super) fn base() -> String {
    let (remote, local, specific) = (remote(), local(), specific());
    format!(
        "^(?:host|scratch|debian(?::{SUITE})?|stage:[a-z0-9_-]{{1,63}}|aap:(?:{remote}|{local}){specific}|(?!(?:debian|stage|aap):){remote}{specific})$"
    )
}

/// A base of the kind debian, or one that an argument decides.
pub(super) fn debian_base() -> String {
    format!("^debian(?::|$)|{ARGUMENT}")
}

/// What a file extends: a path, or a package.
pub(super) fn extends() -> String {
    let (remote, local, specific) = (remote(), local(), specific());
    format!(r"^(?:\.{{1,2}}|\.{{0,2}}/[^{HIDDEN}]*|(?:{remote}|{local}){specific})$")
}

/// Where the versions of a dependency are.
pub(super) fn provider() -> String {
    format!("^(?:oci:[^:{HIDDEN}]+|{})$", remote())
}

/// A port with a protocol or without.
pub(super) fn port() -> String {
    format!("^{PORT}(?:/(?:tcp|udp))?$")
}

/// The program: a path below the root or below `/app`.
pub(super) fn program() -> String {
    format!("^/?{0}(?:/{0})*$", segment())
}

/// The value of a capability, without anchors; `None` for a name that has no pattern here.
pub(super) fn capability_value(name: &str) -> Option<String> {
    let any_or = |name: &str| format!(r"(?:\*|{})", unanchored(name));
    match name {
        "file_read" | "file_write" | "exec" => Some(path_pattern()),
        "net" => Some(format!(r"(?:{}|(?:{OCTET}(?:\.{OCTET}){{3}}|\[[0-9a-f:]+\]):{PORT})", net_name())),
        "listen" => Some(PORT.to_owned()),
        "inference" | "device" => Some(LOWERCASE_NAME.to_owned()),
        "tool" => Some(r"(?:\*|[A-Za-z0-9_-]+)(?:\.(?:\*|[A-Za-z0-9_-]+))*".to_owned()),
        "memory" => Some(format!("(?:{})", MemoryUse::WORDS.join("|"))),
        "message" => Some(any_or("^[a-z0-9](?:[a-z0-9-]{0,25}[a-z0-9])?$")),
        "spawn" | "skill" => Some(any_or(PACKAGE_NAME)),
        "secret" => Some(format!("{}@{HOST_NAME}", unanchored(SECRET_NAME))),
        _ => None,
    }
}

/// A number of an IPv4 address.
const OCTET: &str = "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])";
/// A model's alias, a device's name.
const LOWERCASE_NAME: &str = "[a-z0-9](?:[a-z0-9._-]{0,61}[a-z0-9])?";
/// A host's name, whose last label is no number.
const HOST_NAME: &str = r"(?!(?:[^ ]*\.)?(?:[0-9]+|0x[0-9a-f]*)(?:$| ))(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?";

fn unanchored(pattern: &str) -> &str {
    pattern.trim_start_matches('^').trim_end_matches('$')
}

/// A path pattern: `**` is the last segment or nowhere.
fn path_pattern() -> String {
    let segment = format!(r"(?!\.{{1,2}}(?:/|$| \[))(?:(?!\*\*)[^/?\[\]{{}}\\{HIDDEN}])+");
    format!(r"/(?:{segment}(?:/{segment})*(?:/\*\*)?|\*\*)?")
}

/// `HOST:PORT` with a name or a pattern of names.
pub(super) fn net_name() -> String {
    let label = "[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?";
    format!(r"(?!(?:[^:]*\.)?(?:[0-9]+|0x[0-9a-f]*):)(?:\*\.)?{label}(?:\.{label})*:{PORT}")
}

/// The value of a qualifier, without anchors; `None` for a name that has no pattern here.
pub(super) fn qualifier_value(name: &str) -> Option<String> {
    match name {
        "approval" => Some(format!("(?:{})", Approval::WORDS.join("|"))),
        "max_calls" => Some("[1-9][0-9]{0,9}".to_owned()),
        "max_bytes" => Some(unanchored(SIZE).to_owned()),
        "expires" => Some(
            "[1-9][0-9]{3}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12][0-9]|3[01])T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]Z".to_owned(),
        ),
        _ => None,
    }
}

/// Qualifiers in brackets after a value, or none.
pub(super) fn qualifiers() -> String {
    let valued = QUALIFIERS.iter().filter_map(|(name, _)| Some(format!("{name}={}", qualifier_value(name)?)));
    let one = format!("(?:{})", valued.collect::<Vec<_>>().join("|"));
    format!(r"(?: \[ *{one} *(?:, *{one} *)*\])?")
}
