//! The command line: that of `aos-launch` with a backend, and that of the stage inside gVisor.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use aos_core::config::Isolation;
use aos_isolation::backend::{Backend, choose};
use aos_isolation::programs::Programs;
use aos_sandbox::launch::options::{Named, Report, User, take_inherited};
use aos_sandbox::plan::SandboxPlan;

use crate::error::{Context, LaunchError, Layer, fail};

const USAGE: &str = "aos-isolate [--backend NAME] (--plan PATH | --plan-fd N) [--report PATH | --report-fd N] [--programs DIRECTORY]... [--uid N [--gid N]]";

/// The parsed command line.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// Started inside by gVisor.
    pub(crate) is_stage: bool,
    backend: Option<Backend>,
    named: Named,
    programs: Vec<PathBuf>,
}

/// The inherited descriptors that the command line names.
#[derive(Debug, Default)]
pub(crate) struct Inherited {
    plan: Option<OwnedFd>,
    report: Option<OwnedFd>,
}

impl Options {
    /// Reads this process's arguments.
    pub(crate) fn from_process() -> Result<Self, LaunchError> {
        Self::parse(std::env::args_os().skip(1))
    }

    fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Self, LaunchError> {
        let mut arguments = arguments.peekable();
        let mut options =
            Self { is_stage: arguments.next_if(|word| word == "enter").is_some(), ..Self::default() };
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().map_or_else(|| fail(Layer::Usage, USAGE), Ok);
            match argument.to_str() {
                Some("--backend") => options.backend = Some(backend(&value()?)?),
                Some("--programs") => options.programs.push(value()?.into()),
                _ if options.named.take(&argument, &mut value)? => {}
                _ => return fail(Layer::Usage, USAGE),
            }
        }
        if !options.named.is_complete() {
            return fail(Layer::Usage, USAGE);
        }
        Ok(options)
    }

    /// Takes over the descriptors that the command line names; closes every other.
    pub(crate) fn take_inherited(&self) -> Result<Inherited, LaunchError> {
        let [plan, report] = take_inherited(self.named.descriptors())?;
        Ok(Inherited { plan, report })
    }

    /// The backend: of the command line, else of the plan. Not the launcher itself.
    pub(crate) fn backend(&self, isolation: Isolation) -> Result<Backend, LaunchError> {
        match self.backend.unwrap_or_else(|| choose(isolation, &self.programs())) {
            Backend::Native => fail(Layer::Usage, "native is started by aos-launch"),
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

    /// Reads the plan.
    pub(crate) fn read_plan(&self, inherited: &mut Inherited) -> Result<SandboxPlan, LaunchError> {
        self.named.read_plan(inherited.plan.take())
    }

    /// Opens the report. The one who waits outside a sandbox reads it from a pipe.
    pub(crate) fn open_report(&self, inherited: &mut Inherited) -> Result<Option<File>, LaunchError> {
        self.named.open_report(inherited.report.take(), Report::FileOrPipe)
    }

    /// Becomes the agent's user.
    pub(crate) fn become_user(&self) -> Result<User, LaunchError> {
        self.named.become_user()
    }

    /// The number that the stage gives the agent.
    pub(crate) fn wanted_user(&self) -> Result<User, LaunchError> {
        self.named.user().map_or_else(|| fail(Layer::Usage, USAGE), Ok)
    }
}

fn backend(text: &OsStr) -> Result<Backend, LaunchError> {
    text.to_string_lossy().parse().layer(Layer::Usage, "--backend")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Options, LaunchError> {
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
            assert_eq!(parse(bad).unwrap_err().layer().exit_status(), 2, "{bad:?}");
        }
        let of_plan = parse(&["--plan", "/p"]).unwrap();
        assert_eq!(of_plan.backend(Isolation::Gvisor), Ok(Backend::Gvisor));
        assert_eq!(of_plan.backend(Isolation::Native).unwrap_err().layer().exit_status(), 2);
        assert_eq!(of_plan.backend(Isolation::Vm), Ok(Backend::Vm));
    }
}
