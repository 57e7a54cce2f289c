//! A workspace that is a transaction, through a real union: what is written inside is apart from what was there,
//! and nothing inside leads around the union.

use std::fs;
use std::ops::Deref;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use aos_sandbox::plan::SandboxPlan;
use aos_sandbox::plan::workspace::{INTENT, Transaction};

use crate::place::{self, UID, error};

/// A place with what is below an agent's changes, and these.
struct Place(place::Place);

impl Deref for Place {
    type Target = place::Place;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl Place {
    fn new() -> Self {
        let place = Self(place::Place::new());
        for name in ["base/dir/sub", "changes"] {
            fs::create_dir_all(place.path(name)).unwrap();
        }
        for (name, text) in [("a", "old\n"), ("gone", "x\n"), ("dir/b", "old b\n"), ("dir/sub/c", "c\n")] {
            fs::write(place.path("base").join(name), text).unwrap();
        }
        place.own("base");
        place.own("changes");
        place
    }

    /// Gives a tree to the agent's user, for nobody else to enter.
    fn own(&self, name: &str) {
        own(&self.path(name));
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o700)).unwrap();
    }

    fn plan(&self, script: &str) -> SandboxPlan {
        let (base, changes) = (self.absolute("base"), self.absolute("changes"));
        self.plan_over(&Transaction { lower: std::slice::from_ref(&base), changes: &changes }, script)
    }

    /// With standard input from a pipe.
    fn command(&self, plan: &SandboxPlan) -> Command {
        let mut command = self.0.command(plan);
        command.stdin(Stdio::piped());
        command
    }

    fn run(&self, script: &str) -> Output {
        self.command(&self.plan(script)).output().unwrap()
    }

    fn text(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.path(name)).ok()
    }
}

fn own(path: &Path) {
    chown(path, Some(UID), Some(UID)).unwrap();
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            own(&entry.unwrap().path());
        }
    }
}

/// All of a tree: path, type and mode, content.
fn tree(root: &Path) -> Vec<(PathBuf, u32, Vec<u8>)> {
    let mut found = Vec::new();
    let mut waiting = vec![root.to_owned()];
    while let Some(path) = waiting.pop() {
        let metadata = path.symlink_metadata().unwrap();
        let content = if metadata.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
        if metadata.is_dir() {
            waiting.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        found.push((path, metadata.mode(), content));
    }
    found.sort();
    found
}

fn assert_prints(output: &Output, text: &str) {
    assert!(output.status.success(), "{}", error(output));
    assert_eq!(String::from_utf8_lossy(&output.stdout), text, "{}", error(output));
}

fn assert_fails(output: &Output, says: &str) {
    place::assert_fails(output, 226, says);
}

#[test]
fn what_is_written_inside_does_not_touch_what_was_there() {
    let place = Place::new();
    let before = tree(&place.path("base"));
    let output = place.run(
        r#"
import os, shutil
open("a", "a").write("new\n")
os.remove("gone")
os.makedirs("made/deep"); open("made/deep/d", "w").write("d")
shutil.rmtree("dir"); os.mkdir("dir"); open("dir/e", "w").write("e")
os.chmod("dir", 0o750); os.mkfifo("pipe"); os.symlink("/etc/shadow", "link")
print(open("a").read(), sorted(os.listdir(".")), sorted(os.listdir("dir")))
"#,
    );
    assert_prints(&output, "old\nnew\n ['a', 'dir', 'link', 'made', 'pipe'] ['e']\n");
    assert_eq!(tree(&place.path("base")), before);
    assert_eq!(place.text("changes/upper/a").unwrap(), "old\nnew\n");
    let whiteout = place.path("changes/upper/gone").symlink_metadata().unwrap();
    assert!(whiteout.file_type().is_char_device() && whiteout.rdev() == 0);
    // The next start sees what the first one left.
    assert_prints(&place.run("print(open('dir/e').read(), open('made/deep/d').read())"), "e d\n");
}

#[test]
fn snapshots_lie_between_the_changes_and_what_was_there() {
    let place = Place::new();
    assert_prints(&place.run("import os; open('a','w').write('1'); os.remove('gone'); print(1)"), "1\n");
    fs::create_dir_all(place.path("changes/snapshots")).unwrap();
    fs::rename(place.path("changes/upper"), place.path("changes/snapshots/0001")).unwrap();
    assert_prints(&place.run("import os; open('dir/b','w').write('2'); print(2)"), "2\n");
    fs::rename(place.path("changes/upper"), place.path("changes/snapshots/0002")).unwrap();
    fs::create_dir(place.path("changes/snapshots/not-a-number")).unwrap();
    place.own("changes");
    let frozen = tree(&place.path("changes/snapshots"));
    let output = place.run(
        "import os; print(open('a').read(), open('dir/b').read(), os.path.exists('gone')); open('a','w').write('3')",
    );
    assert_prints(&output, "1 2 False\n");
    assert_eq!(tree(&place.path("changes/snapshots")), frozen);
    assert_eq!(place.text("changes/upper/a").unwrap(), "3");
}

#[test]
fn nothing_inside_leads_around_the_union() {
    let place = Place::new();
    let before = tree(&place.path("base"));
    let base = place.path("base");
    let changes = place.path("changes");
    let script = format!(
        r#"
import ctypes, errno, os, stat
def refused(what, act):
    try: act()
    except OSError as error: return
    print("ALLOWED", what)
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *args):
    if libc.syscall(number, *args) < 0: raise OSError(ctypes.get_errno(), "")
for path in ["{base}", "{base}/a", "{changes}", "{changes}/upper", "{changes}/work"]:
    refused(path, lambda: os.stat(path))
    refused(path + " by /proc", lambda: os.stat("/proc/1/root" + path))
# Marks of the union's own: a whiteout, an opaque directory, a redirect.
refused("whiteout", lambda: os.mknod("dir/b2", stat.S_IFCHR | 0o600, 0))
for name in ["opaque", "redirect", "origin", "metacopy", "whiteout", "upper"]:
    try: os.setxattr("dir", "user.overlay." + name, b"y")
    except OSError: pass
print(sorted(os.listdir("dir")), open("dir/b").read().strip())
# Descriptors of lower files, opened before a copy.
held = os.open("a", os.O_RDONLY)
os.chmod("a", 0o666); open("a", "w").write("changed")
refused("write through the old descriptor", lambda: os.write(held, b"x"))
refused("reopen for writing", lambda: os.write(os.open("/proc/self/fd/%d" % held, os.O_WRONLY), b"x") and 1/0)
# The union again, elsewhere, and by the new interface.
refused("umount", lambda: call(166, b"/workspace", 2))
refused("open_tree", lambda: call(428, -100, b"/workspace", 1))
refused("fsopen", lambda: call(430, b"overlay", 0))
refused("handle", lambda: call(304, -100, b"", 0))
refused("link out", lambda: os.link("a", "/tmp/a"))
refused("execute", lambda: os.execv("/workspace/a", ["a"]))
"#,
        base = base.display(),
        changes = changes.display()
    );
    let output = place.run(&script);
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    // The file may be reopened for writing: it is the changed copy that is written then.
    assert!(printed.starts_with("['b', 'sub'] old b\n"), "{printed} {output:?}");
    assert!(!printed.contains("ALLOWED"), "{printed}");
    assert_eq!(tree(&place.path("base")), before);
}

#[test]
fn marks_that_the_agent_sets_itself_mean_nothing_at_the_next_start() {
    let place = Place::new();
    let script = r#"
import os
for target in ["dir", "a"]:
    for name in ["opaque", "redirect", "metacopy", "whiteout"]:
        try: os.setxattr(target, "user.overlay." + name, b"y")
        except OSError: pass
"#;
    assert_prints(&place.run(script), "");
    let output = place.run("import os; print(sorted(os.listdir('dir')), open('a').read().strip())");
    assert_prints(&output, "['b', 'sub'] old\n");
}

#[test]
fn one_agent_at_a_time_and_none_during_an_operation() {
    let place = Place::new();
    let plan = place.plan("import sys; print('up', flush=True); sys.stdin.read()");
    let mut first: Child = place.command(&plan).stdout(Stdio::piped()).spawn().unwrap();
    let mut up = [0; 3];
    std::io::Read::read_exact(first.stdout.as_mut().unwrap(), &mut up).unwrap();
    assert_fails(&place.command(&plan).stdin(Stdio::null()).output().unwrap(), "in use by another");
    drop(first.stdin.take());
    assert!(first.wait().unwrap().success());
    fs::write(place.path("changes").join(INTENT), "{}").unwrap();
    assert_fails(&place.run("print(1)"), "was cut short");
    fs::remove_file(place.path("changes").join(INTENT)).unwrap();
    assert_prints(&place.run("print(1)"), "1\n");
}

#[test]
fn forks_share_layers_that_none_of_them_changes() {
    let place = Place::new();
    assert_prints(&place.run("open('a','w').write('parent'); print(1)"), "1\n");
    fs::create_dir_all(place.path("changes/snapshots")).unwrap();
    fs::rename(place.path("changes/upper"), place.path("changes/snapshots/0001")).unwrap();
    let frozen = (tree(&place.path("base")), tree(&place.path("changes/snapshots")));
    let lower = [place.absolute("changes/snapshots/0001"), place.absolute("base")];
    for name in ["one", "two"] {
        fs::create_dir(place.path(name)).unwrap();
        place.own(name);
        let changes = place.absolute(name);
        let script = format!("print(open('a').read()); open('a','w').write('{name}')");
        let plan = place.plan_over(&Transaction { lower: &lower, changes: &changes }, &script);
        assert_prints(&place.command(&plan).output().unwrap(), "parent\n");
    }
    assert_eq!((tree(&place.path("base")), tree(&place.path("changes/snapshots"))), frozen);
    assert_eq!(place.text("one/upper/a").unwrap(), "one");
}

/// What is a change now is a snapshot later: none of it is executed under another name.
#[test]
fn no_part_of_the_changes_is_executed_under_another_name() {
    let place = Place::new();
    assert_prints(&place.run("open('a','w').write('1'); print(1)"), "1\n");
    fs::create_dir_all(place.path("changes/snapshots")).unwrap();
    fs::rename(place.path("changes/upper"), place.path("changes/snapshots/0001")).unwrap();
    fs::create_dir(place.path("tools")).unwrap();
    let mut plan = place.plan("print('ran')");
    let mut changed = serde_json::to_value(&plan).unwrap();
    let tools = serde_json::json!({
        "path": place.path("tools"), "cause": "exec: tools",
        "node": { "bind": {
            "source": place.path("tools"), "access": "read_execute", "shape": "directory", "missing": "error",
        } },
    });
    changed["tree"].as_array_mut().unwrap().push(tools);
    plan = serde_json::from_value(changed).unwrap();
    assert_prints(&place.command(&plan).output().unwrap(), "ran\n");
    for part in ["changes/snapshots/0001", "changes/snapshots", "changes/upper"] {
        let mut mount = Command::new("/bin/mount");
        mount.arg("--bind").arg(place.path(part)).arg(place.path("tools"));
        assert!(mount.status().unwrap().success());
        let output = place.command(&plan).output().unwrap();
        assert!(Command::new("/bin/umount").arg(place.path("tools")).status().unwrap().success());
        assert_fails(&output, "by a mount of this machine");
    }
}
