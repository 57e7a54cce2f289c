//! Commands that change an agent that runs, against a supervisor that plays its part.

use crate::machine::{Machine, agent, package};

/// Runs the command; its exit status, and what it printed and said.
fn aos(machine: &Machine, words: &[&str]) -> (Option<i32>, String, String) {
    let output = machine.aos().args(words).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn an_agent_is_paused_and_goes_on() {
    let machine = Machine::start();
    machine.state.lock().unwrap().agents.push(agent("hello"));
    assert_eq!(aos(&machine, &["pause", "hello"]), (Some(0), String::new(), "hello: paused\n".into()));
    let (_, shown, _) = aos(&machine, &["list"]);
    assert!(shown.contains("paused"), "{shown}");
    let (status, _, said) = aos(&machine, &["pause", "hello"]);
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains("cannot pause hello") && said.contains("is paused"), "{said}");
    // A paused agent is not removed by mistake.
    let (status, _, said) = aos(&machine, &["remove", "hello"]);
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains("it is paused") && said.contains("--stop"), "{said}");
    let (status, shown, _) = aos(&machine, &["resume", "hello", "--json"]);
    assert_eq!(status, Some(0));
    let value: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!((&value[0]["name"], &value[0]["done"]), (&"hello".into(), &true.into()));
    assert_eq!(machine.calls(), ["pause hello", "pause hello", "resume hello"]);
}

#[test]
fn what_an_agent_may_do_is_shown_and_changed() {
    let machine = Machine::start();
    machine.state.lock().unwrap().agents.push(agent("hello"));
    let (status, _, said) = aos(&machine, &["capability", "revoke", "hello", "file_read: /srv/**"]);
    assert_eq!(status, Some(0), "{said}");
    assert!(said.contains("from the next start") && said.contains("goes on with what it had"), "{said}");
    let (_, shown, _) = aos(&machine, &["status", "hello"]);
    assert!(shown.contains("what runs was given: file_read: /srv/**"), "{shown}");
    let (_, shown, _) = aos(&machine, &["capability", "narrow", "hello", "listen:80", "--now", "--json"]);
    let value: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!((&value["effect"], &value["capabilities"][0]), (&"restart".into(), &"listen: 80".into()));
    let (_, _, said) = aos(&machine, &["capability", "revoke", "hello", "--all", "--stop"]);
    assert!(said.contains("stopped, in force from the next start"), "{said}");
    let (_, shown, _) = aos(&machine, &["capability", "list", "hello"]);
    insta::assert_snapshot!(shown, @r"
    CAPABILITY  STATE                                  ENFORCED BY       FROM  SINCE
    listen: 80  revoked, still in force until restart  kernel: Landlock  -     -
    ");
    let (_, shown, _) = aos(&machine, &["capability", "list", "hello", "--json"]);
    let value: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!((&value[0]["declared"], &value[0]["in_force"]), (&false.into(), &true.into()));
    assert_eq!(
        machine.calls(),
        [
            "revoke hello [\"file_read: /srv/**\"] None",
            "narrow hello [\"listen: 80\"] Some(\"restart\")",
            "narrow hello [] Some(\"stop\")",
        ]
    );
    for wrong in [
        &["capability", "revoke", "hello"][..],
        &["capability", "revoke", "hello", "listen: 80", "--all"],
        &["capability", "grant", "hello", "tea"],
        &["capability", "grant", "hello", "listen: 80", "--now", "--stop"],
    ] {
        assert_eq!(aos(&machine, wrong).0, Some(2), "{wrong:?}");
    }
}

#[test]
fn what_is_revoked_and_still_in_force_is_explained() {
    let machine = Machine::start();
    machine.state.lock().unwrap().explanation = r#"{
        "agent": "hello", "reference": "hello:1.0.0", "state": "paused", "pid": 7, "from_the_future": 1,
        "capabilities": [
            {"capability": "listen: 80", "enforced_by": "kernel: Landlock", "declared": true, "in_force": false},
            {"capability": "file_read: /srv/**", "enforced_by": "kernel: Landlock", "declared": false, "in_force": true}
        ],
        "grants": [{"layer": "landlock", "what": "/srv read", "cause": "file_read: /srv/**"}],
        "layers": [{"layer": "freezer", "asked": "frozen", "in_force": "running", "ok": false, "cause": "aos pause",
                    "source": "cgroup"}],
        "notes": ["changed"]
    }"#
    .into();
    let (status, shown, said) = aos(&machine, &["explain", "hello"]);
    assert_eq!(status, Some(0), "{said}");
    insta::assert_snapshot!(shown, @r"
    hello (hello:1.0.0) is paused, process 7
    note: changed

    CAPABILITY          STATE                                  ENFORCED BY
    listen: 80          from the next start                    kernel: Landlock
    file_read: /srv/**  revoked, still in force until restart  kernel: Landlock

    GRANTED    BY        BECAUSE OF
    /srv read  landlock  file_read: /srv/**

    LAYER    ASKED   IN FORCE  OK  SEEN BY  BECAUSE OF
    freezer  frozen  running   NO  cgroup   aos pause

    1 layer is not in force as asked
    ");
    let (_, shown, _) = aos(&machine, &["explain", "hello", "--json"]);
    let value: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(value["from_the_future"], 1, "what this version does not know is passed on");
}

#[test]
fn the_plan_of_an_installed_package_is_the_supervisors() {
    let machine = Machine::start();
    {
        let mut state = machine.state.lock().unwrap();
        state.packages.push(package());
        state.plan = r#"{
            "agent": "www", "argv": ["/app/x", "y"], "cwd": "/workspace", "env": {}, "namespaces": ["user"],
            "mounts": [{"what": "/srv", "how": "/srv, read only", "cause": "file_read: /srv/**"}],
            "paths": [], "programs": [{"what": "/app/x", "how": "execute", "cause": "entrypoint"}], "ports": [],
            "seccomp": {"policy": "agent-v1", "instructions": 198, "allowed": 270, "checked": 19},
            "rlimits": [{"name": "open files", "value": 4096}], "unit": []
        }"#
        .into();
    }
    let words = ["run", "--dry-run", "hello", "--name", "www", "--memory", "1M", "--", "y"];
    let (status, shown, said) = aos(&machine, &words);
    assert_eq!(status, Some(0), "{said}");
    insta::assert_snapshot!(shown, @r"
    www would run /app/x y in /workspace
    namespaces of its own: user

    FILE TREE  WHAT IS THERE    BECAUSE OF
    /srv       /srv, read only  file_read: /srv/**

    PROGRAM  ALLOWS   BECAUSE OF
    /app/x   execute  entrypoint

    seccomp: policy agent-v1 in 198 instructions; 270 system calls allowed, 19 by their arguments, all others refused
    each process: open files 4096
    unit aos-agent@www.service: no limits but the template's
    ");
    assert_eq!(machine.calls(), [r#"plan www hello:1.0.0 ["y"] Some("1M")"#]);
    machine.state.lock().unwrap().refuses = Some("net: a.example:443 needs aos-broker".into());
    let (status, _, said) = aos(&machine, &words);
    assert_eq!(status, Some(125));
    assert!(said.contains("cannot run hello:1.0.0 as www") && said.contains("needs aos-broker"), "{said}");
}
