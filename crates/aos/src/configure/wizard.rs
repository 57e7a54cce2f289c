//! The wizard: which sections it asks, the review at the end, and what comes next.
//!
//! Answers are collected first and applied together after the review, so that leaving in the middle changes
//! nothing. A section whose facts cannot be read (no time zone service, say) is skipped with its reason.

use clap::ValueEnum;

use super::changes::{Applied, Changes};
use super::network::NetworkState;
use super::system::System;
use super::terminal::{AskError, Questions};
use super::{access, hostname, network, provider, timezone};

/// How long a first boot waits for an address before it asks for a static one.
const NETWORK_WAIT_SECONDS: u64 = 15;

/// A part of the wizard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Section {
    /// The machine's name
    Hostname,
    /// The time zone
    Timezone,
    /// Root's password and SSH keys
    Access,
    /// A static address
    Network,
    /// A model provider and its key
    Provider,
}

impl Section {
    /// All sections in the order of the wizard.
    pub(crate) const ALL: [Self; 5] =
        [Self::Hostname, Self::Timezone, Self::Access, Self::Network, Self::Provider];

    fn title(self) -> &'static str {
        match self {
            Self::Hostname => "Host name",
            Self::Timezone => "Time zone",
            Self::Access => "Administrator",
            Self::Network => "Network",
            Self::Provider => "Model provider",
        }
    }
}

/// Whether the network is asked about when it works already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WhenConnected {
    /// It works: do not ask.
    Skip,
    /// The operator named the section: ask.
    Ask,
}

/// Why a step of the wizard gave no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StepError {
    /// The person left, or the terminal failed.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// The machine did not say what the step needs to know.
    #[error(transparent)]
    System(#[from] anyhow::Error),
}

/// Asks the sections and returns what is to change, reviewed by the person.
pub(crate) fn run(
    ask: &mut Questions<'_>,
    system: &dyn System,
    sections: &[Section],
    when_connected: WhenConnected,
) -> Result<Changes, AskError> {
    ask.say("")?;
    ask.say("AOS setup. Enter takes the answer in brackets, Ctrl-C leaves without a change.")?;
    loop {
        let changes = collect(ask, system, sections, when_connected)?;
        ask.heading("Review")?;
        if changes.is_empty() {
            ask.say("Nothing changes.")?;
            return Ok(changes);
        }
        for line in changes.describe() {
            ask.say(&format!("  {line}"))?;
        }
        if ask.confirm("Apply this", true)? {
            return Ok(changes);
        }
        ask.say("Nothing was changed. From the start:")?;
    }
}

fn collect(
    ask: &mut Questions<'_>,
    system: &dyn System,
    sections: &[Section],
    when_connected: WhenConnected,
) -> Result<Changes, AskError> {
    let mut changes = Changes::default();
    for section in sections {
        ask.heading(section.title())?;
        match one(ask, system, *section, when_connected, &mut changes) {
            Ok(()) => {}
            Err(StepError::Ask(error)) => return Err(error),
            Err(StepError::System(error)) => ask.say(&format!("Skipped: {error:#}."))?,
        }
    }
    Ok(changes)
}

fn one(
    ask: &mut Questions<'_>,
    system: &dyn System,
    section: Section,
    when_connected: WhenConnected,
    changes: &mut Changes,
) -> Result<(), StepError> {
    match section {
        Section::Hostname => changes.hostname = hostname::ask(ask, system)?,
        Section::Timezone => changes.time_zone = timezone::ask(ask, system)?,
        Section::Access => changes.access = access::ask(ask, system)?.unwrap_or_default(),
        Section::Network => changes.network = ask_network(ask, system, when_connected)?,
        Section::Provider => changes.provider = provider::ask(ask, system)?,
    }
    Ok(())
}

fn ask_network(
    ask: &mut Questions<'_>,
    system: &dyn System,
    when_connected: WhenConnected,
) -> Result<Option<network::StaticNetwork>, StepError> {
    let mut state = system.network()?;
    if !state.is_settled() && state.may_settle() {
        ask.say(&format!("Waiting for an address, up to {NETWORK_WAIT_SECONDS} s ..."))?;
        state = system.network_settled(NETWORK_WAIT_SECONDS)?;
    }
    if when_connected == WhenConnected::Skip && state.is_settled() {
        ask.say(&connected(&state, system))?;
        return Ok(None);
    }
    network::ask(ask, &state)
}

fn connected(state: &NetworkState, system: &dyn System) -> String {
    let addresses: Vec<String> = system.addresses().iter().map(ToString::to_string).collect();
    match state {
        NetworkState::ManagedElsewhere => "Managed by another program: left as it is.".to_owned(),
        NetworkState::Networkd(_) if addresses.is_empty() => "Connected.".to_owned(),
        NetworkState::Networkd(_) => format!("Connected: {}.", addresses.join(", ")),
    }
}

/// Tells what was done and what comes next.
pub(crate) fn conclude(
    ask: &mut Questions<'_>,
    system: &dyn System,
    applied: &[Applied],
) -> Result<(), AskError> {
    ask.heading("Done")?;
    for step in applied {
        ask.say(&format!("  {}", step.line()))?;
    }
    let access = system.root_access().unwrap_or_default();
    let addresses = system.addresses();
    ask.say("")?;
    let mut steps: Vec<(String, &str)> = Vec::new();
    match addresses.first() {
        Some(address) => {
            ask.say(&format!("This machine is at {address}. What you can do next:"))?;
            if access.keys > 0 {
                steps.push((format!("ssh root@{address}"), "log in from elsewhere"));
            }
        }
        None => {
            ask.say("This machine has no network address. What you can do next:")?;
            steps.push(("aos configure --section network".to_owned(), "give it one"));
        }
    }
    steps.push((format!("aos run {}", system.example()), "run an agent"));
    steps.push(("aos list".to_owned(), "show the agents"));
    steps.push(("aos configure".to_owned(), "this setup, at any time"));
    for (command, what) in steps {
        ask.say(&format!("  {command}"))?;
        ask.say(&format!("      {what}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::access::RootAccess;
    use super::super::changes;
    use super::super::fake::{FakeSystem, Script};
    use super::super::network::Link;
    use super::*;

    fn whole(system: &FakeSystem, script: &mut Script) -> Result<Changes, AskError> {
        run(&mut Questions::new(script), system, &Section::ALL, WhenConnected::Skip)
    }

    #[test]
    fn a_first_boot_from_start_to_end() {
        let mut system = FakeSystem::default();
        let answers = ["lab", "berlin", "1", "correct horse", "correct horse", "1", "sk-ant-secret", "yes"];
        let mut script = Script::new(answers);
        let changes = whole(&system, &mut script).unwrap();
        assert_eq!(script.left_over(), 0);
        let applied = changes::apply(&changes, &mut system);
        conclude(&mut Questions::new(&mut script), &system, &applied).unwrap();
        insta::assert_snapshot!(script.shown());
        assert!(script.shown().lines().all(|line| line.len() < 80));
        let wanted =
            ["hostname lab", "timezone Europe/Berlin", "password plain", "provider anthropic with key"];
        assert_eq!(system.changes, wanted);
    }

    #[test]
    fn keeping_everything_changes_nothing() {
        let access = RootAccess { password: true, keys: 1 };
        let system = FakeSystem { access, ..FakeSystem::default() };
        let mut script = Script::new(["", "", "", ""]);
        let changes = whole(&system, &mut script).unwrap();
        assert!(changes.is_empty());
        assert!(script.shown().contains("Nothing changes."));
    }

    #[test]
    fn leaving_anywhere_changes_nothing() {
        let answers = ["lab", "berlin", "1", "correct horse", "correct horse", "1", "sk-ant-secret"];
        for count in 0..=answers.len() {
            let system = FakeSystem::default();
            let mut script = Script::new(answers.iter().take(count).copied());
            assert!(matches!(whole(&system, &mut script), Err(AskError::Left)), "after {count} answers");
            assert!(system.changes.is_empty());
        }
    }

    #[test]
    fn a_refused_review_starts_again() {
        let system = FakeSystem::default();
        let once = ["lab", "", "4", "7"];
        let mut script = Script::new(once.into_iter().chain(["no"]).chain(["den", "", "4", "7", "yes"]));
        let changes = whole(&system, &mut script).unwrap();
        assert_eq!(changes.hostname.unwrap().as_str(), "den");
    }

    #[test]
    fn a_lease_means_no_question() {
        let mut system = FakeSystem::default();
        let link = Link {
            name: "enp1s0".into(),
            index: 2,
            carrier: true,
            addresses: vec!["192.0.2.9".parse().unwrap()],
            automatic: true,
        };
        system.network = NetworkState::Networkd(vec![link]);
        let sections = [Section::Network];
        let mut script = Script::new([]);
        let run_with = |script: &mut Script, when| run(&mut Questions::new(script), &system, &sections, when);
        assert!(run_with(&mut script, WhenConnected::Skip).unwrap().is_empty());
        assert!(script.shown().contains("Connected: 192.0.2.9."));
        let mut script = Script::new([""]);
        assert!(run_with(&mut script, WhenConnected::Ask).unwrap().is_empty());
        assert!(script.shown().contains("Give the machine a fixed address [no]"));
    }
}
