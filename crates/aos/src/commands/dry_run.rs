//! `aos run --dry-run`: what would confine the agent, without making or starting one.
//!
//! For an installed package the supervisor derives the plan. For anything else it is derived here, by the same
//! function, from the package's files in a temporary folder: nothing is installed, and no supervisor is needed.

use anyhow::{Context, Result};
use aos_client::Client;
use aos_core::config::{Limits, Workspace};
use aos_core::id::AgentId;
use aos_core::path::AbsolutePath;
use aos_package::unpack::{Modes, Options};
use aos_sandbox::plan::workspace::Transaction;
use aos_sandbox::plan::{CAUSE_BASE, Limit, Outline, PlanInput, Row, derive, derive_transaction};
use aos_sandbox::rootfs;

use super::run::{self, RunArgs};
use crate::contents;
use crate::failure::HintExt;
use crate::held::{self, Held};
use crate::output::{Output, Tone};
use crate::package::{self, Target};
use crate::screen;
use crate::store::UserStore;
use crate::supervisor;
use crate::table::{Columns, Text};

/// Where the supervisor unpacks packages and keeps workspaces: what the plan of a start would name.
const ROOTS: &str = "/var/lib/aos/rootfs";
const WORKSPACES: &str = "/var/lib/aos-agents";
const CHANGES: &str = "/var/lib/aos-changes";

/// Runs `aos run --dry-run`.
pub(crate) async fn run(args: &RunArgs, out: Output) -> Result<()> {
    let outline = match Target::parse(&args.target)? {
        Target::Folder(folder) => {
            // The build waits for the network by itself, and for its own threads.
            let built = tokio::task::block_in_place(|| run::built(&folder, &args.build, out));
            of_package(&built?, args)?
        }
        Target::Archive(path) => of_package(&Held::of_file(&path)?, args)?,
        Target::Pulled(reference) => of_package(&Held::of_store(&UserStore::open()?, &reference)?, args)?,
        Target::Named(named) => match installed(&named, args).await? {
            Some(outline) => outline,
            None => of_package(&run::held_of_user(&named)?, args)?,
        },
    };
    if args.json {
        return out.json(&outline);
    }
    show(&outline, out)
}

/// The supervisor's plan, when there is a supervisor and the package is installed.
async fn installed(named: &aos_core::id::PackageRef, args: &RunArgs) -> Result<Option<Outline>> {
    let Ok(client) = Client::connect().await else { return Ok(None) };
    let Some(reference) = run::resolve(&client, named).await? else { return Ok(None) };
    let id = id(args, &package::name_of(&reference)?)?;
    let words: Vec<&str> = args.args.iter().map(String::as_str).collect();
    let json = client
        .plan(id.as_str(), &reference, &words, run::options(args))
        .await
        .map_err(supervisor::explain)
        .with_context(|| format!("cannot run {reference} as {id}"))?;
    let outline = serde_json::from_str(&json).context("the supervisor's plan cannot be read")?;
    Ok(Some(outline))
}

fn id(args: &RunArgs, name: &aos_core::id::PackageName) -> Result<AgentId> {
    args.name.clone().map_or_else(|| package::default_id(name), Ok)
}

/// The plan of a package in hand.
fn of_package(held: &Held, args: &RunArgs) -> Result<Outline> {
    let mut agent = held.config.agent.clone();
    let id = id(args, &agent.name)?;
    agent.limits = Limits {
        memory: args.memory.or(agent.limits.memory),
        cpu: args.cpu.or(agent.limits.cpu),
        runtime: args.runtime.or(agent.limits.runtime),
        ..agent.limits
    };
    let scratch = held::scratch()?;
    let options = Options { modes: Modes::Kept };
    contents::unpack(held.repository(), &held.manifest.layers, &held.config, scratch.path(), options)?;
    let entries = rootfs::scan(scratch.path()).context("the package's files make no root")?;
    let rootfs: AbsolutePath = format!("{ROOTS}/sha256-{}", held.descriptor.digest.hex()).parse()?;
    let workspace: AbsolutePath = format!("{WORKSPACES}/{id}").parse()?;
    let input = PlanInput {
        agent: &agent,
        id: &id,
        arguments: &args.args,
        rootfs: &rootfs,
        entries: &entries,
        workspace: &workspace,
    };
    let plan = match agent.run.as_ref().map(|run| run.workspace) {
        Some(Workspace::Transactional) => {
            let changes: AbsolutePath = format!("{CHANGES}/{id}").parse()?;
            let lower = std::slice::from_ref(&workspace);
            derive_transaction(&input, &Transaction { lower, changes: &changes })
        }
        Some(Workspace::Persistent) | None => derive(&input),
    };
    let plan = plan
        .hint("nothing was made or started")
        .with_context(|| format!("{} cannot run as {id}", agent.reference()))?;
    Ok(Outline::of(&plan))
}

fn show(outline: &Outline, out: Output) -> Result<()> {
    let argv: Vec<&str> = outline.argv.iter().map(String::as_str).collect();
    let line = format!("{} would run {} in {}", outline.agent, argv.join(" "), outline.cwd);
    out.line(&screen::one_line(&line))?;
    if !matches!(outline.isolation.as_str(), "" | "native") {
        out.line(&format!("isolation: {}", screen::one_line(&outline.isolation)))?;
    }
    out.line(&format!("namespaces of its own: {}", screen::one_line(&outline.namespaces.join(", "))))?;
    rows("FILE TREE", "WHAT IS THERE", &outline.mounts, out)?;
    rows("LANDLOCK", "ALLOWS", &outline.paths, out)?;
    rows("PROGRAM", "ALLOWS", &outline.programs, out)?;
    rows("PORT", "ALLOWS", &outline.ports, out)?;
    out.line("")?;
    let filter = &outline.seccomp;
    out.line(&screen::one_line(&format!(
        "seccomp: policy {} in {} instructions; {} system calls allowed, {} by their arguments, all others refused",
        filter.policy, filter.instructions, filter.allowed, filter.checked
    )))?;
    out.line(&format!("each process: {}", limits(&outline.rlimits)))?;
    if !outline.disk.is_empty() {
        out.line(&format!("disk: at most {}", limits(&outline.disk)))?;
    }
    let unit = format!("unit aos-agent@{}.service", outline.agent);
    if outline.unit.is_empty() {
        return Ok(out.line(&format!("{unit}: no limits but the template's"))?);
    }
    Ok(out.line(&format!("{unit}: {}", limits(&outline.unit)))?)
}

/// A table of things given, where there are any.
fn rows(what: &str, how: &str, rows: &[Row], out: Output) -> Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    out.line("")?;
    let mut table = Columns::new(out, &[what, how, "BECAUSE OF"]);
    for row in rows {
        let tone = if row.cause == CAUSE_BASE { Tone::Faint } else { Tone::Strong };
        table.row([Text::toned(&row.what, tone), Text::new(&row.how), Text::new(&row.cause)]);
    }
    Ok(table.print()?)
}

fn limits(limits: &[Limit]) -> String {
    let texts: Vec<String> = limits.iter().map(|limit| format!("{} {}", limit.name, limit.value)).collect();
    screen::one_line(&texts.join(", "))
}
