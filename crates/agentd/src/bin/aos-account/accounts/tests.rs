//! Accounts in a temporary folder: allocation, repair after every cut, and what is left alone.

use super::*;

struct World {
    dir: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        std::fs::write(
            dir.path().join("etc/passwd"),
            "root:x:0:0::/root:/bin/sh\naos:x:990:990::/:/bin/false\n",
        )
        .unwrap();
        std::fs::write(dir.path().join("etc/group"), "root:x:0:\naos-agents:x:991:\n").unwrap();
        std::fs::create_dir(dir.path().join("run-userdb")).unwrap();
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn open(&self) -> Accounts {
        Accounts::open(&Places {
            userdb: self.path("userdb"),
            state: self.path("state"),
            etc: self.path("etc"),
            other_userdbs: vec![self.path("run-userdb"), self.path("missing")],
            forks: self.path("forks"),
        })
        .unwrap()
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = std::fs::read_dir(self.path("userdb"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

fn id(text: &str) -> AgentId {
    text.parse().unwrap()
}

#[test]
fn a_fork_has_its_parents_number_under_another_name() {
    let world = World::new();
    std::fs::create_dir(world.path("forks")).unwrap();
    let note = |name: &str, text: &str| std::fs::write(world.path("forks").join(name), text).unwrap();
    note("try-1", "web 2\n");
    note("try-2", "try-1 0\n");
    // The parent's own account comes with it.
    let uid = world.open().add(&id("try-2")).unwrap();
    assert_eq!(world.open().add(&id("web")).unwrap(), uid);
    assert_eq!(world.open().add(&id("try-1")).unwrap(), uid);
    assert_eq!(world.open().add(&id("try-1")).unwrap(), uid, "adding twice changes nothing");
    let link = std::fs::read_link(world.path("userdb").join(format!("{uid}.user"))).unwrap();
    assert_eq!(link, PathBuf::from("aos-web.user"), "the number is the parent's");
    assert_eq!(world.open().add(&id("db")).unwrap(), uid + 1);
    assert_eq!(world.open().remove(&id("try-1")).unwrap(), Removed::Account(uid));
    assert!(
        world.names().contains(&format!("{uid}.user")) && world.names().contains(&"aos-web.user".to_owned())
    );
    assert!(!world.names().contains(&"aos-try-1.user".to_owned()));
    // One that has a number of its own keeps it.
    note("db", "web 1\n");
    assert!(matches!(world.open().add(&id("db")), Err(AccountError::Disagree { .. })));
}

#[test]
fn the_folder_of_forks_is_the_supervisors_to_make() {
    let world = World::new();
    world.open().add(&id("web")).unwrap();
    assert!(!world.path("forks").exists(), "below /var/lib the unit may write its own folder only");
}

#[test]
fn the_number_of_a_fork_is_in_use_when_its_owner_is_gone() {
    let world = World::new();
    std::fs::create_dir(world.path("forks")).unwrap();
    std::fs::write(world.path("forks/try"), "web 1\n").unwrap();
    let uid = world.open().add(&id("try")).unwrap();
    world.open().add(&id("web")).unwrap();
    world.open().remove(&id("web")).unwrap();
    std::fs::write(world.path("state/next"), format!("{uid}\n")).unwrap();
    assert_eq!(world.open().add(&id("db")).unwrap(), uid + 1);
    // Half a record counts too.
    std::fs::remove_file(world.path("userdb/aos-try.user")).unwrap();
    std::fs::write(world.path("state/next"), format!("{uid}\n")).unwrap();
    assert_eq!(world.open().add(&id("mail")).unwrap(), uid + 2);
    world.open().remove(&id("try")).unwrap();
    std::fs::write(world.path("state/next"), format!("{uid}\n")).unwrap();
    assert_eq!(world.open().add(&id("free")).unwrap(), uid);
}

#[test]
fn notes_of_forks_name_agents_and_nothing_else() {
    let world = World::new();
    std::fs::create_dir(world.path("forks")).unwrap();
    for text in ["", "root", "../../root 1\n", "self 1\n", "Root 1\n", " 1\n"] {
        std::fs::write(world.path("forks/self"), text).unwrap();
        assert!(matches!(world.open().add(&id("self")), Err(AccountError::Fork(_))), "{text:?}");
    }
    std::fs::write(world.path("forks/a"), "b 1\n").unwrap();
    std::fs::write(world.path("forks/b"), "a 1\n").unwrap();
    assert!(matches!(world.open().add(&id("a")), Err(AccountError::Circle(_))));
    std::os::unix::fs::symlink("/etc/passwd", world.path("forks/c")).unwrap();
    assert!(matches!(world.open().add(&id("c")), Err(AccountError::Fork(_))));
    assert_eq!(world.names(), Vec::<String>::new());
}

#[test]
fn adds_counts_on_and_does_not_recycle() {
    let world = World::new();
    let first = world.open().add(&id("web")).unwrap();
    assert_eq!(first, 1_879_113_728);
    assert_eq!(world.open().add(&id("web")).unwrap(), first, "adding twice changes nothing");
    assert_eq!(world.open().add(&id("db")).unwrap(), first + 1);
    assert_eq!(world.open().remove(&id("db")).unwrap(), Removed::Account(first + 1));
    assert_eq!(world.open().remove(&id("db")).unwrap(), Removed::Nothing);
    assert_eq!(world.open().add(&id("db")).unwrap(), first + 2, "a freed uid is not given again");
    let (a, c) = (first, first + 2);
    assert_eq!(
        world.names(),
        [
            format!("{a}.group"),
            format!("{a}.user"),
            format!("{c}.group"),
            format!("{c}.user"),
            "aos-db.group".into(),
            "aos-db.user".into(),
            "aos-web.group".into(),
            "aos-web.user".into(),
        ]
    );
    let target = std::fs::read_link(world.path(&format!("userdb/{a}.user"))).unwrap();
    assert_eq!(target, Path::new("aos-web.user"));
}

#[test]
fn wraps_and_skips_what_is_in_use() {
    let world = World::new();
    let first = world.open().add(&id("a")).unwrap();
    std::fs::write(world.path("state/next"), format!("{}\n", UIDS.end())).unwrap();
    assert_eq!(world.open().add(&id("b")).unwrap(), *UIDS.end());
    std::fs::write(world.path(&format!("run-userdb/{}.user", first + 1)), "{}").unwrap();
    std::fs::write(world.path("etc/group"), format!("x:x:{}:\n", first + 2)).unwrap();
    assert_eq!(world.open().add(&id("c")).unwrap(), first + 3);
}

#[test]
fn a_damaged_counter_starts_over_without_a_clash() {
    let world = World::new();
    let first = world.open().add(&id("a")).unwrap();
    for damage in ["", "x", "-1", "99999999999999", "0", "1000"] {
        std::fs::write(world.path("state/next"), damage).unwrap();
        assert_eq!(world.open().add(&id("b")).unwrap(), first + 1, "{damage:?}");
        world.open().remove(&id("b")).unwrap();
    }
}

#[test]
fn a_run_cut_short_anywhere_is_completed() {
    let steps = ["{uid}.group", "{uid}.user", "aos-web.user", "aos-web.group"];
    for missing in 0..16u32 {
        let world = World::new();
        let uid = world.open().add(&id("web")).unwrap();
        let whole = world.names();
        for (bit, step) in steps.iter().enumerate() {
            if missing & (1 << bit) != 0 {
                std::fs::remove_file(world.path("userdb").join(step.replace("{uid}", &uid.to_string())))
                    .unwrap();
            }
        }
        let again = world.open().add(&id("web")).unwrap();
        if missing & 0b1100 != 0b1100 {
            assert_eq!(again, uid, "case {missing:04b}");
            assert_eq!(world.names(), whole, "case {missing:04b}");
        }
        world.open().remove(&id("web")).unwrap();
        if missing & 0b1100 != 0b1100 {
            assert!(world.names().is_empty(), "case {missing:04b}: {:?}", world.names());
        }
    }
}

#[test]
fn leaves_alone_what_is_not_its_own() {
    let world = World::new();
    drop(world.open());
    for foreign in [
        "{}",
        "not json",
        r#"{"userName":"aos-web","uid":0,"gid":0}"#,
        r#"{"userName":"aos-other","uid":1879113728,"gid":1879113728}"#,
    ] {
        std::fs::write(world.path("userdb/aos-web.user"), foreign).unwrap();
        assert!(matches!(world.open().add(&id("web")), Err(AccountError::NotOurs(_))), "{foreign}");
        assert!(matches!(world.open().remove(&id("web")), Err(AccountError::NotOurs(_))), "{foreign}");
        assert_eq!(std::fs::read(world.path("userdb/aos-web.user")).unwrap(), foreign.as_bytes());
    }
    std::fs::remove_file(world.path("userdb/aos-web.user")).unwrap();
    std::os::unix::fs::symlink("/etc/shadow", world.path("userdb/aos-web.user")).unwrap();
    assert!(matches!(world.open().add(&id("web")), Err(AccountError::NotOurs(_))));
    assert!(world.path("userdb/aos-web.user").is_symlink());
}

#[test]
fn a_link_that_points_elsewhere_survives_removal() {
    let world = World::new();
    let uid = world.open().add(&id("web")).unwrap();
    let link = world.path(&format!("userdb/{uid}.user"));
    std::fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink("somebody.user", &link).unwrap();
    world.open().remove(&id("web")).unwrap();
    assert_eq!(world.names(), [format!("{uid}.user")]);
}

#[test]
fn names_of_the_machine_are_refused() {
    let world = World::new();
    // The agent "agents" would be in a group of its own that is the group of all agents.
    assert!(matches!(world.open().add(&id("agents")), Err(AccountError::NameTaken { .. })));
    std::fs::write(world.path("run-userdb/aos-web.group"), "{}").unwrap();
    assert!(matches!(world.open().add(&id("web")), Err(AccountError::NameTaken { .. })));
    assert!(world.names().is_empty());
}
