//! Learning with the real launcher: what is learnt is exactly what the agent needs, and recording
//! gives it nothing. As root the agent runs as a user that nobody is, else as the caller.
//!
//! The launcher is what `cargo build -p aos-sandbox` makes, or `AOS_LAUNCH` names.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a panic in a helper is the test's failure report, and starting the launcher is the point"
)]

use std::fs::{self, Permissions};
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use aos_core::capability::CapabilitySet;
use aos_core::config::ResolvedAgent;
use aos_learn::{
    Answer, Cancel, Choices, Ending, Goal, Launch, LearnError, Lesson, Question, Ran, Sandbox, Setting,
    Settings, Silent, Trial, Trials, Unattended, Workspace, learn,
};
use aos_sandbox::launch::options::User;
use aos_sandbox::plan::{PlanInput, derive};
use aos_sandbox::rootfs;
use command_fds::{CommandFdExt, FdMapping};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType, recvmsg,
    socketpair,
};

/// The user of agents that root starts in tests.
const UID: u32 = 1_879_113_726;

/// The variable that names the directory of a run of these tests by another user.
const SCRATCH: &str = "AOS_LEARN_TEST_SCRATCH";

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn launcher() -> PathBuf {
    if let Some(path) = std::env::var_os("AOS_LAUNCH") {
        return path.into();
    }
    // The test is target/PROFILE/deps/NAME.
    let test = std::env::current_exe().unwrap();
    let path = test.parent().unwrap().with_file_name("aos-launch");
    assert!(path.exists(), "{} is missing: cargo build -p aos-sandbox", path.display());
    path
}

/// Where a grant can be: not below /tmp. Root's has to be in everybody's reach.
fn scratch() -> PathBuf {
    match std::env::var_os(SCRATCH) {
        Some(path) => path.into(),
        None if is_root() => "/srv".into(),
        None => env!("CARGO_TARGET_TMPDIR").into(),
    }
}

/// A program of the host that needs nothing but its libraries.
fn program() -> &'static str {
    ["/usr/bin/git", "/usr/bin/sort"].into_iter().find(|path| Path::new(path).is_file()).unwrap()
}

/// A package with a shell script, and files of the host beside it.
struct Place {
    root: tempfile::TempDir,
}

impl Place {
    fn new(script: &str) -> Self {
        let directory = tempfile::Builder::new().prefix("aos-learn-test-").tempdir_in(scratch());
        let place = Self { root: directory.unwrap() };
        fs::set_permissions(place.root.path(), Permissions::from_mode(0o755)).unwrap();
        for name in ["rootfs/app", "runs", "data"] {
            fs::create_dir_all(place.path(name)).unwrap();
        }
        fs::write(place.path("rootfs/app/main.sh"), script).unwrap();
        for name in ["a", "b", "out"] {
            place.write(name);
        }
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().canonicalize().unwrap().join(name)
    }

    /// A file that the agent's user may read and write.
    fn write(&self, name: &str) {
        let path = self.path("data").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "data\n").unwrap();
        self.give(&path);
    }

    fn give(&self, path: &Path) {
        if is_root() {
            chown(path, Some(UID), Some(UID)).unwrap();
        }
    }

    fn data(&self) -> String {
        self.path("data").display().to_string()
    }

    fn agent(&self, capabilities: &CapabilitySet) -> ResolvedAgent {
        let agent = serde_json::json!({
            "capabilities": capabilities.to_lines(), "limits": {}, "name": "test", "version": "1.0.0", "root": "host",
            "run": { "entrypoint": ["/bin/sh", "/app/main.sh", self.data()], "lifecycle": "oneshot", "workdir": "/workspace" },
        });
        ResolvedAgent::from_json(agent.to_string().as_bytes()).unwrap()
    }

    /// Does something with runs of this package.
    fn with<T>(&self, timeout: Duration, work: impl FnOnce(&mut Sandbox<'_>) -> T) -> T {
        self.with_agent(self.agent(&CapabilitySet::new()), timeout, work)
    }

    fn with_agent<T>(
        &self,
        agent: ResolvedAgent,
        timeout: Duration,
        work: impl FnOnce(&mut Sandbox<'_>) -> T,
    ) -> T {
        let (mut told, rootfs) = (Silent, self.path("rootfs"));
        let account = is_root().then_some(User { uid: UID, gid: UID });
        let mut sandbox = Sandbox::new(Setting {
            agent,
            id: "test".parse().unwrap(),
            arguments: &[],
            rootfs: &rootfs,
            workspace: Workspace::Fresh(self.path("runs")),
            launch: Launch { launcher: launcher(), account, timeout, cancel: Cancel::default() },
            told: &mut told,
            remove: |path| fs::remove_dir_all(path),
        });
        work(sandbox.as_mut().unwrap())
    }

    fn learn(&self, settings: &Settings) -> Lesson {
        self.with(Duration::from_secs(30), |sandbox| {
            learn(&CapabilitySet::new(), settings, sandbox, &mut Unattended::Grant).unwrap()
        })
    }

    /// One recorded run.
    fn record(&self, capabilities: &CapabilitySet, timeout: Duration) -> Ran {
        let trial = self
            .with(timeout, |sandbox| sandbox.run(capabilities, aos_learn::Purpose::Round(1), None).unwrap());
        match trial {
            Trial::Ran(ran) => ran,
            Trial::Refused(why) => panic!("{why}"),
        }
    }

    /// A launch without a recorder, as a supervisor's is.
    fn command(&self, capabilities: &CapabilitySet) -> Command {
        let workspace = tempfile::tempdir_in(self.path("runs")).unwrap().keep();
        self.give(&workspace);
        let rootfs = self.path("rootfs");
        let plan = derive(&PlanInput {
            agent: &self.agent(capabilities),
            id: &"test".parse().unwrap(),
            arguments: &[],
            rootfs: &rootfs.to_str().unwrap().parse().unwrap(),
            entries: &rootfs::scan(&rootfs).unwrap(),
            workspace: &workspace.to_str().unwrap().parse().unwrap(),
        });
        fs::write(self.path("plan.json"), plan.unwrap().to_json().unwrap()).unwrap();
        let mut command = Command::new(launcher());
        command.arg("--plan").arg(self.path("plan.json")).stdin(Stdio::null());
        if is_root() {
            command.arg("--uid").arg(UID.to_string());
        }
        command
    }

    fn run(&self, capabilities: &CapabilitySet) -> Output {
        self.command(capabilities).output().unwrap()
    }
}

fn settings() -> Settings {
    Settings {
        rounds: 10,
        minimise: true,
        goal: Goal::Status,
        serves: false,
        deny: Vec::new(),
        keep: Vec::new(),
    }
}

/// Grants what nobody has to look at, and one thing that was looked at.
struct Operator(String);

impl Choices for Operator {
    fn choose(&mut self, question: &Question<'_>) -> Result<Answer, LearnError> {
        let is_meant = question.is_plain() || question.need.proposal.subject() == self.0;
        Ok(if is_meant { Answer::Exact } else { Answer::Deny })
    }
}

fn sorted(set: &CapabilitySet) -> Vec<String> {
    let mut lines = set.to_lines();
    lines.sort();
    lines
}

#[test]
fn an_agent_whose_changes_are_kept_apart_is_learnt_from_as_any_other() {
    let place = Place::new("set -e\nread x < $1/a\necho x > got\n");
    let mut agent = place.agent(&CapabilitySet::new());
    agent.run.as_mut().unwrap().workspace = aos_core::config::Workspace::Transactional;
    let learnt = place.with_agent(agent, Duration::from_secs(30), |sandbox| {
        let settings = Settings { minimise: false, ..settings() };
        learn(&CapabilitySet::new(), &settings, sandbox, &mut Unattended::Grant).unwrap()
    });
    assert!(learnt.passed);
    assert_eq!(learnt.capabilities.to_lines(), [format!("file_read: {}/a", place.data())]);
}

#[test]
fn exactly_what_is_needed_is_learnt() {
    let script = format!(
        "set -e\nread x < $1/a\nread x < $1/b\necho x > $1/out\n{} --version > /dev/null\n( read x < /etc/shadow ) 2> /dev/null || true\n",
        program()
    );
    let place = Place::new(&script);
    let data = place.data();
    let mut operator = Operator(format!("file_write: {data}/out"));
    let lesson = place.with(Duration::from_secs(30), |sandbox| {
        learn(&CapabilitySet::new(), &settings(), sandbox, &mut operator).unwrap()
    });
    let mut expected = vec![
        format!("exec: {}", program()),
        format!("file_read: {data}/a"),
        format!("file_read: {data}/b"),
        format!("file_write: {data}/out"),
    ];
    expected.sort();
    assert_eq!(sorted(&lesson.capabilities), expected, "{lesson:#?}");
    assert!(lesson.passed && lesson.is_minimised && lesson.cut == 0, "{lesson:#?}");
    // What the programs of this machine look for and do without varies.
    let secrets = lesson.denied.iter().filter(|denied| denied.why.contains("looks like a secret"));
    let secrets: Vec<String> = secrets.map(|denied| denied.capability.to_string()).collect();
    assert_eq!(secrets, ["file_read: /etc/shadow"]);

    let output = place.run(&lesson.capabilities);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for left_out in &lesson.capabilities {
        let rest = lesson.capabilities.iter().filter(|other| *other != left_out).cloned();
        let output = place.run(&CapabilitySet::try_from_iter(rest).unwrap());
        assert!(!output.status.success(), "it passes without {left_out}");
    }
    assert_eq!(fs::read_dir(place.path("runs")).unwrap().count(), 1 + lesson.capabilities.len());
}

#[test]
fn secrets_links_and_directories_are_not_granted_by_yes() {
    let script = "read x < /etc/shadow || no=1\nread x < $1/link || no=1\nread x < $1/.ssh/id || no=1\necho y > $1/new || no=1\nfor f in $1/*; do [ -e $f ] && echo $f; done\nexit 3\n";
    let place = Place::new(script);
    symlink("/etc/hostname", place.path("data/link")).unwrap();
    place.write(".ssh/id");
    let lesson = place.learn(&settings());
    assert!(lesson.capabilities.is_empty(), "{:?}", lesson.capabilities);
    assert_eq!(lesson.ending, Some(Ending::Status(3)));
    let data = place.data();
    let denied: Vec<String> = lesson.denied.iter().map(|denied| denied.capability.to_string()).collect();
    assert_eq!(denied, ["file_read: /etc/shadow".to_owned(), format!("file_read: {data}/.ssh/id")]);
    assert!(lesson.denied.iter().all(|denied| denied.why.contains("looks like a secret")));
    assert_eq!(lesson.refused[0].what, format!("file_read: {data}/link"));
    assert!(lesson.refused[0].why.contains("/etc/hostname"), "{}", lesson.refused[0].why);
    let suggested: Vec<String> = lesson.suggestions.iter().map(|one| one.capability.to_string()).collect();
    assert!(suggested.contains(&format!("file_write: {data}/**")), "{suggested:?}");
    assert!(lesson.suggestions[0].files >= 4, "{:?}", lesson.suggestions);
}

#[test]
fn hooks_sockets_and_pipes_are_not_granted_by_yes() {
    let script = "( echo x >> $1/out ) || no=1\n( read x < $1/pipe ) || no=1\n[ -e $1/socket ] || no=1\nread x < $1/a\nexit 3\n";
    let place = Place::new(script);
    let (pipe, socket) = (place.path("data/pipe"), place.path("data/socket"));
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &pipe,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o666),
        0,
    )
    .unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let lesson = place.learn(&settings());
    let data = place.data();
    assert_eq!(sorted(&lesson.capabilities), [format!("file_read: {data}/a")], "{lesson:#?}");
    let denied = &lesson.denied[0];
    assert_eq!(denied.capability.to_string(), format!("file_write: {data}/out"));
    assert!(denied.why.contains("it writes a file"), "{denied:?}");
    let mut refused: Vec<&str> = lesson.refused.iter().map(|refused| refused.what.as_str()).collect();
    refused.retain(|what| what.contains(&data));
    refused.sort_unstable();
    assert_eq!(refused, [format!("file_read: {data}/pipe"), format!("file_read: {data}/socket")]);
    assert_eq!(fs::read_to_string(place.path("data/out")).unwrap(), "data\n");
}

#[test]
fn ports_and_connections() {
    let Some(python) = ["/usr/bin/python3"].into_iter().find(|path| Path::new(path).exists()) else {
        panic!("python3 is missing");
    };
    let script = format!(
        "exec {python} -I -c \"\nimport socket\ns = socket.socket(); s.bind(('127.0.0.1', 8080))\nu = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\nu.bind(('127.0.0.1', 5353))\nfor a in [('192.0.2.1', 443), ('192.0.2.1', 53)]:\n    try: socket.socket().connect(a)\n    except OSError: pass\n\"\n"
    );
    let place = Place::new(&script);
    let lesson = place.learn(&settings());
    assert_eq!(
        sorted(&lesson.capabilities),
        [format!("exec: {python}"), "listen: 8080".to_owned()],
        "{lesson:#?}"
    );
    let refused: Vec<&str> = lesson.refused.iter().map(|refused| refused.what.as_str()).collect();
    assert!(
        refused.contains(&"net: 192.0.2.1:443") && refused.contains(&"net: names, of 192.0.2.1:53"),
        "{refused:?}"
    );
    assert!(place.run(&lesson.capabilities).status.success());
}

/// An agent under recording sees and may exactly what it does and may without.
#[test]
fn recording_gives_nothing() {
    let script = "\
        for f in /proc/self/fd/*; do echo ${f##*/}; done\n\
        for f in $1/a /etc/shadow /usr/bin/id /proc/1/root/etc/passwd /proc/1/environ; do\n\
            if ( read x < $f ) 2> /dev/null; then echo read $f; else echo no $f; fi\n\
        done\n\
        ( echo x > /usr/x ) 2> /dev/null || echo no write\n\
        /usr/bin/id 2> /dev/null || echo no exec\n\
        while read key value; do case $key in Cap*|NoNewPrivs:|Seccomp:) echo $key $value;; esac; done < /proc/self/status\n\
        while read line; do echo $line > /workspace/status; done < /proc/self/mountinfo\n";
    let place = Place::new(script);
    let none = CapabilitySet::new();
    let plain = place.run(&none);
    let said = String::from_utf8(plain.stdout.clone()).unwrap();
    assert!(
        said.contains("no /etc/shadow\n") && said.contains("no write\n") && said.contains("no exec\n"),
        "{said}"
    );
    assert!(said.contains("Seccomp: 2\n") && !said.contains("\nread "), "{said}");

    let (ours, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
    let mut command = place.command(&none);
    command.args(["--record-socket", "9"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.fd_mappings(vec![FdMapping { parent_fd: theirs, child_fd: 9 }]).unwrap();
    let child = command.spawn().unwrap();
    drop(command);
    let listener = listener(&ours);
    let answers = std::thread::spawn(move || answer_all(&listener));
    let recorded = child.wait_with_output().unwrap();
    assert!(answers.join().unwrap() > 20);
    assert_eq!(String::from_utf8(recorded.stdout).unwrap(), said);
    assert_eq!(recorded.status.code(), plain.status.code());
}

/// The listener that the launcher passes out.
fn listener(socket: &OwnedFd) -> OwnedFd {
    let mut space = [MaybeUninit::uninit(); 64];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    recvmsg(socket, &mut [IoSliceMut::new(&mut [0])], &mut ancillary, RecvFlags::CMSG_CLOEXEC).unwrap();
    let mut messages = ancillary.drain();
    let Some(RecvAncillaryMessage::ScmRights(mut descriptors)) = messages.next() else {
        panic!("no descriptor")
    };
    descriptors.next().unwrap()
}

/// Lets every call go on until nobody calls any more; how many there were.
fn answer_all(listener: &OwnedFd) -> usize {
    use rustix::event::{PollFd, PollFlags, poll};
    let mut count = 0;
    loop {
        let mut waited = [PollFd::new(listener, PollFlags::IN)];
        poll(&mut waited, None).unwrap();
        if !waited[0].revents().contains(PollFlags::IN) {
            return count;
        }
        if let Some(call) = aos_sys::notify::receive(listener).unwrap() {
            aos_sys::notify::let_go_on(listener, call.id).unwrap();
            count += 1;
        }
    }
}

/// Without a recorder the agent neither hangs nor is free: what is asked about fails.
#[test]
fn a_recorder_that_dies_ends_the_agent() {
    let place = Place::new("echo free\n");
    let (ours, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
    let mut command = place.command(&CapabilitySet::new());
    command.args(["--record-socket", "9"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.fd_mappings(vec![FdMapping { parent_fd: theirs, child_fd: 9 }]).unwrap();
    let child = command.spawn().unwrap();
    drop(command);
    drop(listener(&ours));
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(203), b"".as_slice()));
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot execute"), "{output:?}");
}

#[test]
fn endless_agents_end_with_all_that_they_started() {
    let place = Place::new("for i in 1 2 3 4 5; do ( while :; do [ -e $1/a ]; done ) & done\nwait\n");
    let started = Instant::now();
    let ran = place.record(&CapabilitySet::new(), Duration::from_secs(2));
    assert_eq!(ran.ending, Ending::Timeout);
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
    let mark = place.data();
    let left = fs::read_dir("/proc").unwrap().flatten().filter(|entry| {
        fs::read(entry.path().join("cmdline"))
            .is_ok_and(|line| String::from_utf8_lossy(&line).contains(&mark))
    });
    assert_eq!(left.count(), 0);
}

#[test]
fn a_flood_is_counted_and_cut() {
    let place = Place::new(
        "i=0\nwhile [ $i -lt 1100 ]; do read x < $1/many/$i || no=1; i=$((i+1)); done 2> /dev/null\n",
    );
    for number in 0..1100 {
        place.write(&format!("many/{number}"));
    }
    let ran = place.record(&CapabilitySet::new(), Duration::from_secs(60));
    assert_eq!(ran.ending, Ending::Status(0));
    assert_eq!((ran.record.needs().len(), ran.record.cut), (aos_learn::NEEDS_MAX, 100));
}

/// Root's run of these tests has one as somebody else, who is the agent's user then.
#[test]
fn so_it_is_without_privilege() {
    use std::os::unix::process::CommandExt;
    if !is_root() {
        return;
    }
    let directory = tempfile::Builder::new().prefix("aos-learn-user-").tempdir_in("/srv").unwrap();
    chown(directory.path(), Some(UID), Some(UID)).unwrap();
    let (tests, launch) = (directory.path().join("tests"), directory.path().join("aos-launch"));
    fs::copy(std::env::current_exe().unwrap(), &tests).unwrap();
    fs::copy(launcher(), &launch).unwrap();
    let mut command = Command::new(&tests);
    command.args(["--test-threads", "1", "exactly_", "recording_", "secrets_", "ports_", "a_recorder_"]);
    command.env("AOS_LAUNCH", &launch).env(SCRATCH, directory.path()).current_dir("/").uid(UID).gid(UID);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("5 passed"), "{said}");
}
