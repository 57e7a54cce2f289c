//! What the kernel says of the process that becomes the agent, compared with what was asked. Read
//! when every restriction is in force, through the agent's own eyes.

use std::path::Path;

use aos_core::report::{LandlockReport, LaunchReport, LayerReport, REPORT_VERSION};
use aos_sandbox::launch::{aliases, contents};
use aos_sandbox::plan::{Node, Purpose, SandboxPlan};
use aos_sys::capability::{self, Sets};
use aos_sys::namespace::{self, Kind};
use rustix::thread::{SecureComputingMode, no_new_privs, secure_computing_mode};

use crate::agent::limits;
use crate::error::{Context, LaunchError, Layer, fail};

/// The namespaces of this process before it left them; the pid namespace among them only if it
/// was left too.
pub(crate) struct Before {
    numbers: [u64; Kind::ALL.len()],
    /// The kinds that this program makes.
    left: Vec<Kind>,
}

impl Before {
    /// Notes the namespaces, of which those of these kinds will be left.
    pub(crate) fn note(left: Vec<Kind>) -> Result<Self, LaunchError> {
        let numbers =
            namespace::identifiers().layer(Layer::Namespace, "cannot identify the caller's namespaces")?;
        Ok(Self { numbers, left })
    }
}

/// Makes the report. A layer that is not in force as asked is a failure, not a report.
pub(crate) fn confirm(
    plan: &SandboxPlan,
    before: &Before,
    landlock: LandlockReport,
) -> Result<LaunchReport, LaunchError> {
    let held = capability::held().layer(Layer::Probe, "cannot ask for the capabilities")?;
    let no_new_privs = no_new_privs().layer(Layer::Probe, "cannot ask for no_new_privs")?;
    let filtering = secure_computing_mode().layer(Layer::Probe, "cannot ask for the filter")?;
    let mounts = contents::of_kernel("/proc/self/mountinfo").layer(Layer::Probe, "/proc/self/mountinfo")?;
    // A name that is not UTF-8 stays in its line, whose other fields are what counts.
    let mounts = String::from_utf8_lossy(&mounts);
    let layers = vec![
        namespaces(before)?,
        mount_layer(&places_for_both(plan), &mounts),
        limit_layer(plan),
        capability_layer(held),
        number_layer("no_new_privs", "NoNewPrivs", u32::from(no_new_privs), 1),
        landlock_layer(plan, &landlock),
        number_layer("seccomp", "Seccomp", filtering as u32, SecureComputingMode::Filter as u32),
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
    let now = namespace::identifiers().layer(Layer::Probe, "cannot identify the namespaces")?;
    for ((kind, before_it), now) in Kind::ALL.into_iter().zip(before.numbers).zip(now) {
        ok &= !before.left.contains(&kind) || now != before_it;
        in_force.push(format!("{}:[{now}]", kind.name()));
    }
    Ok(layer("namespaces", asked_namespaces(&before.left), in_force.join(" "), ok))
}

/// Which namespaces are other than before, and which were made by who started this program: these cannot be
/// compared with anything.
fn asked_namespaces(left: &[Kind]) -> String {
    let names = |are_left: bool| {
        let kinds = Kind::ALL.into_iter().filter(|kind| left.contains(kind) == are_left);
        kinds.map(Kind::name).collect::<Vec<_>>().join(" ")
    };
    let (own, given) = (names(true), names(false));
    if given.is_empty() { own } else { format!("{own}; not compared, as the unit's or runtime's: {given}") }
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
        let is_for_both = || both.iter().any(|place| Path::new(place) == aliases::unescape(point));
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

fn capability_layer(held: Sets) -> LayerReport {
    let Sets { inheritable, permitted, effective, bounding, ambient } = held;
    let in_force = format!(
        "CapInh={inheritable:016x} CapPrm={permitted:016x} CapEff={effective:016x} CapBnd={bounding:016x} CapAmb={ambient:016x}"
    );
    layer("capabilities", "none in any set", in_force, held == Sets::default())
}

fn number_layer(name: &str, key: &str, found: u32, wanted: u32) -> LayerReport {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_capability_in_any_set_is_not_in_force() {
        assert!(capability_layer(Sets::default()).ok);
        for held in [
            Sets { inheritable: 1, ..Sets::default() },
            Sets { permitted: 1, ..Sets::default() },
            Sets { effective: 1, ..Sets::default() },
            Sets { bounding: 1 << 40, ..Sets::default() },
            Sets { ambient: 1, ..Sets::default() },
        ] {
            assert!(!capability_layer(held).ok, "{held:?}");
        }
        assert!(number_layer("seccomp", "Seccomp", 2, 2).ok);
        assert!(!number_layer("seccomp", "Seccomp", 0, 2).ok);
    }

    #[test]
    fn namespaces_that_were_given_are_told_apart() {
        assert_eq!(asked_namespaces(&Kind::ALL), "cgroup ipc mnt net pid user uts");
        let given = asked_namespaces(&[Kind::User]);
        assert_eq!(given, "user; not compared, as the unit's or runtime's: cgroup ipc mnt net pid uts");
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
