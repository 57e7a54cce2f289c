//! The task that tells the bus what happened: it receives the agents' events in order, keeps one object per agent
//! on the bus, and sends the signals. It owns nothing but the set of objects.

use std::sync::Arc;

use aos_client::AgentView;
use aos_client::names::{MANAGER_PATH, agent_path};
use aos_core::id::AgentId;
use tokio::sync::mpsc;
use zbus::Connection;
use zbus::object_server::SignalEmitter;

use super::access::Gate;
use super::agent::Agent;
use super::manager::Manager;
use crate::agent::Event;
use crate::packages::Packages;
use crate::service::Service;
use crate::systemd::Systemd;

/// The word of `AgentChanged` for an agent that is no more.
const REMOVED: &str = "removed";

/// The task's state.
#[derive(Debug)]
pub struct Signals<S, P> {
    connection: Connection,
    service: Arc<Service<S, P>>,
    gate: Gate,
}

impl<S: Systemd, P: Packages> Signals<S, P> {
    /// Signals on `connection` about the agents of `service`.
    #[must_use]
    pub fn new(connection: &Connection, service: Arc<Service<S, P>>, gate: Gate) -> Self {
        Self { connection: connection.clone(), service, gate }
    }

    /// Tells, until all senders of events are gone.
    pub async fn run(self, mut events: mpsc::Receiver<Event>) {
        while let Some(event) = events.recv().await {
            if let Err(error) = self.tell(event).await {
                tracing::warn!(%error, "a signal cannot be sent");
            }
        }
    }

    async fn tell(&self, event: Event) -> zbus::Result<()> {
        let manager = SignalEmitter::new(&self.connection, MANAGER_PATH)?;
        match event {
            Event::Changed { before, now } => {
                let is_new_state = before.as_ref().is_none_or(|before| before.state != now.state);
                if before.is_none() {
                    self.add(&now).await?;
                }
                if is_new_state {
                    Manager::<S, P>::agent_changed(&manager, &now.id, &now.state).await?;
                }
                Ok(())
            }
            Event::Exited { id, invocation, result, status } => {
                Manager::<S, P>::agent_exited(&manager, id.as_str(), invocation.as_str(), result, status)
                    .await
            }
            Event::Removed { id } => {
                self.connection.object_server().remove::<Agent<S, P>, _>(agent_path(id.as_str())).await?;
                Manager::<S, P>::agent_changed(&manager, id.as_str(), REMOVED).await
            }
        }
    }

    async fn add(&self, view: &AgentView) -> zbus::Result<()> {
        let id: AgentId = view.id.parse().map_err(|_| zbus::Error::Failure("not an agent id".to_owned()))?;
        let object = Agent::new(id, Arc::clone(&self.service), self.gate.clone());
        self.connection.object_server().at(agent_path(&view.id), object).await?;
        Ok(())
    }
}
