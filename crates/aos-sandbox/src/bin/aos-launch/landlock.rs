//! Applying the plan's rules with Landlock: the newest ABI that the kernel offers, and nothing
//! below ABI 6 (Debian 13's kernel), which has everything that is handled here but connections to
//! named Unix sockets (ABI 9).

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use aos_core::report::LandlockReport;
use aos_sandbox::plan::{Access, Links, Missing, Part, PathRule, ProgramRule, Purpose, Reach, SandboxPlan};
use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, LandlockStatus, NetPort,
    PathBeneath, Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetStatus, Scope,
    make_bitflags,
};
use rustix::fs::{CWD, Dir, FileType, Mode, OFlags, ResolveFlags, fstat, openat2};
use rustix::io::Errno;

use crate::error::{self, Context, LaunchError, Layer, fail};
use crate::loader;

/// The least that a kernel must offer.
const FLOOR: ABI = ABI::V6;
/// The newest whose rights this program knows.
const NEWEST: ABI = ABI::V9;

/// What each newer ABI adds beyond the floor, for the report.
const ADDED: [(u32, &str); 3] = [
    (7, "audit log of denials after exec"),
    (8, "one call for all threads"),
    (9, "connections to named Unix sockets"),
];

const LIST: BitFlags<AccessFs> = make_bitflags!(AccessFs::{ReadDir});
const READ: BitFlags<AccessFs> = make_bitflags!(AccessFs::{ReadDir | ReadFile});
const WRITE: BitFlags<AccessFs> = make_bitflags!(AccessFs::{
    ReadDir | ReadFile | WriteFile | Truncate | RemoveDir | RemoveFile | MakeDir | MakeReg | MakeFifo | MakeSym | Refer
});
/// A socket file carries descriptors between whoever can open it: only where the agent is alone.
const WRITE_OWN: BitFlags<AccessFs> = make_bitflags!(AccessFs::{
    ReadDir | ReadFile | WriteFile | Truncate | RemoveDir | RemoveFile | MakeDir | MakeReg | MakeFifo | MakeSym | Refer
    | MakeSock | ResolveUnix
});
const DEVICE: BitFlags<AccessFs> =
    make_bitflags!(AccessFs::{ReadDir | ReadFile | WriteFile | Truncate | IoctlDev});
const EXECUTE: BitFlags<AccessFs> = make_bitflags!(AccessFs::{ReadDir | ReadFile | Execute});

/// The rights of an access.
const fn rights(access: Access) -> BitFlags<AccessFs> {
    match access {
        Access::List => LIST,
        Access::Read => READ,
        Access::Write => WRITE,
        Access::WriteOwn => WRITE_OWN,
        Access::Device => DEVICE,
    }
}

/// Restricts this process to the plan, for good.
pub(crate) fn apply(plan: &SandboxPlan) -> Result<LandlockReport, LaunchError> {
    let mut ruleset = handled(plan.purpose).layer(Layer::Landlock, error::NO_LANDLOCK)?;
    for rule in &plan.landlock {
        ruleset = add_path_rule(ruleset, rule)?;
    }
    for rule in &plan.programs {
        ruleset = add_program_rule(ruleset, rule, &plan.program.env)?;
    }
    for rule in &plan.listen {
        let port = NetPort::new(rule.port, AccessNet::BindTcp | AccessNet::ConnectTcp);
        ruleset = ruleset.add_rule(port).layer(Layer::Landlock, &rule.cause)?;
    }
    for listener in plan.listeners.iter().filter(|_| plan.purpose == Purpose::Agent) {
        // The socket is bound already: what is left is to connect.
        let port = NetPort::new(listener.port, AccessNet::ConnectTcp);
        ruleset = ruleset.add_rule(port).layer(Layer::Landlock, &listener.name)?;
    }
    let status = ruleset
        .log_new_exec(true)
        .and_then(RulesetCreated::restrict_self)
        .layer(Layer::Landlock, "cannot restrict the agent")?;
    if status.ruleset == RulesetStatus::NotEnforced || !status.no_new_privs {
        return fail(Layer::Landlock, "the kernel did not enforce the rules");
    }
    report(&status.landlock)
}

/// Everything that is refused unless a rule allows it. What the floor has is required; what is
/// newer is handled where the kernel knows it. A step of a build may use all ports of its own
/// loopback, the only interface that it has: tests that it runs make servers.
fn handled(purpose: Purpose) -> Result<RulesetCreated, landlock::RulesetError> {
    let ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(FLOOR))?;
    let ruleset = match purpose {
        Purpose::Agent => ruleset.handle_access(AccessNet::from_all(FLOOR))?,
        Purpose::Build => ruleset,
    };
    let ruleset = ruleset
        .scope(Scope::from_all(FLOOR))?
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))?;
    Ok(ruleset.create()?.set_compatibility(CompatLevel::BestEffort))
}

fn add_path_rule(mut ruleset: RulesetCreated, rule: &PathRule) -> Result<RulesetCreated, LaunchError> {
    let what = || format!("{}: {}", rule.cause, rule.path);
    let file = match open_path(CWD, rule.path.as_path(), rule.links) {
        Ok(file) => file,
        Err(Errno::NOENT) if rule.missing == Missing::Skip => return Ok(ruleset),
        Err(error) => return Err(error).layer(Layer::Landlock, what()),
    };
    match &rule.part {
        Part::All => allow(ruleset, &file, rights(rule.access), what),
        Part::Prefixed(prefix) => {
            for entry in entries(rule.path.as_path(), rule.links, prefix).layer(Layer::Landlock, what())? {
                ruleset = allow(ruleset, &entry, rights(rule.access), what)?;
            }
            Ok(ruleset)
        }
    }
}

/// The entries of a directory whose name starts with a prefix.
fn entries(directory: &Path, links: Links, prefix: &str) -> Result<Vec<OwnedFd>, Errno> {
    let directory = loader::open(directory, links)?;
    let mut found = Vec::new();
    for entry in Dir::read_from(&directory)? {
        let name = entry?.file_name().to_owned();
        if name.to_bytes().starts_with(prefix.as_bytes()) {
            found.push(open_path(directory.as_fd(), Path::new(OsStr::from_bytes(name.to_bytes())), links)?);
        }
    }
    Ok(found)
}

fn open_path(directory: BorrowedFd<'_>, path: &Path, links: Links) -> Result<OwnedFd, Errno> {
    let resolve = match links {
        Links::Follow => ResolveFlags::NO_MAGICLINKS,
        Links::Refuse => ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_SYMLINKS,
    };
    openat2(directory, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve)
}

fn add_program_rule(
    mut ruleset: RulesetCreated,
    rule: &ProgramRule,
    environment: &BTreeMap<String, String>,
) -> Result<RulesetCreated, LaunchError> {
    let what = || format!("{}: cannot execute {}", rule.cause, rule.path);
    if rule.reach == Reach::Subtree {
        let directory = open_path(CWD, rule.path.as_path(), rule.links).layer(Layer::Exec, what())?;
        return allow(ruleset, &directory, EXECUTE, what);
    }
    let chain = loader::chain(rule.path.as_path(), rule.links, environment).layer(Layer::Exec, what())?;
    for (_, file) in &chain.files {
        let stat = fstat(file).layer(Layer::Exec, what())?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return fail(Layer::Exec, format!("{}: not a regular file", what()));
        }
        ruleset = allow(ruleset, file, EXECUTE, what)?;
    }
    Ok(ruleset)
}

/// Adds a rule; of the rights, a file gets those that exist for files.
fn allow(
    ruleset: RulesetCreated,
    file: &OwnedFd,
    rights: BitFlags<AccessFs>,
    what: impl Fn() -> String,
) -> Result<RulesetCreated, LaunchError> {
    let stat = fstat(file).layer(Layer::Landlock, what())?;
    let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    let rights = if is_directory { rights } else { rights & AccessFs::from_file(NEWEST) };
    ruleset.add_rule(PathBeneath::new(file, rights)).layer(Layer::Landlock, what())
}

/// What the kernel offers and what of it is in force.
fn report(status: &LandlockStatus) -> Result<LandlockReport, LaunchError> {
    let LandlockStatus::Available { effective_abi, kernel_abi } = status else {
        return fail(Layer::Landlock, "the kernel has no Landlock");
    };
    let effective = *effective_abi as u32;
    let kernel = kernel_abi.map_or(effective, |abi| u32::try_from(abi).unwrap_or(effective));
    let missing = ADDED.iter().filter(|(abi, _)| *abi > effective).map(|(_, what)| (*what).to_owned());
    Ok(LandlockReport { kernel_abi: kernel, effective_abi: effective, missing: missing.collect() })
}
