//! The list in the text of an Agentfile. Only YAML, and only a block list (one capability on a line)
//! or none at all is changed; everything else in the file stays byte for byte. The result is parsed
//! again: a text that does not say what it should is not returned.

use aos_core::agentfile::{Draft, Format};
use aos_core::capability::{Capability, CapabilitySet};
use serde_json::Value;
use thiserror::Error;

/// Why a text is not changed.
#[derive(Debug, Error)]
pub enum EditError {
    /// Another format than YAML.
    #[error("only Agentfiles in YAML are changed in place")]
    Format,
    /// The list is written in another form than one capability on a line.
    #[error("its `capabilities` are not a list with one capability on each line")]
    Form,
    /// The text that came out is not the Agentfile with this list.
    #[error("its `capabilities` cannot be replaced without touching something else")]
    Unsafe,
}

const KEY: &str = "capabilities:";

/// The lines of a list, in YAML, under its key.
pub fn snippet(capabilities: &CapabilitySet) -> String {
    if capabilities.is_empty() {
        return format!("{KEY} []\n");
    }
    let lines: Vec<String> = capabilities.to_lines().iter().map(|line| item("  ", line)).collect();
    format!("{KEY}\n{}", lines.concat())
}

/// One item. The text of a capability has no character that JSON and YAML write differently.
fn item(indent: &str, line: &str) -> String {
    format!("{indent}- \"{}\"\n", line.replace('\\', "\\\\").replace('"', "\\\""))
}

/// The text with this list in the place of its own.
pub fn replace(text: &str, format: Format, wanted: &CapabilitySet) -> Result<String, EditError> {
    if format != Format::Yaml {
        return Err(EditError::Format);
    }
    let changed = splice(text, wanted)?;
    if says(&changed, wanted, text) { Ok(changed) } else { Err(EditError::Unsafe) }
}

fn splice(text: &str, wanted: &CapabilitySet) -> Result<String, EditError> {
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let Some(start) = lines.iter().position(|line| line.starts_with(KEY)) else {
        let gap = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
        return Ok(format!("{text}{gap}{}", snippet(wanted)));
    };
    let key = lines.get(start).copied().unwrap_or_default();
    let rest = key.strip_prefix(KEY).unwrap_or_default().trim();
    let is_block = rest.is_empty() || rest.starts_with('#');
    if !is_block && rest != "[]" && rest != "[ ]" {
        return Err(EditError::Form);
    }
    let mut kept = String::new();
    let mut left: Vec<String> = wanted.to_lines();
    let mut indent = "  ".to_owned();
    let mut end = start + 1;
    for line in lines.iter().skip(start + 1) {
        let body = line.trim();
        let is_item = body.starts_with("- ");
        let is_deeper = line.starts_with(' ') || line.starts_with("- ");
        let belongs = (is_item && is_deeper) || body.is_empty() || body.starts_with('#');
        if !belongs {
            break;
        }
        if !is_item {
            // A comment belongs to the list while items follow.
            end += 1;
            kept.push_str(line);
            continue;
        }
        indent = line.split('-').next().unwrap_or_default().to_owned();
        if let Some(at) = value(body).and_then(|value| left.iter().position(|wanted| *wanted == value)) {
            left.remove(at);
            kept.push_str(line);
            if !line.ends_with('\n') {
                kept.push('\n');
            }
        }
        end += 1;
    }
    // Blank lines and comments at its end belong to what follows.
    let tail = kept.len() - trailing(&kept);
    let (kept, after) = kept.split_at_checked(tail).unwrap_or((&kept, ""));
    let new: String = left.iter().map(|line| item(&indent, line)).collect();
    let comment = if rest.starts_with('#') { format!(" {rest}") } else { String::new() };
    let head = if wanted.is_empty() { format!("{KEY} []{comment}\n") } else { format!("{KEY}{comment}\n") };
    let before: String = lines.iter().take(start).copied().collect();
    let behind: String = lines.iter().skip(end).copied().collect();
    Ok(format!("{before}{head}{kept}{new}{after}{behind}"))
}

/// Bytes of the blank lines and comments at the end.
fn trailing(text: &str) -> usize {
    let is_remark = |line: &&str| line.trim().is_empty() || line.trim().starts_with('#');
    text.split_inclusive('\n').rev().take_while(is_remark).map(str::len).sum()
}

/// The capability of an item, canonical; `None` for what is not one.
fn value(body: &str) -> Option<String> {
    let text = body.strip_prefix("- ")?;
    // A remark behind the item.
    let text = text.split(" #").next().unwrap_or(text).trim().trim_matches(['"', '\'']);
    text.parse::<Capability>().ok().map(|capability| capability.to_string())
}

/// Whether a text is an Agentfile with exactly this list, and otherwise the same as another.
fn says(text: &str, wanted: &CapabilitySet, original: &str) -> bool {
    let is_agentfile = |text: &str| Draft::parse(text, Format::Yaml, "Agentfile").is_ok();
    if !is_agentfile(text) || !is_agentfile(original) {
        return false;
    }
    match (apart(text), apart(original)) {
        (Some((list, rest)), Some((_, other))) => rest == other && list == *wanted,
        _ => false,
    }
}

/// The list that this text has by itself, whatever it extends.
pub fn own(text: &str) -> Option<CapabilitySet> {
    apart(text).map(|(list, _)| list)
}

/// The list, and all the rest.
fn apart(text: &str) -> Option<(CapabilitySet, Value)> {
    let mut value: Value = serde_saphyr::from_str(text).ok()?;
    let list = match value.as_object_mut()?.remove("capabilities") {
        None | Some(Value::Null) => Vec::new(),
        Some(list) => serde_json::from_value::<Vec<String>>(list).ok()?,
    };
    Some((CapabilitySet::parse(list.iter().map(String::as_str)).ok()?, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "apiVersion: aos/v1\nkind: Agent\nmetadata: { name: web, version: 1.0.0 }\nrun: { entrypoint: [ /app/x ] }\n";

    fn set(lines: &[&str]) -> CapabilitySet {
        CapabilitySet::parse(lines.iter().copied()).unwrap()
    }

    fn replaced(tail: &str, lines: &[&str]) -> String {
        let text = replace(&format!("{HEAD}{tail}"), Format::Yaml, &set(lines)).unwrap();
        text.strip_prefix(HEAD).unwrap().to_owned()
    }

    #[test]
    fn a_list_is_added_or_changed_and_nothing_else() {
        for (tail, lines, expected) in [
            ("", &["exec: /a"][..], "capabilities:\n  - \"exec: /a\"\n"),
            (
                "limits: { tasks: 4 }",
                &["exec: /a"],
                "limits: { tasks: 4 }\ncapabilities:\n  - \"exec: /a\"\n",
            ),
            ("capabilities: []\n# end\n", &["exec: /a"], "capabilities:\n  - \"exec: /a\"\n# end\n"),
            (
                "capabilities:   # what it may\n  - \"exec: /b\"\n",
                &["exec: /a"],
                "capabilities: # what it may\n  - \"exec: /a\"\n",
            ),
            (
                "capabilities:\n# why\n- \"exec: /a\"   # git\n- 'file_read: /b/**'\n\nlimits: { tasks: 4 }\n",
                &["exec: /a", "listen: 80", "file_read: /b/**"],
                "capabilities:\n# why\n- \"exec: /a\"   # git\n- 'file_read: /b/**'\n- \"listen: 80\"\n\nlimits: { tasks: 4 }\n",
            ),
            (
                "capabilities:\n    - \"exec: /a\"\n    - \"exec: /b\"",
                &["exec: /b", "exec: /c"],
                "capabilities:\n    - \"exec: /b\"\n    - \"exec: /c\"\n",
            ),
            ("capabilities:\n  - \"exec: /a\"\n", &[], "capabilities: []\n"),
        ] {
            assert_eq!(replaced(tail, lines), expected, "{tail:?}");
        }
    }

    #[test]
    fn what_is_not_plain_is_left_alone() {
        let refused =
            |text: &str, format| replace(text, format, &set(&["exec: /a"])).unwrap_err().to_string();
        assert!(refused("{}", Format::Json).contains("only Agentfiles in YAML"));
        assert!(refused("", Format::Toml).contains("only Agentfiles in YAML"));
        for tail in ["capabilities: [ \"exec: /b\" ]\n", "capabilities: &x\n  - \"exec: /b\"\n"] {
            assert!(
                refused(&format!("{HEAD}{tail}"), Format::Yaml).contains("one capability on each line"),
                "{tail}"
            );
        }
        for text in [
            "".to_owned(),
            format!("{HEAD}...\n"),
            format!("{HEAD}description: |\ncapabilities:\n"),
            format!("{HEAD}capabilities:\n  - \"exec: /b\"\ncapabilities:\n"),
            format!("{HEAD}\"capabilities\": []\n"),
        ] {
            assert!(refused(&text, Format::Yaml).contains("without touching something else"), "{text}");
        }
    }

    #[test]
    fn a_snippet_is_yaml() {
        for lines in [&[][..], &["exec: /a", "file_read: /srv/x y/**", "net: a.example:443"]] {
            assert_eq!(own(&snippet(&set(lines))), Some(set(lines)));
        }
        assert_eq!(own("x: 1"), Some(set(&[])));
        assert_eq!(own("- a"), None);
    }
}
