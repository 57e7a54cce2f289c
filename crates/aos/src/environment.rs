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

/// The user store, when `AOS_STORE` names one; see `store.rs`.
pub(crate) fn store() -> Option<PathBuf> {
    variable("AOS_STORE").map(PathBuf::from)
}

/// The home directory.
pub(crate) fn home() -> Option<PathBuf> {
    variable("HOME").map(PathBuf::from)
}

/// The user's data (XDG Base Directory Specification). A relative path is not valid there, and passed over.
pub(crate) fn data_home() -> Option<PathBuf> {
    let named = variable("XDG_DATA_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    named.or_else(|| home().map(|home| home.join(".local/share")))
}

/// The user's settings, likewise.
pub(crate) fn config_home() -> Option<PathBuf> {
    let named = variable("XDG_CONFIG_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    named.or_else(|| home().map(|home| home.join(".config")))
}

/// The directory of keys, when `AOS_KEYS` names one; see `keys.rs`.
pub(crate) fn keys() -> Option<PathBuf> {
    variable("AOS_KEYS").map(PathBuf::from)
}

/// The files that may hold credentials of registries, the first that has one for a registry counts: as docker,
/// skopeo and podman have them (containers-auth.json(5)).
pub(crate) fn credential_files() -> Vec<PathBuf> {
    let docker =
        variable("DOCKER_CONFIG").map(PathBuf::from).or_else(|| home().map(|home| home.join(".docker")));
    let runtime = variable("XDG_RUNTIME_DIR").map(PathBuf::from);
    let files = [
        variable("REGISTRY_AUTH_FILE").map(PathBuf::from),
        docker.map(|directory| directory.join("config.json")),
        runtime.map(|directory| directory.join("containers/auth.json")),
    ];
    files.into_iter().flatten().collect()
}

/// The program that confines run steps, when `AOS_LAUNCH` names another than the installed one.
pub(crate) fn launcher() -> Option<PathBuf> {
    variable("AOS_LAUNCH").map(PathBuf::from)
}

/// The mirror of `from: debian`, when `AOS_DEBIAN_MIRROR` names one.
pub(crate) fn debian_mirror() -> Option<String> {
    variable("AOS_DEBIAN_MIRROR").and_then(|value| value.into_string().ok())
}

/// The variables by which programs find a proxy, for mmdebstrap.
pub(crate) fn proxies() -> std::collections::BTreeMap<String, String> {
    let names = ["http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"];
    let found = |name: &str| Some((name.to_owned(), variable(name)?.into_string().ok()?));
    names.into_iter().filter_map(found).collect()
}
