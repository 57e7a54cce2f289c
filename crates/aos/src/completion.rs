//! Names for the Tab key: agents and packages as the supervisor has them now, and what the user's store and keys have.

use std::time::Duration;

use clap_complete::engine::{
    ArgValueCandidates, ArgValueCompleter, CompletionCandidate, PathCompleter, ValueCompleter,
};

use crate::keys;
use crate::store::UserStore;
use crate::supervisor;

/// The variable by which a shell asks for candidates.
pub(crate) const VARIABLE: &str = "AOS_COMPLETE";
/// A Tab key must not hang.
const PATIENCE: Duration = Duration::from_millis(700);

/// Completes an agent's id.
pub(crate) fn agents() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        let agents = within(supervisor::agents_quietly());
        let candidate = |agent: aos_client::AgentView| {
            CompletionCandidate::new(agent.id)
                .help(Some(format!("{} {}", agent.state, agent.reference).into()))
        };
        agents.into_iter().map(candidate).collect()
    })
}

/// Completes a package's reference.
pub(crate) fn packages() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        let packages = within(supervisor::packages_quietly());
        packages.into_iter().map(|package| CompletionCandidate::new(package.reference)).collect()
    })
}

fn stored_names() -> Vec<String> {
    UserStore::existing().map(|store| store.names()).unwrap_or_default()
}

/// Completes a package of the user store.
pub(crate) fn stored() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        let tags =
            UserStore::open().ok().and_then(|store| store.repository().tags().ok()).unwrap_or_default();
        tags.into_iter().map(|tagged| CompletionCandidate::new(tagged.reference.to_string())).collect()
    })
}

/// Completes what `aos remove` removes: agents, and packages of the user store.
pub(crate) fn removable() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        let ids = within(supervisor::agents_quietly()).into_iter().map(|agent| agent.id);
        ids.chain(stored_names()).map(CompletionCandidate::new).collect()
    })
}

/// Completes the name of a key.
pub(crate) fn keys() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        let entries = keys::directory().ok().and_then(|directory| directory.list().ok()).unwrap_or_default();
        entries.into_iter().map(|entry| CompletionCandidate::new(entry.name.to_string())).collect()
    })
}

/// Completes what `aos run` is pointed at: a path, or a package's reference.
pub(crate) fn targets() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &std::ffi::OsStr| {
        let start = typed.to_string_lossy();
        let mut candidates: Vec<CompletionCandidate> = within(supervisor::packages_quietly())
            .into_iter()
            .filter(|package| package.reference.starts_with(start.as_ref()))
            .map(|package| CompletionCandidate::new(package.reference))
            .collect();
        candidates.extend(PathCompleter::any().complete(typed));
        candidates
    })
}

/// Waits a moment for a list. Whatever goes wrong, a Tab key completes nothing.
fn within<T>(list: impl Future<Output = zbus::Result<Vec<T>>>) -> Vec<T> {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return Vec::new();
    };
    runtime
        .block_on(async { tokio::time::timeout(PATIENCE, list).await })
        .ok()
        .and_then(Result::ok)
        .unwrap_or_default()
}
