//! What both command lines name: the plan, the report and the user.

use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io::Seek;
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use aos_sys::{identity, process};
use rustix::fs::OFlags;

use super::contents;
use super::error::{Context, LaunchError, Layer, fail};
use crate::plan::{PLAN_MAX_BYTES, SandboxPlan};

/// The part of a command line that both programs have: `--plan`, `--plan-fd`, `--report`, `--report-fd`,
/// `--uid`, `--gid`.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// The plan.
    pub plan: Option<Place>,
    /// Where the report goes.
    pub report: Option<Place>,
    /// The agent's user.
    pub uid: Option<u32>,
    /// The agent's group; the user's number without it.
    pub gid: Option<u32>,
}

/// A file of the caller.
#[derive(Debug, PartialEq, Eq)]
pub enum Place {
    /// By its path.
    Path(PathBuf),
    /// By the number of an inherited descriptor.
    Descriptor(RawFd),
}

impl Place {
    /// The number, of a descriptor.
    #[must_use]
    pub const fn descriptor(&self) -> Option<RawFd> {
        match self {
            Self::Descriptor(number) => Some(*number),
            Self::Path(_) => None,
        }
    }
}

/// What may be given to write the report to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// A regular file.
    File,
    /// A regular file or a pipe, from which somebody outside a container reads it.
    FileOrPipe,
}

/// The user and group that everything after runs as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User {
    /// The user's number.
    pub uid: u32,
    /// The group's.
    pub gid: u32,
}

impl Named {
    /// Takes one option with its value; `false` if it is none of these.
    pub fn take(
        &mut self,
        option: &OsStr,
        value: impl FnOnce() -> Result<OsString, LaunchError>,
    ) -> Result<bool, LaunchError> {
        match option.to_str() {
            Some("--plan") => self.plan = Some(Place::Path(value()?.into())),
            Some("--plan-fd") => self.plan = Some(Place::Descriptor(descriptor(&value()?)?)),
            Some("--report") => self.report = Some(Place::Path(value()?.into())),
            Some("--report-fd") => self.report = Some(Place::Descriptor(descriptor(&value()?)?)),
            Some("--uid") => self.uid = Some(number(&value()?)?),
            Some("--gid") => self.gid = Some(number(&value()?)?),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Whether there is a plan, and no group without a user.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        let has_plan = self.plan.as_ref().is_some_and(|plan| *plan != Place::Path(PathBuf::new()));
        has_plan && (self.gid.is_none() || self.uid.is_some())
    }

    /// The descriptors of the plan and of the report.
    #[must_use]
    pub fn descriptors(&self) -> [Option<RawFd>; 2] {
        [&self.plan, &self.report].map(|place| place.as_ref().and_then(Place::descriptor))
    }

    /// Reads the plan: a regular file, bounded. `inherited` is what was taken over of [`Self::descriptors`].
    pub fn read_plan(&self, inherited: Option<OwnedFd>) -> Result<SandboxPlan, LaunchError> {
        let (name, file) = match (&self.plan, inherited) {
            (Some(Place::Path(path)), _) => (path.as_path(), open_plan(path)?),
            (_, Some(file)) => (Path::new("the inherited plan"), File::from(file)),
            _ => return fail(Layer::Usage, "there is no plan"),
        };
        let bytes = read_bounded(name, file, PLAN_MAX_BYTES)?;
        SandboxPlan::parse(&bytes).map_err(chain).layer(Layer::Plan, name.display())
    }

    /// Opens the report for writing, empty: one that is there from an earlier start says nothing about this
    /// one. `inherited` as for the plan.
    pub fn open_report(
        &self,
        inherited: Option<OwnedFd>,
        allowed: Report,
    ) -> Result<Option<File>, LaunchError> {
        let (name, file) = match (&self.report, inherited) {
            (Some(Place::Path(path)), _) => (path.as_path(), create_report(path)?),
            (_, Some(file)) => (Path::new("the inherited report"), File::from(file)),
            _ => return Ok(None),
        };
        let kind = file.metadata().layer(Layer::Report, name.display())?.file_type();
        if kind.is_file() || (allowed == Report::FileOrPipe && kind.is_fifo()) {
            Ok(Some(file))
        } else {
            fail(Layer::Report, format!("{}: not a regular file", name.display()))
        }
    }

    /// The user of the command line, whose group has the same number unless it is given.
    #[must_use]
    pub fn user(&self) -> Option<User> {
        self.uid.map(|uid| User { uid, gid: self.gid.unwrap_or(uid) })
    }

    /// Becomes the user of the command line when started as root; otherwise stays the caller, which must not
    /// be root.
    pub fn become_user(&self) -> Result<User, LaunchError> {
        let caller =
            User { uid: rustix::process::geteuid().as_raw(), gid: rustix::process::getegid().as_raw() };
        match (self.user(), caller.uid) {
            (None, 0) => fail(Layer::User, "an agent never runs as root: give --uid"),
            (None, _) => Ok(caller),
            (Some(user), 0) => {
                identity::become_user(user.uid, user.gid)
                    .layer(Layer::User, format!("cannot become user {}", user.uid))?;
                Ok(user)
            }
            (Some(user), own) if user.uid == own => Ok(caller),
            (Some(_), _) => fail(Layer::User, "only root can start an agent as another user"),
        }
    }
}

/// Takes over the inherited descriptors of these numbers, each in its place; closes every other.
pub fn take_inherited<const N: usize>(
    wanted: [Option<RawFd>; N],
) -> Result<[Option<OwnedFd>; N], LaunchError> {
    let numbers: Vec<RawFd> = wanted.into_iter().flatten().collect();
    let taken = process::take_inherited(&numbers)
        .layer(Layer::Descriptors, "cannot take or close inherited descriptors")?;
    let mut taken = taken.into_iter();
    Ok(wanted.map(|number| number.and_then(|_| taken.next())))
}

/// The number of an inherited descriptor, which is not a standard stream's.
pub fn descriptor(text: &OsStr) -> Result<RawFd, LaunchError> {
    text.to_str()
        .and_then(|text| text.parse().ok())
        .filter(|number| *number > 2)
        .map_or_else(|| fail(Layer::Usage, format!("{}: not a descriptor above 2", text.display())), Ok)
}

fn number(text: &OsStr) -> Result<u32, LaunchError> {
    text.to_str()
        .and_then(|text| text.parse().ok())
        .map_or_else(|| fail(Layer::Usage, format!("{}: not a user or group id", text.display())), Ok)
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

    fn take(words: [&str; 2]) -> Result<(bool, Named), LaunchError> {
        let mut named = Named::default();
        let is_taken = named.take(OsStr::new(words[0]), || Ok(words[1].into()))?;
        Ok((is_taken, named))
    }

    #[test]
    fn each_option_has_its_place() {
        let (is_taken, named) = take(["--plan", "/p"]).unwrap();
        assert!(is_taken && named.is_complete());
        assert_eq!(named.plan, Some(Place::Path("/p".into())));
        let named = take(["--report-fd", "4"]).unwrap().1;
        assert_eq!((named.descriptors(), named.is_complete()), ([None, Some(4)], false));
        assert_eq!(take(["--uid", "5"]).unwrap().1.user(), Some(User { uid: 5, gid: 5 }));
        assert!(!take(["--unit", ""]).unwrap().0);
        assert!(!take(["--plan", ""]).unwrap().1.is_complete());
        for bad in [["--plan-fd", "2"], ["--report-fd", "x"], ["--uid", "-1"], ["--gid", "x"]] {
            assert_eq!(take(bad).unwrap_err().layer(), Layer::Usage, "{bad:?}");
        }
        let group = Named { plan: Some(Place::Descriptor(3)), gid: Some(4), ..Named::default() };
        assert!(!group.is_complete());
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

    #[test]
    fn reports_go_where_they_are_allowed() {
        let of = |path: &Path| Named { report: Some(Place::Path(path.to_owned())), ..Named::default() };
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("report");
        std::fs::write(&file, "old").unwrap();
        assert!(of(&file).open_report(None, Report::File).unwrap().is_some());
        assert_eq!(std::fs::read(&file).unwrap(), b"");
        let refused = of(Path::new("/dev/null")).open_report(None, Report::FileOrPipe);
        assert_eq!(refused.unwrap_err().layer(), Layer::Report);
        let piped = |allowed| {
            let (_reader, writer) = std::io::pipe().unwrap();
            let named = Named { report: Some(Place::Descriptor(3)), ..Named::default() };
            named.open_report(Some(writer.into()), allowed)
        };
        assert!(piped(Report::FileOrPipe).unwrap().is_some());
        assert_eq!(piped(Report::File).unwrap_err().layer(), Layer::Report);
        assert!(Named::default().open_report(None, Report::File).unwrap().is_none());
    }
}
