//! The corpus of a step of a build: a layer with the probe, a cache with a planted link, a secret;
//! the builder in a process of its own; and afterwards a look at what must be as before.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use aos_core::config::RootKind;

use super::host::{as_agent, user};
use super::{Host, Preparing, RunError, Situation, launcher};
use crate::attempts::PROGRAM;
use crate::step::{End, Report, Step};

/// Where the step has its cache.
const CACHE: &str = "/var/cache/step";
/// A run takes some seconds; the bound is for machines under load.
const TIMEOUT_MS: u64 = 300_000;

/// Runs the table in a step; its output.
pub(super) fn run(
    host: &Host,
    launch: &Path,
    probe: &Path,
    situation: Situation,
) -> Result<(String, String), RunError> {
    let place = Place::make(host, probe, user(situation)?)?;
    let mut params = host.params.clone();
    params.package = place.layer.display().to_string();
    params.workspace = place.cache.display().to_string();
    let argument = serde_json::to_string(&params).map_err(|error| RunError::Plan(error.to_string()))?;
    let step = Step {
        launcher: launch.to_owned(),
        root: RootKind::Host,
        lower: vec![place.layer.clone()],
        command: vec![PROGRAM.to_owned(), "--step".to_owned(), argument],
        env: BTreeMap::new(),
        workdir: "/".to_owned(),
        net: Vec::new(),
        caches: vec![(CACHE.to_owned(), place.cache.clone())],
        secrets: BTreeMap::from([("token".to_owned(), "step-secret".to_owned())]),
        timeout_ms: TIMEOUT_MS,
        scratch: place.scratch.clone(),
        keep: None,
    };
    let report = build(&step, situation)?;
    if report.end != End::Done {
        return Err(RunError::Nothing(format!("{:?} {}", report.end, report.err.join("\n"))));
    }
    place.check(host, &report)?;
    Ok((report.out.join("\n"), report.err.join("\n")))
}

/// Runs a step in a process of the situation's user.
fn build(step: &Step, situation: Situation) -> Result<Report, RunError> {
    let mut command = Command::new(launcher::step()?);
    if situation == Situation::StepOfUser {
        as_agent(&mut command, user(situation)?);
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).current_dir("/");
    let mut child = command.spawn().preparing("the builder")?;
    let text = serde_json::to_string(step).map_err(|error| RunError::Plan(error.to_string()))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(text.as_bytes()).preparing("the builder's request")?;
    }
    let output = child.wait_with_output().preparing("the builder")?;
    serde_json::from_slice(&output.stdout).map_err(|error| RunError::Nothing(error.to_string()))
}

struct Place {
    layer: PathBuf,
    cache: PathBuf,
    scratch: PathBuf,
}

impl Place {
    fn make(host: &Host, probe: &Path, uid: u32) -> Result<Self, RunError> {
        let top = host.path().join("build");
        let place = Self { layer: top.join("layer"), cache: top.join("cache"), scratch: top.join("scratch") };
        let data = place.layer.join("app/data");
        let files = place.cache.join("files");
        for directory in [&data, &files, &place.scratch] {
            fs::create_dir_all(directory).preparing(directory.display().to_string())?;
        }
        fs::copy(probe, place.layer.join("app/escape-probe")).preparing("the probe")?;
        for name in ["file", "gone", "kept"] {
            fs::write(data.join(name), "lower\n").preparing(name)?;
        }
        // What an earlier step, which may be anything, left in the cache.
        symlink(&host.params.secret, files.join("planted")).preparing("a planted link")?;
        // The secret is writable by its mode: what refuses is the sandbox.
        fs::set_permissions(&host.params.secret, Permissions::from_mode(0o666)).preparing("permissions")?;
        if rustix::process::geteuid().is_root() {
            own(&top, uid)?;
        }
        Ok(place)
    }

    /// What must be as before, and what must not be in the changes.
    fn check(&self, host: &Host, report: &Report) -> Result<(), RunError> {
        let wrong = |what: String| Err(RunError::Nothing(format!("after the step: {what}")));
        for name in ["file", "gone", "kept"] {
            let text = fs::read_to_string(self.layer.join("app/data").join(name)).preparing(name)?;
            if text != "lower\n" {
                return wrong(format!("the layer's {name} is {text:?}"));
            }
        }
        if fs::read_to_string(&host.params.secret).preparing("the secret")? != "content\n" {
            return wrong("the host's file has changed".to_owned());
        }
        for (path, wanted) in
            [("app/data/file", "f644"), ("app/data/gone", "w"), ("opt/copy", "f755"), ("app/data", "d755")]
        {
            if report.changes.get(path).map(String::as_str) != Some(wanted) {
                return wrong(format!("{path} is {:?} and not {wanted}", report.changes.get(path)));
            }
        }
        let made = ["run", "tmp", "proc", "dev", "sys", "workspace", "usr", "bin", "var", "mem", "etc"];
        let is_made = |path: &String| made.iter().any(|top| path.split('/').next() == Some(top));
        if let Some(path) = report.changes.keys().find(|path| is_made(path)) {
            return wrong(format!("{path} is in the changes"));
        }
        if fs::read_dir(&self.scratch).preparing("the scratch directory")?.next().is_some() {
            return wrong("the scratch directory is not empty".to_owned());
        }
        Ok(())
    }
}

/// Gives a directory with all in it to a user.
fn own(path: &Path, uid: u32) -> Result<(), RunError> {
    let what = || path.display().to_string();
    std::os::unix::fs::lchown(path, Some(uid), Some(uid)).preparing(what())?;
    if fs::symlink_metadata(path).preparing(what())?.is_dir() {
        for entry in fs::read_dir(path).preparing(what())? {
            own(&entry.preparing(what())?.path(), uid)?;
        }
    }
    Ok(())
}
