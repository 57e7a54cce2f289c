//! `Explain`: what was asked for an agent, and what the kernel says is in force.
//!
//! Three sources, each named in its rows: the plan (what was asked), the launcher's report (what it saw when it
//! set the layers up; written under the agent's uid, so it is bounded and checked), and what this process reads
//! now in `/proc` and in the control group. No byte that the agent's program wrote is read.

mod cgroup;
mod disk;
mod grants;
mod namespaces;
mod process;

use aos_client::explanation::{CapabilityRow, Explanation, Landlock, LayerRow, Source};
use aos_client::{AgentView, CapabilityView};
use aos_core::id::AgentId;
use aos_core::report::{LaunchReport, REPORT_MAX_BYTES};
use aos_sandbox::plan::{CAUSE_BASE, PLAN_MAX_BYTES, SandboxPlan};

use crate::agent::{plan_in_force_path, plan_path};
use crate::failure::Failure;
use crate::files;
use crate::packages::Packages;
use crate::service::Service;
use crate::settings::Places;
use crate::systemd::{Systemd, UnitState};

/// Explains an agent, as JSON.
pub async fn explain<S: Systemd, P: Packages>(
    service: &Service<S, P>,
    id: &AgentId,
) -> Result<String, Failure> {
    let view = service.agent(id).await?;
    let places = service.registry().context().settings.places.clone();
    let capabilities = service.capabilities(id)?;
    let unit = service.registry().context().systemd.read(id).await;
    let unit = unit.map_err(|error| Failure::failed(&error))?;
    let explainer = Explainer { places, id: id.clone(), unit, capabilities };
    let explanation = tokio::task::spawn_blocking(move || explainer.explain(&view))
        .await
        .unwrap_or_else(|error| Err(Failure::failed(&error)))?;
    serde_json::to_string(&explanation).map_err(|error| Failure::failed(&error))
}

/// What is needed to explain one agent.
#[derive(Debug)]
struct Explainer {
    places: Places,
    id: AgentId,
    unit: UnitState,
    capabilities: Vec<CapabilityView>,
}

impl Explainer {
    fn explain(&self, view: &AgentView) -> Result<Explanation, Failure> {
        let mut notes = Vec::new();
        let plan = self.plan(view, &mut notes)?;
        let report = self.report(&mut notes);
        let payload =
            view.main_pid.and_then(|main| process::payload_of(&self.places.proc, main, &self.unit.cgroup));
        if view.main_pid.is_none() {
            notes.push("nothing runs: what is in force is what the launcher saw in the last run".to_owned());
        } else if payload.is_none() {
            notes.push("the agent's process has no entry in /proc yet, or has just ended".to_owned());
        }
        let mut layers: Vec<LayerRow> = report.iter().flat_map(launcher_rows).collect();
        layers.extend(namespaces::row(&self.places.proc, report.as_ref().filter(|_| payload.is_some())));
        layers.extend(process::rows(&self.places.proc, payload, &plan, view.uid));
        layers.extend(cgroup::rows(&self.places.cgroups, &self.unit, &plan.unit));
        layers.extend(disk::row(&self.places.workspaces.join(self.id.as_str()), plan.disk));
        let landlock = report.as_ref().and_then(|report| report.landlock.clone());
        Ok(Explanation {
            agent: view.id.clone(),
            reference: view.reference.clone(),
            state: view.state.clone(),
            invocation_id: view.invocation_id.clone(),
            pid: payload,
            kernel: report.map(|report| report.kernel),
            landlock: landlock.map(|landlock| Landlock {
                kernel_abi: landlock.kernel_abi,
                effective_abi: landlock.effective_abi,
                missing: landlock.missing,
            }),
            capabilities: self.capabilities.iter().map(capability_row).collect(),
            grants: grants::grants(&plan),
            layers,
            notes,
        })
    }

    /// The plan of the run that goes on, or of the next one when nothing runs.
    fn plan(&self, view: &AgentView, notes: &mut Vec<String>) -> Result<SandboxPlan, Failure> {
        let path = match &view.in_force {
            None => plan_path(&self.places, &self.id),
            Some(_) => {
                notes.push(
                    "what it may do was changed since this run began: what is revoked is still in force until it is \
                     restarted, and what is granted is not yet"
                        .to_owned(),
                );
                plan_in_force_path(&self.places, &self.id)
            }
        };
        let read = match files::read_bounded(&path, PLAN_MAX_BYTES) {
            Err(error) if view.in_force.is_some() => {
                notes.push(format!(
                    "the plan that this run began with is not kept, so what is asked is shown as the next start has it: {}",
                    crate::failure::chain(&error)
                ));
                files::read_bounded(&plan_path(&self.places, &self.id), PLAN_MAX_BYTES)
            }
            read => read,
        };
        let bytes =
            read.map_err(|error| Failure::failed(&error).with_hint("start the agent once to make its plan"))?;
        SandboxPlan::parse(&bytes).map_err(|error| Failure::failed(&error))
    }

    fn report(&self, notes: &mut Vec<String>) -> Option<LaunchReport> {
        let path = self.places.reports.join(self.id.as_str()).join("report.json");
        let bytes = match files::read_bounded(&path, REPORT_MAX_BYTES) {
            // The launcher makes the file first and fills it when everything is in force.
            Ok(bytes) if bytes.is_empty() => {
                notes.push("the launcher has not reported: the last start did not get that far".to_owned());
                return None;
            }
            Ok(bytes) => bytes,
            Err(error) => {
                notes.push(format!("no launcher's report: {}", crate::failure::chain(&error)));
                return None;
            }
        };
        match LaunchReport::parse(&bytes) {
            Ok(report) if report.agent == self.id => Some(report),
            Ok(_) => {
                notes.push("the launcher's report is about another agent".to_owned());
                None
            }
            Err(error) => {
                notes.push(crate::failure::chain(&error));
                None
            }
        }
    }
}

fn capability_row(view: &CapabilityView) -> CapabilityRow {
    CapabilityRow {
        capability: view.capability.clone(),
        enforced_by: view.enforced_by.clone(),
        declared: view.declared,
        in_force: view.in_force,
    }
}

fn launcher_rows(report: &LaunchReport) -> Vec<LayerRow> {
    let row = |layer: &aos_core::report::LayerReport| LayerRow {
        layer: layer.layer.clone(),
        asked: layer.asked.clone(),
        in_force: match layer.detail.as_str() {
            "" => layer.in_force.clone(),
            detail => format!("{} ({detail})", layer.in_force),
        },
        ok: Some(layer.ok),
        cause: CAUSE_BASE.to_owned(),
        source: Source::Launcher,
    };
    report.layers.iter().map(row).collect()
}
