//! The first boot: credentials first, and the wizard on a console when they do not suffice.
//!
//! Ends well in three ways: everything came by credentials; the wizard ran to its end; or somebody left the
//! wizard, in which case there is no stamp and the next boot asks again. Only the first two write the stamp.

use anyhow::{Result, bail};

use super::changes::{self, Applied};
use super::consoles;
use super::credentials::{self, Answers, Origin, Wizard};
use super::host::Host;
use super::stick::Stick;
use super::system::System;
use super::terminal::{AskError, Questions};
use super::wizard::{self, Section, WhenConnected};
use crate::environment;
use crate::output::Output;

/// Runs as the unit `aos-configure.service`.
pub(crate) fn run(out: Output) -> Result<()> {
    let mut host = Host::new()?;
    let answers = gather(&host, out);
    for problem in &answers.problems {
        out.warn(problem);
    }
    let applied = changes::apply(&answers.changes, &mut host);
    for step in &applied {
        out.note(&step.line());
    }
    let access = host.root_access()?;
    if asks(answers.wizard, access.any()) {
        return on_console(&mut host, &answers.problems, out);
    }
    if applied.iter().any(Applied::failed) || !answers.problems.is_empty() {
        bail!("not all credentials could be applied; the next boot tries again");
    }
    out.note("set up by credentials: nothing to ask");
    host.finish()
}

/// Whether a person is asked.
fn asks(wizard: Wizard, somebody_can_log_in: bool) -> bool {
    match wizard {
        Wizard::Always => true,
        Wizard::Never => false,
        Wizard::WhenNeeded => !somebody_can_log_in,
    }
}

fn gather(host: &Host, out: Output) -> Answers {
    let mut origins: Vec<Origin> =
        environment::credentials_directory().map(Origin::Unit).into_iter().collect();
    let mut problems = Vec::new();
    let stick = Stick::mount(host, out).unwrap_or_else(|error| {
        problems.push(format!("{error:#}"));
        None
    });
    origins.extend(stick.iter().map(|stick| Origin::Stick(stick.credentials())));
    let zones = host.time_zones().unwrap_or_else(|error| {
        out.warn(&format!("no time zone can be checked: {error:#}"));
        Vec::new()
    });
    let mut answers = credentials::read(&origins, &zones);
    problems.append(&mut answers.problems);
    Answers { problems, ..answers }
}

fn on_console(host: &mut Host, problems: &[String], out: Output) -> Result<()> {
    let quiet = QuietConsole::begin(host, out);
    let outcome = converse(host, problems, out);
    quiet.end(host, out);
    outcome
}

fn converse(host: &mut Host, problems: &[String], out: Output) -> Result<()> {
    let mut terminal = consoles::claim()?;
    let mut ask = Questions::new(&mut terminal);
    for problem in problems {
        ask.say(problem)?;
    }
    let changes = match wizard::run(&mut ask, host, &Section::ALL, WhenConnected::Skip) {
        Ok(changes) => changes,
        Err(AskError::Left) => {
            out.note("the setup was left; the next boot asks again");
            ask.say("\nNothing was changed. The next boot asks again, or run: aos configure")?;
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    let applied = changes::apply(&changes, host);
    for step in &applied {
        out.note(&step.line());
    }
    wizard::conclude(&mut ask, host, &applied)?;
    if applied.iter().any(Applied::failed) {
        bail!("not all changes could be made; the next boot asks again");
    }
    host.finish()
}

/// While the wizard talks, systemd's and the kernel's messages stay away from the console.
struct QuietConsole {
    printk: Option<String>,
}

const PRINTK: &str = "/proc/sys/kernel/printk";

impl QuietConsole {
    fn begin(host: &Host, out: Output) -> Self {
        if let Err(error) = host.show_boot_status("no") {
            out.warn(&format!("boot messages may disturb the setup: {error:#}"));
        }
        let printk = std::fs::read_to_string(PRINTK).ok();
        // Errors and worse still show (console log level 4, proc_sys_kernel(5)).
        let quieted = std::fs::write(PRINTK, "4");
        Self { printk: quieted.ok().and(printk) }
    }

    fn end(self, host: &Host, out: Output) {
        if let Some(level) = self.printk
            && let Err(error) = std::fs::write(PRINTK, level)
        {
            out.warn(&format!("{PRINTK}: {error}"));
        }
        // The empty mode returns to what the boot was started with.
        if let Err(error) = host.show_boot_status("") {
            out.warn(&format!("boot messages stay off: {error:#}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_asked() {
        assert!(asks(Wizard::WhenNeeded, false));
        assert!(!asks(Wizard::WhenNeeded, true));
        assert!(asks(Wizard::Always, true));
        assert!(!asks(Wizard::Never, false));
    }
}
