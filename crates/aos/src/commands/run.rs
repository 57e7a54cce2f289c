//! `aos run`: build, install, start, follow.

use std::path::Path;

use anyhow::{Context, Result};
use aos_build::CacheUse;
use aos_client::{AgentView, Client, ClientError, ErrorKind, RunOptions};
use aos_core::id::{AgentId, PackageRef, Selector};
use aos_core::quantity::{ByteSize, CpuQuota, DurationSpec};
use aos_core::reference::{Location, Reference};
use aos_package::repository::ResolveError;
use clap::{Args, ValueHint};

use crate::build_progress::Telling;
use crate::builder::{BuildSettings, Builder};
use crate::commands::agents::is_active;
use crate::commands::dry_run;
use crate::commands::grants;
use crate::commands::install::{self, Parcel, Provenance};
use crate::completion;
use crate::dependencies::LockMode;
use crate::failure::hinted;
use crate::follow::{Ending, Watch};
use crate::held::Held;
use crate::output::Output;
use crate::package::{self, Target};
use crate::store::UserStore;
use crate::supervisor;

/// Run an agent and show what it writes
///
/// A folder (written with a `/`, or `.`) is built first; a package file, NAME.aap, is installed first; NAME or
/// NAME:VERSION is an installed package, else one of your store, which is installed first. The agent's output goes to standard output, and `aos run` ends with the
/// agent's exit status. Ctrl-C stops the agent; a second Ctrl-C leaves it to itself.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// A folder with an Agentfile, a package file, or a package that is installed or in your store
    #[arg(value_name = "DIR|FILE.aap|NAME[:VERSION]", value_hint = ValueHint::AnyPath, add = completion::targets())]
    pub(super) target: String,

    /// The agent's id; the package's name if it is not given
    #[arg(long, value_name = "ID")]
    pub(super) name: Option<AgentId>,

    /// Do not wait for the agent: print its id and leave
    #[arg(short, long)]
    detach: bool,

    /// Show what would confine the agent, and start nothing
    ///
    /// Shows the file tree, what Landlock allows, programs, ports, the system call filter and limits, each with its
    /// cause. Nothing is installed, and no agent is made.
    #[arg(long, conflicts_with_all = ["detach", "replace"])]
    pub(super) dry_run: bool,

    /// With --dry-run: print JSON
    #[arg(long, requires = "dry_run")]
    pub(super) json: bool,

    /// Stop the agent of this id first if it runs, whatever its package
    #[arg(long)]
    replace: bool,

    /// Memory limit, such as 256M, in place of the package's
    #[arg(long, value_name = "SIZE")]
    pub(super) memory: Option<ByteSize>,

    /// CPU limit, such as 50%, in place of the package's
    #[arg(long, value_name = "PERCENT")]
    pub(super) cpu: Option<CpuQuota>,

    /// Longest run time, such as 10m, in place of the package's
    #[arg(long, value_name = "TIME")]
    pub(super) runtime: Option<DurationSpec>,

    #[command(flatten)]
    pub(super) build: BuildSettings,

    /// Arguments for the agent
    #[arg(last = true, value_name = "ARGS")]
    pub(super) args: Vec<String>,
}

/// Runs `aos run`; returns its exit status.
pub(crate) async fn run(args: RunArgs, out: Output) -> Result<u8> {
    if args.dry_run {
        dry_run::run(&args, out).await?;
        return Ok(0);
    }
    let target = Target::parse(&args.target)?;
    // What can be told from the command line, the folder and this machine's programs is told before the
    // supervisor is asked for anything. What only the supervisor knows comes after the package is installed.
    let source = Source::prepare(target, &args.build, out)?;
    let client = supervisor::connect().await?;
    let (reference, novelty) = source.reference(&client, out).await?;
    if novelty == Novelty::New {
        grants::show(&client, &reference, out).await?;
    }
    let Started { id, watch, invocation } = match begin(&client, &reference, &args, out).await {
        Ok(started) => started,
        Err(error) => {
            if novelty == Novelty::New {
                take_back(&client, &reference, out).await;
            }
            return Err(error);
        }
    };
    if args.detach {
        out.line(id.as_str())?;
        return Ok(0);
    }
    let ending = watch.follow(invocation, out).await?;
    if let Some(remark) = ending.remark(id.as_str()) {
        out.note(&remark);
    }
    if ending == Ending::Closed {
        // The agent was not told that its reader left: it is a service of its own.
        return Ok(crate::exit::Exit::ReaderGone.code());
    }
    Ok(ending.code())
}

/// An agent that was started.
struct Started {
    id: AgentId,
    watch: Watch,
    invocation: String,
}

/// Finds the id, sees to it that it is free, and starts the agent.
async fn begin(client: &Client, reference: &str, args: &RunArgs, out: Output) -> Result<Started> {
    let id = match &args.name {
        Some(id) => id.clone(),
        None => package::default_id(&package::name_of(reference)?)?,
    };
    make_room(client, &id, reference, args.replace).await?;
    let watch = Watch::prepare(client, &id).await?;
    let invocation = start(client, &id, reference, args, &watch, out).await?;
    Ok(Started { id, watch, invocation })
}

/// Removes a package that was installed for a run that was refused. An agent that exists but did not start
/// keeps its package: `aos start` may work once its cause is mended.
async fn take_back(client: &Client, reference: &str, out: Output) {
    let in_use = |error: &ClientError| match error {
        ClientError::Agentd { kind: ErrorKind::Refused, message } => message.contains("is in use"),
        other => supervisor::is_not_found(other),
    };
    match client.remove_package(reference).await {
        Ok(()) => {}
        Err(error) if in_use(&error) => {}
        Err(error) => out.warn(&format!("the package {reference} stays installed: {error}")),
    }
}

/// Whether this command brought a package into the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Novelty {
    /// Nothing of that reference was there before.
    New,
    /// It was there, perhaps with other contents.
    Known,
}

/// A package on its way to the machine's store, or perhaps in it.
enum Source {
    Parcel(Parcel),
    Named(PackageRef),
}

impl Source {
    fn prepare(target: Target, settings: &BuildSettings, out: Output) -> Result<Self> {
        match target {
            Target::Folder(folder) => {
                // The build waits for the network by itself, and for its own threads.
                let built = tokio::task::block_in_place(|| build(&folder, settings, out));
                Ok(Self::Parcel(built?))
            }
            Target::Archive(path) => {
                let archive = install::archive(&path)?;
                Ok(Self::Parcel(Parcel { archive, provenance: Provenance::Outside }))
            }
            Target::Named(reference) => Ok(Self::Named(reference)),
            Target::Pulled(reference) => {
                Ok(Self::Parcel(install::of_store(&UserStore::open()?, &reference)?))
            }
        }
    }

    /// The exact reference, once the package is in the store, and whether it is there by this command.
    async fn reference(self, client: &Client, out: Output) -> Result<(String, Novelty)> {
        match self {
            Self::Parcel(parcel) => bring(client, parcel, out).await,
            Self::Named(reference) => match resolve(client, &reference).await? {
                Some(found) => Ok((found, Novelty::Known)),
                None => bring(client, of_user(&reference)?, out).await,
            },
        }
    }
}

/// Builds a folder into the user store, and packs the package.
fn build(folder: &Path, settings: &BuildSettings, out: Output) -> Result<Parcel> {
    Ok(Parcel { archive: install::packed(&built(folder, settings, out)?)?, provenance: Provenance::Local })
}

/// Builds a folder into the user store.
pub(super) fn built(folder: &Path, settings: &BuildSettings, out: Output) -> Result<Held> {
    let store = UserStore::open()?;
    let telling = if out.is_interactive() { Telling::Steps } else { Telling::Nothing };
    let builder = Builder::new(&store, folder, None, settings, telling, out)?;
    let built = builder.build(&LockMode::Fit, None, CacheUse::Use)?;
    package::refuse_obstacles(built.obstacles)?;
    Held::new(
        Location::Local(Reference::local(&built.agent.name, &built.agent.version)?),
        built.manifest,
        None,
        built.lease,
        None,
    )
}

/// Installs a package, and tells whether it was there.
async fn bring(client: &Client, parcel: Parcel, out: Output) -> Result<(String, Novelty)> {
    let before = client.packages().await.map_err(supervisor::explain)?;
    let installed = install::install(client, parcel, out).await;
    let (reference, _) = installed.context("cannot install the package")?;
    let known = before.iter().any(|package| package.reference == reference);
    Ok((reference, if known { Novelty::Known } else { Novelty::New }))
}

/// Packs a package of the user store that is not installed.
fn of_user(wanted: &PackageRef) -> Result<Parcel> {
    let (store, reference) = in_user_store(wanted)?;
    install::of_store(&store, &reference)
}

/// A package of the user store that is not installed.
pub(super) fn held_of_user(wanted: &PackageRef) -> Result<Held> {
    let (store, reference) = in_user_store(wanted)?;
    Held::of_store(&store, &reference)
}

/// The user store and the name of a package there, or what to do about its not being there.
fn in_user_store(wanted: &PackageRef) -> Result<(UserStore, Reference)> {
    let missing = || {
        hinted(
            format!("no package {wanted} is installed, or in your store"),
            format!(
                "`aos packages` and `aos list packages` show what is; a folder is written with its path: aos run ./{}",
                wanted.name
            ),
        )
    };
    let store = UserStore::open()?;
    let reference = install::local(wanted)?;
    match store.repository().resolve(&reference) {
        Ok(_) => Ok((store, reference)),
        Err(ResolveError::NotFound { .. }) => Err(missing()),
        Err(error) => Err(error.into()),
    }
}

/// Finds an installed package: the exact one, or the newest version of a name.
pub(super) async fn resolve(client: &Client, wanted: &PackageRef) -> Result<Option<String>> {
    let packages = client.packages().await.map_err(supervisor::explain)?;
    let fits = packages.iter().filter(|package| package.name == wanted.name.as_str()).filter_map(|package| {
        let version = aos_core::id::parse_version(&package.version).ok()?;
        let fits = match &wanted.selector {
            Selector::Newest => true,
            Selector::Version(exact) => *exact == version,
            Selector::Digest(digest) => package.digest == digest.to_string(),
        };
        fits.then_some((version, package))
    });
    let newest = fits.max_by(|(left, _), (right, _)| left.cmp(right));
    Ok(newest.map(|(_, package)| package.reference.clone()))
}

/// Sees to it that the id is free or that its agent may be replaced.
async fn make_room(client: &Client, id: &AgentId, reference: &str, replace: bool) -> Result<()> {
    let agent = match client.agent(id.as_str()).await {
        Ok(agent) => agent,
        Err(error) if supervisor::is_not_found(&error) => return Ok(()),
        Err(error) => return Err(supervisor::explain(error)),
    };
    if replace {
        return stop_if_active(client, &agent).await;
    }
    if is_active(&agent) {
        return Err(hinted(
            format!("the agent {id} is {}", agent.state),
            format!("`--replace` stops it first; `--name OTHER` runs beside it; `aos logs -f {id}` shows it"),
        ));
    }
    let same_package = package::name_of(&agent.reference)? == package::name_of(reference)?;
    if !same_package {
        return Err(hinted(
            format!("the agent {id} runs another package, {}", agent.reference),
            "`--name OTHER` makes a new agent; `--replace` gives this one the new package and its workspace",
        ));
    }
    Ok(())
}

async fn stop_if_active(client: &Client, agent: &AgentView) -> Result<()> {
    if !is_active(agent) {
        return Ok(());
    }
    client
        .stop(&agent.id)
        .await
        .map_err(supervisor::explain)
        .with_context(|| format!("cannot stop {}", agent.id))
}

/// What `Run` is asked for beside the package.
pub(super) fn options(args: &RunArgs) -> RunOptions {
    RunOptions {
        memory: args.memory.map(|size| size.to_string()),
        cpu: args.cpu.map(|share| share.to_string()),
        runtime: args.runtime.map(|time| time.to_string()),
        ..RunOptions::default()
    }
}

/// Starts the agent; returns the invocation. A failure is told with what the unit said.
async fn start(
    client: &Client,
    id: &AgentId,
    reference: &str,
    args: &RunArgs,
    watch: &Watch,
    out: Output,
) -> Result<String> {
    let words: Vec<&str> = args.args.iter().map(String::as_str).collect();
    let started = {
        let _step = out.step_on_terminal(&format!("starting {id}"));
        client.run(id.as_str(), reference, &words, options(args)).await
    };
    match started {
        Ok(invocation) => Ok(invocation),
        Err(error) => {
            for line in watch.what_was_said().await {
                out.note(&format!("  {id}: {line}"));
            }
            Err(supervisor::explain(error)).with_context(|| format!("cannot run {reference} as {id}"))
        }
    }
}
