//! Starting: the report, readiness, and what is refused before there is anything inside.

use std::fs;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::{Command, Output};

use aos_core::report::LaunchReport;

use crate::place::{Place, assert_fails, error, launch_program};

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
        Command::new(launch_program()).arg("--plan").arg(&path).args(arguments).output().unwrap()
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
