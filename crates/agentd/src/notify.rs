//! What systemd is told: readiness, a status line, the watchdog's food, the end.
//!
//! The watchdog is fed only while the reconciler's heart beats ([`Heart`]): a daemon whose reconciler hangs is
//! killed and started again; agents do not notice.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::Instant;

/// The reconciler's heartbeat: it beats after each full round, the keeper looks at how long ago that was.
#[derive(Debug, Clone)]
pub struct Heart {
    started: Instant,
    last_beat_ms: Arc<AtomicU64>,
}

impl Heart {
    /// A heart that beats now.
    #[must_use]
    pub fn new() -> Self {
        Self { started: Instant::now(), last_beat_ms: Arc::new(AtomicU64::new(0)) }
    }

    /// One beat.
    pub fn beat(&self) {
        self.last_beat_ms.store(self.now_ms(), Ordering::Relaxed);
    }

    /// How long ago the last beat was.
    #[must_use]
    pub fn age(&self) -> Duration {
        Duration::from_millis(self.now_ms().saturating_sub(self.last_beat_ms.load(Ordering::Relaxed)))
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Default for Heart {
    fn default() -> Self {
        Self::new()
    }
}

/// Sends `states`; without systemd nothing happens. A failure is logged: there is nothing better to do.
pub fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "cannot notify systemd");
    }
}

/// Feeds systemd's watchdog for ever, while `heart` is not older than `max_age`. Returns at once when the unit
/// has no watchdog. Cancel-safe: it holds nothing.
pub async fn keep_watchdog(heart: Heart, max_age: Duration) {
    let Some(period) = sd_notify::watchdog_enabled() else { return };
    loop {
        let age = heart.age();
        if age <= max_age {
            tell(&[NotifyState::Watchdog]);
        } else {
            tracing::error!(age_s = age.as_secs(), "the reconciler does not answer; the watchdog is not fed");
        }
        tokio::time::sleep(period / 3).await;
    }
}
