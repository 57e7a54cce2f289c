//! The machine's name: what is valid, and the question.

use super::system::System;
use super::terminal::Questions;
use super::wizard::StepError;

/// The kernel's limit for a host name (`HOST_NAME_MAX`, gethostname(2)).
const MAX_HOSTNAME: usize = 64;
/// The limit for one label (RFC 1035, section 2.3.4).
const MAX_LABEL: usize = 63;

/// A valid static host name, in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hostname(String);

impl Hostname {
    /// Checks a name by the rules of hostname(5).
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let name = text.to_ascii_lowercase();
        if name.is_empty() || name.len() > MAX_HOSTNAME {
            return Err(format!("a host name has 1 to {MAX_HOSTNAME} characters"));
        }
        for label in name.split('.') {
            if label.is_empty() || label.len() > MAX_LABEL {
                return Err(format!("between dots there are 1 to {MAX_LABEL} characters"));
            }
            if !label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
                return Err("a host name has letters, digits, hyphens and dots only".to_owned());
            }
            if label.starts_with('-') || label.ends_with('-') {
                return Err("a label does not start or end with a hyphen".to_owned());
            }
        }
        if name == "localhost" || name.starts_with("localhost.") {
            return Err("`localhost` is every machine's own name".to_owned());
        }
        Ok(Self(name))
    }

    /// The name.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// Asks for the name; `None` when it stays as it is.
pub(crate) fn ask(ask: &mut Questions<'_>, system: &dyn System) -> Result<Option<Hostname>, StepError> {
    let current = system.hostname()?;
    ask.say("The name of this machine in the network: letters, digits and hyphens.")?;
    let shown = Hostname::parse(&current).map_or_else(|_| "aos".to_owned(), |name| name.0);
    let chosen = ask.text("Host name", Some(&shown), Hostname::parse)?;
    Ok((chosen.as_str() != current).then_some(chosen))
}

#[cfg(test)]
mod tests {
    use super::super::fake::{FakeSystem, Script};
    use super::*;

    #[test]
    fn names() {
        for good in ["aos", "a", "lab-7", "node1.example.org", "UPPER"] {
            assert!(Hostname::parse(good).is_ok(), "{good}");
        }
        let long = "a".repeat(65);
        let bad = ["", "-a", "a-", "a..b", "a b", "a_b", "localhost", "é", "a\nb", "../x", &long];
        for bad in bad {
            assert!(Hostname::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_unchanged_name_is_no_change() {
        let system = FakeSystem::default();
        let mut script = Script::new([""]);
        assert_eq!(ask(&mut Questions::new(&mut script), &system).unwrap(), None);
    }

    #[test]
    fn a_new_name_is() {
        let system = FakeSystem::default();
        let mut script = Script::new(["bad name", "Lab7"]);
        let name = ask(&mut Questions::new(&mut script), &system).unwrap().unwrap();
        assert_eq!(name.as_str(), "lab7");
        assert!(script.shown().contains("letters, digits, hyphens and dots only"));
    }
}
