//! Turns the tree of a document into a [`Draft`], and the tree of a stage into a [`Stage`].

mod build;
mod item;

pub(super) use build::stage;

use super::draft::{Draft, PartialRun};
use super::error::Problem;
use super::fields;
use super::source::Source;
use super::tree::{Node, Value, places};
use super::{API_VERSION, APP_DIRECTORY, Metadata};
use crate::capability::{CAPABILITIES_MAX, Capability, CapabilitySet, KNOWN, QUALIFIERS, QualifierError};
use crate::config::{ARGUMENTS_MAX, ENV_MAX, Entrypoint, LABELS_MAX, Lifecycle, Limits, PackageKind};
use crate::dependency::{DEPENDENCIES_MAX, Dependency, DependencyKind, Requirement};
use crate::id::parse_version;
use crate::path::AbsolutePath;
use crate::quoted::Quoted;
use crate::text::Argument;
use item::{Item, Result, Section, not_enforced};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Decodes a whole document but for its stages.
pub(super) fn draft(root: Node, origin: &str) -> Result<Draft> {
    let top = Item { node: &root, path: String::new() }
        .section("a mapping with apiVersion, kind, ...", &fields::TOP)?;
    api_version(top.required("apiVersion", API_VERSION)?)?;
    let kind = kind(top.required("kind", KINDS)?)?;
    of_kind(&top, kind)?;
    let extends = top.optional("extends").map(|item| item.parse("a path or a package")).transpose()?;
    let build = top.optional("build").map(|item| build::section(item, extends.is_some())).transpose()?;
    Ok(Draft {
        kind,
        metadata: metadata(top.required("metadata", "a mapping with name and version")?)?,
        build,
        run: top.optional("run").map(run).transpose()?,
        dependencies: top.optional("dependencies").map_or_else(|| Ok(Vec::new()), dependencies)?,
        capabilities: top.optional("capabilities").map_or_else(|| Ok(Vec::new()), capabilities)?,
        limits: top.optional("limits").map_or_else(|| Ok(Limits::default()), limits)?,
        extends,
        source: Source { origin: origin.to_owned(), places: places(&root) },
    })
}

/// The kinds, for messages.
const KINDS: &str = "Agent, Skill or McpServer";

fn api_version(item: &Item<'_>) -> Result<()> {
    match item.text(API_VERSION)? {
        API_VERSION => Ok(()),
        other => Err(item.problem(format!("expected {API_VERSION}, found {}", Quoted(other)))),
    }
}

fn kind(item: &Item<'_>) -> Result<PackageKind> {
    let text = item.text(KINDS)?;
    let found = PackageKind::ALL.into_iter().find(|kind| kind.as_str() == text);
    found.ok_or_else(|| {
        item.problem(if fields::LATER_KINDS.contains(&text) {
            format!("kind {} is not supported by this version of AOS, expected {KINDS}", Quoted(text))
        } else {
            format!("expected {KINDS}, found {}", Quoted(text))
        })
    })
}

/// Refuses the sections that a kind has no use for: what nothing enforces must not be there.
fn of_kind(top: &Section<'_>, kind: PackageKind) -> Result<()> {
    let unused = fields::OF_STARTED.iter().find_map(|name| top.optional(name));
    match unused.filter(|_| !kind.is_started()) {
        Some(item) => Err(item.problem(format!("a {kind} is never started, so that it has none: remove it"))),
        None => Ok(()),
    }
}

fn metadata(item: &Item<'_>) -> Result<Metadata> {
    let section = item.section("a mapping with name and version", &fields::METADATA)?;
    let name = section.required("name", "a package name, such as sitewatch")?;
    let version = section.required("version", "a version, such as 1.0.0")?;
    let text = version.text("a version in quotes, such as \"1.0.0\"")?;
    Ok(Metadata {
        name: name.parse("a package name, such as sitewatch")?,
        version: parse_version(text).map_err(|error| version.problem(error))?,
        description: section.optional("description").map(|item| item.parse("text")).transpose()?,
        labels: section
            .optional("labels")
            .map_or_else(|| Ok(BTreeMap::new()), |item| item.table("a mapping of labels", LABELS_MAX))?,
    })
}

fn run(item: &Item<'_>) -> Result<PartialRun> {
    let section = item.section("a mapping with entrypoint", &fields::RUN)?;
    Ok(PartialRun {
        entrypoint: section.optional("entrypoint").map(entrypoint).transpose()?,
        env: section
            .optional("env")
            .map_or_else(|| Ok(BTreeMap::new()), |item| item.table("a mapping of variables", ENV_MAX))?,
        workdir: section.optional("workdir").map(|item| item.parse("an absolute path")).transpose()?,
        lifecycle: section.optional("lifecycle").map(lifecycle).transpose()?,
        workspace: section
            .optional("workspace")
            .map(|item| item.parse("persistent or transactional"))
            .transpose()?,
        isolation: section.optional("isolation").map(|item| item.parse("native, oci, ...")).transpose()?,
    })
}

fn entrypoint(item: &Item<'_>) -> Result<Entrypoint> {
    let words = item.list("a list: the program and its arguments", ARGUMENTS_MAX)?;
    let Some((first, rest)) = words.split_first() else {
        return Err(item.problem("empty, expected the program and its arguments"));
    };
    let text = first.text("the program's path")?;
    let path = if text.is_empty() || text.starts_with('/') {
        Cow::Borrowed(text)
    } else {
        Cow::Owned(format!("{APP_DIRECTORY}/{text}"))
    };
    let program: AbsolutePath = path.parse().map_err(|error| first.problem(error))?;
    if program == AbsolutePath::root() {
        return Err(first.problem("`/` is not a program"));
    }
    let argument = |item: &Item<'_>| item.parse::<Argument>("text (a number is written in quotes)");
    Ok(Entrypoint { program, arguments: rest.iter().map(argument).collect::<Result<_>>()? })
}

fn lifecycle(item: &Item<'_>) -> Result<Lifecycle> {
    if matches!(&item.node.value, Value::Map(entries) if entries.iter().any(|(key, _)| key.text == "schedule"))
    {
        return Err(item.problem(not_enforced("schedule")));
    }
    item.parse("oneshot or persistent")
}

fn dependencies(item: &Item<'_>) -> Result<Vec<Dependency>> {
    let mut found: Vec<Dependency> = Vec::new();
    for item in item.list("a list of dependencies", DEPENDENCIES_MAX)? {
        let dependency = dependency(&item)?;
        if found.iter().any(|other| other.key() == dependency.key()) {
            let message = format!("`{} {}` appears twice", dependency.kind, dependency.name);
            return Err(item.problem(message));
        }
        found.push(dependency);
    }
    Ok(found)
}

fn dependency(item: &Item<'_>) -> Result<Dependency> {
    let what = "a mapping with one of agent, skill, mcp, service, volume";
    let section = item.section(what, &fields::DEPENDENCY)?;
    let kinds = DependencyKind::ALL.into_iter();
    let named: Vec<_> = kinds.filter_map(|kind| Some((kind, section.optional(kind.as_str())?))).collect();
    let [(kind, name)] = named.as_slice() else {
        return Err(item.problem(format!("expected {what}, found {} of them", named.len())));
    };
    for (field, fits) in [
        ("version", *kind != DependencyKind::Volume),
        ("from", kind.is_package()),
        ("size", *kind == DependencyKind::Volume),
    ] {
        if let Some(other) = section.optional(field).filter(|_| !fits) {
            return Err(other.problem(format!("a dependency of kind {kind} has no {field}: remove it")));
        }
    }
    let size = match kind {
        DependencyKind::Volume => {
            Some(section.required("size", "a size, such as 10G")?.parse_quantity("a size, such as 10G")?)
        }
        _ => None,
    };
    let requirement = section.optional("version").map(|item| item.parse("a version range, such as ^1"));
    Ok(Dependency {
        kind: *kind,
        name: name.parse("a name")?,
        requirement: requirement.transpose()?.unwrap_or_else(Requirement::any),
        from: section.optional("from").map(|item| item.parse("a repository")).transpose()?,
        size,
    })
}

/// Capabilities in the order of the file: each is text, or a mapping of one capability, which is how YAML
/// reads the line when it is not in quotes, with its qualifiers beside it.
fn capabilities(item: &Item<'_>) -> Result<Vec<Capability>> {
    let mut set = CapabilitySet::new();
    let mut written = Vec::new();
    for item in item.list("a list of capabilities", CAPABILITIES_MAX)? {
        let capability = match &item.node.value {
            Value::Map(_) => capability_of_mapping(&item)?,
            _ => item.parse("a capability, such as `file_read: /data/**`")?,
        };
        set.insert(capability.clone()).map_err(|error| item.problem(error))?;
        written.push(capability);
    }
    Ok(written)
}

fn capability_of_mapping(item: &Item<'_>) -> Result<Capability> {
    let is_one_of = |table: &[(&str, &str)], name: &str| table.iter().any(|(known, _)| *known == name);
    let entries = item.entries("a capability")?;
    let (beside, named): (Vec<_>, Vec<_>) =
        entries.iter().partition(|(_, name, _)| is_one_of(&QUALIFIERS, name));
    let at =
        |item: &Item<'_>, place, message: String| Problem::Field { place, field: item.path.clone(), message };
    let [(value, name, place)] = named.as_slice() else {
        let unknown = named.iter().find(|(_, name, _)| !is_one_of(&KNOWN, name));
        return Err(match unknown {
            Some((item, name, place)) => {
                at(item, *place, QualifierError::Unknown((*name).to_owned()).to_string())
            }
            None => item.problem("expected one capability, such as `file_read: /data/**`"),
        });
    };
    let text = value.text_or_integer("the capability's value")?;
    let mut capability =
        Capability::from_parts(name, text).map_err(|error| at(item, *place, error.to_string()))?;
    for (value, name, place) in beside {
        let text = value.text_integer_or_date("the qualifier's value")?;
        capability =
            capability.qualified(name, text).map_err(|error| at(value, *place, error.to_string()))?;
    }
    Ok(capability)
}

fn limits(item: &Item<'_>) -> Result<Limits> {
    let section = item.section("a mapping of limits", &fields::LIMITS)?;
    let of = |name| section.optional(name);
    Ok(Limits {
        memory: of("memory").map(|item| item.parse_quantity("a size, such as 256M")).transpose()?,
        cpu: of("cpu").map(|item| item.parse("a share, such as 50%")).transpose()?,
        tasks: of("tasks").map(|item| item.parse_quantity("a number, such as 64")).transpose()?,
        runtime: of("runtime").map(|item| item.parse("a duration, such as 10m")).transpose()?,
        disk: of("disk").map(|item| item.parse_quantity("a size, such as 1G")).transpose()?,
        io_weight: of("io_weight").map(|item| item.parse_quantity("a number, such as 100")).transpose()?,
        open_files: of("open_files").map(|item| item.parse_quantity("a number, such as 1024")).transpose()?,
    })
}
