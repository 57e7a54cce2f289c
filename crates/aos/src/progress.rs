//! How far a transfer is: a bar on a terminal, nothing elsewhere; what is worth knowing is a line in both.

use std::sync::atomic::{AtomicU64, Ordering};

use aos_core::id::Digest;
use indicatif::{MultiProgress, ProgressBar};

use crate::output::Output;

/// A push or a pull.
#[derive(Debug)]
pub(crate) struct Transfer {
    out: Output,
    bar: Option<ProgressBar>,
    total: AtomicU64,
}

impl Transfer {
    /// Starts one: `pulling registry.example/web:1.0.0`.
    pub(crate) fn start(out: Output, verb: &str, what: &str) -> Self {
        Self::among(out, None, verb, what)
    }

    /// Starts one among the bars of a build.
    pub(crate) fn among(out: Output, bars: Option<&MultiProgress>, verb: &str, what: &str) -> Self {
        let template = "{spinner} {msg} {wide_bar:.dim} {bytes}/{total_bytes} {eta:.dim}";
        let bar = out.bar(bars, template, format!("{verb} {}", crate::screen::one_line(what)));
        Self { out, bar, total: AtomicU64::new(0) }
    }
}

impl aos_registry::Progress for Transfer {
    fn blob(&self, _digest: &Digest, total: u64) {
        let all = self.total.fetch_add(total, Ordering::Relaxed) + total;
        if let Some(bar) = &self.bar {
            bar.set_length(all);
        }
    }

    fn advance(&self, _digest: &Digest, bytes: u64) {
        if let Some(bar) = &self.bar {
            bar.inc(bytes);
        }
    }

    fn note(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| self.out.note(text)),
            None => self.out.note(text),
        }
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
