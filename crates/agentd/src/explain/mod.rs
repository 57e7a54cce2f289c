//! `Explain`: what was asked for an agent, and what the kernel says is in force.
//!
//! Three sources, each named in its rows: the plan (what was asked), the launcher's report (what it saw when it
//! set the layers up; written under the agent's uid, so it is bounded and checked), and what this process reads
//! now in `/proc` and in the control group. No byte that the agent's program wrote is read.

mod cgroup;
mod grants;
mod process;

use aos_client::explanation::{Explanation, Landlock, LayerRow, Source};
use aos_core::id::AgentId;
use aos_core::report::{LaunchReport, REPORT_MAX_BYTES};
use aos_sandbox::plan::{CAUSE_BASE, PLAN_MAX_BYTES, SandboxPlan};

use crate::agent::plan_path;
use crate::failure::Failure;
use crate::files;
use crate::packages::Packages;
use crate::service::Service;
use crate::settings::Places;
use crate::systemd::Systemd;

/// Explains an agent, as JSON.
pub async fn explain<S: Systemd, P: Packages>(
    service: &Service<S, P>,
    id: &AgentId,
) -> Result<String, Failure> {
    let view = service.agent(id).await?;
    let places = service.registry().context().settings.places.clone();
    let cgroup = match service.registry().context().systemd.read(id).await {
        Ok(unit) => unit.cgroup,
        Err(error) => return Err(Failure::failed(&error)),
    };
    let id = id.clone();
    let explanation = tokio::task::spawn_blocking(move || Explainer { places, id, cgroup }.explain(&view))
        .await
        .unwrap_or_else(|error| Err(Failure::failed(&error)))?;
    serde_json::to_string(&explanation).map_err(|error| Failure::failed(&error))
}

/// What is needed to explain one agent.
#[derive(Debug)]
struct Explainer {
    places: Places,
    id: AgentId,
    cgroup: String,
}

impl Explainer {
    fn explain(&self, view: &aos_client::AgentView) -> Result<Explanation, Failure> {
        let plan = self.plan()?;
        let mut notes = Vec::new();
        let report = self.report(&mut notes);
        let payload =
            view.main_pid.and_then(|main| process::payload_of(&self.places.proc, main, &self.cgroup));
        if view.main_pid.is_none() {
            notes.push("nothing runs: what is in force is what the launcher saw in the last run".to_owned());
        } else if payload.is_none() {
            notes.push("the agent's process has no entry in /proc yet, or has just ended".to_owned());
        }
        let mut layers: Vec<LayerRow> = report.iter().flat_map(launcher_rows).collect();
        layers.extend(process::rows(&self.places.proc, payload, &plan, view.uid));
        layers.extend(cgroup::rows(&self.places.cgroups, &self.cgroup, &plan.unit));
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
            grants: grants::grants(&plan),
            layers,
            notes,
        })
    }

    fn plan(&self) -> Result<SandboxPlan, Failure> {
        let bytes = files::read_bounded(&plan_path(&self.places, &self.id), PLAN_MAX_BYTES)
            .map_err(|error| Failure::failed(&error).with_hint("start the agent once to make its plan"))?;
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
