//! Pausing: frozen and thawed by the supervisor and by others, and what can end an agent that is paused.

use aos_client::ErrorKind;
use aos_core::state::ExitResult;

use super::{World, id};
use crate::db::Removal;
use crate::systemd::{Freezer, Phase};

/// An agent that is paused.
async fn paused() -> (World, super::Daemon) {
    let world = World::new();
    let daemon = world.daemon().await;
    daemon.run("a", "always").await.unwrap();
    daemon.service.pause(&id("a")).await.unwrap();
    daemon.until_state("a", "paused").await;
    world.systemd.calls();
    (world, daemon)
}

#[tokio::test]
async fn pausing_and_resuming_are_idempotent() {
    let (world, daemon) = paused().await;
    daemon.service.pause(&id("a")).await.unwrap();
    assert_eq!(world.systemd.calls(), [] as [&str; 0]);
    let view = daemon.until_state("a", "paused").await;
    assert_eq!((view.desired.as_str(), view.main_pid), ("running", Some(42)));
    daemon.service.resume(&id("a")).await.unwrap();
    assert_eq!(daemon.until_state("a", "running").await.invocation_id, view.invocation_id);
    daemon.service.resume(&id("a")).await.unwrap();
    assert_eq!(world.systemd.calls(), ["thaw"]);
}

#[tokio::test]
async fn only_what_runs_can_be_paused() {
    let world = World::new();
    let daemon = world.daemon().await;
    assert_eq!(daemon.service.pause(&id("a")).await.unwrap_err().kind(), ErrorKind::NotFound);
    daemon.run("a", "once").await.unwrap();
    daemon.service.stop(&id("a")).await.unwrap();
    world.systemd.calls();
    for failure in [daemon.service.pause(&id("a")).await, daemon.service.resume(&id("a")).await] {
        let failure = failure.unwrap_err();
        assert!(failure.kind() == ErrorKind::Refused && failure.message().contains("stopped"), "{failure}");
    }
    assert_eq!(world.systemd.calls(), [] as [&str; 0]);
}

#[tokio::test]
async fn what_systemctl_froze_is_shown_and_survives_the_supervisor() {
    let world = World::new();
    let daemon = world.daemon().await;
    daemon.run("a", "always").await.unwrap();
    world.systemd.freezer(Freezer::Frozen);
    daemon.until_state("a", "paused").await;
    daemon.crash().await;
    let daemon = world.daemon().await;
    daemon.until_state("a", "paused").await;
    daemon.service.resume(&id("a")).await.unwrap();
    daemon.until_state("a", "running").await;
    world.systemd.freezer(Freezer::FrozenByParent);
    daemon.until_state("a", "paused").await;
    for failure in [daemon.service.resume(&id("a")).await, daemon.service.start(&id("a")).await.map(drop)] {
        assert_eq!(failure.unwrap_err().kind(), ErrorKind::Refused);
    }
}

#[tokio::test]
async fn a_paused_agent_is_thawed_before_it_is_stopped_restarted_or_removed() {
    let (world, daemon) = paused().await;
    daemon.service.stop(&id("a")).await.unwrap();
    assert_eq!(world.systemd.calls(), ["thaw", "stop"]);
    daemon.until_state("a", "stopped").await;

    let (world, daemon) = paused().await;
    daemon.service.restart(&id("a")).await.unwrap();
    assert_eq!(world.systemd.calls(), ["thaw", "stop", "limit None", "start"]);
    daemon.until_state("a", "running").await;

    let (world, daemon) = paused().await;
    daemon.service.remove(&id("a"), Removal::KeepWorkspace).await.unwrap();
    assert_eq!(world.systemd.calls(), ["thaw", "stop", "clean [Runtime]", "remove account", "release"]);
}

#[tokio::test]
async fn who_stops_one_below_a_frozen_slice_is_answered() {
    let (world, daemon) = paused().await;
    world.systemd.freezer(Freezer::FrozenByParent);
    let answered = |answer: Result<Result<(), crate::failure::Failure>, _>| {
        let failure = answer.expect("it is answered").unwrap_err();
        assert!(failure.message().contains("systemctl thaw aos.slice"), "{failure}");
    };
    let restart = async { daemon.service.restart(&id("a")).await.map(drop) };
    answered(tokio::time::timeout(super::PATIENCE, restart).await);
    let goes_on = |view: &aos_client::AgentView| view.desired == "running" && view.state == "paused";
    daemon.until("a", "as before", goes_on).await;
    answered(tokio::time::timeout(super::PATIENCE, daemon.service.stop(&id("a"))).await);
    // It is still to be stopped.
    world.systemd.freezer(Freezer::Running);
    daemon.until_state("a", "stopped").await;
}

#[tokio::test]
async fn the_time_limit_goes_on_counting() {
    let world = World::new();
    let mut daemon = world.daemon().await;
    daemon.run("a", "short").await.unwrap();
    daemon.service.pause(&id("a")).await.unwrap();
    world.pass(11);
    daemon.until_state("a", "failed").await;
    assert_eq!(daemon.exits().last(), Some(&("timeout", 0)));
    assert!(world.systemd.calls().ends_with(&["thaw".to_owned(), "stop".to_owned()]));
}

#[tokio::test]
async fn one_that_was_killed_while_paused_starts_again() {
    let (world, daemon) = paused().await;
    daemon.service.stop(&id("a")).await.unwrap();
    daemon.service.start(&id("a")).await.unwrap();
    daemon.service.pause(&id("a")).await.unwrap();
    world.systemd.exit(ExitResult::Signal, 9);
    daemon.until_state("a", "failed").await;
    world.systemd.calls();
    world.pass(2);
    daemon.until_state("a", "running").await;
    assert_eq!(world.systemd.calls(), ["release", "limit None", "start"]);
    assert_eq!((world.systemd.phase(), world.systemd.held()), (Phase::Active, 1));

    daemon.service.pause(&id("a")).await.unwrap();
    world.systemd.exit(ExitResult::Signal, 9);
    daemon.until_state("a", "failed").await;
    daemon.service.remove(&id("a"), Removal::KeepWorkspace).await.unwrap();
    assert!(daemon.service.agents().await.is_empty());
}

#[tokio::test]
async fn one_that_systemd_keeps_loaded_and_frozen_says_what_to_do() {
    let (world, daemon) = paused().await;
    world.systemd.wanted_by_target(true);
    daemon.service.stop(&id("a")).await.unwrap();
    daemon.service.start(&id("a")).await.unwrap();
    daemon.service.pause(&id("a")).await.unwrap();
    world.systemd.exit(ExitResult::Signal, 9);
    daemon.until_state("a", "failed").await;
    daemon.service.stop(&id("a")).await.unwrap();
    let failure = daemon.service.start(&id("a")).await.unwrap_err();
    assert!(failure.message().contains("aos disable a; systemctl daemon-reload"), "{failure}");
    world.systemd.wanted_by_target(false);
    daemon.service.start(&id("a")).await.unwrap();
    daemon.until_state("a", "running").await;
}
