//! The supervisor without a bus and without systemd: a world whose systemd and packages are under the test's
//! control, and whose database and files are real, in a temporary folder.

mod capabilities;
mod checkpoint;
mod cut_short;
mod disk;
mod lifecycle;
mod pause;
mod recovery;
mod removal;
mod trust;
mod workspace;

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use aos_client::AgentView;
use aos_core::config::ResolvedAgent;
use aos_core::id::{AgentId, Digest, PackageRef, Selector};
use aos_core::state::ExitResult;
use aos_sandbox::plan::UnitLimits;
use tokio::sync::{mpsc, oneshot};

use crate::agent::{Context, Event};
use crate::clock::Clock;
use crate::db::{Db, DbError, InvocationId};
use crate::failure::Failure;
use crate::packages::{Collect, Collected, InUse, Package, Packages, Source};
use crate::registry::Registry;
use crate::service::Service;
use crate::settings::{Limits, Places, Settings};
use crate::systemd::{Data, Freezer, Job, JobResult, Phase, Systemd, SystemdError, UnitState};

/// Longer than any test takes; a test that waits this long has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the launcher says of a start that fails.
pub(crate) const LAUNCHER_WORDS: &str = "no such path: /srv/x";

/// What the next start does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    Ready,
    Fail(i32),
    NoAccount,
    Hang,
    Refuse,
}

/// A systemd with one unit.
#[derive(Debug, Clone)]
pub(crate) struct FakeSystemd(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    unit: UnitState,
    next_invocation: u8,
    start: Start,
    hanging: Option<oneshot::Sender<JobResult>>,
    pub(crate) work: workspace::Work,
    fail_account_removal: bool,
    /// The boot's target refers to the unit.
    is_wanted_by_target: bool,
    /// systemd counts references.
    held: i32,
    calls: Vec<String>,
    now_us: Arc<AtomicU64>,
}

impl FakeSystemd {
    fn new(now_us: Arc<AtomicU64>) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            unit: UnitState::unknown(),
            next_invocation: 1,
            start: Start::Ready,
            hanging: None,
            work: workspace::Work::default(),
            fail_account_removal: false,
            is_wanted_by_target: false,
            held: 0,
            calls: Vec::new(),
            now_us,
        })))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }

    pub(crate) fn next_start(&self, start: Start) {
        self.inner().start = start;
    }

    pub(crate) fn fail_account_removal(&self, fail: bool) {
        self.inner().fail_account_removal = fail;
    }

    /// What was asked since the last time, without what only reads.
    pub(crate) fn calls(&self) -> Vec<String> {
        std::mem::take(&mut self.inner().calls)
    }

    /// The agent's process ends.
    pub(crate) fn exit(&self, result: ExitResult, status: i32) {
        let mut inner = self.inner();
        let now = inner.now_us.load(Ordering::Relaxed);
        inner.unit.phase = if result.is_success() { Phase::Inactive } else { Phase::Failed };
        inner.unit.result = result;
        inner.unit.status = status;
        inner.unit.exited_at_us = now;
        inner.unit.main_pid = 0;
    }

    /// Somebody starts the unit by hand.
    pub(crate) fn foreign_start(&self) {
        let mut inner = self.inner();
        inner.begin();
        if let Start::Fail(status) = inner.start {
            inner.fail(status);
        }
    }

    /// `systemctl enable` or `disable` of the unit.
    pub(crate) fn unit_file(&self, enabled: bool) {
        self.inner().unit.unit_file_enabled = enabled;
    }

    /// `systemctl freeze` of the unit or of a slice above it, or `thaw`.
    pub(crate) fn freezer(&self, freezer: Freezer) {
        self.inner().unit.freezer = freezer;
    }

    /// The generator links the unit into the boot, or does not.
    pub(crate) fn wanted_by_target(&self, wanted: bool) {
        self.inner().is_wanted_by_target = wanted;
    }

    /// systemd forgets a unit that ended well.
    pub(crate) fn collect_garbage(&self) {
        self.inner().unit = UnitState::unknown();
    }

    pub(crate) fn held(&self) -> i32 {
        self.inner().held
    }

    pub(crate) fn phase(&self) -> Phase {
        self.inner().unit.phase
    }
}

impl Inner {
    fn begin(&mut self) {
        let now = self.now_us.load(Ordering::Relaxed);
        self.unit = UnitState {
            phase: Phase::Active,
            invocation: InvocationId::from_bytes(&[self.next_invocation; 16]),
            main_pid: 42,
            started_at_us: now,
            limits: self.unit.limits,
            unit_file_enabled: self.unit.unit_file_enabled,
            ..UnitState::unknown()
        };
        self.next_invocation += 1;
    }

    /// The launcher gives up.
    fn fail(&mut self, status: i32) {
        self.unit.phase = Phase::Failed;
        self.unit.result = ExitResult::ExitCode;
        self.unit.status = status;
        self.unit.why_not_ready = Some(LAUNCHER_WORDS.to_owned());
    }

    /// Freezes or thaws, with systemd's refusals.
    fn turn(&mut self, id: &AgentId, what: &'static str, to: Freezer) -> Result<(), SystemdError> {
        self.call(what);
        let refused = |message: &str| {
            Err(SystemdError::Refused { what, unit: id.unit_name(), message: message.to_owned() })
        };
        if self.unit.phase != Phase::Active {
            return refused("Unit is not active");
        }
        if self.unit.freezer == Freezer::FrozenByParent {
            return refused("Unit is frozen by a parent slice");
        }
        self.unit.freezer = to;
        Ok(())
    }

    fn call(&mut self, call: &str) {
        self.calls.push(call.to_owned());
    }
}

fn ended(result: JobResult) -> Job {
    let (sender, end) = oneshot::channel();
    sender.send(result).unwrap();
    Job { end }
}

impl Systemd for FakeSystemd {
    async fn hold(&self, _: &AgentId) -> Result<(), SystemdError> {
        self.inner().held += 1;
        Ok(())
    }

    async fn release(&self, _: &AgentId) -> Result<(), SystemdError> {
        let mut inner = self.inner();
        inner.held -= 1;
        inner.call("release");
        // A unit at rest that nobody holds is unloaded, and what is remembered of it goes with it.
        let is_unloaded =
            inner.held == 0 && !inner.is_wanted_by_target && inner.unit.phase == Phase::Inactive;
        if is_unloaded && inner.unit.freezer == Freezer::Frozen {
            inner.unit.freezer = Freezer::Running;
        }
        Ok(())
    }

    async fn read(&self, _: &AgentId) -> Result<UnitState, SystemdError> {
        Ok(self.inner().unit.clone())
    }

    async fn limit(&self, _: &AgentId, limits: &UnitLimits, _: &UnitLimits) -> Result<(), SystemdError> {
        let mut inner = self.inner();
        inner.call(&format!("limit {:?}", limits.memory_max_bytes));
        inner.unit.limits = UnitLimits { runtime_max_usec: None, ..*limits };
        Ok(())
    }

    async fn start(&self, id: &AgentId) -> Result<Job, SystemdError> {
        let mut inner = self.inner();
        inner.call("start");
        if inner.unit.freezer.is_frozen() {
            return Ok(ended(JobResult::Frozen));
        }
        match inner.start {
            // Somebody else was faster.
            Start::Ready if inner.unit.phase == Phase::Active => Ok(ended(JobResult::Done)),
            Start::Ready => {
                inner.begin();
                Ok(ended(JobResult::Done))
            }
            Start::Fail(status) => {
                inner.begin();
                inner.fail(status);
                Ok(ended(JobResult::Failed))
            }
            Start::NoAccount => Ok(ended(JobResult::Dependency)),
            Start::Hang => {
                inner.begin();
                inner.unit.phase = Phase::Activating;
                let (sender, end) = oneshot::channel();
                inner.hanging = Some(sender);
                Ok(Job { end })
            }
            Start::Refuse => {
                Err(SystemdError::Refused { what: "start", unit: id.unit_name(), message: "no".to_owned() })
            }
        }
    }

    async fn stop(&self, _: &AgentId) -> Result<Job, SystemdError> {
        let mut inner = self.inner();
        inner.call("stop");
        // systemd 257: "Cannot stop frozen unit".
        if inner.unit.freezer.is_frozen() {
            return Ok(ended(JobResult::Frozen));
        }
        if let Some(start) = inner.hanging.take() {
            start.send(JobResult::Canceled).unwrap();
        }
        if !inner.unit.phase.is_at_rest() {
            inner.unit.phase = Phase::Inactive;
            inner.unit.main_pid = 0;
        }
        Ok(ended(JobResult::Done))
    }

    async fn freeze(&self, id: &AgentId) -> Result<(), SystemdError> {
        self.inner().turn(id, "freeze", Freezer::Frozen)
    }

    async fn thaw(&self, id: &AgentId) -> Result<(), SystemdError> {
        self.inner().turn(id, "thaw", Freezer::Running)
    }

    async fn reset_failed(&self, _: &AgentId) -> Result<(), SystemdError> {
        let mut inner = self.inner();
        if inner.unit.phase == Phase::Failed {
            inner.unit.phase = Phase::Inactive;
        }
        Ok(())
    }

    async fn clean(&self, _: &AgentId, data: &[Data]) -> Result<(), SystemdError> {
        self.inner().call(&format!("clean {data:?}"));
        Ok(())
    }

    async fn work_on_workspace(&self, id: &AgentId) -> Result<Job, SystemdError> {
        self.inner().work_on_workspace(id)
    }

    async fn remove_account(&self, _: &AgentId) -> Result<Job, SystemdError> {
        let mut inner = self.inner();
        inner.call("remove account");
        Ok(ended(if inner.fail_account_removal { JobResult::Failed } else { JobResult::Done }))
    }
}

/// A store with packages whose root is the world's `rootfs`.
#[derive(Debug)]
pub(crate) struct FakePackages {
    packages: Mutex<Vec<Package>>,
    /// The trust policy refuses all of them.
    distrusted: Mutex<bool>,
    /// Waits at the next question whether a package is trusted.
    waiting: Mutex<Option<Arc<Waiting>>>,
}

/// A question that waits until the test lets it go on.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    pub(crate) asked: tokio::sync::Notify,
    pub(crate) go_on: tokio::sync::Notify,
}

impl Packages for FakePackages {
    async fn resolve(&self, reference: &PackageRef) -> Result<Package, Failure> {
        let packages = self.packages.lock().unwrap();
        let found = packages.iter().find(|package| {
            package.config.name == reference.name
                && match &reference.selector {
                    Selector::Newest => true,
                    Selector::Version(version) => package.config.version == *version,
                    Selector::Digest(digest) => package.digest == *digest,
                }
        });
        let missing = || Failure::new(aos_client::ErrorKind::NotFound, format!("no package {reference}"));
        found.cloned().ok_or_else(missing)
    }

    async fn get(&self, reference: &PackageRef, digest: &Digest) -> Result<Package, Failure> {
        let selector = Selector::Digest(*digest);
        self.resolve(&PackageRef { name: reference.name.clone(), selector }).await
    }

    async fn list(&self) -> Result<Vec<Package>, Failure> {
        Ok(self.packages.lock().unwrap().clone())
    }

    async fn install(&self, _: OwnedFd, _: Source) -> Result<(PackageRef, Digest), Failure> {
        Err(Failure::invalid("not in this world"))
    }

    async fn check_trust(&self, reference: &PackageRef, _: &Digest) -> Result<(), Failure> {
        let waiting = self.waiting.lock().unwrap().take();
        if let Some(waiting) = waiting {
            waiting.asked.notify_one();
            waiting.go_on.notified().await;
        }
        match *self.distrusted.lock().unwrap() {
            true => Err(Failure::untrusted(format!("{reference} is not trusted"))),
            false => Ok(()),
        }
    }

    async fn remove(&self, reference: &PackageRef, in_use: InUse) -> Result<(), Failure> {
        let digest = self.resolve(reference).await?.digest;
        if in_use(&digest) {
            return Err(Failure::refused("in use"));
        }
        self.packages.lock().unwrap().retain(|package| package.digest != digest);
        Ok(())
    }

    async fn collect(&self, keep: BTreeSet<Digest>, _: Collect) -> Result<Collected, Failure> {
        let packages = self.packages.lock().unwrap();
        let unused = packages.iter().filter(|package| !keep.contains(&package.digest));
        Ok(Collected { packages: unused.map(|package| package.reference.clone()).collect(), bytes: 0 })
    }
}

/// Everything a test needs. Dropping the service and making a new one is a crash of the supervisor.
pub(crate) struct World {
    dir: tempfile::TempDir,
    now_us: Arc<AtomicU64>,
    pub(crate) systemd: FakeSystemd,
    packages: Arc<FakePackages>,
    boot: u32,
    pub(crate) max_agents: usize,
    pub(crate) db_deadline: Duration,
    pub(crate) max_checkpoints: usize,
}

/// A running supervisor.
pub(crate) struct Daemon {
    pub(crate) service: Arc<Service<FakeSystemd, FakePackages>>,
    pub(crate) events: mpsc::Receiver<Event>,
}

fn package(rootfs: &str, number: u8, json: &str) -> Package {
    let config = ResolvedAgent::from_json(json.as_bytes()).unwrap();
    Package {
        reference: config.reference(),
        digest: Digest::from_bytes([number; 32]),
        config,
        rootfs: rootfs.parse().unwrap(),
        size_bytes: 1,
    }
}

impl World {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["state", "workspaces", "reports", "enabled", "rootfs/app"] {
            std::fs::create_dir_all(dir.path().join(folder)).unwrap();
        }
        let rootfs = dir.path().join("rootfs").to_str().unwrap().to_owned();
        let json = |name: &str, lifecycle: &str, capability: &str, limits: &str| {
            format!(
                r#"{{"capabilities":[{capability}],"limits":{limits},"name":"{name}","root":"host","run":{{"entrypoint":["/app/x"],"lifecycle":"{lifecycle}","workdir":"/workspace"}},"version":"1.0.0"}}"#
            )
        };
        let packages = vec![
            package(&rootfs, 1, &json("once", "oneshot", "\"file_read: /srv/**\"", r#"{"memory":"64M"}"#)),
            package(&rootfs, 2, &json("always", "persistent", "", "{}")),
            package(&rootfs, 3, &json("online", "oneshot", "\"net: example.org:443\"", "{}")),
            package(&rootfs, 4, &json("short", "oneshot", "", r#"{"runtime":"10s"}"#)),
            package(
                &rootfs,
                5,
                &json("layered", "oneshot", "", "{}").replace(
                    r#""workdir":"/workspace""#,
                    r#""workdir":"/workspace","workspace":"transactional""#,
                ),
            ),
        ];
        let now_us = Arc::new(AtomicU64::new(1_000_000_000_000));
        Self {
            dir,
            systemd: FakeSystemd::new(Arc::clone(&now_us)),
            now_us,
            packages: Arc::new(FakePackages {
                packages: Mutex::new(packages),
                distrusted: Mutex::default(),
                waiting: Mutex::default(),
            }),
            boot: 1,
            max_agents: 2,
            db_deadline: PATIENCE,
            max_checkpoints: 20,
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Whether the trust policy refuses every package from now on.
    pub(crate) fn distrust(&self, distrusted: bool) {
        *self.packages.distrusted.lock().unwrap() = distrusted;
    }

    /// Makes the next question whether a package is trusted wait.
    pub(crate) fn wait_at_trust(&self) -> Arc<Waiting> {
        let waiting = Arc::new(Waiting::default());
        *self.packages.waiting.lock().unwrap() = Some(Arc::clone(&waiting));
        waiting
    }

    pub(crate) fn pass(&self, seconds: u64) {
        self.now_us.fetch_add(seconds * 1_000_000, Ordering::Relaxed);
    }

    pub(crate) fn reboot(&mut self) {
        self.boot += 1;
        self.systemd.collect_garbage();
    }

    /// Starts a supervisor on what is there; waits for the one before it to let go of the state.
    pub(crate) async fn daemon(&self) -> Daemon {
        let db = loop {
            match Db::open(&self.path("state")) {
                Err(DbError::Locked(_)) => tokio::task::yield_now().await,
                other => break other.unwrap().with_deadline(self.db_deadline),
            }
        };
        let settings = Settings {
            places: Places {
                state: self.path("state"),
                workspaces: self.path("workspaces"),
                changes: self.path("changes"),
                reports: self.path("reports"),
                enabled: self.path("enabled"),
                trust: self.path("trust.d"),
                userdb: self.path("userdb"),
                cgroups: self.path("cgroups"),
                proc: self.path("proc"),
            },
            limits: Limits {
                max_agents: self.max_agents,
                max_checkpoints: self.max_checkpoints,
                ..Limits::default()
            },
            boot_id: self.boot.to_string(),
        };
        let now_us = Arc::clone(&self.now_us);
        let (sender, events) = mpsc::channel(1024);
        let context = Context {
            settings: Arc::new(settings),
            clock: Clock::new(move || now_us.load(Ordering::Relaxed)),
            db,
            systemd: self.systemd.clone(),
            packages: Arc::clone(&self.packages),
            events: sender,
            limiting: tokio::sync::Semaphore::new(crate::agent::LIMITING),
        };
        let registry = Registry::new(Arc::new(context));
        registry.load().await.unwrap();
        registry.first_looks(PATIENCE).await;
        Daemon { service: Arc::new(Service::new(registry)), events }
    }
}

impl Daemon {
    pub(crate) async fn run(&self, agent: &str, package: &str) -> Result<InvocationId, Failure> {
        self.service.run(&id(agent), &package.parse().unwrap(), Default::default()).await
    }

    /// Pokes the agent until its view is as expected. What a signal of systemd does, the poke does here.
    pub(crate) async fn until(
        &self,
        agent: &str,
        what: &str,
        expected: impl Fn(&AgentView) -> bool,
    ) -> AgentView {
        let wait = async {
            loop {
                let handle = self.service.registry().get(&id(agent)).unwrap();
                match handle.view() {
                    Some(view) if expected(&view) => return view,
                    _ => {
                        handle.poke();
                        tokio::task::yield_now().await;
                    }
                }
            }
        };
        match tokio::time::timeout(PATIENCE, wait).await {
            Ok(view) => view,
            Err(_) => panic!("never {what}: {:?}", self.service.registry().get(&id(agent)).unwrap().view()),
        }
    }

    pub(crate) async fn until_state(&self, agent: &str, state: &str) -> AgentView {
        self.until(agent, state, |view| view.state == state).await
    }

    /// Ends of runs told so far.
    pub(crate) fn exits(&mut self) -> Vec<(&'static str, i32)> {
        let mut exits = Vec::new();
        while let Ok(event) = self.events.try_recv() {
            if let Event::Exited { result, status, .. } = event {
                exits.push((result, status));
            }
        }
        exits
    }

    /// A crash: everything is gone, and the state is free again when this returns.
    pub(crate) async fn crash(self) {
        let registry = Arc::downgrade(self.service.registry());
        drop(self);
        while registry.strong_count() > 0 {
            tokio::task::yield_now().await;
        }
    }
}

pub(crate) fn id(text: &str) -> AgentId {
    text.parse().unwrap()
}
