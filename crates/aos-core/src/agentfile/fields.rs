//! The fields of each section: those that this version takes, and those that the design has and
//! this version does not enforce. Decoder, messages and schema use these tables.

use crate::capability::{KNOWN, QUALIFIERS};

/// The fields of one section.
pub(super) struct Fields {
    /// Fields that are taken.
    pub(super) known: &'static [&'static str],
    /// Fields of the design that this version refuses, since it cannot enforce them.
    pub(super) later: &'static [&'static str],
}

pub(super) const TOP: Fields = Fields {
    known: &[
        "apiVersion",
        "kind",
        "extends",
        "metadata",
        "build",
        "run",
        "dependencies",
        "capabilities",
        "limits",
    ],
    later: &["budget", "approval_required", "memory", "schedule"],
};

/// Sections of what is started: a skill has none of them.
pub(super) const OF_STARTED: [&str; 3] = ["run", "capabilities", "limits"];

pub(super) const METADATA: Fields =
    Fields { known: &["name", "version", "description", "labels"], later: &["annotations"] };

pub(super) const BUILD: Fields = Fields { known: &["args", "stages"], later: &[] };

pub(super) const STAGE: Fields =
    Fields { known: &["name", "from", "packages", "dependsOn", "steps"], later: &[] };

/// A step has exactly one of these.
pub(super) const STEP: Fields =
    Fields { known: &["copy", "run", "env", "workdir", "expose", "label"], later: &["install", "plugin"] };

pub(super) const COPY: Fields =
    Fields { known: &["from", "to", "stage", "package", "owner", "mode", "exclude"], later: &[] };

/// The mapping of a run step.
pub(super) const STEP_RUN: Fields =
    Fields { known: &["command", "net", "cache", "secrets", "timeout"], later: &[] };

pub(super) const RUN: Fields = Fields {
    known: &["entrypoint", "env", "workdir", "lifecycle", "workspace", "isolation"],
    later: &["model", "system_prompt", "schedule"],
};

/// A dependency has exactly one of the first five.
pub(super) const DEPENDENCY: Fields =
    Fields { known: &["agent", "skill", "mcp", "service", "volume", "version", "from", "size"], later: &[] };

pub(super) const LIMITS: Fields = Fields {
    known: &["memory", "cpu", "tasks", "runtime", "open_files", "disk", "io_weight"],
    later: &["gpu"],
};

/// Kinds of package that the design has and this version does not make.
pub(super) const LATER_KINDS: &[&str] = &["World"];

/// All tables.
const ALL: [&Fields; 10] =
    [&TOP, &METADATA, &BUILD, &STAGE, &STEP, &COPY, &STEP_RUN, &RUN, &DEPENDENCY, &LIMITS];

/// Sorts the fields of a section into the order in which its table has them, a capability and its
/// qualifiers into that of the grammar; fields of no one table stay as they are.
pub(super) fn sort<T>(named: &mut [(&str, T)]) {
    let of_capability: Vec<&str> = KNOWN.iter().chain(&QUALIFIERS).map(|(name, _)| *name).collect();
    let mut tables = ALL.iter().map(|fields| fields.known).chain([of_capability.as_slice()]);
    let has_all = |table: &&[&str]| named.iter().all(|(name, _)| table.contains(name));
    if let Some(table) = tables.find(has_all) {
        named.sort_by_key(|(name, _)| table.iter().position(|known| known == name));
    }
}
