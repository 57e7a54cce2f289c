//! Removing: every step, a step that fails, and a crash in between.

use aos_client::ErrorKind;

use super::{World, id};
use crate::agent::AtBoot;
use crate::db::Removal;

#[tokio::test]
async fn everything_goes_in_order() {
    for (removal, clean) in
        [(Removal::DeleteWorkspace, "clean [State, Runtime]"), (Removal::KeepWorkspace, "clean [Runtime]")]
    {
        let world = World::new();
        let daemon = world.daemon().await;
        daemon.run("a", "always").await.unwrap();
        daemon.service.restart(&id("a")).await.unwrap();
        assert_eq!(world.systemd.held(), 1);
        daemon.service.enable(&id("a"), AtBoot::Start).await.unwrap();
        world.systemd.calls();
        daemon.service.remove(&id("a"), removal).await.unwrap();
        assert_eq!(world.systemd.calls(), ["stop", clean, "remove account", "release"]);
        assert_eq!(world.systemd.held(), 0);
        assert!(!world.path("state/agents/a").exists() && !world.path("enabled/a").exists());
        assert!(daemon.service.agents().await.is_empty());
        assert_eq!(daemon.service.remove(&id("a"), removal).await.unwrap_err().kind(), ErrorKind::NotFound);
        daemon.run("a", "once").await.unwrap();
        daemon.crash().await;
        let daemon = world.daemon().await;
        assert_eq!(daemon.service.agents().await.len(), 1);
    }
}

#[tokio::test]
async fn a_removal_that_failed_can_be_asked_for_again_and_is_resumed() {
    for by_crash in [false, true] {
        let world = World::new();
        let daemon = world.daemon().await;
        daemon.run("a", "always").await.unwrap();
        world.systemd.fail_account_removal(true);
        let failure = daemon.service.remove(&id("a"), Removal::DeleteWorkspace).await.unwrap_err();
        assert!(failure.message().contains("aos-account-remove@a.service"), "{failure}");
        let view = daemon.until_state("a", "removing").await;
        assert!(view.error.unwrap().contains("not removed"));
        assert_eq!(daemon.service.start(&id("a")).await.unwrap_err().kind(), ErrorKind::Refused);
        assert_eq!(daemon.run("a", "once").await.unwrap_err().kind(), ErrorKind::Refused);
        world.systemd.fail_account_removal(false);
        let daemon = if by_crash {
            daemon.crash().await;
            world.daemon().await
        } else {
            daemon.service.remove(&id("a"), Removal::DeleteWorkspace).await.unwrap();
            daemon
        };
        while !daemon.service.agents().await.is_empty() {
            tokio::task::yield_now().await;
        }
        assert!(!world.path("state/agents/a").exists());
    }
}
