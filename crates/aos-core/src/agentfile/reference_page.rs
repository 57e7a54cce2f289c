//! The Agentfile's reference as a Markdown page, made from the JSON Schema: a section for each mapping
//! with fields, in the order in which they stand in a file, and a table of the fields.

use super::schema;
use super::{AGENTFILE_MAX_BYTES, FILE_NAMES, fields};
use serde_json::Value;
use std::fmt::Write as _;

/// A mapping with fields, and where it stands.
struct Section<'a> {
    path: String,
    schema: &'a Value,
}

/// The page, with a newline at its end.
pub fn reference_markdown() -> String {
    let root = schema::root();
    let names: Vec<String> = FILE_NAMES.iter().map(|(name, _)| format!("`{name}`")).collect();
    let mut page = format!(
        "# Agentfile reference\n\n\
         <!-- Made from the schema by `aos gen-reference`: do not edit. -->\n\n\
         Every field of an Agentfile ({}; at most {} KiB). [agentfile.md](agentfile.md) explains them with examples; \
         [agentfile.schema.json](agentfile.schema.json) is the JSON Schema that this page is made from. \
         A field that is not here is an error.\n",
        names.join(", "),
        AGENTFILE_MAX_BYTES / 1024,
    );
    let mut sections = Vec::new();
    collect("", &root, &mut sections);
    for section in &sections {
        write_section(&mut page, section);
    }
    page
}

fn str_of<'a>(schema: &'a Value, keyword: &str) -> Option<&'a str> {
    schema.get(keyword).and_then(Value::as_str)
}

/// The alternatives of a schema; itself when it has none.
fn forms(schema: &Value) -> Vec<&Value> {
    match schema.get("anyOf").and_then(Value::as_array) {
        Some(forms) if !forms.is_empty() => forms.iter().collect(),
        _ => vec![schema],
    }
}

/// The fields of a mapping in the order of the decoder's tables, which is that of a file.
fn properties(schema: &Value) -> Vec<(&str, &Value)> {
    let Some(map) = schema.get("properties").and_then(Value::as_object) else {
        return Vec::new();
    };
    let mut found: Vec<(&str, &Value)> = map.iter().map(|(name, schema)| (name.as_str(), schema)).collect();
    fields::sort(&mut found);
    found
}

/// All mappings with fields, from the top down.
fn collect<'a>(path: &str, schema: &'a Value, sections: &mut Vec<Section<'a>>) {
    for form in forms(schema) {
        let known = properties(form);
        if !known.is_empty() {
            sections.push(Section { path: path.to_owned(), schema: form });
        }
        for (name, below) in known {
            let path = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
            collect(&path, below, sections);
        }
        if let Some(items) = form.get("items") {
            collect(&format!("{path}[]"), items, sections);
        }
    }
}

fn write_section(page: &mut String, section: &Section<'_>) {
    let title = match (section.path.as_str(), only_required(section.schema)) {
        ("", _) => "The file".to_owned(),
        (path, Some(name)) if path.ends_with("[]") => format!("`{path}`: {name}"),
        (path, _) => format!("`{path}`"),
    };
    let mut text = format!("\n## {title}\n\n");
    if let Some(what) = str_of(section.schema, "description") {
        text.push_str(what);
        text.push_str("\n\n");
    }
    text.push_str("| field | value | what |\n|---|---|---|\n");
    let required: Vec<&str> = section
        .schema
        .get("required")
        .and_then(Value::as_array)
        .map(|names| names.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default();
    for (name, schema) in properties(section.schema) {
        let must = if required.contains(&name) { " (required)" } else { "" };
        let what = cell(&what(schema));
        // Writing to a String does not fail.
        if writeln!(text, "| `{name}`{must} | {} | {what} |", cell(&value(schema))).is_err() {
            return;
        }
    }
    page.push_str(&text);
}

/// The name that tells one form of several: its first required field.
fn only_required(schema: &Value) -> Option<&str> {
    let names = schema.get("required")?.as_array()?;
    let told = str_of(schema, "description").is_none();
    names.first().and_then(Value::as_str).filter(|_| told)
}

/// Text that stays in its cell.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

/// The description, the default, and the descriptions of the forms of a list's texts.
fn what(schema: &Value) -> String {
    let mut text = str_of(schema, "description").unwrap_or_default().to_owned();
    if let Some(default) = str_of(schema, "default") {
        text.push_str(&format!(" Default: `{default}`."));
    }
    let items: Vec<&Value> = schema.get("items").map(forms).unwrap_or_default();
    let lines = items.iter().filter(|form| str_of(form, "type") == Some("string")).flat_map(|form| {
        forms(form)
            .into_iter()
            .filter(|line| line.get("type").is_none())
            .filter_map(|line| str_of(line, "description"))
    });
    let lines: Vec<&str> = lines.collect();
    if !lines.is_empty() {
        text.push_str(&format!(" Forms: {}.", lines.join("; ")));
    }
    text
}

/// What may be written, in words.
fn value(schema: &Value) -> String {
    let mut words: Vec<String> = Vec::new();
    for form in forms(schema) {
        let word = one_value(form);
        if !words.contains(&word) {
            words.push(word);
        }
    }
    words.join(" or ")
}

fn one_value(schema: &Value) -> String {
    if let Some(text) = str_of(schema, "const") {
        return format!("`{text}`");
    }
    if let Some(words) = schema.get("enum").and_then(Value::as_array) {
        let words: Vec<String> =
            words.iter().filter_map(Value::as_str).map(|word| format!("`{word}`")).collect();
        return words.join(", ");
    }
    let number = |keyword: &str| schema.get(keyword).and_then(Value::as_u64);
    match str_of(schema, "type") {
        Some("integer") => match number("maximum") {
            Some(max) => format!("a number, 1 to {max}"),
            None => "a number".to_owned(),
        },
        Some("array") => {
            let items = schema.get("items").map(value).unwrap_or_default();
            let most = number("maxItems").map(|max| format!(", at most {max}")).unwrap_or_default();
            format!("a list{most}: {items}")
        }
        Some("object") if schema.get("properties").is_some() => "a mapping".to_owned(),
        Some("object") => {
            let most = number("maxProperties").map(|max| format!(", at most {max}")).unwrap_or_default();
            format!("names with text{most}")
        }
        _ => match number("maxLength") {
            Some(max) => format!("text, at most {max} characters"),
            None => "text".to_owned(),
        },
    }
}
