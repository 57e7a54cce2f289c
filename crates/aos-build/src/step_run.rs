//! Run steps: a program in the stage's root, confined, and the layer of what it changed.

use crate::builder::{Builder, Current, RESERVED, step_key};
use crate::error::BuildError;
use crate::key::Key;
use crate::layer::{self, Contents, Planned, Sources, WrittenLayer, bytes_of};
use crate::made::Made;
use crate::progress::Event;
use crate::run::{
    self, Account, CacheMount, Change, ChangeKind, Changes, Endpoint, RunError, RunRequest, Secret,
};
use crate::tree::{Entry, Item, Lookup, Node, Tree};
use aos_core::agentfile::{DEFAULT_TIMEOUT_SECONDS, RunStep};
use aos_core::config::RootKind;
use aos_core::id::Digest;
use aos_core::path::AbsolutePath;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Trees that one step stacks: each is a lower directory of one overlay, which takes 500; more
/// than this are flattened first, so that a look-up does not walk through hundreds.
const TREES_MAX: usize = 48;
/// The variable by which tools are told the time (<https://reproducible-builds.org/specs/source-date-epoch/>).
const EPOCH: &str = "SOURCE_DATE_EPOCH";
/// What of the host's `/usr` a step on the host's root depends on: its release and its packages.
const HOST_STATE: [&str; 2] = ["/usr/lib/os-release", "/var/lib/dpkg/status"];

impl Builder<'_> {
    /// Makes the layer of a run step.
    pub(crate) fn run(
        &self,
        step: &RunStep,
        made: &mut Made,
        current: &Current<'_>,
    ) -> Result<(), BuildError> {
        self.progress.event(&current.name, Event::Started);
        let workdir = self.workdir(made, current)?;
        let key = self.run_key(step, made, &workdir);
        let make = || self.execute(step, made, workdir, current);
        let (record, listing) = self.cached(&key, current, Box::new(make))?;
        let Some(layer) = record.layer else { return Ok(()) };
        let listing = match listing {
            Some(listing) => {
                self.keep_listing(&layer, &listing)?;
                listing
            }
            None => self.listing(&layer)?,
        };
        made.push(layer, listing);
        Ok(())
    }

    pub(crate) fn workdir(&self, made: &Made, current: &Current<'_>) -> Result<AbsolutePath, BuildError> {
        let path = made.settings.workdir.clone().unwrap_or_else(AbsolutePath::root);
        match made.tree.look_up(&path) {
            Lookup::Directory(_) => Ok(path),
            // What the launcher makes, or the host has.
            Lookup::Outside { .. } if made.root == RootKind::Host || path.as_str() == "/tmp" => Ok(path),
            _ => Err(current.place.error("", format!("the working directory `{path}` is not there yet"))),
        }
    }

    /// Everything that the result depends on: what is below, the command and all that it sees.
    /// Values of secrets, time-outs and what cache mounts hold are no part of it.
    pub(crate) fn run_key(&self, step: &RunStep, made: &Made, workdir: &AbsolutePath) -> Digest {
        let env: Vec<_> = made.settings.env.iter().collect();
        let key = step_key("run", self.options)
            .list(&made.layers, |key, layer| key.digest(&layer.diff_id))
            .list(&step.command.argv(), |key, word| key.text(word))
            .list(&env, |key, (name, value)| key.text(name.as_str()).text(value.as_str()))
            .text(workdir.as_str())
            .list(&step.net, |key, target| key.text(&target.to_string()))
            .list(&step.cache, |key, path| key.text(path.as_str()))
            .list(&step.secrets, |key, name| key.text(name.as_str()));
        match made.root {
            RootKind::Own => key.text("own").finish(),
            RootKind::Host => key.text("host").digest(self.host.get_or_init(host_state)).finish(),
        }
    }

    fn execute(
        &self,
        step: &RunStep,
        made: &Made,
        workdir: AbsolutePath,
        current: &Current<'_>,
    ) -> Result<Option<WrittenLayer>, BuildError> {
        let request = self.request(step, made, workdir, current)?;
        let mut output = |line: run::Output<'_>| {
            self.progress.event(&current.name, Event::Output(line.line));
        };
        let changes = run::execute(&request, &mut output).map_err(|error| self.failed(error, current))?;
        for note in changes.notes() {
            self.progress.event(&current.name, Event::Output(note));
        }
        let mut plan = self.changed(&changes, &made.tree)?;
        if plan.is_empty() {
            return Ok(None);
        }
        layer::sort(&mut plan);
        let total = bytes_of(plan.iter().map(|planned| &planned.item));
        let progress = |done| self.progress.event(&current.name, Event::Bytes { done, total });
        let sources = Sources { changes: Some(&changes), ..Sources::default() };
        layer::write(plan, &sources, self.options, self.lease, &progress).map(Some)
    }

    /// The failure of a step, with its place.
    fn failed(&self, error: RunError, current: &Current<'_>) -> BuildError {
        if matches!(error, RunError::Cancelled) {
            return BuildError::Cancelled;
        }
        let name = current.name;
        BuildError::Step {
            place: format!("{}:{}", self.agentfile.origin(), current.place.position()),
            stage: name.stage.to_owned(),
            number: name.number,
            of: name.of,
            title: name.title.to_owned(),
            source: Box::new(error.into()),
        }
    }

    fn request(
        &self,
        step: &RunStep,
        made: &Made,
        workdir: AbsolutePath,
        current: &Current<'_>,
    ) -> Result<RunRequest, BuildError> {
        let mut env: std::collections::BTreeMap<String, String> = made
            .settings
            .env
            .iter()
            .map(|(name, value)| (name.as_str().to_owned(), value.as_str().to_owned()))
            .collect();
        env.entry(EPOCH.to_owned()).or_insert_with(|| self.options.source_date_epoch.to_string());
        let endpoint = |(index, target): (usize, &aos_core::port::NetTarget)| {
            let error = |error| current.place.error(&format!("net[{index}]"), error);
            target.to_string().parse::<Endpoint>().map_err(error)
        };
        let seconds = step.timeout.as_ref().map_or(DEFAULT_TIMEOUT_SECONDS, |timeout| timeout.seconds());
        Ok(RunRequest {
            launcher: self.options.launcher.clone(),
            root: made.root,
            lower: self.lower(made)?,
            command: step.command.argv().into_iter().map(str::to_owned).collect(),
            env,
            workdir,
            net: step.net.iter().enumerate().map(endpoint).collect::<Result<_, _>>()?,
            caches: step.cache.iter().map(|path| self.mount(path)).collect::<Result<_, _>>()?,
            secrets: self.secrets(step, current)?,
            timeout: Duration::from_secs(seconds),
            scratch: self.cache.scratch(),
            cancel: self.options.cancel.clone(),
        })
    }

    /// The unpacked layers, the topmost first: those of the base as one tree, each other by itself.
    fn lower(&self, made: &Made) -> Result<Vec<PathBuf>, BuildError> {
        let trees = self.trees();
        let (base, own) = made.layers.split_at_checked(made.of_base).unwrap_or((&made.layers, &[]));
        let mut lower = Vec::new();
        if own.len() >= TREES_MAX {
            lower.push(trees.whole(&made.layers)?);
        } else {
            if !base.is_empty() {
                lower.push(trees.whole(base)?);
            }
            for (layer, hidden) in own.iter().zip(&made.hidden) {
                lower.push(trees.overlay(layer, hidden)?);
            }
        }
        lower.reverse();
        let lent = |path: PathBuf| {
            trees.lend(&path)?;
            std::fs::canonicalize(path).map_err(|error| self.cache_error(error))
        };
        lower.into_iter().map(lent).collect()
    }

    /// A cache mount is the same for every build that names its path.
    fn mount(&self, path: &AbsolutePath) -> Result<CacheMount, BuildError> {
        let name = Key::of("mount").text(path.as_str()).finish();
        let directory = self.cache.mounts().join(name.hex());
        let made = std::fs::create_dir_all(&directory).and_then(|()| {
            let account = Account::of_process();
            if account.is_other() {
                std::os::unix::fs::chown(&directory, Some(account.uid), Some(account.gid))?;
            }
            std::fs::canonicalize(&directory)
        });
        Ok(CacheMount { path: path.clone(), directory: made.map_err(|error| self.cache_error(error))? })
    }

    fn secrets(&self, step: &RunStep, current: &Current<'_>) -> Result<Vec<Secret>, BuildError> {
        let secret = |(index, name): (usize, &aos_core::agentfile::SecretName)| {
            let missing = || format!("no value was given for the secret `{name}`");
            let found = self.options.secrets.get(name).cloned();
            found.ok_or_else(|| current.place.error(&format!("secrets[{index}]"), missing()))
        };
        step.secrets.iter().enumerate().map(secret).collect()
    }

    /// The changes of a step as items of a layer. Owners are those of what was there before, or
    /// root's: the step had one user only.
    fn changed(&self, changes: &Changes, before: &Tree) -> Result<Vec<Planned>, BuildError> {
        let mut plan = Vec::new();
        for change in changes.entries()? {
            let change = change?;
            let path = text(&change.path)?;
            let top = path.split('/').next().unwrap_or_default();
            if path.is_empty() || (RESERVED.contains(&top) && *path != *top) {
                continue;
            }
            plan.extend(planned(&path, &change, before)?);
        }
        drop_unchanged(&mut plan, before);
        Ok(plan)
    }
}

/// What of the host a step on its root depends on.
fn host_state() -> Digest {
    let read = |path: &&str| std::fs::read(path).unwrap_or_default();
    Key::of("host").list(&HOST_STATE, |key, path| key.bytes(&read(path))).finish()
}

fn text(path: &Path) -> Result<Box<str>, BuildError> {
    path.to_str().map(Box::from).ok_or_else(|| BuildError::Unfit {
        path: path.to_string_lossy().escape_debug().to_string(),
        reason: "its name is not UTF-8".to_owned(),
    })
}

fn planned(path: &str, change: &Change, before: &Tree) -> Result<Vec<Planned>, BuildError> {
    let entry = |node: Node| {
        let old =
            before.get(path).filter(|old| std::mem::discriminant(&old.node) == std::mem::discriminant(&node));
        let (uid, gid) = old.map_or((0, 0), |old| (old.uid, old.gid));
        Item::Entry(Entry { node, mode: change.mode, uid, gid })
    };
    let one =
        |item: Item, contents: Contents| vec![Planned { path: path.into(), item, contents, mtime: None }];
    Ok(match &change.kind {
        ChangeKind::Directory { opaque } => {
            let mut items = one(entry(Node::Directory), Contents::None);
            if *opaque && before.get(path).is_some() {
                items.extend(one(Item::Opaque, Contents::None));
            }
            items
        }
        ChangeKind::File { size } => {
            // The digest is known when the file has been read.
            let node = Node::File { size: *size, digest: Digest::from_bytes([0; 32]) };
            one(entry(node), Contents::Changed(path.into()))
        }
        ChangeKind::HardLink { to } => one(Item::HardLink(text(to)?), Contents::None),
        ChangeKind::Symlink { to } => one(entry(Node::Symlink(text(to)?)), Contents::None),
        ChangeKind::Whiteout => one(Item::Whiteout, Contents::None),
    })
}

/// Leaves out directories that are as they were and in which nothing changed: their times changed,
/// which no layer has.
fn drop_unchanged(plan: &mut Vec<Planned>, before: &Tree) {
    let mut needed: BTreeSet<Box<str>> = BTreeSet::new();
    for planned in plan.iter() {
        let same = match &planned.item {
            Item::Entry(entry) => entry.is_directory() && before.get(&planned.path) == Some(entry),
            _ => false,
        };
        let mut at = (!same).then_some(&*planned.path);
        while let Some(path) = at {
            if !needed.insert(path.into()) {
                break;
            }
            at = path.rsplit_once('/').map(|(above, _)| above);
        }
    }
    plan.retain(|planned| needed.contains(&planned.path));
}
