//! A place for one agent: its package, its workspace and data; plans for it, and the launcher with one.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use aos_core::config::ResolvedAgent;
use aos_core::path::AbsolutePath;
use aos_escape::runner::{Scratch, launcher, scratch};
use aos_sandbox::plan::workspace::Transaction;
use aos_sandbox::plan::{PlanError, PlanInput, SandboxPlan, derive, derive_transaction};
use aos_sandbox::rootfs;
use serde_json::{Value, json};

/// The launcher; cargo is asked for it once.
pub(crate) fn launch_program() -> &'static Path {
    static LAUNCHER: OnceLock<PathBuf> = OnceLock::new();
    LAUNCHER.get_or_init(|| launcher::find().unwrap())
}

/// The agent's user and group. No account has it.
pub(crate) const UID: u32 = 1_879_113_726;

pub(crate) struct Place {
    root: Scratch,
}

impl Place {
    /// A test that cannot run has failed.
    pub(crate) fn new() -> Self {
        assert!(rustix::process::geteuid().is_root(), "run as root: this test starts the launcher as root");
        let place = Self { root: scratch().unwrap() };
        for name in ["rootfs/app", "workspace", "data"] {
            fs::create_dir_all(place.path(name)).unwrap();
        }
        chown(place.path("workspace"), Some(UID), Some(UID)).unwrap();
        fs::write(place.path("data/file"), "data\n").unwrap();
        place
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    pub(crate) fn absolute(&self, name: &str) -> AbsolutePath {
        self.path(name).to_str().unwrap().parse().unwrap()
    }

    /// A plan for a Python script in the package.
    pub(crate) fn plan(&self, script: &str, capabilities: &[String]) -> SandboxPlan {
        self.plan_of(&self.script(script), capabilities)
    }

    pub(crate) fn plan_of(&self, entrypoint: &[&str], capabilities: &[String]) -> SandboxPlan {
        self.limited(entrypoint, capabilities, &json!({}))
    }

    pub(crate) fn limited(
        &self,
        entrypoint: &[&str],
        capabilities: &[String],
        limits: &Value,
    ) -> SandboxPlan {
        let agent = self.agent(entrypoint, capabilities, limits);
        self.derived(&agent, "workspace", derive)
    }

    /// A plan for a Python script whose workspace is a transaction.
    pub(crate) fn plan_over(&self, transaction: &Transaction<'_>, script: &str) -> SandboxPlan {
        let agent = self.agent(&self.script(script), &[], &json!({}));
        self.derived(&agent, "base", |input| derive_transaction(input, transaction))
    }

    /// Writes a Python script into the package.
    fn script(&self, script: &str) -> [&'static str; 2] {
        fs::write(self.path("rootfs/app/main.py"), script).unwrap();
        ["/usr/bin/python3", "/app/main.py"]
    }

    fn agent(&self, entrypoint: &[&str], capabilities: &[String], limits: &Value) -> ResolvedAgent {
        // A package with its own loader is a package with its own root.
        let root = if self.path("rootfs/lib64").exists() { "own" } else { "host" };
        let agent = json!({
            "capabilities": capabilities, "limits": limits, "name": "test", "version": "1.0.0", "root": root,
            "run": { "entrypoint": entrypoint, "lifecycle": "oneshot", "workdir": "/workspace" },
        });
        ResolvedAgent::from_json(agent.to_string().as_bytes()).unwrap()
    }

    fn derived(
        &self,
        agent: &ResolvedAgent,
        workspace: &str,
        derive: impl FnOnce(&PlanInput<'_>) -> Result<SandboxPlan, PlanError>,
    ) -> SandboxPlan {
        let rootfs = self.absolute("rootfs");
        let input = PlanInput {
            agent,
            id: &"test".parse().unwrap(),
            arguments: &[],
            rootfs: &rootfs,
            entries: &rootfs::scan(rootfs.as_path()).unwrap(),
            workspace: &self.absolute(workspace),
        };
        derive(&input).unwrap()
    }

    /// The launcher's words for a plan, without a user.
    pub(crate) fn words(&self, plan: &SandboxPlan) -> Vec<OsString> {
        fs::write(self.path("plan.json"), plan.to_json().unwrap()).unwrap();
        vec![launch_program().into(), "--plan".into(), self.path("plan.json").into()]
    }

    pub(crate) fn command(&self, plan: &SandboxPlan) -> Command {
        let words = self.words(plan);
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).arg("--uid").arg(UID.to_string()).stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, plan: &SandboxPlan) -> Output {
        self.command(plan).output().unwrap()
    }

    pub(crate) fn read_data(&self) -> Vec<String> {
        vec![format!("file_read: {}/**", self.path("data").display())]
    }
}

pub(crate) fn error(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

pub(crate) fn assert_fails(output: &Output, status: i32, says: &str) {
    assert_eq!(output.status.code(), Some(status), "{}", error(output));
    assert!(error(output).contains(says), "{:?} does not say {says:?}", error(output));
    assert!(error(output).starts_with("aos-launch: "), "{}", error(output));
}
