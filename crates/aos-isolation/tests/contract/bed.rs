//! The host around one run: a package, a workspace, granted directories, and the backend.

use std::fs::{self, File};
use std::io::{Read, Seek};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use aos_core::config::ResolvedAgent;
use aos_core::report::LaunchReport;
use aos_isolation::backend::Backend;
use aos_isolation::facade::{Io, Running, User, start};
use aos_isolation::probe::probe;
use aos_isolation::programs::Programs;
use aos_sandbox::plan::{PlanInput, SandboxPlan, derive};
use aos_sandbox::rootfs;

/// The first of the users of these tests; each bed has its own, so that processes can be told apart.
const FIRST_UID: u32 = 1_879_113_000;
/// For anything that ends by itself; a virtual machine boots in it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(150);

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A backend that works, and a place for one agent.
pub(crate) struct Bed {
    pub(crate) backend: Backend,
    pub(crate) uid: u32,
    root: PathBuf,
}

/// What came of a run.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: i32,
    pub(crate) out: String,
    pub(crate) err: String,
    pub(crate) report: Option<LaunchReport>,
}

/// Where the programs are.
pub(crate) fn programs() -> Programs {
    let own = std::env::current_exe().unwrap();
    let beside = own.parent().and_then(Path::parent).unwrap().to_owned();
    let given = std::env::var("AOS_ISOLATION_PROGRAMS").unwrap_or_default();
    let given = given.split(':').filter(|path| !path.is_empty()).map(PathBuf::from);
    Programs::first_in(given.chain([beside]).collect())
}

fn is_required(backend: Backend) -> bool {
    let required = std::env::var("AOS_ISOLATION_REQUIRED").unwrap_or_else(|_| "native".to_owned());
    required.split(',').any(|name| name == backend.name())
}

/// Why a backend does not work here; found once for all tests of a process.
fn why_not(backend: Backend) -> Option<String> {
    static FOUND: OnceLock<Option<String>> = OnceLock::new();
    FOUND.get_or_init(|| probe(backend, &programs()).err().map(|why| why.to_string())).clone()
}

impl Bed {
    /// A bed, or `None` for a backend that is not there and need not be. A test that cannot run has failed.
    pub(crate) fn of(backend: Backend) -> Option<Self> {
        assert!(rustix::process::geteuid().is_root(), "run as root: these tests start agents as other users");
        // A machine takes long to boot; one that is required and does not work fails the test itself.
        let is_probed = backend != Backend::Vm || !is_required(backend);
        if let Some(why) = is_probed.then(|| why_not(backend)).flatten() {
            assert!(!is_required(backend), "{backend} is required and does not work: {why}");
            eprintln!("missing: {backend} does not work here: {why}");
            return None;
        }
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let process = std::process::id();
        let uid = FIRST_UID + (process * 7 + number) % 500;
        let root = PathBuf::from(format!("/srv/aos-contract-{process}-{number}"));
        for name in ["rootfs/app", "workspace", "data/deep", "out", "nest/inner", "secret"] {
            fs::create_dir_all(root.join(name)).unwrap();
        }
        for name in ["workspace", "out", "nest/inner"] {
            chown(root.join(name), Some(uid), Some(uid)).unwrap();
        }
        for name in ["data/file", "data/deep/file", "nest/file", "secret/file"] {
            fs::write(root.join(name), "content\n").unwrap();
        }
        // Writable by its mode: what refuses is the sandbox.
        fs::set_permissions(root.join("data"), fs::Permissions::from_mode(0o777)).unwrap();
        Some(Self { backend, uid, root })
    }

    /// A path of the host.
    pub(crate) fn path(&self, name: &str) -> String {
        self.root.join(name).display().to_string()
    }

    /// A plan for a Python script.
    pub(crate) fn plan(&self, script: &str, capabilities: &[&str]) -> SandboxPlan {
        fs::write(self.root.join("rootfs/app/main.py"), script).unwrap();
        self.plan_of(&["/usr/bin/python3", "/app/main.py"], capabilities, serde_json::json!({}))
    }

    /// A plan for a program, with limits.
    pub(crate) fn plan_of(
        &self,
        entrypoint: &[&str],
        capabilities: &[&str],
        limits: serde_json::Value,
    ) -> SandboxPlan {
        let capabilities: Vec<String> =
            capabilities.iter().map(|text| text.replace("ROOT", &self.root.display().to_string())).collect();
        let agent = serde_json::json!({
            "capabilities": capabilities, "limits": limits, "name": "contract", "version": "1.0.0", "root": "host",
            "run": {
                "entrypoint": entrypoint, "lifecycle": "oneshot", "workdir": "/workspace",
                "env": { "GREETING": "hello world", "EMPTY": "" },
            },
        });
        let agent = ResolvedAgent::from_json(agent.to_string().as_bytes()).unwrap();
        let rootfs = self.path("rootfs").parse().unwrap();
        derive(&PlanInput {
            agent: &agent,
            id: &"contract".parse().unwrap(),
            arguments: &["two words".to_owned(), String::new()],
            rootfs: &rootfs,
            entries: &rootfs::scan(rootfs.as_path()).unwrap(),
            workspace: &self.path("workspace").parse().unwrap(),
        })
        .unwrap()
    }

    /// An empty file that this process and the agent's driver have open.
    pub(crate) fn file(&self, name: &str) -> File {
        File::options().read(true).write(true).create(true).truncate(true).open(self.root.join(name)).unwrap()
    }

    /// Starts a plan; its streams are the files `out`, `err` and `report` of the bed.
    pub(crate) fn start(&self, plan: &SandboxPlan) -> Running {
        let io = Io {
            stdin: Stdio::null(),
            stdout: self.file("stdout").into(),
            stderr: self.file("stderr").into(),
            report: Some(self.file("report")),
        };
        start(self.backend, plan, io, Some(User { uid: self.uid, gid: self.uid }), &programs()).unwrap()
    }

    /// Runs a plan to its end.
    pub(crate) fn run(&self, plan: &SandboxPlan) -> Ended {
        let mut running = self.start(plan);
        let status = wait(&mut running);
        self.ended(status)
    }

    /// Runs a script to its end and demands that it succeeded.
    pub(crate) fn succeed(&self, script: &str, capabilities: &[&str]) -> String {
        let ended = self.run(&self.plan(script, capabilities));
        assert_eq!((ended.status, ended.err.as_str()), (0, ""), "{ended:?}");
        ended.out
    }

    pub(crate) fn ended(&self, status: i32) -> Ended {
        let report = self.text("report");
        Ended {
            status,
            out: self.text("stdout"),
            err: self.text("stderr"),
            report: (!report.is_empty()).then(|| LaunchReport::parse(report.as_bytes()).unwrap()),
        }
    }

    /// The content of a file of the bed.
    pub(crate) fn text(&self, name: &str) -> String {
        let mut file = File::open(self.root.join(name)).unwrap();
        let mut text = String::new();
        file.rewind().unwrap();
        file.read_to_string(&mut text).unwrap();
        text
    }

    /// Waits until a file of the bed has this content, or the agent has ended.
    pub(crate) fn hear(&self, running: &mut Running, name: &str, text: &str) {
        let started = Instant::now();
        while self.text(name) != text {
            let status = running.try_wait().unwrap();
            assert!(
                status.is_none(),
                "ended with {status:?}: {}{}",
                self.text("stdout"),
                self.text("stderr")
            );
            assert!(started.elapsed() < PATIENCE, "{name} is {:?}", self.text(name));
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The processes of the agent's user.
    pub(crate) fn processes(&self) -> Vec<String> {
        let status = |path: PathBuf| fs::read_to_string(path.join("status")).unwrap_or_default();
        let is_own = |status: &String| status.contains(&format!("\nUid:\t{}\t", self.uid));
        let all = fs::read_dir("/proc").unwrap().map(|entry| status(entry.unwrap().path()));
        all.filter(is_own).map(|status| status.lines().take(7).collect::<Vec<_>>().join(" ")).collect()
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        // What cannot be removed stays visible in /srv; there is nobody to tell.
        fs::remove_dir_all(&self.root).unwrap_or_default();
    }
}

/// Waits for the end, which comes by itself.
pub(crate) fn wait(running: &mut Running) -> i32 {
    let started = Instant::now();
    loop {
        if let Some(status) = running.try_wait().unwrap() {
            return status;
        }
        if started.elapsed() > PATIENCE {
            running.kill().unwrap();
            panic!("it did not end");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
