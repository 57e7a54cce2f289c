//! Who may be trusted with what: keys, signatures, attestations and the policy that reads them.
//!
//! - [`key`]: Ed25519 keys, their files, and the directory that holds a person's keys.
//! - [`dsse`]: the signed envelope, and [`statement`]: what is said inside it (in-toto).
//! - [`signature`]: a package's signature, made of the two.
//! - [`policy`]: which keys may sign which names, from `/etc/aos/trust.d/*.toml`.
//! - [`spdx`], [`provenance`] and [`inventory`]: what a package is made of, and how it was built.
//!
//! This is the one crate that touches private keys. It runs nothing, opens no socket and reads no
//! environment; files are those that the caller names. Nothing it decodes is trusted: each decoder
//! has a bound and a strict grammar, and nothing of a payload is looked at before a signature over
//! its very bytes is found good.

pub mod dsse;
mod file;
pub mod inventory;
pub mod key;
mod object;
pub mod policy;
pub mod provenance;
pub mod signature;
pub mod spdx;
pub mod statement;
mod time;

pub use file::FileError;
