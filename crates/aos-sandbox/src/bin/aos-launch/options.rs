//! The command line, and what it names beside the library's part: secrets, the sockets for listeners and for a
//! record, and who does what.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::{OwnedFd, RawFd};
use std::path::PathBuf;

use aos_sandbox::launch::options::{Named, Place, Report, User, descriptor, take_inherited};
use aos_sandbox::plan::SandboxPlan;

use crate::calls::control::Control;
use crate::cgroup;
use crate::disk;
use crate::error::{LaunchError, Layer, fail};

const USAGE: &str = "aos-launch (--plan PATH | --plan-fd N) [--report PATH | --report-fd N] [--secrets-fd N] [--listener-socket N] [--record-socket N] [--control PATH --control-key PATH] [--unit | --inside] [--uid N [--gid N]]";

/// The parsed command line.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    named: Named,
    /// The contents of the plan's secrets: [`crate::tree`] has the format.
    secrets: Option<RawFd>,
    /// The Unix socket over which the plan's listeners go out: [`crate::listeners`].
    listener_socket: Option<RawFd>,
    /// The Unix socket over which the agent's calls are asked about: [`crate::record`].
    record_socket: Option<RawFd>,
    /// The socket over which calls are asked for, and the file whose holders may: [`crate::calls::control`].
    control: Option<PathBuf>,
    control_key: Option<PathBuf>,
    confines: Confines,
    surroundings: Surroundings,
}

/// The inherited descriptors that the command line names.
#[derive(Debug, Default)]
pub(crate) struct Inherited {
    plan: Option<OwnedFd>,
    report: Option<OwnedFd>,
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

impl Options {
    /// Reads the arguments after the program's name.
    pub(crate) fn parse(mut arguments: impl Iterator<Item = OsString>) -> Result<Self, LaunchError> {
        let mut options = Self::default();
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().map_or_else(|| fail(Layer::Usage, USAGE), Ok);
            match argument.to_str() {
                Some("--secrets-fd") => options.secrets = Some(descriptor(&value()?)?),
                Some("--listener-socket") => options.listener_socket = Some(descriptor(&value()?)?),
                Some("--record-socket") => options.record_socket = Some(descriptor(&value()?)?),
                Some("--control") => options.control = Some(value()?.into()),
                Some("--control-key") => options.control_key = Some(value()?.into()),
                Some("--unit") => options.confines = Confines::Unit,
                Some("--inside") => options.surroundings = Surroundings::Given,
                _ if options.named.take(&argument, &mut value)? => {}
                _ => return fail(Layer::Usage, USAGE),
            }
        }
        let is_half = options.control.is_some() != options.control_key.is_some();
        if !options.named.is_complete() || is_half {
            return fail(Layer::Usage, USAGE);
        }
        Ok(options)
    }

    /// Takes over the descriptors that the command line names; closes every other.
    pub(crate) fn take_inherited(&self) -> Result<Inherited, LaunchError> {
        let [plan, report] = self.named.descriptors();
        let wanted = [plan, report, self.secrets, self.listener_socket, self.record_socket];
        let [plan, report, secrets, listener_socket, record_socket] = take_inherited(wanted)?;
        Ok(Inherited { plan, report, secrets: secrets.map(File::from), listener_socket, record_socket })
    }

    /// Reads the plan.
    pub(crate) fn read_plan(&self, inherited: &mut Inherited) -> Result<SandboxPlan, LaunchError> {
        self.named.read_plan(inherited.plan.take())
    }

    /// Who makes the namespaces and the file tree.
    pub(crate) const fn surroundings(&self) -> Surroundings {
        self.surroundings
    }

    /// Makes the control socket, if there is to be one.
    pub(crate) fn control(&self) -> Result<Option<Control>, LaunchError> {
        match (&self.control, &self.control_key) {
            (Some(path), Some(key)) => Control::bind(path, key).map(Some),
            _ => Ok(None),
        }
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
        for (option, place) in [("--plan", &self.named.plan), ("--report", &self.named.report)] {
            match place {
                Some(Place::Path(path)) => words.extend([option.into(), path.clone().into_os_string()]),
                Some(Place::Descriptor(_)) => return None,
                None => {}
            }
        }
        for (option, id) in [("--uid", self.named.uid), ("--gid", self.named.gid)] {
            words.extend(id.map(|id| [option.into(), id.to_string().into()]).into_iter().flatten());
        }
        Some(words)
    }

    /// Checks the unit's limits, with `--unit`.
    pub(crate) fn check_unit(&self, plan: &SandboxPlan) -> Result<(), LaunchError> {
        match self.confines {
            Confines::Caller => Ok(()),
            Confines::Unit => cgroup::check(plan).and_then(|()| disk::check(plan)),
        }
    }

    /// Opens the report. The one who waits outside a container reads it from a pipe.
    pub(crate) fn open_report(&self, inherited: &mut Inherited) -> Result<Option<File>, LaunchError> {
        let allowed = match self.surroundings {
            Surroundings::Own => Report::File,
            Surroundings::Given => Report::FileOrPipe,
        };
        self.named.open_report(inherited.report.take(), allowed)
    }

    /// Becomes the agent's user; with `--inside` its number is given in the user namespace that is made next.
    pub(crate) fn become_user(&self) -> Result<User, LaunchError> {
        match self.named.user() {
            Some(user)
                if self.surroundings == Surroundings::Given
                    && user.uid != 0
                    && rustix::process::geteuid().is_root() =>
            {
                Ok(user)
            }
            _ => self.named.become_user(),
        }
    }
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
        assert_eq!(options.named.plan, Some(Place::Path("/p".into())));
        assert_eq!(options.named.report, Some(Place::Path("/r".into())));
        assert_eq!(options.named.user(), Some(User { uid: 5, gid: 6 }));
        assert_eq!(options.confines, Confines::Caller);
        assert_eq!(parse(&["--unit", "--plan", "/p"]).unwrap().confines, Confines::Unit);
        assert_eq!(parse(&["--inside", "--plan", "/p"]).unwrap().surroundings(), Surroundings::Given);
        let options =
            parse(&["--plan-fd", "3", "--report-fd", "4", "--secrets-fd", "5", "--listener-socket", "6"]);
        let options = options.unwrap();
        assert_eq!(options.named.descriptors(), [Some(3), Some(4)]);
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
            &["--plan", "/p", "--control", "/c"],
            &["--plan", "/p", "--control-key", "/k"],
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
}
