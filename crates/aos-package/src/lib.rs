//! AOS packages: building them, the `.aap` archive, and the local store.
//!
//! A package is an OCI image: a manifest of [`oci::ARTIFACT_TYPE`], an ordinary image config that
//! also carries the resolved Agentfile, and tar layers. An `.aap` is the tar of an OCI image
//! layout with exactly one package and what is attached to it.
//!
//! - [`archive`] writes archives, and reads them into a spool with every byte verified.
//! - [`repository`] keeps the blobs of packages for several processes at once: tags, attachments,
//!   leases, collection of garbage.
//! - [`store`] keeps packages: blobs, an index and unpacked roots, safe against crashes.
//!
//! Nothing here executes anything, and nothing uses the network. Archives are untrusted: all that
//! they can cause is in [`bounds`].

pub mod archive;
pub mod bounds;
mod hashing;
pub mod layer;
pub mod oci;
pub mod repository;
pub mod store;
pub mod tarball;
pub mod unpack;
