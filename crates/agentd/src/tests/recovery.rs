//! The supervisor dies and comes back, with and without a reboot: agents do not notice, and nothing is lost.

use aos_core::state::ExitResult;

use super::{World, id};
use crate::agent::AtBoot;
use crate::packages::Collect;

#[tokio::test]
async fn a_crash_leaves_the_agent_alone() {
    let world = World::new();
    let daemon = world.daemon().await;
    let invocation = daemon.run("a", "always").await.unwrap();
    daemon.until_state("a", "running").await;
    world.systemd.calls();
    daemon.crash().await;
    let mut daemon = world.daemon().await;
    let view = daemon.until_state("a", "running").await;
    assert_eq!(view.invocation_id, Some(invocation.to_string()));
    assert_eq!(world.systemd.calls(), [] as [&str; 0]);
    assert!(daemon.exits().is_empty());
}

#[tokio::test]
async fn an_end_while_away_is_found() {
    for (result, status, forgotten, state) in [
        (ExitResult::Success, 0, false, "stopped"),
        (ExitResult::Success, 0, true, "stopped"),
        (ExitResult::ExitCode, 4, false, "failed"),
    ] {
        let world = World::new();
        let daemon = world.daemon().await;
        daemon.run("a", "once").await.unwrap();
        daemon.crash().await;
        world.systemd.exit(result, status);
        if forgotten {
            world.systemd.collect_garbage();
        }
        let mut daemon = world.daemon().await;
        let view = daemon.until_state("a", state).await;
        assert_eq!(view.exit_status, Some(status));
        assert_eq!(daemon.exits(), [(result.as_str(), status)]);
        daemon.crash().await;
        let mut daemon = world.daemon().await;
        daemon.until_state("a", state).await;
        assert!(daemon.exits().is_empty(), "told once");
    }
}

/// An agent whose record cannot be read may run, and nobody knows from which package.
#[tokio::test]
async fn a_damaged_record_keeps_all_packages() {
    let world = World::new();
    let daemon = world.daemon().await;
    daemon.run("a", "once").await.unwrap();
    let unused = daemon.service.collect(Collect::Remove).await.unwrap();
    assert!(!unused.packages.is_empty());
    daemon.crash().await;
    let database = rusqlite::Connection::open(world.path("state").join("state.sqlite")).unwrap();
    while database.execute("UPDATE agents SET limits = 'x'", []).is_err() {
        tokio::task::yield_now().await;
    }
    drop(database);
    let daemon = world.daemon().await;
    let refused = daemon.service.collect(Collect::Remove).await.unwrap_err();
    assert!(refused.message().contains("agent a is damaged"), "{refused}");
    assert!(daemon.service.remove_package(&unused.packages[0]).await.is_err());
    world.systemd.exit(ExitResult::Success, 0);
    daemon.run("a", "once").await.unwrap();
    assert_eq!(daemon.service.collect(Collect::Remove).await.unwrap(), unused);
}

#[tokio::test]
async fn back_off_survives_a_crash() {
    let world = World::new();
    let daemon = world.daemon().await;
    daemon.run("a", "always").await.unwrap();
    world.systemd.exit(ExitResult::ExitCode, 1);
    let in_back_off =
        |view: &aos_client::AgentView| view.error.as_ref().is_some_and(|e| e.contains("in a row"));
    daemon.until("a", "in back-off", in_back_off).await;
    daemon.crash().await;
    world.systemd.calls();
    let daemon = world.daemon().await;
    daemon.until("a", "in back-off", in_back_off).await;
    assert_eq!(world.systemd.calls(), [] as [&str; 0]);
    world.pass(2);
    daemon.until_state("a", "running").await;
}

#[tokio::test]
async fn after_a_reboot_only_what_is_enabled_is_wanted() {
    for (package, enabled, desired) in
        [("always", false, "stopped"), ("always", true, "running"), ("once", true, "stopped")]
    {
        let mut world = World::new();
        let daemon = world.daemon().await;
        daemon.run("a", package).await.unwrap();
        if enabled {
            daemon.service.enable(&id("a"), AtBoot::Start).await.unwrap();
        }
        daemon.crash().await;
        world.reboot();
        let daemon = world.daemon().await;
        let view = daemon.until("a", desired, |view| view.desired == desired).await;
        assert_eq!(view.enabled, enabled);
        let state = if desired == "running" { "running" } else { "stopped" };
        daemon.until_state("a", state).await;
    }
}

#[tokio::test]
async fn what_systemd_started_at_boot_is_taken_over() {
    let mut world = World::new();
    let daemon = world.daemon().await;
    let before = daemon.run("a", "once").await.unwrap();
    daemon.service.enable(&id("a"), AtBoot::Start).await.unwrap();
    daemon.crash().await;
    world.reboot();
    world.systemd.foreign_start();
    world.systemd.calls();
    let mut daemon = world.daemon().await;
    let view = daemon.until_state("a", "running").await;
    assert_ne!(view.invocation_id, Some(before.to_string()));
    world.systemd.exit(ExitResult::ExitCode, 6);
    daemon.until_state("a", "failed").await;
    assert_eq!(daemon.exits().last(), Some(&("exit-code", 6)));
    assert_eq!(world.systemd.calls(), ["limit Some(67108864)"], "a limit that is missing is set, once");
}

#[tokio::test]
async fn after_a_reboot_limits_are_in_systemd_before_anybody_starts_the_unit() {
    for (package, calls) in [("once", &["limit Some(67108864)"][..]), ("always", &[])] {
        let mut world = World::new();
        let daemon = world.daemon().await;
        daemon.run("a", package).await.unwrap();
        daemon.service.stop(&id("a")).await.unwrap();
        daemon.crash().await;
        world.systemd.calls();
        let daemon = world.daemon().await;
        assert_eq!(world.systemd.calls(), [] as [&str; 0], "what is in force is left alone");
        daemon.crash().await;
        world.reboot();
        let daemon = world.daemon().await;
        daemon.until_state("a", "stopped").await;
        assert_eq!(world.systemd.calls(), calls);
        world.systemd.foreign_start();
        daemon.until_state("a", "running").await;
        assert_eq!(world.systemd.calls(), [] as [&str; 0], "once for each start of the supervisor");
    }
}
