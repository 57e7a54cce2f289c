//! Whose fork an agent is: it then has the number of that agent's user, whose files it works with.
//!
//! `/var/lib/aos/forks/ID` is the supervisor's: `PARENT NUMBER` on one line. What it may bring about is bounded by what
//! the supervisor may anyway: start any agent with a plan of its choice, hence as any agent's user. A user that is no
//! agent's cannot be named by it.

use std::path::Path;

use aos_core::id::AgentId;

use crate::accounts::AccountError;
use crate::files::{Folder, Found};

/// The agent whose fork `id` is, if it is one.
pub(crate) fn parent(folder: &Path, id: &AgentId) -> Result<Option<AgentId>, AccountError> {
    let path = folder.join(id.as_str());
    let failed = |source| AccountError::Io { what: "read", path: path.clone(), source };
    let opened = match Folder::open_existing(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(failed)?,
    };
    match opened.look(id.as_str()).map_err(failed)? {
        Found::Nothing => Ok(None),
        Found::File(bytes) => {
            let text = std::str::from_utf8(&bytes).ok();
            let parent =
                text.and_then(|text| text.split_once(' ')).and_then(|(parent, _)| parent.parse().ok());
            parent.filter(|parent| parent != id).map(Some).ok_or(AccountError::Fork(path))
        }
        Found::Link(_) | Found::Other => Err(AccountError::Fork(path)),
    }
}
