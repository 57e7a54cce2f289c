//! The process environment, read here and nowhere else.
//!
//! Everything that `aos` takes from its environment has a function in this module, so that what can change
//! its behaviour is one page. Nothing here is cached: the environment does not change after start.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::{Context, Result};

/// Reads one variable; the only place that calls [`std::env::var_os`].
#[expect(clippy::disallowed_methods, reason = "this module owns the environment")]
fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// True when `NO_COLOR` is set to anything but the empty string (<https://no-color.org>).
pub(crate) fn no_color() -> bool {
    variable("NO_COLOR").is_some()
}

/// The terminal type, when it is known and is not `dumb`.
pub(crate) fn terminal_type() -> Option<String> {
    variable("TERM").and_then(|term| term.into_string().ok()).filter(|term| term != "dumb")
}

/// The directory of the credentials that systemd passed to this unit (systemd.exec(5), "CREDENTIALS").
pub(crate) fn credentials_directory() -> Option<PathBuf> {
    variable("CREDENTIALS_DIRECTORY").map(PathBuf::from)
}

/// The variable that the operator named with `--key-from-env`; `None` when it is unset, empty or not UTF-8.
pub(crate) fn secret_named_by_operator(name: &str) -> Option<String> {
    variable(name).and_then(|value| value.into_string().ok())
}

/// Where temporary files as large as a package go: `TMPDIR`, else the folder for large ones (hier(7)).
pub(crate) fn temporary_directory() -> PathBuf {
    variable("TMPDIR").map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from)
}

/// The time that a reproducible build gives its files (<https://reproducible-builds.org/specs/source-date-epoch>).
pub(crate) fn source_date_epoch() -> Result<Option<u64>> {
    let Some(value) = variable("SOURCE_DATE_EPOCH") else { return Ok(None) };
    let seconds = value.to_str().and_then(|text| text.parse().ok());
    seconds.map(Some).context("SOURCE_DATE_EPOCH is not a number of seconds since 1970")
}
