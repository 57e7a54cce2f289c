//! A machine for the command to talk to: a private bus, a supervisor that plays a part, and a journal in a file.
//!
//! `aos` itself is the real program. It finds the bus by `DBUS_SYSTEM_BUS_ADDRESS` and the journal by a `journalctl`
//! in front of `PATH`, which keeps lines back until `--sync` as journald may.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use aos_client::{
    AgentView, CapabilityView, ChangeOptions, ChangedView, CollectedView, InstallOptions, PackageView,
    RunOptions, names,
};
use zbus::object_server::SignalEmitter;
use zbus::{OwnedFd, OwnedObjectPath};

/// The invocation of the run that is started.
pub(crate) const INVOCATION: &str = "11111111111111111111111111111111";

/// What the supervisor knows and was asked.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) agents: Vec<AgentView>,
    pub(crate) packages: Vec<PackageView>,
    pub(crate) calls: Vec<String>,
    /// The agent ends with this before `Run` returns.
    pub(crate) ends_at_once: Option<(&'static str, i32)>,
    /// `Run` fails with this.
    pub(crate) refuses: Option<String>,
    /// What `Explain` answers.
    pub(crate) explanation: String,
    /// What `Plan` answers.
    pub(crate) plan: String,
    /// `Stop` takes this long.
    pub(crate) slow_stop: Duration,
}

/// The supervisor's part.
#[derive(Debug, Clone)]
struct Supervisor(Arc<Mutex<State>>);

impl Supervisor {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Answers a change as if the agent had these lines now and ran with others.
    fn changed(&self, call: &str, id: &str, lines: Vec<String>, options: ChangeOptions) -> ChangedView {
        let mut state = self.state();
        state.calls.push(format!("{call} {id} {lines:?} {:?}", options.apply));
        let agent = state.agents.iter_mut().find(|agent| agent.id == id).unwrap();
        agent.in_force = Some(std::mem::replace(&mut agent.capabilities, lines));
        ChangedView {
            effect: options
                .apply
                .map_or("next-start", |word| if word == "stop" { "stopped" } else { "restart" })
                .into(),
            capabilities: agent.capabilities.clone(),
            in_force: agent.in_force.clone(),
            note: None,
        }
    }

    /// Takes an agent from one state to another.
    fn turn(&self, call: &str, id: &str, from: &str, to: &str) -> Result<(), Refusal> {
        let mut state = self.state();
        state.calls.push(format!("{call} {id}"));
        let found = state.agents.iter_mut().find(|agent| agent.id == id);
        let agent = found.ok_or_else(|| Refusal::NotFound(format!("no agent {id}")))?;
        if agent.state != from {
            return Err(Refusal::Refused(format!("agent {id} is {}, so it cannot be that", agent.state)));
        }
        agent.state = to.into();
        Ok(())
    }
}

/// Errors by the supervisor's names.
#[derive(Debug, zbus::DBusError)]
#[zbus(prefix = "org.aos.Agentd1.Error")]
enum Refusal {
    #[zbus(error)]
    ZBus(zbus::Error),
    NotFound(String),
    Refused(String),
    Failed(String),
}

#[zbus::interface(name = "org.aos.Agentd1.Manager")]
impl Supervisor {
    async fn install(&self, archive: OwnedFd, options: InstallOptions) -> (String, String) {
        let InstallOptions { local, .. } = options;
        let bytes = std::fs::File::from(std::os::fd::OwnedFd::from(archive)).metadata().unwrap().len();
        assert!(bytes > 1000, "the archive has {bytes} bytes");
        let mut state = self.state();
        state.calls.push(if local == Some(true) { "install local".into() } else { "install".into() });
        if state.packages.is_empty() {
            state.packages.push(package());
        }
        ("hello:1.0.0".into(), format!("sha256:{}", "0".repeat(64)))
    }

    async fn run(
        &self,
        id: String,
        reference: String,
        args: Vec<String>,
        _options: RunOptions,
        #[zbus(signal_emitter)] emitter: SignalEmitter<'_>,
    ) -> Result<(OwnedObjectPath, String), Refusal> {
        let ending = {
            let mut state = self.state();
            state.calls.push(format!("run {id} {reference} {args:?}"));
            if let Some(message) = &state.refuses {
                return Err(Refusal::Failed(message.clone()));
            }
            state.agents.retain(|agent| agent.id != id);
            let mut agent = agent(&id);
            if let Some((result, status)) = state.ends_at_once {
                rest(&mut agent, result, status);
            }
            state.agents.push(agent);
            state.ends_at_once
        };
        if let Some((result, status)) = ending {
            Self::agent_exited(&emitter, &id, INVOCATION, result, status).await?;
        }
        Ok((OwnedObjectPath::try_from(names::agent_path(&id)).unwrap(), INVOCATION.into()))
    }

    async fn stop(
        &self,
        id: String,
        #[zbus(signal_emitter)] emitter: SignalEmitter<'_>,
    ) -> Result<(), Refusal> {
        let slow = {
            let mut state = self.state();
            state.calls.push(format!("stop {id}"));
            state.slow_stop
        };
        // Not a wait for something: the length of this stop is what the test is about.
        tokio::time::sleep(slow).await;
        if let Some(agent) = self.state().agents.iter_mut().find(|agent| agent.id == id) {
            rest(agent, "success", 143);
        }
        Self::agent_exited(&emitter, &id, INVOCATION, "success", 143).await?;
        Ok(())
    }

    async fn pause(&self, id: String) -> Result<(), Refusal> {
        self.turn("pause", &id, "running", "paused")
    }

    async fn resume(&self, id: String) -> Result<(), Refusal> {
        self.turn("resume", &id, "paused", "running")
    }

    async fn explain(&self, id: String) -> String {
        let mut state = self.state();
        state.calls.push(format!("explain {id}"));
        state.explanation.clone()
    }

    async fn plan(
        &self,
        id: String,
        reference: String,
        args: Vec<String>,
        options: RunOptions,
    ) -> Result<String, Refusal> {
        let mut state = self.state();
        state.calls.push(format!("plan {id} {reference} {args:?} {:?}", options.memory));
        match &state.refuses {
            Some(message) => Err(Refusal::Refused(message.clone())),
            None => Ok(state.plan.clone()),
        }
    }

    async fn list_capabilities(&self, id: String) -> Vec<CapabilityView> {
        let state = self.state();
        let agent = state.agents.iter().find(|agent| agent.id == id).unwrap();
        let given = agent.in_force.as_ref().unwrap_or(&agent.capabilities);
        let gone = given.iter().filter(|line| !agent.capabilities.contains(line));
        let view = |line: &String| CapabilityView {
            capability: line.clone(),
            enforced_by: "kernel: Landlock".into(),
            declared: agent.capabilities.contains(line),
            in_force: Some(given.contains(line)),
            origin: agent.capabilities.contains(line).then(|| "package".into()),
            since_us: None,
        };
        agent.capabilities.iter().chain(gone).map(view).collect()
    }

    async fn grant_capabilities(
        &self,
        id: String,
        lines: Vec<String>,
        options: ChangeOptions,
    ) -> ChangedView {
        self.changed("grant", &id, lines, options)
    }

    async fn narrow_capabilities(
        &self,
        id: String,
        lines: Vec<String>,
        options: ChangeOptions,
    ) -> ChangedView {
        self.changed("narrow", &id, lines, options)
    }

    async fn revoke_capabilities(
        &self,
        id: String,
        lines: Vec<String>,
        options: ChangeOptions,
    ) -> ChangedView {
        self.changed("revoke", &id, lines, options)
    }

    async fn list_agents(&self) -> Vec<AgentView> {
        self.state().agents.clone()
    }

    async fn list_packages(&self) -> Vec<PackageView> {
        self.state().packages.clone()
    }

    async fn remove_package(&self, reference: String) -> Result<(), Refusal> {
        let mut state = self.state();
        state.calls.push(format!("remove package {reference}"));
        if state.agents.iter().any(|agent| agent.reference == reference) {
            return Err(Refusal::Refused(format!(
                "the package {reference} is in use: remove the agents that use it first"
            )));
        }
        state.packages.retain(|package| package.reference != reference);
        Ok(())
    }

    async fn collect(&self, dry_run: bool) -> CollectedView {
        self.state().calls.push(format!("collect {dry_run}"));
        CollectedView { packages: vec!["old@sha256:00".into()], bytes: 4096 }
    }

    async fn get_agent(&self, id: String) -> Result<AgentView, Refusal> {
        let state = self.state();
        let found = state.agents.iter().find(|agent| agent.id == id).cloned();
        found.ok_or_else(|| Refusal::NotFound(format!("no agent {id}; `aos list` shows the agents")))
    }

    #[zbus(signal)]
    async fn agent_changed(emitter: &SignalEmitter<'_>, id: &str, state: &str) -> zbus::Result<()>;

    #[zbus(signal)]
    async fn agent_exited(
        emitter: &SignalEmitter<'_>,
        id: &str,
        invocation_id: &str,
        result: &str,
        exit_status: i32,
    ) -> zbus::Result<()>;

    #[zbus(property)]
    fn version(&self) -> String {
        "0.1.0".into()
    }
}

/// The package that every archive here is taken for.
pub(crate) fn package() -> PackageView {
    PackageView {
        reference: "hello:1.0.0".into(),
        name: "hello".into(),
        version: "1.0.0".into(),
        digest: format!("sha256:{}", "0".repeat(64)),
        description: "Says hello".into(),
        lifecycle: "oneshot".into(),
        capabilities: Vec::new(),
        size: 2048,
        agents: Vec::new(),
    }
}

/// A running agent.
pub(crate) fn agent(id: &str) -> AgentView {
    AgentView {
        id: id.into(),
        reference: "hello:1.0.0".into(),
        digest: format!("sha256:{}", "0".repeat(64)),
        state: "running".into(),
        enabled: false,
        desired: "running".into(),
        lifecycle: "oneshot".into(),
        main_pid: Some(4711),
        invocation_id: Some(INVOCATION.into()),
        result: None,
        exit_status: None,
        started_at_us: Some(0),
        exited_at_us: None,
        memory_current: Some(5 << 20),
        disk_limit: None,
        disk_used: None,
        unit: format!("aos-agent@{id}.service"),
        uid: Some(1_879_113_728),
        user: format!("aos-{id}"),
        capabilities: vec!["file_read: /srv/**".into()],
        in_force: None,
        workspace: None,
        error: None,
    }
}

fn rest(agent: &mut AgentView, result: &str, status: i32) {
    agent.state = if result == "success" { "stopped" } else { "failed" }.into();
    agent.main_pid = None;
    agent.result = Some(result.into());
    agent.exit_status = Some(status);
}

/// The machine. Its parts end with it.
pub(crate) struct Machine {
    folder: tempfile::TempDir,
    daemon: Child,
    address: String,
    pub(crate) state: Arc<Mutex<State>>,
    runtime: tokio::runtime::Runtime,
    supervisor: Option<zbus::Connection>,
}

impl Machine {
    /// Starts the bus and the supervisor.
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (daemon, address) = bus(folder.path());
        let journalctl = folder.path().join("journalctl");
        std::fs::write(&journalctl, include_str!("journalctl.py")).unwrap();
        set_executable(&journalctl);
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let mut machine = Self { folder, daemon, address, state: Arc::default(), runtime, supervisor: None };
        machine.start_supervisor();
        machine
    }

    /// Starts the supervisor, after a crash with the state that it had.
    pub(crate) fn start_supervisor(&mut self) {
        let supervisor = Supervisor(self.state.clone());
        let serving = async {
            zbus::connection::Builder::address(self.address.as_str())
                .serve_at(names::MANAGER_PATH, supervisor)
                .name(names::BUS_NAME)
                .build()
                .await
        };
        self.supervisor = Some(self.runtime.block_on(serving).unwrap());
    }

    /// The supervisor dies without a word.
    pub(crate) fn kill_supervisor(&mut self) {
        let connection = self.supervisor.take().unwrap();
        self.runtime.block_on(async { connection.close().await }).unwrap();
    }

    /// The agent ends; the supervisor tells if it runs.
    pub(crate) fn end_agent(&self, id: &str, result: &str, status: i32) {
        if let Some(agent) = self.state.lock().unwrap().agents.iter_mut().find(|agent| agent.id == id) {
            rest(agent, result, status);
        }
        let Some(connection) = &self.supervisor else { return };
        self.runtime.block_on(async {
            let emitter = SignalEmitter::new(connection, names::MANAGER_PATH).unwrap();
            Supervisor::agent_exited(&emitter, id, INVOCATION, result, status).await.unwrap();
        });
    }

    /// The agent writes a line; `late` lines stay in journald until it is synced.
    pub(crate) fn write_line(&self, id: &str, text: &str, late: bool) {
        self.write_entry(id, &format!("\"MESSAGE\": {text:?}"), INVOCATION, late);
    }

    /// An entry of the journal with these fields beside the usual ones.
    pub(crate) fn write_entry(&self, id: &str, fields: &str, invocation: &str, late: bool) {
        use std::io::Write as _;
        let entry = format!(
            "{{\"_SYSTEMD_UNIT\": \"aos-agent@{id}.service\", \"_SYSTEMD_INVOCATION_ID\": \"{invocation}\", \
             \"_TRANSPORT\": \"stdout\", \"_PID\": \"4711\", {fields}}}\n"
        );
        let name = if late { "late" } else { "entries" };
        let path = self.folder.path().join(name);
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
        file.write_all(entry.as_bytes()).unwrap();
    }

    /// The command, ready to run on this machine.
    pub(crate) fn aos(&self) -> Command {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("aos"));
        let path = format!("{}:{}", self.folder.path().display(), std::env::var("PATH").unwrap());
        command
            .env("DBUS_SYSTEM_BUS_ADDRESS", &self.address)
            .env("PATH", path)
            .env("JOURNAL", self.folder.path())
            .env("AOS_STORE", self.folder.path().join("store"));
        command.env_remove("NO_COLOR").stdin(Stdio::null());
        command
    }

    /// A folder with an agent in it.
    pub(crate) fn agent_folder(&self) -> PathBuf {
        let folder = self.folder.path().join("hello");
        std::fs::create_dir_all(&folder).unwrap();
        let text = "apiVersion: aos/v1\nkind: Agent\nmetadata: { name: hello, version: 1.0.0 }\n\
                    run: { entrypoint: [ hello.sh ] }\n";
        std::fs::write(folder.join("Agentfile"), text).unwrap();
        std::fs::write(folder.join("hello.sh"), "#!/bin/sh\necho hello\n").unwrap();
        set_executable(&folder.join("hello.sh"));
        folder
    }

    /// What the supervisor was asked.
    pub(crate) fn calls(&self) -> Vec<String> {
        self.state.lock().unwrap().calls.clone()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.daemon.kill().unwrap();
        self.daemon.wait().unwrap();
    }
}

fn bus(folder: &Path) -> (Child, String) {
    let address = format!("unix:path={}", folder.join("bus").display());
    let mut daemon = Command::new("dbus-daemon")
        .args(["--session", "--nofork", "--print-address", "--address", &address])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(daemon.stdout.take().unwrap()).read_line(&mut line).unwrap();
    (daemon, address)
}

fn set_executable(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}
