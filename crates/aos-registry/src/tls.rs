//! TLS: ring, the system's certificate authorities, and those that a host has of its own.

use crate::bounds::{CERTIFICATE_FILES_MAX, FILE_MAX};
use crate::options::Options;
use crate::origin::Origin;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use thiserror::Error;

/// Why there is no TLS with a host.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A directory or file of certificates cannot be read.
    #[error("cannot read the certificates in `{}`", .path.display())]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// What went wrong.
        source: std::io::Error,
    },
    /// A file is not a certificate or key.
    #[error("`{}` is not a PEM file with a {expected}", .path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What it should be.
        expected: &'static str,
    },
    /// There are too many files, or one is too large.
    #[error("`{}` has more than {max} {unit}", .path.display())]
    TooMany {
        /// The file or directory.
        path: PathBuf,
        /// The bound.
        max: u64,
        /// Of what.
        unit: &'static str,
    },
    /// No certificate authority is known.
    #[error("no certificate authority is trusted: install the package ca-certificates, or put the registry's into `{}`", .0.display())]
    NoRoots(PathBuf),
    /// The TLS library refuses a certificate or key.
    #[error("the certificates for `{host}` cannot be used")]
    Refused {
        /// The host.
        host: String,
        /// What it says.
        source: rustls::Error,
    },
}

/// The system's certificate authorities, read once; `SSL_CERT_FILE` and `SSL_CERT_DIR` replace
/// them (by rustls-native-certs). One that cannot be parsed is passed over, as OpenSSL does it:
/// it is trusted by nobody then.
fn system_roots() -> Arc<RootCertStore> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    let load = || {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        Arc::new(roots)
    };
    ROOTS.get_or_init(load).clone()
}

/// The directory of certificates of a host that has one.
pub(crate) fn directory(options: &Options, origin: &Origin) -> Option<PathBuf> {
    let name = origin.authority();
    // `HOST:443` is the name that docker also takes.
    let long = format!("{name}:{}", origin.port);
    options.certificates.iter().flat_map(|all| [all.join(&name), all.join(&long)]).find(|path| path.is_dir())
}

/// The TLS settings for a host. For plain HTTP they are empty: nothing is trusted.
pub(crate) fn settings(options: &Options, origin: &Origin) -> Result<ClientConfig, TlsError> {
    let refused = |source| TlsError::Refused { host: origin.authority(), source };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(refused)?;
    if !origin.https {
        return Ok(builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth());
    }
    let mut roots = system_roots();
    let mut client = None;
    if let Some(directory) = directory(options, origin) {
        let found = Found::read(&directory)?;
        for (path, certificate) in found.authorities {
            let bad = |_| TlsError::Pem { path, expected: "certificate" };
            Arc::make_mut(&mut roots).add(certificate).map_err(bad)?;
        }
        client = found.client;
    }
    if roots.is_empty() {
        let all = options.certificates.first().cloned().unwrap_or_default();
        return Err(TlsError::NoRoots(all.join(origin.authority())));
    }
    let builder = builder.with_root_certificates(roots);
    match client {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).map_err(refused),
        None => Ok(builder.with_no_client_auth()),
    }
}

/// A client's certificate, with those between it and an authority, and its key.
type Client = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// What a host's directory has.
struct Found {
    authorities: Vec<(PathBuf, CertificateDer<'static>)>,
    client: Option<Client>,
}

impl Found {
    fn read(directory: &Path) -> Result<Self, TlsError> {
        let failed = |source| TlsError::Read { path: directory.to_owned(), source };
        let entries: Result<Vec<_>, _> = std::fs::read_dir(directory).map_err(failed)?.collect();
        let mut paths: Vec<_> = entries.map_err(failed)?.into_iter().map(|entry| entry.path()).collect();
        if paths.len() > CERTIFICATE_FILES_MAX {
            let max = CERTIFICATE_FILES_MAX as u64;
            return Err(TlsError::TooMany { path: directory.to_owned(), max, unit: "files" });
        }
        paths.sort();
        let mut found = Self { authorities: Vec::new(), client: None };
        for path in paths {
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("crt") => {
                    let all = certificates(&path)?;
                    found.authorities.extend(all.into_iter().map(|certificate| (path.clone(), certificate)));
                }
                Some("cert") if found.client.is_none() => found.client = Some(client(&path)?),
                _ => {}
            }
        }
        Ok(found)
    }
}

fn client(path: &Path) -> Result<Client, TlsError> {
    let key = path.with_extension("key");
    let bytes = zeroize::Zeroizing::new(read(&key)?);
    let parsed = PrivateKeyDer::from_pem_slice(&bytes);
    Ok((certificates(path)?, parsed.map_err(|_| TlsError::Pem { path: key, expected: "private key" })?))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let bytes = read(path)?;
    let bad = || TlsError::Pem { path: path.to_owned(), expected: "certificate" };
    let all: Vec<_> = CertificateDer::pem_slice_iter(&bytes).collect::<Result<_, _>>().map_err(|_| bad())?;
    if all.is_empty() { Err(bad()) } else { Ok(all) }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let failed = |source| TlsError::Read { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(FILE_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(TlsError::TooMany { path: path.to_owned(), max: FILE_MAX, unit: "bytes" });
    }
    Ok(bytes)
}
