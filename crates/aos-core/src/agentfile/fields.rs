//! The fields of each section: those that this version takes, and those that the design has and
//! this version does not enforce. Decoder, messages and schema use these tables.

/// The fields of one section.
pub(super) struct Fields {
    /// Fields that are taken.
    pub(super) known: &'static [&'static str],
    /// Fields of the design that this version refuses, since it cannot enforce them.
    pub(super) later: &'static [&'static str],
}

pub(super) const TOP: Fields = Fields {
    known: &["apiVersion", "kind", "metadata", "build", "run", "capabilities", "limits"],
    later: &["dependencies", "budget", "approval_required", "memory", "isolation", "schedule"],
};

pub(super) const METADATA: Fields =
    Fields { known: &["name", "version", "description", "labels"], later: &["annotations"] };

pub(super) const BUILD: Fields = Fields { known: &["stages"], later: &[] };

pub(super) const STAGE: Fields = Fields { known: &["name", "from", "steps"], later: &["dependsOn"] };

/// A step has exactly one of these.
pub(super) const STEP: Fields =
    Fields { known: &["copy", "env", "workdir", "label"], later: &["run", "install", "plugin"] };

pub(super) const COPY: Fields = Fields { known: &["from", "to"], later: &[] };

pub(super) const RUN: Fields = Fields {
    known: &["entrypoint", "env", "workdir", "lifecycle"],
    later: &["model", "system_prompt", "schedule"],
};

pub(super) const LIMITS: Fields =
    Fields { known: &["memory", "cpu", "tasks", "runtime", "open_files"], later: &["disk", "gpu"] };

/// What may stand beside a capability in a mapping.
pub(super) const CAPABILITY_OPTIONS: &[&str] = &["approval", "max_calls", "max_bytes", "expires"];

/// Kinds of package that the design has and this version does not make.
pub(super) const LATER_KINDS: &[&str] = &["Skill", "McpServer", "World"];
