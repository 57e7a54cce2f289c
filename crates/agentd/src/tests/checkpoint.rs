//! Checkpoints: what is kept of an agent, what comes back, and what a crash, a refusal or a full disk leaves.

use aos_client::ErrorKind;
use aos_core::capability::CapabilitySet;
use aos_core::workspace::{CheckpointStep, Operation};

use super::workspace::read;
use super::{Daemon, PATIENCE, World, id};
use crate::agent::Checkpointed;
use crate::change::{Apply, Change};
use crate::checkpoint::{Extent, Which};
use crate::db::{Cause, Removal};
use crate::failure::Failure;
use crate::packages::Collect;
use crate::service::RunRequest;
use crate::systemd::{Freezer, Phase};

const SAVED: &str = r#"{"saved":{"entries":1,"bytes":2}}"#;

impl Daemon {
    async fn keep(&self, name: Option<&str>) -> Result<Checkpointed, Failure> {
        self.service.checkpoint(&id("a"), name.map(str::to_owned), Extent::Files).await
    }

    async fn bring_back(&self, which: Which) -> Result<Checkpointed, Failure> {
        self.service.restore(&id("a"), which, false).await
    }

    fn numbers(&self) -> Vec<(u32, Cause)> {
        let kept = self.service.registry().get(&id("a")).unwrap().kept();
        kept.checkpoints.iter().map(|one| (one.number, one.cause)).collect()
    }

    /// Runs `package` with one argument, and stops it.
    async fn ran(&self, package: &str, argument: &str) {
        let request = RunRequest { arguments: vec![argument.to_owned()], ..RunRequest::default() };
        self.service.run(&id("a"), &package.parse().unwrap(), request).await.unwrap();
        self.service.stop(&id("a")).await.unwrap();
    }

    fn arguments(&self) -> Vec<String> {
        self.service.registry().get(&id("a")).unwrap().record().unwrap().spec.arguments
    }
}

fn step(operation: &Operation) -> &'static str {
    match operation {
        Operation::Checkpoint(CheckpointStep::Save { .. }) => "save",
        Operation::Checkpoint(CheckpointStep::Stage { .. }) => "stage",
        Operation::Checkpoint(CheckpointStep::Swap) => "swap",
        Operation::Checkpoint(CheckpointStep::Prune { .. }) => "prune",
        _ => "other",
    }
}

/// Which steps were done, and at which of them the agent could have been started.
fn steps(world: &World) -> Vec<(&'static str, bool)> {
    world.steps().iter().map(|(operation, has_plan)| (step(operation), *has_plan)).collect()
}

fn set(line: &str) -> CapabilitySet {
    CapabilitySet::parse([line]).unwrap()
}

#[tokio::test]
async fn a_stopped_agent_is_kept_and_comes_back() {
    let world = World::new();
    let daemon = world.daemon().await;
    world.answers(SAVED);
    daemon.ran("once", "first").await;
    let made = daemon.keep(Some("before")).await.unwrap();
    assert!(made.done);
    assert_eq!((made.number, read(made.file)), (1, SAVED.to_owned()));
    daemon.ran("always", "second").await;
    daemon.service.start(&id("a")).await.unwrap();
    daemon.service.stop(&id("a")).await.unwrap();
    world.steps();
    let restored = daemon.bring_back(Which::Name("before".to_owned())).await.unwrap();
    assert!(restored.done);
    assert_eq!(restored.number, 2);
    assert_eq!(steps(&world), [("save", false), ("stage", false), ("swap", false)]);
    let view = daemon.until("a", "restored", |view| view.reference == "once:1.0.0").await;
    assert_eq!((view.state.as_str(), view.desired.as_str()), ("stopped", "stopped"));
    assert_eq!(
        (view.capabilities, daemon.arguments()),
        (vec!["file_read: /srv/**".to_owned()], vec!["first".to_owned()])
    );
    assert_eq!(daemon.numbers(), [(1, Cause::Asked), (2, Cause::Replaced)]);
    // And forth again, and the plan is the restored one's.
    assert!(daemon.bring_back(Which::Number(2)).await.unwrap().done);
    assert_eq!(daemon.arguments(), ["second"]);
    assert_eq!(daemon.bring_back(Which::Newest).await.unwrap().number, 4);
    assert_eq!(daemon.arguments(), ["first"], "the newest is not what a restore replaced");
    daemon.service.start(&id("a")).await.unwrap();
    let plan = std::fs::read_to_string(world.path("state/agents/a/plan.json")).unwrap();
    assert!(plan.contains("first"), "{plan}");
    daemon.crash().await;
    let daemon = world.daemon().await;
    assert_eq!(daemon.numbers().len(), 4);
    assert_eq!(
        daemon.service.checkpoints(None).unwrap(),
        daemon.service.checkpoints(Some(&id("a"))).unwrap()
    );
}

#[tokio::test]
async fn an_agent_that_runs_is_frozen_meanwhile_and_goes_on() {
    let world = World::new();
    let daemon = world.daemon().await;
    world.answers(SAVED);
    daemon.run("a", "once").await.unwrap();
    world.systemd.calls();
    assert!(daemon.keep(None).await.unwrap().done);
    assert_eq!(world.systemd.calls(), ["freeze", "workspace", "thaw"]);
    assert_eq!(daemon.service.agent(&id("a")).await.unwrap().state, "running");
    // Also when it comes to nothing.
    world.refuses(Some(|_| true));
    let made = daemon.keep(None).await.unwrap();
    assert!(!made.done && read(made.file).contains("no room"));
    assert_eq!(
        (daemon.numbers().len(), world.systemd.calls()),
        (1, vec!["freeze".into(), "workspace".into(), "thaw".into()])
    );
    world.refuses(None);
    // One that somebody paused stays so.
    daemon.service.pause(&id("a")).await.unwrap();
    world.systemd.calls();
    assert!(daemon.keep(None).await.unwrap().done);
    assert_eq!(world.systemd.calls(), ["workspace"]);
    assert_eq!(daemon.service.agent(&id("a")).await.unwrap().state, "paused");
    let failure = daemon.bring_back(Which::Newest).await.unwrap_err();
    assert!(failure.message().contains("aos stop a"), "{failure}");
    assert!(!world.path("state/agents/a/frozen-for-checkpoint").exists());
}

#[tokio::test]
async fn one_whose_supervisor_died_while_it_was_frozen_goes_on() {
    let world = World::new();
    let daemon = world.daemon().await;
    daemon.run("a", "once").await.unwrap();
    daemon.crash().await;
    std::fs::write(world.path("state/agents/a/frozen-for-checkpoint"), "").unwrap();
    world.systemd.freezer(Freezer::Frozen);
    let daemon = world.daemon().await;
    daemon.until_state("a", "running").await;
    assert!(!world.path("state/agents/a/frozen-for-checkpoint").exists());
    // Without the note it was paused by a person.
    daemon.crash().await;
    world.systemd.freezer(Freezer::Frozen);
    let daemon = world.daemon().await;
    daemon.until_state("a", "paused").await;
}

#[tokio::test]
async fn before_its_point_a_restore_that_fails_leaves_everything() {
    let world = World::new();
    let daemon = world.daemon().await;
    world.answers(SAVED);
    daemon.ran("once", "first").await;
    daemon.keep(None).await.unwrap();
    daemon.ran("always", "second").await;
    let before = daemon.service.agent(&id("a")).await.unwrap();
    for at in ["save", "stage"] {
        world.refuses(Some(match at {
            "save" => |operation| step(operation) == "save",
            _ => |operation| step(operation) == "stage",
        }));
        let answer = daemon.bring_back(Which::Newest).await.unwrap();
        assert!(!answer.done && read(answer.file).contains("no room"), "{at}");
        assert_eq!(
            (daemon.numbers(), daemon.arguments()),
            (vec![(1, Cause::Asked)], vec!["second".to_owned()]),
            "{at}"
        );
        daemon.until("a", "as before", |view| view.reference == before.reference).await;
        let wait = async {
            while !world.path("state/agents/a/plan.json").exists() {
                daemon.service.registry().get(&id("a")).unwrap().poke();
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.unwrap();
    }
    world.refuses(None);
    daemon.service.start(&id("a")).await.unwrap();
}

#[tokio::test]
async fn after_its_point_a_restore_is_gone_on_with() {
    let world = World::new();
    let daemon = world.daemon().await;
    world.answers(SAVED);
    daemon.ran("once", "first").await;
    daemon.keep(None).await.unwrap();
    daemon.ran("once", "second").await;
    world.refuses(Some(|operation| step(operation) == "swap"));
    let failure = daemon.bring_back(Which::Newest).await.unwrap_err();
    assert!(failure.message().contains("tried again"), "{failure}");
    // What runs would run with half of each.
    for failure in [
        daemon.service.start(&id("a")).await.unwrap_err(),
        daemon.run("a", "once").await.unwrap_err(),
        daemon.keep(None).await.unwrap_err(),
        daemon.bring_back(Which::Newest).await.unwrap_err(),
        daemon.service.enable(&id("a"), crate::agent::AtBoot::Start).await.unwrap_err(),
        daemon
            .service
            .change(&id("a"), Change::Narrow(CapabilitySet::new()), Apply::NextStart)
            .await
            .unwrap_err(),
    ] {
        assert_eq!(failure.kind(), ErrorKind::Busy, "{failure}");
    }
    assert!(!world.path("state/agents/a/plan.json").exists(), "nobody else can start it");
    daemon.crash().await;
    let daemon = world.daemon().await;
    assert_eq!(daemon.service.start(&id("a")).await.unwrap_err().kind(), ErrorKind::Busy);
    daemon.crash().await;
    world.refuses(None);
    world.steps();
    let daemon = world.daemon().await;
    daemon.until_state("a", "stopped").await;
    assert_eq!(steps(&world), [("swap", false)]);
    assert_eq!(daemon.arguments(), ["first"]);
    assert_eq!(daemon.numbers().len(), 2);
    daemon.service.start(&id("a")).await.unwrap();
    assert!(!steps(&world).contains(&("swap", false)), "once");
}

#[tokio::test]
async fn a_database_that_does_not_answer_takes_it_back() {
    let world = World { db_deadline: std::time::Duration::from_millis(300), ..World::new() };
    let daemon = world.daemon().await;
    world.answers(SAVED);
    daemon.ran("once", "first").await;
    daemon.keep(None).await.unwrap();
    daemon.ran("once", "second").await;
    let kept = daemon.service.registry().get(&id("a")).unwrap().kept();
    let record = daemon.service.registry().get(&id("a")).unwrap().record().unwrap();
    let db = &daemon.service.registry().context().db;
    let new = crate::db::AgentRecord { spec: kept.checkpoints[0].spec.clone(), ..record.clone() };
    // Both orders that the queue can have.
    let stalled = db.stall().await;
    assert!(db.begin_restore(&new, 1).await.is_err());
    assert!(db.end_restore(&record).await.is_err());
    drop(stalled);
    while db.ping().await.is_err() {}
    assert!(db.kept().await.unwrap()[&id("a")].restoring.is_none());
    let stored = db.agents().await.unwrap().remove(0).unwrap();
    assert_eq!(stored.spec.arguments, ["second"]);
}

#[tokio::test]
async fn a_package_stays_as_long_as_a_checkpoint_is_made_of_it() {
    let world = World::new();
    let daemon = world.daemon().await;
    world.answers(SAVED);
    daemon.ran("once", "x").await;
    daemon.keep(None).await.unwrap();
    daemon.ran("always", "y").await;
    let reference = "once".parse().unwrap();
    assert_eq!(daemon.service.remove_package(&reference).await.unwrap_err().kind(), ErrorKind::Refused);
    let unused = async || daemon.service.collect(Collect::DryRun).await.unwrap().packages;
    assert!(!unused().await.iter().any(|package| package.name.as_str() == "once"));
    let listed = daemon.service.list_packages().await.unwrap();
    assert_eq!(listed.iter().find(|package| package.name == "once").unwrap().agents, ["a"]);
    daemon.service.remove_checkpoints(&id("a"), vec![Which::Number(1)]).await.unwrap();
    assert!(unused().await.iter().any(|package| package.name.as_str() == "once"));
    daemon.service.remove_package(&reference).await.unwrap();
}

#[tokio::test]
async fn what_was_taken_away_comes_back_with_the_right_to_grant_only() {
    let world = World::new();
    let daemon = world.daemon().await;
    let agent = id("a");
    world.answers(SAVED);
    daemon.ran("once", "x").await;
    let change = |change| daemon.service.change(&agent, change, Apply::NextStart);
    change(Change::Grant(set("file_read: /opt/**"))).await.unwrap();
    daemon.keep(Some("granted")).await.unwrap();
    let which = || Which::Name("granted".to_owned());
    assert!(!daemon.service.restore_grants(&agent, &which()).await.unwrap(), "it has it still");
    change(Change::Revoke(set("file_read: /opt/**"))).await.unwrap();
    assert!(daemon.service.restore_grants(&agent, &which()).await.unwrap());
    let failure = daemon.bring_back(which()).await.unwrap_err();
    assert!(failure.message().contains("org.aos.agentd1.grant"), "{failure}");
    // What the package declares, a new run has as well.
    change(Change::Revoke(set("file_read: /srv/**"))).await.unwrap();
    daemon.keep(Some("less")).await.unwrap();
    assert!(!daemon.service.restore_grants(&agent, &Which::Name("less".to_owned())).await.unwrap());
    assert!(daemon.service.restore(&agent, which(), true).await.unwrap().done);
    let capabilities = daemon.service.capabilities(&agent).unwrap();
    assert_eq!(capabilities.len(), 2);
    assert!(capabilities.iter().any(|one| one.origin.as_deref() == Some("granted")), "{capabilities:?}");
}

#[tokio::test]
async fn they_are_bounded_and_named_once() {
    let world = World { max_checkpoints: 2, ..World::new() };
    let daemon = world.daemon().await;
    world.answers(SAVED);
    daemon.ran("once", "x").await;
    daemon.keep(Some("one")).await.unwrap();
    assert!(daemon.keep(Some("one")).await.unwrap_err().message().contains("already"));
    daemon.keep(None).await.unwrap();
    for failure in [daemon.keep(None).await.unwrap_err(), daemon.bring_back(Which::Newest).await.unwrap_err()]
    {
        assert!(failure.message().contains("max_checkpoints"), "{failure}");
    }
    for which in [Which::Number(7), Which::Name("two".to_owned())] {
        assert_eq!(daemon.bring_back(which.clone()).await.unwrap_err().kind(), ErrorKind::NotFound);
        let both = vec![Which::Number(1), which];
        assert_eq!(
            daemon.service.remove_checkpoints(&id("a"), both).await.unwrap_err().kind(),
            ErrorKind::NotFound
        );
    }
    assert_eq!(daemon.numbers().len(), 2, "all or none");
    world.steps();
    daemon.service.remove_checkpoints(&id("a"), vec![Which::Number(1)]).await.unwrap();
    let kept = world.steps();
    assert!(
        matches!(&kept[..], [(Operation::Checkpoint(CheckpointStep::Prune { keep }), _)] if *keep == [2]),
        "{kept:?}"
    );
    assert_eq!(daemon.keep(Some("one")).await.unwrap().number, 3);
}

#[tokio::test]
async fn forks_and_their_originals_keep_their_files_apart() {
    let world = World { max_agents: 9, ..World::new() };
    let daemon = world.daemon().await;
    daemon.ran("layered", "x").await;
    world.answers(SAVED);
    daemon.keep(None).await.unwrap();
    world.answers(r#"{"snapshot":{"newest":1,"made":true}}"#);
    daemon.service.fork(&id("a"), 1, "f").await.unwrap();
    world.answers(SAVED);
    let failure = daemon.bring_back(Which::Newest).await.unwrap_err();
    assert!(failure.message().contains("has the fork f-1"), "{failure}");
    let fork = id("f-1");
    daemon.service.checkpoint(&fork, None, Extent::Files).await.unwrap();
    assert!(daemon.service.restore(&fork, Which::Newest, false).await.unwrap().done);
    daemon.service.remove(&fork, Removal::DeleteWorkspace).await.unwrap();
    assert!(daemon.bring_back(Which::Newest).await.unwrap().done);
}

#[tokio::test]
async fn they_go_with_their_agent() {
    let world = World::new();
    let daemon = world.daemon().await;
    world.answers(SAVED);
    daemon.ran("once", "x").await;
    daemon.keep(None).await.unwrap();
    daemon.service.remove(&id("a"), Removal::DeleteWorkspace).await.unwrap();
    assert!(daemon.service.checkpoints(None).unwrap().is_empty());
    daemon.ran("once", "x").await;
    assert_eq!(daemon.keep(None).await.unwrap().number, 1);
    assert_eq!(world.systemd.phase(), Phase::Inactive);
}

#[tokio::test]
async fn processes_are_refused_with_the_reason() {
    let world = World::new();
    let daemon = world.daemon().await;
    daemon.ran("once", "x").await;
    let failure = daemon.service.checkpoint(&id("a"), None, Extent::Processes).await.unwrap_err();
    assert_eq!(failure.kind(), ErrorKind::Refused);
    assert!(failure.message().contains("CRIU does not save Landlock domains"), "{failure}");
    assert!(daemon.numbers().is_empty() && world.steps().is_empty());
}
