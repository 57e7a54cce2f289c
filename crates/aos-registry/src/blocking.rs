//! Work that blocks (disk, locks, hashing), off the runtime's own threads.

use std::panic::resume_unwind;

/// Runs it on a thread for blocking work. Such a task is not cancelled, so its only failure is a
/// panic of the work, which goes on here.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => resume_unwind(error.into_panic()),
    }
}
