//! The Agentfile's JSON Schema, for editors and for other programs that write Agentfiles.
//!
//! It is made from the decoder's own tables of fields, the tables of capabilities and the bounds,
//! and so has no field that the decoder does not know. It is a necessary condition: what the schema
//! refuses the decoder refuses in JSON and TOML; lengths in bytes, two stages of one name and files
//! that do not exist are found by the decoder and the build alone. In YAML the decoder also takes a
//! plain number where the schema wants text.

mod build;
mod patterns;

use super::fields::{self, Fields};
use super::{API_VERSION, FILE_NAMES};
use crate::capability::{Approval, CAPABILITIES_MAX, KNOWN, LINE_MAX_BYTES, QUALIFIERS};
use crate::config::{ARGUMENTS_MAX, ENV_MAX, Isolation, LABELS_MAX, Lifecycle, PackageKind, Workspace};
use crate::dependency::{DEPENDENCIES_MAX, DependencyKind, REQUIREMENT_MAX};
use crate::id::{PACKAGE_NAME_MAX, VERSION_MAX};
use crate::path::PATH_MAX_BYTES;
use crate::quantity::{CALLS_MAX, IO_WEIGHT_MAX, OPEN_FILES_MAX, TASKS_MAX};
use crate::text::{
    ARGUMENT_MAX, DESCRIPTION_MAX, ENV_NAME_MAX, ENV_VALUE_MAX, LABEL_NAME_MAX, LABEL_VALUE_MAX,
};
use serde_json::{Map, Value, json};

/// The schema's name; an editor is given the file instead.
pub const SCHEMA_ID: &str =
    "https://raw.githubusercontent.com/aos-project/aos/main/docs/agentfile.schema.json";

/// The schema of a field of one section, by the field's name.
type SchemaOf = fn(&str) -> Option<Value>;

/// The schema, draft 2020-12, as indented text with a newline at its end.
pub fn json_schema() -> String {
    format!("{:#}\n", sorted(root()))
}

/// The schema of a whole file.
pub(super) fn root() -> Value {
    let mut root = section("", &fields::TOP, &["apiVersion", "kind", "metadata"], top);
    let names: Vec<&str> = FILE_NAMES.iter().map(|(name, _)| *name).collect();
    if let Value::Object(fields) = &mut root {
        fields.insert("$schema".to_owned(), json!("https://json-schema.org/draft/2020-12/schema"));
        fields.insert("$id".to_owned(), json!(SCHEMA_ID));
        fields.insert("title".to_owned(), json!("Agentfile"));
        let what = format!("What an AOS agent is, starts and may do: {}.", names.join(", "));
        fields.insert("description".to_owned(), json!(what));
        fields.insert("allOf".to_owned(), json!([of_kind(), without_parent()]));
    }
    root
}

/// What a skill has not, and what everything else must have, itself or from what it extends.
fn of_kind() -> Value {
    let skill = PackageKind::Skill.as_str();
    let none: Map<String, Value> =
        fields::OF_STARTED.iter().map(|name| ((*name).to_owned(), Value::Bool(false))).collect();
    json!({
        "if": { "properties": { "kind": { "const": skill } } },
        "then": { "properties": none },
        "else": { "anyOf": [{ "required": ["run"] }, { "required": ["extends"] }] },
    })
}

/// What may be missing only when there is a parent to have it.
fn without_parent() -> Value {
    json!({
        "if": { "not": { "required": ["extends"] } },
        "then": { "properties": {
            "build": { "required": ["stages"] },
            "run": { "required": ["entrypoint"] },
        } },
    })
}

/// With sorted keys, whatever order the map type keeps in this build.
fn sorted(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.into_iter().collect();
            fields.sort_by(|(left, _), (right, _)| left.cmp(right));
            Value::Object(fields.into_iter().map(|(key, value)| (key, sorted(value))).collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(sorted).collect()),
        other => other,
    }
}

/// A mapping of known fields and no others. A field without a schema gets none, which the tests find.
fn section(what: &str, fields: &Fields, required: &[&str], schema_of: SchemaOf) -> Value {
    let property = |name: &&str| schema_of(name).map(|schema| ((*name).to_owned(), schema));
    let properties: Map<String, Value> = fields.known.iter().filter_map(property).collect();
    let mut schema = json!({
        "type": "object", "description": what, "properties": properties, "additionalProperties": false,
    });
    if let (Value::Object(fields), false) = (&mut schema, required.is_empty()) {
        fields.insert("required".to_owned(), json!(required));
    }
    schema
}

fn text(what: &str, pattern: &str, max: usize) -> Value {
    json!({ "type": "string", "description": what, "pattern": pattern, "maxLength": max })
}

/// A mapping of names to texts.
fn table(what: &str, max: usize, name: (&str, usize), value: Value) -> Value {
    json!({
        "type": "object", "description": what, "maxProperties": max,
        "propertyNames": { "pattern": name.0, "maxLength": name.1 },
        "additionalProperties": value,
    })
}

fn list(what: &str, min: usize, max: usize, items: Value) -> Value {
    json!({ "type": "array", "description": what, "minItems": min, "maxItems": max, "items": items })
}

fn top(name: &str) -> Option<Value> {
    Some(match name {
        "apiVersion" => json!({ "description": "The version of this format.", "const": API_VERSION }),
        "kind" => json!({
            "description": "What the package is. An agent and an MCP server are started; a skill is files with a SKILL.md that agents read.",
            "enum": PackageKind::ALL.map(PackageKind::as_str),
        }),
        "extends" => {
            let what = "What this file is a variant of: another Agentfile by its path (./base, ../base/Agentfile.yaml, relative to this file), or a package by tag or digest (base:1.0.0, registry.example/team/base:1.0.0). Maps are merged with this file's entries on top, capabilities are united, limits and run are taken field by field, stages of the parent come first. At most 8 levels.";
            text(what, &patterns::extends(), PATH_MAX_BYTES)
        }
        "metadata" => {
            section("What the package is called.", &fields::METADATA, &["name", "version"], metadata)
        }
        "build" => build::build(),
        "run" => {
            let what = "What is started. An agent or MCP server has it, itself or from what it extends.";
            section(what, &fields::RUN, &[], run)
        }
        "dependencies" => {
            let what = "What the package needs: other packages by version ranges, which `aos lock` resolves, and services and volumes. One of each kind and name.";
            list(what, 0, DEPENDENCIES_MAX, dependency())
        }
        "capabilities" => {
            let what = "What the agent may do; nothing else is allowed. One line each, `name: value`.";
            let mut schema = list(what, 0, CAPABILITIES_MAX, capability());
            schema.as_object_mut()?.insert("uniqueItems".to_owned(), json!(true));
            schema
        }
        "limits" => {
            let what = "Upper bounds that the kernel and the supervisor keep; without one the system's default holds.";
            section(what, &fields::LIMITS, &[], limits)
        }
        _ => return None,
    })
}

fn metadata(name: &str) -> Option<Value> {
    Some(match name {
        "name" => {
            let what =
                "The package's name: 1 to 63 of a-z, 0-9, `.`, `_` and `-`, a letter or digit at both ends.";
            text(what, patterns::PACKAGE_NAME, PACKAGE_NAME_MAX)
        }
        "version" => {
            let what = "The package's version, MAJOR.MINOR.PATCH (semver.org).";
            text(what, patterns::VERSION, VERSION_MAX)
        }
        "description" => text("What the package is for.", &patterns::visible(true), DESCRIPTION_MAX),
        "labels" => labels(),
        _ => return None,
    })
}

/// A dependency: one form for each kind, so that an editor completes what fits.
fn dependency() -> Value {
    let form = |kind: DependencyKind| {
        let known: Vec<&str> = match kind {
            DependencyKind::Service => vec![kind.as_str(), "version"],
            DependencyKind::Volume => vec![kind.as_str(), "size"],
            DependencyKind::Agent | DependencyKind::Skill | DependencyKind::Mcp => {
                vec![kind.as_str(), "version", "from"]
            }
        };
        let required =
            if kind == DependencyKind::Volume { vec!["volume", "size"] } else { vec![kind.as_str()] };
        let properties: Map<String, Value> = known
            .iter()
            .filter_map(|name| dependency_field(name).map(|schema| ((*name).to_owned(), schema)))
            .collect();
        json!({ "type": "object", "properties": properties, "required": required, "additionalProperties": false })
    };
    json!({ "anyOf": DependencyKind::ALL.map(form) })
}

fn dependency_field(name: &str) -> Option<Value> {
    let named = |what: &str| text(what, patterns::PACKAGE_NAME, PACKAGE_NAME_MAX);
    Some(match name {
        "agent" => named("Another agent, by its package's name."),
        "skill" => named("A skill, by its package's name."),
        "mcp" => named("An MCP server, by its package's name."),
        "service" => {
            named("A service that somebody provides, such as a database. It is declared, not started.")
        }
        "volume" => named(
            "A directory that outlives the agent. This version cannot enforce its size: a start refuses it.",
        ),
        "version" => {
            let what = "The versions that will do: ^1, ~1.2, =1.2.3, >=1.2, <2. Without it any version.";
            text(what, patterns::REQUIREMENT, REQUIREMENT_MAX)
        }
        "from" => {
            let what = "Where its versions are: a repository without a tag (registry.example/team/name), or a directory registry (oci:PATH). Without it the store and the configured registries.";
            text(what, &patterns::provider(), PATH_MAX_BYTES)
        }
        "size" => size("Bytes, or with K, M, G, T (powers of 1024): 10G."),
        _ => return None,
    })
}

fn labels() -> Value {
    let value = text("A line of text.", &patterns::visible(false), LABEL_VALUE_MAX);
    table(
        "Labels: names with a line of text each.",
        LABELS_MAX,
        (patterns::LABEL_NAME, LABEL_NAME_MAX),
        value,
    )
}

fn env() -> Value {
    let value = text("Text; a number is written in quotes.", patterns::ANY, ENV_VALUE_MAX);
    table("Environment variables.", ENV_MAX, (patterns::ENV_NAME, ENV_NAME_MAX), value)
}

fn workdir() -> Value {
    text("The working directory, absolute; /workspace without it.", &patterns::absolute(), PATH_MAX_BYTES)
}

fn run(name: &str) -> Option<Value> {
    Some(match name {
        "entrypoint" => {
            let argument = text("An argument; a number is written in quotes.", patterns::ANY, ARGUMENT_MAX);
            let program =
                text("The program; a relative one is taken from /app.", &patterns::program(), PATH_MAX_BYTES);
            let mut schema = list("The program and its arguments.", 1, ARGUMENTS_MAX, argument);
            schema.as_object_mut()?.insert("prefixItems".to_owned(), json!([program]));
            schema
        }
        "env" => env(),
        "workdir" => workdir(),
        "lifecycle" => json!({
            "description": "oneshot: ends by itself; persistent: is started again when it fails.",
            "default": Lifecycle::default().as_str(),
            "enum": Lifecycle::WORDS,
        }),
        "workspace" => json!({
            "description": "What happens to what the agent writes in /workspace. persistent: it stays; transactional: the agent writes to a view of its own, which a person commits or discards.",
            "default": Workspace::default().as_str(),
            "enum": Workspace::WORDS,
        }),
        "isolation" => json!({
            "description": "What holds the agent in. native: this system's launcher; oci: an OCI runtime, crun or runc; gvisor: runsc; vm: a virtual machine. One that this machine has not is an error at start.",
            "default": Isolation::default().as_str(),
            "enum": Isolation::WORDS,
        }),
        _ => return None,
    })
}

/// A capability as one text `name: value`, or as a mapping of one capability with its qualifiers.
fn capability() -> Value {
    let after = patterns::qualifiers();
    let valued =
        || KNOWN.iter().filter_map(|&(name, form)| Some((name, form, patterns::capability_value(name)?)));
    let line = |(name, form, value): (&str, &str, String)| json!({ "description": form, "pattern": format!("^{name}: *{value}{after}$") });
    let entry = |(name, form, value): (&str, &str, String)| {
        let pattern = format!("^{value}{after}$");
        let schema = match name {
            "listen" => {
                let number = json!({ "type": "integer", "minimum": 1, "maximum": u16::MAX });
                json!({ "description": form, "anyOf": [number, { "type": "string", "pattern": pattern }] })
            }
            _ => json!({ "description": form, "type": "string", "pattern": pattern }),
        };
        (name.to_owned(), schema)
    };
    let beside =
        QUALIFIERS.iter().filter_map(|(name, what)| Some(((*name).to_owned(), qualifier(name, what)?)));
    let one_of: Vec<Value> = KNOWN.iter().map(|(name, _)| json!({ "required": [name] })).collect();
    json!({ "anyOf": [
        { "type": "string", "maxLength": LINE_MAX_BYTES, "anyOf": valued().map(line).collect::<Vec<_>>() },
        {
            "type": "object",
            "properties": valued().map(entry).chain(beside).collect::<Map<_, _>>(),
            "additionalProperties": false, "oneOf": one_of,
        },
    ] })
}

/// A qualifier beside a capability.
fn qualifier(name: &str, what: &str) -> Option<Value> {
    let pattern = format!("^{}$", patterns::qualifier_value(name)?);
    Some(match name {
        "approval" => json!({ "description": what, "enum": Approval::WORDS }),
        "max_calls" => number(what, Some(CALLS_MAX), &pattern),
        "max_bytes" => number(what, None, &pattern),
        _ => json!({ "description": what, "type": "string", "pattern": pattern }),
    })
}

/// A whole number, or a text with the same meaning.
fn number(what: &str, max: Option<u32>, pattern: &str) -> Value {
    let mut integer = json!({ "type": "integer", "minimum": 1 });
    if let (Value::Object(fields), Some(max)) = (&mut integer, max) {
        fields.insert("maximum".to_owned(), json!(max));
    }
    json!({ "description": what, "anyOf": [integer, { "type": "string", "pattern": pattern }] })
}

fn size(what: &str) -> Value {
    number(what, None, patterns::SIZE)
}

fn limits(name: &str) -> Option<Value> {
    Some(match name {
        "memory" => size("Memory in bytes, or with K, M, G, T (powers of 1024): 256M."),
        "cpu" => text("CPU time in percent of one processor: 50%, 200%.", patterns::CPU, 7),
        "tasks" => number("Processes and threads.", Some(TASKS_MAX), patterns::COUNT),
        "runtime" => {
            text("Time from start to forced end, with d, h, m, s: 10m, 1h30m.", patterns::DURATION, 64)
        }
        "open_files" => number("Open files of each process.", Some(OPEN_FILES_MAX), patterns::COUNT),
        "disk" => size("Bytes of the workspace, or with K, M, G, T (powers of 1024): 1G."),
        "io_weight" => {
            let what = "Share of the disks' time beside other agents; 100 is the kernel's default.";
            number(what, Some(IO_WEIGHT_MAX), patterns::COUNT)
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_field_and_capability_has_a_schema() {
        let tables: [(&Fields, SchemaOf); 10] = [
            (&fields::TOP, top),
            (&fields::METADATA, metadata),
            (&fields::BUILD, build::build_field),
            (&fields::STAGE, build::stage),
            (&fields::STEP, build::step),
            (&fields::COPY, build::copy),
            (&fields::STEP_RUN, build::run),
            (&fields::DEPENDENCY, dependency_field),
            (&fields::RUN, run),
            (&fields::LIMITS, limits),
        ];
        for (fields, schema_of) in tables {
            for name in fields.known {
                assert!(schema_of(name).is_some(), "{name}");
            }
            for name in fields.later {
                assert!(schema_of(name).is_none(), "{name}");
            }
        }
        for (name, _) in KNOWN {
            assert!(patterns::capability_value(name).is_some(), "{name}");
        }
        for (name, what) in QUALIFIERS {
            assert!(qualifier(name, what).is_some(), "{name}");
        }
    }
}
