//! `aos learn`: which capabilities an agent needs, from recorded runs.
//!
//! | module | owns |
//! |---|---|
//! | `place` | the unpacked package, the workspace, the agent's user |
//! | `ask` | decisions: a person's, or none |
//! | `show` | runs as they go, and the result |
//! | `source` | the Agentfile before and after, and what no run may write |

mod ask;
mod place;
mod show;
mod source;

use std::collections::BTreeSet;
use std::io::{IsTerminal, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use aos_build::CacheUse;
use aos_build::run::{LAUNCHER, remove_tree};
use aos_core::capability::{Capability, CapabilitySet};
use aos_core::config::Workspace;
use aos_core::quantity::DurationSpec;
use aos_learn::{
    Cancel, Choices, Deny, Goal, Launch, LearnError, Lesson, Sandbox, Setting, Settings, Unattended, edit,
};
use clap::{Args, ValueHint};

use crate::build_progress::Telling;
use crate::builder::{BuildSettings, Builder};
use crate::cli::Format;
use crate::dependencies::LockMode;
use crate::environment;
use crate::failure::{advised, hinted};
use crate::output::Output;
use crate::package;
use crate::store::UserStore;
use place::Place;
use show::{Telling as Tells, View};
use source::Source;

/// Learn which capabilities an agent needs
///
/// Builds the package in a folder and runs the agent in the launcher's sandbox, as you, without the supervisor. What
/// the agent asks for beyond its capabilities is recorded, and refused by the kernel as always. You are asked about
/// each; then it runs again, until it passes. What turns out not to be needed is left out, and the list is printed.
/// Without a terminal and without --yes nothing is granted: it then shows whether the capabilities suffice.
/// The agent does what it is allowed to do, in every run.
#[derive(Debug, Args)]
pub(crate) struct LearnArgs {
    /// A folder with an Agentfile
    #[arg(value_name = "DIR", default_value = ".", value_hint = ValueHint::DirPath)]
    folder: PathBuf,

    /// The Agentfile; the one in the folder if it is not given
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    file: Option<PathBuf>,

    /// Start without the capabilities of the Agentfile
    #[arg(long)]
    from_nothing: bool,

    /// Grant exactly what is asked for, without asking; never to write a file, what looks like a secret, or a whole folder
    #[arg(short, long)]
    yes: bool,

    /// Grant this from the beginning, beside the capabilities of the Agentfile
    #[arg(long, value_name = "CAPABILITY")]
    grant: Vec<Capability>,

    /// Never grant this: a path, a pattern such as /srv/private/**, or a capability
    #[arg(long, value_name = "PATTERN")]
    deny: Vec<Deny>,

    /// Use this folder as the workspace, and keep it; a new one for each run if it is not given
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    workspace: Option<PathBuf>,

    /// Runs that look for what is missing, at most
    #[arg(long, value_name = "NUMBER", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,

    /// When a run is ended
    #[arg(long, value_name = "TIME", default_value = "1m")]
    timeout: DurationSpec,

    /// Do not try to do without each capability afterwards
    #[arg(long)]
    no_minimise: bool,

    /// Count a run as passed only if its standard output is the same as with everything granted
    #[arg(long)]
    same_output: bool,

    /// Write the list into the Agentfile, if the run passes
    #[arg(long, conflicts_with = "output")]
    write: bool,

    /// Write the list into this file
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    output: Option<PathBuf>,

    /// Do not show what the agent writes
    #[arg(short, long)]
    quiet: bool,

    #[command(flatten)]
    build: BuildSettings,

    #[command(flatten)]
    format: Format,

    /// Arguments for the agent
    #[arg(last = true, value_name = "ARGS")]
    args: Vec<String>,
}

/// Runs `aos learn`.
pub(crate) fn run(args: &LearnArgs, out: Output) -> Result<()> {
    let launcher = environment::launcher().unwrap_or_else(|| PathBuf::from(LAUNCHER));
    if !launcher.is_file() {
        let advice = "the package `agentd` brings the program that confines agents; AOS_LAUNCH names another";
        return Err(hinted(format!("{} is missing", launcher.display()), advice));
    }
    if let Some(output) = &args.output {
        package::check_parent(output)?;
    }
    let store = UserStore::open()?;
    let source = if args.write { Some(Source::read(args)?) } else { None };
    let mut built = {
        let telling = if args.quiet { Telling::Nothing } else { Telling::Steps };
        let builder = Builder::new(&store, &args.folder, args.file.as_deref(), &args.build, telling, out)?;
        builder.build(&LockMode::Fit, None, CacheUse::Use)?
    };
    if args.from_nothing {
        built.agent.capabilities = CapabilitySet::new();
    }
    for capability in &args.grant {
        built.agent.capabilities.replace(capability.clone())?;
    }
    if built.agent.run()?.workspace == Workspace::Transactional {
        out.note("the workspace is changed in place in these runs: what is learnt does not depend on it");
    }
    let place = Place::make(&store, &built, args.workspace.as_deref())?;
    let lesson = learn(args, launcher, &place, &built, out);
    let cleared = place.clear();
    let lesson = lesson?;
    if let Err(error) = cleared {
        out.warn(&format!("{error:#}"));
    }
    let written = match source.filter(|_| lesson.passed) {
        Some(source) => wanted(args, &lesson, source.text()).and_then(|wanted| source.write(&wanted, out)),
        None => Ok(None),
    };
    let path = written.as_ref().ok().and_then(Option::as_deref);
    deliver(args, &built.reference.to_string(), &lesson, path, out)?;
    written?;
    judge(&lesson)
}

/// Learns, in place.
fn learn(
    args: &LearnArgs,
    launcher: PathBuf,
    place: &Place,
    built: &aos_build::Built,
    out: Output,
) -> Result<Lesson> {
    let runtime = crate::runtime()?;
    let cancel = Cancel::default();
    runtime.spawn(cancel_on_interrupt(cancel.clone()));
    let timeout = Duration::from_micros(args.timeout.usec());
    let mut tells = Tells::new(out, args.quiet);
    let id = package::default_id(&built.agent.name)?;
    let serves = built.agent.run()?.lifecycle == aos_core::config::Lifecycle::Persistent;
    let sandbox = Sandbox::new(Setting {
        agent: built.agent.clone(),
        id,
        arguments: &args.args,
        rootfs: place.rootfs(),
        workspace: place.workspace(),
        launch: Launch { launcher, account: place.account(), timeout, cancel: cancel.clone() },
        told: &mut tells,
        remove: remove_tree,
    });
    let settings = Settings {
        rounds: args.rounds,
        minimise: !args.no_minimise,
        goal: if args.same_output { Goal::SameOutput } else { Goal::Status },
        serves,
        deny: args.deny.clone(),
        keep: source::kept(args),
    };
    let mut choices: Box<dyn Choices> = if args.yes {
        Box::new(Unattended::Grant)
    } else if std::io::stdin().is_terminal() && std::io::stderr().is_terminal() {
        Box::new(ask::Person::new(out, cancel))
    } else {
        Box::new(Unattended::Record)
    };
    let lesson = sandbox.and_then(|mut sandbox| {
        aos_learn::learn(&built.agent.capabilities, &settings, &mut sandbox, choices.as_mut())
    });
    lesson.map_err(explain).with_context(|| format!("cannot learn what {} needs", built.reference))
}

/// An error with what to do where that is known.
fn explain(error: LearnError) -> anyhow::Error {
    match error {
        LearnError::Plan(_) => advised(error, "--from-nothing starts without the Agentfile's capabilities"),
        LearnError::Confinement(_) => advised(
            error,
            "man aos-learn: a layer of the sandbox is missing, or a capability of the Agentfile fits nothing here",
        ),
        other => other.into(),
    }
}

/// The first Ctrl-C ends the run and cleans up; the second ends the program.
async fn cancel_on_interrupt(cancel: Cancel) {
    if tokio::signal::ctrl_c().await.is_err() {
        return;
    }
    cancel.cancel();
    if tokio::signal::ctrl_c().await.is_ok() {
        // As a shell shows a program that an interrupt ended.
        std::process::exit(130);
    }
}

/// What belongs into this file: all, or what was learnt beside what it has. What it extends has its own.
fn wanted(args: &LearnArgs, lesson: &Lesson, text: &str) -> Result<CapabilitySet> {
    if args.from_nothing {
        return Ok(lesson.capabilities.clone());
    }
    let own = edit::own(text).unwrap_or_default();
    let learned =
        lesson.learned.iter().filter(|learned| learned.is_needed).map(|learned| &learned.capability);
    // A right is in a list once: what is there with qualifiers stays so.
    let more: BTreeSet<&Capability> =
        learned.chain(&args.grant).filter(|learned| own.get(learned.right()).is_none()).collect();
    let all = own.iter().chain(more).cloned();
    Ok(CapabilitySet::try_from_iter(all)?)
}

/// Prints the result, or writes it where it belongs.
fn deliver(
    args: &LearnArgs,
    package: &str,
    lesson: &Lesson,
    written: Option<&Path>,
    out: Output,
) -> Result<()> {
    let list = edit::snippet(&lesson.capabilities);
    if let Some(path) = &args.output {
        package::write_whole(path, |file| Ok(file.write_all(list.as_bytes())?))?;
    }
    let view = View::new(package, lesson, written.or(args.output.as_deref()));
    if args.format.is_json() {
        return out.json(&view);
    }
    view.tell(out);
    if written.is_none() && args.output.is_none() {
        out.bytes(list.as_bytes())?;
    }
    Ok(())
}

/// A list with which the run does not pass is no success.
fn judge(lesson: &Lesson) -> Result<()> {
    if lesson.passed {
        return Ok(());
    }
    let how = show::ending(lesson);
    let advice = if lesson.is_exhausted {
        "more may come with --rounds"
    } else if lesson.learned.is_empty() && !lesson.denied.is_empty() {
        "--yes grants what is asked for but writing, secrets and whole folders; on a terminal you are asked, and --grant gives one"
    } else if !lesson.suggestions.is_empty() {
        "a whole folder is granted by `d` on a terminal, or by --grant"
    } else {
        "what it lacks is above; the agent may also fail for a reason of its own"
    };
    Err(hinted(format!("the agent does not pass with this list: {how}"), advice))
}
