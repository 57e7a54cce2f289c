//! When to try again: after failures that may pass, with growing waits, a bounded number of times.

use crate::bounds::BACKOFF_MAX;
use crate::error::RequestError;
use crate::options::Retries;
use rustix::rand::{GetRandomFlags, getrandom};
use std::time::Duration;

/// The attempts of one request or one blob.
#[derive(Debug)]
pub(crate) struct Attempts {
    retries: Retries,
    failed: u32,
}

impl Attempts {
    pub(crate) const fn new(retries: Retries) -> Self {
        Self { retries, failed: 0 }
    }

    /// Something arrived: what failed before does not count any more.
    pub(crate) const fn progressed(&mut self) {
        self.failed = 0;
    }

    /// Notes a failure. Waits when there is another attempt; else gives the failure back.
    pub(crate) async fn failed(&mut self, error: RequestError) -> Result<(), RequestError> {
        self.failed += 1;
        if self.failed >= self.retries.attempts || !error.may_pass() {
            return Err(error);
        }
        tokio::time::sleep(self.wait(&error)).await;
        Ok(())
    }

    /// What the registry asks for, else twice as long as the last time; both bounded.
    fn wait(&self, error: &RequestError) -> Duration {
        if let RequestError::Status { after: Some(after), .. } = error {
            return (*after).min(self.retries.asked_max);
        }
        let doubled = self.retries.first.saturating_mul(1 << (self.failed - 1).min(16));
        jittered(doubled.min(BACKOFF_MAX))
    }
}

/// Three quarters to all of a wait, so that those who failed together do not come back together.
/// Without randomness it is all of it.
pub(crate) fn jittered(wait: Duration) -> Duration {
    let mut byte = [0_u8];
    match getrandom(&mut byte, GetRandomFlags::empty()) {
        Ok(1) => wait - wait / 4 * u32::from(byte[0]) / 255,
        _ => wait,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use reqwest::StatusCode;

    fn status(status: StatusCode, after: Option<u64>) -> RequestError {
        let (host, what, message) = (String::new(), String::new(), String::new());
        RequestError::Status { host, what, status, message, after: after.map(Duration::from_secs) }
    }

    #[tokio::test(start_paused = true)]
    async fn attempts_are_bounded_and_waits_grow() {
        let mut attempts = Attempts::new(Retries::default());
        let started = tokio::time::Instant::now();
        for _ in 1..Retries::default().attempts {
            attempts.failed(status(StatusCode::BAD_GATEWAY, None)).await.unwrap();
        }
        let waited = started.elapsed();
        // 0.25 + 0.5 + 1 + 2 s, less up to a quarter.
        assert!((2_800..=3_760).contains(&waited.as_millis()), "{waited:?}");
        attempts.failed(status(StatusCode::BAD_GATEWAY, None)).await.unwrap_err();
        attempts.progressed();
        attempts.failed(status(StatusCode::BAD_GATEWAY, None)).await.unwrap();
        attempts.failed(status(StatusCode::FORBIDDEN, None)).await.unwrap_err();
    }

    #[tokio::test(start_paused = true)]
    async fn the_registry_may_ask_for_a_bounded_wait() {
        let started = tokio::time::Instant::now();
        let mut attempts = Attempts::new(Retries::default());
        attempts.failed(status(StatusCode::TOO_MANY_REQUESTS, Some(7))).await.unwrap();
        assert_eq!(started.elapsed().as_secs(), 7);
        attempts.failed(status(StatusCode::TOO_MANY_REQUESTS, Some(86_400))).await.unwrap();
        assert_eq!(started.elapsed().as_secs(), 67);
    }
}
