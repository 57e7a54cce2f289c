//! The states of an agent and the results of a run, as the supervisor keeps and shows them.

use crate::macros::serde_as_text;
use crate::quoted::Quoted;
use std::fmt;
use std::str::FromStr;
use thiserror::Error;

/// What an agent is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AgentState {
    /// Recorded, never started.
    Created,
    /// Its unit is starting; the sandbox is not yet in force.
    Starting,
    /// Its entrypoint runs, confined.
    Running,
    /// Its processes are frozen: they keep what they have and get no processor time.
    Paused,
    /// Asked to stop, not gone yet.
    Stopping,
    /// Ended well, or was stopped.
    Stopped,
    /// Ended badly, or did not start.
    Failed,
    /// Its record and data are being removed.
    Removing,
}

/// What happens to an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AgentEvent {
    /// A start was asked for.
    Start,
    /// The launcher reported that every layer is in force.
    Ready,
    /// Its processes were frozen.
    Pause,
    /// Its processes were thawed.
    Resume,
    /// A stop was asked for.
    Stop,
    /// The main process ended, or the start was given up, with this result.
    Exited {
        /// True when the result counts as success.
        success: bool,
    },
    /// Removal was asked for.
    Remove,
}

/// An event that the state does not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("an agent that is {state} cannot {event}")]
pub struct Refused {
    /// The state.
    pub state: AgentState,
    /// The event.
    pub event: AgentEvent,
}

/// A word that is none of the expected ones.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("unknown {what} {}", Quoted(.text))]
pub struct UnknownWord {
    /// What the word should name.
    pub what: &'static str,
    /// The word.
    pub text: String,
}

/// Every state, with its word.
const STATES: [(AgentState, &str); 8] = [
    (AgentState::Created, "created"),
    (AgentState::Starting, "starting"),
    (AgentState::Running, "running"),
    (AgentState::Paused, "paused"),
    (AgentState::Stopping, "stopping"),
    (AgentState::Stopped, "stopped"),
    (AgentState::Failed, "failed"),
    (AgentState::Removing, "removing"),
];

impl AgentState {
    /// The state after `event`, or why there is none. An exit in a resting state is refused: it
    /// belongs to an earlier run.
    pub const fn after(self, event: AgentEvent) -> Result<Self, Refused> {
        use AgentEvent as E;
        use AgentState as S;
        match (self, event) {
            (S::Created | S::Stopped | S::Failed, E::Start) => Ok(S::Starting),
            (S::Starting, E::Ready) => Ok(S::Running),
            (S::Running, E::Pause) => Ok(S::Paused),
            (S::Paused, E::Resume) => Ok(S::Running),
            (S::Starting | S::Running | S::Paused, E::Stop) => Ok(S::Stopping),
            (S::Starting | S::Running | S::Paused | S::Stopping, E::Exited { success }) => {
                Ok(if success { S::Stopped } else { S::Failed })
            }
            (S::Created | S::Stopped | S::Failed, E::Remove) => Ok(S::Removing),
            (state, event) => Err(Refused { state, event }),
        }
    }

    /// True while a process of the agent may exist.
    pub const fn is_active(self) -> bool {
        matches!(self, Self::Starting | Self::Running | Self::Paused | Self::Stopping)
    }

    /// The word shown and stored.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
            Self::Removing => "removing",
        }
    }
}

impl FromStr for AgentState {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, UnknownWord> {
        STATES
            .iter()
            .find_map(|&(state, word)| (word == text).then_some(state))
            .ok_or_else(|| UnknownWord { what: "agent state", text: text.to_owned() })
    }
}

impl fmt::Display for AgentState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for AgentEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Start => "start",
            Self::Ready => "become ready",
            Self::Pause => "be paused",
            Self::Resume => "be resumed",
            Self::Stop => "stop",
            Self::Exited { .. } => "exit",
            Self::Remove => "be removed",
        })
    }
}

/// Declares the results of systemd's `Result=` property (systemd.exec(5), `$SERVICE_RESULT`).
macro_rules! exit_results {
    ($($(#[$doc:meta])* $name:ident = $word:literal,)*) => {
        /// How a run ended: systemd's `Result` of the unit.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum ExitResult {
            $($(#[$doc])* $name,)*
        }

        impl ExitResult {
            /// The word that systemd uses.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $word,)*
                }
            }
        }

        impl FromStr for ExitResult {
            type Err = UnknownWord;

            fn from_str(text: &str) -> Result<Self, UnknownWord> {
                match text {
                    $($word => Ok(Self::$name),)*
                    _ => Err(UnknownWord { what: "exit result", text: text.to_owned() }),
                }
            }
        }
    };
}

exit_results! {
    /// Exit status 0, or stopped as asked.
    Success = "success",
    /// The notify protocol was not kept: it ended before it was ready.
    Protocol = "protocol",
    /// It did not start or stop in time, or ran longer than its limit.
    Timeout = "timeout",
    /// An exit status other than 0.
    ExitCode = "exit-code",
    /// Killed by a signal.
    Signal = "signal",
    /// Killed by a signal, with a core dump.
    CoreDump = "core-dump",
    /// Its watchdog was not fed.
    Watchdog = "watchdog",
    /// The kernel's out-of-memory killer ended it.
    OomKill = "oom-kill",
    /// Started too often in too short a time.
    StartLimitHit = "start-limit-hit",
    /// A condition of the unit did not hold.
    ExecCondition = "exec-condition",
    /// systemd lacked a resource to start it.
    Resources = "resources",
}

impl ExitResult {
    /// True when the run counts as a success.
    pub const fn is_success(self) -> bool {
        matches!(self, Self::Success)
    }
}

impl fmt::Display for ExitResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

serde_as_text!(AgentState);
serde_as_text!(ExitResult);

#[cfg(test)]
mod tests {
    use super::*;
    use AgentState as S;

    #[test]
    fn words_round_trip() {
        for (state, word) in STATES {
            assert_eq!((state.as_str(), word.parse::<S>().unwrap()), (word, state));
        }
        assert!("Running".parse::<S>().is_err());
        assert_eq!("oom-kill".parse::<ExitResult>().unwrap(), ExitResult::OomKill);
        assert!("".parse::<ExitResult>().is_err());
    }

    #[test]
    fn every_pair_is_decided() {
        let (ok, bad) = (AgentEvent::Exited { success: true }, AgentEvent::Exited { success: false });
        let events = [
            AgentEvent::Start,
            AgentEvent::Ready,
            AgentEvent::Pause,
            AgentEvent::Resume,
            AgentEvent::Stop,
            ok,
            bad,
            AgentEvent::Remove,
        ];
        let rest = [Some(S::Starting), None, None, None, None, None, None, Some(S::Removing)];
        let ends = |ready, pause, resume| {
            let (stopped, failed) = (Some(S::Stopped), Some(S::Failed));
            [None, ready, pause, resume, Some(S::Stopping), stopped, failed, None]
        };
        let mut stopping = ends(None, None, None);
        stopping[4] = None;
        let table = [
            (S::Created, rest),
            (S::Starting, ends(Some(S::Running), None, None)),
            (S::Running, ends(None, Some(S::Paused), None)),
            (S::Paused, ends(None, None, Some(S::Running))),
            (S::Stopping, stopping),
            (S::Stopped, rest),
            (S::Failed, rest),
            (S::Removing, [None; 8]),
        ];
        for (state, expected) in table {
            for (event, next) in events.into_iter().zip(expected) {
                assert_eq!(state.after(event).ok(), next, "{state} {event}");
            }
        }
        let refused = S::Running.after(AgentEvent::Start).unwrap_err();
        assert_eq!(refused.to_string(), "an agent that is running cannot start");
    }
}
