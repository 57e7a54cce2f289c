//! Changes of what an agent may do that somebody else's start, a crash or a slow database comes between: what the disk
//! gives is never more than the record, and what is shown is never less than what was given.

use std::time::Duration;

use aos_client::ErrorKind;
use aos_core::state::ExitResult;

use super::capabilities::{change, planned, revoke, rows, set};
use super::{World, id};
use crate::agent::AtBoot;
use crate::change::{Apply, Change};
use crate::db::{End, Target};

const READS: &str = "file_read: /srv/**";

/// A run that nobody has recorded yet has what the plan said before the change.
#[tokio::test]
async fn a_run_that_began_right_before_a_change_is_shown_with_what_it_was_given() {
    let world = World::new();
    let daemon = world.daemon().await;
    daemon.run("a", "once").await.unwrap();
    daemon.service.stop(&id("a")).await.unwrap();
    world.systemd.foreign_start();
    let changed = revoke(&daemon, READS, Apply::NextStart).await;
    assert_eq!((changed.effect.as_str(), changed.in_force), ("next-start", Some(vec![READS.to_owned()])));
    let view = daemon.until_state("a", "running").await;
    assert_eq!(view.in_force, Some(vec![READS.to_owned()]));
    assert_eq!(rows(&daemon), [(READS.to_owned(), false, Some(true), None)]);
    assert_eq!(planned(&world), [""; 0]);

    // The run before it was given something else: that says nothing about this one.
    world.systemd.foreign_start();
    let granted = change(&daemon, Change::Grant(set(&[READS])), Apply::NextStart).await.unwrap();
    assert_eq!((granted.effect.as_str(), granted.in_force), ("next-start", Some(vec![])));
    daemon.until_state("a", "running").await;
    assert_eq!(rows(&daemon)[0].2, Some(false));
}

/// Somebody starts the unit while the supervisor makes the plan for its own start.
#[tokio::test]
async fn a_start_that_is_faster_than_ours_is_shown_with_what_it_was_given() {
    let world = World::new();
    let daemon = world.daemon().await;
    daemon.run("a", "always").await.unwrap();
    daemon.service.stop(&id("a")).await.unwrap();
    // As a crash right after the record of a grant leaves it, in an agent that is to be started again.
    let mut record = daemon.service.registry().get(&id("a")).unwrap().record().unwrap();
    record.in_force = Some(record.spec.capabilities.clone());
    record.spec.capabilities = set(&["listen: 80"]);
    record.run.as_mut().unwrap().end = Some(End { at_us: None, result: ExitResult::ExitCode, status: 1 });
    (record.plan_stale, record.target, record.retry_at_us) = (true, Target::Run, Some(1));
    daemon.service.registry().context().db.put(&record).await.unwrap();
    daemon.crash().await;
    let waiting = world.wait_at_trust();
    let (daemon, ()) = tokio::join!(world.daemon(), async {
        waiting.asked.notified().await;
        world.systemd.foreign_start();
        waiting.go_on.notify_one();
    });
    daemon.until_state("a", "running").await;
    assert_eq!(rows(&daemon)[0].2, Some(false), "the run began before the new plan");
}

#[tokio::test]
async fn a_run_that_began_right_before_another_is_asked_for_stays_what_it_is() {
    let world = World::new();
    let daemon = world.daemon().await;
    daemon.run("a", "once").await.unwrap();
    daemon.service.stop(&id("a")).await.unwrap();
    world.systemd.foreign_start();
    let failure = daemon.run("a", "always").await.unwrap_err();
    assert_eq!(failure.kind(), ErrorKind::Refused);
    let view = daemon.until_state("a", "running").await;
    assert_eq!((view.reference.as_str(), view.in_force), ("once:1.0.0", None));
    assert_eq!(rows(&daemon)[0].2, Some(true));
    daemon.until("a", "planned", |_| planned(&world) == [READS]).await;
}

/// The moment between the two writes: there is no plan, so that a boot starts nothing.
#[tokio::test]
async fn what_takes_away_is_never_wider_on_the_disk_than_in_the_record() {
    for anew in [false, true] {
        let mut world = World::new();
        world.db_deadline = Duration::from_secs(3);
        let daemon = world.daemon().await;
        daemon.run("a", "once").await.unwrap();
        daemon.service.enable(&id("a"), AtBoot::Start).await.unwrap();
        daemon.service.stop(&id("a")).await.unwrap();
        let release = daemon.service.registry().context().db.stall().await;
        let service = std::sync::Arc::clone(&daemon.service);
        let asked = tokio::spawn(async move {
            match anew {
                true => service.run(&id("a"), &"always".parse().unwrap(), Default::default()).await.map(drop),
                false => {
                    service.change(&id("a"), Change::Revoke(set(&[READS])), Apply::NextStart).await.map(drop)
                }
            }
        });
        let gone = async {
            while planned(&world) != ["no plan"] {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(super::PATIENCE, gone).await.expect("the plan goes before the record is stored");
        drop(release);
        asked.await.unwrap().unwrap();
        daemon.until("a", "planned", |_| planned(&world).is_empty()).await;
    }
}

#[tokio::test]
async fn what_starts_at_boot_gets_the_plan_that_a_crash_took() {
    for enabled in [true, false] {
        let world = World::new();
        let daemon = world.daemon().await;
        daemon.run("a", "once").await.unwrap();
        if enabled {
            daemon.service.enable(&id("a"), AtBoot::Start).await.unwrap();
        }
        daemon.service.stop(&id("a")).await.unwrap();
        daemon.crash().await;
        std::fs::remove_file(world.path("state/agents/a/plan.json")).unwrap();
        let _daemon = world.daemon().await;
        let expected = if enabled { READS } else { "no plan" };
        assert_eq!(planned(&world), [expected]);
    }
}

/// The database does what it was asked after it was given up.
#[tokio::test]
async fn what_failed_by_a_deadline_does_not_happen_later() {
    let mut world = World::new();
    world.db_deadline = Duration::from_secs(3);
    let daemon = world.daemon().await;
    daemon.run("a", "once").await.unwrap();
    let release = daemon.service.registry().context().db.stall().await;
    let failure = change(&daemon, Change::Revoke(set(&[READS])), Apply::NextStart).await.unwrap_err();
    assert_eq!(failure.kind(), ErrorKind::Failed);
    assert_eq!(planned(&world), ["no plan"], "the record before the plan");
    let failure = daemon.run("b", "once").await.unwrap_err();
    assert_eq!(failure.kind(), ErrorKind::Failed);
    drop(release);
    daemon.until("a", "planned", |_| planned(&world) == [READS]).await;
    let is_settled = |_: &aos_client::AgentView| {
        !daemon.service.registry().get(&id("a")).unwrap().record().unwrap().plan_stale
    };
    daemon.until("a", "settled", is_settled).await;
    daemon.crash().await;
    let daemon = world.daemon().await;
    let view = daemon.until_state("a", "running").await;
    assert_eq!((view.capabilities, view.in_force), (vec![READS.to_owned()], None));
    assert_eq!(daemon.service.agents().await.len(), 1);
}
