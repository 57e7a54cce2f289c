//! What the kernel says of the process that becomes the agent, compared with what was asked. Read
//! when every restriction is in force, through the agent's own eyes.

use std::fs;
use std::path::Path;

use aos_core::report::{LandlockReport, LaunchReport, LayerReport, REPORT_VERSION};
use aos_sandbox::plan::{Node, Purpose, SandboxPlan};
use aos_sys::namespace::{self, Kind};

use crate::agent::limits;
use crate::error::{Context, LaunchError, Layer, fail};
use crate::tree;

/// The namespaces of this process before it left them; the pid namespace among them only if it
/// was left too.
pub(crate) struct Before(Vec<(Kind, u64)>);

impl Before {
    /// Notes the namespaces of these kinds.
    pub(crate) fn note(kinds: &[Kind]) -> Result<Self, LaunchError> {
        let identify = |kind: &Kind| namespace::identifier(*kind).map(|number| (*kind, number));
        let noted: Result<Vec<_>, _> = kinds.iter().map(identify).collect();
        Ok(Self(noted.layer(Layer::Namespace, "cannot identify the caller's namespaces")?))
    }
}

/// Makes the report. A layer that is not in force as asked is a failure, not a report.
pub(crate) fn confirm(
    plan: &SandboxPlan,
    before: &Before,
    landlock: LandlockReport,
) -> Result<LaunchReport, LaunchError> {
    let status = fs::read_to_string("/proc/self/status").layer(Layer::Probe, "/proc/self/status")?;
    let mounts = fs::read_to_string("/proc/self/mountinfo").layer(Layer::Probe, "/proc/self/mountinfo")?;
    let layers = vec![
        namespaces(before)?,
        mount_layer(&places_for_both(plan), &mounts),
        limit_layer(plan),
        capability_layer(&status),
        field_layer(&status, "no_new_privs", "NoNewPrivs", "1"),
        landlock_layer(plan, &landlock),
        field_layer(&status, "seccomp", "Seccomp", "2"),
    ];
    if let Some(layer) = layers.iter().find(|layer| !layer.ok) {
        return fail(
            Layer::Probe,
            format!("{}: asked {}, in force {}", layer.layer, layer.asked, layer.in_force),
        );
    }
    Ok(LaunchReport {
        version: REPORT_VERSION,
        agent: plan.agent.clone(),
        launcher: env!("CARGO_PKG_VERSION").to_owned(),
        kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
        layers,
        landlock: Some(landlock),
    })
}

/// One line for the service manager.
pub(crate) fn summary(report: &LaunchReport) -> String {
    let abi = report.landlock.as_ref().map_or(0, |landlock| landlock.effective_abi);
    format!("Confined: {} layers in force, Landlock ABI {abi}", report.layers.len())
}

fn layer(name: &str, asked: impl Into<String>, in_force: impl Into<String>, ok: bool) -> LayerReport {
    LayerReport {
        layer: name.to_owned(),
        asked: asked.into(),
        in_force: in_force.into(),
        ok,
        detail: String::new(),
    }
}

fn namespaces(before: &Before) -> Result<LayerReport, LaunchError> {
    let mut in_force = Vec::new();
    let mut ok = true;
    for kind in Kind::ALL {
        let now = namespace::identifier(kind).layer(Layer::Probe, "cannot identify a namespace")?;
        ok &= before.0.iter().all(|(noted, number)| *noted != kind || *number != now);
        in_force.push(format!("{}:[{now}]", kind.name()));
    }
    Ok(layer("namespaces", Kind::ALL.map(Kind::name).join(" "), in_force.join(" "), ok))
}

/// The places of a step of a build that are written and executed.
fn places_for_both(plan: &SandboxPlan) -> Vec<&str> {
    let is_both =
        |node: &Node| matches!(node, Node::BuildRoot { .. } | Node::BuildTmpfs { .. } | Node::Cache { .. });
    plan.tree.iter().filter(|entry| is_both(&entry.node)).map(|entry| entry.path.as_str()).collect()
}

/// Every mount is `nosuid`; what can be written is `noexec` but at the places for both; devices are
/// in `/dev` only.
fn mount_layer(both: &[&str], mountinfo: &str) -> LayerReport {
    let mut count = 0;
    let mut bad = Vec::new();
    for line in mountinfo.lines() {
        // proc_pid_mountinfo(5): the fifth field is the mount point, the sixth its options.
        let mut fields = line.split(' ').skip(4);
        let (Some(point), Some(options)) = (fields.next(), fields.next()) else { continue };
        let has = |option: &str| options.split(',').any(|one| one == option);
        count += 1;
        let is_for_both = || both.iter().any(|place| Path::new(place) == tree::unescape(point));
        let is_divided = has("ro") || has("noexec") || is_for_both();
        if !has("nosuid") || !is_divided || !(has("nodev") || point.starts_with("/dev/")) {
            bad.push(format!("{point} ({options})"));
        }
    }
    let asked = match both {
        [] => "nosuid; ro or noexec; nodev outside /dev".to_owned(),
        _ => format!("nosuid; ro or noexec but {}; nodev outside /dev", both.join(" ")),
    };
    let in_force = if bad.is_empty() { format!("so on all {count} mounts") } else { bad.join(" ") };
    layer("mounts", asked, in_force, bad.is_empty() && count > 0)
}

fn limit_layer(plan: &SandboxPlan) -> LayerReport {
    let list = |value: &dyn Fn(&aos_sandbox::plan::Rlimit) -> u64| -> String {
        let texts = plan.rlimits.iter().map(|limit| format!("{:?}={}", limit.resource, value(limit)));
        texts.collect::<Vec<_>>().join(" ")
    };
    let now = |limit: &aos_sandbox::plan::Rlimit| limits::hard(limit.resource).unwrap_or(u64::MAX);
    let ok = plan.rlimits.iter().all(|limit| now(limit) <= limit.value);
    layer("rlimits", list(&|limit| limit.value), list(&now), ok)
}

fn capability_layer(status: &str) -> LayerReport {
    let sets = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"].map(|name| (name, field(status, name)));
    let ok = sets.iter().all(|(_, set)| !set.is_empty() && set.bytes().all(|digit| digit == b'0'));
    let in_force = sets.map(|(name, set)| format!("{name}={set}")).join(" ");
    layer("capabilities", "none in any set", in_force, ok)
}

fn field_layer(status: &str, name: &str, key: &str, wanted: &str) -> LayerReport {
    let found = field(status, key);
    layer(name, format!("{key}={wanted}"), format!("{key}={found}"), found == wanted)
}

fn landlock_layer(plan: &SandboxPlan, landlock: &LandlockReport) -> LayerReport {
    let rules = plan.landlock.len() + plan.programs.len() + plan.listen.len() + plan.listeners.len();
    let ports = if plan.purpose == Purpose::Build { ", ports not handled" } else { "" };
    let asked = format!("ABI 6 or newer, {rules} rules, signals and abstract sockets scoped{ports}");
    let in_force =
        format!("ABI {} of the kernel's {}, probes refused", landlock.effective_abi, landlock.kernel_abi);
    layer("landlock", asked, in_force, landlock.effective_abi >= 6)
}

/// A field of `/proc/self/status`; empty if it is not there.
fn field<'a>(status: &'a str, key: &str) -> &'a str {
    let value = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    value.unwrap_or_default().trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let status = "Seccomp_filters:\t1\nSeccomp:\t2\nCapEff:\t0000\n";
        assert_eq!(field(status, "Seccomp"), "2");
        assert_eq!(field(status, "Cap"), "");
        assert!(field_layer(status, "seccomp", "Seccomp", "2").ok);
        assert!(!field_layer("", "seccomp", "Seccomp", "2").ok);
        assert!(!capability_layer(status).ok);
    }

    #[test]
    fn a_bad_mount_is_named() {
        let line = |point: &str, options: &str| format!("1 2 0:1 / {point} {options} - tmpfs t rw\n");
        let good = line("/", "ro,nosuid,nodev") + &line("/dev/null", "rw,nosuid,noexec");
        assert!(mount_layer(&[], &good).ok);
        assert!(!mount_layer(&[], "").ok);
        let both = good.clone() + &line("/a\\040b", "rw,nosuid,nodev");
        assert!(mount_layer(&["/a b"], &both).ok);
        assert!(!mount_layer(&["/a"], &both).ok);
        for bad in [
            line("/a", "rw,nosuid,nodev"),
            line("/a", "ro,nodev"),
            line("/a", "ro,nosuid"),
            line("/device", "ro,nosuid"),
        ] {
            let report = mount_layer(&[], &(good.clone() + &bad));
            assert!(
                !report.ok && report.in_force.starts_with("/a") || report.in_force.starts_with("/device")
            );
        }
    }
}
