//! What the manual says beyond the options: examples, exit statuses, files and references. One table; `--help`
//! and the manual pages are made from it.

use clap::Command;

/// The manual of one command.
pub(crate) struct Page {
    /// The words after `aos`; empty for `aos` itself.
    pub(crate) command: &'static str,
    /// Command lines and what they do.
    pub(crate) examples: &'static [(&'static str, &'static str)],
    /// Exit statuses and what they mean.
    pub(crate) exit: &'static [(&'static str, &'static str)],
    /// Files and what they are.
    pub(crate) files: &'static [(&'static str, &'static str)],
    /// Other pages.
    pub(crate) see_also: &'static [&'static str],
}

const EXIT: &[(&str, &str)] = crate::exit::TABLE;

const EXIT_RUN: &[(&str, &str)] = &[
    ("0", "The agent ended well."),
    ("N", "The agent's own exit status."),
    ("124", "The agent took longer than its limit and was ended."),
    ("125", "aos itself failed: the package was not built, installed or started."),
    ("128+N", "The agent was ended by signal N; 137 when it used more memory than its limit."),
    ("130", "A second Ctrl-C left the agent to itself."),
    ("141", "The reader of the output went away; the agent goes on."),
    ("2", "The command line is wrong (an agent may exit with 2, too)."),
];

const EXIT_EXEC: &[(&str, &str)] = &[
    ("0", "The command ended well."),
    ("N", "The command's own exit status."),
    ("124", "The command took longer than --timeout and was ended."),
    ("125", "aos itself failed, or the command's sandbox could not be made: nothing of it ran."),
    ("126", "The command is not there, or may not be executed."),
    ("128+N", "The command was ended by signal N; 137 when it used more memory than its limit."),
    ("2", "The command line is wrong (a command may exit with 2, too)."),
];

const USER_STORE: (&str, &str) = (
    "~/.local/share/aos, /var/lib/aos-packages",
    "Your package store, of root the latter; AOS_STORE names another. Its folder store/ is an OCI image layout.",
);
const TRUST: (&str, &str) = (
    "/etc/aos/trust.d/*.toml, STORE/trust.d/*.toml",
    "The trust policy: which keys may sign which names. The latter counts for your store alone.",
);
const KEYS: (&str, &str) =
    ("~/.config/aos/keys", "Your keys: NAME.key, encrypted, and NAME.pub; AOS_KEYS names another folder.");
const CREDENTIALS: (&str, &str) =
    ("~/.docker/config.json", "Credentials of registries; also REGISTRY_AUTH_FILE and containers/auth.json.");
const LOCK: (&str, &str) =
    ("Agentfile.lock", "The versions of the dependencies; keep it with the Agentfile.");
const WORKSPACE: (&str, &str) =
    ("/var/lib/aos-agents/ID", "The workspace of an agent, which it sees as /workspace.");
const CHANGES: (&str, &str) =
    ("/var/lib/aos-changes/ID", "What an agent changed in a transactional workspace, and its snapshots.");
const CHECKPOINTS: (&str, &str) = (
    "/var/lib/aos-changes/ID/checkpoints",
    "The files of an agent's checkpoints, each in a folder of its number.",
);
const STORE: (&str, &str) = ("/var/lib/aos/store", "The installed packages: an OCI image layout.");

/// The pages, in the order of the commands.
pub(crate) const PAGES: &[Page] = &[
    Page {
        command: "",
        examples: &[
            ("aos run ./examples/sitewatch", "Build, install and run the agent in a folder."),
            ("aos list", "Show the agents."),
            ("aos explain sitewatch", "Show what confines an agent."),
            ("aos build ./examples/sitewatch", "Build a package into your store."),
            ("aos push sitewatch:1.0.0 registry.example/team/sitewatch --sign ci", "Sign and publish it."),
            ("sudo aos configure", "Set up this machine."),
        ],
        exit: EXIT,
        files: &[
            ("/etc/aos/providers.d/NAME.toml", "A model provider: kind and base_url."),
            ("/etc/credstore.encrypted/aos.provider.NAME", "Its key, encrypted by systemd-creds(1)."),
            ("/etc/aos/enabled/ID", "An agent that is started at boot."),
            STORE,
            USER_STORE,
            TRUST,
            KEYS,
            WORKSPACE,
        ],
        see_also: &["systemctl(1)", "journalctl(1)", "systemd-cgtop(1)", "polkit(8)"],
    },
    Page {
        command: "run",
        examples: &[
            ("aos run ./examples/sitewatch", "Build the agent in a folder and run it to its end."),
            ("aos run ./watch -- /srv/www", "Pass arguments to the agent."),
            ("aos run --dry-run ./watch", "Show what would confine it, and start nothing."),
            ("aos run sitewatch:1.0.0 --name www", "Run an installed package as the agent `www`."),
            ("aos run reviewer.aap --detach", "Run a package file in the background; print the agent's id."),
        ],
        exit: EXIT_RUN,
        files: &[WORKSPACE],
        see_also: &["aos-build(1)", "aos-logs(1)", "aos-stop(1)", "aos-explain(1)"],
    },
    Page {
        command: "exec",
        examples: &[
            ("aos exec web -- ls -l", "Look at what the agent sees of its working directory."),
            ("tar c . | aos exec web --workdir /workspace -- tar x", "Copy a folder into its workspace."),
            ("aos exec web --memory 64M --timeout 30s -- ./check", "Bound the command, not the agent."),
            (
                "aos exec web --capability file_read:/srv/data/a -- wc -l /srv/data/a",
                "Leave the command one capability of the agent's.",
            ),
        ],
        exit: EXIT_EXEC,
        files: &[],
        see_also: &["aos-run(1)", "aos-explain(1)", "aos-capability(1)"],
    },
    Page {
        command: "build",
        examples: &[
            ("aos build", "Build the folder you are in; the package is in your store."),
            ("aos build ./watch -t watch:1.2.0 -o watch.aap", "Name it, and write it into a file, too."),
            ("aos build --plan --json .", "Say what would be done, for a program."),
            (
                "aos build --build-arg MODE=fast --secret id=token,src=token.txt .",
                "Give it an argument and a secret.",
            ),
            ("aos build --locked --sign ci --passphrase-file fd:3 .", "As a CI job does."),
            ("aos build --check-reproducible .", "Build twice, and compare."),
        ],
        exit: EXIT,
        files: &[
            ("Agentfile.yaml, Agentfile.json, Agentfile.toml", "What the package is built from."),
            (".aosignore", "What of the folder is left out, as in .gitignore."),
            LOCK,
            USER_STORE,
        ],
        see_also: &["aos-lock(1)", "aos-push(1)", "aos-run(1)", "aos-cache(1)"],
    },
    Page {
        command: "install",
        examples: &[
            ("aos install watch:1.0.0", "Install a package of your store."),
            ("aos install watch-1.0.0.aap", "Install a package file."),
        ],
        exit: EXIT,
        files: &[STORE, USER_STORE, TRUST],
        see_also: &["aos-build(1)", "aos-packages(1)", "aos-verify(1)"],
    },
    Page {
        command: "pull",
        examples: &[
            ("aos pull registry.example/team/watch:1.0.0", "Pull a package."),
            ("aos pull registry.example/team/watch", "Pull its highest version."),
            ("aos pull oci:/media/stick:watch:1.0.0", "Take it from a directory registry."),
        ],
        exit: EXIT,
        files: &[USER_STORE, TRUST, CREDENTIALS],
        see_also: &["aos-push(1)", "aos-verify(1)", "aos-install(1)"],
    },
    Page {
        command: "push",
        examples: &[
            ("aos push watch:1.0.0 registry.example/team/watch", "Push a package under its version."),
            ("aos push watch:1.0.0 registry.example/team/watch --sign ci", "Sign it first."),
            ("aos push watch:1.0.0 oci:/media/stick", "Put it into a directory registry."),
        ],
        exit: EXIT,
        files: &[USER_STORE, KEYS, CREDENTIALS],
        see_also: &["aos-pull(1)", "aos-sign(1)", "aos-tag(1)"],
    },
    Page {
        command: "inspect",
        examples: &[
            ("aos inspect watch:1.0.0", "Show a package of your store."),
            (
                "aos inspect --json registry.example/team/watch:1.0.0",
                "Show one of a registry, for a program.",
            ),
        ],
        exit: EXIT,
        files: &[USER_STORE, TRUST],
        see_also: &["aos-diff(1)", "aos-verify(1)"],
    },
    Page {
        command: "diff",
        examples: &[
            ("aos diff sitewatch", "Show what an agent changed in its transactional workspace."),
            ("aos diff --patch sitewatch", "The same, with the text of files."),
            ("aos diff watch:1.0.0 watch:1.1.0", "Show what a new version may do, and what it changes."),
            ("aos diff watch:1.0.0 ./watch-1.1.0.aap", "Compare with a file."),
        ],
        exit: EXIT,
        files: &[],
        see_also: &["aos-inspect(1)", "aos-unpack(1)"],
    },
    Page {
        command: "tag",
        examples: &[(
            "aos tag watch:1.0.0 registry.example/team/watch:1.0.0",
            "Give a package a second name.",
        )],
        exit: EXIT,
        files: &[USER_STORE],
        see_also: &["aos-push(1)", "aos-remove(1)"],
    },
    Page {
        command: "export",
        examples: &[
            ("aos export watch:1.0.0", "Write watch-1.0.0.aap, and signature.json when it is signed."),
            ("aos export watch:1.0.0 -o - | ssh host aos import -", "Send it to another machine."),
        ],
        exit: EXIT,
        files: &[("NAME-VERSION.aap", "The package: an OCI archive."), ("signature.json", "Its signature.")],
        see_also: &["aos-import(1)", "aos-sign(1)"],
    },
    Page {
        command: "import",
        examples: &[("aos import watch-1.0.0.aap", "Take a package file into your store.")],
        exit: EXIT,
        files: &[USER_STORE, TRUST, ("signature.json", "The signature beside the package file.")],
        see_also: &["aos-export(1)", "aos-verify(1)", "aos-install(1)"],
    },
    Page {
        command: "unpack",
        examples: &[("aos unpack watch:1.0.0 /tmp/watch", "Look at a package's files.")],
        exit: EXIT,
        files: &[],
        see_also: &["aos-inspect(1)", "aos-diff(1)"],
    },
    Page {
        command: "sign",
        examples: &[
            ("aos sign watch:1.0.0 --key ci", "Sign a package of your store."),
            ("aos sign watch-1.0.0.aap --key ci", "Sign a package file: writes signature.json beside it."),
        ],
        exit: EXIT,
        files: &[KEYS],
        see_also: &["aos-key(1)", "aos-verify(1)", "aos-push(1)"],
    },
    Page {
        command: "verify",
        examples: &[
            ("aos verify watch:1.0.0", "Ask whether the trust policy allows a package."),
            ("aos verify --key ci.pub watch-1.0.0.aap", "Ask whether a key has signed a package file."),
        ],
        exit: EXIT,
        files: &[TRUST, KEYS],
        see_also: &["aos-sign(1)", "aos-key(1)"],
    },
    Page {
        command: "key",
        examples: &[
            ("aos key generate ci", "Make a key pair; asks for a passphrase."),
            ("aos key export ci -o /etc/aos/trust.d/ci.pub", "Write its public half, for a trust rule."),
            ("aos key import vendor vendor.pub", "Keep somebody's public key."),
        ],
        exit: EXIT,
        files: &[KEYS],
        see_also: &["aos-sign(1)", "openssl-pkey(1)"],
    },
    Page {
        command: "lock",
        examples: &[
            ("aos lock", "Bring Agentfile.lock up to date."),
            ("aos lock --update summariser", "Take the newest version of one dependency that fits."),
            ("aos lock --locked", "Check that the lock fits, as a CI job does."),
        ],
        exit: EXIT,
        files: &[LOCK],
        see_also: &["aos-build(1)"],
    },
    Page {
        command: "learn",
        examples: &[
            ("aos learn ./watch -- /srv/www", "Run the agent, and ask about each thing that it lacks."),
            ("aos learn ./watch --from-nothing --yes --write", "Write the smallest list into the Agentfile."),
            ("aos learn ./watch --yes --deny /srv/private/** --json", "Learn without asking, for a program."),
            (
                "aos learn ./watch --json",
                "Without a terminal: check that the capabilities suffice, as a CI job does.",
            ),
        ],
        exit: EXIT,
        files: &[
            ("/usr/libexec/aos/aos-launch", "The program that confines the agent; AOS_LAUNCH names another."),
            ("TMPDIR/aos-learn-*", "The package and the workspaces of runs, removed at the end."),
            USER_STORE,
        ],
        see_also: &["aos-build(1)", "aos-run(1)", "aos-explain(1)"],
    },
    Page {
        command: "gc",
        examples: &[
            ("aos gc --dry-run", "Say what would be removed."),
            ("aos gc", "Remove what no name, no agent and no build needs."),
        ],
        exit: EXIT,
        files: &[USER_STORE, STORE],
        see_also: &["aos-remove(1)", "aos-cache(1)", "aos-store(1)"],
    },
    Page {
        command: "cache",
        examples: &[
            ("aos cache list", "Show what builds have left for later builds."),
            ("aos cache prune --keep 5G --older 7d", "Shrink it."),
        ],
        exit: EXIT,
        files: &[("STORE/cache", "The build cache.")],
        see_also: &["aos-build(1)", "aos-gc(1)"],
    },
    Page {
        command: "store",
        examples: &[
            ("aos store check", "Read and check all that your store has."),
            ("aos store path", "Print where it is."),
        ],
        exit: EXIT,
        files: &[USER_STORE],
        see_also: &["aos-gc(1)"],
    },
    Page {
        command: "backends",
        examples: &[
            ("aos backends", "Show which isolation backends work on this machine."),
            ("aos backends --json | jq -r '.[] | select(.works).name'", "The names of those that work."),
        ],
        exit: EXIT,
        files: &[],
        see_also: &["aos-explain(1)", "crun(1)", "runc(8)"],
    },
    Page {
        command: "convert",
        examples: &[
            ("aos convert agent.yaml -o Agentfile.yaml", "Make an Agentfile from another system's manifest."),
            ("aos convert --from openos --json Agentfile.json", "Get text and notes for a program."),
        ],
        exit: EXIT,
        files: &[],
        see_also: &["aos-build(1)"],
    },
    Page {
        command: "list",
        examples: &[
            ("aos list", "Show the agents."),
            ("aos list packages", "Show the packages of your store."),
            (
                "aos list --json | jq -r '.[] | select(.state == \"failed\").id'",
                "The ids of those that failed.",
            ),
        ],
        exit: EXIT,
        files: &[],
        see_also: &["aos-status(1)", "aos-packages(1)"],
    },
    Page {
        command: "status",
        examples: &[("aos status sitewatch", "Show one agent."), ("aos status", "Show the supervisor.")],
        exit: EXIT,
        files: &[WORKSPACE],
        see_also: &["aos-explain(1)", "aos-logs(1)", "systemctl(1)"],
    },
    Page {
        command: "logs",
        examples: &[
            ("aos logs sitewatch", "Show all that the agent wrote."),
            ("aos logs -f -n 20 sitewatch", "Show the last 20 lines, and new ones as they come."),
            ("aos logs --since -1h --system sitewatch", "The last hour, with what systemd says."),
        ],
        exit: EXIT,
        files: &[],
        see_also: &["journalctl(1)", "aos-status(1)"],
    },
    Page {
        command: "explain",
        examples: &[
            ("aos explain sitewatch", "Show each layer: what was asked, what the kernel confirms."),
            ("aos explain --json sitewatch", "The same for a program."),
        ],
        exit: EXIT,
        files: &[("/run/aos-agents/ID/report.json", "What the launcher read back from the kernel.")],
        see_also: &["aos-status(1)", "landlock(7)", "seccomp(2)", "namespaces(7)"],
    },
    Page {
        command: "capability",
        examples: &[
            ("aos capability list sitewatch", "Show what the agent may do, and what of it is in force."),
            (
                "aos capability revoke sitewatch exec:/usr/bin/git",
                "Take a capability away from the next start on.",
            ),
            ("aos capability revoke sitewatch --all --stop", "Take all of them away, and stop the agent."),
            ("aos capability narrow sitewatch file_read:/srv/www/** --now", "Leave it this one; restart it."),
            ("aos capability grant sitewatch listen:8080 --now", "Give it one more; restart it."),
        ],
        exit: EXIT,
        files: &[("/var/lib/aos/agents/ID/plan.json", "What the next start gives the agent.")],
        see_also: &["aos-explain(1)", "aos-status(1)", "aos-restart(1)"],
    },
    Page {
        command: "start",
        examples: &[("aos start sitewatch", "Start an agent that exists.")],
        exit: EXIT,
        files: &[],
        see_also: &["aos-run(1)", "aos-stop(1)"],
    },
    Page {
        command: "stop",
        examples: &[("aos stop sitewatch www", "Stop two agents.")],
        exit: EXIT,
        files: &[],
        see_also: &["aos-start(1)", "aos-remove(1)"],
    },
    Page {
        command: "restart",
        examples: &[("aos restart sitewatch", "Stop an agent and start it again.")],
        exit: EXIT,
        files: &[],
        see_also: &["aos-start(1)", "aos-stop(1)"],
    },
    Page {
        command: "pause",
        examples: &[("aos pause sitewatch", "Freeze an agent; `aos list` shows it as paused.")],
        exit: EXIT,
        files: &[],
        see_also: &["aos-resume(1)", "systemctl(1)", "systemd.exec(5)"],
    },
    Page {
        command: "resume",
        examples: &[("aos resume sitewatch", "Let it go on.")],
        exit: EXIT,
        files: &[],
        see_also: &["aos-pause(1)"],
    },
    Page {
        command: "enable",
        examples: &[("aos enable sitewatch", "Start the agent at every boot.")],
        exit: EXIT,
        files: &[("/etc/aos/enabled/ID", "The agent's limits; its presence enables the agent.")],
        see_also: &["aos-disable(1)", "systemd.generator(7)"],
    },
    Page {
        command: "disable",
        examples: &[("aos disable sitewatch", "Start the agent at boot no longer.")],
        exit: EXIT,
        files: &[("/etc/aos/enabled/ID", "The agent's limits; its presence enables the agent.")],
        see_also: &["aos-enable(1)"],
    },
    Page {
        command: "remove",
        examples: &[
            ("aos remove sitewatch", "Remove a stopped agent and its workspace."),
            ("aos remove --stop --keep-workspace www", "Stop it first, and keep its files."),
            ("aos remove watch:1.0.0", "Take a name away from a package of your store."),
        ],
        exit: EXIT,
        files: &[WORKSPACE, USER_STORE],
        see_also: &["aos-stop(1)", "aos-packages(1)"],
    },
    Page {
        command: "commit",
        examples: &[
            ("aos commit sitewatch", "Keep all that the agent changed."),
            ("aos commit sitewatch report.md out", "Keep one file and one directory."),
        ],
        exit: EXIT,
        files: &[WORKSPACE, CHANGES],
        see_also: &["aos-diff(1)", "aos-discard(1)", "aos-snapshot(1)"],
    },
    Page {
        command: "discard",
        examples: &[
            ("aos discard sitewatch", "Throw away all that the agent changed."),
            ("aos discard sitewatch --to 2", "Go back to the second snapshot."),
        ],
        exit: EXIT,
        files: &[WORKSPACE, CHANGES],
        see_also: &["aos-diff(1)", "aos-commit(1)", "aos-snapshot(1)"],
    },
    Page {
        command: "snapshot",
        examples: &[
            ("aos snapshot sitewatch before-the-rewrite", "Freeze what the agent has changed until now."),
            ("aos snapshot sitewatch --list", "Show the snapshots."),
        ],
        exit: EXIT,
        files: &[CHANGES],
        see_also: &["aos-discard(1)", "aos-commit(1)", "aos-fork(1)"],
    },
    Page {
        command: "fork",
        examples: &[
            ("aos fork sitewatch -n 3 --as try", "Make the agents try-1, try-2 and try-3."),
            ("aos fork sitewatch", "Make one, sitewatch-fork-1."),
        ],
        exit: EXIT,
        files: &[WORKSPACE, CHANGES],
        see_also: &["aos-snapshot(1)", "aos-diff(1)", "aos-start(1)"],
    },
    Page {
        command: "checkpoint",
        examples: &[
            ("aos checkpoint sitewatch --name before-upgrade", "Keep what the agent is now."),
            ("aos checkpoint sitewatch --remove 1 2", "Remove two checkpoints and their files."),
        ],
        exit: EXIT,
        files: &[WORKSPACE, CHECKPOINTS],
        see_also: &["aos-checkpoints(1)", "aos-restore(1)", "aos-snapshot(1)", "aos-pause(1)"],
    },
    Page {
        command: "checkpoints",
        examples: &[
            ("aos checkpoints sitewatch", "Show the checkpoints of an agent."),
            ("aos checkpoints --json", "Those of all agents, for a program."),
        ],
        exit: EXIT,
        files: &[CHECKPOINTS],
        see_also: &["aos-checkpoint(1)", "aos-restore(1)"],
    },
    Page {
        command: "restore",
        examples: &[
            ("aos restore sitewatch before-upgrade", "Bring the agent back to a checkpoint."),
            ("aos restore sitewatch", "To the newest one."),
        ],
        exit: EXIT,
        files: &[WORKSPACE, CHECKPOINTS],
        see_also: &["aos-checkpoint(1)", "aos-checkpoints(1)", "aos-start(1)"],
    },
    Page {
        command: "packages",
        examples: &[
            ("aos packages", "Show the installed packages."),
            ("aos packages remove sitewatch:1.0.0", "Remove one that no agent uses."),
        ],
        exit: EXIT,
        files: &[STORE],
        see_also: &["aos-install(1)", "aos-list(1)"],
    },
    Page {
        command: "configure",
        examples: &[
            ("sudo aos configure", "Ask about everything; Enter keeps what is in brackets."),
            ("sudo aos configure --section provider", "Ask about the model provider only."),
            (
                "sudo aos configure --provider anthropic --key-from-file - < key",
                "Set up a provider without a question.",
            ),
            ("sudo aos configure --hostname lab --timezone Europe/Paris", "Set the name and the time zone."),
        ],
        exit: EXIT,
        files: &[
            ("/etc/aos/configured", "Its presence means that the first boot's questions are answered."),
            ("/etc/aos/providers.d/NAME.toml", "A model provider: kind and base_url."),
            ("/etc/credstore.encrypted/aos.provider.NAME", "Its key, encrypted by systemd-creds(1)."),
            ("/root/.ssh/authorized_keys", "The SSH keys that may log in as root."),
            ("/etc/systemd/network/10-aos.network", "The static address, where no DHCP server answers."),
            (
                "AOS-CRED:/credstore/",
                "Credentials on a partition with this label, read at the first boot: \
              aos.hostname, aos.timezone, aos.provider, aos.provider-base-url, aos.provider-key, aos.wizard \
              (yes or no), ssh.authorized_keys.root, passwd.hashed-password.root. The first six also come as \
              system credentials, the last two then by systemd's own means.",
            ),
        ],
        see_also: &["systemd-creds(1)", "systemd.system-credentials(7)", "systemd.network(5)"],
    },
];

/// The manual of a command.
pub(crate) fn page(command: &str) -> Option<&'static Page> {
    PAGES.iter().find(|page| page.command == command)
}

/// Adds the examples to the long help of every command that has a page.
pub(crate) fn add_examples(command: Command) -> Command {
    let command = with_examples(command, "");
    command.mut_subcommands(|sub| {
        let name = sub.get_name().to_owned();
        with_examples(sub, &name)
    })
}

fn with_examples(command: Command, name: &str) -> Command {
    match page(name) {
        Some(page) => {
            let lines = page.examples.iter().map(|(line, what)| format!("  {line}\n      {what}"));
            let text = format!("Examples:\n{}", lines.collect::<Vec<_>>().join("\n"));
            command.after_long_help(text)
        }
        None => command,
    }
}

#[cfg(test)]
mod tests;
