//! The command line: its grammar, as clap derives it, with the manual's sections added.

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

use crate::commands::{
    agents, backends, build, cache, capability, checkpoint, convert, diff, exec, explain, export, gc,
    generate, import, inspect, install, key, learn, list, lock, logs, packages, pull, push, run, sign,
    status, store, tag, unpack, verify, workspace,
};
use crate::configure::ConfigureArgs;
use crate::manual;

/// Build, run and inspect confined AI agents
///
/// An agent is a package that declares what it may do. `aos run` makes it a systemd unit that the kernel holds to
/// that declaration. `aos` talks to the supervisor, agentd, over D-Bus; what you may do is decided by polkit.
#[derive(Debug, Parser)]
#[command(
    name = "aos",
    version,
    propagate_version = false,
    max_term_width = 100,
    arg_required_else_help = true
)]
#[command(disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Run(run::RunArgs),
    Build(build::BuildArgs),
    Install(install::InstallArgs),
    #[command(visible_alias = "ls")]
    List(list::ListArgs),
    Status(status::StatusArgs),
    Logs(logs::LogsArgs),
    Explain(explain::ExplainArgs),
    Exec(exec::ExecArgs),
    Capability(capability::CapabilityArgs),
    /// Start agents
    ///
    /// Starts agents that exist and are stopped. `aos run` creates one.
    Start(agents::Ids),
    /// Stop agents
    ///
    /// Asks an agent to end (SIGTERM), and ends it if it does not. Its workspace stays.
    Stop(agents::Ids),
    /// Stop agents and start them again
    Restart(agents::Ids),
    /// Freeze agents where they are
    ///
    /// All processes of the agent stay in memory and get no processor time until `aos resume`. Its time limit goes on
    /// counting; stopping or restarting it thaws it first.
    Pause(agents::Ids),
    /// Let paused agents go on
    Resume(agents::Ids),
    /// Start agents at every boot
    ///
    /// An enabled agent is started by systemd at boot, whether or not the supervisor runs. This does not start it now.
    Enable(agents::Ids),
    /// Start agents at boot no longer
    ///
    /// This does not stop an agent that runs.
    Disable(agents::Ids),
    #[command(visible_alias = "rm")]
    Remove(agents::RemoveArgs),
    Diff(diff::DiffArgs),
    Commit(workspace::CommitArgs),
    Discard(workspace::DiscardArgs),
    Snapshot(workspace::SnapshotArgs),
    Fork(workspace::ForkArgs),
    Checkpoint(checkpoint::CheckpointArgs),
    Checkpoints(checkpoint::CheckpointsArgs),
    Restore(checkpoint::RestoreArgs),
    Packages(packages::PackagesArgs),
    Pull(pull::PullArgs),
    Push(push::PushArgs),
    Inspect(inspect::InspectArgs),
    Tag(tag::TagArgs),
    Export(export::ExportArgs),
    Import(import::ImportArgs),
    Unpack(unpack::UnpackArgs),
    Sign(sign::SignArgs),
    Verify(verify::VerifyArgs),
    Key(key::KeyArgs),
    Lock(lock::LockArgs),
    Learn(learn::LearnArgs),
    Gc(gc::GcArgs),
    Cache(cache::CacheArgs),
    Store(store::StoreArgs),
    Backends(backends::BackendsArgs),
    Convert(convert::ConvertArgs),
    /// Set up this machine: name, time zone, access, network, model provider
    ///
    /// Asks on the terminal, or takes the answers as flags. What is not asked about or given is not changed. Keys
    /// are read without being shown, and kept only as encrypted systemd credentials.
    Configure(ConfigureArgs),
    /// Print the completion script of a shell
    #[command(hide = true)]
    Completions(generate::CompletionsArgs),
    /// Write the manual pages into a folder
    #[command(hide = true)]
    GenMan(generate::FolderArgs),
    /// Write the completion scripts into a folder
    #[command(hide = true)]
    GenCompletions(generate::FolderArgs),
    /// Print the JSON Schema of an Agentfile
    #[command(hide = true)]
    GenSchema,
}

/// How to print a result.
#[derive(Debug, Clone, Copy, Default, Args)]
pub(crate) struct Format {
    /// Print JSON
    #[arg(long)]
    json: bool,

    /// Print in this format
    #[arg(long, value_enum, value_name = "FORMAT", hide = true)]
    format: Option<FormatName>,
}

/// A format's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FormatName {
    /// For people
    Text,
    /// For programs
    Json,
}

impl Format {
    /// True when the result is for a program.
    pub(crate) fn is_json(self) -> bool {
        self.json || self.format == Some(FormatName::Json)
    }
}

/// The whole grammar.
pub(crate) fn command() -> clap::Command {
    manual::add_examples(Cli::command())
}

/// Parses the command line; prints help, or what is wrong, and ends the program when there is nothing to run.
pub(crate) fn parse() -> Cli {
    let matches = command().get_matches();
    Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grammar_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn json_has_two_spellings() {
        let parsed = |line: &str| Cli::try_parse_from(line.split(' ')).unwrap();
        for line in ["aos list --json", "aos list --format json", "aos ls --format=json"] {
            let Command::List(arguments) = parsed(line).command else { panic!() };
            assert!(arguments.format.is_json(), "{line}");
        }
    }
}
