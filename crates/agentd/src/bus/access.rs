//! Who may do what: polkit decides, root always may, and everybody is bounded.
//!
//! A caller is its unique name on the bus. polkit is asked with that name and the caller's own wish to be asked
//! for a password. When polkit is away, or does not answer, the answer is no; root is recognised by the bus
//! before that, so that a rescue system without polkit can be worked on.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use zbus::Connection;
use zbus::fdo::DBusProxy;
use zbus::message::{Flags, Header};
use zbus_polkit::policykit1::{AuthorityProxy, CheckAuthorizationFlags, Subject};

use crate::change::{Apply, Change};
use crate::failure::Failure;

/// Longest wait for the bus or for polkit without a person.
const DEADLINE: Duration = Duration::from_secs(25);
/// Longest wait for a person at a password prompt.
const PERSON_DEADLINE: Duration = Duration::from_secs(300);

/// What a caller wants to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Right {
    /// See agents and packages.
    Read,
    /// Start, stop, enable, remove agents.
    Manage,
    /// Give an agent capabilities that it does not have.
    Grant,
    /// Install packages that the trust policy trusts, and remove packages.
    Install,
    /// Install packages without a signature, as built on this machine.
    InstallLocal,
}

impl Right {
    /// All rights, for tables and tests.
    pub const ALL: [Self; 5] = [Self::Read, Self::Manage, Self::Grant, Self::Install, Self::InstallLocal];

    /// The polkit action.
    #[must_use]
    pub const fn action(self) -> &'static str {
        match self {
            Self::Read => aos_client::names::ACTION_READ,
            Self::Manage => aos_client::names::ACTION_MANAGE,
            Self::Grant => aos_client::names::ACTION_GRANT,
            Self::Install => aos_client::names::ACTION_INSTALL,
            Self::InstallLocal => aos_client::names::ACTION_INSTALL_LOCAL,
        }
    }
}

/// What a change of capabilities needs: a grant is an action of its own, and who may grant may not for that stop what
/// runs.
#[must_use]
pub(super) const fn rights_to_change(change: &Change, apply: Apply) -> &'static [Right] {
    match (change, apply) {
        (Change::Grant(_), Apply::NextStart) => &[Right::Grant],
        (Change::Grant(_), Apply::Restart | Apply::Stop) => &[Right::Grant, Right::Manage],
        (Change::Narrow(_) | Change::Revoke(_), _) => &[Right::Manage],
    }
}

/// Bounds what is served at a time, and asks polkit.
#[derive(Debug, Clone)]
pub struct Gate {
    connection: Connection,
    calls: Arc<PerUser>,
    installs: Arc<PerUser>,
}

/// Permission to go on; held for the length of the call.
#[derive(Debug)]
pub struct Pass {
    uid: u32,
    _call: Option<Counted>,
    _install: Option<Counted>,
}

impl Pass {
    /// Who was let through.
    #[must_use]
    pub const fn uid(&self) -> u32 {
        self.uid
    }
}

impl Gate {
    /// A gate on `connection` for `max_calls` calls at a time of each user but root, and `max_installs` installs of
    /// each user.
    #[must_use]
    pub fn new(connection: &Connection, max_calls: usize, max_installs: usize) -> Self {
        Self {
            connection: connection.clone(),
            calls: PerUser::new("calls", max_calls),
            installs: PerUser::new("installs", max_installs),
        }
    }

    /// Lets the caller of `header` do this, or says why not. Root is not bounded in calls: it must get through when
    /// others crowd.
    pub async fn admit(&self, header: &Header<'_>, right: Right) -> Result<Pass, Failure> {
        self.admit_all(header, &[right]).await
    }

    /// The same for a call that needs several rights.
    pub async fn admit_all(&self, header: &Header<'_>, rights: &[Right]) -> Result<Pass, Failure> {
        let uid = self.uid(header).await?;
        let call = if uid == 0 { None } else { Some(self.calls.count(uid)?) };
        let is_install = rights.iter().any(|right| matches!(right, Right::Install | Right::InstallLocal));
        let install = if is_install { Some(self.installs.count(uid)?) } else { None };
        if uid != 0 {
            for &right in rights {
                self.ask_polkit(header, right).await?;
            }
        }
        Ok(Pass { uid, _call: call, _install: install })
    }

    async fn uid(&self, header: &Header<'_>) -> Result<u32, Failure> {
        let sender = header.sender().ok_or_else(no_sender)?.to_owned();
        let ask =
            async { DBusProxy::new(&self.connection).await?.get_connection_unix_user(sender.into()).await };
        match tokio::time::timeout(DEADLINE, ask).await {
            Ok(Ok(uid)) => Ok(uid),
            Ok(Err(error)) => Err(Failure::refused(format!("the bus does not know the caller: {error}"))),
            Err(_) => Err(Failure::refused("the bus did not say who the caller is")),
        }
    }

    async fn ask_polkit(&self, header: &Header<'_>, right: Right) -> Result<(), Failure> {
        let may_ask = header.primary().flags().contains(Flags::ALLOW_INTERACTIVE_AUTH);
        let (flags, deadline) = match may_ask {
            true => (CheckAuthorizationFlags::ALLOW_USER_INTERACTION, PERSON_DEADLINE),
            false => (CheckAuthorizationFlags::empty(), DEADLINE),
        };
        let action = right.action();
        let subject = Subject::new_for_message_header(header).map_err(|_| no_sender())?;
        let ask = async {
            let authority = AuthorityProxy::builder(&self.connection)
                .cache_properties(zbus::proxy::CacheProperties::No)
                .build()
                .await?;
            authority.check_authorization(&subject, action, &HashMap::new(), flags, "").await
        };
        match tokio::time::timeout(deadline, ask).await {
            Ok(Ok(answer)) if answer.is_authorized => Ok(()),
            Ok(Ok(answer)) if answer.is_challenge && !may_ask => Err(Failure::refused(format!(
                "not authorised for {action}: an administrator's password is needed, and the call did not allow asking for it"
            ))),
            Ok(Ok(_)) => Err(Failure::refused(format!("not authorised for {action}"))),
            Ok(Err(error)) => {
                tracing::warn!(%error, action, "polkit does not answer; refused");
                Err(Failure::refused(format!(
                    "not authorised for {action}: polkit cannot be asked; root may always"
                )))
            }
            Err(_) => Err(Failure::refused(format!("not authorised for {action}: no answer in time"))),
        }
    }
}

fn no_sender() -> Failure {
    Failure::refused("a call without a sender is not served")
}

/// How many of something each user has running.
#[derive(Debug)]
struct PerUser {
    what: &'static str,
    most: usize,
    running: Mutex<HashMap<u32, usize>>,
}

/// One that is running; counts until it is dropped.
#[derive(Debug)]
struct Counted {
    of: Arc<PerUser>,
    uid: u32,
}

impl PerUser {
    fn new(what: &'static str, most: usize) -> Arc<Self> {
        Arc::new(Self { what, most, running: Mutex::default() })
    }

    fn count(self: &Arc<Self>, uid: u32) -> Result<Counted, Failure> {
        let mut running = self.table();
        let count = running.entry(uid).or_default();
        if *count >= self.most {
            let (what, most) = (self.what, self.most);
            return Err(Failure::busy(format!("this user has {most} {what} running; wait for one to end")));
        }
        *count += 1;
        drop(running);
        Ok(Counted { of: Arc::clone(self), uid })
    }

    fn table(&self) -> MutexGuard<'_, HashMap<u32, usize>> {
        // The critical sections cannot panic.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut running = self.of.table();
        if let Some(count) = running.get_mut(&self.uid) {
            *count -= 1;
            if *count == 0 {
                running.remove(&self.uid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// polkit knows only declared actions, and answers the supervisor only about its own.
    #[test]
    fn every_right_is_an_action_of_the_policy() {
        let policy = include_str!("../../../../systemd/polkit/org.aos.agentd1.policy");
        let actions: Vec<&str> = policy.split("<action id=\"").skip(1).collect();
        assert_eq!(actions.len(), Right::ALL.len());
        for right in Right::ALL {
            let id = format!("{}\"", right.action());
            let action = actions.iter().find(|action| action.starts_with(&id)).unwrap();
            assert!(action.contains(">unix-user:aos</annotate>"), "{id}");
            assert_eq!(action.matches(">auth_admin_keep</allow_").count(), 3, "{id}");
        }
    }

    #[test]
    fn a_grant_that_ends_a_run_needs_both_rights() {
        let none = aos_core::capability::CapabilitySet::new;
        let grant = |apply| rights_to_change(&Change::Grant(none()), apply);
        assert_eq!(grant(Apply::NextStart), [Right::Grant]);
        for apply in [Apply::Restart, Apply::Stop] {
            assert_eq!(grant(apply), [Right::Grant, Right::Manage]);
            assert_eq!(rights_to_change(&Change::Revoke(none()), apply), [Right::Manage]);
        }
        assert_eq!(rights_to_change(&Change::Narrow(none()), Apply::NextStart), [Right::Manage]);
    }

    #[test]
    fn each_user_is_counted() {
        let installs = PerUser::new("installs", 2);
        let first = installs.count(1000).unwrap();
        let _second = installs.count(1000).unwrap();
        assert_eq!(installs.count(1000).unwrap_err().kind(), aos_client::ErrorKind::Busy);
        drop(installs.count(1001).unwrap());
        drop(first);
        let _third = installs.count(1000).unwrap();
        assert_eq!(installs.table().len(), 1);
    }
}
