//! Limits: of each process, and of the control group that the caller put the agent in.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::bed::{Bed, PATIENCE};
use crate::process::with_driver;

const BOMB: &str = "
import errno, os, time
count = 0
try:
    while count < 500:
        if os.fork() == 0:
            time.sleep(600)
        count += 1
    print('no end')
except OSError as error:
    print(count, errno.errorcode[error.errno])
";

pub(crate) fn tasks(bed: &Bed) {
    fs::write(bed.path("rootfs/app/main.py"), BOMB).unwrap();
    let limits = serde_json::json!({ "tasks": 20, "open_files": 50 });
    let plan = bed.plan_of(&["/usr/bin/python3", "/app/main.py"], &[], limits.clone());
    let ended = bed.run(&plan);
    let (count, error) = ended.out.trim().split_once(' ').unwrap_or_else(|| panic!("{ended:?}"));
    let count: u32 = count.parse().unwrap();
    assert!((10..=22).contains(&count) && error == "EAGAIN", "{ended:?}");
    let script = "import resource; print(resource.getrlimit(resource.RLIMIT_NOFILE), resource.getrlimit(resource.RLIMIT_NPROC))";
    fs::write(bed.path("rootfs/app/main.py"), script).unwrap();
    let ended = bed.run(&bed.plan_of(&["/usr/bin/python3", "/app/main.py"], &[], limits));
    assert_eq!(ended.out, "(50, 50) (22, 22)\n", "{ended:?}");
}

pub(crate) fn core_files(bed: &Bed) {
    let script = "import resource; print(resource.getrlimit(resource.RLIMIT_CORE))";
    assert_eq!(bed.succeed(script, &[]), "(1, 1)\n");
}

/// A control group of the test's own with a limit of processes, of either version.
struct Group(PathBuf);

impl Group {
    fn make(name: &str, tasks: u32) -> Option<Self> {
        let roots = ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"];
        for root in roots.into_iter().map(Path::new).filter(|root| root.join("cgroup.procs").exists()) {
            let path = root.join(name);
            let made =
                fs::create_dir(&path).and_then(|()| fs::write(path.join("pids.max"), tasks.to_string()));
            let group = Self(path);
            if made.is_ok() {
                return Some(group);
            }
        }
        None
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // A group with processes in it stays, which the test has found by then.
        fs::remove_dir(&self.0).unwrap_or_default();
    }
}

/// The limits of a unit hold for everything that a backend starts: nothing leaves the group that the driver
/// was started in.
pub(crate) fn the_control_group_holds(bed: &Bed) {
    let Some(group) = Group::make(&format!("aos-contract-{}-{}", std::process::id(), bed.uid), 400) else {
        assert!(std::env::var_os("AOS_ISOLATION_REQUIRED").is_none(), "no control group can be made here");
        eprintln!("missing: no control group can be made here");
        return;
    };
    let path = bed.path("plan.json");
    let plan = bed.plan("import time\nprint('ready', flush=True)\ntime.sleep(600)", &[]);
    fs::write(&path, plan.to_json().unwrap()).unwrap();
    let mut command = with_driver(bed, &path, |program| {
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", "echo $$ > \"$0/cgroup.procs\" && exec \"$@\""]).arg(&group.0).arg(program);
        shell
    });
    let mut child = command.stdout(bed.file("stdout")).spawn().unwrap();
    let started = Instant::now();
    while bed.text("stdout") != "ready\n" {
        assert!(started.elapsed() < PATIENCE && child.try_wait().unwrap().is_none());
        std::thread::sleep(Duration::from_millis(10));
    }
    let members = fs::read_to_string(group.0.join("cgroup.procs")).unwrap();
    let members: Vec<&str> = members.lines().collect();
    let own = own_processes(bed.uid);
    child.kill().unwrap();
    child.wait().unwrap();
    while !bed.processes().is_empty() {
        assert!(started.elapsed() < PATIENCE, "{:?}", bed.processes());
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(own.len() > 1, "{own:?}");
    for pid in own {
        assert!(members.contains(&pid.as_str()), "{pid} is not among {members:?}");
    }
}

/// The numbers of all processes of a user.
fn own_processes(uid: u32) -> Vec<String> {
    let mut own = Vec::new();
    for entry in fs::read_dir("/proc").unwrap() {
        let path = entry.unwrap().path();
        let status = fs::read_to_string(path.join("status")).unwrap_or_default();
        if status.contains(&format!("\nUid:\t{uid}\t")) {
            own.push(path.file_name().unwrap().to_string_lossy().into_owned());
        }
    }
    own
}
