//! Running, failing, stopping, retrying.

use aos_client::ErrorKind;
use aos_core::state::ExitResult;

use super::{LAUNCHER_WORDS, Start, World, id};
use crate::agent::AtBoot;
use crate::service::RunRequest;
use crate::systemd::Phase;

#[tokio::test]
async fn a_run_begins_ends_and_is_told_once() {
    let world = World::new();
    let mut daemon = world.daemon().await;
    let invocation = daemon.run("a", "once").await.unwrap();
    assert_eq!(world.systemd.calls(), ["limit Some(67108864)", "start"]);
    let view = daemon.until_state("a", "running").await;
    assert_eq!(view.invocation_id, Some(invocation.to_string()));
    assert_eq!((view.reference.as_str(), view.desired.as_str()), ("once:1.0.0", "running"));
    assert!(world.path("state/agents/a/plan.json").exists());

    world.systemd.exit(ExitResult::Success, 0);
    let view = daemon.until_state("a", "stopped").await;
    assert_eq!((view.result.as_deref(), view.exit_status), (Some("success"), Some(0)));
    daemon.until("a", "settled", |view| view.desired == "stopped").await;
    assert_eq!(daemon.exits(), [("success", 0)]);
    assert_eq!(world.systemd.calls(), [] as [&str; 0], "a one-shot is not started again");

    daemon.service.start(&id("a")).await.unwrap();
    world.systemd.exit(ExitResult::ExitCode, 3);
    let view = daemon.until_state("a", "failed").await;
    assert!(view.error.unwrap().contains("exit status 3"));
    assert_eq!(daemon.exits(), [("exit-code", 3)]);
}

#[tokio::test]
async fn what_cannot_be_confined_leaves_nothing() {
    let world = World::new();
    let daemon = world.daemon().await;
    let failure = daemon.run("a", "online").await.unwrap_err();
    assert_eq!(failure.kind(), ErrorKind::Refused);
    assert!(failure.message().contains("net: example.org:443"), "{failure}");
    assert!(daemon.service.agents().await.is_empty());
    assert_eq!(world.systemd.calls(), [] as [&str; 0]);
    assert!(!world.path("state/agents/a").exists());
    assert_eq!(daemon.run("a", "absent").await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(daemon.run("agents", "once").await.unwrap_err().kind(), ErrorKind::InvalidArgument);
    daemon.run("a", "once").await.unwrap();
}

#[tokio::test]
async fn a_start_that_fails_says_why_and_is_not_retried() {
    let world = World::new();
    let daemon = world.daemon().await;
    for (start, says) in [
        (Start::Fail(226), "226"),
        (Start::NoAccount, "aos-account@a.service"),
        (Start::Refuse, "refused to start"),
    ] {
        world.systemd.next_start(start);
        let failure = daemon.run("a", "always").await.unwrap_err();
        assert!(failure.message().contains(says), "{failure}");
        let view = daemon.until_state("a", "failed").await;
        assert!(view.error.unwrap().contains(says));
        assert_eq!(failure.message().contains(LAUNCHER_WORDS), says == "226", "{failure}");
        world.pass(1000);
        daemon.until("a", "settled", |view| view.desired == "stopped").await;
    }
    let starts = world.systemd.calls().iter().filter(|call| *call == "start").count();
    assert_eq!(starts, 3, "one for each time it was asked for");
    world.systemd.next_start(Start::Ready);
    daemon.service.start(&id("a")).await.unwrap();
    assert_eq!(daemon.until_state("a", "running").await.error, None);
}

#[tokio::test]
async fn what_runs_is_not_replaced() {
    let world = World::new();
    let daemon = world.daemon().await;
    daemon.run("a", "once").await.unwrap();
    let failure = daemon.run("a", "always").await.unwrap_err();
    assert!(failure.kind() == ErrorKind::Refused && failure.message().contains("running"), "{failure}");
    assert_eq!(daemon.service.start(&id("a")).await.unwrap_err().kind(), ErrorKind::Refused);
    daemon.service.stop(&id("a")).await.unwrap();
    daemon.run("a", "always").await.unwrap();
    assert_eq!(daemon.until_state("a", "running").await.lifecycle, "persistent");
}

#[tokio::test]
async fn stopping_is_idempotent_and_restarting_makes_a_new_run() {
    let world = World::new();
    let daemon = world.daemon().await;
    let first = daemon.run("a", "always").await.unwrap();
    let second = daemon.service.restart(&id("a")).await.unwrap();
    assert_ne!(first, second);
    daemon.service.stop(&id("a")).await.unwrap();
    daemon.service.stop(&id("a")).await.unwrap();
    assert_eq!(daemon.until_state("a", "stopped").await.desired, "stopped");
    daemon.service.restart(&id("a")).await.unwrap();
    daemon.until_state("a", "running").await;
    assert_eq!(daemon.service.stop(&id("b")).await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn a_stop_is_served_while_a_start_hangs() {
    let world = World::new();
    let daemon = world.daemon().await;
    world.systemd.next_start(Start::Hang);
    let service = std::sync::Arc::clone(&daemon.service);
    let start = tokio::spawn(async move {
        service.run(&id("a"), &"always".parse().unwrap(), RunRequest::default()).await
    });
    while daemon.service.registry().get(&id("a")).is_err() {
        tokio::task::yield_now().await;
    }
    daemon.until_state("a", "starting").await;
    daemon.service.stop(&id("a")).await.unwrap();
    let failure = start.await.unwrap().unwrap_err();
    assert!(failure.message().contains("stopped while"), "{failure}");
    assert_eq!(world.systemd.phase(), Phase::Inactive);
    daemon.until("a", "at rest", |view| view.state != "starting").await;
}

#[tokio::test]
async fn failures_are_retried_with_back_off_and_forgotten_when_healthy() {
    let world = World::new();
    let daemon = world.daemon().await;
    daemon.run("a", "always").await.unwrap();
    world.systemd.calls();
    for wait_s in [1, 2, 4] {
        world.systemd.exit(ExitResult::Signal, 9);
        let view = daemon.until("a", "in back-off", |view| {
            view.state == "failed" && view.error.as_ref().is_some_and(|error| error.contains("in a row"))
        });
        assert!(view.await.error.unwrap().contains(&format!("started again {wait_s} s")));
        assert_eq!(world.systemd.calls(), [] as [&str; 0], "not before its time");
        world.pass(wait_s);
        daemon.until_state("a", "running").await;
        assert_eq!(world.systemd.calls(), ["limit None", "start"]);
    }
    world.pass(700);
    daemon.until("a", "healthy", |view| view.state == "running").await;
    world.systemd.exit(ExitResult::Signal, 9);
    daemon
        .until("a", "in first back-off", |view| {
            view.error.as_ref().is_some_and(|error| error.contains("failure 1 in a row"))
        })
        .await;
    daemon.service.stop(&id("a")).await.unwrap();
    world.pass(1000);
    daemon.until("a", "left alone", |view| view.desired == "stopped" && view.state == "failed").await;
    assert_eq!(world.systemd.phase(), Phase::Failed);
}

#[tokio::test]
async fn a_run_beyond_its_limit_is_stopped() {
    let world = World::new();
    let mut daemon = world.daemon().await;
    daemon.run("a", "short").await.unwrap();
    world.pass(9);
    daemon.until_state("a", "running").await;
    world.pass(2);
    daemon.until_state("a", "failed").await;
    assert_eq!(daemon.exits().last(), Some(&("timeout", 0)));
}

#[tokio::test]
async fn a_foreign_start_is_adopted() {
    let world = World::new();
    let daemon = world.daemon().await;
    daemon.run("a", "always").await.unwrap();
    daemon.service.stop(&id("a")).await.unwrap();
    world.systemd.calls();
    world.systemd.foreign_start();
    let view = daemon.until_state("a", "running").await;
    assert_eq!(view.desired, "running");
    assert_eq!(world.systemd.calls(), [] as [&str; 0]);
}

#[tokio::test]
async fn capabilities_only_narrow_and_limits_can_be_set() {
    let world = World::new();
    let daemon = world.daemon().await;
    let run = |lines: &'static [&'static str]| {
        let capabilities = aos_core::capability::CapabilitySet::parse(lines.iter().copied()).unwrap();
        let limits = serde_json::from_str(r#"{"memory":"1M"}"#).unwrap();
        let request = RunRequest { capabilities: Some(capabilities), limits, ..RunRequest::default() };
        let service = std::sync::Arc::clone(&daemon.service);
        async move { service.run(&id("a"), &"once".parse().unwrap(), request).await }
    };
    let failure = run(&["file_read: /**"]).await.unwrap_err();
    assert_eq!(failure.kind(), ErrorKind::Refused, "{failure}");
    run(&["file_read: /srv/x"]).await.unwrap();
    assert_eq!(daemon.until_state("a", "running").await.capabilities, ["file_read: /srv/x"]);
    assert_eq!(world.systemd.calls()[0], "limit Some(1048576)");
}

#[tokio::test]
async fn bounds_on_agents_and_packages_in_use() {
    let world = World::new();
    let daemon = world.daemon().await;
    daemon.run("a", "once").await.unwrap();
    daemon.service.stop(&id("a")).await.unwrap();
    let failure = daemon.service.remove_package(&"once".parse().unwrap()).await.unwrap_err();
    assert_eq!(failure.kind(), ErrorKind::Refused);
    daemon.service.remove_package(&"always".parse().unwrap()).await.unwrap();
    assert_eq!(daemon.run("b", "always").await.unwrap_err().kind(), ErrorKind::NotFound);
    // The fake has one unit for all agents; only the records count here.
    daemon.run("b", "once").await.unwrap();
    let failure = daemon.run("c", "once").await.unwrap_err();
    assert!(failure.message().contains("max_agents"), "{failure}");
    let packages = daemon.service.list_packages().await.unwrap();
    assert_eq!(packages[0].agents, ["a", "b"]);
}

#[tokio::test]
async fn enabling_writes_the_limits_and_follows_a_new_run() {
    let world = World::new();
    let daemon = world.daemon().await;
    daemon.run("a", "once").await.unwrap();
    daemon.service.enable(&id("a"), AtBoot::Start).await.unwrap();
    let file = || std::fs::read_to_string(world.path("enabled/a")).unwrap();
    assert_eq!(file(), "MemoryMax=67108864\n");
    daemon.until("a", "enabled", |view| view.enabled).await;
    daemon.service.stop(&id("a")).await.unwrap();
    daemon.run("a", "short").await.unwrap();
    assert_eq!(file(), "RuntimeMaxSec=10\n");
    daemon.service.enable(&id("a"), AtBoot::Ignore).await.unwrap();
    assert!(!world.path("enabled/a").exists());
}

#[tokio::test]
async fn a_start_by_hand_that_fails_quotes_the_launcher() {
    let world = World::new();
    let daemon = world.daemon().await;
    daemon.run("a", "once").await.unwrap();
    daemon.service.stop(&id("a")).await.unwrap();
    world.systemd.next_start(Start::Fail(226));
    world.systemd.foreign_start();
    let view = daemon.until_state("a", "failed").await;
    assert!(view.error.unwrap().contains(LAUNCHER_WORDS));
    daemon.service.remove(&id("a"), crate::db::Removal::KeepWorkspace).await.unwrap();
}

#[tokio::test]
async fn an_enabled_unit_is_shown_and_left_to_systemctl() {
    let world = World::new();
    let daemon = world.daemon().await;
    daemon.run("a", "once").await.unwrap();
    assert!(!daemon.until_state("a", "running").await.enabled);
    world.systemd.unit_file(true);
    daemon.until("a", "enabled", |view| view.enabled).await;
    daemon.service.enable(&id("a"), AtBoot::Start).await.unwrap();
    let failure = daemon.service.enable(&id("a"), AtBoot::Ignore).await.unwrap_err();
    assert!(failure.message().contains("systemctl disable aos-agent@a.service"), "{failure}");
    assert!(!world.path("enabled/a").exists(), "what can be undone is");
    world.systemd.unit_file(false);
    daemon.until("a", "not enabled", |view| !view.enabled).await;
    daemon.service.enable(&id("a"), AtBoot::Ignore).await.unwrap();
}

#[tokio::test]
async fn a_damaged_user_record_is_shown() {
    let world = World::new();
    std::fs::create_dir(world.path("userdb")).unwrap();
    let daemon = world.daemon().await;
    daemon.run("a", "once").await.unwrap();
    let write = |text: &str| std::fs::write(world.path("userdb/aos-a.user"), text).unwrap();
    write("{");
    let view = daemon.until("a", "in trouble", |view| view.error.is_some()).await;
    assert!(view.uid.is_none() && view.error.unwrap().contains("aos-a.user"));
    write(r#"{"uid":1879113728}"#);
    let view = daemon.until("a", "known", |view| view.uid == Some(1_879_113_728)).await;
    assert_eq!(view.error, None);
}
