//! The command line, and what it names: plan, report, user.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use aos_sandbox::plan::{PLAN_MAX_BYTES, SandboxPlan};
use rustix::fs::OFlags;

use crate::cgroup;
use crate::error::{Context, LaunchError, Layer, fail};
use crate::identity;

const USAGE: &str = "aos-launch --plan PATH [--report PATH] [--unit] [--uid N [--gid N]]";

/// The parsed command line.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    plan: PathBuf,
    report: Option<PathBuf>,
    uid: Option<u32>,
    gid: Option<u32>,
    confines: Confines,
}

/// Who limits memory, processor time and tasks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Confines {
    /// The caller, in a way of its own: nothing is checked. For tests and measurements.
    #[default]
    Caller,
    /// `--unit`: the unit that this process is in, and it is checked.
    Unit,
}

/// The user and group that everything after runs as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl Options {
    /// Reads this process's arguments.
    pub(crate) fn from_process() -> Result<Self, LaunchError> {
        Self::parse(std::env::args_os().skip(1))
    }

    fn parse(mut arguments: impl Iterator<Item = OsString>) -> Result<Self, LaunchError> {
        let mut options = Self::default();
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().map_or_else(|| fail(Layer::Usage, USAGE), Ok);
            match argument.to_str() {
                Some("--plan") => options.plan = value()?.into(),
                Some("--report") => options.report = Some(value()?.into()),
                Some("--unit") => options.confines = Confines::Unit,
                Some("--uid") => options.uid = Some(number(&value()?)?),
                Some("--gid") => options.gid = Some(number(&value()?)?),
                _ => return fail(Layer::Usage, USAGE),
            }
        }
        if options.plan.as_os_str().is_empty() || (options.gid.is_some() && options.uid.is_none()) {
            return fail(Layer::Usage, USAGE);
        }
        Ok(options)
    }

    /// Reads the plan: a regular file, bounded.
    pub(crate) fn read_plan(&self) -> Result<SandboxPlan, LaunchError> {
        let bytes = read_bounded(&self.plan, PLAN_MAX_BYTES)?;
        SandboxPlan::parse(&bytes).map_err(chain).layer(Layer::Plan, self.plan.display())
    }

    /// Checks the unit's limits, with `--unit`.
    pub(crate) fn check_unit(&self, plan: &SandboxPlan) -> Result<(), LaunchError> {
        match self.confines {
            Confines::Caller => Ok(()),
            Confines::Unit => cgroup::check(plan),
        }
    }

    /// Opens the report for writing, empty: a report that is there from an earlier start says
    /// nothing about this one.
    pub(crate) fn open_report(&self) -> Result<Option<File>, LaunchError> {
        let Some(path) = &self.report else { return Ok(None) };
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o644)
            .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed())
            .open(path)
            .layer(Layer::Report, path.display())?;
        let is_file = file.metadata().layer(Layer::Report, path.display())?.is_file();
        if is_file {
            Ok(Some(file))
        } else {
            fail(Layer::Report, format!("{}: not a regular file", path.display()))
        }
    }

    /// Becomes the user of `--uid` when started as root; otherwise stays the caller, which must not
    /// be root.
    pub(crate) fn become_user(&self) -> Result<User, LaunchError> {
        let caller =
            User { uid: rustix::process::geteuid().as_raw(), gid: rustix::process::getegid().as_raw() };
        match (self.uid, caller.uid) {
            (None, 0) => fail(Layer::User, "an agent never runs as root: give --uid"),
            (None, _) => Ok(caller),
            (Some(uid), 0) => {
                let user = User { uid, gid: self.gid.unwrap_or(uid) };
                identity::become_user(user.uid, user.gid)
                    .layer(Layer::User, format!("cannot become user {uid}"))?;
                Ok(user)
            }
            (Some(uid), own) if uid == own => Ok(caller),
            (Some(_), _) => fail(Layer::User, "only root can start an agent as another user"),
        }
    }
}

fn number(text: &OsString) -> Result<u32, LaunchError> {
    text.to_str()
        .and_then(|text| text.parse().ok())
        .map_or_else(|| fail(Layer::Usage, format!("{}: not a user or group id", text.display())), Ok)
}

fn read_bounded(path: &Path, max: usize) -> Result<Vec<u8>, LaunchError> {
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed();
    let file =
        OpenOptions::new().read(true).custom_flags(flags).open(path).layer(Layer::Plan, path.display())?;
    let metadata = file.metadata().layer(Layer::Plan, path.display())?;
    if !metadata.is_file() {
        return fail(Layer::Plan, format!("{}: not a regular file", path.display()));
    }
    let max = u64::try_from(max).unwrap_or(u64::MAX);
    if metadata.size() > max {
        return fail(Layer::Plan, format!("{}: over {max} bytes", path.display()));
    }
    let mut bytes = Vec::new();
    file.take(max + 1).read_to_end(&mut bytes).layer(Layer::Plan, path.display())?;
    Ok(bytes)
}

/// An error with its sources, in one line.
fn chain(error: impl std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Options, LaunchError> {
        Options::parse(words.iter().map(OsString::from))
    }

    #[test]
    fn the_command_line() {
        let options = parse(&["--plan", "/p", "--report", "/r", "--uid", "5", "--gid", "6"]).unwrap();
        assert_eq!(options.plan, Path::new("/p"));
        assert_eq!(options.report.as_deref(), Some(Path::new("/r")));
        assert_eq!((options.uid, options.gid), (Some(5), Some(6)));
        assert_eq!(options.confines, Confines::Caller);
        assert_eq!(parse(&["--unit", "--plan", "/p"]).unwrap().confines, Confines::Unit);
        for bad in [
            &[][..],
            &["--plan"],
            &["--report", "/r"],
            &["--plan", "/p", "--uid", "x"],
            &["--plan", "/p", "--uid", "-1"],
            &["--plan", "/p", "--gid", "4"],
            &["--plan", "/p", "--root", "/"],
            &["--plan", "/p", "--unit", "yes"],
            &["/p"],
        ] {
            assert_eq!(parse(bad).unwrap_err().layer(), Layer::Usage, "{bad:?}");
        }
    }

    #[test]
    fn plans_are_bounded_regular_files() {
        assert_eq!(read_bounded(Path::new("/"), 10).unwrap_err().layer(), Layer::Plan);
        assert_eq!(read_bounded(Path::new("/dev/zero"), 10).unwrap_err().layer(), Layer::Plan);
        assert_eq!(read_bounded(Path::new("/nonexistent/plan"), 10).unwrap_err().layer(), Layer::Plan);
    }
}
