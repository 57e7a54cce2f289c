//! The file tree: what is granted is there with the granted access, and nothing else is.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use aos_isolation::backend::Backend;

use crate::bed::Bed;

/// Prints how each of the given expressions ended: `ok`, or the error's name.
fn tries(bed: &Bed, expressions: &[String], capabilities: &[&str]) -> Vec<String> {
    let mut script = String::from(
        "import errno, os, subprocess, mmap, shutil\ndef attempt(do):\n    try:\n        do()\n        print('ok')\n    except OSError as error:\n        print(errno.errorcode[error.errno])\n",
    );
    for expression in expressions {
        script.push_str(&format!("attempt(lambda: {expression})\n"));
    }
    bed.succeed(&script, capabilities).lines().map(str::to_owned).collect()
}

/// Every one is among the refusals.
fn assert_refused(found: &[String], with: &[&str]) {
    assert!(!found.is_empty() && found.iter().all(|one| with.contains(&one.as_str())), "{found:?}");
}

const REFUSED: [&str; 4] = ["EACCES", "EROFS", "EPERM", "ENOENT"];

pub(crate) fn a_grant_to_read(bed: &Bed) {
    let data = bed.path("data");
    let grant = ["file_read: ROOT/data/**"];
    let found =
        tries(bed, &[format!("open('{data}/file').read()"), format!("os.listdir('{data}/deep')")], &grant);
    assert_eq!(found, ["ok", "ok"]);
    let found = tries(
        bed,
        &[
            format!("open('{data}/new', 'w')"),
            format!("open('{data}/file', 'a')"),
            format!("os.mkdir('{data}/directory')"),
            format!("os.rename('{data}/file', '{data}/other')"),
            format!("os.unlink('{data}/file')"),
            format!("os.truncate('{data}/file', 0)"),
        ],
        &grant,
    );
    assert_refused(&found, &REFUSED);
    assert_eq!(bed.text("data/file"), "content\n");
}

pub(crate) fn a_grant_to_write(bed: &Bed) {
    let out = bed.path("out");
    let found = tries(
        bed,
        &[
            format!("open('{out}/file', 'w').write('new')"),
            format!("os.mkdir('{out}/directory')"),
            format!("os.rename('{out}/file', '{out}/directory/file')"),
            format!("open('{out}/directory/file').read()"),
        ],
        &["file_write: ROOT/out/**"],
    );
    assert_eq!(found, ["ok"; 4]);
    assert_eq!(bed.text("out/directory/file"), "new");
    let own = fs::metadata(bed.path("out/directory/file")).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&own), bed.uid);
}

pub(crate) fn a_grant_in_a_grant(bed: &Bed) {
    let nest = bed.path("nest");
    let grants = ["file_read: ROOT/nest/**", "file_write: ROOT/nest/inner/**"];
    let found = tries(
        bed,
        &[format!("open('{nest}/file').read()"), format!("open('{nest}/inner/new', 'w').write('x')")],
        &grants,
    );
    assert_eq!(found, ["ok", "ok"]);
    let found =
        tries(bed, &[format!("open('{nest}/file', 'a')"), format!("open('{nest}/new', 'w')")], &grants);
    assert_refused(&found, &REFUSED);
    assert_eq!(bed.text("nest/inner/new"), "x");
}

/// What is mounted below a granted folder belongs to it, with the grant's access.
pub(crate) fn a_mount_in_a_grant(bed: &Bed) {
    let deep = bed.path("data/deep");
    let mounted = |command: &str, arguments: &[&str]| {
        assert!(std::process::Command::new(command).args(arguments).status().unwrap().success());
    };
    mounted("mount", &["-t", "tmpfs", "aos-contract", &deep]);
    fs::write(bed.path("data/deep/mounted"), "mounted").unwrap();
    fs::set_permissions(&deep, fs::Permissions::from_mode(0o777)).unwrap();
    let found = tries(
        bed,
        &[
            format!("open('{deep}/mounted').read()"),
            format!("open('{deep}/new', 'w')"),
            format!("open('{deep}/mounted', 'a')"),
        ],
        &["file_read: ROOT/data/**"],
    );
    mounted("umount", &[&deep]);
    assert_eq!(found.first().map(String::as_str), Some("ok"));
    assert_refused(&found[1..], &REFUSED);
}

pub(crate) fn what_is_not_granted_is_absent(bed: &Bed) {
    let found = tries(
        bed,
        &[
            format!("open('{}/file')", bed.path("secret")),
            "open('/etc/shadow')".to_owned(),
            "os.listdir('/root')".to_owned(),
            "os.listdir('/var/lib')".to_owned(),
            "open('/proc/1/root/etc/shadow')".to_owned(),
            "os.listdir('/.aos/..//home')".to_owned(),
            "open('/run/bundle/config.json')".to_owned(),
        ],
        &["file_read: ROOT/data/**"],
    );
    assert_refused(&found, &["ENOENT", "EACCES"]);
}

pub(crate) fn the_workspace(bed: &Bed) {
    fs::write(bed.path("workspace/kept"), "kept").unwrap();
    let found = tries(
        bed,
        &[
            "open('/workspace/kept').read()".to_owned(),
            "open('/workspace/new', 'w').write('x')".to_owned(),
            "shutil.copy('/usr/bin/python3', '/workspace/python3')".to_owned(),
            "os.chmod('/workspace/python3', 0o755)".to_owned(),
        ],
        &[],
    );
    // The interpreter itself can be read: it may be executed.
    assert_eq!(found, ["ok"; 4]);
    assert_eq!(bed.text("workspace/new"), "x");
    let found = tries(bed, &["subprocess.run(['/workspace/python3', '-c', ''], check=True)".to_owned()], &[]);
    assert_refused(&found, &["EACCES", "EPERM"]);
    let found = tries(
        bed,
        &[
            "mmap.mmap(os.open('/workspace/python3', os.O_RDONLY), 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC, flags=mmap.MAP_PRIVATE)"
                .to_owned(),
        ],
        &[],
    );
    if bed.backend == Backend::Gvisor {
        // `Backend::differs` says so: a test that fails when it is not so any more.
        assert_eq!(found, ["ok"]);
    } else {
        assert_refused(&found, &["EACCES", "EPERM"]);
    }
}

/// `Backend::differs` says so of a virtual machine.
pub(crate) fn shared_maps(bed: &Bed) {
    fs::write(bed.path("workspace/file"), "before").unwrap();
    std::os::unix::fs::chown(bed.path("workspace/file"), Some(bed.uid), Some(bed.uid)).unwrap();
    let map = |flags: &str| {
        format!("mmap.mmap(os.open('/workspace/file', os.O_RDWR), 6, flags=mmap.{flags}).__setitem__(0, 66)")
    };
    let found = tries(bed, &[map("MAP_PRIVATE"), map("MAP_SHARED")], &[]);
    assert_eq!(found.first().map(String::as_str), Some("ok"));
    if bed.backend == Backend::Vm {
        assert_refused(&found[1..], &["ENODEV", "EINVAL"]);
        assert_eq!(bed.text("workspace/file"), "before");
    } else {
        assert_eq!(found[1..], ["ok"]);
        assert_eq!(bed.text("workspace/file"), "Before");
    }
}

pub(crate) fn memory_is_bounded(bed: &Bed) {
    let script = "
import errno
def fill(path):
    size = 0
    try:
        with open(path, 'wb') as file:
            while size < 200:
                file.write(b'x' * (1 << 20))
                file.flush()
                size += 1
    except OSError as error:
        return size, errno.errorcode[error.errno]
    return size, 'no end'
for path in ['/tmp/file', '/dev/shm/file']:
    print(*fill(path))
";
    for line in bed.succeed(script, &[]).lines() {
        let (size, error) = line.split_once(' ').unwrap();
        let size: u64 = size.parse().unwrap();
        assert!((32..=64).contains(&size) && error == "ENOSPC", "{line}");
    }
}

pub(crate) fn programs(bed: &Bed) {
    let run = |program: &str| format!("subprocess.run(['{program}', '--version'], stdout=-3, check=True)");
    let found = tries(bed, &[run("/usr/bin/git"), run("/bin/cat")], &["exec: /usr/bin/git"]);
    assert_eq!(found.first().map(String::as_str), Some("ok"));
    assert_refused(&found[1..], &["EACCES", "ENOENT"]);
    let found = tries(
        bed,
        &[
            run("/usr/bin/git"),
            run("/usr/bin/id"),
            // The loader, which may be executed, gets nothing that it could run.
            "open('/usr/bin/git', 'rb').read(1)".to_owned(),
            "os.listdir('/usr/bin/..//sbin') and open('/usr/sbin/ldconfig', 'rb').read(1)".to_owned(),
            run("/.aos/aos-launch"),
            run("/.aos/aos-isolate"),
        ],
        &[],
    );
    assert_refused(&found, &["EACCES", "ENOENT"]);
}

pub(crate) fn a_link_is_refused(bed: &Bed) {
    symlink("/etc", bed.path("link")).unwrap();
    let ended = bed.run(&bed.plan("print('ran')", &["file_read: ROOT/link/**"]));
    assert_eq!((ended.out.as_str(), ended.report.is_none()), ("", true));
    assert!(ended.status == 226 && ended.err.contains("symbolic link"), "{ended:?}");
    // A link inside a grant leads nowhere.
    symlink("/etc/shadow", bed.path("data/link")).unwrap();
    symlink(bed.path("secret/file"), bed.path("data/other")).unwrap();
    let data = bed.path("data");
    let found = tries(
        bed,
        &[format!("open('{data}/link')"), format!("open('{data}/other')")],
        &["file_read: ROOT/data/**"],
    );
    assert_refused(&found, &["ENOENT", "EACCES"]);
}

pub(crate) fn the_root_is_read_only(bed: &Bed) {
    let found = tries(
        bed,
        &[
            "open('/new', 'w')".to_owned(),
            "os.mkdir('/etc/new')".to_owned(),
            "open('/etc/passwd', 'a')".to_owned(),
            "open('/usr/share/new', 'w')".to_owned(),
            "open('/app/main.py', 'a')".to_owned(),
            "open('/proc/sys/kernel/core_pattern', 'w')".to_owned(),
        ],
        &[],
    );
    assert_refused(&found, &REFUSED);
    // A device cannot be made, or is none: gVisor's kernel makes a node that opens nothing.
    let device = "(os.mknod('/tmp/device', 0o20666, os.makedev(1, 1)), os.open('/tmp/device', os.O_RDONLY))";
    assert_refused(&tries(bed, &[device.to_owned()], &[]), &["EPERM", "EACCES", "ENXIO", "ENODEV"]);
}
