//! One look at an agent's unit.

use aos_core::state::ExitResult;
use aos_sandbox::plan::UnitLimits;

use crate::agent::explain_end;
use crate::db::{End, InvocationId};

/// systemd's `ActiveState`, with the meanings that matter here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Not running; the last run ended well, or there was none.
    Inactive,
    /// Starting.
    Activating,
    /// Running.
    Active,
    /// Stopping.
    Deactivating,
    /// Not running; the last run ended badly.
    Failed,
    /// systemd cleans its data, or a state this program does not know: wait.
    Maintenance,
}

impl Phase {
    /// From systemd's word.
    #[must_use]
    pub fn from_word(word: &str) -> Self {
        match word {
            "inactive" => Self::Inactive,
            "activating" => Self::Activating,
            "active" | "reloading" | "refreshing" => Self::Active,
            "deactivating" => Self::Deactivating,
            "failed" => Self::Failed,
            _ => Self::Maintenance,
        }
    }

    /// True when no process of the unit is left.
    #[must_use]
    pub const fn is_at_rest(self) -> bool {
        matches!(self, Self::Inactive | Self::Failed)
    }
}

/// systemd's `FreezerState`: whether the processes of a unit get processor time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Freezer {
    /// They do.
    #[default]
    Running,
    /// On the way to frozen or back.
    Changing,
    /// They do not.
    Frozen,
    /// They do not, since a slice that holds the unit is frozen: only thawing that thaws the unit.
    FrozenByParent,
}

impl Freezer {
    /// From systemd's word.
    #[must_use]
    pub fn from_word(word: &str) -> Self {
        match word {
            "frozen" => Self::Frozen,
            "frozen-by-parent" => Self::FrozenByParent,
            "freezing" | "freezing-by-parent" | "thawing" => Self::Changing,
            _ => Self::Running,
        }
    }

    /// True when no process of the unit gets processor time.
    #[must_use]
    pub const fn is_frozen(self) -> bool {
        matches!(self, Self::Frozen | Self::FrozenByParent)
    }
}

/// A unit as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitState {
    /// What it does.
    pub phase: Phase,
    /// Whether it is frozen. systemd 257 keeps this word when what was frozen is killed.
    pub freezer: Freezer,
    /// The current or last run that systemd remembers.
    pub invocation: Option<InvocationId>,
    /// systemd's `Result` of the last run; meaningful at rest.
    pub result: ExitResult,
    /// `ExecMainStatus`: exit status or signal.
    pub status: i32,
    /// The main process, 0 when there is none.
    pub main_pid: u32,
    /// When the main process started; 0 when it never did.
    pub started_at_us: u64,
    /// When the main process ended; 0 when it never did.
    pub exited_at_us: u64,
    /// When the unit left or entered rest, for runs whose main process never started.
    pub state_changed_at_us: u64,
    /// Memory charged to the unit.
    pub memory_bytes: Option<u64>,
    /// Its control group, below the hierarchy's root; empty when there is none.
    pub cgroup: String,
    /// What the launcher said last, when the last run ended before it was ready: see [`launcher_words`].
    pub why_not_ready: Option<String>,
    /// The unit itself is enabled, by `systemctl enable`.
    pub unit_file_enabled: bool,
    /// The limits that systemd has for it, except `RuntimeMaxUSec`, which systemd does not let others set.
    pub limits: UnitLimits,
}

/// Longest quotation of the launcher.
const WORDS_MAX: usize = 256;

/// The unit's `StatusText` as it may be quoted: one line, bounded, control characters escaped; `None` when there is
/// none. It is the launcher's: the agent has no way to notify systemd (`NotifyAccess=main`, and the socket is not in
/// its tree), so these are no bytes of the agent. They may name paths of its package.
#[must_use]
pub fn launcher_words(status_text: &str) -> Option<String> {
    let mut words = String::new();
    for c in status_text.trim().chars().take(WORDS_MAX) {
        if c.is_control() {
            words.extend(c.escape_default());
        } else {
            words.push(c);
        }
    }
    // Escapes are longer than what they stand for.
    if status_text.trim().chars().nth(WORDS_MAX).is_some() || words.chars().nth(WORDS_MAX).is_some() {
        words = words.chars().take(WORDS_MAX - 1).chain(['\u{2026}']).collect();
    }
    (!words.is_empty()).then_some(words)
}

impl UnitState {
    /// A unit that systemd does not remember anything of.
    #[must_use]
    pub fn unknown() -> Self {
        Self {
            phase: Phase::Inactive,
            freezer: Freezer::Running,
            invocation: None,
            result: ExitResult::Success,
            status: 0,
            main_pid: 0,
            started_at_us: 0,
            exited_at_us: 0,
            state_changed_at_us: 0,
            memory_bytes: None,
            cgroup: String::new(),
            why_not_ready: None,
            unit_file_enabled: false,
            limits: UnitLimits::default(),
        }
    }

    /// Why the run that ended so ended, with the launcher's words when it was not ready.
    #[must_use]
    pub fn why(&self, end: &End) -> String {
        let why = explain_end(end);
        match &self.why_not_ready {
            Some(words) => format!("{why}: {words}"),
            None => why,
        }
    }

    /// Whether each limit that is asked for is the one that systemd has.
    #[must_use]
    pub fn has(&self, asked: &UnitLimits) -> bool {
        let has = |asked: Option<u64>, actual: Option<u64>| asked.is_none() || asked == actual;
        has(asked.memory_max_bytes, self.limits.memory_max_bytes)
            && has(asked.cpu_quota_per_sec_usec, self.limits.cpu_quota_per_sec_usec)
            && has(asked.tasks_max, self.limits.tasks_max)
            && has(asked.io_weight, self.limits.io_weight)
    }

    /// How the last run ended. Only meaningful at rest.
    #[must_use]
    pub fn end(&self) -> End {
        let at = if self.exited_at_us > 0 { self.exited_at_us } else { self.state_changed_at_us };
        End { at_us: (at > 0).then_some(at), result: self.result, status: self.status }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_launcher_is_quoted_on_one_bounded_line() {
        assert_eq!(launcher_words("  \n"), None);
        assert_eq!(
            launcher_words("no such path: /srv/\u{e9}\n").as_deref(),
            Some("no such path: /srv/\u{e9}")
        );
        assert_eq!(launcher_words("a\nb\u{1b}[2J\0").as_deref(), Some("a\\nb\\u{1b}[2J\\u{0}"));
        assert_eq!(launcher_words(&"x".repeat(WORDS_MAX)).unwrap(), "x".repeat(WORDS_MAX));
        for long in ["x".repeat(100_000), "\u{1b}".repeat(100_000), "\u{20ac}".repeat(1000)] {
            assert_eq!(launcher_words(&long).unwrap().chars().count(), WORDS_MAX);
            assert!(launcher_words(&long).unwrap().ends_with('\u{2026}'));
        }
    }

    #[test]
    fn only_what_is_wholly_frozen_is_frozen() {
        for (word, frozen) in [
            ("running", false),
            ("freezing", false),
            ("frozen", true),
            ("frozen-by-parent", true),
            ("thawing", false),
            ("", false),
        ] {
            assert_eq!(Freezer::from_word(word).is_frozen(), frozen, "{word}");
        }
    }

    #[test]
    fn only_limits_that_are_asked_for_are_compared() {
        let limits = |memory, tasks| UnitLimits {
            memory_max_bytes: memory,
            tasks_max: tasks,
            ..UnitLimits::default()
        };
        let unit = UnitState { limits: limits(Some(4096), Some(7)), ..UnitState::unknown() };
        assert!(unit.has(&UnitLimits::default()) && unit.has(&limits(Some(4096), None)));
        assert!(!unit.has(&limits(Some(8192), None)) && !unit.has(&limits(None, Some(8))));
        assert!(!UnitState::unknown().has(&limits(Some(4096), None)));
    }
}
