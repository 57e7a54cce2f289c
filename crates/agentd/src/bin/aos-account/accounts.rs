//! Adding and removing an account: the order of steps, and what is refused.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use aos_core::id::AgentId;

use crate::files::{Folder, Found};
use crate::fork;
use crate::record::{GroupRecord, UIDS, UserRecord, number};

/// Forks of forks of forks: each shares a layer, and a workspace has at most 300.
const FORKS_DEEP: usize = 300;

/// Where things are.
#[derive(Debug)]
pub(crate) struct Places {
    /// Records.
    pub(crate) userdb: PathBuf,
    /// Counter and lock.
    pub(crate) state: PathBuf,
    /// `passwd` and `group`, whose names and numbers are never taken.
    pub(crate) etc: PathBuf,
    /// Other folders of records, lower in rank than `userdb`.
    pub(crate) other_userdbs: Vec<PathBuf>,
    /// Notes of forks: see [`fork`].
    pub(crate) forks: PathBuf,
}

impl Default for Places {
    fn default() -> Self {
        Self {
            userdb: "/etc/userdb".into(),
            state: "/var/lib/aos-accounts".into(),
            etc: "/etc".into(),
            other_userdbs: ["/run/userdb", "/run/host/userdb", "/usr/local/lib/userdb", "/usr/lib/userdb"]
                .map(PathBuf::from)
                .into(),
            forks: "/var/lib/aos/forks".into(),
        }
    }
}

/// Why an account could not be added or removed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AccountError {
    /// A system call failed.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The name belongs to somebody else.
    #[error("{} is not a record that aos-account wrote for this agent; it is left alone", .0.display())]
    NotOurs(PathBuf),
    /// The name is a user or group of the machine.
    #[error("{name} is already a name in {}; choose another agent id", path.display())]
    NameTaken {
        /// The name.
        name: String,
        /// Where it is.
        path: PathBuf,
    },
    /// The user and group records of one agent disagree.
    #[error("user record says uid {uid}, group record says gid {gid}; remove the agent and add it again")]
    Disagree {
        /// From the user record.
        uid: u32,
        /// From the group record.
        gid: u32,
    },
    /// A note of a fork that says something else.
    #[error("{} does not name the agent that this one is a fork of", .0.display())]
    Fork(PathBuf),
    /// Forks of forks, in a circle.
    #[error("agent {0} is, by the notes of forks, a fork of itself")]
    Circle(AgentId),
    /// All 65,536 uids are in use.
    #[error("all uids from {} to {} are in use; remove agents", UIDS.start(), UIDS.end())]
    Full,
}

/// What a removal found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Removed {
    /// An account, whole or in part, with this uid.
    Account(u32),
    /// No account of this name.
    Nothing,
}

impl fmt::Display for Removed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Removed::Account(uid) => write!(f, "removed (uid {uid})"),
            Removed::Nothing => f.write_str("no account"),
        }
    }
}

/// The accounts, locked against other runs of this program.
#[derive(Debug)]
pub(crate) struct Accounts {
    userdb: Folder,
    state: Folder,
    etc: PathBuf,
    other_userdbs: Vec<PathBuf>,
    forks: PathBuf,
    _lock: rustix::fd::OwnedFd,
}

impl Accounts {
    /// Opens the folders and takes the lock.
    pub(crate) fn open(places: &Places) -> Result<Self, AccountError> {
        let open = |path: &Path| Folder::open(path).map_err(io_error("open folder", path));
        let (userdb, state) = (open(&places.userdb)?, open(&places.state)?);
        let lock = state.lock("lock").map_err(io_error("lock", &state.path_of("lock")))?;
        let (etc, other_userdbs) = (places.etc.clone(), places.other_userdbs.clone());
        Ok(Self { userdb, state, etc, other_userdbs, forks: places.forks.clone(), _lock: lock })
    }

    /// Makes sure that `id` has an account, and returns its uid: one of its own, or that of the agent whose fork it is.
    pub(crate) fn add(&self, id: &AgentId) -> Result<u32, AccountError> {
        let mut owner = id.clone();
        for _ in 0..FORKS_DEEP {
            match fork::parent(&self.forks, &owner)? {
                Some(parent) => owner = parent,
                None if owner == *id => return self.add_own(id),
                None => return self.add_alias(id, self.add_own(&owner)?),
            }
        }
        Err(AccountError::Circle(id.clone()))
    }

    /// Another name for a number. The records by number stay those of the number's owner.
    fn add_alias(&self, id: &AgentId, uid: u32) -> Result<u32, AccountError> {
        let name = id.user_name();
        match (self.own_user(id)?, self.own_group(id)?) {
            (None, None) => self.refuse_taken_name(&name)?,
            (user, group) => {
                if let Some(other) = user.or(group).filter(|number| *number != uid) {
                    return Err(AccountError::Disagree { uid: other, gid: uid });
                }
            }
        }
        self.write(&format!("{name}.group"), &json(&GroupRecord::new(id, uid))?)?;
        self.write(&format!("{name}.user"), &json(&UserRecord::new(id, uid))?)?;
        Ok(uid)
    }

    fn add_own(&self, id: &AgentId) -> Result<u32, AccountError> {
        let name = id.user_name();
        let (user, group) = (self.own_user(id)?, self.own_group(id)?);
        let uid = match (user, group) {
            (Some(uid), Some(gid)) if uid != gid => return Err(AccountError::Disagree { uid, gid }),
            (Some(number), _) | (None, Some(number)) => number,
            (None, None) => {
                self.refuse_taken_name(&name)?;
                self.allocate()?
            }
        };
        self.write(&format!("{name}.group"), &json(&GroupRecord::new(id, uid))?)?;
        self.link(&format!("{uid}.group"), &format!("{name}.group"))?;
        self.link(&format!("{uid}.user"), &format!("{name}.user"))?;
        self.write(&format!("{name}.user"), &json(&UserRecord::new(id, uid))?)?;
        Ok(uid)
    }

    /// Removes the account of `id`; what is not ours stays.
    pub(crate) fn remove(&self, id: &AgentId) -> Result<Removed, AccountError> {
        let name = id.user_name();
        let (user, group) = (self.own_user(id)?, self.own_group(id)?);
        let Some(first) = user.or(group) else { return Ok(Removed::Nothing) };
        for number in [user, group].into_iter().flatten() {
            for suffix in ["user", "group"] {
                let link = format!("{number}.{suffix}");
                if self.look(&link)? == Found::Link(format!("{name}.{suffix}").into_bytes()) {
                    self.delete(&link)?;
                }
            }
        }
        self.delete(&format!("{name}.user"))?;
        self.delete(&format!("{name}.group"))?;
        self.userdb.sync().map_err(io_error("sync", &self.userdb.path_of("")))?;
        Ok(Removed::Account(first))
    }

    fn own_user(&self, id: &AgentId) -> Result<Option<u32>, AccountError> {
        self.own(&format!("{}.user", id.user_name()), |bytes| UserRecord::own_uid(id, bytes))
    }

    fn own_group(&self, id: &AgentId) -> Result<Option<u32>, AccountError> {
        self.own(&format!("{}.group", id.user_name()), |bytes| GroupRecord::own_gid(id, bytes))
    }

    fn own(&self, name: &str, read: impl Fn(&[u8]) -> Option<u32>) -> Result<Option<u32>, AccountError> {
        let not_ours = || AccountError::NotOurs(self.userdb.path_of(name));
        match self.look(name)? {
            Found::Nothing => Ok(None),
            Found::File(bytes) => read(&bytes).map(Some).ok_or_else(not_ours),
            Found::Link(_) | Found::Other => Err(not_ours()),
        }
    }

    /// Refuses a name that `passwd`, `group` or another folder of records has.
    fn refuse_taken_name(&self, name: &str) -> Result<(), AccountError> {
        for file in ["passwd", "group"] {
            let path = self.etc.join(file);
            if lines_of(&path)?.iter().any(|line| line.split(':').next() == Some(name)) {
                return Err(AccountError::NameTaken { name: name.to_owned(), path });
            }
        }
        for folder in &self.other_userdbs {
            for suffix in ["user", "group"] {
                let path = folder.join(format!("{name}.{suffix}"));
                if exists(&path)? {
                    return Err(AccountError::NameTaken { name: name.to_owned(), path });
                }
            }
        }
        Ok(())
    }

    /// The next uid that nothing uses. The counter behind it is on the disk when this returns.
    fn allocate(&self) -> Result<u32, AccountError> {
        let mut taken = self.numbers_in_passwd_and_group()?;
        taken.extend(self.numbers_of_agents()?);
        let mut candidate = self.counter()?;
        for _ in UIDS {
            let next = if candidate == *UIDS.end() { *UIDS.start() } else { candidate + 1 };
            if !taken.contains(&candidate) && !self.has_record(candidate)? {
                let bytes = format!("{next}\n");
                let path = self.state.path_of("next");
                self.state.write("next", bytes.as_bytes()).map_err(io_error("write", &path))?;
                return Ok(candidate);
            }
            candidate = next;
        }
        Err(AccountError::Full)
    }

    /// The counter; the start of the range when it is missing or damaged (used numbers are skipped anyway).
    fn counter(&self) -> Result<u32, AccountError> {
        let found = self.state.look("next").map_err(io_error("read", &self.state.path_of("next")))?;
        let Found::File(bytes) = found else { return Ok(*UIDS.start()) };
        let number = std::str::from_utf8(&bytes).ok().and_then(|text| text.trim_end().parse().ok());
        Ok(number.filter(|number| UIDS.contains(number)).unwrap_or(*UIDS.start()))
    }

    fn has_record(&self, number: u32) -> Result<bool, AccountError> {
        for suffix in ["user", "group"] {
            let name = format!("{number}.{suffix}");
            if self.look(&name)? != Found::Nothing {
                return Ok(true);
            }
            for folder in &self.other_userdbs {
                if exists(&folder.join(&name))? {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// The numbers in the records of all agents. A fork's number has no record by number any more when the agent that
    /// it was allocated for is gone.
    fn numbers_of_agents(&self) -> Result<BTreeSet<u32>, AccountError> {
        let mut numbers = BTreeSet::new();
        for name in self.userdb.names().map_err(io_error("read", &self.userdb.path_of("")))? {
            if name.starts_with("aos-")
                && let Found::File(bytes) = self.look(&name)?
            {
                numbers.extend(number(&bytes));
            }
        }
        Ok(numbers)
    }

    fn numbers_in_passwd_and_group(&self) -> Result<BTreeSet<u32>, AccountError> {
        let mut numbers = BTreeSet::new();
        for file in ["passwd", "group"] {
            for line in lines_of(&self.etc.join(file))? {
                numbers.extend(line.split(':').nth(2).and_then(|field| field.parse::<u32>().ok()));
            }
        }
        Ok(numbers)
    }

    fn look(&self, name: &str) -> Result<Found, AccountError> {
        self.userdb.look(name).map_err(io_error("read", &self.userdb.path_of(name)))
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), AccountError> {
        if self.look(name)? == Found::File(bytes.to_vec()) {
            return Ok(());
        }
        self.userdb.write(name, bytes).map_err(io_error("write", &self.userdb.path_of(name)))
    }

    fn link(&self, name: &str, target: &str) -> Result<(), AccountError> {
        self.userdb.link(name, target).map_err(io_error("link", &self.userdb.path_of(name)))
    }

    fn delete(&self, name: &str) -> Result<(), AccountError> {
        self.userdb.remove(name).map_err(io_error("remove", &self.userdb.path_of(name)))
    }
}

fn json(record: &impl serde::Serialize) -> Result<Vec<u8>, AccountError> {
    let mut bytes = serde_json::to_vec_pretty(record).map_err(|error| AccountError::Io {
        what: "format",
        path: "record".into(),
        source: error.into(),
    })?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// The lines of a file of the machine; none when it is missing.
fn lines_of(path: &Path) -> Result<Vec<String>, AccountError> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).lines().map(str::to_owned).collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(io_error("read", path)(error)),
    }
}

fn exists(path: &Path) -> Result<bool, AccountError> {
    match path.symlink_metadata() {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(io_error("look at", path)(error)),
    }
}

fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> AccountError + use<> {
    let path = path.to_owned();
    move |source| AccountError::Io { what, path, source }
}

#[cfg(test)]
mod tests;
