//! Commands in the sandbox of an agent that runs: who may ask for what is decided here, the rest is between the
//! agent's launcher and the caller, who get the ends of one socket pair. So a call outlives this program, and ends with
//! its caller.
//!
//! That the supervisor asks, a launcher sees by the control key: a file that nobody else can open for writing. It is
//! opened for each request, and made when it is not there.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use aos_core::config::Isolation;
use aos_core::id::AgentId;
use aos_core::state::AgentState;
use aos_sandbox::call::{AskError, CallRequest, ask};
use rustix::fs::{Mode, OFlags, open};

use crate::db::AgentRecord;
use crate::failure::Failure;
use crate::packages::Packages;
use crate::service::Service;
use crate::systemd::Systemd;

/// The control key, in the supervisor's state directory. `aos-agent@.service` names it too.
const KEY: &str = "control.key";
/// A launcher's control socket, in the agent's runtime directory. `aos-agent@.service` names it too.
const CONTROL: &str = "control";

impl<S: Systemd, P: Packages> Service<S, P> {
    /// Asks for a command in an agent's sandbox, with these standard streams. Returns where the launcher answers:
    /// [`aos_sandbox::call::CallAnswer`] in one message. The command is ended when that socket is closed.
    pub async fn exec(
        &self,
        id: &AgentId,
        request: CallRequest,
        streams: [OwnedFd; 3],
    ) -> Result<OwnedFd, Failure> {
        let handle = self.registry().get(id)?;
        let record = handle.record().ok_or_else(|| Failure::no_agent(id.as_str()))?;
        let state = handle.view().map(|view| view.state);
        self.refuse_unable(&record, state.as_deref()).await?;
        if let Some(narrower) = &request.capabilities {
            // What the run was given; the launcher compares with its plan again.
            let given = record.in_force.as_ref().unwrap_or(&record.spec.capabilities);
            given.narrow(narrower.clone()).map_err(|error| {
                Failure::refused(format!("{error}; a command can have no more than its agent"))
            })?;
        }
        let places = &self.registry().context().settings.places;
        let (key, control) = (places.state.join(KEY), places.reports.join(id.as_str()).join(CONTROL));
        let asked = tokio::task::spawn_blocking(move || ask_launcher(&key, &control, &request, &streams));
        let asked = asked.await.map_err(|error| Failure::failed(&error))?;
        asked.map_err(|failure| failure.with_agent(id))
    }

    /// Refuses what no launcher would serve, with the reason.
    async fn refuse_unable(&self, record: &AgentRecord, state: Option<&str>) -> Result<(), Failure> {
        let id = &record.id;
        match state.and_then(|word| word.parse().ok()) {
            Some(AgentState::Running) => {}
            Some(AgentState::Paused) => {
                let text = format!("agent {id} is paused, and so would be the command");
                return Err(Failure::refused(text).with_hint(&format!("aos resume {id}")));
            }
            _ => {
                let text = format!("agent {id} does not run");
                return Err(Failure::refused(text).with_hint(&format!("aos start {id}")));
            }
        }
        let package = self.packages().get(&record.spec.reference, &record.spec.digest).await?;
        let isolation = package.config.run().map_err(Failure::invalid)?.isolation;
        if isolation != Isolation::Native {
            return Err(Failure::refused(format!(
                "agent {id} has `isolation: {}`, in which no command can be run beside it; `native` can",
                isolation.as_str()
            )));
        }
        Ok(())
    }
}

/// Why a launcher was not asked.
enum NotAsked {
    Key(PathBuf, rustix::io::Errno),
    Ask(AskError),
}

impl NotAsked {
    fn with_agent(self, id: &AgentId) -> Failure {
        match self {
            Self::Key(path, error) => {
                tracing::error!(path = %path.display(), %error, "the control key cannot be opened");
                Failure::new(aos_client::ErrorKind::Failed, format!("{}: {error}", path.display()))
            }
            Self::Ask(AskError::Request(error)) => Failure::invalid(error),
            Self::Ask(AskError::Full) => {
                Failure::busy(format!("agent {id} has too many commands waiting to be started"))
            }
            // A launcher that was started before this version.
            Self::Ask(error @ AskError::Nobody) => {
                Failure::refused(format!("agent {id}: {error}")).with_hint(&format!("aos restart {id}"))
            }
            Self::Ask(error) => Failure::failed(&error),
        }
    }
}

fn ask_launcher(
    key: &Path,
    control: &Path,
    request: &CallRequest,
    [input, output, errors]: &[OwnedFd; 3],
) -> Result<OwnedFd, NotAsked> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened =
        open(key, flags, Mode::RUSR | Mode::WUSR).map_err(|error| NotAsked::Key(key.to_owned(), error))?;
    ask(control, opened.as_fd(), request, [input.as_fd(), output.as_fd(), errors.as_fd()])
        .map_err(NotAsked::Ask)
}
