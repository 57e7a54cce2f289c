//! `aos learn` from its command line to the Agentfile.
//!
//! It needs `aos-launch`, which `cargo build -p aos-sandbox` makes, or `AOS_LAUNCH` names.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a panic is the failure report of a test, and tests read the environment"
)]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use assert_cmd::Command;

const HEAD: &str = "apiVersion: aos/v1\nkind: Agent\nmetadata: { name: reader, version: 1.0.0 }\n\
                    run: { entrypoint: [ /bin/sh, /app/main.sh ] }   # reads\n";

fn launcher() -> PathBuf {
    if let Some(path) = std::env::var_os("AOS_LAUNCH") {
        return path.into();
    }
    let path = assert_cmd::cargo::cargo_bin!("aos").with_file_name("aos-launch");
    assert!(path.exists(), "{} is missing: cargo build -p aos-sandbox", path.display());
    path
}

/// A folder with an agent, and files of the host.
struct Place(tempfile::TempDir);

impl Place {
    fn new(script: &str, rest: &str) -> Self {
        let above = if rustix::process::geteuid().is_root() { "/srv" } else { env!("CARGO_TARGET_TMPDIR") };
        let directory = tempfile::Builder::new().prefix("aos-learn-test-").tempdir_in(above).unwrap();
        let place = Self(directory);
        fs::set_permissions(place.0.path(), Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(place.path("agent")).unwrap();
        for name in ["a", "b"] {
            fs::write(place.path(name), "x\n").unwrap();
        }
        fs::write(place.path("agent/main.sh"), script).unwrap();
        fs::write(place.path("agent/Agentfile"), format!("{HEAD}{rest}")).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().canonicalize().unwrap().join(name)
    }

    fn agentfile(&self) -> String {
        fs::read_to_string(self.path("agent/Agentfile")).unwrap()
    }

    /// Exit status, standard output and standard error.
    fn learn(&self, args: &[&str]) -> (i32, String, String) {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("aos"));
        command
            .env("AOS_LAUNCH", launcher())
            .env("AOS_STORE", self.path("store"))
            .env("TMPDIR", self.temporary());
        command.arg("learn").arg(self.path("agent")).args(args).arg("--").arg(self.path(""));
        let output = command.output().unwrap();
        let left = fs::read_dir(self.temporary()).unwrap().count();
        assert_eq!(left, 0, "something is left in the temporary directory");
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
    }

    fn temporary(&self) -> PathBuf {
        let path = self.path("tmp");
        fs::create_dir_all(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        path
    }
}

const SCRIPT: &str = "set -e\necho hello; printf '\\033[2J\\n'\nread x < $1/a\nread x < $1/b\n( read x < /etc/shadow ) || true\n";

#[test]
fn the_agentfile_gets_what_the_run_needs() {
    let place = Place::new(SCRIPT, "capabilities:\n  - \"listen: 8080\"   # kept\nlimits: { tasks: 64 }\n");
    let (a, b) = (place.path("a"), place.path("b"));
    let before = place.agentfile();
    // Nobody is asked: nothing is granted, and nothing is written.
    let (status, shown, said) = place.learn(&["--write"]);
    assert_eq!((status, shown.as_str()), (1, "capabilities:\n  - \"listen: 8080\"\n"), "{said}");
    assert!(said.contains(&format!("not granted: file_read: {}", a.display())), "{said}");
    assert!(said.contains("| hello\n") && said.contains("\\x1b[2J") && !said.contains('\x1b'), "{said}");
    assert_eq!(place.agentfile(), before);

    let (status, shown, said) = place.learn(&["--yes", "--write"]);
    assert_eq!((status, shown.as_str()), (0, ""), "{said}");
    assert!(said.contains("it looks like a secret") && said.contains("trying without"), "{said}");
    let added = format!("  - \"file_read: {}\"\n  - \"file_read: {}\"\n", a.display(), b.display());
    assert_eq!(place.agentfile(), before.replace("# kept\n", &format!("# kept\n{added}")));

    // Now they suffice, and each is needed.
    let (status, _, said) = place.learn(&["--quiet"]);
    assert_eq!(status, 0, "{said}");
    let (status, shown, _) = place.learn(&["--from-nothing", "--yes", "--quiet"]);
    assert_eq!((status, shown), (0, format!("capabilities:\n{added}")));
}

/// What an agent may do to the folder that it is built from decides nothing about its capabilities.
#[test]
fn an_agent_does_not_write_its_own_agentfile() {
    let place = Place::new("set -e\nread x < $1/a\necho '# planted' >> $1/agent/Agentfile\n", "");
    let before = place.agentfile();
    let file = place.path("agent/Agentfile");
    fs::set_permissions(&file, Permissions::from_mode(0o666)).unwrap();
    let (status, _, said) = place.learn(&["--yes", "--write"]);
    let folder = place.path("agent");
    let kept = format!("{} is kept from being written while it is learnt from", folder.display());
    assert!(status == 1 && said.contains(&kept), "{said}");
    assert_eq!(place.agentfile(), before);
    // Even if somebody means it to write there, what is built next is not what it planted.
    let grant = format!("file_write: {}", file.display());
    let (status, shown, said) = place.learn(&["--yes", "--write", "--no-minimise", "--grant", &grant]);
    assert!(status == 1 && said.contains("is not as it was before the runs"), "{said}");
    assert!(shown.contains(&format!("file_read: {}", place.path("a").display())), "{shown}");
    assert_eq!(place.agentfile().replace("# planted\n", ""), before);
}

#[test]
fn changes_are_not_kept_apart_in_these_runs() {
    let place = Place::new("set -e\nread x < $1/a\necho x > got\n", "");
    let text = place.agentfile().replace("main.sh ] }", "main.sh ], workspace: transactional }");
    fs::write(place.path("agent/Agentfile"), text).unwrap();
    let (status, shown, said) = place.learn(&["--yes", "--no-minimise"]);
    let list = format!("capabilities:\n  - \"file_read: {}\"\n", place.path("a").display());
    assert_eq!((status, shown), (0, list), "{said}");
    assert!(said.contains("the workspace is changed in place in these runs"), "{said}");
}

#[test]
fn a_program_reads_the_result() {
    let place = Place::new(SCRIPT, "");
    let file = place.path("list.yaml");
    let deny = format!("{}", place.path("b").display());
    let args = ["--yes", "--json", "--deny", &deny, "--output", file.to_str().unwrap(), "--no-minimise"];
    let (status, shown, _) = place.learn(&args);
    let view: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!((status, view["passed"].as_bool(), view["status"].as_i64()), (1, Some(false), Some(2)));
    assert_eq!(view["learned"][0]["capability"], format!("file_read: {}", place.path("a").display()));
    assert_eq!(view["denied"][0]["why"], format!("--deny {deny}"));
    assert_eq!(view["denied"][0]["asked"]["programs"][0], "sh");
    let list = fs::read_to_string(&file).unwrap();
    assert_eq!(list, format!("capabilities:\n  - \"file_read: {}\"\n", place.path("a").display()));
}

#[test]
fn a_named_workspace_is_kept() {
    let place = Place::new("echo $1 >> /workspace/seen\nread x < $1/a\n", "");
    let workspace = place.path("work");
    fs::create_dir(&workspace).unwrap();
    fs::set_permissions(&workspace, Permissions::from_mode(0o777)).unwrap();
    let (status, _, said) =
        place.learn(&["--yes", "--no-minimise", "--workspace", workspace.to_str().unwrap()]);
    assert_eq!(status, 0, "{said}");
    assert_eq!(fs::read_to_string(workspace.join("seen")).unwrap().lines().count(), 2);
}

#[test]
fn an_agent_that_goes_on_is_ended() {
    let place = Place::new("while :; do :; done\n", "");
    let (status, _, said) = place.learn(&["--timeout", "1s"]);
    assert_eq!(status, 1);
    assert!(said.contains("its time was over"), "{said}");
    // A server is meant to.
    let text = place.agentfile().replace("main.sh ] }", "main.sh ], lifecycle: persistent }");
    fs::write(place.path("agent/Agentfile"), text).unwrap();
    let (status, _, said) = place.learn(&["--timeout", "1s"]);
    assert_eq!(status, 0, "{said}");
}

#[test]
fn what_cannot_be_learnt_is_told() {
    let place = Place::new("exit 7\n", "");
    let (status, _, said) = place.learn(&["--yes"]);
    assert_eq!(status, 1);
    assert!(said.contains("it ended with status 7"), "{said}");
    fs::write(
        place.path("agent/Agentfile"),
        format!("{HEAD}capabilities: [ \"file_read: {}/gone\" ]\n", place.path("x").display()),
    )
    .unwrap();
    let (status, _, said) = place.learn(&[]);
    assert_eq!(status, 1);
    assert!(said.contains("does not exist") && said.contains("hint:"), "{said}");
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("aos"));
    let output = command.env("AOS_LAUNCH", "/nonexistent").arg("learn").arg(Path::new("/")).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("AOS_LAUNCH names another"));
}

/// Whether a process has this word among its arguments.
fn runs(word: &str) -> bool {
    fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        // The command itself has the word too.
        line.starts_with(b"/bin/sh\0") && String::from_utf8_lossy(&line).contains(word)
    })
}

/// Waits, for a bounded time, until it is so.
fn wait_until(is_so: impl Fn() -> bool) -> bool {
    (0..200).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(50));
        is_so()
    })
}

#[test]
fn an_agent_does_not_outlive_who_learns_from_it() {
    use rustix::process::{Pid, Signal, kill_process};
    for (signal, is_tidy) in [(Signal::INT, true), (Signal::KILL, false)] {
        let place = Place::new("while :; do [ -e $1/a ]; done\n", "");
        let word = format!("mark-{}-{}", std::process::id(), signal.as_raw());
        let mut command = std::process::Command::new(assert_cmd::cargo::cargo_bin!("aos"));
        command.env("AOS_LAUNCH", launcher()).env("AOS_STORE", place.path("store"));
        command.env("TMPDIR", place.temporary()).arg("learn").arg(place.path("agent")).args(["--", &word]);
        command.stdin(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        let mut child = command.spawn().unwrap();
        assert!(wait_until(|| runs(&word)), "the agent did not start");
        kill_process(Pid::from_child(&child), signal).unwrap();
        assert!(!child.wait().unwrap().success());
        assert!(wait_until(|| !runs(&word)), "the agent goes on after {signal:?}");
        let left = fs::read_dir(place.temporary()).unwrap().count();
        assert_eq!(left == 0, is_tidy, "{left} left after {signal:?}");
    }
}
