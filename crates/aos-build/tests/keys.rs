//! What a step's key depends on: every input changes it, and nothing else does. The plan shows keys.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a panic in a helper is the test's failure report, and tests read the clock"
)]

mod common;

use aos_build::{Local, Options, Request, plan};
use aos_core::id::Digest;
use aos_package::layer::write::Compression;
use common::{SIMPLE, Store, options, store};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::fs;
use std::num::NonZeroUsize;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What is built, as values.
#[derive(Debug, Clone)]
struct Input {
    /// Path to contents and whether it is executable.
    files: BTreeMap<String, (String, bool)>,
    /// Path to target.
    links: BTreeMap<String, String>,
    to: String,
    owner: u32,
    mode: Option<&'static str>,
    command: String,
    env: String,
    workdir: &'static str,
    net: bool,
    cache: bool,
    epoch: u64,
    architecture: &'static str,
    compression: u8,
}

/// What has no meaning for the package.
#[derive(Debug, Clone)]
struct Circumstances {
    reversed: bool,
    modified: u64,
    loose_modes: bool,
    threads: usize,
    started: u64,
}

fn input() -> impl Strategy<Value = Input> {
    let files = prop::collection::btree_map("[ab](/[ab])?", ("[xy]{0,2}", any::<bool>()), 1..4);
    // A path is a file or a directory.
    let files = files.prop_filter("a file in the way", |files| {
        files.keys().all(|path| path.split_once('/').is_none_or(|(above, _)| !files.contains_key(above)))
    });
    let step = ("[ab]", prop_oneof![Just("/"), Just("/app")], any::<bool>(), any::<bool>());
    let of_copy =
        (prop_oneof![Just("/app"), Just("/opt")], 0_u32..2, prop_oneof![Just(None), Just(Some("0600"))]);
    let options = (0_u64..2, prop_oneof![Just("amd64"), Just("arm64")], 0_u8..2);
    (files, prop::collection::btree_map("l[12]", "[ab]{1,2}", 0..2), of_copy, "[ab]{1,2}", step, options)
        .prop_map(
            |(
                files,
                links,
                (to, owner, mode),
                command,
                (env, workdir, net, cache),
                (epoch, architecture, compression),
            )| Input {
                files,
                links,
                to: to.to_owned(),
                owner,
                mode,
                command,
                env,
                workdir: if to == "/app" { workdir } else { "/" },
                net,
                cache,
                epoch,
                architecture,
                compression,
            },
        )
}

fn circumstances() -> impl Strategy<Value = Circumstances> {
    (any::<bool>(), 0_u64..2_000_000_000, any::<bool>(), 1_usize..4, 0_u64..1_000_000).prop_map(
        |(reversed, modified, loose_modes, threads, started)| Circumstances {
            reversed,
            modified,
            loose_modes,
            threads,
            started,
        },
    )
}

fn make(dir: &Path, input: &Input, how: &Circumstances) {
    let Input { to, owner, command, env, workdir, .. } = input;
    let mode = input.mode.map(|mode| format!(", mode: '{mode}'")).unwrap_or_default();
    let net = if input.net { "[ 'example.org:443' ]" } else { "[]" };
    let cache = if input.cache { "[ /var/cache/x ]" } else { "[]" };
    let text = format!(
        "{SIMPLE}build: {{ stages: [ {{ name: app, from: scratch, steps: [ \
        {{ copy: {{ from: src, to: {to}, owner: '{owner}:0'{mode} }} }}, {{ env: {{ A: {env} }} }}, {{ workdir: {workdir} }}, \
        {{ run: {{ command: [ {command} ], net: {net}, cache: {cache}, timeout: {}m }} }} ] }} ] }}\n",
        how.started % 9 + 1
    );
    fs::write(dir.join("Agentfile"), text).unwrap();
    fs::create_dir(dir.join("src")).unwrap();
    let mut files: Vec<_> = input.files.iter().collect();
    if how.reversed {
        files.reverse();
    }
    for (path, (contents, executable)) in files {
        let path = dir.join("src").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, contents).unwrap();
        let mode = match (*executable, how.loose_modes) {
            (true, true) => 0o777,
            (true, false) => 0o700,
            (false, true) => 0o666,
            (false, false) => 0o600,
        };
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        fs::File::options()
            .read(true)
            .open(&path)
            .unwrap()
            .set_modified(UNIX_EPOCH + Duration::from_secs(how.modified))
            .unwrap();
    }
    for (path, target) in &input.links {
        symlink(target, dir.join("src").join(path)).unwrap();
    }
}

/// The keys of the copy and, when the copy's layer is in the store, of the run step.
fn keys(store: &Store, input: &Input, how: &Circumstances) -> (Option<Digest>, Option<Digest>) {
    let dir = tempfile::tempdir().unwrap();
    make(dir.path(), input, how);
    let options = Options {
        source_date_epoch: input.epoch,
        architecture: input.architecture.to_owned(),
        compression: if input.compression == 0 { Compression::Gzip } else { Compression::Zstd },
        threads: NonZeroUsize::new(how.threads).unwrap(),
        started: SystemTime::now() + Duration::from_secs(how.started),
        // Whatever would run it is never found: the copy's layer is made before.
        launcher: "/nonexistent".into(),
        ..options()
    };
    let request = Request::new(dir.path(), options);
    aos_build::build(&request, &store.repository, &Local, &aos_build::Silent).unwrap_err();
    let plan = plan(&request, &store.repository, &Local).unwrap();
    (plan.stages[0].steps[0].key, plan.stages[0].steps[3].key)
}

/// One thing that is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Contents,
    Executable,
    Name,
    File,
    Link,
    LinkTarget,
    Target,
    Owner,
    Mode,
    Command,
    Env,
    Workdir,
    Net,
    Cache,
    Epoch,
    Architecture,
    Compression,
}

impl Change {
    const ALL: [Self; 17] = [
        Self::Contents,
        Self::Executable,
        Self::Name,
        Self::File,
        Self::Link,
        Self::LinkTarget,
        Self::Target,
        Self::Owner,
        Self::Mode,
        Self::Command,
        Self::Env,
        Self::Workdir,
        Self::Net,
        Self::Cache,
        Self::Epoch,
        Self::Architecture,
        Self::Compression,
    ];

    /// True for what only a run step depends on.
    fn is_of_run(self) -> bool {
        matches!(self, Self::Command | Self::Env | Self::Workdir | Self::Net | Self::Cache)
    }

    fn make(self, input: &mut Input) {
        let first = input.files.keys().next().unwrap().clone();
        match self {
            Self::Contents => input.files.get_mut(&first).unwrap().0.push('z'),
            Self::Executable => {
                input.mode = None;
                input.files.get_mut(&first).unwrap().1 ^= true;
            }
            Self::Name => {
                let file = input.files.remove(&first).unwrap();
                input.files.insert(format!("{first}z"), file);
            }
            Self::File => drop(input.files.insert("z".to_owned(), (String::new(), false))),
            Self::Link => drop(input.links.insert("l9".to_owned(), "a".to_owned())),
            Self::LinkTarget => {
                input
                    .links
                    .entry("l1".to_owned())
                    .and_modify(|target| target.push('z'))
                    .or_insert("z".to_owned());
            }
            Self::Target => input.to.push('z'),
            Self::Owner => input.owner += 1,
            Self::Mode => input.mode = Some("0640"),
            Self::Command => input.command.push('z'),
            Self::Env => input.env.push('z'),
            Self::Workdir => input.workdir = if input.workdir == "/" { "/tmp" } else { "/" },
            Self::Net => input.net ^= true,
            Self::Cache => input.cache ^= true,
            Self::Epoch => input.epoch += 1,
            Self::Architecture => input.architecture = "riscv64",
            Self::Compression => input.compression ^= 1,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, ..ProptestConfig::default() })]

    #[test]
    fn keys_change_exactly_when_an_input_does(input in input(), one in circumstances(), two in circumstances()) {
        let store = store();
        for change in Change::ALL {
            let mut before = input.clone();
            if change == Change::Executable {
                before.mode = None;
            }
            if change == Change::Target {
                before.workdir = "/";
            }
            let mut after = before.clone();
            change.make(&mut after);
            let (copy, run) = keys(&store, &before, &one);
            prop_assert!(copy.is_some() && run.is_some());
            prop_assert_eq!((copy, run), keys(&store, &before, &two), "circumstances");
            let (other_copy, other_run) = keys(&store, &after, &two);
            prop_assert_ne!(run, other_run, "{:?}", change);
            prop_assert_eq!(copy == other_copy, change.is_of_run(), "{:?}", change);
        }
    }
}
