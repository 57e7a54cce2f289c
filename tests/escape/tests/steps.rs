//! Steps of a build by the builder's own interface: what they see, what becomes of it, how they end,
//! and what they reach. Each runs twice where it matters: by root and by an unprivileged user.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a panic is the failure report of a test, and starting builders is the point"
)]

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, lchown, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use aos_build::run::Account;
use aos_core::config::RootKind;
use aos_escape::runner::{Scratch, launcher, scratch};
use aos_escape::step::{End, Report, Step};

/// The unprivileged builder. No account has it.
const USER: u32 = 1_879_113_725;

/// Who builds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Root,
    User,
}

const BOTH: [Who; 2] = [Who::Root, Who::User];

/// A place for one builder: a root of busybox, and scratch.
struct Place {
    root: Scratch,
    who: Who,
}

impl Place {
    /// A test that cannot run has failed.
    fn new(who: Who) -> Self {
        assert!(rustix::process::geteuid().is_root(), "run as root: this test builds as root and as a user");
        let place = Self { root: scratch().unwrap(), who };
        for name in ["bb/bin", "bb/data", "bb/tmp", "scratch", "cache"] {
            fs::create_dir_all(place.path(name)).unwrap();
        }
        fs::copy("/usr/bin/busybox", place.path("bb/bin/busybox")).unwrap();
        let tools = "sh cat id mkdir rm rmdir touch chmod chown mknod mkfifo ln mv env sleep wget hostname head grep find stat kill sync seq test";
        for tool in tools.split(' ') {
            symlink("busybox", place.path("bb/bin").join(tool)).unwrap();
        }
        fs::write(place.path("bb/data/file"), "lower\n").unwrap();
        fs::write(place.path("bb/data/other"), "other\n").unwrap();
        place.own();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn uid(&self) -> u32 {
        match self.who {
            Who::Root => Account::of_process().uid,
            Who::User => USER,
        }
    }

    /// Gives all of it to whom the steps run as.
    fn own(&self) {
        own_all(self.root.path(), self.uid());
    }

    fn step(&self, script: &str) -> Step {
        Step {
            launcher: launcher::find().unwrap(),
            root: RootKind::Own,
            lower: vec![self.path("bb")],
            command: ["sh", "-ec", script].map(str::to_owned).to_vec(),
            env: BTreeMap::new(),
            workdir: "/".to_owned(),
            net: Vec::new(),
            caches: Vec::new(),
            secrets: BTreeMap::new(),
            timeout_ms: 60_000,
            scratch: self.path("scratch"),
            keep: None,
        }
    }

    /// A step beside the host's `/usr`.
    fn host_step(&self, program: &str) -> Step {
        Step {
            root: RootKind::Host,
            lower: Vec::new(),
            command: ["python3", "-c", program].map(str::to_owned).to_vec(),
            ..self.step("")
        }
    }

    fn start(&self, step: &Step) -> Child {
        let mut command = Command::new(env!("CARGO_BIN_EXE_escape-step"));
        if self.who == Who::User {
            command.uid(USER).gid(USER);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).current_dir("/");
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(serde_json::to_string(step).unwrap().as_bytes()).unwrap();
        child
    }

    fn run(&self, step: &Step) -> Report {
        let output = self.start(step).wait_with_output().unwrap();
        let report: Report = serde_json::from_slice(&output.stdout).unwrap();
        if let End::Done | End::Failed(_) = report.end {
            assert_eq!(self.left(), 0, "{:?}: the scratch directory is not empty", self.who);
        }
        report
    }

    /// Directories of steps that are still there.
    fn left(&self) -> usize {
        fs::read_dir(self.path("scratch")).unwrap().count()
    }

    fn run_ok(&self, step: &Step) -> Report {
        let report = self.run(step);
        assert_eq!(report.end, End::Done, "{:?}: {:?} {:?}", self.who, report.err, report.notes);
        report
    }
}

fn own_all(path: &Path, uid: u32) {
    lchown(path, Some(uid), Some(uid)).unwrap();
    if fs::symlink_metadata(path).unwrap().is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            own_all(&entry.unwrap().path(), uid);
        }
    }
}

fn changes(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(path, word)| ((*path).to_owned(), (*word).to_owned())).collect()
}

#[test]
fn a_step_changes_what_it_changed_and_nothing_else() {
    for who in BOTH {
        let place = Place::new(who);
        let report = place.run_ok(&place.step(
            "id -u; hostname; cat /data/file; pwd
             echo new > /data/file; rm /data/other; mkdir -p a/b; echo x > a/b/f; ln a/b/f a/hard; ln -s b/f a/link
             chown 5:6 a/b/f; chmod 4750 a/b/f; mkdir -m 1777 a/sticky; mkfifo a/pipe; mknod a/dev c 1 3; chmod 0 a/b
             touch /tmp/x /run/x /dev/shm/x /root/x; rm /root/x; (touch /proc/x /sys/x /workspace/x || true) 2>/dev/null",
        ));
        assert_eq!(report.out, ["0", "build", "lower", "/"], "{who:?}");
        assert_eq!(
            report.changes,
            changes(&[
                ("a", "d755"),
                ("a/b", "d0"),
                ("a/b/f", "f750"),
                ("a/hard", "ha/b/f"),
                ("a/link", "lb/f"),
                ("a/sticky", "d1777"),
                ("data", "d755"),
                ("data/file", "f644"),
                ("data/other", "w"),
                ("root", "d700"),
            ]),
            "{who:?}"
        );
        assert!(
            report.notes.iter().any(|note| note.contains("a/pipe: a socket or pipe")),
            "{:?}",
            report.notes
        );
        assert!(report.notes.iter().any(|note| note.contains("set-user-id")), "{:?}", report.notes);
        assert_eq!(fs::read_to_string(place.path("bb/data/file")).unwrap(), "lower\n");
        assert_eq!(place.left(), 0, "the scratch directory is empty again");
    }
}

/// The changes of one step are a layer below the next, removals and replaced directories included.
#[test]
fn steps_build_on_each_other() {
    for who in BOTH {
        let place = Place::new(who);
        let first = Step {
            keep: Some(place.path("first")),
            ..place.step("rm -r /data; mkdir /data; echo new > /data/new; echo 1 > /one; chmod 600 /one")
        };
        let report = place.run_ok(&first);
        assert_eq!(report.changes.get("data").map(String::as_str), Some("o755"), "{:?}", report.changes);
        let lower = vec![place.path("first"), place.path("bb")];
        let second = Step { lower, ..place.step("find /data; cat /one; test ! -e /data/file; rm /one") };
        let report = place.run_ok(&second);
        assert_eq!(report.out, ["/data", "/data/new", "1"], "{who:?}");
        assert_eq!(report.changes, changes(&[("one", "w")]));
    }
}

#[test]
fn beside_the_hosts_usr() {
    for who in BOTH {
        let place = Place::new(who);
        for name in ["layer/usr/share/tool", "layer/app"] {
            fs::create_dir_all(place.path(name)).unwrap();
        }
        fs::write(place.path("layer/usr/share/tool/data"), "layer\n").unwrap();
        place.own();
        let program = "
import os, pwd, subprocess, ssl
print(open('/usr/share/tool/data').read().strip(), os.getuid(), pwd.getpwuid(0).pw_name, flush=True)
os.makedirs('/app/lib'); open('/app/lib/x', 'w').write('x')
subprocess.run(['/bin/ls', '/app'], check=True)
for path in ['/usr/new', '/usr/share/tool/data', '/bin/new']:
    try: open(path, 'w'); print('written', path)
    except OSError as error: print(error.strerror)
print(len(ssl.create_default_context().get_ca_certs()) > 0)
";
        let step = Step { lower: vec![place.path("layer")], ..place.host_step(program) };
        let report = place.run_ok(&step);
        let refused = "Read-only file system";
        assert_eq!(report.out, ["layer 0 root", "lib", refused, refused, refused, "True"], "{who:?}");
        assert_eq!(report.changes, changes(&[("app", "d755"), ("app/lib", "d755"), ("app/lib/x", "f644")]));
    }
}

#[test]
fn ends_are_told_apart() {
    let place = Place::new(Who::User);
    let end = |script: &str| place.run(&place.step(script)).end;
    assert_eq!(end("exit 3"), End::Failed(3));
    assert_eq!(end("kill -TERM $$"), End::Failed(128 + 15));
    // The launcher's own statuses mean nothing once the step runs.
    assert_eq!(end("exit 226"), End::Failed(226));
    let confinement = |step: Step, says: &str| match place.run(&step).end {
        End::Confinement(why) => assert!(why.contains(says), "{why}"),
        other => panic!("{other:?}"),
    };
    let command = vec!["no-such-program".to_owned()];
    confinement(Step { command, ..place.step("") }, "no-such-program is not in PATH");
    confinement(Step { workdir: "/absent".to_owned(), ..place.step("") }, "/absent");
    fs::create_dir(place.path("bad")).unwrap();
    symlink("/etc", place.path("bad/tmp")).unwrap();
    own_all(&place.path("bad"), USER);
    let lower = vec![place.path("bad"), place.path("bb")];
    confinement(Step { lower, ..place.step("") }, "cannot mount /tmp");
    let report =
        place.run(&Step { lower: vec![place.root.path().parent().unwrap().into()], ..place.step("") });
    assert!(matches!(&report.end, End::Other(why) if why.contains("belongs to uid 0")), "{:?}", report.end);
    let report = place.run(&Step { launcher: "/nonexistent/aos-launch".into(), ..place.step("") });
    assert!(
        matches!(&report.end, End::Other(why) if why.contains("/nonexistent/aos-launch")),
        "{:?}",
        report.end
    );
}

#[test]
fn output_comes_in_lines_and_input_is_closed() {
    let place = Place::new(Who::User);
    let report =
        place.run_ok(&place.step("cat; echo out; echo err >&2; printf '\\033[31mred\\033[0m\\r\\nend'"));
    assert_eq!(
        (report.out, report.err),
        (vec!["out".into(), "red".into(), "end".into()], vec!["err".to_owned()])
    );
    let report = place.run_ok(&place.step("head -c 100000000 /dev/zero; echo; echo end"));
    assert!(report.notes.iter().any(|note| note.contains("not shown")), "{:?}", report.notes);
}

/// Whether a text is in a file below a directory, or in the command line or environment of a process.
fn is_found(text: &str, directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        for name in ["cmdline", "environ"] {
            let path = entry.path().join(name);
            let is_own = entry.file_name().to_str() == Some(&std::process::id().to_string());
            if !is_own && fs::read(&path).is_ok_and(|bytes| contains(&bytes, text)) {
                found.push(path.display().to_string());
            }
        }
    }
    let mut waiting = vec![directory.to_owned()];
    while let Some(path) = waiting.pop() {
        if path.is_dir() && !path.is_symlink() {
            waiting.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.is_file() && fs::read(&path).is_ok_and(|bytes| contains(&bytes, text)) {
            found.push(path.display().to_string());
        }
    }
    found
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[test]
fn a_secret_is_in_its_file_and_nowhere_else() {
    for who in BOTH {
        let place = Place::new(who);
        // Not a literal: it would be in this program.
        let secret = format!("s3cr3t-{}-{}", std::process::id(), "x".repeat(20));
        let step = Step {
            secrets: BTreeMap::from([("token".to_owned(), secret.clone())]),
            ..place.step("stat -c '%a %u' /run/secrets/token; test \"$(head -c 7 /run/secrets/token)\" = s3cr3t- && touch /seen; sleep 3")
        };
        let child = place.start(&step);
        let deadline = Instant::now() + Duration::from_secs(30);
        while !fs::read_dir(place.path("scratch"))
            .unwrap()
            .any(|entry| entry.unwrap().path().join("upper/seen").exists())
        {
            assert!(Instant::now() < deadline, "the step does not start");
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(is_found(&secret, place.root.path()), Vec::<String>::new());
        let output = child.wait_with_output().unwrap();
        assert!(!contains(&output.stdout, &secret));
        let report: Report = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((report.end, report.out), (End::Done, vec!["400 0".to_owned()]));
        assert_eq!(report.changes, changes(&[("seen", "f644")]));
        let bad = Step { secrets: BTreeMap::from([("../x".to_owned(), "y".to_owned())]), ..place.step("") };
        assert!(matches!(place.run(&bad).end, End::Other(why) if why.contains("secret `../x`")));
    }
}

#[test]
fn a_cache_outlives_its_steps_and_is_in_no_layer() {
    for who in BOTH {
        let place = Place::new(who);
        let cache = vec![("/root/.cache/tool".to_owned(), place.path("cache"))];
        let step = |script: &str| Step { caches: cache.clone(), ..place.step(script) };
        let first = step(
            "echo kept > /root/.cache/tool/f; cp=/root/.cache/tool/sh; ln /root/.cache/tool/f /root/.cache/tool/g; chmod 4777 /root/.cache/tool /root/.cache/tool/f",
        );
        assert_eq!(place.run_ok(&first).changes, BTreeMap::new(), "{who:?}");
        let report = place.run_ok(&step("cat /root/.cache/tool/f; echo x > /root/.cache/beside"));
        assert_eq!(report.out, ["kept"]);
        let beside = changes(&[("root", "d700"), ("root/.cache", "d755"), ("root/.cache/beside", "f644")]);
        assert_eq!(report.changes, beside);
        // Another user reaches nothing of it, whatever modes the step set.
        let mode = fs::metadata(place.path("cache")).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o700);
        let overlapping = [("/root/a", "cache"), ("/root/a/b", "scratch")];
        let caches = overlapping.map(|(path, directory)| (path.to_owned(), place.path(directory))).to_vec();
        let refused = place.run(&Step { caches, ..place.step("") });
        assert!(matches!(refused.end, End::Other(_)), "{:?}", refused.end);
        for bad in ["/", "/proc", "/tmp/x", "/run/secrets", "/workspace"] {
            let caches = vec![(bad.to_owned(), place.path("cache"))];
            let refused = place.run(&Step { caches, ..place.step("") });
            assert!(
                matches!(&refused.end, End::Other(why) if why.contains("is made for each step")),
                "{bad}: {:?}",
                refused.end
            );
        }
    }
}

/// Processes whose command line has a text.
fn processes_with(text: &str) -> usize {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let is_one = |entry: &fs::DirEntry| {
        let is_builder =
            fs::read_link(entry.path().join("exe")).is_ok_and(|exe| exe.ends_with("escape-step"));
        !is_builder && fs::read(entry.path().join("cmdline")).is_ok_and(|line| contains(&line, text))
    };
    entries.filter(is_one).count()
}

#[test]
fn the_time_out_ends_everything() {
    for who in BOTH {
        let place = Place::new(who);
        let marker = format!("7{}", std::process::id());
        // A fork bomb that ignores signals, and children that have left the session and the pipes.
        let script = format!(
            "trap '' TERM INT HUP; (sleep {marker} >/dev/null 2>&1 &); bomb() {{ bomb | bomb & }}; (bomb) 2>/dev/null; sleep {marker}"
        );
        let started = Instant::now();
        let report = place.run(&Step { timeout_ms: 1500, ..place.step(&script) });
        assert_eq!(report.end, End::Timeout, "{who:?}");
        assert!(started.elapsed() < Duration::from_secs(60), "{:?}", started.elapsed());
        assert_eq!(processes_with(&marker), 0, "a process survived");
        assert_eq!(place.left(), 0);
    }
}

#[test]
fn a_step_ends_with_its_builder() {
    for who in BOTH {
        let place = Place::new(who);
        let marker = format!("8{}", std::process::id());
        let mut child = place.start(&place.step(&format!("sleep {marker}")));
        let deadline = Instant::now() + Duration::from_secs(30);
        while processes_with(&format!("sleep\0{marker}")) == 0 {
            assert!(Instant::now() < deadline, "the step does not start");
            std::thread::sleep(Duration::from_millis(10));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        while processes_with(&marker) > 0 {
            assert!(Instant::now() < deadline, "the step survived its builder");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// A server that answers every request with its first line, and says what it got.
fn origin() -> (u16, std::sync::mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.unwrap();
            let mut bytes = Vec::new();
            let mut block = [0; 4096];
            while !contains(&bytes, "\r\n\r\n") {
                match client.read(&mut block).unwrap() {
                    0 => break,
                    count => bytes.extend_from_slice(&block[..count]),
                }
            }
            let text = String::from_utf8_lossy(&bytes).into_owned();
            let line = text.lines().next().unwrap_or_default().to_owned();
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{line}", line.len());
            client.write_all(answer.as_bytes()).unwrap();
            if sender.send(text).is_err() {
                return;
            }
        }
    });
    (port, receiver)
}

/// Python that asks the proxy, raw, and prints the status line or the body.
const ASK: &str = "
import os, socket, sys
def ask(text, more=b''):
    s = socket.create_connection(('127.0.0.1', 3128)); s.settimeout(20)
    s.sendall(text.encode('latin-1').replace(b'\\n', b'\\r\\n') + more)
    got = b''
    while True:
        part = s.recv(65536)
        if not part: break
        got += part
        if b'established' in got and more is None: break
    return got.decode('latin-1')
def status(text): return ask(text).split('\\r\\n')[0].split(' ', 1)[-1]
";

#[test]
fn the_proxy_reaches_what_is_declared_and_nothing_else() {
    for who in BOTH {
        let place = Place::new(who);
        let ((port, heard), (other, other_heard)) = (origin(), origin());
        let program = format!(
            "{ASK}
port, other = {port}, {other}
print(os.environ['http_proxy'], os.environ['HTTPS_PROXY'], os.environ['no_proxy'])
print(ask(f'GET http://127.0.0.1:{{port}}/a?b HTTP/1.1\\nHost: 127.0.0.1:{{port}}\\nX-Keep: 1\\nProxy-Authorization: x\\n\\n').split('\\r\\n')[-1])
print(ask(f'CONNECT 127.0.0.1:{{port}} HTTP/1.1\\n\\n', b'GET /tunnel HTTP/1.1\\r\\n\\r\\n').split('\\r\\n')[-1])
for target in [f'127.0.0.1:{{other}}', f'localhost:{{port}}', f'127.1:{{port}}', f'2130706433:{{port}}', f'0x7f000001:{{port}}',
               f'[::ffff:127.0.0.1]:{{port}}', f'[::1]:{{port}}', f'127.0.0.1.:{{port}}', f'u@127.0.0.1:{{port}}', '127.0.0.1', 'evil.example:443',
               '192.0.2.1:443', '169.254.169.254:80', f'127.0.0.1\\x00:{{port}}']:
    print(repr(target), status(f'CONNECT {{target}} HTTP/1.1\\n\\n'))
print(status(f'GET http://127.0.0.1:{{port}}/ HTTP/1.1\\nHost: evil.example\\n\\n'))
print(status(f'GET http://127.0.0.1:{{other}}/ HTTP/1.1\\n\\n'))
print(status('GET / HTTP/1.1\\nHost: 127.0.0.1\\n\\n'))
print(status('GET http://127.0.0.1/' + 'x' * 40000 + ' HTTP/1.1\\n\\n'))
for address in [('127.0.0.1', port), ('127.0.0.1', other), ('192.0.2.1', 80)]:
    try: socket.create_connection(address, 5); print('connected')
    except OSError as error: print(error.strerror)
"
        );
        let net = vec![format!("127.0.0.1:{port}"), format!("localhost:{other}")];
        let report = place.run_ok(&Step { net, ..place.host_step(&program) });
        let out: Vec<&str> = report.out.iter().map(String::as_str).collect();
        assert_eq!(out[0], "http://127.0.0.1:3128 http://127.0.0.1:3128 localhost,127.0.0.1,::1");
        assert_eq!(&out[1..3], ["GET /a?b HTTP/1.1", "GET /tunnel HTTP/1.1"], "{:?}", report.notes);
        for line in &out[3..17] {
            assert!(line.ends_with("403 Forbidden") || line.ends_with("400 Bad Request"), "{line}");
        }
        let (bad, denied, long) = ("400 Bad Request", "403 Forbidden", "431 Request Header Fields Too Large");
        assert_eq!(&out[17..21], [bad, denied, bad, long]);
        assert_eq!(&out[21..], ["Connection refused", "Connection refused", "Network is unreachable"]);
        // What the server got: the request written again, and nothing of the proxy's.
        let first = heard.recv_timeout(Duration::from_secs(5)).unwrap();
        assert!(
            first.contains(&format!("Host: 127.0.0.1:{port}\r\n")) && first.contains("X-Keep: 1\r\n"),
            "{first}"
        );
        assert!(!first.contains("Proxy-") && first.contains("Connection: close"), "{first}");
        assert_eq!(
            heard.recv_timeout(Duration::from_secs(5)).unwrap().lines().next(),
            Some("GET /tunnel HTTP/1.1")
        );
        assert!(heard.try_recv().is_err() && other_heard.try_recv().is_err());
        assert!(
            report.notes.iter().any(|note| note.contains("evil.example:443 is not in the step's `net`")),
            "{:?}",
            report.notes
        );
    }
}

/// A name of the list that leads to the machine itself is refused, though an address of the list may.
#[test]
fn a_name_does_not_lead_inside() {
    let place = Place::new(Who::User);
    let (port, heard) = origin();
    let program = format!(
        "{ASK}\nprint(status('CONNECT localhost:{port} HTTP/1.1\\n\\n'))\nprint(status('GET http://localhost:{port}/ HTTP/1.1\\n\\n'))"
    );
    let report = place.run_ok(&Step { net: vec![format!("localhost:{port}")], ..place.host_step(&program) });
    assert_eq!(report.out, ["403 Forbidden", "403 Forbidden"]);
    assert!(report.notes.iter().any(|note| note.contains("leads to this machine")), "{:?}", report.notes);
    assert!(heard.try_recv().is_err());
}

/// Connections that say nothing, and more of them than are served at once, do not keep a step up.
#[test]
fn silent_connections_end_with_the_step() {
    let place = Place::new(Who::User);
    let (port, _heard) = origin();
    let program = format!(
        "{ASK}\nkept = [socket.create_connection(('127.0.0.1', 3128)) for _ in range(100)]\nprint(len(kept))"
    );
    let started = Instant::now();
    let report = place.run_ok(&Step { net: vec![format!("127.0.0.1:{port}")], ..place.host_step(&program) });
    assert_eq!(report.out, ["100"]);
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
}

/// A minimal Debian, made by mmdebstrap from the mirror that the machine uses.
fn debian(place: &Place) -> PathBuf {
    let mirror = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../lib/debian-mirror")).output().unwrap();
    let mirror = String::from_utf8(mirror.stdout).unwrap().trim().to_owned();
    let root = place.path("debian");
    let mut command = Command::new("mmdebstrap");
    command.args(["--quiet", "--variant=minbase", "trixie"]).arg(&root).arg(mirror);
    assert!(command.status().unwrap().success());
    fs::remove_dir_all(root.join("dev")).unwrap();
    own_all(&root, place.uid());
    root
}

#[test]
#[ignore = "downloads a Debian: needs mmdebstrap and a mirror"]
fn apt_installs_through_the_proxy() {
    let place = Place::new(Who::Root);
    let lower = vec![debian(&place)];
    let sources = fs::read_to_string(lower[0].join("etc/apt/sources.list")).unwrap();
    let host = sources.split("://").nth(1).unwrap().split('/').next().unwrap().to_owned();
    let port = if sources.contains("https://") { 443 } else { 80 };
    let script = "apt-get update -q && apt-get install -qy --no-install-recommends make adduser && make --version && adduser --system --group tester && id tester";
    let step = |net: &[String]| Step {
        lower: lower.clone(),
        net: net.to_vec(),
        timeout_ms: 240_000,
        ..place.step(script)
    };
    let endpoint = if host.contains(':') { host } else { format!("{host}:{port}") };
    let report = place.run_ok(&step(&[endpoint]));
    assert!(report.out.iter().any(|line| line.starts_with("GNU Make")), "{:?}", report.out);
    assert!(report.out.iter().any(|line| line.contains("(tester)")), "{:?}", report.out);
    for path in ["usr/bin/make", "var/lib/dpkg/status", "etc/passwd"] {
        assert!(report.changes.contains_key(path), "{path}");
    }
    // Offline the same step gets nowhere.
    assert!(matches!(place.run(&step(&[])).end, End::Failed(_)));
}

#[test]
#[ignore = "downloads a Python package: needs a way to pypi.org, and python3-pip"]
fn pip_installs_through_the_proxy() {
    let place = Place::new(Who::User);
    let program = "import subprocess, sys; sys.exit(subprocess.call(['python3', '-m', 'pip', 'install', '--quiet', '--target', '/app/lib', 'six']))";
    let net = ["pypi.org:443", "files.pythonhosted.org:443"].map(str::to_owned).to_vec();
    let report = place.run_ok(&Step { net, timeout_ms: 240_000, ..place.host_step(program) });
    assert!(report.changes.contains_key("app/lib/six.py"), "{:?}", report.changes);
}
