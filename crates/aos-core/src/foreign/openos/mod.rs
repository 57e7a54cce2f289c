//! OpenOS: an Agentfile of either form.
//!
//! The first (`apiVersion: aos.io/v1`, `kind: AgentPackage`) has `metadata, from, config{env, workDir,
//! image}, steps[], stages[], dependencies{agents, services, volumes}, resources{cpu, memory, gpu},
//! entrypoint{command, args}`; the second (`openos.agent/v0alpha1`) has `metadata` and `spec{image,
//! command, args, env, resources{}}`.

mod build;
mod metadata;
mod resources;

use super::reader::Field;
use super::yaml::Yaml;
use super::{Converted, ForeignError, Remarks, finish, format_of, program};
use crate::agentfile::{API_VERSION, read};
use crate::config::{ENV_MAX, PackageKind};
use crate::path::AbsolutePath;
use crate::quoted::Quoted;
use crate::text::{EnvName, EnvValue};

/// The values of `apiVersion`, of the first and the second form.
pub const API_VERSIONS: [&str; 2] = ["aos.io/v1", "openos.agent/v0alpha1"];

/// Fields at the top of the first form.
const PACKAGE: [&str; 10] = [
    "apiVersion",
    "kind",
    "metadata",
    "from",
    "config",
    "steps",
    "stages",
    "dependencies",
    "resources",
    "entrypoint",
];

/// The sections of an Agentfile that both forms fill.
struct Parts {
    metadata: Yaml,
    build: Option<Yaml>,
    entrypoint: Yaml,
    env: Option<Yaml>,
    workdir: Option<Yaml>,
    dependencies: Option<Yaml>,
    limits: Option<Yaml>,
}

/// Converts an Agentfile of OpenOS.
pub fn convert(text: &str, origin: &str) -> Result<Converted, ForeignError> {
    let root = read(text, format_of(origin), origin)?;
    let root = Field::root(&root);
    let version = root.get("apiVersion").and_then(|field| field.text().map(str::to_owned));
    let mut remarks = Remarks::default();
    let form = API_VERSIONS.iter().position(|known| Some(*known) == version.as_deref());
    let parts = match form {
        Some(0) => package(&mut remarks, &root),
        Some(_) => spec(&mut remarks, &root),
        None => {
            let found = Quoted(version.as_deref().unwrap_or_default()).to_string();
            return Err(ForeignError::Other {
                origin: origin.to_owned(),
                what: "an OpenOS Agentfile",
                reason: format!("its apiVersion is {found}, expected {}", API_VERSIONS.join(" or ")),
            });
        }
    };
    let run =
        Yaml::map([("entrypoint", Some(parts.entrypoint)), ("env", parts.env), ("workdir", parts.workdir)]);
    let file = Yaml::map([
        ("apiVersion", Some(Yaml::text(API_VERSION))),
        ("kind", Some(Yaml::text(PackageKind::Agent.as_str()))),
        ("metadata", Some(parts.metadata)),
        ("build", parts.build),
        ("run", Some(run)),
        ("dependencies", parts.dependencies),
        ("limits", parts.limits),
    ]);
    finish(origin, "OpenOS", file, remarks)
}

/// The first form.
fn package(remarks: &mut Remarks, root: &Field<'_>) -> Parts {
    if let Some(kind) = root.get("kind").filter(|kind| kind.text() != Some("AgentPackage")) {
        remarks.note(&kind, "expected AgentPackage; Agent is written");
    }
    let metadata = metadata::metadata(remarks, root);
    let config = root.get("config");
    let of_config = |name: &str| config.as_ref().and_then(|config| config.get(name));
    let env = of_config("env").and_then(|field| env(remarks, &field));
    let workdir = of_config("workDir").and_then(|field| workdir(remarks, &field));
    let (from, image) = (root.get("from"), of_config("image"));
    if let (Some(_), Some(image)) = (&from, &image) {
        remarks.drop(image, "stands beside `from`, which is kept");
    }
    if let Some(config) = &config {
        remarks.drop_others(config, &["env", "workDir", "image"]);
    }
    let build = build::build(remarks, from.or(image), root.get("stages"), root.get("steps"));
    let dependencies = root.get("dependencies").and_then(|field| metadata::dependencies(remarks, &field));
    let limits = root.get("resources").and_then(|field| resources::limits(remarks, &field));
    let of_entrypoint = root.get("entrypoint");
    let words: Vec<_> = match &of_entrypoint {
        Some(field) if field.is_map() => {
            remarks.drop_others(field, &["command", "args"]);
            vec![field.get("command"), field.get("args")]
        }
        other => vec![other.clone()],
    };
    let entrypoint = program::entrypoint(remarks, root, &words, "names no program");
    remarks.drop_others(root, &PACKAGE);
    Parts { metadata, build, entrypoint, env, workdir, dependencies, limits }
}

/// The second form.
fn spec(remarks: &mut Remarks, root: &Field<'_>) -> Parts {
    let metadata = metadata::metadata(remarks, root);
    let spec = root.get("spec");
    let of_spec = |name: &str| spec.as_ref().and_then(|spec| spec.get(name));
    let env = of_spec("env").and_then(|field| env(remarks, &field));
    let build = build::build(remarks, of_spec("image"), None, None);
    let limits = of_spec("resources").and_then(|field| resources::limits(remarks, &field));
    let words = [of_spec("command"), of_spec("args")];
    let entrypoint = program::entrypoint(remarks, root, &words, "names no program");
    match &spec {
        Some(spec) => remarks.drop_others(spec, &["image", "command", "args", "env", "resources"]),
        None => remarks.note(root, "has no spec"),
    }
    remarks.drop_others(root, &["apiVersion", "kind", "metadata", "spec"]);
    Parts { metadata, build, entrypoint, env, workdir: None, dependencies: None, limits }
}

/// Variables: a mapping, a list of `{name, value}`, or a list of `NAME=VALUE`.
fn env(remarks: &mut Remarks, field: &Field<'_>) -> Option<Yaml> {
    let mut found: Vec<(String, Yaml)> = Vec::new();
    let mut add = |remarks: &mut Remarks, name: &str, value: Option<&str>, place: &Field<'_>| {
        let value = value.unwrap_or_default();
        let wrong = match (name.parse::<EnvName>(), value.parse::<EnvValue>()) {
            (Err(error), _) | (_, Err(error)) => Some(error.to_string()),
            _ if found.len() >= ENV_MAX => Some(format!("there are more than {ENV_MAX} variables")),
            _ if found.iter().any(|(known, _)| known == name) => Some("is there twice".to_owned()),
            _ => None,
        };
        match wrong {
            Some(why) => remarks.drop(place, why),
            None => found.push((name.to_owned(), Yaml::text(value))),
        }
    };
    for (name, value) in field.entries() {
        match value.text() {
            None if value.is_map() || value.is_list() => remarks.drop(&value, "expected text"),
            text => add(remarks, name, text, &value),
        }
    }
    for item in field.items() {
        let pair = item.text().and_then(|text| text.split_once('='));
        let named = item.get("name");
        match (pair, named.as_ref().and_then(Field::text)) {
            (Some((name, value)), _) => add(remarks, name, Some(value), &item),
            (None, Some(name)) => {
                remarks.drop_others(&item, &["name", "value"]);
                let value = item.get("value");
                add(remarks, name, value.as_ref().and_then(Field::text), &item);
            }
            (None, None) => remarks.drop(&item, "expected name and value"),
        }
    }
    if !field.is_map() && !field.is_list() {
        remarks.drop(field, "expected a mapping of variables");
    }
    Yaml::Map(found).unless_empty()
}

fn workdir(remarks: &mut Remarks, field: &Field<'_>) -> Option<Yaml> {
    let text = field.text().unwrap_or_default();
    let trimmed = if text.len() > 1 { text.trim_end_matches('/') } else { text };
    match trimmed.parse::<AbsolutePath>() {
        Ok(path) => Some(Yaml::text(path.as_str())),
        Err(error) => {
            remarks.drop(field, error);
            None
        }
    }
}
