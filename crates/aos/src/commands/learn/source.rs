//! What an agent is built from and the list is written into: no run may change it on the way.
//!
//! The Agentfile is read before anything is built or run. The list goes into that text, and only while
//! the file on disk still has it: an agent that could write there would otherwise choose its own
//! capabilities, or the steps of the next build.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use aos_core::agentfile::{FILE_NAMES, Format as Notation};
use aos_core::capability::CapabilitySet;
use aos_core::lock::LOCK_FILE_NAME;
use aos_learn::edit;

use super::LearnArgs;
use crate::environment;
use crate::failure::hinted;
use crate::output::Output;
use crate::package;
use crate::store;

/// The user store of root, which is the machine's.
const STORE_OF_ROOT: &str = "/var/lib/aos-packages";

/// An Agentfile as it was before the first run.
#[derive(Debug)]
pub(super) struct Source {
    path: PathBuf,
    text: String,
}

impl Source {
    /// Reads the Agentfile that is meant.
    pub(super) fn read(args: &LearnArgs) -> Result<Self> {
        let path = agentfile(args);
        let path = path.with_context(|| format!("there is no Agentfile in {}", args.folder.display()))?;
        let (text, _) = read(&path)?;
        Ok(Self { path, text })
    }

    /// The text.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Writes a list into it. `None` when that cannot be done without touching anything else; an error
    /// when the file is not as it was.
    pub(super) fn write(&self, wanted: &CapabilitySet, out: Output) -> Result<Option<PathBuf>> {
        let path = &self.path;
        let (now, mode) = read(path)?;
        if now != self.text {
            let advice = "look at what was changed in it, and by whom, before you build it again";
            return Err(hinted(
                format!("{} is not as it was before the runs, and is not written", path.display()),
                advice,
            ));
        }
        let notation = Notation::of_file_name(&path.to_string_lossy());
        match edit::replace(&self.text, notation, wanted) {
            Ok(changed) if changed == self.text => {
                out.note(&format!("{} has this list already", path.display()));
            }
            Ok(changed) => {
                package::write_whole(path, |file| {
                    file.write_all(changed.as_bytes())?;
                    Ok(file.set_permissions(mode)?)
                })?;
                out.note(&format!("{} is written", path.display()));
            }
            Err(error) => {
                out.warn(&format!(
                    "{} is not changed: {error}; put the list into it yourself",
                    path.display()
                ));
                return Ok(None);
            }
        }
        Ok(Some(path.clone()))
    }
}

/// The Agentfile that is meant.
fn agentfile(args: &LearnArgs) -> Option<PathBuf> {
    let found = || FILE_NAMES.iter().map(|(name, _)| args.folder.join(name)).find(|path| path.exists());
    args.file.clone().or_else(found)
}

fn read(path: &Path) -> Result<(String, std::fs::Permissions)> {
    let failed = || format!("cannot read {}", path.display());
    let mut file = package::open_plain(path).with_context(failed)?;
    let mode = file.metadata().with_context(failed)?.permissions();
    let mut text = String::new();
    file.read_to_string(&mut text).with_context(failed)?;
    Ok((text, mode))
}

/// What nothing is granted to write in while it is learnt from: the source folder, the Agentfile and
/// its lock, and the package stores. Each by its real path and by its name.
pub(super) fn kept(args: &LearnArgs) -> Vec<PathBuf> {
    let mut named = vec![args.folder.clone(), args.folder.join(LOCK_FILE_NAME), STORE_OF_ROOT.into()];
    if let Some(file) = agentfile(args) {
        named.push(file.with_file_name(LOCK_FILE_NAME));
        named.push(file);
    }
    named.extend(environment::data_home().map(|data| data.join("aos")));
    named.extend(store::root());
    let mut kept: Vec<PathBuf> = named
        .iter()
        .flat_map(|path| [std::path::absolute(path).ok(), path.canonicalize().ok()])
        .flatten()
        .collect();
    kept.sort();
    kept.dedup();
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "apiVersion: aos/v1\nkind: Agent\nmetadata: { name: web, version: 1.0.0 }\nrun: { entrypoint: [ /app/x ] }\n";

    #[test]
    fn an_agentfile_that_changed_is_not_written() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("Agentfile");
        std::fs::write(&path, TEXT).unwrap();
        let source = Source { path: path.clone(), text: TEXT.to_owned() };
        let wanted = CapabilitySet::parse(["file_read: /srv/a"]).unwrap();
        let planted = format!("{TEXT}capabilities:\n  - \"exec: /usr/bin/curl\"\n");
        std::fs::write(&path, &planted).unwrap();
        let error = source.write(&wanted, Output::detect()).unwrap_err();
        let said = format!("{error:#}");
        assert!(said.contains("not as it was before the runs"), "{said}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), planted);
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/etc/hostname", &path).unwrap();
        assert!(source.write(&wanted, Output::detect()).is_err());
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, TEXT).unwrap();
        assert_eq!(source.write(&wanted, Output::detect()).unwrap(), Some(path.clone()));
        let written = std::fs::read_to_string(&path).unwrap();
        assert_eq!(written, format!("{TEXT}capabilities:\n  - \"file_read: /srv/a\"\n"));
    }
}
