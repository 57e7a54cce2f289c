//! Rules of what every agent has, without what the agent's capabilities put below them.
//!
//! Landlock allows a folder with all that is mounted in it, and has no rule that takes away: an agent that was granted
//! `/etc/ssl/private/**` reads it by the rule on `/etc`, too. For a call without that capability the rule on the folder
//! becomes a rule for each entry but the granted one. Links are left out: a rule is on what a link leads to, and
//! reading a link takes no right.

use std::fs;
use std::path::Path;

use aos_core::path::AbsolutePath;
use aos_sandbox::plan::{Links, Part, PathRule};

use crate::error::{Context, LaunchError, Layer, fail};

/// The rules, none of which reaches one of these places. `is_apart` tells which rules are meant; others stay.
pub(super) fn from_grants(
    rules: Vec<PathRule>,
    granted: &[AbsolutePath],
    is_apart: impl Fn(&PathRule) -> bool,
) -> Result<Vec<PathRule>, LaunchError> {
    let mut apart = Vec::new();
    for rule in rules {
        // Listing a folder shows names, not what is in files.
        let is_listing = rule.access == aos_sandbox::plan::Access::List;
        if is_listing || !is_apart(&rule) || !granted.iter().any(|place| place.is_within(&rule.path)) {
            apart.push(rule);
            continue;
        }
        if rule.part != Part::All {
            return fail(
                Layer::Landlock,
                format!("{}: a grant lies below a rule for a part of it", rule.path),
            );
        }
        let folder = rule.path.clone();
        divide(&rule, &folder, granted, &mut apart)?;
    }
    Ok(apart)
}

fn divide(
    rule: &PathRule,
    folder: &AbsolutePath,
    granted: &[AbsolutePath],
    into: &mut Vec<PathRule>,
) -> Result<(), LaunchError> {
    if granted.contains(folder) {
        return Ok(());
    }
    for entry in fs::read_dir(Path::new(folder.as_str())).layer(Layer::Landlock, folder)? {
        let entry = entry.layer(Layer::Landlock, folder)?;
        let kind = entry.file_type().layer(Layer::Landlock, folder)?;
        let path = entry.path();
        // A name that a plan cannot have is in no plan, and gets no rule.
        let Some(path) = path.to_str().and_then(|path| path.parse::<AbsolutePath>().ok()) else { continue };
        if kind.is_symlink() {
            continue;
        }
        if granted.iter().any(|place| place.is_within(&path)) {
            if kind.is_dir() {
                divide(rule, &path, granted, into)?;
            }
            continue;
        }
        into.push(PathRule { path, links: Links::Refuse, ..rule.clone() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use aos_sandbox::plan::{Access, Missing};

    #[test]
    fn a_rule_reaches_all_but_the_grants() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a", "b/granted/deep", "b/c", "granted"] {
            fs::create_dir_all(folder.path().join(name)).unwrap();
        }
        fs::write(folder.path().join("file"), "").unwrap();
        fs::write(folder.path().join("granted-file"), "").unwrap();
        std::os::unix::fs::symlink("granted", folder.path().join("link")).unwrap();
        let path = |name: &str| -> AbsolutePath {
            format!("{}/{name}", folder.path().display()).trim_end_matches('/').parse().unwrap()
        };
        let rule = |name: &str, access, cause: &str| PathRule {
            path: path(name),
            part: Part::All,
            access,
            links: Links::Follow,
            missing: Missing::Error,
            cause: cause.to_owned(),
        };
        let granted = [path("granted"), path("b/granted"), path("granted-file")];
        let rules = vec![
            rule("", Access::Read, "base"),
            rule("", Access::List, "base"),
            rule("a", Access::Read, "base"),
            rule("granted", Access::Read, "x"),
        ];
        let apart = from_grants(rules.clone(), &granted, |rule| rule.cause == "base").unwrap();
        let mut found: Vec<_> = apart
            .iter()
            .filter(|rule| rule.access == Access::Read)
            .map(|rule| rule.path.as_str().rsplit('/').next().unwrap())
            .collect();
        found.sort_unstable();
        // `a` twice: by the rule on the folder, and by its own.
        assert_eq!(found, ["a", "a", "c", "file", "granted"]);
        assert_eq!(apart.iter().filter(|rule| rule.access == Access::List).count(), 1);
        // A whole folder that is a grant.
        assert!(from_grants(rules[..1].to_vec(), &[path("")], |_| true).unwrap().is_empty());
        assert_eq!(from_grants(rules.clone(), &[], |_| true).unwrap(), rules);
    }
}
