//! The client of registries, with this user's credentials and settings.

use anyhow::{Context, Error, Result};
use aos_core::reference::Reference;
use aos_registry::{Client, DockerConfig, Options, PlainHttp, RequestError};
use clap::Args;

use crate::environment;
use crate::exit;
use crate::failure::advised;

/// How to speak to registries.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct RegistryArgs {
    /// Speak HTTP without TLS to this registry, HOST[:PORT]; localhost needs no such word
    #[arg(long, value_name = "HOST", help_heading = "Registries")]
    plain_http: Vec<String>,

    /// Blobs that are transferred at once
    #[arg(
        long,
        value_name = "NUMBER",
        default_value_t = 4,
        value_parser = clap::value_parser!(u8).range(1..=16),
        help_heading = "Registries"
    )]
    parallel: u8,
}

/// A client. It connects when it is used.
pub(crate) fn client(args: &RegistryArgs) -> Result<Client> {
    let mut credentials = DockerConfig::default();
    for file in environment::credential_files() {
        let found = DockerConfig::load(&file).context("cannot use the credentials of registries")?;
        credentials = credentials.or(found);
    }
    let options = Options {
        credentials,
        plain_http: PlainHttp::also(args.plain_http.iter().cloned()),
        parallel: usize::from(args.parallel.max(1)),
        ..Options::default()
    };
    Ok(Client::new(options))
}

/// An error of a registry with what was tried, and what to do where that is known.
pub(crate) fn failed(error: impl Into<Error>, verb: &str, reference: &Reference) -> Error {
    let error = error.into();
    let host = reference.registry.as_ref().map_or_else(String::new, ToString::to_string);
    let advice = match exit::request_of(&error) {
        Some(RequestError::Connect { .. }) => Some(format!(
            "is {host} the right name, and can it be reached? One without TLS needs --plain-http {host}"
        )),
        Some(RequestError::Denied { .. }) => {
            Some(format!("log in with `skopeo login {host}`, as somebody who may"))
        }
        Some(RequestError::NotFound { .. }) if verb == "pull" => {
            Some(format!("`aos inspect {}` shows its highest version", reference.repository()))
        }
        _ => None,
    };
    let error = match advice {
        Some(advice) => advised(error, advice),
        None => error,
    };
    error.context(format!("cannot {verb} {reference}"))
}
