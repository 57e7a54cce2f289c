//! The D-Bus face: `org.aos.Agentd1`.
//!
//! [`manager`] and [`agent`] are the objects, [`access`] decides who may do what, [`parse`] turns bounded strings
//! into types, [`signals`] is the task that sends signals and keeps the agents' objects in step with the agents.
//! zbus runs each call as a task of its own; [`access::Gate`] bounds how many there are.
//!
//! Nothing about an agent is answered without the gate: there are no properties but the manager's version, and no
//! ObjectManager. Who may receive signals and introspect is in the bus's policy, `org.aos.Agentd1.conf`.

pub mod access;
pub mod agent;
mod exec;
pub mod manager;
mod parse;
pub mod signals;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use zbus::Connection;
use zbus::fdo::{RequestNameFlags, RequestNameReply};

use crate::packages::Packages;
use crate::service::Service;
use crate::systemd::Systemd;

/// Why the bus cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Another process has the name.
    #[error(
        "another process has the bus name {}; is agentd running already? (systemctl status agentd)",
        aos_client::names::BUS_NAME
    )]
    NameTaken,
    /// The bus reports an error.
    #[error("the bus refuses the supervisor: {0}")]
    Bus(#[from] zbus::Error),
}

/// Puts the manager object on the connection. The name is taken last, by [`take_name`].
pub async fn serve<S: Systemd, P: Packages>(
    connection: &Connection,
    service: Arc<Service<S, P>>,
    gate: access::Gate,
) -> Result<(), ServeError> {
    let manager = manager::Manager::new(service, gate);
    connection.object_server().at(aos_client::names::MANAGER_PATH, manager).await?;
    Ok(())
}

/// Takes the well-known name, without waiting in a queue for it.
pub async fn take_name(connection: &Connection) -> Result<(), ServeError> {
    let flags = RequestNameFlags::DO_NOT_QUEUE;
    match connection.request_name_with_flags(aos_client::names::BUS_NAME, flags).await {
        Ok(RequestNameReply::PrimaryOwner | RequestNameReply::AlreadyOwner) => Ok(()),
        Ok(_) | Err(zbus::Error::NameTaken) => Err(ServeError::NameTaken),
        Err(error) => Err(error.into()),
    }
}
