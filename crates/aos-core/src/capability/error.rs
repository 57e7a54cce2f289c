//! Why a text is not a capability.

use super::address::AddressError;
use super::host::HostError;
use super::name::NameError;
use super::pattern::PatternError;
use super::qualifier::QualifierError;
use super::right::known_names;
use super::{KNOWN, LINE_MAX_BYTES};
use crate::quoted::Quoted;
use thiserror::Error;

/// Why a text is not a capability.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CapabilityError {
    /// The line is too long.
    #[error("a capability has {0} bytes, at most {LINE_MAX_BYTES} are allowed")]
    TooLong(usize),
    /// There is no `name: value`.
    #[error("capability {} has not the form `name: value`, such as `file_read: /data/**`", Quoted(.0))]
    Form(String),
    /// The name is unknown.
    #[error("unknown capability {}, known are {}", Quoted(.0), known_names(&KNOWN))]
    Unknown(String),
    /// The path pattern is wrong.
    #[error("capability `{name}`: {source}")]
    Pattern {
        /// The capability's name.
        name: &'static str,
        /// What is wrong.
        source: PatternError,
    },
    /// The host is wrong.
    #[error("capability `net`: {0}")]
    Host(#[from] HostError),
    /// The host of a secret is wrong.
    #[error("capability `secret`: {0}")]
    SecretHost(HostError),
    /// The address is wrong.
    #[error("capability `net`: {0}")]
    Address(#[from] AddressError),
    /// The port is wrong.
    #[error("capability `{name}`: port {} is not a number from 1 to 65535", Quoted(.text))]
    Port {
        /// The capability's name.
        name: &'static str,
        /// The text.
        text: String,
    },
    /// The name that the capability is for is wrong.
    #[error("capability `{name}`: {source}")]
    Name {
        /// The capability's name.
        name: &'static str,
        /// What is wrong.
        source: NameError,
    },
    /// A qualifier is wrong.
    #[error("capability {}: {source}", Quoted(.capability))]
    Qualifier {
        /// The capability without its qualifiers.
        capability: String,
        /// What is wrong.
        source: Box<QualifierError>,
    },
}
