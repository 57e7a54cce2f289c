//! What uses of paths come to, over a file system of the test; and that no proposal is broader than
//! what was asked for.

use std::collections::BTreeMap;

use aos_core::capability::{Access as Use, Right};
use aos_core::config::ResolvedAgent;
use aos_sandbox::plan::{PlanInput, derive};
use aos_sandbox::rootfs::{EntryKind, RootfsEntry};
use proptest::prelude::*;

use super::*;

/// A file system that is a table.
#[derive(Clone, Default)]
struct Fake(BTreeMap<String, Look>);

impl Fake {
    /// `d` directory, `f` file, `s` special, `x` closed, `->` link.
    fn new(entries: &[(&str, &str)]) -> Self {
        let mut fake = Self::default();
        for (index, (path, kind)) in entries.iter().enumerate() {
            let look = match *kind {
                "d" => Look::Directory,
                "f" => Look::File((1, index as u64)),
                "s" => Look::Special,
                "x" => Look::Closed,
                "m" => Look::Unmounted,
                link => Look::Link(link.strip_prefix("->").unwrap().into()),
            };
            fake.0.insert((*path).to_owned(), look);
        }
        fake
    }
}

impl Files for Fake {
    fn look(&self, path: &Path) -> Look {
        let text = path.to_str().unwrap();
        let above = path.ancestors().skip(1).filter_map(Path::to_str);
        if above.into_iter().any(|path| matches!(self.0.get(path), Some(Look::Link(_)))) {
            return Look::Behind;
        }
        self.0.get(text).cloned().unwrap_or(Look::Missing)
    }

    fn leads_to(&self, path: &Path) -> Option<PathBuf> {
        match self.0.get(path.to_str()?) {
            Some(Look::Link(to)) => Some(to.clone()),
            Some(_) => Some(path.to_owned()),
            None => None,
        }
    }

    fn head(&self, path: &Path) -> Vec<u8> {
        match path.to_str() {
            Some("/root/app/main.sh") => b"#!/usr/bin/env -S A=1 sh -e\nx".to_vec(),
            Some("/usr/bin/sh") => b"#! /usr/bin/git\n".to_vec(),
            Some("/usr/bin/loop") => b"#!/usr/bin/loop\n".to_vec(),
            _ => b"\x7fELF".to_vec(),
        }
    }
}

const HOST: &[(&str, &str)] = &[
    ("/usr", "d"),
    ("/usr/bin", "d"),
    ("/usr/bin/git", "f"),
    ("/usr/bin/python3", "->python3.13"),
    ("/usr/bin/python3.13", "f"),
    ("/usr/bin/editor", "->/etc/alternatives/editor"),
    ("/etc/alternatives", "d"),
    ("/etc/alternatives/editor", "->/usr/bin/git"),
    ("/usr/lib", "d"),
    ("/usr/lib/python3.13", "d"),
    ("/usr/lib/python3.13/os.py", "f"),
    ("/usr/lib/git-core", "d"),
    ("/usr/lib/git-core/git-log", "f"),
    ("/usr/share", "d"),
    ("/usr/share/x", "f"),
    ("/srv", "d"),
    ("/srv/a", "f"),
    ("/srv/closed", "x"),
    ("/srv/d", "d"),
    ("/srv/d/b", "f"),
    ("/srv/link", "->/srv/a"),
    ("/srv/way", "->/srv/d"),
    ("/srv/socket", "s"),
    ("/srv/auto", "m"),
    ("/srv/granted/socket", "s"),
    ("/srv/granted/auto", "m"),
    ("/srv/out/socket", "s"),
    ("/usr/share/pipe", "s"),
    ("/root/app/l", "->/usr/bin/git"),
    ("/srv/odd[1]", "f"),
    ("/srv/granted", "d"),
    ("/srv/granted/in", "f"),
    ("/srv/out", "d"),
    ("/srv/out/old", "f"),
    ("/etc", "d"),
    ("/etc/passwd", "f"),
    ("/etc/app.conf", "f"),
    ("/home/workspace", "d"),
    ("/home/workspace/run", "f"),
    ("/home/workspace/link", "->/srv/a"),
    ("/home/workspace/own", "->run"),
    ("/root/app", "d"),
    ("/root/app/main.py", "f"),
    ("/root/app/tool", "f"),
];

const CAPABILITIES: [&str; 4] =
    ["file_read: /srv/granted/**", "file_write: /srv/out/**", "exec: /opt/tool", "listen: 8080"];

fn view_with(entries: &[(&str, &str)], capabilities: &[&str]) -> View<Fake> {
    let agent = serde_json::json!({
        "capabilities": capabilities, "limits": {}, "name": "web", "version": "1.0.0", "root": "host",
        "run": { "entrypoint": ["/usr/bin/python3", "/app/main.py"], "lifecycle": "oneshot", "workdir": "/workspace" },
    });
    let agent = ResolvedAgent::from_json(agent.to_string().as_bytes()).unwrap();
    let plan = derive(&PlanInput {
        agent: &agent,
        id: &"web".parse().unwrap(),
        arguments: &[],
        rootfs: &"/root".parse().unwrap(),
        entries: &[RootfsEntry { path: "app".parse().unwrap(), kind: EntryKind::Directory }],
        workspace: &"/home/workspace".parse().unwrap(),
    });
    View::new(&plan.unwrap(), Fake::new(entries))
}

fn view() -> View<Fake> {
    view_with(HOST, &CAPABILITIES)
}

/// The subject of what a use comes to.
fn judged(path: &str, want: Want, creates: bool) -> Option<String> {
    let ask = Ask::Path { path: path.as_bytes().to_vec(), want, creates };
    view().judge(&ask).map(|found| match found.proposal {
        Proposal::Exact(capability) => capability.to_string(),
        Proposal::Directory { capability, .. } => format!("directory {capability}"),
        Proposal::Nothing { what, why } => format!("nothing {what}: {why}"),
    })
}

#[test]
fn what_the_plan_gives_is_no_need() {
    for (path, want) in [
        ("/workspace/x/y", Want::Write),
        ("/workspace/own", Want::Read),
        ("/workspace/new", Want::Entry),
        ("/tmp/../workspace/run", Want::Write),
        ("/tmp/x", Want::Entry),
        ("/proc/self/status", Want::Read),
        ("/dev/null", Want::Write),
        ("/app/main.py", Want::Read),
        ("/app", Want::Read),
        ("/", Want::Read),
        ("/srv", Want::Look),
        ("/usr/bin", Want::Read),
        ("/usr/share/x", Want::Read),
        ("/usr/lib/python3.13/os.py", Want::Read),
        ("/lib/python3.13/os.py", Want::Read),
        ("/usr/bin/git", Want::Look),
        ("/usr/bin/python3", Want::Execute),
        ("/usr/bin/python3.13", Want::Execute),
        ("/bin/python3.13", Want::Read),
        ("/srv/granted/in", Want::Read),
        ("/srv/granted/../granted/./in", Want::Read),
        ("/srv/out/old", Want::Write),
        ("/srv/out/new", Want::Entry),
        ("/etc/passwd", Want::Read),
    ] {
        assert_eq!(judged(path, want, false), None, "{path} {want:?}");
    }
    assert_eq!(judged("/srv/out/new", Want::Write, true), None);
}

#[test]
fn what_is_nowhere_is_no_need() {
    for path in [
        "/srv/absent",
        "/absent/x",
        "/usr/local/bin/git",
        "/app/absent",
        "/srv/granted/no",
        "/srv/a/b",
        "/usr/bin/git/x",
    ] {
        for want in [Want::Look, Want::Read, Want::Execute] {
            assert_eq!(judged(path, want, false), None, "{path}");
        }
    }
    assert_eq!(judged("/absent/new", Want::Write, true), None);
}

#[test]
fn exact_needs() {
    for (path, want, expected) in [
        ("/srv/a", Want::Read, "file_read: /srv/a"),
        ("/srv/a", Want::Look, "file_read: /srv/a"),
        ("/srv/a", Want::Write, "file_write: /srv/a"),
        ("/srv/a", Want::Execute, "exec: /srv/a"),
        ("/srv/d/../a", Want::Read, "file_read: /srv/a"),
        ("//srv//./a", Want::Read, "file_read: /srv/a"),
        ("/etc/app.conf", Want::Read, "file_read: /etc/app.conf"),
        ("/usr/bin/git", Want::Execute, "exec: /usr/bin/git"),
        ("/bin/git", Want::Execute, "exec: /bin/git"),
        ("/usr/bin/git", Want::Read, "file_read: /usr/bin/git"),
        ("/usr/lib/git-core/git-log", Want::Execute, "exec: /usr/lib/git-core/git-log"),
        ("/usr/bin/editor", Want::Execute, "exec: /usr/bin/editor"),
        ("/usr/bin/../bin/git", Want::Execute, "exec: /usr/bin/git"),
        ("/app/tool", Want::Execute, "exec: /app/tool"),
        ("/workspace/../srv/a", Want::Read, "file_read: /srv/a"),
        ("/workspace/link", Want::Read, "file_read: /srv/a"),
        ("/tmp/x/../../srv/a", Want::Read, "file_read: /srv/a"),
        // The plan refuses it, and says why.
        ("/workspace/run", Want::Execute, "exec: /workspace/run"),
    ] {
        assert_eq!(judged(path, want, false).as_deref(), Some(expected), "{path}");
    }
}

#[test]
fn needs_of_a_directory() {
    for (path, want, creates, expected) in [
        ("/srv/d", Want::Read, false, "directory file_read: /srv/d/**"),
        ("/srv/d", Want::Look, false, "directory file_read: /srv/d/**"),
        ("/srv/d/new", Want::Write, true, "directory file_write: /srv/d/**"),
        ("/srv/d/b", Want::Entry, false, "directory file_write: /srv/d/**"),
        ("/srv/granted/new", Want::Write, true, "directory file_write: /srv/granted/**"),
        ("/srv/granted/in", Want::Entry, false, "directory file_write: /srv/granted/**"),
        ("/app/cache", Want::Entry, false, "directory file_write: /app/**"),
    ] {
        assert_eq!(judged(path, want, creates).as_deref(), Some(expected), "{path}");
    }
}

#[test]
fn what_no_capability_gives() {
    for (path, want, says) in [
        ("/srv/link", Want::Read, "by a symbolic link to /srv/a"),
        ("/srv/closed", Want::Read, "you may not reach it"),
        ("/srv/odd[1]", Want::Read, "characters that no capability"),
        ("/tmp/run", Want::Execute, "never executed"),
        ("/srv/socket", Want::Look, "a socket, a pipe or a device"),
        ("/srv/socket", Want::Read, "a socket, a pipe or a device"),
        ("/srv/socket", Want::Write, "a socket, a pipe or a device"),
        ("/srv/socket", Want::Execute, "a socket, a pipe or a device"),
        ("/srv/socket", Want::Entry, "a socket, a pipe or a device"),
        ("/srv/granted/socket", Want::Write, "a socket, a pipe or a device"),
        ("/srv/granted/socket", Want::Entry, "a socket, a pipe or a device"),
        ("/usr/share/pipe", Want::Execute, "a socket, a pipe or a device"),
        ("/srv/auto", Want::Read, "below an automount"),
        ("/srv/granted/auto", Want::Write, "below an automount"),
    ] {
        let judged = judged(path, want, false).unwrap();
        assert!(judged.starts_with("nothing") && judged.contains(says), "{path}: {judged}");
    }
    let raw = Ask::Path { path: b"/srv/\xff".to_vec(), want: Want::Read, creates: false };
    assert!(matches!(view().judge(&raw).unwrap().proposal, Proposal::Nothing { .. }));
}

#[test]
fn the_real_path_is_told_beside_the_name() {
    let real = |path: &str, want| {
        let found =
            view().judge(&Ask::Path { path: path.as_bytes().to_vec(), want, creates: false }).unwrap();
        (found.proposal.subject(), found.real.map(|real| real.to_string()))
    };
    let other = |name: &str, real: &str| (name.to_owned(), Some(real.to_owned()));
    assert_eq!(real("/app/l", Want::Execute), other("exec: /app/l", "exec: /usr/bin/git"));
    assert_eq!(real("/app/l", Want::Write), other("file_write: /app/l", "file_write: /usr/bin/git"));
    assert_eq!(real("/bin/git", Want::Execute), other("exec: /bin/git", "exec: /usr/bin/git"));
    assert_eq!(real("/usr/bin/git", Want::Execute), ("exec: /usr/bin/git".to_owned(), None));
    assert_eq!(real("/srv/a", Want::Read), ("file_read: /srv/a".to_owned(), None));
}

/// What the launcher lets run with a program, nobody has to grant.
#[test]
fn interpreters_come_with_a_program() {
    let mut entries = HOST.to_vec();
    entries.extend([
        ("/usr/bin/loop", "f"),
        ("/usr/bin/env", "f"),
        ("/usr/bin/sh", "f"),
        ("/root/app/main.sh", "f"),
        ("/usr/bin/no", "f"),
    ]);
    let view = view_with(&entries, &["exec: /app/main.sh", "exec: /usr/bin/loop"]);
    let judged = |path: &str| {
        view.judge(&Ask::Path { path: path.as_bytes().to_vec(), want: Want::Execute, creates: false })
    };
    for path in ["/app/main.sh", "/usr/bin/env", "/bin/sh", "/usr/bin/git"] {
        assert_eq!(judged(path), None, "{path}");
    }
    assert!(judged("/usr/bin/no").is_some());
    for (line, found) in [
        ("#!/bin/sh", Some(("/bin/sh", ""))),
        ("#! /bin/sh -e", Some(("/bin/sh", ""))),
        ("#!/usr/bin/env python3 -u\nx", Some(("/usr/bin/env", "python3"))),
        ("#!sh", None),
        ("#!", None),
        ("x", None),
    ] {
        let found = found.map(|(interpreter, argument)| (interpreter.to_owned(), argument.to_owned()));
        assert_eq!(interpreter(line.as_bytes()), found, "{line}");
    }
}

#[test]
fn links_without_end_are_left() {
    let view = view_with(
        &[("/usr", "d"), ("/usr/l", "->/usr/m"), ("/usr/m", "->/usr/l"), ("/usr/deep", "->deep/deep")],
        &[],
    );
    for path in ["/usr/l", "/usr/m/x", "/usr/deep"] {
        let ask = Ask::Path { path: path.as_bytes().to_vec(), want: Want::Read, creates: false };
        assert_eq!(view.judge(&ask), None, "{path}");
    }
    let long = "/usr/..".repeat(30_000);
    let ask = Ask::Path { path: long.into_bytes(), want: Want::Read, creates: false };
    assert_eq!(view.judge(&ask), None);
}

#[test]
fn addresses_and_ports() {
    let subject = |ask: &Ask| view().judge(ask).map(|found| found.proposal.subject());
    let connect = |at: &str| subject(&Ask::Connect(Address::Internet(at.parse().unwrap())));
    assert_eq!(connect("127.0.0.1:8080"), None);
    assert_eq!(connect("127.0.0.1:81").as_deref(), Some("net: 127.0.0.1:81"));
    assert_eq!(connect("192.0.2.1:443").as_deref(), Some("net: 192.0.2.1:443"));
    assert_eq!(connect("[2001:db8::1]:53").as_deref(), Some("net: names, of [2001:db8::1]:53"));
    let file = |path: &str| subject(&Ask::Connect(Address::File(path.as_bytes().to_vec())));
    assert_eq!(file("/srv/socket").as_deref(), Some("socket: /srv/socket"));
    assert_eq!((file("/srv/absent"), file("/tmp/own")), (None, None));
    assert_eq!(subject(&Ask::Listen(8080)), None);
    assert_eq!(subject(&Ask::Listen(81)).as_deref(), Some("listen: 81"));
    assert_eq!(subject(&Ask::Listen(0)).as_deref(), Some("listen: any port"));
}

fn segment() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("..".to_owned()),
        Just(".".to_owned()),
        Just(String::new()),
        "[a-d]{1,2}",
        Just("srv".to_owned()),
        Just("usr".to_owned()),
        Just("bin".to_owned()),
        Just("git".to_owned()),
        Just("app".to_owned()),
        Just("granted".to_owned()),
        Just("link".to_owned()),
        Just("way".to_owned()),
        "[\\*\\[a]{1,2}",
    ]
}

fn want() -> impl Strategy<Value = Want> {
    prop_oneof![Just(Want::Look), Just(Want::Read), Just(Want::Execute), Just(Want::Write), Just(Want::Entry)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    /// What is proposed as exact is about one path, by the use that was asked for, and that path is
    /// the one that the agent named; a directory is never proposed as exact.
    #[test]
    fn no_exact_proposal_is_broader_than_the_use(
        parts in prop::collection::vec(segment(), 1..7),
        want in want(),
        creates in any::<bool>(),
    ) {
        let path = format!("/{}", parts.join("/"));
        let view = view();
        let Some(found) = view.judge(&Ask::Path { path: path.clone().into_bytes(), want, creates }) else {
            return Ok(());
        };
        prop_assert_eq!(found.want, want);
        let Proposal::Exact(capability) = found.proposal else { return Ok(()) };
        let pattern = capability.pattern().unwrap();
        prop_assert!(!pattern.as_str().contains('*'), "{capability}");
        let named: AbsolutePath = pattern.as_str().parse().unwrap();
        let access = match capability.right() {
            Right::FileRead(_) => Use::FileRead(named.clone()),
            Right::FileWrite(_) => Use::FileWrite(named.clone()),
            _ => Use::Exec(named.clone()),
        };
        prop_assert!(capability.permits(&access));
        let kind = match want {
            Want::Look | Want::Read => "file_read",
            Want::Write => "file_write",
            Want::Execute => "exec",
            Want::Entry => return Err(TestCaseError::fail("an entry is a matter of its directory")),
        };
        prop_assert_eq!(capability.name(), kind);
        // Without links in the way it is the path itself in normal form; with them, where it leads.
        let plain = joined(String::new(), segments(&path));
        let passes_link = ["link", "way", "bin"].iter().any(|name| parts.iter().any(|part| part == name));
        prop_assert!(passes_link || plain == named.as_str(), "{path}: {capability}");
    }

    /// Whatever bytes a path has: judging ends, and what is told of it has no control character.
    #[test]
    fn any_bytes_are_judged(path in prop::collection::vec(any::<u8>(), 0..300), want in want(), creates in any::<bool>()) {
        let path = [b"/".to_vec(), path].concat();
        if let Some(found) = view().judge(&Ask::Path { path, want, creates })
            && let Proposal::Exact(capability) | Proposal::Directory { capability, .. } = found.proposal
        {
            prop_assert!(!capability.to_string().chars().any(char::is_control));
        }
    }
}
