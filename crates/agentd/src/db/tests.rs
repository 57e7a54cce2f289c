//! The database: round trips, migrations, the lock, damage.

use super::*;
use aos_core::state::ExitResult;

pub(crate) fn record(id: &str) -> AgentRecord {
    AgentRecord {
        id: id.parse().unwrap(),
        spec: Spec {
            reference: "hello:1.0.0".parse().unwrap(),
            digest: format!("sha256:{}", "0".repeat(64)).parse().unwrap(),
            lifecycle: aos_core::config::Lifecycle::Oneshot,
            arguments: vec!["--x".into(), "a b\n".into()],
            capabilities: aos_core::capability::CapabilitySet::parse(["file_read: /data/**"]).unwrap(),
            limits: serde_json::from_str(r#"{"memory":"64M"}"#).unwrap(),
        },
        target: Target::Run,
        failures: 0,
        retry_at_us: None,
        error: None,
        removing: None,
        created_at_us: 5,
        origins: Origins::new(),
        in_force: None,
        plan_stale: false,
        run: None,
    }
}

fn run(number: u8) -> Run {
    Run {
        invocation: InvocationId::from_bytes(&[number; 16]).unwrap(),
        boot: "b".into(),
        started_at_us: u64::from(number) * 100,
        end: None,
    }
}

#[test]
fn migrations_are_valid() {
    schema::migrations().validate().unwrap();
}

#[tokio::test]
async fn records_round_trip_and_survive_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let mut agent = record("web");
    {
        let db = Db::open(dir.path()).unwrap();
        db.put(&agent).await.unwrap();
        agent.run = Some(run(1));
        agent.failures = 3;
        agent.retry_at_us = Some(7);
        agent.error = Some("e".into());
        agent.removing = Some(Removal::KeepWorkspace);
        agent.origins = Origins::from([(
            "file_read: /data/**".to_owned(),
            Provenance { origin: Origin::Narrowed, since_us: 9 },
        )]);
        agent.in_force = Some(aos_core::capability::CapabilitySet::new());
        agent.plan_stale = true;
        db.put(&agent).await.unwrap();
        agent.run =
            Some(Run { end: Some(End { at_us: None, result: ExitResult::Signal, status: 9 }), ..run(2) });
        db.put(&agent).await.unwrap();
        db.put(&record("db")).await.unwrap();
        db.delete(&"db".parse().unwrap()).await.unwrap();
        db.ping().await.unwrap();
    }
    let db = reopen(dir.path()).await;
    let agents: Vec<_> = db.agents().await.unwrap().into_iter().map(Result::unwrap).collect();
    assert_eq!(agents, [agent]);
}

/// Opens the database again; the thread of the dropped handle ends a moment after the drop.
async fn reopen(folder: &Path) -> Db {
    loop {
        match Db::open(folder) {
            Err(DbError::Locked(_)) => tokio::task::yield_now().await,
            other => return other.unwrap(),
        }
    }
}

#[tokio::test]
async fn old_runs_are_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(dir.path()).unwrap();
    for number in 1..=30 {
        db.put(&AgentRecord { run: Some(run(number)), ..record("web") }).await.unwrap();
    }
    let count = db.call(|c| Ok(c.query_row("SELECT count(*) FROM runs", [], |row| row.get::<_, i64>(0))?));
    assert_eq!(count.await.unwrap(), 10);
    let agents = db.agents().await.unwrap();
    assert_eq!(agents[0].as_ref().unwrap().run, Some(run(30)));
}

#[tokio::test]
async fn a_second_supervisor_is_refused_and_the_files_are_private() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(dir.path()).unwrap();
    assert!(matches!(Db::open(dir.path()), Err(DbError::Locked(_))));
    db.put(&record("web")).await.unwrap();
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{}", entry.path().display());
    }
}

#[tokio::test]
async fn a_damaged_record_does_not_hide_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(dir.path()).unwrap();
    db.put(&record("a")).await.unwrap();
    db.put(&record("b")).await.unwrap();
    db.call(|c| Ok(c.execute("UPDATE agents SET digest = 'x' WHERE id = 'a'", [])?)).await.unwrap();
    let agents = db.agents().await.unwrap();
    assert!(matches!(&agents[0], Err(DbError::Damaged { agent, .. }) if agent == "a"));
    assert!(agents[1].is_ok());
}

/// Each of these would otherwise be taken for something that nobody decided: a success, a deletion, a stop.
#[tokio::test]
async fn half_an_end_and_unknown_words_are_damage() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(dir.path()).unwrap();
    let end = End { at_us: Some(7), result: ExitResult::Signal, status: 9 };
    let agent = AgentRecord { run: Some(Run { end: Some(end), ..run(1) }), ..record("a") };
    for damage in [
        "UPDATE runs SET status = NULL",
        "UPDATE runs SET result = NULL",
        "UPDATE runs SET result = NULL, status = NULL",
        "UPDATE runs SET result = 'x'",
        "UPDATE agents SET removing = 'x'",
        "UPDATE agents SET target = 'x'",
    ] {
        db.put(&agent).await.unwrap();
        assert_eq!(db.agents().await.unwrap()[0].as_ref().unwrap(), &agent, "before {damage}");
        // The schema keeps other programs from most of these.
        let script = format!("PRAGMA ignore_check_constraints = ON; {damage}");
        db.call(move |c| Ok(c.execute_batch(&script)?)).await.unwrap();
        let agents = db.agents().await.unwrap();
        assert!(matches!(&agents[0], Err(DbError::Damaged { agent, .. }) if agent == "a"), "{damage}");
    }
    db.put(&agent).await.unwrap();
    db.call(|c| Ok(c.execute("UPDATE runs SET ended_at_us = NULL", [])?)).await.unwrap();
    assert!(db.agents().await.unwrap()[0].is_ok(), "an end that nobody saw has no time");
}

/// An update finds what version 0.1.0 wrote.
#[tokio::test]
async fn records_of_the_first_schema_are_read() {
    let dir = tempfile::tempdir().unwrap();
    {
        let mut connection = Connection::open(dir.path().join("state.sqlite")).unwrap();
        schema::migrations().to_version(&mut connection, 1).unwrap();
        let spec = ("web", "hello:1.0.0", format!("sha256:{}", "0".repeat(64)));
        connection
            .execute(
                "INSERT INTO agents (id, reference, digest, lifecycle, arguments, capabilities, limits, target,
                                     created_at_us)
                 VALUES (?1, ?2, ?3, 'oneshot', '[\"--x\",\"a b\\n\"]', '[\"file_read: /data/**\"]',
                         '{\"memory\":\"64M\"}', 'run', 5)",
                spec,
            )
            .unwrap();
    }
    let db = Db::open(dir.path()).unwrap();
    let agents: Vec<_> = db.agents().await.unwrap().into_iter().map(Result::unwrap).collect();
    assert_eq!(agents, [record("web")]);
}

#[tokio::test]
async fn a_newer_schema_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    {
        let connection = Connection::open(dir.path().join("state.sqlite")).unwrap();
        connection.pragma_update(None, "user_version", 999).unwrap();
    }
    assert!(matches!(Db::open(dir.path()), Err(DbError::Migration(_))));
}

#[tokio::test]
async fn what_is_inserted_replaces_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(dir.path()).unwrap();
    let there = AgentRecord { failures: 7, ..record("b") };
    db.put(&there).await.unwrap();
    let error = db.insert_all(&[record("a"), record("b")]).await.unwrap_err();
    assert!(error.is_conflict(), "{error}");
    let all = || async { db.agents().await.unwrap().into_iter().map(Result::unwrap).collect::<Vec<_>>() };
    assert_eq!(all().await, std::slice::from_ref(&there), "all or none");
    db.insert_all(&[record("a"), record("c")]).await.unwrap();
    db.delete_all(&["a".parse().unwrap(), "c".parse().unwrap()]).await.unwrap();
    assert_eq!(all().await, [there]);
}

#[tokio::test]
async fn what_nobody_waits_for_is_not_inserted_later() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(dir.path()).unwrap();
    let release = db.stall().await;
    let hasty = db.clone().with_deadline(Duration::from_millis(20));
    assert!(matches!(hasty.insert_all(&[record("a")]).await, Err(DbError::Deadline)));
    drop(release);
    db.ping().await.unwrap();
    assert!(db.agents().await.unwrap().is_empty());
}

/// What is changed goes to where the files have room, after a restart too.
#[tokio::test]
async fn changes_need_no_room_on_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let sizes = || ["state.sqlite", "state.sqlite-wal"].map(|name| path(name).metadata().unwrap().len());
    let record = |number: usize| AgentRecord {
        id: format!("agent-{number}").parse().unwrap(),
        error: Some("e".repeat(500)),
        ..record("agent")
    };
    let db = Db::open(dir.path()).unwrap();
    for number in 0..20 {
        db.put(&record(number)).await.unwrap();
    }
    let before = sizes();
    assert!(before.iter().all(|size| *size > 2 << 20), "{before:?}");
    for round in 0..30 {
        for number in 0..20 {
            let record = AgentRecord { failures: round, ..record(number) };
            db.put(&record).await.unwrap();
        }
    }
    assert_eq!(sizes(), before);
    drop(db);
    let db = loop {
        // The thread lets go of the lock a moment later.
        match Db::open(dir.path()) {
            Err(DbError::Locked(_)) => tokio::task::yield_now().await,
            opened => break opened.unwrap(),
        }
    };
    assert_eq!(sizes(), before, "the log stays when the database is closed");
    for number in 0..20 {
        db.delete(&record(number).id).await.unwrap();
    }
    assert_eq!(sizes(), before);
    assert!(db.agents().await.unwrap().is_empty());
}

#[tokio::test]
async fn without_a_file_for_the_index_it_opens_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    // As on a full disk, where the file cannot be made as large as it has to be.
    std::fs::create_dir(dir.path().join("state.sqlite-shm")).unwrap();
    let db = Db::open(dir.path()).unwrap();
    db.put(&record("agent")).await.unwrap();
    assert_eq!(db.agents().await.unwrap().len(), 1);
}
