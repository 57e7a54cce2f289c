//! What is granted of the host: what cannot be had is named, and nothing beside a grant is shown.

use std::fs;
use std::io::Read;
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};

use crate::place::{Place, assert_fails, error};

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
