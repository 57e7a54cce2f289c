//! What an attempt came to, and what it has to come to.

use serde::{Deserialize, Serialize};

/// The end of one attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It worked.
    Done,
    /// The kernel refused each part of it; the error numbers, in order.
    Refused(Vec<i32>),
    /// The process was killed by this signal.
    Killed(i32),
    /// It went some other way.
    Other(String),
}

/// What has to happen to an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Every part is refused with one of these errors.
    Refused(&'static [i32]),
    /// The process is killed by a forbidden system call.
    Killed,
}

impl Expected {
    /// Whether it was refused at all, in whatever way.
    pub fn is_refusal(outcome: &Outcome) -> bool {
        matches!(outcome, Outcome::Refused(errors) if !errors.is_empty())
            || matches!(outcome, Outcome::Killed(_))
    }

    /// Whether the outcome is the expected one.
    pub fn is_met_by(self, outcome: &Outcome) -> bool {
        match (self, outcome) {
            (Self::Refused(allowed), Outcome::Refused(errors)) => {
                !errors.is_empty() && errors.iter().all(|error| allowed.contains(error))
            }
            (Self::Killed, Outcome::Killed(signal)) => *signal == libc::SIGSYS,
            _ => false,
        }
    }
}

/// The name of an error number, such as `EPERM`.
pub fn error_name(number: i32) -> String {
    let known = [
        (libc::EPERM, "EPERM"),
        (libc::ENOENT, "ENOENT"),
        (libc::ESRCH, "ESRCH"),
        (libc::ENXIO, "ENXIO"),
        (libc::EACCES, "EACCES"),
        (libc::EXDEV, "EXDEV"),
        (libc::EINVAL, "EINVAL"),
        (libc::ENOSPC, "ENOSPC"),
        (libc::EROFS, "EROFS"),
        (libc::EAGAIN, "EAGAIN"),
        (libc::ENOSYS, "ENOSYS"),
        (libc::ECONNREFUSED, "ECONNREFUSED"),
        (libc::ENETUNREACH, "ENETUNREACH"),
        (libc::EAFNOSUPPORT, "EAFNOSUPPORT"),
        (libc::EOPNOTSUPP, "EOPNOTSUPP"),
        (libc::EBUSY, "EBUSY"),
    ];
    known
        .iter()
        .find(|(value, _)| *value == number)
        .map_or_else(|| number.to_string(), |(_, name)| (*name).to_owned())
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Done => f.write_str("works"),
            Self::Refused(errors) => {
                let mut names: Vec<String> = errors.iter().map(|error| error_name(*error)).collect();
                names.dedup();
                f.write_str(&names.join(", "))
            }
            Self::Killed(signal) if *signal == libc::SIGSYS => f.write_str("killed (SIGSYS)"),
            Self::Killed(signal) => write!(f, "killed by signal {signal}"),
            Self::Other(text) => f.write_str(text),
        }
    }
}
