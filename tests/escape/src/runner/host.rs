//! The host around one run: granted directories, secrets, sockets, a process of the same user, a
//! shared memory segment, an inherited descriptor and a secret variable. Everything ends with the
//! value.

use std::ffi::CString;
use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use aos_build::run::Account;
use aos_core::config::ResolvedAgent;
use aos_sandbox::plan::{PlanInput, SandboxPlan, derive};
use aos_sandbox::rootfs;
use rustix::io::{FdFlags, fcntl_setfd};

use super::{Preparing, RunError, Scratch, Situation, launcher, unit};
use crate::attempts::{PORT, PROGRAM, Params};
use crate::raw::{call, call3, text};

/// The agent's user for runs by root. No account has it.
const AGENT_UID: u32 = 1_879_113_727;

/// Processes and threads that the agent may have.
pub(super) const TASKS: u32 = 64;

/// The prepared host.
pub struct Host {
    scratch: Scratch,
    plan: PathBuf,
    pub(super) params: Params,
    report: PathBuf,
    notify_name: String,
    notify: UnixDatagram,
    neighbour: Child,
    _secret: fs::File,
    _tcp: TcpListener,
    _abstract: UnixListener,
    _unix: UnixListener,
    queue: CString,
    segment: Option<usize>,
}

impl Host {
    /// Prepares everything below `scratch`, an empty directory whose parents all may search.
    pub fn prepare(scratch: Scratch, probe: &Path, situation: Situation) -> Result<Self, RunError> {
        let layout = Layout::make(scratch.path(), probe, situation)?;
        let unique = format!("{}-{:?}", std::process::id(), situation);
        let (abstract_name, notify_name) = (format!("aos-escape-{unique}"), format!("aos-notify-{unique}"));
        let address = |name: &str| SocketAddr::from_abstract_name(name).preparing("an abstract name");
        let abstract_socket =
            UnixListener::bind_addr(&address(&abstract_name)?).preparing("an abstract socket")?;
        let host_socket = scratch.path().join("socket");
        let unix = UnixListener::bind(&host_socket).preparing("a Unix socket")?;
        fs::set_permissions(&host_socket, Permissions::from_mode(0o666)).preparing("a Unix socket")?;
        let notify = UnixDatagram::bind_addr(&address(&notify_name)?).preparing("the notify socket")?;
        notify.set_nonblocking(true).preparing("the notify socket")?;
        let tcp = TcpListener::bind("127.0.0.1:0").preparing("a TCP service")?;
        let secret = fs::File::open(&layout.secret).preparing("the secret file")?;
        fcntl_setfd(&secret, FdFlags::empty()).preparing("an inherited descriptor")?;
        let uid = user(situation)?;
        let neighbour = neighbour(uid)?;
        let shm_key = i32::try_from(std::process::id()).unwrap_or(1) | 0x4000_0000;
        let segment = call3(libc::SYS_shmget, usize::try_from(shm_key).unwrap_or_default(), 4096, 0o1666);
        let queue_name = format!("aos-escape-{unique}");
        let queue = make_queue(&queue_name)?;
        let params = Params {
            readable: layout.readable.display().to_string(),
            writable: layout.writable.display().to_string(),
            workspace: layout.workspace.display().to_string(),
            package: layout.rootfs.display().to_string(),
            secret: layout.secret.display().to_string(),
            neighbour_pid: i32::try_from(neighbour.id()).unwrap_or_default(),
            host_port: tcp.local_addr().preparing("a TCP service")?.port(),
            abstract_name,
            notify_name: notify_name.clone(),
            shm_key,
            queue_name,
            host_socket: host_socket.display().to_string(),
        };
        let plan = layout.write_plan(&params)?;
        let report = scratch.path().join("report.json");
        Ok(Self {
            scratch,
            plan,
            params,
            report,
            notify_name,
            notify,
            neighbour,
            _secret: secret,
            _tcp: tcp,
            _abstract: abstract_socket,
            _unix: unix,
            queue,
            segment: segment.ok(),
        })
    }

    /// The directory of the run.
    pub(super) fn path(&self) -> &Path {
        self.scratch.path()
    }

    /// Starts the launcher with everything that an agent must not get, and waits for its end.
    pub fn launch(&self, launch: &Path, situation: Situation) -> Result<Output, RunError> {
        let mut command = match situation {
            Situation::Backend(_) => Command::new(launcher::isolate()?),
            _ => Command::new(launch),
        };
        command.arg("--plan").arg(&self.plan);
        match situation {
            Situation::Root => {
                command.arg("--report").arg(&self.report).args(["--uid", &AGENT_UID.to_string()]);
            }
            Situation::Backend(backend) => {
                command.arg("--report").arg(&self.report).args(["--uid", &AGENT_UID.to_string()]);
                command.args(["--backend", backend.name()]);
                for directory in launcher::programs(launch).directories() {
                    command.arg("--programs").arg(directory);
                }
            }
            Situation::User => as_agent(&mut command, AGENT_UID),
            Situation::Unit => return unit::run(&self.plan, self.scratch.path()),
            Situation::StepOfRoot | Situation::StepOfUser => {
                return Err(RunError::Launcher("a step is started by the builder".to_owned()));
            }
        }
        command
            .env("NOTIFY_SOCKET", format!("@{}", self.notify_name))
            .env("AOS_TEST_SECRET", "secret")
            .env("LD_PRELOAD", "")
            .stdin(Stdio::null())
            .output()
            .map_err(|error| RunError::Launcher(error.to_string()))
    }

    /// The service manager must have heard of readiness, once, and nothing else.
    pub fn check_notifications(&self) -> Result<(), RunError> {
        let mut buffer = [0; 1024];
        let mut messages = Vec::new();
        while let Ok(length) = self.notify.recv(&mut buffer) {
            messages.push(String::from_utf8_lossy(buffer.get(..length).unwrap_or_default()).into_owned());
        }
        match messages.as_slice() {
            [one] if one.starts_with("READY=1\n") => Ok(()),
            _ => Err(RunError::Launcher(format!("the service manager heard {messages:?}"))),
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // Nothing is left to do about what is gone already.
        call3(libc::SYS_mq_unlink, text(&self.queue), 0, 0).unwrap_or_default();
        if let Some(segment) = self.segment {
            call3(libc::SYS_shmctl, segment, 0, 0).unwrap_or_default();
        }
        drop(self.neighbour.kill().and_then(|()| self.neighbour.wait()));
    }
}

/// The user of the agent or step, outside.
pub(super) fn user(situation: Situation) -> Result<u32, RunError> {
    match situation {
        Situation::Unit => unit::uid(),
        Situation::StepOfRoot => Ok(Account::of_process().uid),
        _ if rustix::process::geteuid().is_root() => Ok(AGENT_UID),
        _ => Ok(rustix::process::geteuid().as_raw()),
    }
}

/// Runs a command as the agent's user when the caller is root; else as the caller.
pub(super) fn as_agent(command: &mut Command, uid: u32) {
    if rustix::process::geteuid().is_root() {
        command.uid(uid).gid(uid);
    }
}

/// A process of the agent's user outside every sandbox, which executes programs of `/usr/bin` for
/// ten minutes.
fn neighbour(uid: u32) -> Result<Child, RunError> {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "for _ in $(seq 12000); do /usr/bin/id; /usr/bin/sleep 0.05; done"]);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    as_agent(&mut command, uid);
    command.spawn().preparing("a neighbour")
}

/// A message queue that every user of this IPC namespace may open.
fn make_queue(name: &str) -> Result<CString, RunError> {
    let queue = CString::new(name).map_err(std::io::Error::other).preparing("a queue's name")?;
    let mode = 0o666;
    let flags = usize::try_from(libc::O_CREAT | libc::O_RDWR | libc::O_CLOEXEC).unwrap_or_default();
    let opened = call(libc::SYS_mq_open, [text(&queue), flags, mode, 0, 0, 0]);
    opened.map_err(std::io::Error::from_raw_os_error).preparing("a message queue")?;
    Ok(queue)
}

/// Directories and files.
struct Layout {
    scratch: PathBuf,
    rootfs: PathBuf,
    workspace: PathBuf,
    readable: PathBuf,
    writable: PathBuf,
    secret: PathBuf,
}

impl Layout {
    fn make(scratch: &Path, probe: &Path, situation: Situation) -> Result<Self, RunError> {
        let layout = Self {
            scratch: scratch.to_owned(),
            rootfs: scratch.join("packages/rootfs"),
            workspace: if situation == Situation::Unit {
                unit::WORKSPACE.into()
            } else {
                scratch.join("agents/workspace")
            },
            readable: scratch.join("granted/readable"),
            writable: scratch.join("granted/writable"),
            secret: scratch.join("granted/secret"),
        };
        let app = layout.rootfs.join("app");
        let repository = layout.readable.join("repo/.git/hooks");
        for directory in [&app, &layout.workspace, &repository, &layout.writable] {
            fs::create_dir_all(directory).preparing(directory.display().to_string())?;
        }
        fs::copy(probe, app.join("escape-probe")).preparing("the probe")?;
        for file in [
            layout.readable.join("file"),
            layout.readable.join("repo/.git/config"),
            layout.writable.join("own"),
            layout.secret.clone(),
        ] {
            fs::write(&file, "content\n").preparing(file.display().to_string())?;
            fs::set_permissions(&file, Permissions::from_mode(0o644)).preparing("permissions")?;
        }
        // The readable grant is writable by its mode: what refuses is the sandbox.
        for directory in [&layout.readable, &layout.readable.join("repo/.git"), &repository] {
            fs::set_permissions(directory, Permissions::from_mode(0o777)).preparing("permissions")?;
        }
        let uid = user(situation)?;
        if rustix::process::geteuid().is_root() {
            for path in [
                &layout.workspace,
                &layout.writable,
                &layout.writable.join("own"),
                &layout.readable.join("file"),
            ] {
                chown(path, Some(uid), Some(uid)).preparing("ownership")?;
            }
        }
        Ok(layout)
    }

    /// Derives the plan of an agent with every kind of grant, and with what it asks for beyond: a plan
    /// that derives with one of these carries it, and the attempts then show what that gives.
    fn write_plan(&self, params: &Params) -> Result<PathBuf, RunError> {
        let mut capabilities = vec![
            format!("file_read: {}/**", params.readable),
            format!("file_write: {}/**", params.writable),
            "exec: /usr/bin/python3".to_owned(),
            format!("listen: {PORT}"),
        ];
        let mut plan = self.derive(params, &capabilities)?;
        for excess in self.excesses() {
            capabilities.push(excess);
            match self.derive(params, &capabilities) {
                Ok(wider) => plan = wider,
                Err(_) => drop(capabilities.pop()),
            }
        }
        let bytes = plan.to_json().map_err(|error| RunError::Plan(error.to_string()))?;
        let path = self.scratch.join("plan.json");
        fs::write(&path, bytes).preparing("the plan")?;
        Ok(path)
    }

    /// Grants of everything around the agent's own workspace and package, the nearest first.
    fn excesses(&self) -> Vec<String> {
        let around = |path: &Path| -> Vec<String> {
            let parents = path.ancestors().skip(1).filter(|path| path.parent().is_some());
            parents.map(|path| path.display().to_string()).collect()
        };
        let around = [around(&self.workspace), around(&self.rootfs)].concat();
        let kinds = ["exec", "file_write", "file_read"];
        kinds.iter().flat_map(|kind| around.iter().map(move |path| format!("{kind}: {path}/**"))).collect()
    }

    fn derive(&self, params: &Params, capabilities: &[String]) -> Result<SandboxPlan, RunError> {
        let no_plan = |error: String| RunError::Plan(error);
        let json = |error: serde_json::Error| RunError::Plan(error.to_string());
        let argument = serde_json::to_string(params).map_err(json)?;
        let agent = serde_json::json!({
            "capabilities": capabilities,
            "limits": { "tasks": TASKS },
            "name": "escape", "version": "1.0.0", "root": "host",
            "run": { "entrypoint": [PROGRAM], "lifecycle": "oneshot", "workdir": "/workspace" },
        });
        let agent = ResolvedAgent::from_json(&serde_json::to_vec(&agent).map_err(json)?)
            .map_err(|error| no_plan(format!("{error:?}")))?;
        let path =
            |path: &Path| path.display().to_string().parse().map_err(|error| no_plan(format!("{error}")));
        let entries = rootfs::scan(&self.rootfs).map_err(|error| no_plan(error.to_string()))?;
        derive(&PlanInput {
            agent: &agent,
            id: &"escape".parse().map_err(|error| no_plan(format!("{error}")))?,
            arguments: &[argument],
            rootfs: &path(&self.rootfs)?,
            entries: &entries,
            workspace: &path(&self.workspace)?,
        })
        .map_err(|error| no_plan(error.to_string()))
    }
}
