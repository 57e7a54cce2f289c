//! The watcher: turns systemd's signals into "look at this agent again" and "this job ended".
//!
//! It is one task with three subscriptions (`JobRemoved`, `PropertiesChanged` of units, and the owner of
//! systemd's name) and no state. It never waits on anything but the next signal, so the connection's queues are
//! always drained. A poke coalesces: however many signals arrive, the agent's task looks once more.

use std::sync::Arc;

use futures_util::StreamExt as _;
use zbus::fdo::DBusProxy;
use zbus::message::Message;
use zbus::{Connection, MatchRule, MessageStream};
use zbus_systemd::systemd1::ManagerProxy;

use super::JobResult;
use super::bus::SYSTEMD;
use super::jobs::Jobs;

/// Signals that may queue while the watcher is not scheduled. A start of many units makes bursts.
const QUEUE: usize = 1024;
/// systemd's escaping of `aos-agent@` in object paths.
const UNIT_PATH_PREFIX: &str = "/org/freedesktop/systemd1/unit/aos_2dagent_40";
const UNIT_PATH_SUFFIX: &str = "_2eservice";

/// Who is told to look again.
pub trait Pokes: Send + Sync + 'static {
    /// The unit of agent `id` changed.
    fn poke(&self, id: &str);
    /// Anything may have changed.
    fn poke_all(&self);
}

/// The subscriptions, made before the first unit is looked at, so that no change is missed in between.
#[derive(Debug)]
pub struct Watcher {
    connection: Connection,
    jobs_removed: MessageStream,
    properties_changed: MessageStream,
    owner_changed: zbus::fdo::NameOwnerChangedStream,
}

impl Watcher {
    /// Subscribes.
    pub async fn subscribe(connection: &Connection) -> zbus::Result<Self> {
        let signal = || MatchRule::builder().msg_type(zbus::message::Type::Signal).sender(SYSTEMD);
        let queue = std::num::NonZeroUsize::new(QUEUE);
        let jobs = signal()
            .interface("org.freedesktop.systemd1.Manager")
            .member("JobRemoved")
            .path("/org/freedesktop/systemd1")
            .build()?;
        let properties = signal()
            .interface("org.freedesktop.DBus.Properties")
            .member("PropertiesChanged")
            .path_namespace("/org/freedesktop/systemd1/unit")
            .build()?;
        let bus = DBusProxy::new(connection).await?;
        let watcher = Self {
            connection: connection.clone(),
            jobs_removed: MessageStream::for_match_rule(jobs, connection, queue).await?,
            properties_changed: MessageStream::for_match_rule(properties, connection, queue).await?,
            owner_changed: bus.receive_name_owner_changed_with_args(&[(0, SYSTEMD)]).await?,
        };
        subscribe_to_systemd(connection).await?;
        Ok(watcher)
    }

    /// Passes signals on, until the bus closes the connection.
    pub async fn run(mut self, jobs: Arc<Jobs>, pokes: Arc<dyn Pokes>) {
        loop {
            // Each arm is cancel-safe: a stream's `next` that is dropped has taken nothing.
            tokio::select! {
                signal = self.jobs_removed.next() => match signal {
                    Some(Ok(message)) => job_removed(&message, &jobs),
                    Some(Err(error)) => tracing::warn!(%error, "a signal of systemd cannot be read"),
                    None => return,
                },
                signal = self.properties_changed.next() => match signal {
                    Some(Ok(message)) => unit_changed(&message, pokes.as_ref()),
                    Some(Err(error)) => tracing::warn!(%error, "a signal of systemd cannot be read"),
                    None => return,
                },
                signal = self.owner_changed.next() => match signal {
                    Some(_) => self.systemd_came_or_went(&jobs, pokes.as_ref()).await,
                    None => return,
                },
            }
        }
    }

    /// systemd was executed anew: it has forgotten who subscribed.
    async fn systemd_came_or_went(&self, jobs: &Jobs, pokes: &dyn Pokes) {
        jobs.forget();
        if let Err(error) = subscribe_to_systemd(&self.connection).await {
            tracing::info!(%error, "systemd is away");
            return;
        }
        pokes.poke_all();
    }
}

async fn subscribe_to_systemd(connection: &Connection) -> zbus::Result<()> {
    let manager =
        ManagerProxy::builder(connection).cache_properties(zbus::proxy::CacheProperties::No).build().await?;
    let answer = tokio::time::timeout(super::CALL_DEADLINE, manager.subscribe()).await;
    match answer {
        Ok(Err(zbus::Error::MethodError(name, ..)))
            if name.as_str() == "org.freedesktop.systemd1.AlreadySubscribed" =>
        {
            Ok(())
        }
        Ok(answer) => answer,
        Err(_) => Err(zbus::Error::Failure("no answer from systemd".to_owned())),
    }
}

fn job_removed(message: &Message, jobs: &Jobs) {
    if let Ok((_id, path, _unit, result)) =
        message.body().deserialize::<(u32, zbus::ObjectPath<'_>, &str, &str)>()
    {
        jobs.ended(path.as_str(), JobResult::from_word(result));
    }
}

fn unit_changed(message: &Message, pokes: &dyn Pokes) {
    let header = message.header();
    if let Some(id) = header.path().and_then(|path| agent_of_unit_path(path.as_str())) {
        pokes.poke(&id);
    }
}

/// The agent whose unit has this object path. Only `-` is escaped in an agent's id.
fn agent_of_unit_path(path: &str) -> Option<String> {
    let escaped = path.strip_prefix(UNIT_PATH_PREFIX)?.strip_suffix(UNIT_PATH_SUFFIX)?;
    // A digit at the start of a label is escaped too.
    let mut id = String::with_capacity(escaped.len());
    let mut rest = escaped;
    while let Some((before, after)) = rest.split_once('_') {
        id.push_str(before);
        let code = u8::from_str_radix(after.get(..2)?, 16).ok()?;
        id.push(char::from(code));
        rest = after.get(2..)?;
    }
    id.push_str(rest);
    Some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unit_paths() {
        let prefix = "/org/freedesktop/systemd1/unit/";
        for (path, id) in [
            ("aos_2dagent_40web_2eservice", Some("web")),
            ("aos_2dagent_40site_2dwatch_2d2_2eservice", Some("site-watch-2")),
            ("aos_2dagent_40_2eservice", Some("")),
            ("aos_2daccount_40web_2eservice", None),
            ("aos_2dagent_40web_2esocket", None),
            ("dbus_2eservice", None),
            ("aos_2dagent_40a_2_2eservice", None),
        ] {
            assert_eq!(agent_of_unit_path(&format!("{prefix}{path}")).as_deref(), id, "{path}");
        }
    }
}
