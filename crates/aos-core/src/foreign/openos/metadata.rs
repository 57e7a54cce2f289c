//! `metadata` and `dependencies`.

use super::super::reader::Field;
use super::super::yaml::Yaml;
use super::super::{FIRST_VERSION, Remarks, name, units};
use crate::config::LABELS_MAX;
use crate::dependency::{DEPENDENCIES_MAX, DependencyKind, Provider, Requirement};
use crate::id::{PackageName, Version, parse_version};
use crate::quoted::Quoted;
use crate::reference::Reference;
use crate::text::{Description, LabelName, LabelValue};

/// The section `metadata` of both forms.
pub(super) fn metadata(remarks: &mut Remarks, root: &Field<'_>) -> Yaml {
    let metadata = root.get("metadata");
    let of = |name: &str| metadata.as_ref().and_then(|metadata| metadata.get(name));
    let name = name(remarks, root, of("name"));
    let version = version(remarks, root, of("version"));
    let description = of("description").and_then(|field| remarks.parse::<Description>(&field));
    let labels = of("labels").and_then(|field| labels(remarks, &field));
    if let Some(annotations) = of("annotations") {
        for (_, field) in annotations.entries() {
            remarks.drop(&field, "there are no annotations here: write a label");
        }
    }
    if let Some(metadata) = &metadata {
        remarks.drop_others(metadata, &["name", "version", "description", "labels", "annotations"]);
    }
    Yaml::map([
        ("name", Some(Yaml::text(name))),
        ("version", Some(Yaml::text(version))),
        ("description", description.map(|text| Yaml::text(text.as_str()))),
        ("labels", labels),
    ])
}

/// A semantic version of what looks like one: `v1.2` is 1.2.0.
fn semantic(text: &str) -> Option<Version> {
    let text = text.trim();
    let text = text.strip_prefix('v').unwrap_or(text);
    let padded = match text.split('.').count() {
        1 => format!("{text}.0.0"),
        2 => format!("{text}.0"),
        _ => text.to_owned(),
    };
    parse_version(&padded).ok()
}

fn version(remarks: &mut Remarks, root: &Field<'_>, field: Option<Field<'_>>) -> String {
    let Some(field) = field else {
        remarks.note(root, format!("has no version, {FIRST_VERSION} is written"));
        return FIRST_VERSION.to_owned();
    };
    let written = field.text().unwrap_or_default();
    let version = semantic(written).map_or_else(|| FIRST_VERSION.to_owned(), |version| version.to_string());
    if version != written {
        remarks.note(&field, format!("{} is not MAJOR.MINOR.PATCH, {version} is written", Quoted(written)));
    }
    version
}

fn labels(remarks: &mut Remarks, field: &Field<'_>) -> Option<Yaml> {
    let mut found = Vec::new();
    if !field.is_map() {
        remarks.drop(field, "expected a mapping of labels");
    }
    for (name, value) in field.entries() {
        if let Err(error) = name.parse::<LabelName>() {
            remarks.drop(&value, error);
        } else if found.len() >= LABELS_MAX {
            remarks.drop(&value, format!("a package has at most {LABELS_MAX} labels"));
        } else if let Some(text) = remarks.parse::<LabelValue>(&value) {
            found.push((name.to_owned(), Yaml::text(text.as_str())));
        }
    }
    Yaml::Map(found).unless_empty()
}

/// The section `dependencies`: a list of each kind.
pub(super) fn dependencies(remarks: &mut Remarks, section: &Field<'_>) -> Option<Yaml> {
    let mut found: Vec<(DependencyKind, String, Yaml)> = Vec::new();
    for (list, kind) in [
        ("agents", DependencyKind::Agent),
        ("services", DependencyKind::Service),
        ("volumes", DependencyKind::Volume),
    ] {
        let items = section.get(list).map(|list| list.items()).unwrap_or_default();
        for item in items {
            let dependency = match kind {
                DependencyKind::Volume => volume(remarks, &item),
                DependencyKind::Service => service(remarks, &item),
                _ => agent(remarks, &item),
            };
            let Some((name, yaml)) = dependency else { continue };
            if found.iter().any(|(other, known, _)| *other == kind && *known == name) {
                remarks.drop(&item, "is there twice");
            } else if found.len() >= DEPENDENCIES_MAX {
                remarks.drop(&item, format!("a package has at most {DEPENDENCIES_MAX} dependencies"));
            } else {
                found.push((kind, name, yaml));
            }
        }
    }
    remarks.drop_others(section, &["agents", "services", "volumes"]);
    Yaml::List(found.into_iter().map(|(_, _, yaml)| yaml).collect()).unless_empty()
}

/// The name of a dependency that is a mapping with `name`, or a text.
fn named(remarks: &mut Remarks, item: &Field<'_>) -> Option<PackageName> {
    match item.get("name") {
        Some(field) => remarks.parse(&field),
        None => remarks.parse(item),
    }
}

fn service(remarks: &mut Remarks, item: &Field<'_>) -> Option<(String, Yaml)> {
    let name = named(remarks, item)?.to_string();
    let version = item.get("version").and_then(|field| requirement(remarks, &field));
    remarks.drop_others(item, &["name", "version"]);
    Some((name.clone(), Yaml::map([("service", Some(Yaml::text(name))), ("version", version)])))
}

fn volume(remarks: &mut Remarks, item: &Field<'_>) -> Option<(String, Yaml)> {
    let name = named(remarks, item)?.to_string();
    let Some(size) = item.get("size") else {
        remarks.drop(item, "a volume has a size");
        return None;
    };
    let Some(bytes) = size.text().and_then(units::size) else {
        remarks.drop(item, "its size is not one, such as 10Gi");
        return None;
    };
    remarks.drop_others(item, &["name", "size"]);
    remarks.note(item, "a start refuses volumes until this system can enforce their size");
    let yaml = Yaml::map([
        ("volume", Some(Yaml::text(name.clone()))),
        ("size", Some(Yaml::text(bytes.to_string()))),
    ]);
    Some((name, yaml))
}

/// An agent: `name` and `version`, or `ref`, from which come those that are missing.
fn agent(remarks: &mut Remarks, item: &Field<'_>) -> Option<(String, Yaml)> {
    let reference_field = item.get("ref");
    let reference = reference_field.as_ref().and_then(|field| remarks.parse::<Reference>(field));
    let name = match (item.get("name"), &reference) {
        (None, Some(reference)) => match reference.path.name().parse::<PackageName>() {
            Ok(name) => name,
            Err(error) => {
                remarks.drop(item, error);
                return None;
            }
        },
        _ => named(remarks, item)?,
    };
    let tagged = reference.as_ref().and_then(|reference| reference.tag.as_ref()?.version());
    let version = match item.get("version") {
        Some(field) => requirement(remarks, &field),
        None => tagged.map(|version| Yaml::text(format!("={version}"))),
    };
    let from = reference.as_ref().and_then(|reference| {
        let provider = reference.registry.as_ref().map(|_| reference.repository());
        provider?.parse::<Provider>().ok().map(|provider| Yaml::text(provider.to_string()))
    });
    if let (Some(field), None) = (&reference_field, &from) {
        remarks.note(field, "names no registry: versions are looked for in the store");
    }
    remarks.drop_others(item, &["name", "version", "ref"]);
    let yaml = Yaml::map([("agent", Some(Yaml::text(name.as_str()))), ("version", version), ("from", from)]);
    Some((name.to_string(), yaml))
}

/// A range of versions; a full version means exactly that one.
fn requirement(remarks: &mut Remarks, field: &Field<'_>) -> Option<Yaml> {
    let text = field.text().unwrap_or_default().trim();
    if text == "latest" {
        return None;
    }
    if let Some(version) = semantic(text) {
        if version.to_string() != text {
            remarks.note(field, format!("{} is taken as ={version}", Quoted(text)));
        }
        return Some(Yaml::text(format!("={version}")));
    }
    remarks.parse::<Requirement>(field).map(|requirement| Yaml::text(requirement.to_string()))
}
