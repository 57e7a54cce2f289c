//! aaOS: an agent manifest, `name, model, system_prompt, lifecycle, capabilities[],
//! approval_required[], memory{}, budget_config{}`.
//!
//! aaOS runs a loop of its own around a model, so that a manifest names no program; here an agent is
//! a program. Its patterns match by prefix: a `*` at the end stands for anything at any depth, which
//! is `/**` here.

use super::reader::Field;
use super::yaml::Yaml;
use super::{Converted, FIRST_VERSION, ForeignError, Remarks, finish, format_of, name, program};
use crate::agentfile::{API_VERSION, read};
use crate::capability::{CAPABILITIES_MAX, Capability, CapabilitySet, NotEnforceable};
use crate::config::PackageKind;
use crate::path::AbsolutePath;
use crate::quoted::Quoted;

/// Fields at the top.
const KNOWN: [&str; 8] = [
    "name",
    "model",
    "system_prompt",
    "lifecycle",
    "capabilities",
    "approval_required",
    "memory",
    "budget_config",
];

/// What is said of a field that the design has and this version cannot enforce.
const LATER: &str = "cannot be enforced by this version of AOS";

/// Converts a manifest.
pub fn convert(text: &str, origin: &str) -> Result<Converted, ForeignError> {
    let root = read(text, format_of(origin), origin)?;
    let root = Field::root(&root);
    if !root.is_map() || root.get("apiVersion").is_some() {
        return Err(ForeignError::Other {
            origin: origin.to_owned(),
            what: "an aaOS manifest",
            reason: "expected a mapping with name, model, capabilities, ... and no apiVersion".to_owned(),
        });
    }
    let mut remarks = Remarks::default();
    let name = name(&mut remarks, &root, root.get("name"));
    remarks.note(&root, format!("has no version, {FIRST_VERSION} is written"));
    for field in ["model", "system_prompt"] {
        if let Some(field) = root.get(field) {
            remarks.drop(
                &field,
                "there is no built-in loop in this version of AOS: the program asks its model itself",
            );
        }
    }
    let why = "names no program, since aaOS runs its own loop";
    let entrypoint = program::entrypoint(&mut remarks, &root, &[], why);
    let lifecycle = lifecycle(&mut remarks, root.get("lifecycle"));
    let capabilities = capabilities(&mut remarks, root.get("capabilities"));
    for field in ["approval_required", "memory", "budget_config"] {
        if let Some(section) = root.get(field) {
            drop_each(&mut remarks, &section);
        }
    }
    remarks.drop_others(&root, &KNOWN);
    let file = Yaml::map([
        ("apiVersion", Some(Yaml::text(API_VERSION))),
        ("kind", Some(Yaml::text(PackageKind::Agent.as_str()))),
        (
            "metadata",
            Some(Yaml::map([("name", Some(Yaml::text(name))), ("version", Some(Yaml::text(FIRST_VERSION)))])),
        ),
        (
            "run",
            Some(Yaml::map([("entrypoint", Some(entrypoint)), ("lifecycle", Some(Yaml::text(lifecycle)))])),
        ),
        ("capabilities", Yaml::texts(capabilities.to_lines()).unless_empty()),
    ]);
    finish(origin, "aaOS", file, remarks)
}

/// Drops each part of a section, so that each has its note.
fn drop_each(remarks: &mut Remarks, section: &Field<'_>) {
    let parts: Vec<Field<'_>> =
        section.items().into_iter().chain(section.entries().into_iter().map(|(_, field)| field)).collect();
    if parts.is_empty() {
        remarks.drop(section, LATER);
    }
    for part in parts {
        remarks.drop(&part, LATER);
    }
}

fn lifecycle(remarks: &mut Remarks, field: Option<Field<'_>>) -> &'static str {
    const ONESHOT: &str = "oneshot";
    let Some(field) = field else { return ONESHOT };
    match field.text() {
        Some("persistent") => "persistent",
        Some("on-demand") => ONESHOT,
        _ => {
            remarks.drop(&field, format!("expected persistent or on-demand; {ONESHOT} is written"));
            ONESHOT
        }
    }
}

fn capabilities(remarks: &mut Remarks, field: Option<Field<'_>>) -> CapabilitySet {
    let mut set = CapabilitySet::new();
    let Some(field) = field else { return set };
    if !field.is_list() {
        remarks.drop(&field, "expected a list");
    }
    for item in field.items() {
        for capability in capability(remarks, &item) {
            // What is there already is granted already.
            if !set.contains(&capability) && set.insert(capability).is_err() {
                remarks.drop(&item, format!("an agent has at most {CAPABILITIES_MAX} capabilities"));
            }
        }
    }
    set
}

/// What a capability of aaOS is here: none, one or several of ours.
fn capability(remarks: &mut Remarks, item: &Field<'_>) -> Vec<Capability> {
    // `- file_read: /x` without quotes is a mapping of one entry.
    let entries = item.entries();
    let (name, value) = match (item.text(), entries.as_slice()) {
        (Some(text), _) => match text.split_once(':') {
            Some((name, value)) => (name.trim(), Some(value.trim())),
            None => (text.trim(), None),
        },
        (None, [(name, field)]) => (*name, field.text()),
        _ => {
            remarks.drop(item, "is not a capability");
            return Vec::new();
        }
    };
    match (name, value) {
        ("file_read" | "file_write", Some(glob)) => files(remarks, item, name, glob),
        ("network", Some(host)) => network(remarks, item, host),
        ("git_commit", Some(directory)) => git_commit(remarks, item, directory),
        ("cargo_run", Some(_)) => {
            let why = "an agent cannot execute what it has written: compile in a run step of the build, and grant `exec:` of the result";
            remarks.drop(item, why);
            Vec::new()
        }
        ("tool", Some(tool)) => brokered(remarks, item, "tool", &[tool]),
        ("spawn_child", _) => spawn_child(remarks, item, value),
        ("web_search", _) => {
            remarks.drop(item, LATER);
            Vec::new()
        }
        _ => {
            remarks.drop(item, "is not known here");
            Vec::new()
        }
    }
}

/// One capability of ours, when it can be enforced.
fn grant(remarks: &mut Remarks, item: &Field<'_>, name: &str, value: &str) -> Vec<Capability> {
    let parsed = Capability::from_parts(name, value).map_err(|error| error.to_string());
    match parsed.and_then(|capability| match capability.check_enforceable() {
        // Refused at start until there is a broker, and kept: what it asks for is clear.
        Ok(()) | Err(NotEnforceable::Broker(_)) => Ok(capability),
        Err(error) => Err(error.to_string()),
    }) {
        Ok(capability) => vec![capability],
        Err(why) => {
            remarks.drop(item, why);
            Vec::new()
        }
    }
}

fn files(remarks: &mut Remarks, item: &Field<'_>, name: &str, glob: &str) -> Vec<Capability> {
    let prefix = glob.strip_suffix("/*");
    match prefix {
        Some("") => {
            remarks.drop(item, "names the whole file system: name the directories that the agent needs");
            Vec::new()
        }
        Some(directory) => {
            let value = format!("{directory}/**");
            let granted = grant(remarks, item, name, &value);
            if !granted.is_empty() {
                remarks.note(
                    item,
                    format!("in aaOS {} is any depth: `{name}: {value}` is written", Quoted(glob)),
                );
            }
            granted
        }
        None => grant(remarks, item, name, glob),
    }
}

fn network(remarks: &mut Remarks, item: &Field<'_>, host: &str) -> Vec<Capability> {
    let value = if host.contains(':') { host.to_owned() } else { format!("{host}:443") };
    let granted = grant(remarks, item, "net", &value);
    if !granted.is_empty() {
        let port = if value == host { "" } else { "aaOS allows every port, here it is 443; " };
        remarks.note(item, format!("{port}a start refuses `net:` until this system has a broker"));
    }
    granted
}

/// Capabilities of one name that a start refuses while there is no broker.
fn brokered(remarks: &mut Remarks, item: &Field<'_>, name: &str, values: &[&str]) -> Vec<Capability> {
    let granted: Vec<Capability> =
        values.iter().flat_map(|value| grant(remarks, item, name, value)).collect();
    if !granted.is_empty() {
        remarks.note(item, format!("a start refuses `{name}:` until this system has a broker"));
    }
    granted
}

/// `spawn_child: [a, b]`, as a mapping with a list or as one text.
fn spawn_child(remarks: &mut Remarks, item: &Field<'_>, value: Option<&str>) -> Vec<Capability> {
    let children = item.get("spawn_child").map(|field| field.items()).unwrap_or_default();
    let mut names: Vec<&str> = children.iter().filter_map(Field::text).collect();
    if let Some(text) = value {
        let list = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
        names.extend(list.split(',').map(str::trim).filter(|name| !name.is_empty()));
    }
    if names.is_empty() {
        remarks.drop(item, "expected the names of the agents that it may start");
    }
    brokered(remarks, item, "spawn", &names)
}

/// To commit is to run git, to read the tree, and to write what git keeps beside it.
fn git_commit(remarks: &mut Remarks, item: &Field<'_>, directory: &str) -> Vec<Capability> {
    let directory = directory.trim_end_matches(['*', '/']);
    if let Err(error) = directory.parse::<AbsolutePath>() {
        remarks.drop(item, error);
        return Vec::new();
    }
    let mut granted = Vec::new();
    for (name, value) in [
        ("exec", "/usr/bin/git".to_owned()),
        ("file_read", format!("{directory}/**")),
        ("file_write", format!("{directory}/.git/**")),
    ] {
        let one = grant(remarks, item, name, &value);
        if one.is_empty() {
            // Said already.
            return Vec::new();
        }
        granted.extend(one);
    }
    remarks.note(
        item,
        "is git itself, the tree for reading and its .git for writing: git can do more than commit",
    );
    granted
}
