//! Programs and packages: interpreters, loaders, and what a package brings.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};

use crate::place::{Place, assert_fails, error};

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
