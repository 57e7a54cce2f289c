//! Who waits for which job of systemd.
//!
//! The signal that a job ended can arrive before the answer that names the job, so ends are remembered for a
//! while: [`Jobs::ended`] and [`Jobs::wait`] meet in either order. Both are short and synchronous; the lock is
//! never held across an await.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::JobResult;

/// Ends remembered for a waiter that is not there yet. All jobs of the machine pass here; between a queued job
/// and the answer that names it come a few.
const REMEMBERED: usize = 512;

/// The table of jobs.
#[derive(Debug, Default)]
pub struct Jobs(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    ended: VecDeque<(String, JobResult)>,
    waiting: HashMap<String, oneshot::Sender<JobResult>>,
}

impl Jobs {
    /// A job ended.
    pub fn ended(&self, path: &str, result: JobResult) {
        let mut table = self.table();
        if let Some(waiter) = table.waiting.remove(path) {
            tell(waiter, result);
            return;
        }
        if table.ended.len() >= REMEMBERED {
            table.ended.pop_front();
        }
        table.ended.push_back((path.to_owned(), result));
    }

    /// The end of a job that was just queued.
    pub fn wait(&self, path: &str) -> oneshot::Receiver<JobResult> {
        let (sender, receiver) = oneshot::channel();
        let mut table = self.table();
        table.waiting.retain(|_, waiter| !waiter.is_closed());
        match table.ended.iter().position(|(ended, _)| ended == path) {
            Some(index) => {
                if let Some((_, result)) = table.ended.remove(index) {
                    tell(sender, result);
                }
            }
            None => {
                table.waiting.insert(path.to_owned(), sender);
            }
        }
        receiver
    }

    /// systemd started anew: no job that was waited for will be reported. Waiters see their receiver closed.
    pub fn forget(&self) {
        let mut table = self.table();
        table.waiting.clear();
        table.ended.clear();
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // Nothing in the critical sections can panic half-way; the table is sound even if one did.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A waiter that gave up has dropped its end; the result is then of no interest.
fn tell(waiter: oneshot::Sender<JobResult>, result: JobResult) {
    if waiter.send(result).is_err() {
        tracing::debug!("nobody waits for the job any more");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn both_orders_meet() {
        let jobs = Jobs::default();
        jobs.ended("/1", JobResult::Failed);
        assert_eq!(jobs.wait("/1").await, Ok(JobResult::Failed));
        let waiting = jobs.wait("/2");
        jobs.ended("/3", JobResult::Done);
        jobs.ended("/2", JobResult::Done);
        assert_eq!(waiting.await, Ok(JobResult::Done));
    }

    #[tokio::test]
    async fn memory_is_bounded_and_forgotten() {
        let jobs = Jobs::default();
        for number in 0..REMEMBERED * 2 {
            jobs.ended(&format!("/{number}"), JobResult::Done);
            drop(jobs.wait(&format!("/never/{number}")));
        }
        assert_eq!(jobs.table().ended.len(), REMEMBERED);
        assert!(jobs.table().waiting.len() <= 1);
        let waiting = jobs.wait("/x");
        jobs.forget();
        assert!(waiting.await.is_err());
    }
}
