//! The paths that somebody asked to commit: each with all beneath it.

use std::path::{Component, Path, PathBuf};

use crate::error::WorkspaceError;

/// A selection, with what of it was found.
#[derive(Debug)]
pub(crate) struct Selection {
    paths: Vec<(PathBuf, bool)>,
}

impl Selection {
    /// From paths relative to the workspace; none means all. Each is checked.
    pub(crate) fn parse(paths: &[String]) -> Result<Self, WorkspaceError> {
        let parsed = paths.iter().map(|text| {
            let path: PathBuf =
                Path::new(text).components().filter(|part| *part != Component::CurDir).collect();
            let is_plain = path.components().all(|part| matches!(part, Component::Normal(_)));
            let refused = || WorkspaceError::Path(aos_core::workspace::escaped(text.as_bytes()));
            if is_plain && !text.contains('\0') { Ok((path, false)) } else { Err(refused()) }
        });
        let mut paths = parsed.collect::<Result<Vec<_>, _>>()?;
        if paths.iter().any(|(path, _)| path.as_os_str().is_empty()) {
            paths.clear();
        }
        Ok(Self { paths })
    }

    /// Whether it is everything.
    pub(crate) fn is_all(&self) -> bool {
        self.paths.is_empty()
    }

    /// Whether a path, or a directory that it is in, is selected. Notes that it was there.
    pub(crate) fn take(&mut self, path: &Path) -> bool {
        let mut is_taken = self.is_all();
        for (selected, is_found) in &mut self.paths {
            if path.starts_with(selected) {
                *is_found = true;
                is_taken = true;
            }
        }
        is_taken
    }

    /// The selected paths that lie beneath one.
    pub(crate) fn beneath(&self, path: &Path) -> Vec<PathBuf> {
        let inner = |selected: &&PathBuf| selected.as_path() != path && selected.starts_with(path);
        self.paths.iter().map(|(selected, _)| selected).filter(inner).cloned().collect()
    }

    /// Whether anything beneath a path is, or may be, selected.
    pub(crate) fn leads_into(&self, path: &Path) -> bool {
        let is_near = |selected: &Path| path.starts_with(selected) || selected.starts_with(path);
        self.is_all() || self.paths.iter().any(|(selected, _)| is_near(selected))
    }

    /// What was selected and not found.
    pub(crate) fn missed(&self) -> Vec<String> {
        let missed = self.paths.iter().filter(|(_, is_found)| !is_found);
        missed.map(|(path, _)| crate::walk::shown(path)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selection(paths: &[&str]) -> Result<Selection, WorkspaceError> {
        Selection::parse(&paths.iter().map(|path| (*path).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn a_directory_takes_what_is_beneath_it() {
        let mut selected = selection(&["a/b", "./c//d/"]).unwrap();
        assert!(selected.take(Path::new("a/b/x")) && !selected.take(Path::new("a/bc")));
        assert!(selected.leads_into(Path::new("a")) && selected.leads_into(Path::new("c/d/e")));
        assert!(!selected.leads_into(Path::new("b")) && !selected.take(Path::new("a")));
        assert_eq!(selected.beneath(Path::new("a")), [PathBuf::from("a/b")]);
        assert_eq!(selected.missed(), ["c/d"]);
        assert!(selection(&[]).unwrap().is_all() && selection(&["x", "."]).unwrap().is_all());
    }

    #[test]
    fn other_paths_are_refused() {
        for path in ["/etc", "..", "a/../b", "a/..", "/", "a\0b"] {
            assert!(matches!(selection(&["x", path]), Err(WorkspaceError::Path(_))), "{path:?}");
        }
    }
}
