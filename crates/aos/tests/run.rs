//! `aos run` against a supervisor that plays its part, and a journal that is late: no line is lost, and the exit
//! status is the agent's.
#![expect(clippy::unwrap_used, reason = "a panic is the failure report of a test")]
#![expect(clippy::disallowed_methods, reason = "the tests start the program and prepare its environment")]

mod control;
mod machine;

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Output, Stdio};
use std::time::Duration;

use machine::{INVOCATION, Machine, agent, package};

fn spawn(command: &mut std::process::Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Starts `aos run hello` on an installed package and waits until the agent's first line has been shown.
fn follow(machine: &Machine) -> (Child, BufReader<std::process::ChildStdout>) {
    machine.state.lock().unwrap().packages.push(package());
    let mut child = spawn(machine.aos().args(["run", "hello"]));
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    while machine.calls().is_empty() {
        assert_eq!(child.try_wait().unwrap(), None, "it ended before it ran anything");
        std::thread::sleep(Duration::from_millis(10));
    }
    machine.write_line("hello", "first", false);
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    assert_eq!(line, "first\n");
    (child, stdout)
}

fn interrupt(child: &Child) {
    let pid = rustix::process::Pid::from_child(child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn outcome(output: &Output) -> (Option<i32>, String, String) {
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn an_agent_that_ends_at_once_loses_no_line() {
    let machine = Machine::start();
    machine.state.lock().unwrap().ends_at_once = Some(("exit-code", 3));
    machine.write_entry("hello", "\"MESSAGE\": \"an earlier run\"", "0", false);
    for number in 0..100 {
        machine.write_line("hello", &format!("line {number}"), number >= 50);
    }
    // The first half was written before the mark in the journal is taken; only the late half is this run's.
    let folder = machine.agent_folder();
    let output = machine.aos().arg("run").arg(&folder).args(["--", "-x", "y z"]).output().unwrap();
    let (status, shown, _) = outcome(&output);
    assert_eq!(status, Some(3));
    let expected: String = (50..100).map(|number| format!("line {number}\n")).collect();
    assert_eq!(shown, expected);
    assert_eq!(machine.calls(), ["install local", "run hello hello:1.0.0 [\"-x\", \"y z\"]"]);
}

#[test]
fn a_crash_of_the_supervisor_is_survived() {
    let mut machine = Machine::start();
    let (mut child, mut stdout) = follow(&machine);
    machine.kill_supervisor();
    machine.write_line("hello", "meanwhile", false);
    machine.write_line("hello", "last words", true);
    machine.end_agent("hello", "exit-code", 7);
    machine.start_supervisor();
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "meanwhile\nlast words\n");
    assert_eq!(child.wait().unwrap().code(), Some(7));
}

#[test]
fn ctrl_c_stops_the_agent() {
    let machine = Machine::start();
    let (mut child, mut stdout) = follow(&machine);
    machine.write_line("hello", "goodbye", true);
    interrupt(&child);
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "goodbye\n");
    assert_eq!(child.wait().unwrap().code(), Some(143));
    assert_eq!(machine.calls()[1], "stop hello");
}

#[test]
fn a_second_ctrl_c_leaves_the_agent_to_itself() {
    let machine = Machine::start();
    machine.state.lock().unwrap().slow_stop = Duration::from_secs(20);
    let (mut child, _stdout) = follow(&machine);
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    interrupt(&child);
    let mut said = String::new();
    stderr.read_line(&mut said).unwrap();
    assert!(said.contains("stopping hello"), "{said}");
    interrupt(&child);
    assert_eq!(child.wait().unwrap().code(), Some(130));
}

#[test]
fn a_reader_that_leaves_does_not_stop_the_agent() {
    let machine = Machine::start();
    let (mut child, stdout) = follow(&machine);
    drop(stdout);
    // The write that fails is the second one at the latest: the first may fill the pipe that nobody reads.
    machine.write_line("hello", "to nobody", false);
    machine.write_line("hello", "to nobody", false);
    assert_eq!(child.wait().unwrap().code(), Some(141));
    assert_eq!(machine.calls().len(), 1);
}

#[test]
fn every_byte_of_a_line_arrives() {
    let machine = Machine::start();
    let (mut child, mut stdout) = follow(&machine);
    machine.write_entry("hello", "\"MESSAGE\": [27, 91, 50, 74, 255, 0]", INVOCATION, false);
    machine.write_entry("hello", "\"MESSAGE\": \"half\", \"_LINE_BREAK\": \"line-max\"", INVOCATION, false);
    machine.write_entry("hello", "\"MESSAGE\": \" a line\"", INVOCATION, false);
    machine.write_entry("other", "\"MESSAGE\": \"not ours\"", INVOCATION, false);
    machine.write_entry("hello", "\"MESSAGE\": \"no line end\", \"_LINE_BREAK\": \"eof\"", INVOCATION, true);
    machine.end_agent("hello", "success", 0);
    let mut rest = Vec::new();
    stdout.read_to_end(&mut rest).unwrap();
    assert_eq!(text(&rest), text(b"\x1b[2J\xff\0\nhalf a line\nno line end"));
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn detached_it_prints_the_id_only() {
    let machine = Machine::start();
    let folder = machine.agent_folder();
    let output = machine.aos().arg("run").arg(&folder).args(["--detach", "--name", "web"]).output().unwrap();
    let (status, shown, _) = outcome(&output);
    assert_eq!((status, shown.as_str()), (Some(0), "web\n"));
    assert_eq!(machine.calls()[1], "run web hello:1.0.0 []");
}

#[test]
fn an_agent_that_runs_is_not_disturbed() {
    let machine = Machine::start();
    machine.state.lock().unwrap().agents.push(agent("hello"));
    let folder = machine.agent_folder();
    let output = machine.aos().arg("run").arg(&folder).output().unwrap();
    let (status, _, said) = outcome(&output);
    assert_eq!(status, Some(125));
    assert!(said.contains("the agent hello is running") && said.contains("hint: `--replace`"), "{said}");
    // The package is the agent's: it is not taken away, and nobody needs to hear of it.
    assert_eq!(machine.calls(), ["install local", "remove package hello:1.0.0"]);
    assert!(!said.contains("stays installed"), "{said}");
}

#[test]
fn replacing_stops_it_first() {
    let machine = Machine::start();
    machine.state.lock().unwrap().agents.push(agent("hello"));
    machine.state.lock().unwrap().ends_at_once = Some(("success", 0));
    let folder = machine.agent_folder();
    let output = machine.aos().arg("run").arg(&folder).arg("--replace").output().unwrap();
    assert_eq!(outcome(&output).0, Some(0));
    assert_eq!(machine.calls(), ["install local", "stop hello", "run hello hello:1.0.0 []"]);
}

#[test]
fn a_run_that_does_not_start_tells_what_was_said() {
    let machine = Machine::start();
    machine.state.lock().unwrap().refuses = Some("the sandbox could not be built".into());
    machine.write_line("hello", "aos-launch: cannot bind /srv/data", true);
    let folder = machine.agent_folder();
    let output = machine.aos().arg("run").arg(&folder).output().unwrap();
    let (status, shown, said) = outcome(&output);
    assert_eq!((status, shown.as_str()), (Some(125), ""));
    assert!(said.contains("hello: aos-launch: cannot bind /srv/data"), "{said}");
    assert!(said.contains("cause: the sandbox could not be built"), "{said}");
    assert_eq!(machine.calls(), ["install local", "run hello hello:1.0.0 []", "remove package hello:1.0.0"]);
    assert_eq!(machine.state.lock().unwrap().packages, []);
}

#[test]
fn what_was_there_before_a_refused_run_stays() {
    let machine = Machine::start();
    machine.state.lock().unwrap().packages.push(package());
    machine.state.lock().unwrap().refuses = Some("no".into());
    let folder = machine.agent_folder();
    assert_eq!(outcome(&machine.aos().arg("run").arg(&folder).output().unwrap()).0, Some(125));
    assert_eq!(machine.calls(), ["install local", "run hello hello:1.0.0 []"]);
    assert_eq!(machine.state.lock().unwrap().packages.len(), 1);
}

#[test]
fn what_can_be_told_before_is_told_before_anything_is_installed() {
    let machine = Machine::start();
    let folder = machine.agent_folder();
    for (option, value, says) in [
        ("--memory", "lots", "size `lots` is not valid, expected bytes or a number with K, M, G or T"),
        ("--cpu", "50", "CPU share `50` is not valid, expected whole percent"),
        ("--runtime", "10", "duration `10` is not valid"),
    ] {
        let output = machine.aos().arg("run").arg(&folder).args([option, value]).output().unwrap();
        let (status, _, said) = outcome(&output);
        assert_eq!(status, Some(2), "{said}");
        assert!(said.contains(says), "{said}");
    }
    let good = std::fs::read_to_string(folder.join("Agentfile")).unwrap();
    for (text, says) in [
        (
            good.replace("hello.sh", "/usr/bin/nope"),
            "Agentfile:4:22: run.entrypoint[0]: `/usr/bin/nope` is not on",
        ),
        (
            format!("{good}capabilities: [ 'net: a.example:443' ]\n"),
            "Agentfile:5:17: capabilities[0]: capability `net",
        ),
        (format!("{good}capabilities: [ 'exec: /usr/bin/*' ]\n"), "or write `/usr/bin/**` for everything"),
        (
            format!("{good}capabilities: [ 'net: a.example:443', 'net: b.example:443' ]\n"),
            "hint: 1 more would keep it from running here",
        ),
    ] {
        std::fs::write(folder.join("Agentfile"), text).unwrap();
        let (status, _, said) = outcome(&machine.aos().arg("run").arg(&folder).output().unwrap());
        assert_eq!(status, Some(125), "{said}");
        assert!(said.contains(says), "{said}");
    }
    assert_eq!(machine.calls(), [""; 0]);
    assert_eq!(machine.state.lock().unwrap().packages, []);
}

#[test]
fn a_package_that_is_not_installed() {
    let machine = Machine::start();
    let output = machine.aos().args(["run", "nothing:1.0.0"]).output().unwrap();
    let (status, _, said) = outcome(&output);
    assert_eq!(status, Some(125));
    assert!(said.contains("no package nothing:1.0.0 is installed"), "{said}");
    assert!(said.contains("aos run ./nothing"), "{said}");
}

#[test]
fn lists_for_people_and_for_programs() {
    let machine = Machine::start();
    {
        let mut state = machine.state.lock().unwrap();
        let mut failed = agent("watch");
        failed.state = "failed".into();
        failed.result = Some("exit-code".into());
        failed.exit_status = Some(2);
        failed.started_at_us = None;
        failed.memory_current = None;
        state.agents = vec![failed];
        state.packages = vec![package()];
    }
    let (status, shown, _) = outcome(&machine.aos().arg("list").output().unwrap());
    assert_eq!(status, Some(0));
    insta::assert_snapshot!(shown, @r"
    ID     PACKAGE      STATE            BOOT  SINCE  MEMORY
    watch  hello:1.0.0  failed (exit 2)  no    -      -
    ");
    let (_, shown, _) = outcome(&machine.aos().args(["packages"]).output().unwrap());
    insta::assert_snapshot!(shown, @r"
    PACKAGE      SIZE  AGENTS  DIGEST               DESCRIPTION
    hello:1.0.0  2.0K  -       sha256:000000000000  Says hello
    ");
    let (_, shown, _) = outcome(&machine.aos().args(["list", "--json"]).output().unwrap());
    let value: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(value[0]["id"], "watch");
    assert_eq!(value[0]["exit_status"], 2);
}

#[test]
fn a_package_of_the_user_store_is_installed_first() {
    let machine = Machine::start();
    machine.state.lock().unwrap().ends_at_once = Some(("exit-code", 0));
    let folder = machine.agent_folder();
    let (status, _, said) = outcome(&machine.aos().arg("build").arg(&folder).output().unwrap());
    assert_eq!(status, Some(0), "{said}");
    let (status, _, said) = outcome(&machine.aos().args(["run", "hello"]).output().unwrap());
    assert_eq!(status, Some(0), "{said}");
    assert_eq!(machine.calls(), ["install local", "run hello hello:1.0.0 []"]);
    // What is installed is not installed again.
    let (status, _, said) = outcome(&machine.aos().args(["run", "hello"]).output().unwrap());
    assert_eq!(status, Some(0), "{said}");
    assert_eq!(machine.calls().len(), 3);
    let (status, _, said) = outcome(&machine.aos().args(["run", "nobody"]).output().unwrap());
    assert_eq!(status, Some(125));
    assert!(said.contains("no package nobody is installed, or in your store"), "{said}");
}

#[test]
fn only_what_was_built_here_is_installed_as_such() {
    let machine = Machine::start();
    let folder = machine.agent_folder();
    let file = folder.with_extension("aap");
    let built = machine.aos().arg("build").arg(&folder).arg("-o").arg(&file).output().unwrap();
    assert_eq!(built.status.code(), Some(0));
    for (words, call) in [
        (&["install", "hello:1.0.0"][..], "install local"),
        (&["install", file.to_str().unwrap()], "install"),
        (&["install", "--local", file.to_str().unwrap()], "install local"),
    ] {
        let (status, shown, said) = outcome(&machine.aos().args(words).output().unwrap());
        assert_eq!((status, shown.as_str()), (Some(0), "hello:1.0.0\n"), "{said}");
        assert_eq!(machine.calls().last().unwrap(), call);
    }
    // The same package from outside, in a store that did not build it.
    let store = folder.with_extension("other");
    std::fs::create_dir_all(store.join("trust.d")).unwrap();
    std::fs::write(store.join("trust.d/all.toml"), "[[allow]]\nnames = [\"*\"]\nunsigned = true\n").unwrap();
    let other =
        |words: &[&str]| outcome(&machine.aos().env("AOS_STORE", &store).args(words).output().unwrap());
    let (status, _, said) = other(&["import", file.to_str().unwrap()]);
    assert_eq!(status, Some(0), "{said}");
    let (status, _, said) = other(&["install", "hello:1.0.0"]);
    assert_eq!(status, Some(0), "{said}");
    assert_eq!(machine.calls().last().unwrap(), "install");
}

#[test]
fn the_machines_store_is_collected_too() {
    let machine = Machine::start();
    for (words, call) in
        [(&["gc", "--dry-run", "--json"][..], "collect true"), (&["gc", "--json"], "collect false")]
    {
        let (status, shown, said) = outcome(&machine.aos().args(words).output().unwrap());
        assert_eq!(status, Some(0), "{said}");
        let value: serde_json::Value = serde_json::from_str(&shown).unwrap();
        assert_eq!(value["machine"]["bytes"], 4096);
        assert_eq!(machine.calls().last().unwrap(), call);
    }
    let (status, _, _) = outcome(&machine.aos().args(["gc", "--user-only"]).output().unwrap());
    assert_eq!(status, Some(0));
    assert_eq!(machine.calls().len(), 2);
}

#[test]
fn json_says_what_became_of_each() {
    let machine = Machine::start();
    machine.state.lock().unwrap().agents.push(agent("hello"));
    let (status, shown, said) =
        outcome(&machine.aos().args(["stop", "hello", "nobody", "--json"]).output().unwrap());
    assert_eq!(status, Some(0), "{said}");
    let value: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(value[0]["name"], "hello");
    assert_eq!(value[0]["done"], true);
    let (status, shown, said) =
        outcome(&machine.aos().args(["remove", "nobody", "--json"]).output().unwrap());
    assert_eq!(status, Some(3), "{said}");
    let value: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(value[0]["error"], "cannot remove nobody: no agent nobody; `aos list` shows the agents");
}
