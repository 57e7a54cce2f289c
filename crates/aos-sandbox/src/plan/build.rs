//! The pure function from a step of a build to its plan.
//!
//! What a step sees, outermost first:
//!
//! | place | is | in the layer |
//! |---|---|---|
//! | `/` | a union of the layers below it, writable | yes: what differs |
//! | `/usr`, the links into it, `/etc/alternatives`, `/etc/ssl/certs` | for `from: host`, the host's, read-only | no |
//! | `/proc`, `/dev`, `/dev/shm` | its own | no |
//! | `/tmp`, `/run` | memory | no |
//! | `/run/secrets` | memory, read-only, one file for each declared secret | no |
//! | `/sys`, `/workspace` | empty and read-only: no package brings them | no |
//! | the declared caches | directories of the builder's cache, writable | no |
//!
//! Everything is executable but `/proc`, `/dev` and `/run`: what a step writes, it may run. It stays
//! in the step's sandbox.

use std::collections::BTreeMap;

use aos_core::config::{Isolation, RootKind};
use aos_core::path::AbsolutePath;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::base::{USR_LINKS, known};
use super::{
    Access, CAUSE_BASE, ENTRIES_MAX, Links, Listener, Missing, Node, PLAN_VERSION, Part, PathRule, PlanError,
    Program, ProgramRule, Purpose, Reach, Resource, Rlimit, SandboxPlan, TreeEntry, UnitLimits,
};
use crate::seccomp::Policy;

#[cfg(test)]
mod tests;

/// The id, hence the host name, of every step: the same everywhere, so that no output depends on it.
pub const HOSTNAME: &str = "build";
/// The name of the listener on which the proxy serves.
pub const PROXY_LISTENER: &str = "proxy";
/// Its port, on the step's own loopback. 3128 is what proxies are usually found at.
pub const PROXY_PORT: u16 = 3128;
/// Bytes of a secret's or a listener's name.
pub const NAME_BYTES_MAX: usize = 64;
/// Layers below a step: OCI tools take 127, and overlayfs 500.
pub const LOWER_MAX: usize = 256;
/// The cause of what a step declares.
const CAUSE_STEP: &str = "step";
/// Where the package manager's settings are.
const APT_CONFIGURATION: &str = "/run/aos/apt.conf";

/// Memory for `/tmp`: compilers and installers unpack there.
const TMP_BYTES: u64 = 1 << 30;
const TMP_INODES: u64 = 262_144;
/// Memory for `/run` and `/dev/shm`.
const RUN_BYTES: u64 = 64 << 20;
const RUN_INODES: u64 = 16_384;

/// Open files: package managers for JavaScript open thousands.
const OPEN_FILES: u64 = 65_536;
/// Processes and threads: a parallel compilation fits, a fork bomb not.
const TASKS: u64 = 4096;
/// The kernel's own default since 5.16.
const LOCKED_MEMORY_BYTES: u64 = 8 << 20;
/// With 1 byte no core file is written and no core handler started (core(5)).
const CORE_BYTES: u64 = 1;

/// Places that are made for each step: no cache lies there.
const OWN: [&str; 6] = ["/dev", "/proc", "/run", "/sys", "/tmp", "/workspace"];
/// What the host brings to a step of `from: host`, besides the links into `/usr`.
const HOST: [&str; 3] = ["/usr", "/etc/alternatives", "/etc/ssl/certs"];

/// A small file of a step's root.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BuildFile {
    /// apt does not change to a user of its own, which it could not, and asks the proxy for one
    /// thing after another.
    Apt,
    /// `root`, and `nogroup` for what belongs to others.
    Group,
    /// [`HOSTNAME`].
    Hostname,
    /// The loopback's names.
    Hosts,
    /// Names come from files and from nowhere else.
    Nsswitch,
    /// `root`, and `nobody` for what belongs to others.
    Passwd,
}

impl BuildFile {
    /// The file's text.
    pub const fn content(self) -> &'static str {
        match self {
            Self::Apt => "APT::Sandbox::User \"root\";\nAcquire::http::Pipeline-Depth \"0\";\n",
            Self::Group => "root:x:0:\nnogroup:x:65534:\n",
            Self::Hostname => "build\n",
            Self::Hosts => "127.0.0.1 localhost build\n::1 localhost ip6-localhost ip6-loopback\n",
            Self::Nsswitch => {
                "passwd: files\ngroup: files\nshadow: files\nhosts: files\nservices: files\nprotocols: files\n"
            }
            Self::Passwd => {
                "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
            }
        }
    }
}

/// Everything that a step's plan follows from.
#[derive(Clone, Copy, Debug)]
pub struct BuildInput<'a> {
    /// Whose `/usr` the step sees.
    pub root: RootKind,
    /// The layers below, the topmost first.
    pub lower: &'a [AbsolutePath],
    /// The directories `usr` among them, the topmost first; only for [`RootKind::Host`].
    pub lower_usr: &'a [AbsolutePath],
    /// What gets the changes.
    pub upper: &'a AbsolutePath,
    /// An empty directory beside it.
    pub work: &'a AbsolutePath,
    /// The arguments.
    pub command: &'a [String],
    /// Variables, over those that every step has.
    pub env: &'a BTreeMap<String, String>,
    /// The working directory.
    pub cwd: &'a AbsolutePath,
    /// Caches: the place inside, and the directory of the host.
    pub caches: &'a [(AbsolutePath, AbsolutePath)],
    /// Names of the secrets.
    pub secrets: &'a [String],
    /// Whether there is a proxy.
    pub network: Network,
}

/// What a step reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// Its own loopback.
    Offline,
    /// Also a proxy of the builder's, at [`PROXY_PORT`].
    Proxy,
}

/// Why a step has no plan.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BuildError {
    /// A fixed path or id is not valid.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// There is nothing to execute.
    #[error("the command is empty, or its program is a relative path")]
    NoProgram,
    /// A text holds a zero byte, or a variable's name a `=`.
    #[error("{0} holds a NUL byte or, in a variable's name, `=`")]
    Text(&'static str),
    /// A name of a secret.
    #[error("secret `{}`: a name has 1 to {NAME_BYTES_MAX} letters, digits, `.`, `_` or `-`, and does not start with `.`", .0.escape_debug())]
    SecretName(String),
    /// A cache at a place that is not the step's to change.
    #[error("cache {path}: {place} is made for each step; name a directory beside it")]
    CachePlace {
        /// The cache.
        path: String,
        /// The place that it holds or lies in.
        place: String,
    },
    /// Two directories of the host where there has to be one for each use.
    #[error("{0} and {1} overlap: each cache and each layer has a directory of its own")]
    Overlap(String, String),
    /// There is too much of something.
    #[error("the step has {count} {what}, at most {max} are allowed")]
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// How many there are.
        count: usize,
        /// How many there may be.
        max: usize,
    },
}

/// Whether a text is a plain name: letters, digits, and what else is allowed.
pub(super) fn is_name(text: &str, also: &str) -> bool {
    let is_good = |letter: char| letter.is_ascii_alphanumeric() || also.contains(letter);
    !text.is_empty() && text.len() <= NAME_BYTES_MAX && text.chars().all(is_good) && !text.starts_with('.')
}

/// Derives the plan of a step.
pub fn build(input: &BuildInput<'_>) -> Result<SandboxPlan, BuildError> {
    check_texts(input)?;
    check_places(input)?;
    let listeners = match input.network {
        Network::Offline => Vec::new(),
        Network::Proxy => vec![Listener { port: PROXY_PORT, name: PROXY_LISTENER.to_owned() }],
    };
    Ok(SandboxPlan {
        version: PLAN_VERSION,
        purpose: Purpose::Build,
        isolation: Isolation::Native,
        agent: HOSTNAME.parse().map_err(|_| BuildError::Text("the host name"))?,
        program: Program { argv: input.command.to_vec(), env: environment(input), cwd: input.cwd.clone() },
        root: input.root,
        tree: tree(input)?,
        landlock: vec![rule("/", Access::WriteOwn)?, rule("/dev", Access::Device)?],
        programs: vec![ProgramRule {
            path: AbsolutePath::root(),
            reach: Reach::Subtree,
            links: Links::Follow,
            cause: CAUSE_BASE.to_owned(),
        }],
        listen: Vec::new(),
        listeners,
        seccomp: Policy::Build,
        rlimits: rlimits(),
        unit: UnitLimits::default(),
        disk: None,
    })
}

fn check_texts(input: &BuildInput<'_>) -> Result<(), BuildError> {
    match input.command.first() {
        Some(program) if program.starts_with('/') || !(program.is_empty() || program.contains('/')) => {}
        _ => return Err(BuildError::NoProgram),
    }
    if input.command.iter().any(|argument| argument.contains('\0')) {
        return Err(BuildError::Text("an argument"));
    }
    let is_bad = |(name, value): (&String, &String)| {
        name.is_empty() || name.contains(['\0', '=']) || value.contains('\0')
    };
    if input.env.iter().any(is_bad) {
        return Err(BuildError::Text("a variable"));
    }
    if let Some(name) = input.secrets.iter().find(|name| !is_name(name, "._-")) {
        return Err(BuildError::SecretName(name.clone()));
    }
    for (what, count, max) in [
        ("layers", input.lower.len(), LOWER_MAX),
        ("arguments", input.command.len(), ENTRIES_MAX),
        ("variables", input.env.len(), ENTRIES_MAX / 2),
        ("caches", input.caches.len(), LOWER_MAX),
        ("secrets", input.secrets.len(), LOWER_MAX),
    ] {
        if count > max {
            return Err(BuildError::TooMany { what, count, max });
        }
    }
    Ok(())
}

/// Caches are beside all that is made for each step and beside each other, inside and on the host;
/// and no directory of the host is used twice.
fn check_places(input: &BuildInput<'_>) -> Result<(), BuildError> {
    let is_host = input.root == RootKind::Host;
    let links = USR_LINKS.iter().map(|(path, _)| *path);
    let of_host = HOST.into_iter().chain(links).filter(|_| is_host);
    let made: Vec<AbsolutePath> = OWN.into_iter().chain(of_host).map(known).collect::<Result<_, _>>()?;
    let others = input.caches.iter().map(|(path, _)| path);
    for (index, (path, _)) in input.caches.iter().enumerate() {
        let before = others.clone().take(index);
        if let Some(place) = made.iter().chain(before).find(|place| overlaps(path, place)) {
            return Err(BuildError::CachePlace { path: path.to_string(), place: place.to_string() });
        }
    }
    let mut used: Vec<&AbsolutePath> = vec![input.upper, input.work];
    used.extend(input.lower);
    used.extend(input.caches.iter().map(|(_, source)| source));
    for (index, path) in used.iter().enumerate() {
        if let Some(other) = used.iter().take(index).find(|other| overlaps(path, other)) {
            return Err(BuildError::Overlap(other.to_string(), path.to_string()));
        }
    }
    Ok(())
}

fn overlaps(a: &AbsolutePath, b: &AbsolutePath) -> bool {
    a.is_within(b) || b.is_within(a)
}

fn entry(path: &str, node: Node) -> Result<TreeEntry, BuildError> {
    Ok(TreeEntry { path: known(path)?, node, cause: CAUSE_BASE.to_owned() })
}

fn tree(input: &BuildInput<'_>) -> Result<Vec<TreeEntry>, BuildError> {
    let root =
        Node::BuildRoot { lower: input.lower.to_vec(), upper: input.upper.clone(), work: input.work.clone() };
    let mut tree = vec![
        entry("/", root)?,
        entry("/etc/hostname", Node::BuildFile(BuildFile::Hostname))?,
        entry("/etc/hosts", Node::BuildFile(BuildFile::Hosts))?,
    ];
    if input.root == RootKind::Host {
        tree.extend(of_host(input)?);
    }
    let memory = Node::Tmpfs { size_bytes: RUN_BYTES, inodes: RUN_INODES };
    tree.extend([
        entry("/proc", Node::Proc)?,
        entry("/dev", Node::Devices)?,
        entry("/dev/shm", memory.clone())?,
        entry("/tmp", Node::BuildTmpfs { size_bytes: TMP_BYTES, inodes: TMP_INODES })?,
        entry("/run", memory)?,
        entry(APT_CONFIGURATION, Node::BuildFile(BuildFile::Apt))?,
        entry("/sys", Node::Empty)?,
        entry("/workspace", Node::Empty)?,
    ]);
    if !input.secrets.is_empty() {
        tree.push(entry("/run/secrets", Node::Secrets { names: input.secrets.to_vec() })?);
    }
    for (path, source) in input.caches {
        let node = Node::Cache { source: source.clone() };
        tree.push(TreeEntry { path: path.clone(), node, cause: CAUSE_STEP.to_owned() });
    }
    Ok(tree)
}

/// The host's `/usr` below that of the layers, and what its programs expect in `/etc`.
fn of_host(input: &BuildInput<'_>) -> Result<Vec<TreeEntry>, BuildError> {
    let union = |lower: Vec<AbsolutePath>, missing| Node::Overlay { lower, on_own: false, missing };
    let mut usr = input.lower_usr.to_vec();
    usr.push(known("/usr")?);
    let mut tree = vec![entry("/usr", union(usr, Missing::Error))?];
    for (path, to) in USR_LINKS {
        tree.push(entry(path, Node::Symlink { to: to.to_owned() })?);
    }
    for (path, file) in [
        ("/etc/group", BuildFile::Group),
        ("/etc/nsswitch.conf", BuildFile::Nsswitch),
        ("/etc/passwd", BuildFile::Passwd),
    ] {
        tree.push(entry(path, Node::BuildFile(file))?);
    }
    for path in ["/etc/ld.so.cache", "/etc/localtime"] {
        tree.push(entry(path, Node::Copy { source: known(path)?, missing: Missing::Skip })?);
    }
    for path in HOST.into_iter().filter(|path| *path != "/usr") {
        tree.push(entry(path, union(vec![known(path)?], Missing::Skip))?);
    }
    Ok(tree)
}

fn rule(path: &str, access: Access) -> Result<PathRule, BuildError> {
    Ok(PathRule {
        path: known(path)?,
        part: Part::All,
        access,
        links: Links::Follow,
        missing: Missing::Error,
        cause: CAUSE_BASE.to_owned(),
    })
}

fn rlimits() -> Vec<Rlimit> {
    [
        (Resource::Core, CORE_BYTES),
        (Resource::OpenFiles, OPEN_FILES),
        (Resource::Tasks, TASKS),
        (Resource::LockedMemory, LOCKED_MEMORY_BYTES),
        (Resource::Nice, 0),
        (Resource::RealTimePriority, 0),
    ]
    .map(|(resource, value)| Rlimit { resource, value })
    .to_vec()
}

/// The whole environment: a base, the step's own over it, and the proxy's over both, since nothing
/// else leads out.
fn environment(input: &BuildInput<'_>) -> BTreeMap<String, String> {
    let base = [
        ("APT_CONFIG", APT_CONFIGURATION),
        ("DEBIAN_FRONTEND", "noninteractive"),
        ("HOME", "/root"),
        ("LANG", "C.UTF-8"),
        ("LOGNAME", "root"),
        ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
        ("SHELL", "/bin/sh"),
        ("TMPDIR", "/tmp"),
        ("USER", "root"),
    ];
    let own = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    let mut environment: BTreeMap<String, String> = base.into_iter().map(own).collect();
    environment.extend(input.env.clone());
    if input.network == Network::Proxy {
        let proxy = format!("http://127.0.0.1:{PROXY_PORT}");
        let direct = "localhost,127.0.0.1,::1";
        for name in ["HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"] {
            environment.extend([own((name, &proxy))]);
        }
        environment.extend([own(("NO_PROXY", direct)), own(("no_proxy", direct))]);
    }
    environment
}
