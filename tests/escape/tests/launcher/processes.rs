//! Processes: signals that reach the agent, orphans, and what is left at the end.

use std::fs;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::place::{Place, error};

/// Starts a script that prints a line when it is ready, and waits for the line.
fn start(place: &Place, script: &str) -> Child {
    let mut child = place.command(&place.plan(script, &[])).stdout(Stdio::piped()).spawn().unwrap();
    let mut byte = [0; 1];
    child.stdout.as_mut().unwrap().read_exact(&mut byte).unwrap();
    child
}

fn signal(child: &Child, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

#[test]
fn signals_reach_the_agent() {
    let place = Place::new();
    // Short sleeps: a signal that comes between the print and one long sleep would be seen after it.
    let waiting = "import time\nprint('x', flush=True)\nwhile True: time.sleep(0.02)";
    let mut child = start(&place, waiting);
    signal(&child, Signal::TERM);
    assert_eq!(child.wait().unwrap().code(), Some(128 + 15));
    let handling =
        format!("import signal, sys\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(9))\n{waiting}");
    let mut child = start(&place, &handling);
    signal(&child, Signal::TERM);
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
