//! Where the real launcher is, and how it is built.

use std::path::{Path, PathBuf};
use std::process::Command;

use aos_isolation::programs::Programs;

use super::RunError;

/// The launcher named by `AOS_LAUNCH`, else built from this workspace next to the calling program.
pub fn find() -> Result<PathBuf, RunError> {
    if let Some(path) = std::env::var_os("AOS_LAUNCH") {
        return Ok(path.into());
    }
    build("aos-sandbox", "aos-launch")
}

/// The driver of the isolation backends: named by `AOS_ISOLATE`, else built.
pub fn isolate() -> Result<PathBuf, RunError> {
    match std::env::var_os("AOS_ISOLATE") {
        Some(path) => Ok(path.into()),
        None => build("aos-isolation", "aos-isolate"),
    }
}

/// Where the programs of the backends are: beside the launcher and in `AOS_ISOLATION_PROGRAMS` (separated by
/// `:`) before Debian's directories.
pub fn programs(launch: &Path) -> Programs {
    let given = std::env::var("AOS_ISOLATION_PROGRAMS").unwrap_or_default();
    let given = given.split(':').filter(|path| !path.is_empty()).map(PathBuf::from);
    Programs::first_in(given.chain(launch.parent().map(Path::to_owned)).collect())
}

/// The program that runs inside: next to the calling program when it is there, else built.
pub fn probe() -> Result<PathBuf, RunError> {
    let own = std::env::current_exe().map_err(|error| RunError::Launcher(error.to_string()))?;
    let beside = own.with_file_name("escape-probe");
    if is_file(&beside) { Ok(beside) } else { build("aos-escape", "escape-probe") }
}

/// The program that runs a step of a build: next to the calling program when it is there, else built.
pub fn step() -> Result<PathBuf, RunError> {
    let own = std::env::current_exe().map_err(|error| RunError::Launcher(error.to_string()))?;
    let beside = own.with_file_name("escape-step");
    if is_file(&beside) { Ok(beside) } else { build("aos-escape", "escape-step") }
}

/// Builds a program of the workspace in the profile of the calling program.
pub fn build(package: &str, binary: &str) -> Result<PathBuf, RunError> {
    let failed = |text: String| RunError::Launcher(text);
    let own = std::env::current_exe().map_err(|error| failed(error.to_string()))?;
    let profile = own
        .ancestors()
        .find(|path| path.join("deps").is_dir() && path.join(".fingerprint").is_dir())
        .ok_or_else(|| failed("not inside a cargo target directory; set AOS_LAUNCH".to_owned()))?;
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "--package", package, "--bin", binary]);
    if profile.file_name().is_some_and(|name| name == "release") {
        cargo.arg("--release");
    }
    let status = cargo
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()
        .map_err(|error| failed(format!("cargo: {error}")))?;
    let path = profile.join(binary);
    if status.success() && is_file(&path) { Ok(path) } else { Err(failed(format!("cannot build {binary}"))) }
}

fn is_file(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.is_file())
}
