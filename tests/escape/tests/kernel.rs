//! The launcher on kernels that lack something: it does not start the agent, and says which layer is
//! missing, why, and what to change.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a panic is the failure report of a test, and starting the launcher is the point"
)]

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::chown;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use aos_core::config::ResolvedAgent;
use aos_escape::runner::{Scratch, launcher, scratch};
use aos_sandbox::plan::{PlanInput, derive};
use aos_sandbox::rootfs;

const UID: u32 = 1_879_113_725;

struct Place {
    root: Scratch,
}

impl Place {
    /// With the plan of an agent that touches a file.
    fn new() -> Self {
        assert!(rustix::process::geteuid().is_root(), "run as root: this test starts the launcher as root");
        let place = Self { root: scratch().unwrap() };
        for name in ["rootfs", "workspace"] {
            fs::create_dir(place.path(name)).unwrap();
        }
        chown(place.path("workspace"), Some(UID), Some(UID)).unwrap();
        let agent = serde_json::json!({
            "capabilities": [], "limits": {}, "name": "test", "version": "1.0.0", "root": "host",
            "run": { "entrypoint": ["/usr/bin/touch", "ran"], "lifecycle": "oneshot", "workdir": "/workspace" },
        });
        let plan = derive(&PlanInput {
            agent: &ResolvedAgent::from_json(agent.to_string().as_bytes()).unwrap(),
            id: &"test".parse().unwrap(),
            arguments: &[],
            rootfs: &place.path("rootfs").to_str().unwrap().parse().unwrap(),
            entries: &rootfs::scan(&place.path("rootfs")).unwrap(),
            workspace: &place.path("workspace").to_str().unwrap().parse().unwrap(),
        })
        .unwrap();
        fs::write(place.path("plan.json"), plan.to_json().unwrap()).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn launch(&self) -> Vec<OsString> {
        vec![launcher::find().unwrap().into(), "--plan".into(), self.path("plan.json").into()]
    }

    fn run(&self, before: &[&str], after: &[&str]) -> Output {
        let mut words: Vec<OsString> = before.iter().map(OsString::from).collect();
        words.extend(self.launch());
        words.extend(after.iter().map(OsString::from));
        let (program, arguments) = words.split_first().unwrap();
        Command::new(program).args(arguments).stdin(Stdio::null()).output().unwrap()
    }

    fn without(&self, lacks: &[&str]) -> Output {
        let mut before = vec![env!("CARGO_BIN_EXE_escape-lacking")];
        before.extend(lacks);
        before.push("--");
        self.run(&before, &["--uid", &UID.to_string()])
    }

    fn has_run(&self) -> bool {
        self.path("workspace/ran").exists()
    }

    fn assert_refused(&self, output: &Output, status: i32, layer: &str, says: &[&str]) {
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{error}");
        assert!(error.starts_with(&format!("aos-launch: {layer}: ")), "{error}");
        for says in says {
            assert!(error.contains(says), "{error:?} does not say {says:?}");
        }
        assert!(!self.has_run(), "the agent has run");
    }
}

#[test]
fn the_same_start_works_on_the_whole_kernel() {
    let place = Place::new();
    let output = place.without(&[]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(place.has_run());
}

#[test]
fn without_landlock() {
    let place = Place::new();
    let output = place.without(&["landlock"]);
    place.assert_refused(&output, 121, "landlock", &["`landlock`", "lsm="]);
}

#[test]
fn with_an_old_landlock() {
    let place = Place::new();
    for abi in ["1", "3", "5"] {
        let output = place.without(&[&format!("landlock>{abi}")]);
        place.assert_refused(&output, 121, "landlock", &["ABI 6", "6.12"]);
    }
}

#[test]
fn with_the_oldest_landlock_that_is_enough() {
    let place = Place::new();
    let output = place.without(&["landlock>6"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(place.has_run());
}

#[test]
fn without_seccomp() {
    let place = Place::new();
    place.assert_refused(&place.without(&["seccomp"]), 228, "seccomp", &["CONFIG_SECCOMP_FILTER"]);
}

#[test]
fn without_user_namespaces() {
    let place = Place::new();
    // The limit is of the user namespace that it is written in: this one is made for the test.
    let limit = "echo 0 > /proc/sys/user/max_user_namespaces && exec \"$@\"";
    let before = ["unshare", "--user", "--map-user=1000", "--keep-caps", "sh", "-c", limit, "sh"];
    let output = place.run(&before, &[]);
    place.assert_refused(&output, 226, "namespace", &["user.max_user_namespaces"]);
}
