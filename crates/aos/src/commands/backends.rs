//! `aos backends`: which isolation backends work on this machine, and why the others do not.

use std::path::PathBuf;

use anyhow::Result;
use aos_isolation::backend::Backend;
use aos_isolation::probe::{WhyNot, Works, probe};
use aos_isolation::programs::Programs;
use clap::Args;
use serde::Serialize;

use crate::cli::Format;
use crate::output::{Output, Tone};
use crate::table::{Columns, Text};

/// Show which isolation backends work here
///
/// An agent chooses its backend with `run.isolation`. Each is tried: a program is run in it, as your user or, for root,
/// as one of its own, and the machine's answer is shown. One that is asked for and does not work is an error when the
/// agent starts; nothing else is taken instead.
#[derive(Debug, Args)]
pub(crate) struct BackendsArgs {
    /// Look for programs here first
    #[arg(long, value_name = "DIRECTORY", hide = true)]
    programs: Vec<PathBuf>,

    #[command(flatten)]
    format: Format,
}

/// What is found of one backend.
#[derive(Debug, Serialize)]
struct Found {
    name: &'static str,
    works: bool,
    version: Option<String>,
    /// Of a virtual machine: its kernel, and whether KVM or emulation executes it.
    detail: Option<String>,
    why_not: Option<String>,
    /// Whose kernel serves the agent: `shared`, `sentry` (gVisor's), `own`.
    kernel: aos_isolation::backend::Kernel,
    isolates: &'static str,
    /// What it enforces otherwise than `native`.
    differs: &'static [&'static str],
    package: &'static str,
}

impl Found {
    fn new(backend: Backend, outcome: Result<Works, WhyNot>) -> Self {
        let (version, detail, why_not) = match outcome {
            Ok(Works { version, detail }) => (Some(version), Some(detail), None),
            Err(why) => (None, None, Some(format!("{:#}", anyhow::Error::from(why)))),
        };
        Self {
            name: backend.name(),
            works: why_not.is_none(),
            version,
            detail: detail.filter(|detail| !detail.is_empty()),
            why_not,
            kernel: backend.kernel(),
            isolates: backend.isolates(),
            differs: backend.differs(),
            package: backend.package(),
        }
    }
}

/// Runs `aos backends`.
pub(crate) fn run(args: &BackendsArgs, out: Output) -> Result<()> {
    let programs = Programs::first_in(args.programs.clone());
    let found: Vec<Found> =
        Backend::ALL.into_iter().map(|backend| Found::new(backend, probe(backend, &programs))).collect();
    if args.format.is_json() {
        return out.json(&found);
    }
    let mut table = Columns::new(out, &["BACKEND", "WORKS", "VERSION", "KERNEL", "ISOLATES BY"]);
    for (one, backend) in found.iter().zip(Backend::ALL) {
        table.row([
            Text::toned(one.name, Tone::Strong),
            if one.works { Text::toned("yes", Tone::Good) } else { Text::toned("no", Tone::Bad) },
            Text::or_dash(one.version.as_deref()),
            Text::new(backend.kernel().name()),
            Text::new(one.isolates),
        ]);
    }
    table.print()?;
    for one in &found {
        if let Some(why) = &one.why_not {
            out.line(&format!("\n{}: {}", one.name, crate::screen::one_line(why)))?;
        }
        if let Some(detail) = &one.detail {
            out.line(&format!("\n{}: {}", one.name, crate::screen::one_line(detail)))?;
        }
        for difference in one.differs.iter().filter(|_| one.works) {
            out.line(&format!("\n{}: unlike native, {difference}", one.name))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backend_that_is_missing_says_what_to_install() {
        let nothing = Programs::in_directories(Vec::new());
        let found = Found::new(Backend::Gvisor, probe(Backend::Gvisor, &nothing));
        assert!(!found.works && found.version.is_none());
        assert!(found.why_not.unwrap().contains("is not installed (Debian package agentd)"));
    }
}
