//! Operations on workspaces: when they are refused, what `aos-workspace` is given, and that its answer is handed on.

use std::io::Read as _;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use aos_client::ErrorKind;
use aos_core::capability::CapabilitySet;
use aos_core::id::AgentId;
use aos_core::workspace::{Below, Operation, Request};
use aos_sandbox::plan::{Node, SandboxPlan};
use tokio::sync::oneshot;

use super::{Daemon, Inner, World, ended, id};
use crate::agent::Answered;
use crate::change::{Apply, Change};
use crate::db::{Db, DbError, Removal};
use crate::failure::Failure;
use crate::systemd::{Job, JobResult, SystemdError};

/// What the fake `aos-workspace@ID.service` does.
#[derive(Debug, Default)]
pub(crate) struct Work {
    /// The state folder and the reports' folder; without them every job fails.
    places: Option<(PathBuf, PathBuf)>,
    /// What it answers; without one it fails.
    answer: Option<String>,
    /// It goes on until this is used.
    hangs: bool,
    hanging: Option<oneshot::Sender<JobResult>>,
    /// It fails at this, with words.
    refuses: Option<fn(&Operation) -> bool>,
    /// What was asked, and whether there was a plan by which somebody could have started the agent.
    requests: Vec<(Request, bool)>,
    /// The note about the limit on the disk that was there.
    pub(super) note: Option<String>,
}

impl Inner {
    pub(super) fn work_on_workspace(&mut self, id: &AgentId) -> Result<Job, SystemdError> {
        self.call("workspace");
        let Some((state, reports)) = &self.work.places else { return Ok(ended(JobResult::Failed)) };
        let request = std::fs::read(state.join("agents").join(id.as_str()).join("workspace.json")).unwrap();
        let request: Request = serde_json::from_slice(&request).unwrap();
        let answer = reports.join(id.as_str()).join(format!("answer-{}.json", request.token));
        let is_refused = self.work.refuses.is_some_and(|refuses| refuses(&request.operation));
        self.work.note = std::fs::read_to_string(state.join("quotas").join(id.as_str())).ok();
        let has_plan = state.join("agents").join(id.as_str()).join("plan.json").exists();
        self.work.requests.push((request, has_plan));
        if self.work.answer.is_some() && answer.exists() {
            // A new file, as the program makes one: somebody may hold the old one.
            std::fs::remove_file(&answer).unwrap();
        }
        if is_refused {
            std::fs::create_dir_all(answer.parent().unwrap()).unwrap();
            std::fs::write(&answer, r#"{"failed":{"message":"no room"}}"#).unwrap();
            return Ok(ended(JobResult::Failed));
        }
        if let Some(text) = &self.work.answer {
            std::fs::create_dir_all(answer.parent().unwrap()).unwrap();
            std::fs::write(&answer, text).unwrap();
        }
        if self.work.hangs {
            let (sender, end) = oneshot::channel();
            self.work.hanging = Some(sender);
            return Ok(Job { end });
        }
        Ok(ended(if self.work.answer.is_some() { JobResult::Done } else { JobResult::Failed }))
    }
}

const SNAPSHOT: &str = r#"{"snapshot":{"newest":2,"made":true}}"#;

impl World {
    fn work(&self, change: impl FnOnce(&mut Work)) {
        let mut inner = self.systemd.inner();
        inner.work.places = Some((self.path("state"), self.path("reports")));
        change(&mut inner.work);
    }

    pub(super) fn answers(&self, text: &str) {
        self.work(|work| work.answer = Some(text.to_owned()));
    }

    fn request(&self) -> Request {
        self.systemd.inner().work.requests.last().unwrap().0.clone()
    }

    /// What was asked since the last time, and whether the agent could have been started meanwhile.
    pub(super) fn steps(&self) -> Vec<(Operation, bool)> {
        let requests = std::mem::take(&mut self.systemd.inner().work.requests);
        requests.into_iter().map(|(request, has_plan)| (request.operation, has_plan)).collect()
    }

    /// What fails from now on.
    pub(super) fn refuses(&self, refuses: Option<fn(&Operation) -> bool>) {
        self.work(|work| work.refuses = refuses);
    }

    fn plan(&self, agent: &str) -> (Vec<String>, String) {
        let plan = std::fs::read(self.path("state/agents").join(agent).join("plan.json")).unwrap();
        let plan = SandboxPlan::parse(&plan).unwrap();
        let found = plan.tree.into_iter().find_map(|entry| match entry.node {
            Node::Transaction { lower, changes } if entry.path.as_str() == "/workspace" => {
                Some((lower.iter().map(ToString::to_string).collect(), changes.to_string()))
            }
            _ => None,
        });
        found.unwrap()
    }
}

impl Daemon {
    async fn work(&self, agent: &str, operation: Operation) -> Result<Answered, Failure> {
        self.service.workspace(&id(agent), operation).await
    }

    async fn stopped(&self, agent: &str) {
        self.run(agent, "layered").await.unwrap();
        self.service.stop(&id(agent)).await.unwrap();
    }
}

fn commit() -> Operation {
    Operation::Commit { paths: Vec::new() }
}

fn diff() -> Operation {
    Operation::Diff { patch: false }
}

fn text(answered: Answered) -> String {
    read(answered.file)
}

pub(super) fn read(file: std::os::fd::OwnedFd) -> String {
    let mut text = String::new();
    std::fs::File::from(file).read_to_string(&mut text).unwrap();
    text
}

#[tokio::test]
async fn the_plan_keeps_changes_apart() {
    let world = World::new();
    let daemon = world.daemon().await;
    daemon.run("a", "layered").await.unwrap();
    let (lower, changes) = world.plan("a");
    assert_eq!(lower, [world.path("workspaces/a").display().to_string()]);
    assert_eq!(changes, world.path("changes/a").display().to_string());
    assert_eq!(daemon.service.agent(&id("a")).await.unwrap().workspace.unwrap(), "transactional");
    daemon.service.remove(&id("a"), Removal::DeleteWorkspace).await.unwrap();
    daemon.run("a", "once").await.unwrap();
    assert_eq!(daemon.service.agent(&id("a")).await.unwrap().workspace.unwrap(), "persistent");
}

#[tokio::test]
async fn what_changes_layers_is_refused_while_the_agent_runs() {
    let world = World::new();
    let daemon = world.daemon().await;
    world.answers("words of an agent");
    daemon.run("a", "layered").await.unwrap();
    world.systemd.calls();
    let snapshot = Operation::Snapshot { name: None, at_us: 0 };
    for operation in [commit(), Operation::Discard { to: None }, snapshot] {
        let failure = daemon.work("a", operation).await.unwrap_err();
        assert_eq!(failure.kind(), ErrorKind::Refused);
        assert!(failure.message().contains("aos stop a"), "{failure}");
    }
    assert!(world.systemd.calls().is_empty());
    let answered = daemon.work("a", diff()).await.unwrap();
    assert!(answered.done);
    assert_eq!(text(answered), "words of an agent");
    daemon.service.stop(&id("a")).await.unwrap();
    assert!(daemon.work("a", commit()).await.unwrap().done);
    let request = world.request();
    assert_eq!((request.operation, request.below), (commit(), Below::Own));
    assert_eq!(request.reader_uid, rustix::process::geteuid().as_raw());
    assert!(!world.path("state/agents/a/workspace.json").exists(), "a request is done once");
}

#[tokio::test]
async fn other_agents_have_nothing_to_commit() {
    let world = World::new();
    let daemon = world.daemon().await;
    daemon.run("a", "once").await.unwrap();
    let failure = daemon.work("a", diff()).await.unwrap_err();
    assert!(failure.message().contains("run.workspace: transactional"), "{failure}");
    assert_eq!(daemon.work("b", diff()).await.unwrap_err().kind(), ErrorKind::NotFound);
    let failure = daemon.service.fork(&id("a"), 1, "b").await.unwrap_err();
    assert!(failure.message().contains("transactional"), "{failure}");
}

#[tokio::test]
async fn a_failure_is_told_with_its_answer_or_without() {
    let world = World::new();
    let daemon = world.daemon().await;
    daemon.stopped("a").await;
    world.work(|_| {});
    let failure = daemon.work("a", commit()).await.unwrap_err();
    assert!(failure.message().contains("journalctl -u aos-workspace@a.service"), "{failure}");
    // A link in the answer's place is not opened.
    std::fs::write(world.path("secret"), "secret").unwrap();
    world.work(|work| work.hangs = true);
    let answer = world.path("reports/a").join(format!("answer-{:x}.json", 1_000_000_000_000_u64));
    std::fs::create_dir_all(answer.parent().unwrap()).unwrap();
    symlink(world.path("secret"), &answer).unwrap();
    let (result, ()) = tokio::join!(daemon.work("a", diff()), end(&world, JobResult::Done));
    assert_eq!(result.unwrap_err().kind(), ErrorKind::Failed);
    std::fs::remove_file(&answer).unwrap();
    world.answers(r#"{"failed":{"message":"no"}}"#);
    let (result, ()) = tokio::join!(daemon.work("a", diff()), end(&world, JobResult::Failed));
    let answered = result.unwrap();
    assert!(!answered.done && text(answered).contains("no"));
}

#[tokio::test]
async fn what_was_cut_short_is_ended_before_the_next_start() {
    let world = World::new();
    let daemon = world.daemon().await;
    daemon.stopped("a").await;
    world.work(|_| {});
    daemon.work("a", commit()).await.unwrap_err();
    // Neither the one who asked nor a crash of the supervisor ends it.
    daemon.crash().await;
    let daemon = world.daemon().await;
    let failure = daemon.service.start(&id("a")).await.unwrap_err();
    assert!(failure.message().contains("cannot be ended"), "{failure}");
    world.answers("x");
    world.systemd.calls();
    daemon.service.start(&id("a")).await.unwrap();
    assert_eq!(world.request().operation, Operation::Snapshots);
    let calls = world.systemd.calls();
    let at = |call: &str| calls.iter().position(|made| made == call).unwrap();
    assert!(at("workspace") < at("start"), "{calls:?}");
    assert!(!world.path("state/agents/a/workspace.json").exists());
    daemon.service.restart(&id("a")).await.unwrap();
    assert!(!world.systemd.calls().contains(&"workspace".to_owned()), "only once");
}

/// Ends the job that hangs, once it does.
async fn end(world: &World, result: JobResult) {
    loop {
        let hanging = world.systemd.inner().work.hanging.take();
        if let Some(hanging) = hanging {
            return hanging.send(result).unwrap();
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn nothing_starts_or_goes_while_layers_change() {
    let world = World::new();
    let daemon = world.daemon().await;
    daemon.stopped("a").await;
    world.work(|work| {
        work.hangs = true;
        work.answer = Some("x".to_owned());
    });
    let during = async {
        while world.systemd.inner().work.hanging.is_none() {
            tokio::task::yield_now().await;
        }
        assert_eq!(daemon.service.start(&id("a")).await.unwrap_err().kind(), ErrorKind::Busy);
        assert_eq!(daemon.run("a", "layered").await.unwrap_err().kind(), ErrorKind::Busy);
        assert_eq!(daemon.work("a", diff()).await.unwrap_err().kind(), ErrorKind::Busy);
        let removed = daemon.service.remove(&id("a"), Removal::DeleteWorkspace).await;
        assert_eq!(removed.unwrap_err().kind(), ErrorKind::Busy);
        end(&world, JobResult::Done).await;
    };
    let (result, ()) = tokio::join!(daemon.work("a", commit()), during);
    assert!(result.unwrap().done);
    daemon.service.start(&id("a")).await.unwrap();
}

#[tokio::test]
async fn forks_share_frozen_layers_and_hold_them() {
    let world = World { max_agents: 100, ..World::new() };
    let daemon = world.daemon().await;
    daemon.stopped("a").await;
    world.answers(SNAPSHOT);
    let ids = daemon.service.fork(&id("a"), 3, "f").await.unwrap();
    assert_eq!(ids, [id("f-1"), id("f-2"), id("f-3")]);
    let request = world.request();
    assert!(matches!(request.operation, Operation::Snapshot { .. }));
    daemon.service.start(&id("f-2")).await.unwrap();
    let (lower, changes) = world.plan("f-2");
    let path = |name: &str| world.path(name).display().to_string();
    assert_eq!(
        lower,
        [path("changes/a/snapshots/0002"), path("changes/a/snapshots/0001"), path("workspaces/a")]
    );
    assert_eq!(changes, path("changes/f-2"));
    daemon.service.stop(&id("f-2")).await.unwrap();
    // The parent's layers stay, whoever asks.
    for operation in [commit(), Operation::Discard { to: None }, Operation::Discard { to: Some(1) }] {
        let failure = daemon.work("a", operation).await.unwrap_err();
        assert!(failure.message().contains("f-1, f-2, f-3"), "{failure}");
    }
    assert!(daemon.work("a", Operation::Discard { to: Some(2) }).await.unwrap().done);
    let removed = daemon.service.remove(&id("a"), Removal::DeleteWorkspace).await.unwrap_err();
    assert!(removed.message().contains("f-1, f-2, f-3"), "{removed}");
    let failure = daemon.work("f-1", commit()).await.unwrap_err();
    assert!(failure.message().contains("is a fork"), "{failure}");
    assert_eq!(daemon.work("f-1", diff()).await.map(|answered| answered.done), Ok(true));
    assert_eq!(world.request().below, Below::Shared);
    assert_eq!(daemon.run("f-1", "once").await.unwrap_err().kind(), ErrorKind::Refused);
    for fork in ids {
        daemon.service.remove(&fork, Removal::DeleteWorkspace).await.unwrap();
    }
    assert!(daemon.work("a", commit()).await.unwrap().done);
}

#[tokio::test]
async fn forks_that_cannot_be_made_leave_nothing() {
    let world = World { max_agents: 100, ..World::new() };
    let daemon = world.daemon().await;
    daemon.stopped("a").await;
    world.answers(SNAPSHOT);
    for (count, prefix) in [(0, "f"), (100_000, "f"), (1, "F"), (1, ""), (1, &*"f".repeat(27)), (500, "f")] {
        assert!(daemon.service.fork(&id("a"), count, prefix).await.is_err(), "{count} {prefix}");
    }
    daemon.stopped("f-1").await;
    let failure = daemon.service.fork(&id("a"), 2, "f").await.unwrap_err();
    assert!(failure.message().contains("f-1 is there already"), "{failure}");
    let more_than_there_can_be = r#"{"snapshot":{"newest":101,"made":true}}"#;
    let negative = r#"{"snapshot":{"newest":-1,"made":true}}"#;
    for answer in ["", "{}", negative, more_than_there_can_be, &"x".repeat(1 << 20)] {
        world.answers(answer);
        let failure = daemon.service.fork(&id("a"), 2, "g").await.unwrap_err();
        assert!(failure.message().contains("cannot be frozen"), "{failure}");
    }
    assert!(std::fs::read_dir(world.path("state/forks")).unwrap().next().is_none());
    // A crash between the note and the agent.
    std::fs::write(world.path("state/forks/g-1"), "a 1\n").unwrap();
    daemon.crash().await;
    let daemon = world.daemon().await;
    assert!(!world.path("state/forks/g-1").exists());
    world.answers("x");
    assert!(daemon.work("a", commit()).await.unwrap().done);
}

#[tokio::test]
async fn forks_are_there_after_a_crash() {
    let world = World { max_agents: 100, ..World::new() };
    let daemon = world.daemon().await;
    daemon.stopped("a").await;
    world.answers(SNAPSHOT);
    daemon.service.fork(&id("a"), 8, "f").await.unwrap();
    daemon.crash().await;
    let daemon = world.daemon().await;
    assert_eq!(daemon.service.agents().await.len(), 9);
    daemon.service.start(&id("f-8")).await.unwrap();
}

/// Waits for the job that hangs.
async fn hung(world: &World) {
    while world.systemd.inner().work.hanging.is_none() {
        tokio::task::yield_now().await;
    }
}

fn notes(world: &World) -> usize {
    std::fs::read_dir(world.path("state/forks")).unwrap().count()
}

#[tokio::test]
async fn ids_are_kept_while_forks_are_made() {
    let world = World { max_agents: 3, ..World::new() };
    let agent = id("a");
    let daemon = world.daemon().await;
    daemon.stopped("a").await;
    world.work(|work| {
        work.hangs = true;
        work.answer = Some(SNAPSHOT.to_owned());
    });
    let during = async {
        hung(&world).await;
        let failure = daemon.run("f-2", "once").await.unwrap_err();
        assert_eq!(failure.kind(), ErrorKind::Busy, "{failure}");
        let failure = daemon.run("x", "once").await.unwrap_err();
        assert!(failure.message().contains("max_agents"), "they count: {failure}");
        let failure = daemon.service.fork(&id("a"), 1, "g").await.unwrap_err();
        assert!(failure.message().contains("other forks"), "{failure}");
        end(&world, JobResult::Done).await;
    };
    let (forks, ()) = tokio::join!(daemon.service.fork(&agent, 2, "f"), during);
    assert_eq!(forks.unwrap().len(), 2);
    daemon.service.remove(&id("f-2"), Removal::DeleteWorkspace).await.unwrap();
    world.work(|work| work.hangs = false);
    daemon.service.fork(&id("a"), 1, "g").await.unwrap();
}

#[tokio::test]
async fn what_is_revoked_meanwhile_no_fork_has() {
    let world = World { max_agents: 9, ..World::new() };
    let daemon = world.daemon().await;
    daemon.stopped("a").await;
    let agent = id("a");
    let line = CapabilitySet::parse(["file_read: /srv/**"]).unwrap();
    let change = |change| daemon.service.change(&agent, change, Apply::NextStart);
    change(Change::Grant(line.clone())).await.unwrap();
    world.work(|work| {
        work.hangs = true;
        work.answer = Some(SNAPSHOT.to_owned());
    });
    let during = async {
        hung(&world).await;
        change(Change::Revoke(line)).await.unwrap();
        end(&world, JobResult::Done).await;
    };
    let (forks, ()) = tokio::join!(daemon.service.fork(&agent, 2, "f"), during);
    let failure = forks.unwrap_err();
    assert!(failure.message().contains("was changed"), "{failure}");
    assert_eq!((notes(&world), daemon.service.agents().await.len()), (0, 1));
    world.work(|work| work.hangs = false);
    daemon.service.fork(&id("a"), 2, "f").await.unwrap();
    assert!(daemon.service.capabilities(&id("f-1")).unwrap().is_empty());
}

#[tokio::test]
async fn what_is_left_of_others_is_not_taken_over() {
    let world = World { max_agents: 9, ..World::new() };
    let daemon = world.daemon().await;
    daemon.stopped("a").await;
    world.answers(SNAPSHOT);
    std::fs::create_dir_all(world.path("changes/f-2")).unwrap();
    let failure = daemon.service.fork(&id("a"), 3, "f").await.unwrap_err();
    assert!(failure.message().contains("changes/f-2 is left"), "{failure}");
    std::fs::create_dir_all(world.path("state/forks")).unwrap();
    std::fs::write(world.path("state/forks/g-1"), "a 1\n").unwrap();
    for failure in [
        daemon.service.fork(&id("a"), 3, "g").await.unwrap_err(),
        daemon.run("g-1", "layered").await.unwrap_err(),
    ] {
        assert!(failure.message().contains("g-1 is noted as a fork"), "{failure}");
    }
    assert_eq!(daemon.service.agents().await.len(), 1);
    daemon.crash().await;
    let daemon = world.daemon().await;
    daemon.run("g-1", "layered").await.unwrap();
}

#[tokio::test]
async fn the_note_of_a_damaged_record_stays() {
    let world = World { max_agents: 9, ..World::new() };
    let daemon = world.daemon().await;
    daemon.stopped("a").await;
    world.answers(SNAPSHOT);
    daemon.service.fork(&id("a"), 2, "f").await.unwrap();
    daemon.crash().await;
    // Tasks that still run have the state locked.
    let lock = loop {
        match Db::open(&world.path("state")) {
            Err(DbError::Locked(_)) => tokio::task::yield_now().await,
            other => break other.unwrap(),
        }
    };
    let database = rusqlite::Connection::open(world.path("state/state.sqlite")).unwrap();
    database.execute("UPDATE agents SET digest = 'x' WHERE id = 'f-2'", []).unwrap();
    drop((database, lock));
    let daemon = world.daemon().await;
    assert_eq!((daemon.service.agents().await.len(), notes(&world)), (2, 2));
    let failure = daemon.work("a", commit()).await.unwrap_err();
    assert!(failure.message().contains("f-1, f-2"), "{failure}");
    // Without its note it still is nobody else's id, and a fork that fails late leaves nothing.
    daemon.service.remove(&id("f-1"), Removal::DeleteWorkspace).await.unwrap();
    std::fs::remove_file(world.path("state/forks/f-2")).unwrap();
    let failure = daemon.service.fork(&id("a"), 3, "f").await.unwrap_err();
    assert!(failure.message().contains("record is damaged"), "{failure}");
    assert_eq!((daemon.service.agents().await.len(), notes(&world)), (1, 0));
}

#[tokio::test]
async fn one_user_has_one_package() {
    let world = World { max_agents: 9, ..World::new() };
    let rootfs = world.path("rootfs").display().to_string();
    let other = r#"{"capabilities":[],"limits":{},"name":"other","root":"host","run":{"entrypoint":["/app/x"],"lifecycle":"oneshot","workdir":"/workspace","workspace":"transactional"},"version":"1.0.0"}"#;
    world.packages.packages.lock().unwrap().push(super::package(&rootfs, 9, other));
    let daemon = world.daemon().await;
    daemon.stopped("a").await;
    world.answers(SNAPSHOT);
    daemon.service.fork(&id("a"), 1, "f").await.unwrap();
    for (agent, why) in [("f-1", "is a fork of a"), ("a", "has the fork f-1")] {
        let failure = daemon.run(agent, "other").await.unwrap_err();
        assert!(failure.message().contains(why), "{failure}");
    }
    daemon.stopped("f-1").await;
    daemon.service.remove(&id("f-1"), Removal::DeleteWorkspace).await.unwrap();
    daemon.run("a", "other").await.unwrap();
}

/// The figure of `tests/bench/forks`; the bound is for a machine that does much else.
#[tokio::test]
async fn a_thousand_forks_take_a_moment() {
    let world = World { max_agents: 2000, ..World::new() };
    let daemon = world.daemon().await;
    daemon.stopped("a").await;
    world.answers(SNAPSHOT);
    let begun = std::time::Instant::now();
    let forks = daemon.service.fork(&id("a"), 1000, "f").await.unwrap();
    let took = begun.elapsed();
    println!("1,000 forks noted, stored and listed: {} ms", took.as_millis());
    assert_eq!(forks.len(), 1000);
    assert!(took < super::PATIENCE / 4, "{took:?}");
}
