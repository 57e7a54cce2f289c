//! Build arguments: `${NAME}` in the values of `build.stages`, and `$$` for a dollar.
//!
//! What is replaced is a value that has been parsed, and what comes of it is text that is not parsed
//! as YAML, JSON or TOML again: whatever an argument holds, it stays inside the one value. Any other
//! dollar stands for itself, so that `$HOME` and `$(...)` reach the shell.

use super::AGENTFILE_MAX_BYTES;
use super::build::Arguments;
use super::error::{Problem, below};
use super::tree::{Node, Value};
use crate::quoted::Quoted;

/// Bytes of all values together after the replacement: twice the largest file. A short file that
/// names a long argument often is no larger in memory than a long file.
const SUBSTITUTED_MAX: usize = 2 * AGENTFILE_MAX_BYTES;

/// Replaces arguments in values, with one bound for all of them.
pub(super) struct Substitution<'a> {
    args: &'a Arguments,
    bytes: usize,
}

impl<'a> Substitution<'a> {
    pub(super) const fn new(args: &'a Arguments) -> Self {
        Self { args, bytes: 0 }
    }

    /// The node with its values replaced; `path` is its field's path.
    pub(super) fn node(&mut self, node: &Node, path: &str) -> Result<Node, Problem> {
        let value = match &node.value {
            Value::Text(text) | Value::Plain { text, is_text: true, .. } if text.contains('$') => {
                let field =
                    |message: String| Problem::Field { place: node.place, field: path.to_owned(), message };
                let text = self.text(text).map_err(field)?;
                self.bytes = self.bytes.saturating_add(text.len());
                if self.bytes > SUBSTITUTED_MAX {
                    return Err(field(format!(
                        "with its build arguments the build has more than {SUBSTITUTED_MAX} bytes"
                    )));
                }
                Value::Text(text)
            }
            Value::List(items) => {
                let item = |(index, item)| self.node(item, &format!("{path}[{index}]"));
                Value::List(items.iter().enumerate().map(item).collect::<Result<_, _>>()?)
            }
            Value::Map(entries) => {
                let entry = |(key, value): &(super::tree::Key, Node)| {
                    Ok((key.clone(), self.node(value, &below(path, &key.text))?))
                };
                Value::Map(entries.iter().map(entry).collect::<Result<_, Problem>>()?)
            }
            other => other.clone(),
        };
        Ok(Node { place: node.place, value })
    }

    /// A text with its arguments replaced; the error is a message without a place.
    fn text(&self, text: &str) -> Result<String, String> {
        let mut result = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('$') {
            result.push_str(before);
            if let Some(after) = after.strip_prefix('$') {
                result.push('$');
                rest = after;
            } else if let Some(after) = after.strip_prefix('{') {
                let (name, after) = after.split_once('}').ok_or_else(|| {
                    format!("{} has a `${{` that is not closed: write `$${{` for the text", Quoted(text))
                })?;
                result.push_str(self.value(name)?);
                rest = after;
            } else {
                result.push('$');
                rest = after;
            }
            if result.len() > SUBSTITUTED_MAX {
                return Err(format!("with its build arguments it has more than {SUBSTITUTED_MAX} bytes"));
            }
        }
        result.push_str(rest);
        Ok(result)
    }

    fn value(&self, name: &str) -> Result<&'a str, String> {
        let found = self.args.iter().find(|(known, _)| known.as_str() == name);
        found.map(|(_, value)| value.as_str()).ok_or_else(|| {
            let known: Vec<&str> = self.args.keys().map(|name| name.as_str()).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            format!(
                "{} is not a build argument, declared in build.args: {known}; write `$${{` for the text `${{`",
                Quoted(&format!("${{{name}}}"))
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn args(list: &[(&str, &str)]) -> Arguments {
        list.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn names_dollars_and_everything_else() {
        let args = args(&[("A", "1"), ("LONG_NAME", "x y\n${A}")]);
        let substitution = Substitution::new(&args);
        for (text, becomes) in [
            ("", ""),
            ("${A}", "1"),
            ("a${A}b${A}c", "a1b1c"),
            ("${LONG_NAME}", "x y\n${A}"),
            ("$${A}", "${A}"),
            ("$$${A}", "$1"),
            ("$$$$", "$$"),
            ("$", "$"),
            ("$A $(x) $[y", "$A $(x) $[y"),
            ("ä${A}ü", "ä1ü"),
        ] {
            assert_eq!(substitution.text(text).unwrap(), becomes, "{text:?}");
        }
        for (bad, says) in [
            ("${B}", "`${B}` is not a build argument, declared in build.args: A, LONG_NAME"),
            ("${}", "`${}` is not"),
            ("${ A}", "`${ A}` is not"),
            ("${A", "not closed"),
            ("${${A}}", "`${${A}` is not"),
        ] {
            let error = substitution.text(bad).unwrap_err();
            assert!(error.contains(says), "{bad:?}: {error}");
        }
    }

    #[test]
    fn the_result_is_bounded() {
        let args = args(&[("A", &"x".repeat(8000))]);
        let error = Substitution::new(&args).text(&"${A}".repeat(1000)).unwrap_err();
        assert!(error.contains("more than 524288 bytes"), "{error}");
    }

    proptest! {
        #[test]
        fn escaped_text_comes_back(text in "[a${}\n\\PC]{0,24}") {
            let none = Arguments::new();
            prop_assert_eq!(Substitution::new(&none).text(&text.replace('$', "$$")).unwrap(), text);
        }

        #[test]
        fn any_value_arrives_whole(value in "[^\0]{0,24}", before in "[a-z ]{0,4}", after in "[a-z ]{0,4}") {
            let args = args(&[("A", &value)]);
            let text = format!("{before}${{A}}{after}");
            prop_assert_eq!(Substitution::new(&args).text(&text).unwrap(), format!("{before}{value}{after}"));
        }
    }
}
