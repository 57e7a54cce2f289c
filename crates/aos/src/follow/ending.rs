//! How a run ended, what exit status that is, and telling it from the supervisor's view of the agent.

use anyhow::{Result, anyhow};
use aos_client::{AgentView, Client, ClientError};

use crate::commands::agents::is_active;
use crate::supervisor;

/// How following a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The agent exited with this status.
    Status(u8),
    /// The agent was ended by this signal.
    Signal(u8),
    /// systemd ended it because its time was over.
    Timeout,
    /// It did not come to run, or systemd could not tell how it ended: systemd's `Result`.
    Other(String),
    /// The operator left; the agent may go on.
    Left,
    /// Nobody reads the output any more; the agent goes on.
    Closed,
}

impl Ending {
    /// Reads systemd's `Result` and `ExecMainStatus` (systemd.exec(5), `$SERVICE_RESULT`).
    pub(crate) fn of(result: &str, status: i32) -> Self {
        let number = u8::try_from(status).unwrap_or(u8::MAX);
        match result {
            // The launcher passes on the end of an agent by a signal as 128 + signal, as shells do; of these,
            // 143 (stopped when asked) is a success.
            "success" if status == 0 || status > 128 => Self::Status(number),
            // systemd takes an end by SIGTERM itself for a success, too.
            "success" | "signal" | "core-dump" | "watchdog" => Self::Signal(number),
            "exit-code" => Self::Status(number),
            // The kernel ends it by SIGKILL.
            "oom-kill" => Self::Signal(9),
            "timeout" => Self::Timeout,
            other => Self::Other(other.to_owned()),
        }
    }

    /// The exit status of `aos run`, as shells, timeout(1) and docker-run(1) have it.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Status(status) => *status,
            Self::Signal(signal) => 128_u8.saturating_add(*signal),
            Self::Timeout => 124,
            Self::Other(_) => crate::OWN_FAILURE,
            // 128 + SIGINT and 128 + SIGPIPE.
            Self::Left => 130,
            Self::Closed => 141,
        }
    }

    /// A remark for endings that the exit status alone does not explain.
    pub(crate) fn remark(&self, id: &str) -> Option<String> {
        match self {
            Self::Timeout => Some(format!("{id} took longer than its limit and was ended")),
            Self::Signal(9) | Self::Status(137) => {
                Some(format!("{id} was killed; `aos status {id}` shows why"))
            }
            Self::Other(result) => Some(format!("{id} ended: {result}; `aos logs --system {id}` shows more")),
            Self::Closed => Some(format!("nobody reads the output; {id} goes on (aos logs {id})")),
            Self::Status(_) | Self::Signal(_) | Self::Left => None,
        }
    }
}

/// The run that is followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) id: String,
    pub(super) invocation: String,
    pub(super) persistent: bool,
}

impl Known {
    /// What a view of the agent says about the run; `None` while it goes on.
    fn read(&mut self, view: &AgentView) -> Result<Option<Ending>> {
        self.persistent = view.lifecycle == "persistent";
        let active = is_active(view);
        match &view.invocation_id {
            Some(invocation) if *invocation == self.invocation && active => Ok(None),
            Some(invocation) if *invocation == self.invocation => {
                let result = view.result.as_deref().unwrap_or("success");
                Ok(Some(Ending::of(result, view.exit_status.unwrap_or_default())))
            }
            Some(invocation) if self.persistent && active => {
                self.invocation.clone_from(invocation);
                Ok(None)
            }
            _ if active && self.persistent => Ok(None),
            _ => Err(anyhow!("the run of {} ended, and another one has replaced it", self.id)),
        }
    }
}

/// Asks the supervisor how the run stands. A supervisor that does not answer now is no end: it is asked again.
pub(super) async fn judge(client: &Client, known: &mut Known) -> Result<Option<Ending>> {
    match client.agent(&known.id).await {
        Ok(view) => known.read(&view),
        Err(error) if supervisor::is_not_found(&error) => Err(anyhow!("{} was removed", known.id)),
        Err(ClientError::NoBus(error)) => Err(error.into()),
        Err(_) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_statuses() {
        let code = |result, status| Ending::of(result, status).code();
        assert_eq!(code("success", 0), 0);
        assert_eq!(code("exit-code", 3), 3);
        assert_eq!(code("signal", 11), 139);
        assert_eq!(code("core-dump", 6), 134);
        assert_eq!(code("success", 15), 143);
        assert_eq!(code("success", 143), 143);
        assert_eq!(code("exit-code", 137), 137);
        assert_eq!(code("oom-kill", 0), 137);
        assert_eq!(code("timeout", 15), 124);
        assert_eq!(code("resources", 0), 125);
        assert_eq!(code("exit-code", -1), 255);
    }

    fn view(state: &str, invocation: &str, lifecycle: &str) -> AgentView {
        AgentView {
            id: "x".into(),
            reference: "x:1.0.0".into(),
            digest: String::new(),
            state: state.into(),
            enabled: false,
            desired: String::new(),
            lifecycle: lifecycle.into(),
            main_pid: None,
            invocation_id: Some(invocation.into()),
            result: Some("exit-code".into()),
            exit_status: Some(4),
            started_at_us: None,
            exited_at_us: None,
            memory_current: None,
            disk_limit: None,
            disk_used: None,
            unit: String::new(),
            uid: None,
            user: String::new(),
            capabilities: Vec::new(),
            in_force: None,
            workspace: None,
            error: None,
        }
    }

    #[test]
    fn what_a_view_says() {
        let known = || Known { id: "x".into(), invocation: "a".into(), persistent: false };
        assert_eq!(known().read(&view("running", "a", "oneshot")).unwrap(), None);
        assert_eq!(known().read(&view("failed", "a", "oneshot")).unwrap(), Some(Ending::Status(4)));
        assert!(known().read(&view("running", "b", "oneshot")).is_err());
        let mut persistent = known();
        assert_eq!(persistent.read(&view("running", "b", "persistent")).unwrap(), None);
        assert_eq!(persistent.invocation, "b");
    }
}
