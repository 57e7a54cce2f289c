//! The real systemd, over the system bus (org.freedesktop.systemd1(5)). polkit's `aos.rules` say what of this
//! the supervisor's user may do.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;

use aos_core::id::AgentId;
use aos_core::state::ExitResult;
use aos_sandbox::call::AGENT_OUT_OF_MEMORY;
use aos_sandbox::plan::UnitLimits;
use zbus::fdo::PropertiesProxy;
use zbus::names::InterfaceName;
use zbus::{Connection, OwnedObjectPath, OwnedVariant};
use zbus_systemd::systemd1::ManagerProxy;

use super::jobs::Jobs;
use super::unit::{Freezer, Phase, UnitState, launcher_words};
use super::{CALL_DEADLINE, Data, Job, Systemd, SystemdError};
use crate::db::InvocationId;

/// The bus name of systemd.
pub(super) const SYSTEMD: &str = "org.freedesktop.systemd1";
const UNIT_INTERFACE: InterfaceName<'static> =
    InterfaceName::from_static_str_unchecked("org.freedesktop.systemd1.Unit");
const SERVICE_INTERFACE: InterfaceName<'static> =
    InterfaceName::from_static_str_unchecked("org.freedesktop.systemd1.Service");
/// systemd's "no limit" and "not known" in 64-bit properties.
const INFINITY: u64 = u64::MAX;

/// systemd over a bus connection.
#[derive(Debug, Clone)]
pub struct SystemBus {
    connection: Connection,
    manager: ManagerProxy<'static>,
    jobs: Arc<Jobs>,
}

impl SystemBus {
    /// Uses `connection`; the ends of jobs arrive through `jobs`, which the watcher feeds.
    pub async fn new(connection: &Connection, jobs: Arc<Jobs>) -> zbus::Result<Self> {
        let manager = ManagerProxy::builder(connection)
            .cache_properties(zbus::proxy::CacheProperties::No)
            .build()
            .await?;
        Ok(Self { connection: connection.clone(), manager, jobs })
    }

    async fn properties(
        &self,
        path: &OwnedObjectPath,
        interface: InterfaceName<'static>,
    ) -> zbus::Result<HashMap<String, OwnedVariant>> {
        let proxy = PropertiesProxy::builder(&self.connection)
            .destination(SYSTEMD)
            .path(path.clone())
            .build()
            .await?;
        proxy.get_all(interface).await.map_err(zbus::Error::from)
    }

    async fn read_unit(
        &self,
        unit: &str,
    ) -> zbus::Result<(HashMap<String, OwnedVariant>, HashMap<String, OwnedVariant>)> {
        let path = self.manager.load_unit(unit.to_owned()).await?;
        let general = self.properties(&path, UNIT_INTERFACE).await?;
        let service = self.properties(&path, SERVICE_INTERFACE).await?;
        Ok((general, service))
    }
}

/// Waits for one call, with the deadline, and puts what and which unit into the error.
async fn call<T>(
    what: &'static str,
    unit: &str,
    work: impl Future<Output = zbus::Result<T>> + Send,
) -> Result<T, SystemdError> {
    match tokio::time::timeout(CALL_DEADLINE, work).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(SystemdError::Refused { what, unit: unit.to_owned(), message: words(&error) }),
        Err(_) => Err(SystemdError::Deadline { what, unit: unit.to_owned() }),
    }
}

/// systemd's message, without the error's name where the message says enough.
fn words(error: &zbus::Error) -> String {
    match error {
        zbus::Error::MethodError(_, Some(message), _) => message.clone(),
        other => other.to_string(),
    }
}

impl Systemd for SystemBus {
    async fn hold(&self, id: &AgentId) -> Result<(), SystemdError> {
        let unit = id.unit_name();
        call("keep", &unit, async {
            self.manager.load_unit(unit.clone()).await?;
            match self.manager.ref_unit(unit.clone()).await {
                // The reference is per connection: having it already is as good.
                Err(zbus::Error::MethodError(name, ..))
                    if name.as_str() == "org.freedesktop.systemd1.AlreadyReferenced" =>
                {
                    Ok(())
                }
                other => other,
            }
        })
        .await
    }

    async fn release(&self, id: &AgentId) -> Result<(), SystemdError> {
        let unit = id.unit_name();
        call("release", &unit, async {
            match self.manager.unref_unit(unit.clone()).await {
                Err(zbus::Error::MethodError(name, ..))
                    if ["org.freedesktop.systemd1.NotReferenced", "org.freedesktop.systemd1.NoSuchUnit"]
                        .contains(&name.as_str()) =>
                {
                    Ok(())
                }
                other => other,
            }
        })
        .await
    }

    async fn read(&self, id: &AgentId) -> Result<UnitState, SystemdError> {
        let unit = id.unit_name();
        let (general, service) = call("show", &unit, self.read_unit(&unit)).await?;
        parse(&unit, &general, &service)
    }

    async fn limit(&self, id: &AgentId, limits: &UnitLimits, had: &UnitLimits) -> Result<(), SystemdError> {
        let unit = id.unit_name();
        let number = |limit: Option<u64>| OwnedVariant::from(limit.unwrap_or(INFINITY));
        let mut properties = vec![
            ("MemoryMax".to_owned(), number(limits.memory_max_bytes)),
            ("CPUQuotaPerSecUSec".to_owned(), number(limits.cpu_quota_per_sec_usec)),
            ("TasksMax".to_owned(), number(limits.tasks_max)),
        ];
        // Each property that is set becomes a file of systemd's; hardly any agent has this one.
        if limits.io_weight.or(had.io_weight).is_some() {
            properties.push(("IOWeight".to_owned(), number(limits.io_weight)));
        }
        call("limit", &unit, self.manager.set_unit_properties(unit.clone(), true, properties)).await
    }

    async fn start(&self, id: &AgentId) -> Result<Job, SystemdError> {
        let unit = id.unit_name();
        let path = call("start", &unit, self.manager.start_unit(unit.clone(), "fail".to_owned())).await?;
        Ok(Job { end: self.jobs.wait(path.as_str()) })
    }

    async fn stop(&self, id: &AgentId) -> Result<Job, SystemdError> {
        let unit = id.unit_name();
        let path = call("stop", &unit, self.manager.stop_unit(unit.clone(), "replace".to_owned())).await?;
        Ok(Job { end: self.jobs.wait(path.as_str()) })
    }

    async fn freeze(&self, id: &AgentId) -> Result<(), SystemdError> {
        let unit = id.unit_name();
        call("freeze", &unit, self.manager.freeze_unit(unit.clone())).await
    }

    async fn thaw(&self, id: &AgentId) -> Result<(), SystemdError> {
        let unit = id.unit_name();
        call("thaw", &unit, self.manager.thaw_unit(unit.clone())).await
    }

    async fn reset_failed(&self, id: &AgentId) -> Result<(), SystemdError> {
        let unit = id.unit_name();
        call("reset", &unit, self.manager.reset_failed_unit(unit.clone())).await
    }

    async fn clean(&self, id: &AgentId, data: &[Data]) -> Result<(), SystemdError> {
        let unit = id.unit_name();
        let mask = data.iter().map(|part| match part {
            Data::State => "state".to_owned(),
            Data::Runtime => "runtime".to_owned(),
        });
        call("clean", &unit, self.manager.clean_unit(unit.clone(), mask.collect())).await
    }

    async fn work_on_workspace(&self, id: &AgentId) -> Result<Job, SystemdError> {
        let unit = format!("aos-workspace@{id}.service");
        let path = call("start", &unit, self.manager.start_unit(unit.clone(), "fail".to_owned())).await?;
        Ok(Job { end: self.jobs.wait(path.as_str()) })
    }

    async fn remove_account(&self, id: &AgentId) -> Result<Job, SystemdError> {
        let unit = format!("aos-account-remove@{id}.service");
        let path = call("start", &unit, self.manager.start_unit(unit.clone(), "replace".to_owned())).await?;
        Ok(Job { end: self.jobs.wait(path.as_str()) })
    }
}

/// The result that systemd knows, or what the launcher knows better: with `OOMPolicy=continue` systemd does not look
/// whether a process was killed for lack of memory.
fn told(result: ExitResult, words: Option<&str>) -> ExitResult {
    match result {
        ExitResult::ExitCode if words == Some(AGENT_OUT_OF_MEMORY) => ExitResult::OomKill,
        other => other,
    }
}

fn parse(
    unit: &str,
    general: &HashMap<String, OwnedVariant>,
    service: &HashMap<String, OwnedVariant>,
) -> Result<UnitState, SystemdError> {
    let text = |map: &HashMap<String, OwnedVariant>, property: &'static str| {
        map.get(property)
            .and_then(|value| value.downcast_ref::<&str>().ok())
            .map(str::to_owned)
            .ok_or_else(|| SystemdError::Shape { unit: unit.to_owned(), property })
    };
    let number = |map: &HashMap<String, OwnedVariant>, property: &'static str| {
        map.get(property)
            .and_then(|value| value.downcast_ref::<u64>().ok())
            .ok_or_else(|| SystemdError::Shape { unit: unit.to_owned(), property })
    };
    let shape = |property| SystemdError::Shape { unit: unit.to_owned(), property };
    let get = |property: &'static str| service.get(property).ok_or_else(|| shape(property));
    let invocation: Vec<u8> = general
        .get("InvocationID")
        .and_then(|value| value.try_clone().ok())
        .and_then(|value| value.try_into().ok())
        .ok_or_else(|| shape("InvocationID"))?;
    let memory = number(service, "MemoryCurrent").ok().filter(|&bytes| bytes != INFINITY);
    let limit = |property| Ok(Some(number(service, property)?).filter(|&limit| limit != INFINITY));
    let phase = Phase::from_word(&text(general, "ActiveState")?);
    // Not in this run: the unit has become active before it last left rest, or never.
    let was_ready = number(general, "ActiveEnterTimestampMonotonic")?
        > number(general, "InactiveExitTimestampMonotonic")?;
    let words = launcher_words(&text(service, "StatusText")?);
    // A word of a later systemd is a failure of some kind: never a success.
    let result = text(service, "Result")?.parse().unwrap_or(ExitResult::Resources);
    Ok(UnitState {
        phase,
        freezer: Freezer::from_word(&text(general, "FreezerState")?),
        invocation: InvocationId::from_bytes(&invocation),
        result: told(result, words.as_deref()),
        status: get("ExecMainStatus")?.downcast_ref().map_err(|_| shape("ExecMainStatus"))?,
        main_pid: get("MainPID")?.downcast_ref().map_err(|_| shape("MainPID"))?,
        started_at_us: number(service, "ExecMainStartTimestamp")?,
        exited_at_us: number(service, "ExecMainExitTimestamp")?,
        state_changed_at_us: number(general, "StateChangeTimestamp")?,
        memory_bytes: memory,
        cgroup: text(service, "ControlGroup")?,
        why_not_ready: words.filter(|_| phase.is_at_rest() && !was_ready),
        unit_file_enabled: text(general, "UnitFileState")?.starts_with("enabled"),
        limits: UnitLimits {
            memory_max_bytes: limit("MemoryMax")?,
            cpu_quota_per_sec_usec: limit("CPUQuotaPerSecUSec")?,
            tasks_max: limit("TasksMax")?,
            runtime_max_usec: limit("RuntimeMaxUSec")?,
            // Unset is all ones, as infinity is.
            io_weight: limit("IOWeight")?,
        },
    })
}
