//! The Agentfile's JSON Schema, for editors and for other programs that write Agentfiles.
//!
//! It is made from the decoder's own tables of fields, the tables of capabilities and the bounds,
//! and so has no field that the decoder does not know. It is a necessary condition: what the schema
//! refuses the decoder refuses in JSON and TOML; lengths in bytes, two stages of one name and files
//! that do not exist are found by the decoder and the build alone. In YAML the decoder also takes a
//! plain number where the schema wants text.

mod patterns;

use super::fields::{self, Fields};
use super::{API_VERSION, Base, FILE_NAMES, KIND, STAGE_NAME_MAX, STAGES_MAX, STEPS_MAX};
use crate::capability::{CAPABILITIES_MAX, KNOWN};
use crate::config::{ARGUMENTS_MAX, ENV_MAX, LABELS_MAX, Lifecycle};
use crate::id::{PACKAGE_NAME_MAX, VERSION_MAX};
use crate::path::PATH_MAX_BYTES;
use crate::quantity::{OPEN_FILES_MAX, TASKS_MAX};
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
    let mut root = section(&fields::TOP, &["apiVersion", "kind", "metadata", "run"], top);
    let names: Vec<&str> = FILE_NAMES.iter().map(|(name, _)| *name).collect();
    if let Value::Object(fields) = &mut root {
        fields.insert("$schema".to_owned(), json!("https://json-schema.org/draft/2020-12/schema"));
        fields.insert("$id".to_owned(), json!(SCHEMA_ID));
        fields.insert("title".to_owned(), json!("Agentfile"));
        let what = format!("What an AOS agent is, starts and may do: {}.", names.join(", "));
        fields.insert("description".to_owned(), json!(what));
    }
    format!("{:#}\n", sorted(root))
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
fn section(fields: &Fields, required: &[&str], schema_of: SchemaOf) -> Value {
    let property = |name: &&str| schema_of(name).map(|schema| ((*name).to_owned(), schema));
    let properties: Map<String, Value> = fields.known.iter().filter_map(property).collect();
    let mut schema = json!({ "type": "object", "properties": properties, "additionalProperties": false });
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
        "apiVersion" => json!({ "const": API_VERSION }),
        "kind" => json!({ "const": KIND }),
        "metadata" => section(&fields::METADATA, &["name", "version"], metadata),
        "build" => section(&fields::BUILD, &["stages"], build),
        "run" => section(&fields::RUN, &["entrypoint"], run),
        "capabilities" => {
            let mut schema = list("What the agent may do; nothing else.", 0, CAPABILITIES_MAX, capability());
            schema.as_object_mut()?.insert("uniqueItems".to_owned(), json!(true));
            schema
        }
        "limits" => section(&fields::LIMITS, &[], limits),
        _ => return None,
    })
}

fn metadata(name: &str) -> Option<Value> {
    Some(match name {
        "name" => text("The package's name.", patterns::PACKAGE_NAME, PACKAGE_NAME_MAX),
        "version" => text("The package's version (semver.org).", patterns::VERSION, VERSION_MAX),
        "description" => text("What the package is for.", &patterns::visible(true), DESCRIPTION_MAX),
        "labels" => labels(),
        _ => return None,
    })
}

fn labels() -> Value {
    let value = text("A line of text.", &patterns::visible(false), LABEL_VALUE_MAX);
    table("Labels.", LABELS_MAX, (patterns::LABEL_NAME, LABEL_NAME_MAX), value)
}

fn env() -> Value {
    let value = text("Text; a number is written in quotes.", patterns::ANY, ENV_VALUE_MAX);
    table("Environment variables.", ENV_MAX, (patterns::ENV_NAME, ENV_NAME_MAX), value)
}

fn build(name: &str) -> Option<Value> {
    let stage = || section(&fields::STAGE, &["name", "from"], stage);
    (name == "stages").then(|| list("The last stage makes the package.", 1, STAGES_MAX, stage()))
}

fn stage(name: &str) -> Option<Value> {
    let step = || {
        let mut step = section(&fields::STEP, &[], step);
        if let Value::Object(fields) = &mut step {
            fields.insert("minProperties".to_owned(), json!(1));
            fields.insert("maxProperties".to_owned(), json!(1));
        }
        step
    };
    Some(match name {
        "name" => text("Its name, once in the file.", patterns::STAGE_NAME, STAGE_NAME_MAX),
        "from" => json!({
            "description": "host: sees the host's /usr, read-only; scratch: nothing but itself.",
            "enum": Base::ALL.map(|(word, _)| word),
        }),
        "steps" => list("Its steps, in order.", 0, STEPS_MAX, step()),
        _ => return None,
    })
}

fn step(name: &str) -> Option<Value> {
    Some(match name {
        "copy" => section(&fields::COPY, &["from", "to"], copy),
        "env" => env(),
        "workdir" => workdir(),
        "label" => labels(),
        _ => return None,
    })
}

fn copy(name: &str) -> Option<Value> {
    Some(match name {
        "from" => text("A path in the Agentfile's folder, or `.`.", &patterns::copy_source(), PATH_MAX_BYTES),
        "to" => {
            text("A path in the package; a folder ends in `/`.", &patterns::copy_target(), PATH_MAX_BYTES + 1)
        }
        _ => return None,
    })
}

fn workdir() -> Value {
    text("The working directory, absolute.", &patterns::absolute(), PATH_MAX_BYTES)
}

fn run(name: &str) -> Option<Value> {
    Some(match name {
        "entrypoint" => {
            let argument = text("An argument; a number is written in quotes.", patterns::ANY, ARGUMENT_MAX);
            let program = text("The program; relative to /app.", &patterns::program(), PATH_MAX_BYTES);
            let mut schema = list("The program and its arguments.", 1, ARGUMENTS_MAX, argument);
            schema.as_object_mut()?.insert("prefixItems".to_owned(), json!([program]));
            schema
        }
        "env" => env(),
        "workdir" => workdir(),
        "lifecycle" => json!({
            "description": "oneshot: ends by itself; persistent: is started again when it fails.",
            "enum": Lifecycle::ALL.map(Lifecycle::as_str),
        }),
        _ => return None,
    })
}

/// A capability as one text `name: value`, or as a mapping of one entry.
fn capability() -> Value {
    let valued =
        || KNOWN.iter().filter_map(|&(name, form)| Some((name, form, patterns::capability_value(name)?)));
    let line = |(name, form, value): (&str, &str, String)| json!({ "description": form, "pattern": format!("^{name}: *{value}$") });
    let entry = |(name, form, value): (&str, &str, String)| {
        let text = json!({ "type": "string", "pattern": format!("^{value}$") });
        let schema = match name {
            "listen" => json!({
                "description": form,
                "anyOf": [{ "type": "integer", "minimum": 1, "maximum": u16::MAX }, text],
            }),
            _ => json!({ "description": form, "type": "string", "pattern": format!("^{value}$") }),
        };
        (name.to_owned(), schema)
    };
    json!({ "anyOf": [
        { "type": "string", "anyOf": valued().map(line).collect::<Vec<_>>() },
        {
            "type": "object",
            "properties": valued().map(entry).collect::<Map<_, _>>(),
            "additionalProperties": false, "minProperties": 1, "maxProperties": 1,
        },
    ] })
}

fn limits(name: &str) -> Option<Value> {
    let count = |what: &str, max: Option<u32>, pattern: &str| {
        let mut integer = json!({ "type": "integer", "minimum": 1 });
        if let (Value::Object(fields), Some(max)) = (&mut integer, max) {
            fields.insert("maximum".to_owned(), json!(max));
        }
        json!({ "description": what, "anyOf": [integer, { "type": "string", "pattern": pattern }] })
    };
    Some(match name {
        "memory" => count("Bytes, or with K, M, G, T (powers of 1024): 256M.", None, patterns::SIZE),
        "cpu" => text("Percent of one processor: 50%.", patterns::CPU, 7),
        "tasks" => count("Processes and threads.", Some(TASKS_MAX), patterns::COUNT),
        "runtime" => text("With d, h, m, s: 10m, 1h30m.", patterns::DURATION, 64),
        "open_files" => count("Open files of each process.", Some(OPEN_FILES_MAX), patterns::COUNT),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_field_and_capability_has_a_schema() {
        let tables: [(&Fields, SchemaOf); 8] = [
            (&fields::TOP, top),
            (&fields::METADATA, metadata),
            (&fields::BUILD, build),
            (&fields::STAGE, stage),
            (&fields::STEP, step),
            (&fields::COPY, copy),
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
    }
}
