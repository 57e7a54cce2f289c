//! Reading the policy's files: TOML to checked rules, with the file and line of what is wrong.
//!
//! `keys` names a key as a PEM text, as the path of a PEM file (from the directory of the file that
//! names it), or as its id. An id stands for the key of that id that some rule or some file `*.pub`
//! of the directories holds.

use super::glob::{NameGlob, RepositoryGlob};
use super::{Demand, FILE_MAX, FILES_MAX, KEYS_MAX, Place, Policy, PolicyError, RULES_MAX, Rule, RuleError};
use crate::file::{self, Demand as FileDemand, FileError};
use crate::key::{KeyId, PEM_MAX, PublicKey};
use crate::object::Object;
use serde::Deserialize;
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use toml::Spanned;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileToml {
    #[serde(default)]
    allow: Vec<Spanned<Object<AllowToml>>>,
    #[serde(default)]
    revoke: Vec<Spanned<Object<RevokeToml>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AllowToml {
    names: Spanned<Vec<Spanned<String>>>,
    repositories: Option<Spanned<Vec<Spanned<String>>>>,
    keys: Option<Spanned<Vec<Spanned<String>>>>,
    threshold: Option<Spanned<usize>>,
    unsigned: Option<Spanned<bool>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RevokeToml {
    keys: Spanned<Vec<Spanned<String>>>,
    /// For people who read the file.
    #[serde(rename = "reason")]
    _reason: Option<String>,
}

/// A file's text, to find lines in.
struct Source<'a> {
    path: &'a Path,
    text: &'a str,
}

impl Source<'_> {
    fn line(&self, offset: usize) -> usize {
        1 + self.text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
    }

    fn place<T>(&self, at: &Spanned<T>) -> Place {
        Place { path: self.path.to_owned(), line: self.line(at.span().start) }
    }

    fn error<T>(&self, at: &Spanned<T>, problem: impl Into<RuleError>) -> PolicyError {
        PolicyError::Rule { place: self.place(at), problem: problem.into() }
    }
}

/// How a rule names a key.
enum Named {
    Key(Box<PublicKey>),
    Id(KeyId),
}

/// A rule whose ids are not looked up yet.
struct Draft {
    rule: Rule,
    ids: Vec<(Place, KeyId)>,
}

#[derive(Default)]
struct Loader {
    policy: Policy,
    drafts: Vec<Draft>,
}

pub(super) fn load(directories: &[impl AsRef<Path>]) -> Result<Policy, PolicyError> {
    let mut loader = Loader::default();
    if let Some(first) = directories.first() {
        loader.policy.directory = first.as_ref().to_owned();
    }
    for directory in directories {
        loader.directory(directory.as_ref())?;
    }
    loader.finish()
}

/// The policy of one file's text.
pub(super) fn parse(path: &Path, bytes: &[u8]) -> Result<Policy, PolicyError> {
    if bytes.len() > FILE_MAX {
        return Err(FileError::TooLarge { path: path.to_owned(), max: FILE_MAX }.into());
    }
    let mut loader = Loader::default();
    loader.policy.directory = path.parent().unwrap_or(Path::new("")).to_owned();
    loader.text(path, bytes)?;
    loader.finish()
}

/// The entries of a directory by name; none when it is not there.
fn entries(directory: &Path) -> Result<Vec<PathBuf>, PolicyError> {
    match file::check_directory(directory, FileDemand::Trusted) {
        Err(error) if error.is_missing() => return Ok(Vec::new()),
        other => other?,
    }
    let read = |error: io::Error| FileError::io("read", directory, error);
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(read)? {
        paths.push(entry.map_err(read)?.path());
        if paths.len() > FILES_MAX {
            let path = directory.to_owned();
            return Err(PolicyError::TooMany { path, what: "files", max: FILES_MAX });
        }
    }
    paths.sort();
    Ok(paths)
}

fn read_key(path: &Path) -> Result<PublicKey, RuleError> {
    let bytes = file::read(path, PEM_MAX, FileDemand::Trusted).map_err(RuleError::KeyFile)?;
    let text = String::from_utf8_lossy(&bytes);
    PublicKey::from_pem(&text).map_err(|why| RuleError::KeyFileContents { path: path.to_owned(), why })
}

impl Loader {
    fn directory(&mut self, directory: &Path) -> Result<(), PolicyError> {
        for path in entries(directory)? {
            match path.extension().and_then(|ending| ending.to_str()) {
                Some("toml") => self.file(&path)?,
                Some("pub") => {
                    let place = Place { path: path.clone(), line: 1 };
                    let key = read_key(&path).map_err(|problem| PolicyError::Rule { place, problem })?;
                    self.know(&path, key)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn file(&mut self, path: &Path) -> Result<(), PolicyError> {
        let bytes = file::read(path, FILE_MAX, FileDemand::Trusted)?;
        self.text(path, &bytes)
    }

    fn text(&mut self, path: &Path, bytes: &[u8]) -> Result<(), PolicyError> {
        let syntax = |line, message| PolicyError::Syntax { path: path.to_owned(), line, message };
        let text = str::from_utf8(bytes).map_err(|error| {
            let line = 1 + bytes.iter().take(error.valid_up_to()).filter(|byte| **byte == b'\n').count();
            syntax(line, "the text is not UTF-8".to_owned())
        })?;
        let source = Source { path, text };
        let file: FileToml = toml::from_str(text).map_err(|error| {
            let offset = error.span().map_or(0, |span| span.start);
            syntax(source.line(offset), error.message().trim().to_owned())
        })?;
        for allow in &file.allow {
            let draft = self.allow(&source, allow)?;
            self.drafts.push(draft);
            if self.drafts.len() > RULES_MAX {
                return Err(PolicyError::TooMany { path: path.to_owned(), what: "rules", max: RULES_MAX });
            }
        }
        for revoke in &file.revoke {
            for text in required(&source, "keys", &revoke.get_ref().0.keys)? {
                let id = match self.key(&source, text)? {
                    Named::Key(key) => key.id(),
                    Named::Id(id) => id,
                };
                self.policy.revoked.insert(id);
            }
        }
        Ok(())
    }

    fn allow(
        &mut self,
        source: &Source<'_>,
        allow: &Spanned<Object<AllowToml>>,
    ) -> Result<Draft, PolicyError> {
        let Object(toml) = allow.get_ref();
        let names = required(source, "names", &toml.names)?
            .iter()
            .map(|name| NameGlob::parse(name.get_ref()).map_err(|error| source.error(name, error)))
            .collect::<Result<_, _>>()?;
        let repositories = match &toml.repositories {
            None => Vec::new(),
            Some(list) => required(source, "repositories", list)?
                .iter()
                .map(|glob| RepositoryGlob::parse(glob.get_ref()).map_err(|error| source.error(glob, error)))
                .collect::<Result<_, _>>()?,
        };
        let (demand, ids) = self.demand(source, allow)?;
        Ok(Draft { rule: Rule { place: source.place(allow), names, repositories, demand }, ids })
    }

    fn demand(
        &mut self,
        source: &Source<'_>,
        allow: &Spanned<Object<AllowToml>>,
    ) -> Result<(Demand, Vec<(Place, KeyId)>), PolicyError> {
        let Object(toml) = allow.get_ref();
        let unsigned = toml.unsigned.as_ref().is_some_and(|unsigned| *unsigned.get_ref());
        let list = match (&toml.keys, unsigned) {
            (None, true) if toml.threshold.is_none() => return Ok((Demand::Unsigned, Vec::new())),
            (Some(list), false) => list,
            _ => return Err(source.error(allow, RuleError::KeysOrUnsigned)),
        };
        let mut keys = BTreeSet::new();
        let mut ids = Vec::new();
        for text in required(source, "keys", list)? {
            keys.insert(match self.key(source, text)? {
                Named::Key(key) => {
                    let id = key.id();
                    self.know(source.path, *key)?;
                    id
                }
                Named::Id(id) => {
                    ids.push((source.place(text), id));
                    id
                }
            });
        }
        let threshold = toml.threshold.as_ref().map_or(1, |threshold| *threshold.get_ref());
        if threshold == 0 || threshold > keys.len() {
            let keys = keys.len();
            return Err(source.error(allow, RuleError::Threshold { threshold, keys }));
        }
        Ok((Demand::Keys { keys, threshold }, ids))
    }

    fn key(&self, source: &Source<'_>, text: &Spanned<String>) -> Result<Named, PolicyError> {
        let value = text.get_ref();
        if value.contains("-----BEGIN") {
            let key = PublicKey::from_pem(value.trim_start()).map_err(RuleError::Key);
            return key.map(|key| Named::Key(Box::new(key))).map_err(|error| source.error(text, error));
        }
        if let Ok(id) = value.parse() {
            return Ok(Named::Id(id));
        }
        let directory = source.path.parent().unwrap_or(Path::new("/"));
        let key = read_key(&directory.join(value));
        key.map(|key| Named::Key(Box::new(key))).map_err(|error| source.error(text, error))
    }

    fn know(&mut self, path: &Path, key: PublicKey) -> Result<(), PolicyError> {
        self.policy.keys.insert(key.id(), key);
        if self.policy.keys.len() > KEYS_MAX {
            return Err(PolicyError::TooMany { path: path.to_owned(), what: "keys", max: KEYS_MAX });
        }
        Ok(())
    }

    /// Looks up the ids, now that all files are read.
    fn finish(mut self) -> Result<Policy, PolicyError> {
        for draft in self.drafts {
            for (place, id) in draft.ids {
                // A revoked key needs no text: it is never tried.
                if !self.policy.keys.contains_key(&id) && !self.policy.revoked.contains(&id) {
                    return Err(PolicyError::Rule { place, problem: RuleError::UnknownKey(id) });
                }
            }
            self.policy.rules.push(draft.rule);
        }
        Ok(self.policy)
    }
}

fn required<'t>(
    source: &Source<'_>,
    what: &'static str,
    list: &'t Spanned<Vec<Spanned<String>>>,
) -> Result<&'t [Spanned<String>], PolicyError> {
    let values = list.get_ref();
    if values.is_empty() { Err(source.error(list, RuleError::Empty(what))) } else { Ok(values) }
}
