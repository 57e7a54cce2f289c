//! The trust policy over the life of an agent: what it refuses, and what goes on.

use aos_client::ErrorKind;
use aos_core::id::Digest;

use super::{World, id};
use crate::agent::AtBoot;
use crate::packages::Collect;
use crate::systemd::Phase;

#[tokio::test]
async fn a_package_that_is_not_trusted_makes_no_agent() {
    let world = World::new();
    let daemon = world.daemon().await;
    world.distrust(true);
    let failure = daemon.run("a", "once").await.unwrap_err();
    assert_eq!(failure.kind(), ErrorKind::Untrusted);
    assert!(failure.message().contains("once:1.0.0 is not trusted"), "{failure}");
    assert!(daemon.service.agents().await.is_empty());
    assert_eq!(world.systemd.calls(), [] as [&str; 0]);
}

#[tokio::test]
async fn trust_that_is_gone_refuses_the_next_start_and_not_the_run() {
    let world = World::new();
    let daemon = world.daemon().await;
    daemon.run("a", "always").await.unwrap();
    daemon.until_state("a", "running").await;
    world.distrust(true);
    assert_eq!(daemon.service.restart(&id("a")).await.unwrap_err().kind(), ErrorKind::Untrusted);
    assert_eq!(daemon.until_state("a", "running").await.desired, "running", "it goes on");
    assert_eq!(
        daemon.service.enable(&id("a"), AtBoot::Start).await.unwrap_err().kind(),
        ErrorKind::Untrusted
    );
    // A supervisor that starts anew does not stop it either.
    daemon.crash().await;
    let daemon = world.daemon().await;
    daemon.until_state("a", "running").await;
    assert_eq!(world.systemd.phase(), Phase::Active);

    daemon.service.stop(&id("a")).await.unwrap();
    world.systemd.calls();
    let failure = daemon.service.start(&id("a")).await.unwrap_err();
    assert!(failure.message().contains("not trusted"), "{failure}");
    assert!(!world.systemd.calls().contains(&"start".to_owned()));
    let view = daemon.until("a", "at rest", |view| view.desired == "stopped").await;
    assert!(view.error.unwrap().contains("not trusted"));

    world.distrust(false);
    daemon.service.start(&id("a")).await.unwrap();
    assert_eq!(daemon.until_state("a", "running").await.error, None);
}

#[tokio::test]
async fn what_the_boot_started_is_stopped_when_it_is_not_trusted() {
    let mut world = World::new();
    let daemon = world.daemon().await;
    daemon.run("a", "always").await.unwrap();
    daemon.service.enable(&id("a"), AtBoot::Start).await.unwrap();
    daemon.crash().await;
    world.reboot();
    world.distrust(true);
    world.systemd.foreign_start();
    let daemon = world.daemon().await;
    let view = daemon.until("a", "stopped", |view| view.state == "stopped" && view.error.is_some()).await;
    assert!(view.error.unwrap().contains("not trusted"));
    assert_eq!((view.desired.as_str(), world.systemd.phase()), ("stopped", Phase::Inactive));
    // `systemctl start` is no way round.
    world.systemd.foreign_start();
    let is_over = |view: &aos_client::AgentView| {
        world.systemd.phase() == Phase::Inactive && view.state == "stopped" && view.error.is_some()
    };
    daemon.until("a", "stopped again", is_over).await;
    // Answered when the supervisor has seen the end of its own stop, too: the next start is not part of that.
    daemon.service.stop(&id("a")).await.unwrap();
    world.distrust(false);
    world.systemd.foreign_start();
    assert_eq!(daemon.until_state("a", "running").await.error, None);
}

#[tokio::test]
async fn what_a_record_is_made_of_is_kept() {
    let world = World::new();
    let daemon = world.daemon().await;
    daemon.run("a", "once").await.unwrap();
    daemon.service.stop(&id("a")).await.unwrap();
    let collected = daemon.service.collect(Collect::DryRun).await.unwrap();
    let names: Vec<_> = collected.packages.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["always:1.0.0", "online:1.0.0", "short:1.0.0", "layered:1.0.0"]);
    assert!(daemon.service.registry().users().contains_key(&Digest::from_bytes([1; 32])));
}
