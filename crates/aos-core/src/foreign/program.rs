//! The program of a foreign manifest, as an entrypoint.

use super::Remarks;
use super::reader::Field;
use super::yaml::Yaml;
use crate::agentfile::APP_DIRECTORY;
use crate::config::ARGUMENTS_MAX;
use crate::path::AbsolutePath;
use crate::quoted::Quoted;
use crate::text::Argument;

/// The entrypoint of a manifest that names none: a program that the package must bring.
const PLACEHOLDER: &str = "/app/main";
/// Where a program is that is named without a path.
const USUAL_DIRECTORY: &str = "/usr/bin";

/// The words of some fields, each a list or one text; `why` is said when there are none.
pub(super) fn entrypoint(
    remarks: &mut Remarks,
    root: &Field<'_>,
    fields: &[Option<Field<'_>>],
    why: &str,
) -> Yaml {
    let mut words: Vec<(Argument, Field<'_>)> = Vec::new();
    for field in fields.iter().flatten() {
        let items = if field.is_list() { field.items() } else { vec![field.clone()] };
        for item in items {
            if words.len() >= ARGUMENTS_MAX {
                remarks.drop(&item, format!("a program has at most {ARGUMENTS_MAX} words"));
            } else if let Some(word) = remarks.parse::<Argument>(&item) {
                words.push((word, item));
            }
        }
    }
    let Some(((first, field), rest)) = words.split_first() else {
        remarks.note(root, format!("{why}; {PLACEHOLDER} is written, name the program"));
        return Yaml::texts([PLACEHOLDER]);
    };
    let program = program(remarks, field, first.as_str());
    Yaml::texts(std::iter::once(program.as_str()).chain(rest.iter().map(|(word, _)| word.as_str())))
}

fn program(remarks: &mut Remarks, field: &Field<'_>, written: &str) -> String {
    let below = written.strip_prefix("./").unwrap_or(written);
    let (path, says) = if written.starts_with('/') {
        (written.to_owned(), None)
    } else if below.contains('/') || below.len() != written.len() {
        (format!("{APP_DIRECTORY}/{below}"), Some("taken from the package's directory"))
    } else {
        (format!("{USUAL_DIRECTORY}/{written}"), Some("looked for in the usual place"))
    };
    match path.parse::<AbsolutePath>() {
        Ok(path) if path != AbsolutePath::root() => {
            if let Some(says) = says {
                remarks.note(field, format!("{} is {says}: {path} is written", Quoted(written)));
            }
            path.to_string()
        }
        _ => {
            remarks.drop(field, format!("is not a program; {PLACEHOLDER} is written"));
            PLACEHOLDER.to_owned()
        }
    }
}
