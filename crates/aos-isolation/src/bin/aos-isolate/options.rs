//! The command line: that of `aos-launch` with a backend, and that of the stage inside gVisor.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek};
use std::os::fd::RawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use aos_core::config::Isolation;
use aos_isolation::backend::{Backend, choose};
use aos_isolation::programs::Programs;
use aos_sandbox::plan::{PLAN_MAX_BYTES, SandboxPlan};
use aos_sys::{identity, process};
use rustix::fs::OFlags;

use crate::error::{Context, Failure, Stage, fail};

const USAGE: &str = "aos-isolate [--backend NAME] (--plan PATH | --plan-fd N) [--report PATH | --report-fd N] [--programs DIRECTORY]... [--uid N [--gid N]]";

/// The parsed command line.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// Started inside by gVisor.
    pub(crate) is_stage: bool,
    backend: Option<Backend>,
    plan: Option<Place>,
    report: Option<Place>,
    programs: Vec<PathBuf>,
    uid: Option<u32>,
    gid: Option<u32>,
}

/// A file of the caller.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    Path(PathBuf),
    Descriptor(RawFd),
}

/// The inherited descriptors that the command line names.
#[derive(Debug, Default)]
pub(crate) struct Inherited {
    plan: Option<File>,
    report: Option<File>,
}

/// The user and group that everything runs as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl Options {
    /// Reads this process's arguments.
    pub(crate) fn from_process() -> Result<Self, Failure> {
        Self::parse(std::env::args_os().skip(1))
    }

    fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Self, Failure> {
        let mut arguments = arguments.peekable();
        let mut options =
            Self { is_stage: arguments.next_if(|word| word == "enter").is_some(), ..Self::default() };
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().map_or_else(|| fail(Stage::Usage, USAGE), Ok);
            match argument.to_str() {
                Some("--backend") => options.backend = Some(backend(&value()?)?),
                Some("--plan") => options.plan = Some(Place::Path(value()?.into())),
                Some("--plan-fd") => options.plan = Some(Place::Descriptor(descriptor(&value()?)?)),
                Some("--report") => options.report = Some(Place::Path(value()?.into())),
                Some("--report-fd") => options.report = Some(Place::Descriptor(descriptor(&value()?)?)),
                Some("--programs") => options.programs.push(value()?.into()),
                Some("--uid") => options.uid = Some(number(&value()?)?),
                Some("--gid") => options.gid = Some(number(&value()?)?),
                _ => return fail(Stage::Usage, USAGE),
            }
        }
        if options.plan.is_none() || (options.gid.is_some() && options.uid.is_none()) {
            return fail(Stage::Usage, USAGE);
        }
        Ok(options)
    }

    /// Takes over the descriptors that the command line names; closes every other.
    pub(crate) fn take_inherited(&self) -> Result<Inherited, Failure> {
        let of = |place: &Option<Place>| match place {
            Some(Place::Descriptor(number)) => Some(*number),
            _ => None,
        };
        let wanted = [of(&self.plan), of(&self.report)];
        let numbers: Vec<RawFd> = wanted.into_iter().flatten().collect();
        let taken = process::take_inherited(&numbers)
            .stage(Stage::Process, "cannot take or close inherited descriptors")?;
        let mut taken = taken.into_iter();
        let mut next = |number: Option<RawFd>| number.and_then(|_| taken.next()).map(File::from);
        let [plan, report] = wanted.map(&mut next);
        Ok(Inherited { plan, report })
    }

    /// The backend: of the command line, else of the plan. Not the launcher itself.
    pub(crate) fn backend(&self, isolation: Isolation) -> Result<Backend, Failure> {
        match self.backend.unwrap_or_else(|| choose(isolation, &self.programs())) {
            Backend::Native => fail(Stage::Usage, "native is started by aos-launch"),
            Backend::Vm => fail(Stage::Isolation, "this version cannot start virtual machines"),
            backend => Ok(backend),
        }
    }

    /// Where programs are: in the directories of the command line alone, else beside this one and where Debian
    /// installs them.
    pub(crate) fn programs(&self) -> Programs {
        if !self.programs.is_empty() {
            return Programs::in_directories(self.programs.clone());
        }
        let own = std::fs::read_link("/proc/self/exe").ok();
        Programs::first_in(own.as_deref().and_then(Path::parent).map(Path::to_owned).into_iter().collect())
    }

    /// Reads the plan: a regular file, bounded.
    pub(crate) fn read_plan(&self, inherited: &mut Inherited) -> Result<SandboxPlan, Failure> {
        let (name, mut file) = match (&self.plan, inherited.plan.take()) {
            (Some(Place::Path(path)), _) => (path.as_path(), open_plan(path)?),
            (_, Some(file)) => (Path::new("the inherited plan"), file),
            _ => return fail(Stage::Usage, USAGE),
        };
        if !file.metadata().stage(Stage::Plan, name.display())?.is_file() {
            return fail(Stage::Plan, format!("{}: not a regular file", name.display()));
        }
        file.rewind().stage(Stage::Plan, name.display())?;
        let mut bytes = Vec::new();
        let max = u64::try_from(PLAN_MAX_BYTES).unwrap_or(u64::MAX);
        file.take(max + 1).read_to_end(&mut bytes).stage(Stage::Plan, name.display())?;
        SandboxPlan::parse(&bytes).stage(Stage::Plan, name.display())
    }

    /// Opens the report for writing, empty: one of an earlier start says nothing about this one.
    pub(crate) fn open_report(&self, inherited: &mut Inherited) -> Result<Option<File>, Failure> {
        match (&self.report, inherited.report.take()) {
            (Some(Place::Path(path)), _) => create_report(path).map(Some),
            (_, file) => Ok(file),
        }
    }

    /// Becomes the user of `--uid` when started as root; otherwise stays the caller, which must not be
    /// root.
    pub(crate) fn become_user(&self) -> Result<User, Failure> {
        let caller =
            User { uid: rustix::process::geteuid().as_raw(), gid: rustix::process::getegid().as_raw() };
        match (self.uid, caller.uid) {
            (None, 0) => fail(Stage::User, "an agent never runs as root: give --uid"),
            (None, _) => Ok(caller),
            (Some(uid), 0) => {
                let user = self.number_inside(uid);
                identity::become_user(user.uid, user.gid)
                    .stage(Stage::User, format!("cannot become user {uid}"))?;
                Ok(user)
            }
            (Some(uid), own) if uid == own => Ok(caller),
            (Some(_), _) => fail(Stage::User, "only root can start an agent as another user"),
        }
    }

    /// The number that the stage gives the agent.
    pub(crate) fn wanted_user(&self) -> Result<User, Failure> {
        self.uid.map_or_else(|| fail(Stage::Usage, USAGE), |uid| Ok(self.number_inside(uid)))
    }

    fn number_inside(&self, uid: u32) -> User {
        User { uid, gid: self.gid.unwrap_or(uid) }
    }
}

fn backend(text: &OsString) -> Result<Backend, Failure> {
    text.to_string_lossy().parse().stage(Stage::Usage, "--backend")
}

fn number(text: &OsString) -> Result<u32, Failure> {
    text.to_str()
        .and_then(|text| text.parse().ok())
        .map_or_else(|| fail(Stage::Usage, format!("{}: not a user or group id", text.display())), Ok)
}

/// The number of an inherited descriptor, which is not a standard stream's.
fn descriptor(text: &OsString) -> Result<RawFd, Failure> {
    text.to_str()
        .and_then(|text| text.parse().ok())
        .filter(|number| *number > 2)
        .map_or_else(|| fail(Stage::Usage, format!("{}: not a descriptor above 2", text.display())), Ok)
}

fn open_plan(path: &Path) -> Result<File, Failure> {
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed();
    OpenOptions::new().read(true).custom_flags(flags).open(path).stage(Stage::Plan, path.display())
}

fn create_report(path: &Path) -> Result<File, Failure> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o644)
        .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed())
        .open(path)
        .stage(Stage::Report, path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Options, Failure> {
        Options::parse(words.iter().map(OsString::from))
    }

    #[test]
    fn the_command_line() {
        let options =
            parse(&["--backend", "oci:crun", "--plan-fd", "3", "--uid", "5", "--programs", "/p"]).unwrap();
        assert_eq!(options.backend(Isolation::Gvisor), Ok(Backend::Crun));
        assert_eq!(options.programs().directories(), [PathBuf::from("/p")]);
        assert!(!options.is_stage);
        assert_eq!(options.wanted_user(), Ok(User { uid: 5, gid: 5 }));
        assert!(parse(&["enter", "--plan-fd", "4", "--report-fd", "3", "--uid", "5"]).unwrap().is_stage);
        for bad in [
            &[][..],
            &["--backend", "docker", "--plan", "/p"],
            &["--backend", "vm"],
            &["--plan-fd", "2"],
            &["--plan", "/p", "--gid", "4"],
            &["--plan", "/p", "enter"],
        ] {
            assert_eq!(parse(bad).unwrap_err().exit_status(), 2, "{bad:?}");
        }
        let of_plan = parse(&["--plan", "/p"]).unwrap();
        assert_eq!(of_plan.backend(Isolation::Gvisor), Ok(Backend::Gvisor));
        assert_eq!(of_plan.backend(Isolation::Native).unwrap_err().exit_status(), 2);
        assert_eq!(of_plan.backend(Isolation::Vm).unwrap_err().exit_status(), 120);
    }
}
