//! Which keys may sign which packages: the files `*.toml` of `/etc/aos/trust.d`, and the decision
//! they make.
//!
//! Each `[[allow]]` is a permission, and nothing else is: a package is trusted when at least one
//! rule that matches its name (and repository, when the rule names some) is content with its
//! signatures, so a rule never takes away what another gives, and adding one never changes what
//! happens to names that it does not match. `[[revoke]]` is the exception: a key named there is
//! good for nothing, in whichever file and rule it is named. No rule, no trust.
//!
//! The files are read at each decision, so a change needs no restart. A file that cannot be read,
//! that others could have written or that has an error makes every decision a refusal with that
//! reason: which rule it would have held, or which key it would have revoked, is not known.

mod file;
mod glob;

pub use glob::GlobError;

use crate::FileError;
use crate::dsse::Envelope;
use crate::key::{KeyError, KeyId, PublicKey};
use crate::signature;
use crate::statement::{PACKAGE_PREDICATE, Statement, Subject};
use aos_core::id::{Digest, PackageName, Version};
use glob::{NameGlob, RepositoryGlob};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Files of one directory; a machine trusts some dozen publishers.
pub const FILES_MAX: usize = 256;
/// Bytes of one file.
pub const FILE_MAX: usize = 256 << 10;
/// Rules of all files.
pub const RULES_MAX: usize = 4096;
/// Keys of all files: what each signature without a key id is tried with.
pub const KEYS_MAX: usize = 256;
/// Envelopes of one decision: an archive carries at most 32 attachments.
pub const ENVELOPES_MAX: usize = 64;

/// Characters of a signed name that a message shows.
const SHOWN_CHARS: usize = 80;

/// Why the policy cannot be read. Every decision is then a refusal.
#[derive(Debug, Error)]
pub enum PolicyError {
    /// A file or directory cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file is not the TOML that is expected.
    #[error("{}:{line}: {message}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What the parser says.
        message: String,
    },
    /// A rule says something impossible.
    #[error("{place}: {problem}")]
    Rule {
        /// Where.
        place: Place,
        /// What.
        problem: RuleError,
    },
    /// There is too much of something.
    #[error("{} has more than {max} {what}", path.display())]
    TooMany {
        /// The file or directory.
        path: PathBuf,
        /// Of what.
        what: &'static str,
        /// The bound.
        max: usize,
    },
}

/// What is wrong with a rule.
#[derive(Debug, Error)]
pub enum RuleError {
    /// A pattern is wrong.
    #[error(transparent)]
    Glob(#[from] GlobError),
    /// A list has nothing in it.
    #[error("`{0}` is empty: the rule could never match")]
    Empty(&'static str),
    /// The rule asks for keys and for none.
    #[error("a rule has either `keys` or `unsigned = true`")]
    KeysOrUnsigned,
    /// The threshold cannot be met.
    #[error("the threshold is {threshold}, and the rule has {keys} different keys")]
    Threshold {
        /// The threshold.
        threshold: usize,
        /// The keys.
        keys: usize,
    },
    /// A key's text is wrong.
    #[error("the key is not usable: {0}")]
    Key(KeyError),
    /// A key's file cannot be used.
    #[error("the key is not usable: {0}")]
    KeyFile(FileError),
    /// A key's file holds no good key.
    #[error("the key in {} is not usable: {why}", path.display())]
    KeyFileContents {
        /// The file.
        path: PathBuf,
        /// Why.
        why: KeyError,
    },
    /// An id names a key that no file holds.
    #[error("there is no key {0}: put its PEM into the rule, or into a file NAME.pub beside this one")]
    UnknownKey(KeyId),
}

/// A line of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub path: PathBuf,
    /// The line, from 1.
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.path.display(), self.line)
    }
}

/// One `[[allow]]`.
#[derive(Debug)]
struct Rule {
    place: Place,
    names: Vec<NameGlob>,
    /// Empty: from anywhere.
    repositories: Vec<RepositoryGlob>,
    demand: Demand,
}

/// What a rule asks of a package.
#[derive(Debug)]
enum Demand {
    /// Nothing.
    Unsigned,
    /// Signatures of so many of these keys.
    Keys { keys: BTreeSet<KeyId>, threshold: usize },
}

/// A package about which is decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Package {
    /// Its name.
    pub name: PackageName,
    /// Its version.
    pub version: Version,
    /// Where it came from, `host[:port]/path` without a tag; `None` when that is not known.
    pub repository: Option<String>,
    /// The digest of its manifest.
    pub manifest: Digest,
}

/// Why a package is trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trusted {
    /// The keys that count; none when the rule asks for none.
    pub keys: Vec<KeyId>,
    /// The rule.
    pub rule: Place,
}

/// Why a package is not trusted, and what to do. Its text is for the operator.
#[derive(Debug, Error)]
#[error("{package} is not trusted: {reason}; {advice}", advice = self.advice())]
pub struct Refused {
    /// `name:version`.
    pub package: String,
    /// Why.
    pub reason: Reason,
    /// Where the policy is.
    directory: PathBuf,
}

/// Why a package is not trusted.
#[derive(Debug, Error)]
pub enum Reason {
    /// The policy cannot be read.
    #[error("the trust policy cannot be read: {0}")]
    Policy(PolicyError),
    /// No rule matches.
    #[error("{}no rule of the trust policy is about this name{}", claim(.signed_by), from(.repository.as_deref()))]
    NoRule {
        /// The key ids that its signatures claim.
        signed_by: BTreeSet<KeyId>,
        /// Where it came from.
        repository: Option<String>,
    },
    /// A rule matches and the package has no signature at all.
    #[error("it is not signed")]
    NotSigned,
    /// There are signatures, none of them good, of a key that may sign this name, and over this package.
    #[error("{}no key that may sign this name has signed exactly this package", claim(.0))]
    NoKey(
        /// The key ids that its signatures claim.
        BTreeSet<KeyId>,
    ),
    /// A key that may sign this name has signed, but another package or other bytes.
    #[error("a key that may sign it has signed {other} instead ({})", list(.keys))]
    Other {
        /// The keys.
        keys: BTreeSet<KeyId>,
        /// What they signed, in words.
        other: String,
    },
    /// A revoked key has signed.
    #[error("its key {0} is revoked")]
    Revoked(KeyId),
    /// Too few keys have signed.
    #[error("{} of {threshold} needed keys have signed it ({})", good.len(), list(.good))]
    Threshold {
        /// Those that have.
        good: BTreeSet<KeyId>,
        /// So many are needed.
        threshold: usize,
    },
    /// There are too many signatures.
    #[error("it has {0} signature envelopes, at most {ENVELOPES_MAX} are looked at")]
    TooManyEnvelopes(usize),
}

fn list(keys: &BTreeSet<KeyId>) -> String {
    keys.iter().map(KeyId::to_string).collect::<Vec<_>>().join(", ")
}

fn claim(keys: &BTreeSet<KeyId>) -> String {
    if keys.is_empty() {
        String::new()
    } else {
        format!("it claims to be signed with key {}, and ", list(keys))
    }
}

fn from(repository: Option<&str>) -> String {
    repository.map_or_else(String::new, |repository| format!(" from {repository:?}"))
}

impl Refused {
    fn advice(&self) -> String {
        let folder = self.directory.display();
        let name = self.package.split(':').next().unwrap_or_default();
        match &self.reason {
            Reason::Policy(_) => "nothing is trusted until that is put right".to_owned(),
            Reason::NoRule { signed_by: keys, .. } | Reason::NoKey(keys) if !keys.is_empty() => {
                let keys = list(keys);
                format!(
                    "to trust the key, ask its publisher for it and for its id ({keys}), put it into {folder}/NAME.pub \
                     and a rule `[[allow]]` with names = [\"{name}\"] and keys = [\"NAME.pub\"] into {folder}/NAME.toml"
                )
            }
            Reason::NotSigned | Reason::NoRule { .. } | Reason::NoKey(_) => format!(
                "ask its publisher for a signed one (`aos sign`); a rule for its name goes into {folder}/NAME.toml"
            ),
            Reason::Other { .. } => "get the package and its signature again, from the same place".to_owned(),
            Reason::Revoked(_) => format!("ask its publisher for one with a new key; {folder} says why"),
            Reason::Threshold { .. } => "ask its publisher for the other signatures".to_owned(),
            Reason::TooManyEnvelopes(_) => "remove those that are not needed".to_owned(),
        }
    }
}

/// The rules and keys of all files, checked.
#[derive(Debug, Default)]
pub struct Policy {
    directory: PathBuf,
    rules: Vec<Rule>,
    keys: BTreeMap<KeyId, PublicKey>,
    revoked: BTreeSet<KeyId>,
}

impl Policy {
    /// Reads the files `*.toml` of these directories, by name. A directory that is not there has
    /// none.
    pub fn load(directories: &[impl AsRef<Path>]) -> Result<Self, PolicyError> {
        file::load(directories)
    }

    /// The policy of one file's text, to look at it before it is put in place. Keys that it names
    /// by path are read from beside `path`.
    pub fn parse(path: &Path, text: &[u8]) -> Result<Self, PolicyError> {
        file::parse(path, text)
    }

    /// True when no rule allows anything.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// The keys that some rule names or a file holds, revoked ones left out.
    pub fn keys(&self) -> impl Iterator<Item = &PublicKey> {
        self.keys.values().filter(|key| !self.revoked.contains(&key.id()))
    }

    /// Decides whether the package with these signatures is trusted.
    pub fn decide(&self, package: &Package, envelopes: &[Envelope]) -> Result<Trusted, Box<Refused>> {
        self.judge(package, envelopes).map_err(|reason| self.refuse(package, reason))
    }

    fn refuse(&self, package: &Package, reason: Reason) -> Box<Refused> {
        refusal(package, reason, &self.directory)
    }

    fn judge(&self, package: &Package, envelopes: &[Envelope]) -> Result<Trusted, Reason> {
        if envelopes.len() > ENVELOPES_MAX {
            return Err(Reason::TooManyEnvelopes(envelopes.len()));
        }
        let rules: Vec<&Rule> = self.rules.iter().filter(|rule| rule.matches(package)).collect();
        let claimed = || envelopes.iter().flat_map(Envelope::claimed_keys).collect::<BTreeSet<_>>();
        if rules.is_empty() {
            return Err(Reason::NoRule { signed_by: claimed(), repository: package.repository.clone() });
        }
        let named: BTreeSet<KeyId> = rules.iter().flat_map(|rule| rule.keys()).copied().collect();
        let subject = signature::subject(&package.name, &package.version, package.manifest);
        let candidates = named.iter().filter_map(|id| self.keys.get(id));
        let signers = signature::signers(&subject, envelopes, candidates);
        let good: BTreeSet<KeyId> = signers.difference(&self.revoked).copied().collect();
        if let Some(trusted) = rules.iter().find_map(|rule| rule.accepts(&good)) {
            return Ok(trusted);
        }
        if let Some(revoked) = signers.intersection(&self.revoked).next() {
            return Err(Reason::Revoked(*revoked));
        }
        if envelopes.is_empty() {
            return Err(Reason::NotSigned);
        }
        if good.is_empty()
            && let Some(reason) = self.signed_other(&subject, envelopes, &named)
        {
            return Err(reason);
        }
        let nearest = rules.iter().filter_map(|rule| rule.missing(&good)).min_by_key(|(missing, _)| *missing);
        match nearest {
            Some((_, threshold)) if !good.is_empty() => Err(Reason::Threshold { good, threshold }),
            _ => Err(Reason::NoKey(claimed())),
        }
    }

    /// The reason when a key that may sign the package has signed another one.
    fn signed_other(
        &self,
        subject: &Subject,
        envelopes: &[Envelope],
        keys: &BTreeSet<KeyId>,
    ) -> Option<Reason> {
        envelopes.iter().find_map(|envelope| {
            let keys = keys.difference(&self.revoked).filter_map(|id| self.keys.get(id));
            let (keys, statement) = signature::verified_statement(envelope, keys)?;
            let statement = statement.ok().filter(|s| s.predicate_type == PACKAGE_PREDICATE)?;
            Some(Reason::Other { keys: keys.into_iter().collect(), other: describe(subject, &statement) })
        })
    }
}

/// What else a package's signature is about, in words.
fn describe(wanted: &Subject, signed: &Statement) -> String {
    match signed.subjects.first() {
        Some(subject) if subject.name == wanted.name => {
            format!("other bytes of that name, {}", subject.digest)
        }
        Some(subject) => format!("{:?}", subject.name.chars().take(SHOWN_CHARS).collect::<String>()),
        None => "nothing".to_owned(),
    }
}

/// The decision of the policy of these directories, read now. A policy that cannot be read refuses.
pub fn decide(
    directories: &[impl AsRef<Path>],
    package: &Package,
    envelopes: &[Envelope],
) -> Result<Trusted, Box<Refused>> {
    let first = directories.first().map(AsRef::as_ref).unwrap_or(Path::new(""));
    Policy::load(directories)
        .map_err(|error| refusal(package, Reason::Policy(error), first))?
        .decide(package, envelopes)
}

fn refusal(package: &Package, reason: Reason, directory: &Path) -> Box<Refused> {
    let name = format!("{}:{}", package.name, package.version);
    Box::new(Refused { package: name, reason, directory: directory.to_owned() })
}

impl Rule {
    fn matches(&self, package: &Package) -> bool {
        let from = || match &package.repository {
            Some(repository) => self.repositories.iter().any(|glob| glob.matches(repository)),
            None => false,
        };
        self.names.iter().any(|glob| glob.matches(&package.name)) && (self.repositories.is_empty() || from())
    }

    fn keys(&self) -> impl Iterator<Item = &KeyId> {
        match &self.demand {
            Demand::Unsigned => None,
            Demand::Keys { keys, .. } => Some(keys),
        }
        .into_iter()
        .flatten()
    }

    fn accepts(&self, good: &BTreeSet<KeyId>) -> Option<Trusted> {
        let keys: Vec<KeyId> = self.keys().filter(|key| good.contains(key)).copied().collect();
        let enough = match &self.demand {
            Demand::Unsigned => true,
            Demand::Keys { threshold, .. } => keys.len() >= *threshold,
        };
        enough.then(|| Trusted { keys, rule: self.place.clone() })
    }

    /// How many signatures are missing of how many.
    fn missing(&self, good: &BTreeSet<KeyId>) -> Option<(usize, usize)> {
        match &self.demand {
            Demand::Unsigned => None,
            Demand::Keys { threshold, .. } => {
                let have = self.keys().filter(|key| good.contains(key)).count();
                Some((threshold.saturating_sub(have), *threshold))
            }
        }
    }
}

#[cfg(test)]
mod tests;
