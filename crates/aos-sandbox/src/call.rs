//! A call: one command in the sandbox of an agent that runs. What is asked of the launcher, and what it answers.
//!
//! A request is one datagram on the launcher's control socket: [`CallRequest`] in JSON, at most
//! [`REQUEST_MAX_BYTES`], with exactly [`DESCRIPTORS`] descriptors in this order:
//!
//! | descriptor | is | for |
//! |---|---|---|
//! | key | the control key's file, open for writing | that the sender may ask: nobody else can open it |
//! | answer | one end of a socket pair (`SOCK_SEQPACKET`) | [`CallAnswer`] in one message; when the other end closes, the call is ended |
//! | input, output, errors | a pipe, or `/dev/null` | the command's standard streams |
//!
//! No terminal, file or socket goes in: whatever goes in may be kept by the agent after the call's end.

mod ask;

use std::collections::BTreeMap;

use aos_core::capability::CapabilitySet;
use aos_core::path::AbsolutePath;
use serde::{Deserialize, Serialize};

pub use ask::{AskError, ask};

/// The version of the format.
pub const CALL_VERSION: u32 = 1;
/// Bytes of a request. It fits into one message of the kernel's default size (`net.core.wmem_default`).
pub const REQUEST_MAX_BYTES: usize = 128 << 10;
/// Bytes of an answer: the longest reason, with room.
pub const ANSWER_MAX_BYTES: usize = 8 << 10;
/// Descriptors of a request.
pub const DESCRIPTORS: usize = 5;
/// Calls at a time in one agent. None waits: the next is refused.
pub const CALLS_MAX: usize = 32;
/// Words of a command.
pub const ARGUMENTS_MAX: usize = 1024;
/// Variables of a command beside the agent's.
pub const VARIABLES_MAX: usize = 256;
/// The least memory in which a sandbox can be made around a command.
pub const MEMORY_MIN_BYTES: u64 = 4 << 20;
/// What the launcher tells the service manager when the agent itself was killed for lack of memory.
pub const AGENT_OUT_OF_MEMORY: &str = "limits: out of memory: a process of the agent was killed";
/// Bytes of a reason.
const WHY_MAX_BYTES: usize = 1024;
/// A hundred days, as for the run time of an agent.
const TIMEOUT_MAX_MS: u64 = 100 * 24 * 3600 * 1000;
/// The kernel's greatest number of processes (`PID_MAX_LIMIT`).
const TASKS_MAX: u64 = 1 << 22;

/// A command, and in what bounds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CallRequest {
    /// [`CALL_VERSION`].
    pub version: u32,
    /// The command and its arguments. A name without `/` is looked for in the agent's `PATH`.
    pub argv: Vec<String>,
    /// Variables beside the agent's, or in their place.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// The working directory, inside; the agent's without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<AbsolutePath>,
    /// All that the command may do beside what every agent may; what the agent may without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<CapabilitySet>,
    /// Most memory of the call's processes together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_max_bytes: Option<u64>,
    /// Most processes and threads of the call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tasks_max: Option<u64>,
    /// After this the call is ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// Why bytes are no request.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// More bytes than a request has.
    #[error("the request has {0} bytes, at most {REQUEST_MAX_BYTES} are allowed")]
    TooLarge(usize),
    /// Not the documented form.
    #[error("the request is not what this launcher reads: {0}")]
    Form(#[from] serde_json::Error),
    /// Another version.
    #[error("the request has version {0}, this launcher reads {CALL_VERSION}")]
    Version(u32),
    /// No command, or too many words.
    #[error("a command has 1 to {ARGUMENTS_MAX} words, not {0}")]
    Words(usize),
    /// A word or variable that no program can be given.
    #[error("{0}")]
    Text(&'static str),
    /// A limit outside what can be limited.
    #[error("{what} is {value}; it is between {least} and {most}")]
    Limit {
        /// Which limit.
        what: &'static str,
        /// What was asked.
        value: u64,
        /// The least.
        least: u64,
        /// The most.
        most: u64,
    },
}

impl CallRequest {
    /// A request for a command without limits of its own.
    pub fn new(argv: Vec<String>) -> Self {
        Self {
            version: CALL_VERSION,
            argv,
            env: BTreeMap::new(),
            cwd: None,
            capabilities: None,
            memory_max_bytes: None,
            tasks_max: None,
            timeout_ms: None,
        }
    }

    /// Parses and checks the bytes of a request.
    pub fn parse(bytes: &[u8]) -> Result<Self, RequestError> {
        if bytes.len() > REQUEST_MAX_BYTES {
            return Err(RequestError::TooLarge(bytes.len()));
        }
        let request: Self = serde_json::from_slice(bytes)?;
        request.check()?;
        Ok(request)
    }

    /// The bytes of the request.
    pub fn to_json(&self) -> Result<Vec<u8>, RequestError> {
        self.check()?;
        let bytes = serde_json::to_vec(self)?;
        if bytes.len() > REQUEST_MAX_BYTES {
            return Err(RequestError::TooLarge(bytes.len()));
        }
        Ok(bytes)
    }

    /// Whether it asks for a limit that only a control group of its own enforces.
    pub const fn needs_group(&self) -> bool {
        self.memory_max_bytes.is_some() || self.tasks_max.is_some()
    }

    fn check(&self) -> Result<(), RequestError> {
        if self.version != CALL_VERSION {
            return Err(RequestError::Version(self.version));
        }
        if self.argv.is_empty() || self.argv.len() > ARGUMENTS_MAX {
            return Err(RequestError::Words(self.argv.len()));
        }
        if self.argv.first().is_some_and(String::is_empty) {
            return Err(RequestError::Text("the command has no name"));
        }
        if self.env.len() > VARIABLES_MAX {
            return Err(RequestError::Text("more than 256 variables"));
        }
        let is_named = |name: &String| !name.is_empty() && !name.contains(['=', '\0']);
        if !self.env.keys().all(is_named) {
            return Err(RequestError::Text("a variable has no name, or one with `=` or a NUL byte"));
        }
        if self.argv.iter().chain(self.env.values()).any(|text| text.contains('\0')) {
            return Err(RequestError::Text("a NUL byte in an argument or a variable"));
        }
        within("the memory limit in bytes", self.memory_max_bytes, MEMORY_MIN_BYTES, 1 << 62)?;
        within("the task limit", self.tasks_max, 1, TASKS_MAX)?;
        within("the time limit in milliseconds", self.timeout_ms, 1, TIMEOUT_MAX_MS)
    }
}

fn within(what: &'static str, value: Option<u64>, least: u64, most: u64) -> Result<(), RequestError> {
    match value {
        Some(value) if !(least..=most).contains(&value) => {
            Err(RequestError::Limit { what, value, least, most })
        }
        _ => Ok(()),
    }
}

/// What came of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum CallAnswer {
    /// The command ran and has ended.
    Ended(CallEnd),
    /// It was not tried.
    Refused {
        /// Why not, as a word.
        reason: Refusal,
        /// Why not, in one line.
        why: String,
    },
    /// A layer of its sandbox could not be had, or it cannot be executed: nothing of it ran.
    NotStarted {
        /// The layer's exit status, as of `aos-launch`.
        exit_status: u8,
        /// The layer and why, in one line.
        why: String,
        /// The memory limit was too low for making the sandbox.
        oom_killed: bool,
    },
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CallEnd {
    /// Its exit status, unless a signal ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_status: Option<u8>,
    /// The signal that ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<u8>,
    /// A process of the call was killed for lack of memory.
    pub oom_killed: bool,
    /// It was ended because its time was over.
    pub timed_out: bool,
    /// The most memory that its processes had together; absent without a control group for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_peak_bytes: Option<u64>,
    /// From the request to the end, microseconds.
    pub duration_us: u64,
    /// Whether it had a control group of its own: then nothing of it is left. Without one, processes that it left
    /// in the background end with the agent.
    pub contained: bool,
}

/// Why a request was not tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// The request is not valid.
    Invalid,
    /// [`CALLS_MAX`] calls are going on.
    Busy,
    /// A limit cannot be enforced here.
    Limits,
    /// A standard stream is no pipe.
    Streams,
}

impl CallAnswer {
    /// A refusal; the reason is cut to what an answer holds.
    pub fn refused(reason: Refusal, why: &str) -> Self {
        Self::Refused { reason, why: short(why) }
    }

    /// A command that did not start.
    pub fn not_started(exit_status: u8, why: &str, oom_killed: bool) -> Self {
        Self::NotStarted { exit_status, why: short(why), oom_killed }
    }

    /// Parses the bytes of an answer.
    pub fn parse(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }
}

/// One line without control characters, of at most [`WHY_MAX_BYTES`].
fn short(text: &str) -> String {
    let mut line = String::new();
    for letter in text.chars() {
        let letter = if letter.is_control() { ' ' } else { letter };
        if line.len() + letter.len_utf8() > WHY_MAX_BYTES {
            break;
        }
        line.push(letter);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> CallRequest {
        CallRequest::new(words.iter().map(|word| (*word).to_owned()).collect())
    }

    #[test]
    fn a_request_survives_the_journey() {
        let request = CallRequest {
            env: BTreeMap::from([("A".to_owned(), "b c\n".to_owned())]),
            cwd: Some("/workspace".parse().unwrap()),
            capabilities: Some(CapabilitySet::parse(["file_read: /srv/**"]).unwrap()),
            memory_max_bytes: Some(64 << 20),
            tasks_max: Some(7),
            timeout_ms: Some(1500),
            ..words(&["true", ""])
        };
        assert_eq!(CallRequest::parse(&request.to_json().unwrap()).unwrap(), request);
        assert!(request.needs_group() && !words(&["true"]).needs_group());
    }

    #[test]
    fn what_is_no_request_is_refused() {
        let long = "x".repeat(REQUEST_MAX_BYTES);
        let variable = |name: &str, value: &str| CallRequest {
            env: BTreeMap::from([(name.to_owned(), value.to_owned())]),
            ..words(&["true"])
        };
        for bad in [
            words(&[]),
            words(&[""]),
            words(&["true", "a\0b"]),
            words(&[&long]),
            words(&["true"; ARGUMENTS_MAX + 1]),
            variable("", "x"),
            variable("A=B", "x"),
            variable("A", "\0"),
            CallRequest { memory_max_bytes: Some(1), ..words(&["true"]) },
            CallRequest { memory_max_bytes: Some(u64::MAX), ..words(&["true"]) },
            CallRequest { tasks_max: Some(0), ..words(&["true"]) },
            CallRequest { timeout_ms: Some(0), ..words(&["true"]) },
            CallRequest { version: 2, ..words(&["true"]) },
        ] {
            assert!(bad.to_json().is_err(), "{bad:?}");
            assert!(CallRequest::parse(&serde_json::to_vec(&bad).unwrap()).is_err(), "{bad:?}");
        }
        for bad in [
            "",
            "{}",
            "[]",
            r#"{"version":1,"argv":["a"],"uid":0}"#,
            r#"{"version":1,"argv":["a"],"cwd":"x"}"#,
            r#"{"version":1,"argv":["a"],"capabilities":["tea"]}"#,
            r#"{"version":1,"argv":["a"]} x"#,
        ] {
            assert!(CallRequest::parse(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(CallRequest::parse(br#"{"version":1,"argv":["a"]}"#).is_ok());
    }

    #[test]
    fn answers_are_bounded_lines() {
        let answer = CallAnswer::refused(Refusal::Invalid, &format!("a\u{1b}\n{}", "\u{20ac}".repeat(9999)));
        let bytes = serde_json::to_vec(&answer).unwrap();
        assert!(bytes.len() <= ANSWER_MAX_BYTES && !bytes.contains(&b'\n') && !bytes.contains(&0x1b));
        assert_eq!(CallAnswer::parse(&bytes).unwrap(), answer);
        let quotes = serde_json::to_vec(&CallAnswer::not_started(1, &"\"".repeat(9999), true)).unwrap();
        assert!(quotes.len() <= ANSWER_MAX_BYTES);
    }
}
