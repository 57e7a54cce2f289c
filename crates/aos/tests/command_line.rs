//! What the command says without a machine: help, errors, building, manual pages and completions.
#![expect(clippy::unwrap_used, reason = "a panic is the failure report of a test")]

use std::fs;
use std::path::Path;

use assert_cmd::Command;

fn aos() -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("aos"));
    command.env("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent/bus").env_remove("SOURCE_DATE_EPOCH");
    // Nothing of this machine's; a test that builds has a store of its own.
    command.env("AOS_STORE", "/nonexistent/store").env("HOME", "/nonexistent");
    command
}

/// Runs it and returns its exit status, standard output and standard error.
fn run(args: &[&str]) -> (i32, String, String) {
    run_in(Path::new("/"), args)
}

fn run_in(folder: &Path, args: &[&str]) -> (i32, String, String) {
    let mut command = aos();
    if folder != Path::new("/") {
        command.env("AOS_STORE", folder.with_extension("store"));
    }
    let output = command.current_dir(folder).args(args).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

fn agent(folder: &Path, agentfile: &str) {
    fs::write(folder.join("Agentfile"), agentfile).unwrap();
    fs::write(folder.join("main.py"), "#!/usr/bin/python3\nprint('hello')\n").unwrap();
}

const GOOD: &str = "apiVersion: aos/v1\nkind: Agent\nmetadata: { name: hello, version: 1.2.3 }\n\
                    run: { entrypoint: [ /usr/bin/python3, /app/main.py ] }\n";

#[test]
fn help() {
    let (status, help, _) = run(&["--help"]);
    assert_eq!(status, 0);
    insta::assert_snapshot!("help", help);
    let (_, help, _) = run(&["run", "--help"]);
    insta::assert_snapshot!("help-run", help);
    for command in ["build", "push", "pull", "inspect", "lock", "verify", "gc", "key"] {
        let (_, help, _) = run(&[command, "--help"]);
        insta::assert_snapshot!(format!("help-{command}"), help);
    }
    let (_, help, _) = run(&["configure", "--help"]);
    insta::assert_snapshot!("help-configure", help);
}

#[test]
fn a_wrong_command_line() {
    for args in
        [&["rnu"][..], &["run"], &["list", "--jsno"], &["run", "x", "--name", "Bad Id"], &["logs", "../x"]]
    {
        let (status, shown, said) = run(args);
        assert_eq!(status, 2, "{args:?}");
        assert_eq!(shown, "");
        assert!(said.starts_with("error:"), "{said}");
    }
}

#[test]
fn no_machine() {
    let (status, _, said) = run(&["list"]);
    assert_eq!(status, 1);
    assert!(said.contains("cannot reach the system bus"), "{said}");
    assert!(said.contains("\nhint: "), "{said}");
    let folder = tempfile::tempdir().unwrap();
    agent(folder.path(), GOOD);
    assert_eq!(run_in(folder.path(), &["run", "."]).0, 125);
    tidy(folder);
}

#[test]
fn building_twice_gives_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    agent(folder.path(), GOOD);
    let (status, shown, said) = run_in(folder.path(), &["build"]);
    assert_eq!((status, shown.as_str()), (0, "hello:1.2.3\n"), "{said}");
    assert!(said.lines().last().unwrap().starts_with("hello:1.2.3 sha256:"), "{said}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "nothing is written beside the Agentfile");
    let (status, shown, _) = run_in(folder.path(), &["build", "./", "-o", "first.aap"]);
    assert_eq!((status, shown.as_str()), (0, "first.aap\n"));
    let first = fs::read(folder.path().join("first.aap")).unwrap();
    fs::remove_file(folder.path().join("first.aap")).unwrap();
    let store = folder.path().with_extension("other");
    let piped =
        aos().current_dir(folder.path()).env("AOS_STORE", &store).args(["build", ".", "-o", "-"]).output();
    assert_eq!(piped.unwrap().stdout, first);
    fs::remove_dir_all(store).unwrap();
    tidy(folder);
}

/// Removes a folder and the store beside it.
fn tidy(folder: tempfile::TempDir) {
    let store = folder.path().with_extension("store");
    if store.exists() {
        fs::remove_dir_all(store).unwrap();
    }
    folder.close().unwrap();
}

#[test]
fn a_build_that_fails_names_the_place_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    for (line, says) in [
        ("budget: { usd: 1 }", "Agentfile:5:1: budget"),
        ("capabilities: [ 'fly: /' ]", "Agentfile:5:"),
        ("run: {}", "Agentfile:5:"),
        ("nonsense: 1", "Agentfile:5:1: nonsense"),
    ] {
        agent(folder.path(), &format!("{GOOD}{line}\n"));
        let (status, shown, said) = run_in(folder.path(), &["build", "."]);
        assert_eq!((status, shown.as_str()), (1, ""), "{line}");
        assert!(said.contains(says), "{line}: {said}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "{line}");
    }
    tidy(folder);
}

#[test]
fn what_is_pointed_at_must_be_there() {
    let (status, _, said) = run(&["run", "./nowhere"]);
    assert_eq!(status, 125);
    assert!(said.contains("cannot find ./nowhere"), "{said}");
    let (status, _, said) = run(&["install", "/nonexistent.aap"]);
    assert_eq!(status, 3);
    assert!(said.contains("error:"), "{said}");
}

#[test]
fn a_wrong_place_is_told_in_the_users_words() {
    let folder = tempfile::tempdir().unwrap();
    agent(folder.path(), GOOD);
    let (status, _, said) = run_in(folder.path(), &["build", ".", "-o", "/nonexistent/x"]);
    assert_eq!(status, 1);
    assert_eq!(said, "error: the folder /nonexistent does not exist\n");
    let (_, _, said) = run_in(folder.path(), &["build", ".", "-o", "main.py/x"]);
    assert_eq!(said, "error: main.py is not a folder\n");
    fs::create_dir(folder.path().join("taken")).unwrap();
    let (_, _, said) = run_in(folder.path(), &["build", ".", "-o", "taken"]);
    assert!(said.contains("cannot write taken") && !said.contains(".aos-build-"), "{said}");
    fs::remove_dir(folder.path().join("taken")).unwrap();
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);

    let (status, _, said) = run_in(folder.path(), &["build", "main.py"]);
    assert_eq!(status, 1);
    assert_eq!(
        said,
        "error: main.py is a file\nhint: `aos build` takes a folder with an Agentfile, `aos install` a package\n"
    );
    let (status, _, said) = run(&["run", "hello:latest"]);
    assert_eq!(status, 125);
    assert!(
        said.ends_with("hint: write hello for the newest version, or hello:1.2.3 for exactly one\n"),
        "{said}"
    );
    agent(folder.path(), &" ".repeat(300_000));
    let (_, _, said) = run_in(folder.path(), &["build", "."]);
    assert!(said.contains("./Agentfile: "), "{said}");
    tidy(folder);
}

#[test]
fn a_package_that_could_not_run_here_is_built_with_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    let text = GOOD.replace("/usr/bin/python3, /app/main.py", "/usr/bin/nope");
    agent(folder.path(), &format!("{text}capabilities: [ 'net: example.org:443', 'exec: /usr/bin/*' ]\n"));
    let (status, shown, said) = run_in(folder.path(), &["build", "."]);
    assert_eq!((status, shown.as_str()), (0, "hello:1.2.3\n"), "{said}");
    let warnings: Vec<&str> = said.lines().filter_map(|line| line.strip_prefix("warning: ")).collect();
    for (warning, starts) in warnings.iter().zip([
        "./Agentfile:5:17: capabilities[0]: capability `net: example.org:443` needs aos-broker",
        "./Agentfile:5:41: capabilities[1]: capability `exec: /usr/bin/*`: the kernel cannot enforce",
        "./Agentfile:4:22: run.entrypoint[0]: `/usr/bin/nope` is not on this machine",
    ]) {
        assert!(warning.starts_with(starts), "{warning}");
    }
    assert_eq!(warnings.len(), 3, "{said}");
    tidy(folder);
}

#[test]
fn a_dry_run_needs_no_machine_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let limited =
        "capabilities: [ 'file_read: /srv/**', 'listen: 8080' ]\nlimits: { memory: 64M, tasks: 8 }\n";
    agent(folder.path(), &format!("{GOOD}{limited}"));
    let (status, shown, said) =
        run_in(folder.path(), &["run", "--dry-run", ".", "--memory", "1M", "--", "x y"]);
    assert_eq!(status, 0, "{said}");
    for line in [
        "hello would run /usr/bin/python3 /app/main.py x y in /workspace",
        "/srv, read only, nothing executed",
        "8080  listen  listen: 8080",
        "seccomp: policy agent-v1 in ",
        "unit aos-agent@hello.service: MemoryMax 1048576, TasksMax 10",
    ] {
        assert!(shown.contains(line), "{line}\n{shown}");
    }
    let (_, shown, _) = run_in(folder.path(), &["run", "--dry-run", "--json", "--name", "www", "."]);
    let value: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!((&value["agent"], &value["unit"][0]["value"]), (&"www".into(), &(64 << 20).into()));
    // One of the user's store, by its name.
    let (status, _, said) = run_in(folder.path(), &["run", "--dry-run", "hello"]);
    assert_eq!(status, 0, "{said}");
    let (status, _, said) = run_in(folder.path(), &["run", "--dry-run", "nobody"]);
    assert_eq!(status, 125);
    assert!(said.contains("no package nobody is installed, or in your store"), "{said}");
    agent(folder.path(), &format!("{GOOD}capabilities: [ 'file_read: /etc/aos/**' ]\n"));
    let (status, shown, said) = run_in(folder.path(), &["run", "--dry-run", "."]);
    assert_eq!((status, shown.as_str()), (125, ""));
    assert!(said.contains("cannot run as hello") && said.contains("/etc/aos"), "{said}");
    for wrong in [&["run", ".", "--json"][..], &["run", ".", "--dry-run", "--detach"]] {
        assert_eq!(run_in(folder.path(), wrong).0, 2, "{wrong:?}");
    }
    tidy(folder);
}

#[test]
fn a_closed_pipe_is_no_error() {
    let script =
        format!("{} --help | true; echo ${{PIPESTATUS[0]}}", assert_cmd::cargo::cargo_bin!("aos").display());
    let output = Command::new("bash").args(["-c", &script]).output().unwrap();
    assert!(!String::from_utf8_lossy(&output.stderr).contains("panicked"));
}

#[test]
fn manual_pages_and_completions() {
    let folder = tempfile::tempdir().unwrap();
    let (man, completions) = (folder.path().join("man"), folder.path().join("completions"));
    assert_eq!(run(&["gen-man", man.to_str().unwrap()]).0, 0);
    assert_eq!(run(&["gen-completions", completions.to_str().unwrap()]).0, 0);
    for file in ["aos.bash", "_aos", "aos.fish"] {
        let text = fs::read_to_string(completions.join(file)).unwrap();
        assert!(text.contains("AOS_COMPLETE"), "{file}");
    }
    for page in ["aos.1", "aos-run.1", "aos-configure.1", "aos-packages.1", "aos-push.1", "aos-key.1"] {
        let text = fs::read_to_string(man.join(page)).unwrap();
        for section in ["EXAMPLES", "EXIT STATUS", "SEE ALSO"] {
            assert!(
                text.contains(&format!(".SH \"{section}\"")) || text.contains(&format!(".SH {section}")),
                "{page}"
            );
        }
    }
}

#[test]
fn the_tab_key_completes_commands() {
    let output = aos().env("AOS_COMPLETE", "fish").args(["--", "aos", "re"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let words: Vec<&str> = text.lines().filter_map(|line| line.split('\t').next()).collect();
    assert_eq!(words, ["restart", "resume", "remove", "restore"]);
}

#[test]
fn only_root_configures() {
    if rustix::process::geteuid().is_root() {
        return;
    }
    let (status, _, said) = run(&["configure"]);
    assert_eq!(status, 1);
    assert!(said.contains("only root"), "{said}");
}
