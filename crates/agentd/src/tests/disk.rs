//! The limit on the disk: the note that `aos-quota@ID.service` reads follows the agent's record.

use aos_core::config::Limits;
use aos_core::state::ExitResult;
use aos_core::workspace::Operation;

use super::{Daemon, World, id};
use crate::db::Removal;
use crate::service::RunRequest;

/// Runs the agent to its end.
async fn run(world: &World, daemon: &Daemon, package: &str, disk: Option<&str>) {
    let limits = Limits { disk: disk.map(|disk| disk.parse().unwrap()), ..Limits::default() };
    let request = RunRequest { limits, ..RunRequest::default() };
    daemon.service.run(&id("a"), &package.parse().unwrap(), request).await.unwrap();
    world.systemd.exit(ExitResult::Success, 0);
    daemon.until_state("a", "stopped").await;
}

fn note(world: &World) -> Option<String> {
    std::fs::read_to_string(world.path("state/quotas/a")).ok()
}

#[tokio::test]
async fn the_note_follows_the_limit_until_the_agent_is_gone() {
    let world = World::new();
    let daemon = world.daemon().await;
    run(&world, &daemon, "once", None).await;
    assert_eq!(note(&world), None, "nothing for an agent that never had a limit");
    for (disk, expected) in [
        (Some("1G"), "1073741824 65536\n"),
        (Some("2G"), "2147483648 131072\n"),
        (None, "none\n"),
        (Some("1G"), "1073741824 65536\n"),
    ] {
        run(&world, &daemon, "once", disk).await;
        assert_eq!(note(&world).unwrap(), expected);
    }
    daemon.service.remove(&id("a"), Removal::KeepWorkspace).await.unwrap();
    assert_eq!(note(&world), None);
}

#[tokio::test]
async fn a_commit_has_room_for_content_that_is_there_twice() {
    let world = World::new();
    let daemon = world.daemon().await;
    run(&world, &daemon, "layered", Some("1G")).await;
    world.answers(r#"{"snapshots":[]}"#);
    for (operation, meanwhile) in
        [(Operation::Snapshots, "1073741824 65536\n"), (Operation::Commit { paths: Vec::new() }, "none\n")]
    {
        assert!(daemon.service.workspace(&id("a"), operation).await.unwrap().done);
        assert_eq!(world.systemd.inner().work.note.as_deref(), Some(meanwhile));
    }
    assert_eq!(note(&world).unwrap(), "1073741824 65536\n", "for the next start, whoever makes it");
}
