//! The program: how it is started, spoken to, and ended.

use std::fs;
use std::io::{Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use aos_core::config::Isolation;
use aos_core::report::LaunchReport;
use aos_isolation::backend::Backend;
use aos_isolation::facade::{Io, User, start};
use aos_isolation::programs::Programs;
use aos_sandbox::plan::SandboxPlan;
use rustix::process::Signal;

use crate::bed::{Bed, programs, wait};

/// Short sleeps: a signal that comes between the print and one long sleep would be seen after it.
const WAITING: &str = "import time\nprint('ready', flush=True)\nwhile True: time.sleep(0.02)";

pub(crate) fn status_and_streams(bed: &Bed) {
    let plan = bed.plan("import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)", &[]);
    let ended = bed.run(&plan);
    assert_eq!((ended.status, ended.out.as_str(), ended.err.as_str()), (3, "out\n", "err\n"));
    let report = ended.report.unwrap();
    assert!(report.all_in_force(), "{report:?}");
    let names: Vec<&str> = report.layers.iter().map(|layer| layer.layer.as_str()).collect();
    for layer in ["mounts", "capabilities", "no_new_privs", "seccomp"] {
        assert!(names.contains(&layer), "{names:?}");
    }
    assert_eq!(names.contains(&"landlock"), bed.backend != Backend::Gvisor, "{names:?}");
    assert_eq!(names.first() == Some(&"isolation"), bed.backend != Backend::Native, "{names:?}");
    // What the host's kernel says of QEMU stands before what the machine's says of the agent.
    assert_eq!(names.get(1) == Some(&"qemu"), bed.backend == Backend::Vm, "{names:?}");
    for status in [0, 1, 120, 255] {
        assert_eq!(bed.run(&bed.plan(&format!("import sys; sys.exit({status})"), &[])).status, status);
    }
}

/// More than is on its way at once, to an agent that reads it late; and its end.
pub(crate) fn standard_input(bed: &Bed) {
    let script = "
import sys, time
print('ready', flush=True)
time.sleep(0.3)
data = sys.stdin.buffer.read()
print(len(data), sum(data), flush=True)
sys.stdout.buffer.write(data)
";
    let data: Vec<u8> = (0..300_000_u32).map(|number| b'a' + u8::try_from(number % 23).unwrap()).collect();
    let plan = bed.plan(script, &[]);
    let io = Io {
        stdin: Stdio::piped(),
        stdout: bed.file("stdout").into(),
        stderr: bed.file("stderr").into(),
        report: None,
    };
    let user = User { uid: bed.uid, gid: bed.uid };
    let mut running = start(bed.backend, &plan, io, Some(user), &programs()).unwrap();
    let mut stdin = running.child().stdin.take().unwrap();
    stdin.write_all(&data).unwrap();
    drop(stdin);
    assert_eq!(wait(&mut running), 0, "{}", bed.text("stderr"));
    let sum: u64 = data.iter().map(|byte| u64::from(*byte)).sum();
    let wanted = format!("ready\n{} {sum}\n{}", data.len(), String::from_utf8(data).unwrap());
    assert!(bed.text("stdout") == wanted, "{} bytes", bed.text("stdout").len());
}

/// An agent whose output nobody reads any more finds that out.
pub(crate) fn an_output_that_is_closed(bed: &Bed) {
    let script = "
import os
try:
    while True:
        os.write(1, b'x' * 65536)
except BrokenPipeError:
    os._exit(9)
";
    let plan = bed.plan(script, &[]);
    let io =
        Io { stdin: Stdio::null(), stdout: Stdio::piped(), stderr: bed.file("stderr").into(), report: None };
    let user = User { uid: bed.uid, gid: bed.uid };
    let mut running = start(bed.backend, &plan, io, Some(user), &programs()).unwrap();
    let mut stdout = running.child().stdout.take().unwrap();
    stdout.read_exact(&mut [0; 1000]).unwrap();
    drop(stdout);
    assert_eq!(wait(&mut running), 9, "{}", bed.text("stderr"));
}

pub(crate) fn signals(bed: &Bed) {
    for (name, status) in [("SIGKILL", 137), ("SIGSEGV", 139)] {
        let script = format!("import os, signal; os.kill(os.getpid(), signal.{name})");
        assert_eq!(bed.run(&bed.plan(&script, &[])).status, status, "{name}");
    }
}

pub(crate) fn a_stop_is_passed_on(bed: &Bed) {
    let plan = bed.plan(WAITING, &[]);
    let mut running = bed.start(&plan);
    bed.hear(&mut running, "stdout", "ready\n");
    running.signal(Signal::TERM).unwrap();
    assert_eq!(wait(&mut running), 128 + 15);
    let handling =
        format!("import signal, sys\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(9))\n{WAITING}");
    let plan = bed.plan(&handling, &[]);
    let mut running = bed.start(&plan);
    bed.hear(&mut running, "stdout", "ready\n");
    running.signal(Signal::TERM).unwrap();
    assert_eq!(wait(&mut running), 9);
    assert_eq!(bed.text("stderr"), "");
}

pub(crate) fn arguments_environment_and_directory(bed: &Bed) {
    let script = "import json, os, sys; print(json.dumps([sys.argv[1:], dict(os.environ), os.getcwd()]))";
    let found: serde_json::Value = serde_json::from_str(&bed.succeed(script, &[])).unwrap();
    assert_eq!(found[0], serde_json::json!(["two words", ""]));
    assert_eq!(found[2], "/workspace");
    let plan = bed.plan(script, &[]);
    let mut wanted = serde_json::to_value(&plan.program.env).unwrap();
    // Python sets this one itself.
    wanted["LC_CTYPE"] = found[1]["LC_CTYPE"].clone();
    let mut found = found[1].clone();
    found["LC_CTYPE"] = wanted["LC_CTYPE"].clone();
    assert_eq!(found, wanted);
}

pub(crate) fn nothing_is_inherited(bed: &Bed) {
    let script = "
import os
print(sorted(int(name) for name in os.listdir('/proc/self/fd'))[:-1])
print(os.environ.get('AOS_TEST_SECRET'), oct(os.umask(0)), os.getsid(0) == os.getpid())
";
    let plan = bed.plan(script, &[]);
    let path = bed.path("plan.json");
    fs::write(&path, plan.to_json().unwrap()).unwrap();
    let output = driver(bed, &path).env("AOS_TEST_SECRET", "x").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(text, "[0, 1, 2]\nNone 0o22 True\n", "{}", String::from_utf8_lossy(&output.stderr));
}

/// The command of the backend's driver by itself, as a unit has it.
pub(crate) fn driver(bed: &Bed, plan: &str) -> Command {
    with_driver(bed, plan, |program| Command::new(program))
}

/// The same, started by another command.
pub(crate) fn with_driver(bed: &Bed, plan: &str, command: impl FnOnce(&Path) -> Command) -> Command {
    let programs = programs();
    let program = if bed.backend == Backend::Native { programs.launcher() } else { programs.isolate() };
    let mut command = command(&program.unwrap());
    command.args(["--plan", plan, "--uid", &bed.uid.to_string(), "--gid", &bed.uid.to_string()]);
    if bed.backend != Backend::Native {
        command.args(["--backend", bed.backend.name()]);
        for directory in programs.directories() {
            command.arg("--programs").arg(directory);
        }
    }
    command.stdin(Stdio::null());
    command
}

pub(crate) fn readiness_is_told_once(bed: &Bed) {
    let name = format!("aos-contract-{}-{}", bed.uid, std::process::id());
    let manager = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    manager.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let path = bed.path("plan.json");
    let run = |script: &str, capabilities: &[&str]| {
        fs::write(&path, bed.plan(script, capabilities).to_json().unwrap()).unwrap();
        let output = driver(bed, &path).env("NOTIFY_SOCKET", format!("@{name}")).output().unwrap();
        let mut heard = Vec::new();
        let mut buffer = [0; 2048];
        while let Ok(length) = manager.recv(&mut buffer) {
            heard.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
        }
        (output, heard)
    };
    let (output, heard) = run("import os; print('NOTIFY_SOCKET' in os.environ)", &[]);
    assert_eq!(output.stdout, b"False\n", "{}", String::from_utf8_lossy(&output.stderr));
    assert!(heard.len() == 1 && heard[0].starts_with("READY=1\nSTATUS=Confined: "), "{heard:?}");
    // A start that fails is never ready: a source that is missing, a program that is none.
    fs::write(bed.path("rootfs/app/main.sh"), "no program").unwrap();
    fs::set_permissions(bed.path("rootfs/app/main.sh"), fs::Permissions::from_mode(0o755)).unwrap();
    let plan = bed.plan_of(&["/app/main.sh"], &[], serde_json::json!({}));
    fs::write(&path, plan.to_json().unwrap()).unwrap();
    let output = driver(bed, &path).env("NOTIFY_SOCKET", format!("@{name}")).output().unwrap();
    let mut buffer = [0; 2048];
    while let Ok(length) = manager.recv(&mut buffer) {
        assert!(!buffer[..length].starts_with(b"READY=1"), "{}", String::from_utf8_lossy(&buffer[..length]));
    }
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(203) && error.contains("/app/main.sh"), "{error}");
    let (output, heard) = run("print('ran')", &["file_read: ROOT/absent/**"]);
    assert_eq!(output.stdout, b"", "{heard:?}");
    assert!(!heard.iter().any(|text| text.contains("READY=1")), "{heard:?}");
}

/// `aos-launch` becomes the driver of the backend that a plan names, with the unit's limits checked before.
pub(crate) fn the_launcher_hands_a_plan_over(bed: &Bed) {
    let mut plan = bed.plan("print('ran')", &[]);
    plan.isolation = match bed.backend {
        Backend::Native => return the_launcher_refuses_a_descriptor(bed, plan),
        Backend::Crun => Isolation::OciCrun,
        Backend::Runc => Isolation::OciRunc,
        Backend::Gvisor => Isolation::Gvisor,
        Backend::Vm => Isolation::Vm,
    };
    let (path, report) = (bed.path("plan.json"), bed.path("report.json"));
    fs::write(&path, plan.to_json().unwrap()).unwrap();
    let mut command = Command::new(programs().launcher().unwrap());
    command.args(["--plan", &path, "--report", &report, "--unit", "--uid", &bed.uid.to_string()]);
    let output = command.stdin(Stdio::null()).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    if Programs::default().find(bed.backend).is_none() {
        // The test's own runtime is not where Debian installs it: then the driver says what is missing.
        assert!(error.contains("is not installed") && output.status.code() == Some(120), "{error}");
        return;
    }
    if output.status.code() == Some(120) {
        // Another version is installed than the one that is tested, or no kernel for machines is.
        let says = if bed.backend == Backend::Vm { "kernel" } else { bed.backend.program() };
        assert!(error.contains(says) && output.stdout.is_empty(), "{error}");
        return;
    }
    assert_eq!((output.stdout.as_slice(), error.as_str()), (b"ran\n".as_slice(), ""));
    let report = LaunchReport::parse(&fs::read(&report).unwrap()).unwrap();
    assert_eq!(report.layers[0].asked, bed.backend.name());
}

/// A plan for a backend that came by a descriptor is not run natively.
fn the_launcher_refuses_a_descriptor(bed: &Bed, mut plan: SandboxPlan) {
    plan.isolation = Isolation::Gvisor;
    let ended = bed.run(&plan);
    assert!(ended.status == 243 && ended.out.is_empty() && ended.report.is_none(), "{ended:?}");
}

pub(crate) fn the_end_leaves_nothing(bed: &Bed) {
    let before = Left::look(bed);
    let script = "
import os, time
if os.fork() == 0:
    time.sleep(600)
print('done')
";
    assert_eq!(bed.succeed(script, &[]), "done\n");
    before.expect(bed);
}

pub(crate) fn a_kill_leaves_nothing(bed: &Bed) {
    let before = Left::look(bed);
    let plan = bed.plan(WAITING, &[]);
    let mut running = bed.start(&plan);
    bed.hear(&mut running, "stdout", "ready\n");
    assert!(!bed.processes().is_empty());
    running.kill().unwrap();
    before.expect(bed);
}

pub(crate) fn a_driver_that_is_killed_leaves_nothing(bed: &Bed) {
    let before = Left::look(bed);
    let plan = bed.plan(WAITING, &[]);
    let mut running = bed.start(&plan);
    bed.hear(&mut running, "stdout", "ready\n");
    running.signal(Signal::KILL).unwrap();
    assert_eq!(wait(&mut running), 137);
    before.expect(bed);
}

/// What a run could leave on the host.
struct Left {
    mounts: usize,
    groups: Vec<String>,
    files: Vec<String>,
}

impl Left {
    fn look(bed: &Bed) -> Self {
        let mut files = Vec::new();
        for directory in ["/run", "/tmp", "/var/tmp", "/run/crun", "/run/runc", "/run/user"] {
            let Ok(entries) = fs::read_dir(directory) else { continue };
            // All that a driver makes belongs to the agent's user.
            let is_own = |entry: &fs::DirEntry| entry.metadata().is_ok_and(|found| found.uid() == bed.uid);
            let own = entries.filter_map(Result::ok).filter(is_own);
            files.extend(own.map(|entry| entry.path().display().to_string()));
        }
        files.sort();
        let mut groups = Vec::new();
        for name in ["contract", "agent"] {
            let found = Command::new("find")
                .args(["/sys/fs/cgroup", "-maxdepth", "4", "-name", name])
                .output()
                .unwrap();
            groups.extend(String::from_utf8_lossy(&found.stdout).lines().map(str::to_owned));
        }
        // Other mounts of this machine are not this run's.
        let marks = [bed.path(""), format!("uid={}", bed.uid)];
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let is_own = |line: &&str| marks.iter().any(|mark| line.contains(mark.as_str()));
        Self { mounts: mounts.lines().filter(is_own).count(), groups, files }
    }

    /// Processes may take a moment to end after their killer; everything else is as it was.
    fn expect(&self, bed: &Bed) {
        let started = Instant::now();
        while !bed.processes().is_empty() {
            assert!(started.elapsed() < Duration::from_secs(10), "{:?}", bed.processes());
            std::thread::sleep(Duration::from_millis(10));
        }
        let now = Self::look(bed);
        assert_eq!(now.groups, self.groups);
        let new: Vec<&String> = now.files.iter().filter(|path| !self.files.contains(path)).collect();
        assert!(new.is_empty(), "{new:?}");
        assert_eq!(now.mounts, self.mounts);
    }
}
