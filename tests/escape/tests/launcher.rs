//! The launcher by itself: who may start it, what it refuses, what it passes on, and what is left
//! when it is killed.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a panic is the failure report of a test, numbers are told, and starting the launcher is the point"
)]

use std::fs::{self, Permissions};
use std::io::Read;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use aos_core::config::ResolvedAgent;
use aos_core::report::LaunchReport;
use aos_escape::runner::{Scratch, launcher, scratch};
use aos_sandbox::plan::{PlanInput, SandboxPlan, derive};
use aos_sandbox::rootfs;

const UID: u32 = 1_879_113_726;

/// A place for one agent: package, workspace, data.
struct Place {
    root: Scratch,
}

impl Place {
    /// A test that cannot run has failed.
    fn new() -> Self {
        assert!(rustix::process::geteuid().is_root(), "run as root: this test starts the launcher as root");
        let place = Self { root: scratch().unwrap() };
        for name in ["rootfs/app", "workspace", "data"] {
            fs::create_dir_all(place.path(name)).unwrap();
        }
        chown(place.path("workspace"), Some(UID), Some(UID)).unwrap();
        fs::write(place.path("data/file"), "data\n").unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// A plan for a Python script in the package.
    fn plan(&self, script: &str, capabilities: &[String]) -> SandboxPlan {
        fs::write(self.path("rootfs/app/main.py"), script).unwrap();
        self.plan_of(&["/usr/bin/python3", "/app/main.py"], capabilities)
    }

    fn plan_of(&self, entrypoint: &[&str], capabilities: &[String]) -> SandboxPlan {
        self.limited(entrypoint, capabilities, &serde_json::json!({}))
    }

    fn limited(
        &self,
        entrypoint: &[&str],
        capabilities: &[String],
        limits: &serde_json::Value,
    ) -> SandboxPlan {
        // A package with its own loader is a package with its own root.
        let root = if self.path("rootfs/lib64").exists() { "own" } else { "host" };
        let agent = serde_json::json!({
            "capabilities": capabilities, "limits": limits, "name": "test", "version": "1.0.0", "root": root,
            "run": { "entrypoint": entrypoint, "lifecycle": "oneshot", "workdir": "/workspace" },
        });
        let agent = ResolvedAgent::from_json(agent.to_string().as_bytes()).unwrap();
        let rootfs = self.path("rootfs").to_str().unwrap().parse().unwrap();
        derive(&PlanInput {
            agent: &agent,
            id: &"test".parse().unwrap(),
            arguments: &[],
            rootfs: &rootfs,
            entries: &rootfs::scan(rootfs.as_path()).unwrap(),
            workspace: &self.path("workspace").to_str().unwrap().parse().unwrap(),
        })
        .unwrap()
    }

    fn command(&self, plan: &SandboxPlan) -> Command {
        fs::write(self.path("plan.json"), plan.to_json().unwrap()).unwrap();
        let mut command = Command::new(launcher::find().unwrap());
        command.arg("--plan").arg(self.path("plan.json"));
        command.arg("--uid").arg(UID.to_string()).stdin(Stdio::null());
        command
    }

    fn run(&self, plan: &SandboxPlan) -> Output {
        self.command(plan).output().unwrap()
    }

    fn read_data(&self) -> Vec<String> {
        vec![format!("file_read: {}/**", self.path("data").display())]
    }
}

fn error(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn assert_fails(output: &Output, status: i32, says: &str) {
    assert_eq!(output.status.code(), Some(status), "{}", error(output));
    assert!(error(output).contains(says), "{:?} does not say {says:?}", error(output));
    assert!(error(output).starts_with("aos-launch: "), "{}", error(output));
}

#[test]
fn output_status_and_report() {
    let place = Place::new();
    let plan = place.plan("import sys; print('hello'); sys.exit(3)", &[]);
    let report = place.path("report.json");
    let output = place.command(&plan).arg("--report").arg(&report).output().unwrap();
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(3), b"hello\n".as_slice()));
    assert_eq!(error(&output), "");
    let report = LaunchReport::parse(&fs::read(report).unwrap()).unwrap();
    assert!(report.all_in_force());
    let names: Vec<_> = report.layers.iter().map(|layer| layer.layer.as_str()).collect();
    assert_eq!(
        names,
        ["namespaces", "mounts", "rlimits", "capabilities", "no_new_privs", "landlock", "seccomp"]
    );
}

#[test]
fn root_is_refused() {
    let place = Place::new();
    let plan = place.plan("", &[]);
    let path = place.path("plan.json");
    fs::write(&path, plan.to_json().unwrap()).unwrap();
    let run = |arguments: &[&str]| {
        Command::new(launcher::find().unwrap()).arg("--plan").arg(&path).args(arguments).output().unwrap()
    };
    assert_fails(&run(&[]), 217, "never runs as root");
    assert_fails(&run(&["--uid", "0"]), 217, "cannot become user 0");
    assert_fails(&run(&["--uid", "4294967295"]), 217, "cannot become user");
    assert_fails(&run(&["--uid", "5", "--gid", "0"]), 217, "cannot become user");
    assert_fails(&run(&["--uid"]), 2, "--plan PATH");
}

#[test]
fn bad_plans_are_refused() {
    let place = Place::new();
    let plan = place.plan("", &[]);
    let json = String::from_utf8(plan.to_json().unwrap()).unwrap();
    let mut command = place.command(&plan);
    for (text, says) in [
        (json.replacen("\"version\":1", "\"version\":2", 1), "version 2"),
        (json.replacen("\"version\":1", "\"version\":1,\"extra\":1", 1), "unknown field"),
        (json.replacen("\"agent-v1\"", "\"none\"", 1), "unknown variant"),
        (json.replacen("\"/usr/bin/python3\"", "\"python3\"", 1), "absolute path"),
        (json.get(..100).unwrap().to_owned(), "EOF"),
        (" ".repeat(5 << 20), "over"),
    ] {
        fs::write(place.path("plan.json"), text).unwrap();
        assert_fails(&command.output().unwrap(), 243, says);
    }
}

#[test]
fn grants_that_cannot_be_had_name_the_capability() {
    let place = Place::new();
    let missing = format!("file_read: {}/**", place.path("absent").display());
    assert_fails(
        &place.run(&place.plan("", std::slice::from_ref(&missing))),
        226,
        &format!("capability `{missing}`"),
    );
    let file = format!("file_read: {}/**", place.path("data/file").display());
    assert_fails(&place.run(&place.plan("", &[file])), 226, "not a directory");
    let directory = format!("file_read: {}", place.path("data").display());
    assert_fails(&place.run(&place.plan("", &[directory])), 226, "is a directory; write");
    symlink("/etc", place.path("link")).unwrap();
    let linked = format!("file_read: {}/**", place.path("link").display());
    assert_fails(&place.run(&place.plan("", &[linked])), 226, "symbolic link");
    let through = format!("file_read: {}/ssl/**", place.path("link").display());
    assert_fails(&place.run(&place.plan("", &[through])), 226, "symbolic link");
}

#[test]
fn sockets_pipes_and_devices_are_no_grants() {
    let place = Place::new();
    let _socket = std::os::unix::net::UnixListener::bind(place.path("data/socket")).unwrap();
    let make = ["-c", "mkfifo \"$0/pipe\" && mknod \"$0/device\" c 1 3"];
    assert!(Command::new("/bin/sh").args(make).arg(place.path("data")).status().unwrap().success());
    for (name, is) in [("socket", "a socket"), ("pipe", "a pipe"), ("device", "a device")] {
        for right in ["file_read", "file_write", "exec"] {
            let grant = format!("{right}: {}", place.path("data").join(name).display());
            let output = place.run(&place.plan("", std::slice::from_ref(&grant)));
            assert_fails(&output, 226, &format!("capability `{grant}`: {}", place.path("data").display()));
            assert!(error(&output).contains(&format!("{name} is {is};")), "{}", error(&output));
        }
    }
}

/// What serves several directories of `/etc` at once is never the source of a grant.
#[test]
fn a_grant_in_etc_shows_nothing_beside_it() {
    let place = Place::new();
    for grant in
        ["file_read: /etc/alternatives/**", "exec: /etc/alternatives/**", "file_read: /etc/ssl/certs/**"]
    {
        let folder = grant.split_once(": ").unwrap().1.trim_end_matches("/**");
        let script =
            format!("import os; print(*sorted(os.listdir('{folder}')), *os.listdir('/'), sep='\\n')");
        let output = place.run(&place.plan(&script, &[grant.to_owned()]));
        let inside = String::from_utf8(output.stdout).unwrap();
        assert!(
            !inside.lines().any(|name| ["passwd", "hosts", "shadow"].contains(&name)),
            "{grant}: {inside}"
        );
        assert!(!inside.contains(".union"), "{inside}");
        let count = fs::read_dir(folder).unwrap().count();
        assert!(inside.lines().count() >= count && count > 0, "{grant}: {inside}");
    }
}

#[test]
fn programs_that_cannot_be_had_are_named() {
    let place = Place::new();
    let absent = place.plan_of(&["/app/absent"], &[]);
    assert_fails(&place.run(&absent), 203, "/app/absent");
    fs::write(place.path("rootfs/app/script"), "#!/usr/bin/no-such-interpreter\n").unwrap();
    fs::set_permissions(place.path("rootfs/app/script"), Permissions::from_mode(0o755)).unwrap();
    let script = place.plan_of(&["/app/script"], &[]);
    assert_fails(&place.run(&script), 203, "/usr/bin/no-such-interpreter");
    fs::write(place.path("rootfs/app/data"), "no program\n").unwrap();
    let data = place.plan_of(&["/app/data"], &[]);
    assert_fails(&place.run(&data), 203, "cannot execute /app/data");
    let grant = vec!["exec: /usr/bin/no-such-program".to_owned()];
    assert_fails(&place.run(&place.plan("", &grant)), 203, "exec: /usr/bin/no-such-program");
}

#[test]
fn scripts_and_env_find_their_interpreters() {
    let place = Place::new();
    let script = place.path("rootfs/app/script");
    for line in ["#!/usr/bin/python3", "#!/usr/bin/env python3", "#!/usr/bin/env -S python3 -u"] {
        fs::write(&script, format!("{line}\nprint('ran')\n")).unwrap();
        fs::set_permissions(&script, Permissions::from_mode(0o755)).unwrap();
        let output = place.run(&place.plan_of(&["/app/script"], &[]));
        assert_eq!(output.stdout, b"ran\n", "{line}: {}", error(&output));
    }
}

#[test]
fn readiness_is_sent_once_and_only_after_success() {
    let place = Place::new();
    let name = format!("aos-launcher-test-{}", std::process::id());
    let manager = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    manager.set_nonblocking(true).unwrap();
    let variable = format!("@{name}");
    let failed =
        place.command(&place.plan_of(&["/app/absent"], &[])).env("NOTIFY_SOCKET", &variable).output();
    let failed = failed.unwrap();
    assert_eq!(failed.status.code(), Some(203));
    // The one line of standard error, and no readiness.
    let mut buffer = [0; 4096];
    let mut heard = || {
        let length = manager.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    };
    let status = |output: &Output| format!("STATUS={}", error(output).trim_start_matches("aos-launch: "));
    let text = heard();
    assert!(text.starts_with("STATUS=exec: ") && text.contains("/app/absent"), "{text}");
    assert_eq!(text, status(&failed));
    // A failure before there is any process inside.
    let limited = place.limited(&["/app/absent"], &[], &serde_json::json!({ "memory": "4K" }));
    let failed = place.command(&limited).arg("--unit").env("NOTIFY_SOCKET", &variable).output().unwrap();
    let text = heard();
    assert!(text.starts_with("STATUS=limits: "), "{text}");
    assert_eq!(text, status(&failed));
    assert!(manager.recv(&mut [0; 64]).is_err());
    let plan = place.plan("import os; print('NOTIFY_SOCKET' in os.environ)", &[]);
    let output = place.command(&plan).env("NOTIFY_SOCKET", &variable).output().unwrap();
    assert_eq!(output.stdout, b"False\n");
    let mut buffer = [0; 256];
    let length = manager.recv(&mut buffer).unwrap();
    assert!(buffer[..length].starts_with(b"READY=1\nSTATUS=Confined: 7 layers in force"));
    assert!(manager.recv(&mut buffer).is_err());
    let unreachable = place.command(&plan).env("NOTIFY_SOCKET", "/nonexistent/socket").output().unwrap();
    assert_fails(&unreachable, 124, "/nonexistent/socket");
}

/// No unit limits this test to one page, on any machine.
#[test]
fn a_unit_without_the_limits_of_the_plan_is_refused() {
    let place = Place::new();
    place.plan("print('ran')", &[]);
    let entrypoint = ["/usr/bin/python3", "/app/main.py"];
    let limited = place.limited(&entrypoint, &[], &serde_json::json!({ "memory": "4K" }));
    let refused = place.command(&limited).arg("--unit").output().unwrap();
    assert_fails(&refused, 205, "aos-launch: limits: ");
    assert_eq!(refused.stdout, b"");
    // What asks for no limit needs none; what the unit cannot hold is not asked of it.
    for limits in [serde_json::json!({}), serde_json::json!({ "runtime": "1h", "open_files": 64 })] {
        let plan = place.limited(&entrypoint, &[], &limits);
        let output = place.command(&plan).arg("--unit").output().unwrap();
        assert_eq!(output.stdout, b"ran\n", "{}", error(&output));
    }
    // Outside a unit the caller answers for them.
    let output = place.run(&limited);
    assert_eq!(output.stdout, b"ran\n", "{}", error(&output));
}

#[test]
fn a_directory_as_standard_stream_is_refused() {
    let place = Place::new();
    let mut command = place.command(&place.plan("", &[]));
    let output = command.stdin(fs::File::open("/").unwrap()).output().unwrap();
    assert_fails(&output, 202, "standard input");
}

/// Starts a script that prints a line when it is ready, and waits for the line.
fn start(place: &Place, script: &str) -> std::process::Child {
    let mut child = place.command(&place.plan(script, &[])).stdout(Stdio::piped()).spawn().unwrap();
    let mut byte = [0; 1];
    child.stdout.as_mut().unwrap().read_exact(&mut byte).unwrap();
    child
}

fn signal(child: &std::process::Child, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

#[test]
fn signals_reach_the_agent() {
    let place = Place::new();
    let waiting = "import time\nprint('x', flush=True)\ntime.sleep(60)";
    let mut child = start(&place, waiting);
    signal(&child, rustix::process::Signal::TERM);
    assert_eq!(child.wait().unwrap().code(), Some(128 + 15));
    let handling =
        format!("import signal, sys\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(9))\n{waiting}");
    let mut child = start(&place, &handling);
    signal(&child, rustix::process::Signal::TERM);
    assert_eq!(child.wait().unwrap().code(), Some(9));
}

#[test]
fn orphans_are_reaped_and_end_with_the_agent() {
    let place = Place::new();
    let script = "
import os, time
if os.fork() == 0:
    if os.fork() == 0:
        os._exit(0)
    os._exit(0)
os.wait()
time.sleep(0.3)
left = [p for p in os.listdir('/proc') if p.isdigit()]
print(len(left))
if os.fork() == 0:
    time.sleep(60)
";
    let started = Instant::now();
    let output = place.run(&place.plan(script, &[]));
    assert_eq!(output.stdout, b"1\n", "{}", error(&output));
    assert!(started.elapsed() < Duration::from_secs(30), "the second orphan was waited for");
}

/// Processes of the test's user: no other test starts one at the same time.
fn processes_of(marker: &str) -> usize {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries
        .filter(|entry| {
            fs::read(entry.path().join("cmdline"))
                .is_ok_and(|line| String::from_utf8_lossy(&line).contains(marker))
        })
        .count()
}

#[test]
fn nothing_is_left_when_the_launcher_is_killed() {
    let place = Place::new();
    let marker = format!("marker-{}", std::process::id());
    let script = "import time\nprint('x', flush=True)\ntime.sleep(60)";
    let mut plan = place.plan(script, &[]);
    plan.program.argv.push(marker.clone());
    let mut child = place.command(&plan).stdout(Stdio::piped()).spawn().unwrap();
    child.stdout.as_mut().unwrap().read_exact(&mut [0; 1]).unwrap();
    assert_eq!(processes_of(&marker), 1);
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(9));
    let deadline = Instant::now() + Duration::from_secs(20);
    while processes_of(&marker) > 0 {
        assert!(Instant::now() < deadline, "the agent survived its launcher");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn mounts_and_descriptors_do_not_accumulate() {
    let place = Place::new();
    let count = || fs::read_to_string("/proc/self/mountinfo").unwrap().lines().count();
    let plan = place.plan("pass", &place.read_data());
    let failing = place.plan_of(&["/app/absent"], &[]);
    let before = count();
    for _ in 0..5 {
        assert!(place.run(&plan).status.success());
        assert!(!place.run(&failing).status.success());
    }
    assert_eq!(count(), before);
}

/// A host mount that appears below a grant while the agent runs stays outside.
#[test]
fn later_mounts_do_not_spread_inside() {
    let place = Place::new();
    let below = place.path("data/below");
    fs::create_dir(&below).unwrap();
    let script = format!(
        "import os, time\nprint('x', flush=True)\nwhile not os.path.exists('/workspace/go'): time.sleep(0.01)\nprint(os.listdir('{}'))",
        below.display()
    );
    let plan = place.plan(&script, &place.read_data());
    let mut child = place.command(&plan).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut [0; 2]).unwrap();
    let host = "set -e; mount -t tmpfs none \"$0\"; touch \"$0/host\"";
    assert!(Command::new("/bin/sh").args(["-c", host]).arg(&below).status().unwrap().success());
    fs::write(place.path("workspace/go"), "").unwrap();
    let mut text = String::new();
    stdout.read_to_string(&mut text).unwrap();
    assert!(child.wait().unwrap().success());
    assert!(Command::new("/bin/umount").arg(&below).status().unwrap().success());
    assert_eq!(text, "[]\n");
}

/// What can be written under one name of a directory is not executed under another.
#[test]
fn a_second_name_by_a_mount_is_refused() {
    let place = Place::new();
    for name in ["data/tools", "data/mirror", "data/other"] {
        fs::create_dir_all(place.path(name)).unwrap();
    }
    let mount = |from: &str, to: &str| {
        let mut command = Command::new("/bin/mount");
        command.arg("--bind").arg(place.path(from)).arg(place.path(to));
        assert!(command.status().unwrap().success());
    };
    let plan = |exec: &str, write: &str| {
        let grant = |kind: &str, name: &str| format!("{kind}: {}/**", place.path(name).display());
        place.plan("print('ran')", &[grant("exec", exec), grant("file_write", write)])
    };
    let (refused, fine) = (plan("data/tools", "data/mirror"), plan("data/tools", "data/other"));
    assert_eq!(place.run(&refused).stdout, b"ran\n");
    mount("data/tools", "data/mirror");
    let outputs = [&refused, &fine].map(|plan| place.run(plan));
    assert!(Command::new("/bin/umount").arg(place.path("data/mirror")).status().unwrap().success());
    let [output, neighbour] = outputs;
    assert_fails(&output, 226, "by a mount of this machine");
    assert_eq!(neighbour.stdout, b"ran\n", "{}", error(&neighbour));
}

/// A directory on the way to a grant alternates with a link to a secret: the launcher refuses or
/// grants the directory, and never what the link names.
#[test]
fn a_swapped_link_never_widens_a_grant() {
    let place = Place::new();
    let (real, swapped, secret) = (place.path("data/real"), place.path("data/swapped"), place.path("secret"));
    fs::create_dir_all(swapped.join("inner")).unwrap();
    fs::create_dir_all(secret.join("inner")).unwrap();
    fs::write(secret.join("inner/name"), "secret").unwrap();
    let link = place.path("data/link");
    symlink(&secret, &link).unwrap();
    let grant = format!("file_read: {}/inner/**", swapped.display());
    let plan = place.plan(&format!("import os; print(os.listdir('{}/inner'))", swapped.display()), &[grant]);
    let stop = std::sync::atomic::AtomicBool::new(false);
    let outputs = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                swap(&real, &swapped, &link);
            }
        });
        let outputs: Vec<Output> = (0..40).map(|_| place.run(&plan)).collect();
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        outputs
    });
    let granted = outputs.iter().filter(|output| output.status.success()).count();
    for output in &outputs {
        let stdout = String::from_utf8_lossy(&output.stdout);
        assert!(!stdout.contains("name"), "{stdout}");
    }
    println!("{granted} of {} launches had the directory", outputs.len());
}

/// The directory away and the link in its place, and back.
fn swap(real: &Path, swapped: &Path, link: &Path) {
    fs::rename(swapped, real).unwrap();
    fs::rename(link, swapped).unwrap();
    fs::rename(swapped, link).unwrap();
    fs::rename(real, swapped).unwrap();
}

/// Copies a file of the host into the package.
fn copy_in(place: &Place, from: &str, to: &str) {
    let to = place.path("rootfs").join(to);
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    fs::copy(from, to).unwrap();
}

#[test]
fn a_package_with_its_own_root() {
    let place = Place::new();
    copy_in(&place, "/usr/bin/cat", "bin/cat");
    copy_in(&place, "/usr/bin/ls", "bin/ls");
    copy_in(&place, "/usr/bin/ls", "usr/libexec/ls");
    copy_in(&place, "/lib64/ld-linux-x86-64.so.2", "lib64/ld-linux-x86-64.so.2");
    copy_in(&place, "/lib/x86_64-linux-gnu/libc.so.6", "lib/x86_64-linux-gnu/libc.so.6");
    fs::create_dir_all(place.path("rootfs/etc")).unwrap();
    fs::write(place.path("rootfs/etc/extra"), "extra\n").unwrap();
    fs::write(place.path("rootfs/etc/hostname"), "not this\n").unwrap();
    let run = |words: &[&str]| {
        let mut plan = place.plan_of(words, &[]);
        assert_eq!(plan.root, aos_core::config::RootKind::Own);
        plan.program.env.clear();
        place.run(&plan)
    };
    let output = run(&["/bin/cat", "/etc/extra", "/etc/hostname"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "extra\ntest\n", "{}", error(&output));
    for program in ["/bin/ls", "/usr/libexec/ls"] {
        let output = run(&["/bin/cat", program]);
        assert!(error(&output).contains("Permission denied"), "{}", error(&output));
    }
    let output = run(&["/bin/cat", "/usr/share/common-licenses/GPL-3"]);
    assert!(error(&output).contains("No such file"), "the host's /usr is visible");
}

#[test]
fn a_package_over_the_hosts_usr() {
    let place = Place::new();
    for (path, text) in [
        ("usr/share/tool/data", "union\n"),
        ("usr/lib/tool/data", "library\n"),
        ("etc/tool.conf", "conf\n"),
        ("opt/tool/data", "opt\n"),
        ("top", "top\n"),
    ] {
        let path = place.path("rootfs").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    copy_in(&place, "/usr/bin/ls", "usr/bin/aos-test-tool");
    symlink("opt/tool", place.path("rootfs/link")).unwrap();
    let script = "
import subprocess
for path in ['/usr/share/tool/data', '/usr/lib/tool/data', '/etc/tool.conf', '/link/data', '/top', '/etc/hostname']:
    print(open(path).read(), end='')
for path in ['/usr/bin/aos-test-tool', '/usr/bin/ls']:
    try: open(path); print('readable')
    except PermissionError: print('denied')
print(open('/etc/debian_version').read() != '')
print(subprocess.run(['/usr/bin/aos-test-tool', '/opt/tool'], capture_output=True).stdout)
";
    let capabilities = ["file_read: /etc/debian_version", "exec: /usr/bin/aos-test-tool"].map(str::to_owned);
    let output = place.run(&place.plan(script, &capabilities));
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "union\nlibrary\nconf\nopt\ntop\ntest\nreadable\ndenied\nTrue\nb'data\\n'\n",
        "{}",
        error(&output)
    );
}

/// A right to execute brings the right to read, on the host's files outside `/usr` too.
#[test]
fn granted_programs_outside_usr() {
    let place = Place::new();
    for name in ["tool", "other"] {
        fs::copy("/usr/bin/ls", place.path("data").join(name)).unwrap();
    }
    let script = format!(
        "
import subprocess
for name in ['tool', 'other']:
    try: print(subprocess.run(['{0}/' + name, '/app'], capture_output=True).stdout)
    except PermissionError: print('denied')
    except FileNotFoundError: print('absent')
",
        place.path("data").display()
    );
    let one = vec![format!("exec: {}", place.path("data/tool").display())];
    let output = place.run(&place.plan(&script, &one));
    assert_eq!(output.stdout, b"b'main.py\\n'\nabsent\n", "{}", error(&output));
    let all = vec![format!("exec: {}/**", place.path("data").display())];
    let output = place.run(&place.plan(&script, &all));
    assert_eq!(output.stdout, b"b'main.py\\n'\nb'main.py\\n'\n", "{}", error(&output));
    let mut with_read = place.read_data();
    with_read.extend(one);
    let output = place.run(&place.plan(&script, &with_read));
    assert_eq!(output.stdout, b"b'main.py\\n'\ndenied\n", "{}", error(&output));
}
