//! The connection to the supervisor, and what to do about its errors.

use anyhow::{Error, Result};
use aos_client::{AgentView, Client, ClientError, ErrorKind};
use zbus::proxy::MethodFlags;

use crate::failure::advised;

/// Who may do what, by the polkit actions as installed.
const RIGHTS: &str = "run it with sudo; members of the group `aos` may look, administrators may change";

/// Connects to the supervisor over the system bus.
pub(crate) async fn connect() -> Result<Client> {
    Client::connect().await.map_err(explain)
}

/// An error of the supervisor with a hint where the operator can act. What the supervisor itself says about
/// an agent or a package already ends with what to do, and gets no second advice.
pub(crate) fn explain(error: ClientError) -> Error {
    let hint = match &error {
        ClientError::Agentd { kind: ErrorKind::Busy, .. } => Some("try again in a moment"),
        ClientError::Agentd { kind: ErrorKind::NoSpace, .. } => {
            Some("`aos packages` shows what the packages take; `aos packages remove` removes one")
        }
        error if is_not_authorised(error) => Some(RIGHTS),
        ClientError::Agentd { .. } | ClientError::NotAuthorised(_) => None,
        ClientError::NotRunning(_) | ClientError::Deadline(_) => None,
        ClientError::NoBus(_) => Some("AOS needs systemd and D-Bus: run it on a booted machine"),
        ClientError::Transport(_) => Some("the versions of `aos` and `agentd` may differ: aos status"),
    };
    match hint {
        Some(hint) => advised(error, hint),
        None => error.into(),
    }
}

/// True when the supervisor does not know the agent or the package.
pub(crate) fn is_not_found(error: &ClientError) -> bool {
    error.kind() == Some(ErrorKind::NotFound)
}

/// True when the bus, or polkit by way of the supervisor, does not let this user do it.
pub(crate) fn is_not_authorised(error: &ClientError) -> bool {
    match error {
        ClientError::Agentd { kind: ErrorKind::Refused, message } => message.starts_with("not authorised"),
        other => matches!(other, ClientError::NotAuthorised(_)),
    }
}

/// The agents, for completing a command line: nobody is asked for a password, and nothing is started for it.
pub(crate) async fn agents_quietly() -> zbus::Result<Vec<AgentView>> {
    list_quietly("ListAgents").await
}

/// The packages, likewise.
pub(crate) async fn packages_quietly() -> zbus::Result<Vec<aos_client::PackageView>> {
    list_quietly("ListPackages").await
}

async fn list_quietly<T>(method: &str) -> zbus::Result<Vec<T>>
where
    T: for<'d> serde::Deserialize<'d> + zbus::Type + 'static,
{
    let bus = zbus::Connection::system().await?;
    let manager = zbus::Proxy::new(
        &bus,
        aos_client::names::BUS_NAME,
        aos_client::names::MANAGER_PATH,
        aos_client::names::MANAGER_INTERFACE,
    )
    .await?;
    let answer: Option<Vec<T>> = manager.call_with_flags(method, MethodFlags::NO_AUTO_START, &()).await?;
    Ok(answer.unwrap_or_default())
}
