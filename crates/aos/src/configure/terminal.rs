//! Asking a person one line at a time.
//!
//! The wizard runs on serial consoles with 80 columns and no cursor movement, so a question is a printed line
//! and an answer is a typed line. [`Terminal`] is the seam to the device (and to the tests); [`Questions`] has
//! the kinds of question: a text, a choice, yes or no, a secret. Every question repeats until its answer is
//! valid, and says why the last one was not.

use std::io;

use super::secret::Secret;

/// The columns every console has.
const WIDTH: usize = 78;

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    /// The person left: Ctrl-C, Ctrl-D, or the line was hung up.
    #[error("the setup was left: nothing was changed")]
    Left,
    /// The device failed.
    #[error("the terminal failed")]
    Device(#[from] io::Error),
}

/// A device that shows text and reads lines.
pub(crate) trait Terminal {
    /// Shows text as it is.
    fn write(&mut self, text: &str) -> io::Result<()>;
    /// Reads one line without its end; `None` when the person left.
    fn read_line(&mut self) -> io::Result<Option<String>>;
    /// Shows `prompt` and reads one line without showing it; `None` when the person left. Nothing that is typed
    /// once the prompt is there may show.
    fn read_secret(&mut self, prompt: &str) -> io::Result<Option<Secret>>;
}

/// Questions to a person.
pub(crate) struct Questions<'a> {
    terminal: &'a mut dyn Terminal,
}

impl<'a> Questions<'a> {
    /// Asks on `terminal`.
    pub(crate) fn new(terminal: &'a mut dyn Terminal) -> Self {
        Self { terminal }
    }

    /// Shows text, wrapped to the width of a console.
    pub(crate) fn say(&mut self, text: &str) -> Result<(), AskError> {
        for line in text.lines() {
            for piece in wrap(line) {
                self.terminal.write(&piece)?;
                self.terminal.write("\n")?;
            }
        }
        Ok(())
    }

    /// A heading, with an empty line above it.
    pub(crate) fn heading(&mut self, text: &str) -> Result<(), AskError> {
        self.terminal.write(&format!("\n== {text} ==\n"))?;
        Ok(())
    }

    /// Asks for a text. An empty answer takes `default`; `parse` says in words why an answer is not valid.
    pub(crate) fn text<T>(
        &mut self,
        label: &str,
        default: Option<&str>,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T, AskError> {
        loop {
            let prompt = match default {
                Some(default) => format!("{label} [{default}]: "),
                None => format!("{label}: "),
            };
            let typed = self.line(&prompt)?;
            let answer = if typed.is_empty() { default.unwrap_or_default() } else { typed.as_str() };
            let problem = if answer.is_empty() {
                "an answer is needed here (Ctrl-C leaves the setup)".to_owned()
            } else {
                match parse(answer) {
                    Ok(value) => return Ok(value),
                    Err(problem) => problem,
                }
            };
            self.say(&format!("  Not valid: {problem}."))?;
        }
    }

    /// Offers numbered options and returns the index of the chosen one.
    pub(crate) fn choose(
        &mut self,
        label: &str,
        options: &[&str],
        default: Option<usize>,
    ) -> Result<usize, AskError> {
        for (index, option) in options.iter().enumerate() {
            self.terminal.write(&format!("  {}) {option}\n", index + 1))?;
        }
        let shown = default.map(|index| (index + 1).to_string());
        let count = options.len();
        self.text(label, shown.as_deref(), |answer| match answer.parse::<usize>() {
            Ok(number) if (1..=count).contains(&number) => Ok(number - 1),
            _ => Err(format!("type a number from 1 to {count}")),
        })
    }

    /// Asks yes or no.
    pub(crate) fn confirm(&mut self, label: &str, default: bool) -> Result<bool, AskError> {
        let shown = if default { "yes" } else { "no" };
        self.text(label, Some(shown), |answer| match answer.to_ascii_lowercase().as_str() {
            "y" | "yes" => Ok(true),
            "n" | "no" => Ok(false),
            _ => Err("type yes or no".to_owned()),
        })
    }

    /// Asks for a secret, which is not shown while it is typed.
    pub(crate) fn secret(
        &mut self,
        label: &str,
        check: impl Fn(&Secret) -> Result<(), String>,
    ) -> Result<Secret, AskError> {
        loop {
            let secret =
                self.terminal.read_secret(&format!("{label} (not shown): "))?.ok_or(AskError::Left)?;
            match check(&secret) {
                Ok(()) => return Ok(secret),
                Err(problem) => self.say(&format!("  Not valid: {problem}."))?,
            }
        }
    }

    fn line(&mut self, prompt: &str) -> Result<String, AskError> {
        self.terminal.write(prompt)?;
        let line = self.terminal.read_line()?.ok_or(AskError::Left)?;
        Ok(line.trim().to_owned())
    }
}

/// Breaks a line that is too long for a console at its spaces; indentation is kept on every piece.
fn wrap(line: &str) -> Vec<String> {
    if line.chars().count() <= WIDTH {
        return vec![line.to_owned()];
    }
    let text = line.trim_start();
    let indent = " ".repeat(line.len() - text.len());
    let mut pieces = Vec::new();
    let mut piece = indent.clone();
    for word in text.split_whitespace() {
        let starts = piece.trim().is_empty();
        if !starts && piece.chars().count() + 1 + word.chars().count() > WIDTH {
            pieces.push(std::mem::replace(&mut piece, format!("{indent}{word}")));
        } else {
            if !starts {
                piece.push(' ');
            }
            piece.push_str(word);
        }
    }
    pieces.push(piece);
    pieces
}

#[cfg(test)]
mod tests {
    use super::super::fake::Script;
    use super::*;

    #[test]
    fn an_empty_answer_takes_the_default() {
        let mut script = Script::new(["", ""]);
        let answer = Questions::new(&mut script).text("Host name", Some("aos"), |a| Ok(a.to_owned()));
        assert_eq!(answer.unwrap(), "aos");
        assert_eq!(script.shown(), "Host name [aos]: \n");
    }

    #[test]
    fn a_question_repeats_until_its_answer_is_valid() {
        let mut script = Script::new(["0", "four", "3", "2"]);
        let chosen = Questions::new(&mut script).choose("Which", &["a", "b"], None).unwrap();
        assert_eq!(chosen, 1);
        assert_eq!(script.shown().matches("type a number from 1 to 2").count(), 3);
    }

    #[test]
    fn the_end_of_input_leaves() {
        let mut script = Script::new([]);
        let error = Questions::new(&mut script).confirm("Sure", true).unwrap_err();
        assert!(matches!(error, AskError::Left));
    }

    #[test]
    fn long_text_is_wrapped_with_its_indentation() {
        let pieces = wrap(&format!("  {}", "word ".repeat(40)));
        assert!(pieces.len() > 2);
        assert!(pieces.iter().all(|piece| piece.len() <= WIDTH && piece.starts_with("  word")));
    }
}
