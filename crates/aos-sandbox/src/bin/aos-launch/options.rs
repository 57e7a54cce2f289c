//! The command line, and what it names: plan, report, secrets, the socket for listeners, user.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::Seek;
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use aos_sandbox::plan::{PLAN_MAX_BYTES, SandboxPlan};
use aos_sys::process;
use rustix::fs::OFlags;

use crate::cgroup;
use crate::contents;
use crate::error::{Context, LaunchError, Layer, fail};
use crate::identity;

const USAGE: &str = "aos-launch (--plan PATH | --plan-fd N) [--report PATH | --report-fd N] [--secrets-fd N] [--listener-socket N] [--record-socket N] [--unit | --inside] [--uid N [--gid N]]";

/// The parsed command line.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    plan: Option<Place>,
    report: Option<Place>,
    /// The contents of the plan's secrets: [`crate::tree`] has the format.
    secrets: Option<RawFd>,
    /// The Unix socket over which the plan's listeners go out: [`crate::listeners`].
    listener_socket: Option<RawFd>,
    /// The Unix socket over which the agent's calls are asked about: [`crate::record`].
    record_socket: Option<RawFd>,
    uid: Option<u32>,
    gid: Option<u32>,
    confines: Confines,
    surroundings: Surroundings,
}

/// A file of the caller: by its path, or by the number of an inherited descriptor.
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
    pub(crate) secrets: Option<File>,
    pub(crate) listener_socket: Option<OwnedFd>,
    pub(crate) record_socket: Option<OwnedFd>,
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

/// Who makes the namespaces and the file tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Surroundings {
    /// This program.
    #[default]
    Own,
    /// `--inside`: an OCI runtime, which executes this program as the first process of its container, as
    /// uid 0 without capabilities. What is left is a user namespace in which the user has its number, and
    /// every restriction of the process.
    Given,
}

/// The user and group that everything after runs as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl Options {
    /// Reads the arguments after the program's name.
    pub(crate) fn parse(mut arguments: impl Iterator<Item = OsString>) -> Result<Self, LaunchError> {
        let mut options = Self::default();
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().map_or_else(|| fail(Layer::Usage, USAGE), Ok);
            match argument.to_str() {
                Some("--plan") => options.plan = Some(Place::Path(value()?.into())),
                Some("--plan-fd") => options.plan = Some(Place::Descriptor(descriptor(&value()?)?)),
                Some("--report") => options.report = Some(Place::Path(value()?.into())),
                Some("--report-fd") => options.report = Some(Place::Descriptor(descriptor(&value()?)?)),
                Some("--secrets-fd") => options.secrets = Some(descriptor(&value()?)?),
                Some("--listener-socket") => options.listener_socket = Some(descriptor(&value()?)?),
                Some("--record-socket") => options.record_socket = Some(descriptor(&value()?)?),
                Some("--unit") => options.confines = Confines::Unit,
                Some("--inside") => options.surroundings = Surroundings::Given,
                Some("--uid") => options.uid = Some(number(&value()?)?),
                Some("--gid") => options.gid = Some(number(&value()?)?),
                _ => return fail(Layer::Usage, USAGE),
            }
        }
        let has_plan = options.plan.as_ref().is_some_and(|plan| *plan != Place::Path(PathBuf::new()));
        if !has_plan || (options.gid.is_some() && options.uid.is_none()) {
            return fail(Layer::Usage, USAGE);
        }
        Ok(options)
    }

    /// Takes over the descriptors that the command line names; closes every other.
    pub(crate) fn take_inherited(&self) -> Result<Inherited, LaunchError> {
        let of = |place: &Option<Place>| match place {
            Some(Place::Descriptor(number)) => Some(*number),
            _ => None,
        };
        let wanted =
            [of(&self.plan), of(&self.report), self.secrets, self.listener_socket, self.record_socket];
        let numbers: Vec<RawFd> = wanted.into_iter().flatten().collect();
        let taken = process::take_inherited(&numbers)
            .layer(Layer::Descriptors, "cannot take or close inherited descriptors")?;
        let mut taken = taken.into_iter();
        let mut next = |number: Option<RawFd>| number.and_then(|_| taken.next());
        let [plan, report, secrets, listener_socket, record_socket] = wanted.map(&mut next);
        Ok(Inherited {
            plan: plan.map(File::from),
            report: report.map(File::from),
            secrets: secrets.map(File::from),
            listener_socket,
            record_socket,
        })
    }

    /// Reads the plan: a regular file, bounded.
    pub(crate) fn read_plan(&self, inherited: &mut Inherited) -> Result<SandboxPlan, LaunchError> {
        let (name, file) = match (&self.plan, inherited.plan.take()) {
            (Some(Place::Path(path)), _) => (path.as_path(), open_plan(path)?),
            (_, Some(file)) => (Path::new("the inherited plan"), file),
            _ => return fail(Layer::Usage, USAGE),
        };
        let bytes = read_bounded(name, file, PLAN_MAX_BYTES)?;
        SandboxPlan::parse(&bytes).map_err(chain).layer(Layer::Plan, name.display())
    }

    /// Who makes the namespaces and the file tree.
    pub(crate) const fn surroundings(&self) -> Surroundings {
        self.surroundings
    }

    /// Whether this process is the main process of a unit.
    pub(crate) fn is_unit(&self) -> bool {
        self.confines == Confines::Unit
    }

    /// The words for `aos-isolate` that say the same; `None` if something is named by a descriptor, which
    /// that program does not take.
    pub(crate) fn for_isolate(&self) -> Option<Vec<OsString>> {
        if [self.secrets, self.listener_socket, self.record_socket].iter().any(Option::is_some) {
            return None;
        }
        let mut words = Vec::new();
        for (option, place) in [("--plan", &self.plan), ("--report", &self.report)] {
            match place {
                Some(Place::Path(path)) => words.extend([option.into(), path.clone().into_os_string()]),
                Some(Place::Descriptor(_)) => return None,
                None => {}
            }
        }
        for (option, id) in [("--uid", self.uid), ("--gid", self.gid)] {
            words.extend(id.map(|id| [option.into(), id.to_string().into()]).into_iter().flatten());
        }
        Some(words)
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
    pub(crate) fn open_report(&self, inherited: &mut Inherited) -> Result<Option<File>, LaunchError> {
        let (name, file) = match (&self.report, inherited.report.take()) {
            (Some(Place::Path(path)), _) => (path.as_path(), create_report(path)?),
            (_, Some(file)) => (Path::new("the inherited report"), file),
            _ => return Ok(None),
        };
        let kind = file.metadata().layer(Layer::Report, name.display())?.file_type();
        // The one who waits outside a container reads the report from a pipe.
        if kind.is_file() || (self.surroundings == Surroundings::Given && kind.is_fifo()) {
            Ok(Some(file))
        } else {
            fail(Layer::Report, format!("{}: not a regular file", name.display()))
        }
    }

    /// Becomes the user of `--uid` when started as root; otherwise stays the caller, which must not
    /// be root.
    pub(crate) fn become_user(&self) -> Result<User, LaunchError> {
        let caller =
            User { uid: rustix::process::geteuid().as_raw(), gid: rustix::process::getegid().as_raw() };
        match (self.uid, caller.uid) {
            // The number is given in the user namespace that is made next.
            (Some(uid), 0) if self.surroundings == Surroundings::Given && uid != 0 => {
                Ok(User { uid, gid: self.gid.unwrap_or(uid) })
            }
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

/// The number of an inherited descriptor, which is not a standard stream's.
fn descriptor(text: &OsString) -> Result<RawFd, LaunchError> {
    text.to_str()
        .and_then(|text| text.parse().ok())
        .filter(|number| *number > 2)
        .map_or_else(|| fail(Layer::Usage, format!("{}: not a descriptor above 2", text.display())), Ok)
}

fn create_report(path: &Path) -> Result<File, LaunchError> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o644)
        .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed())
        .open(path)
        .layer(Layer::Report, path.display())
}

fn open_plan(path: &Path) -> Result<File, LaunchError> {
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed();
    OpenOptions::new().read(true).custom_flags(flags).open(path).layer(Layer::Plan, path.display())
}

fn read_bounded(name: &Path, mut file: File, max: usize) -> Result<Vec<u8>, LaunchError> {
    let metadata = file.metadata().layer(Layer::Plan, name.display())?;
    if !metadata.is_file() {
        return fail(Layer::Plan, format!("{}: not a regular file", name.display()));
    }
    let max = u64::try_from(max).unwrap_or(u64::MAX);
    if metadata.size() > max {
        return fail(Layer::Plan, format!("{}: over {max} bytes", name.display()));
    }
    // An inherited descriptor stands where its writer left it.
    file.rewind().layer(Layer::Plan, name.display())?;
    contents::read(file, max.saturating_add(1)).layer(Layer::Plan, name.display())
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
        assert_eq!(options.plan, Some(Place::Path("/p".into())));
        assert_eq!(options.report, Some(Place::Path("/r".into())));
        assert_eq!((options.uid, options.gid), (Some(5), Some(6)));
        assert_eq!(options.confines, Confines::Caller);
        assert_eq!(parse(&["--unit", "--plan", "/p"]).unwrap().confines, Confines::Unit);
        assert_eq!(parse(&["--inside", "--plan", "/p"]).unwrap().surroundings(), Surroundings::Given);
        let options =
            parse(&["--plan-fd", "3", "--report-fd", "4", "--secrets-fd", "5", "--listener-socket", "6"]);
        let options = options.unwrap();
        assert_eq!((options.plan, options.report), (Some(Place::Descriptor(3)), Some(Place::Descriptor(4))));
        assert_eq!((options.secrets, options.listener_socket), (Some(5), Some(6)));
        for bad in [
            &[][..],
            &["--plan"],
            &["--plan", ""],
            &["--plan-fd", "2"],
            &["--plan-fd", "x"],
            &["--plan", "/p", "--secrets-fd", "-1"],
            &["--plan", "/p", "--listener-socket", "0"],
            &["--plan", "/p", "--record-socket", "2"],
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
    fn what_another_isolation_cannot_take_is_not_dropped() {
        let words = |more: &[&str]| {
            let options =
                parse(&[&["--plan", "/p", "--report", "/r", "--uid", "5", "--gid", "6"], more].concat());
            options.unwrap().for_isolate()
        };
        let expected = ["--plan", "/p", "--report", "/r", "--uid", "5", "--gid", "6"].map(OsString::from);
        assert_eq!(words(&[]), Some(expected.to_vec()));
        for option in ["--secrets-fd", "--listener-socket", "--record-socket", "--plan-fd", "--report-fd"] {
            assert_eq!(words(&[option, "7"]), None, "{option}");
        }
    }

    #[test]
    fn plans_are_bounded_regular_files() {
        let read = |path: &str| {
            open_plan(Path::new(path)).and_then(|file| read_bounded(Path::new(path), file, 10)).unwrap_err()
        };
        for path in ["/", "/dev/zero", "/nonexistent/plan"] {
            assert_eq!(read(path).layer(), Layer::Plan, "{path}");
        }
    }
}
