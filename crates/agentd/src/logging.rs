//! Where messages go: to journald as structured entries, or to standard error when there is no journal.
//!
//! Fields of an event keep their names (`AOS_AGENT`, `AOS_INVOCATION`), so that `journalctl AOS_AGENT=ID` finds
//! what the supervisor did for an agent. Levels become the journal's priorities.

use tracing_journald::{Priority, PriorityMappings};
use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::util::TryInitError;

/// What is logged when nothing else is asked for.
pub const DEFAULT_FILTER: &str = "info";

/// Starts logging. `filter` is in `tracing`'s directive syntax; a bad one falls back to [`DEFAULT_FILTER`].
pub fn init(filter: &str) -> Result<(), TryInitError> {
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new(DEFAULT_FILTER));
    let registry = tracing_subscriber::registry().with(filter);
    match tracing_journald::layer() {
        Ok(journal) => {
            let priorities = PriorityMappings {
                error: Priority::Error,
                warn: Priority::Warning,
                info: Priority::Informational,
                debug: Priority::Debug,
                trace: Priority::Debug,
            };
            let journal = journal
                .with_field_prefix(None)
                .with_priority_mappings(priorities)
                .with_syslog_identifier("agentd".to_owned());
            registry.with(journal).try_init()
        }
        Err(_) => registry.with(tracing_subscriber::fmt::layer().with_writer(std::io::stderr)).try_init(),
    }
}
