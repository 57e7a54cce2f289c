//! Stalls: an upload that does not move, an answer that does not come, a body that trickles.

use crate::bounds::PACE_MIN;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// Waits for an answer as long as `moved` grows, and `idle` after that. `None`: it stalls.
pub(crate) async fn watch<F: Future>(
    answer: F,
    moved: Option<&Arc<AtomicU64>>,
    idle: Duration,
) -> Option<F::Output> {
    tokio::pin!(answer);
    let mut seen = 0;
    loop {
        // Cancel-safe: the answer is polled on in the next round, the sleep starts anew.
        tokio::select! {
            output = &mut answer => return Some(output),
            () = tokio::time::sleep(idle) => {
                let now = moved.map_or(0, |counter| counter.load(Ordering::Relaxed));
                if now == seen {
                    return None;
                }
                seen = now;
            }
        }
    }
}

/// The pace of a body: every `idle` of waiting must bring [`PACE_MIN`] bytes. Time in which nobody
/// waits, since the disk is slower, does not count.
#[derive(Debug)]
pub(crate) struct Pace {
    idle: Duration,
    left: Duration,
    owed: u64,
}

impl Pace {
    pub(crate) const fn new(idle: Duration) -> Self {
        Self { idle, left: idle, owed: PACE_MIN }
    }

    /// Waits for the next piece. `None`: it stalls.
    pub(crate) async fn next<F: Future>(&mut self, piece: F) -> Option<F::Output> {
        let started = Instant::now();
        let output = tokio::time::timeout(self.left, piece).await.ok();
        self.left = self.left.saturating_sub(started.elapsed());
        output
    }

    /// Notes what came.
    pub(crate) const fn came(&mut self, bytes: u64) {
        self.owed = self.owed.saturating_sub(bytes);
        if self.owed == 0 {
            *self = Self::new(self.idle);
        }
    }
}
