//! `org.aos.Agentd1.Agent`: one object per agent.
//!
//! It has methods and no properties: a method's answer can be a refusal by polkit, where zbus answers
//! `GetAll` with what it could read. Every method passes the [`Gate`].

use std::sync::Arc;

use aos_client::AgentView;
use aos_core::id::AgentId;
use zbus::message::Header;

use super::access::{Gate, Right};
use crate::failure::Failure;
use crate::packages::Packages;
use crate::service::Service;
use crate::systemd::Systemd;

/// An agent's object.
#[derive(Debug)]
pub struct Agent<S, P> {
    id: AgentId,
    service: Arc<Service<S, P>>,
    gate: Gate,
}

impl<S: Systemd, P: Packages> Agent<S, P> {
    /// The object of agent `id`.
    #[must_use]
    pub fn new(id: AgentId, service: Arc<Service<S, P>>, gate: Gate) -> Self {
        Self { id, service, gate }
    }
}

#[zbus::interface(name = "org.aos.Agentd1.Agent")]
impl<S: Systemd, P: Packages> Agent<S, P> {
    /// The agent, as `GetAgent` of the manager shows it.
    #[zbus(out_args("agent"))]
    async fn get(&self, #[zbus(header)] header: Header<'_>) -> Result<AgentView, Failure> {
        let _pass = self.gate.admit(&header, Right::Read).await?;
        self.service.agent(&self.id).await
    }

    /// Starts the agent.
    #[zbus(out_args("invocation_id"))]
    async fn start(&self, #[zbus(header)] header: Header<'_>) -> Result<String, Failure> {
        let _pass = self.gate.admit(&header, Right::Manage).await?;
        Ok(self.service.start(&self.id).await?.to_string())
    }

    /// Stops the agent, and waits until it has stopped.
    async fn stop(&self, #[zbus(header)] header: Header<'_>) -> Result<(), Failure> {
        let _pass = self.gate.admit(&header, Right::Manage).await?;
        self.service.stop(&self.id).await
    }

    /// Freezes the agent's processes, and waits until they are.
    async fn pause(&self, #[zbus(header)] header: Header<'_>) -> Result<(), Failure> {
        let _pass = self.gate.admit(&header, Right::Manage).await?;
        self.service.pause(&self.id).await
    }

    /// Lets the paused agent go on.
    async fn resume(&self, #[zbus(header)] header: Header<'_>) -> Result<(), Failure> {
        let _pass = self.gate.admit(&header, Right::Manage).await?;
        self.service.resume(&self.id).await
    }
}
