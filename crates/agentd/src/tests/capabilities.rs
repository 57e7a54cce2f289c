//! What an agent may do, shown and changed: the record, the plan on the disk, what runs, and a crash in between.

use aos_client::{CapabilityView, ChangedView, ErrorKind, Explanation};
use aos_core::capability::CapabilitySet;
use aos_core::state::ExitResult;
use aos_sandbox::plan::SandboxPlan;

use super::{Daemon, World, id};
use crate::agent::AtBoot;
use crate::change::{Apply, Change};
use crate::failure::Failure;
use crate::service::RunRequest;

pub(super) fn set(lines: &[&str]) -> CapabilitySet {
    CapabilitySet::parse(lines.iter().copied()).unwrap()
}

pub(super) async fn change(daemon: &Daemon, change: Change, apply: Apply) -> Result<ChangedView, Failure> {
    daemon.service.change(&id("a"), change, apply).await
}

pub(super) async fn revoke(daemon: &Daemon, line: &str, apply: Apply) -> ChangedView {
    change(daemon, Change::Revoke(set(&[line])), apply).await.unwrap()
}

/// The capabilities that caused something in the plan which the next start reads.
pub(super) fn planned(world: &World) -> Vec<String> {
    let Ok(bytes) = std::fs::read(world.path("state/agents/a/plan.json")) else {
        return vec!["no plan".into()];
    };
    let plan = SandboxPlan::parse(&bytes).unwrap();
    let mut causes: Vec<String> = plan
        .landlock
        .iter()
        .map(|rule| &rule.cause)
        .chain(plan.listen.iter().map(|rule| &rule.cause))
        .filter(|cause| cause.contains(':'))
        .cloned()
        .collect();
    causes.sort();
    causes.dedup();
    causes
}

pub(super) fn rows(daemon: &Daemon) -> Vec<(String, bool, Option<bool>, Option<String>)> {
    let row = |view: CapabilityView| (view.capability, view.declared, view.in_force, view.origin);
    daemon.service.capabilities(&id("a")).unwrap().into_iter().map(row).collect()
}

#[tokio::test]
async fn what_is_revoked_is_gone_from_the_disk_and_the_run_keeps_it() {
    let world = World::new();
    let daemon = world.daemon().await;
    daemon.run("a", "once").await.unwrap();
    daemon.service.enable(&id("a"), AtBoot::Start).await.unwrap();
    world.systemd.calls();
    let changed = revoke(&daemon, "file_read: /srv/**", Apply::NextStart).await;
    assert_eq!((changed.effect.as_str(), changed.capabilities.len()), ("next-start", 0));
    assert_eq!(changed.in_force.unwrap(), ["file_read: /srv/**"]);
    assert_eq!(planned(&world), [""; 0]);
    assert_eq!(world.systemd.calls(), [] as [&str; 0], "the run is left alone");
    let view = daemon.until_state("a", "running").await;
    assert_eq!((view.capabilities, view.in_force), (vec![], Some(vec!["file_read: /srv/**".to_owned()])));
    assert_eq!(rows(&daemon), [("file_read: /srv/**".to_owned(), false, Some(true), None)]);

    // As it was: nothing is pending any more.
    let granted = change(&daemon, Change::Grant(set(&["file_read: /srv/**"])), Apply::Restart).await.unwrap();
    assert_eq!((granted.effect.as_str(), granted.in_force), ("now", None));
    let origin = Some("granted".to_owned());
    assert_eq!(rows(&daemon), [("file_read: /srv/**".to_owned(), true, Some(true), origin)]);
    assert_eq!(planned(&world), ["file_read: /srv/**"]);

    revoke(&daemon, "file_read: /srv/**", Apply::NextStart).await;
    world.systemd.exit(ExitResult::Success, 0);
    let view = daemon.until_state("a", "stopped").await;
    assert_eq!((view.in_force, rows(&daemon)), (None, vec![]));
}

#[tokio::test]
async fn a_run_is_restarted_or_stopped_when_that_is_asked_for() {
    for (apply, effect, state, calls) in [
        (Apply::Restart, "restart", "running", &["stop", "limit Some(67108864)", "start"][..]),
        (Apply::Stop, "stopped", "stopped", &["stop"]),
    ] {
        let world = World::new();
        let daemon = world.daemon().await;
        daemon.run("a", "once").await.unwrap();
        world.systemd.calls();
        let narrow = Change::Narrow(set(&["file_read: /srv/www/**"]));
        let changed = change(&daemon, narrow, apply).await.unwrap();
        assert_eq!((changed.effect.as_str(), changed.in_force), (effect, None));
        assert_eq!(world.systemd.calls(), calls);
        assert_eq!(daemon.until_state("a", state).await.in_force, None);
        assert_eq!(planned(&world), ["file_read: /srv/www/**"]);
        assert_eq!(rows(&daemon)[0].3.as_deref(), Some("narrowed"));
        daemon.service.stop(&id("a")).await.unwrap();
        world.systemd.calls();
        // At rest there is nothing to restart.
        let changed = revoke(&daemon, "file_read: /srv/www/**", apply).await;
        assert_eq!(changed.effect, "next-start");
        assert_eq!(world.systemd.calls(), [] as [&str; 0]);
    }
}

#[tokio::test]
async fn refusals_change_nothing() {
    let world = World::new();
    let daemon = world.daemon().await;
    let failure = change(&daemon, Change::Narrow(set(&[])), Apply::Stop).await.unwrap_err();
    assert_eq!(failure.kind(), ErrorKind::NotFound);
    daemon.run("a", "once").await.unwrap();
    for (refused, says) in [
        (Change::Narrow(set(&["file_read: /**"])), "not part of anything"),
        (Change::Revoke(set(&["file_read: /srv/a"])), "a part of `file_read: /srv/**`"),
        (Change::Grant(set(&["net: example.org:443"])), "net: example.org:443"),
        (Change::Grant(set(&["file_read: /etc/aos/**"])), "/etc/aos"),
    ] {
        let failure = change(&daemon, refused, Apply::Stop).await.unwrap_err();
        assert!(failure.kind() == ErrorKind::Refused && failure.message().contains(says), "{failure}");
    }
    let view = daemon.until_state("a", "running").await;
    assert_eq!((view.capabilities, view.in_force), (vec!["file_read: /srv/**".to_owned()], None));
    assert_eq!(planned(&world), ["file_read: /srv/**"]);
}

#[tokio::test]
async fn more_than_the_package_declares_survives_and_a_new_run_begins_anew() {
    let world = World::new();
    let daemon = world.daemon().await;
    daemon.run("a", "once").await.unwrap();
    change(&daemon, Change::Grant(set(&["listen: 80"])), Apply::Stop).await.unwrap();
    daemon.crash().await;
    let daemon = world.daemon().await;
    let origins: Vec<_> = rows(&daemon).into_iter().map(|row| (row.0, row.2, row.3.unwrap())).collect();
    assert_eq!(
        origins,
        [
            ("file_read: /srv/**".to_owned(), None, "package".to_owned()),
            ("listen: 80".to_owned(), None, "granted".to_owned())
        ]
    );
    daemon.service.start(&id("a")).await.unwrap();
    assert_eq!(planned(&world), ["file_read: /srv/**", "listen: 80"]);
    daemon.service.stop(&id("a")).await.unwrap();
    daemon.run("a", "once").await.unwrap();
    assert_eq!(rows(&daemon).len(), 1);
}

/// The crash is between the record and the plan: the plan that the change replaced is on the disk again.
#[tokio::test]
async fn a_plan_older_than_its_record_is_renewed() {
    for runs in [true, false] {
        let world = World::new();
        let daemon = world.daemon().await;
        daemon.run("a", "once").await.unwrap();
        if !runs {
            daemon.service.stop(&id("a")).await.unwrap();
        }
        let path = world.path("state/agents/a/plan.json");
        let old = std::fs::read(&path).unwrap();
        revoke(&daemon, "file_read: /srv/**", Apply::NextStart).await;
        let mut record = daemon.service.registry().get(&id("a")).unwrap().record().unwrap();
        record.in_force = Some(set(&["file_read: /srv/**"]));
        record.plan_stale = true;
        daemon.service.registry().context().db.put(&record).await.unwrap();
        daemon.crash().await;
        std::fs::write(&path, &old).unwrap();
        if !runs {
            // Somebody is faster than the supervisor: this run has what was revoked.
            world.systemd.foreign_start();
        }
        let daemon = world.daemon().await;
        let view = daemon.until("a", "renewed", |_| planned(&world).is_empty()).await;
        assert_eq!((view.state.as_str(), view.in_force.unwrap().len()), ("running", 1));
        let record = daemon.service.registry().get(&id("a")).unwrap().record().unwrap();
        assert!(record.plan_stale || record.in_force.is_some());
        daemon.service.restart(&id("a")).await.unwrap();
        assert_eq!(daemon.until_state("a", "running").await.in_force, None);
    }
}

#[tokio::test]
async fn without_a_plan_what_is_revoked_is_revoked_all_the_same() {
    let world = World::new();
    let daemon = world.daemon().await;
    daemon.run("a", "once").await.unwrap();
    let moved = world.path("away");
    std::fs::rename(world.path("rootfs"), &moved).unwrap();
    let changed = revoke(&daemon, "file_read: /srv/**", Apply::NextStart).await;
    assert!(changed.note.unwrap().contains("cannot start as it is now"));
    assert_eq!(planned(&world), ["no plan"]);
    std::fs::rename(&moved, world.path("rootfs")).unwrap();
    daemon.service.restart(&id("a")).await.unwrap();
    assert_eq!(planned(&world), [""; 0]);
}

/// What is in the way of the plan stands for a disk that is full.
#[tokio::test]
async fn a_plan_that_cannot_be_written_is_none_until_it_can() {
    let world = World::new();
    let daemon = world.daemon().await;
    daemon.run("a", "once").await.unwrap();
    let in_the_way = world.path("state/agents/a/.plan.json.new");
    std::fs::create_dir(&in_the_way).unwrap();
    let changed = revoke(&daemon, "file_read: /srv/**", Apply::NextStart).await;
    assert!(changed.note.unwrap().contains(".plan.json.new"));
    assert_eq!(planned(&world), ["no plan"]);
    std::fs::remove_dir(&in_the_way).unwrap();
    daemon.until("a", "planned", |_| planned(&world).is_empty()).await;

    // What the plan would be kept as is in the way: nothing is changed, now or later.
    daemon.service.stop(&id("a")).await.unwrap();
    daemon.run("a", "once").await.unwrap();
    std::fs::create_dir(world.path("state/agents/a/.plan-in-force.json.new")).unwrap();
    change(&daemon, Change::Grant(set(&["listen: 80"])), Apply::NextStart).await.unwrap_err();
    let view = daemon.until_state("a", "running").await;
    assert_eq!(
        (view.capabilities, planned(&world)),
        (vec!["file_read: /srv/**".to_owned()], vec!["file_read: /srv/**".to_owned()])
    );
}

#[tokio::test]
async fn explain_shows_what_is_declared_and_what_is_in_force() {
    let world = World::new();
    let daemon = world.daemon().await;
    daemon.run("a", "once").await.unwrap();
    let explain = async || -> Explanation {
        serde_json::from_str(&crate::explain::explain(&daemon.service, &id("a")).await.unwrap()).unwrap()
    };
    let has_grant = |explanation: &Explanation| {
        explanation
            .grants
            .iter()
            .any(|grant| grant.layer == "landlock" && grant.cause == "file_read: /srv/**")
    };
    let before = explain().await;
    assert!(has_grant(&before) && !before.notes.iter().any(|note| note.contains("changed since")));
    revoke(&daemon, "file_read: /srv/**", Apply::NextStart).await;
    let now = explain().await;
    assert!(has_grant(&now), "the kernel's rules are those of the run");
    assert!(
        now.notes.iter().any(|note| note.contains("still in force until it is restarted")),
        "{:?}",
        now.notes
    );
    let row = &now.capabilities[0];
    assert_eq!((row.declared, row.in_force), (false, Some(true)));
    // A plan that could not be kept is no reason not to explain.
    std::fs::remove_file(world.path("state/agents/a/plan-in-force.json")).unwrap();
    let notes = explain().await.notes;
    assert!(notes.iter().any(|note| note.contains("is not kept")), "{notes:?}");
    daemon.service.stop(&id("a")).await.unwrap();
    let after = explain().await;
    assert!(!has_grant(&after) && after.capabilities.is_empty());
}

/// What is in the way stands for a disk that is full, and for whatever else an agent can fill.
#[tokio::test]
async fn a_plan_that_cannot_be_kept_does_not_keep_what_is_revoked() {
    for in_the_way in [".plan-in-force.json.new", "plan-in-force.json"] {
        let world = World::new();
        let daemon = world.daemon().await;
        daemon.run("a", "once").await.unwrap();
        std::fs::create_dir_all(world.path("state/agents/a").join(in_the_way).join("x")).unwrap();
        let changed = revoke(&daemon, "file_read: /srv/**", Apply::NextStart).await;
        assert_eq!((changed.effect.as_str(), changed.note), ("next-start", None));
        assert_eq!(planned(&world), [""; 0]);
        let explained = crate::explain::explain(&daemon.service, &id("a")).await.unwrap();
        let explained: Explanation = serde_json::from_str(&explained).unwrap();
        let is_kept = in_the_way.starts_with('.');
        assert_eq!(explained.grants.iter().any(|grant| grant.cause == "file_read: /srv/**"), is_kept);
        assert_eq!(explained.notes.iter().any(|note| note.contains("is not kept")), !is_kept);
    }
}

#[tokio::test]
async fn what_can_still_be_read_is_said() {
    let world = World::new();
    let daemon = world.daemon().await;
    daemon.run("a", "once").await.unwrap();
    change(&daemon, Change::Grant(set(&["file_write: /srv/out/**"])), Apply::NextStart).await.unwrap();
    let note = revoke(&daemon, "file_read: /srv/**", Apply::NextStart).await.note.unwrap();
    assert!(note.contains("`file_write: /srv/out/**` names can still be read"), "{note}");
}

/// Who may only read must not be able to keep a package.
#[tokio::test]
async fn a_plan_that_is_made_keeps_no_package() {
    let world = World::new();
    let daemon = world.daemon().await;
    let waiting = world.wait_at_trust();
    let reference = "once:1.0.0".parse().unwrap();
    let (agent, service) = (id("a"), &daemon.service);
    let (plan, removed) = tokio::join!(service.plan(&agent, &reference, RunRequest::default()), async {
        waiting.asked.notified().await;
        let removed = service.remove_package(&reference).await;
        waiting.go_on.notify_one();
        removed
    });
    removed.unwrap();
    assert_eq!(plan.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn a_plan_is_shown_without_an_agent() {
    let world = World::new();
    let daemon = world.daemon().await;
    let plan = |package: &str, request: RunRequest| {
        let (service, package) = (std::sync::Arc::clone(&daemon.service), package.parse().unwrap());
        async move { service.plan(&id("a"), &package, request).await }
    };
    let limits = serde_json::from_str(r#"{"memory":"1M"}"#).unwrap();
    let request = RunRequest { limits, arguments: vec!["x".into()], ..RunRequest::default() };
    let outline = plan("once", request).await.unwrap();
    assert_eq!((outline.agent.as_str(), outline.argv.last().unwrap().as_str()), ("a", "x"));
    assert_eq!((outline.unit[0].name.as_str(), outline.unit[0].value), ("MemoryMax", 1 << 20));
    assert!(outline.paths.iter().any(|row| row.cause == "file_read: /srv/**"));
    assert_eq!(plan("online", RunRequest::default()).await.unwrap_err().kind(), ErrorKind::Refused);
    world.distrust(true);
    assert_eq!(plan("once", RunRequest::default()).await.unwrap_err().kind(), ErrorKind::Untrusted);
    assert!(daemon.service.agents().await.is_empty() && !world.path("state/agents").exists());
    assert_eq!(world.systemd.calls(), [] as [&str; 0]);
}
