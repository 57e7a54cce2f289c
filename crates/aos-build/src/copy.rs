//! Copy steps: which files go where.
//!
//! Rules, for `copy` steps and for the whole directory when there is no `build`:
//! - `.aosignore` at the top of the directory, in gitignore syntax, leaves files out, and whatever
//!   is below a directory that it leaves out; so are entries named `.git` anywhere, and at the top
//!   the Agentfile, its lock, `.aosignore` and archives (`*.aap`).
//! - Symbolic links are copied as links. They are never followed on the way to a source of the
//!   directory; in a stage or package they are, within its root, and so are those of the stage on
//!   the way to the target.
//! - A later file replaces an earlier one; a file and a directory of one name are an error.
//! - Directories that the stage has keep their permissions; new ones are 0755.

use crate::context::{Context, FileDigests, Found, What};
use crate::error::BuildError;
use crate::layer::{Contents, Planned};
use crate::place::Place;
use crate::tree::{Entry, Item, Lookup, Node, Tree};
use aos_core::agentfile::{Copy, CopySource, CopyTarget};
use aos_core::glob::Glob;
use aos_core::path::{AbsolutePath, RelativePath};
use aos_package::bounds::{DEPTH_MAX, FILES_MAX, LAYER_UNPACKED_MAX, PATH_MAX};
use std::collections::{BTreeSet, HashSet};
use std::num::NonZeroUsize;

/// Something that is copied, before it has its attributes.
struct Picked {
    /// Where it goes, without the leading slash.
    target: String,
    node: Node,
    executable: bool,
    /// Permission bits of a file from a stage, which are kept.
    mode: Option<u32>,
    contents: Contents,
}

/// The directory, and what is known of its files.
pub(crate) struct Directory<'a> {
    pub(crate) context: &'a Context,
    pub(crate) digests: &'a FileDigests,
    pub(crate) threads: NonZeroUsize,
    /// Told of bytes that are read.
    pub(crate) read: &'a (dyn Fn(u64) + Sync),
}

/// Where a step's sources are.
pub(crate) enum Origin<'a> {
    Directory(Directory<'a>),
    /// The files of a stage or package.
    Tree(&'a Tree),
}

/// What a copy step copies.
pub(crate) struct Copied {
    /// The entries of its layer, sorted.
    pub(crate) items: Vec<Planned>,
    /// The files of the directory that contents are read from, by their numbers.
    pub(crate) files: Vec<Found>,
}

/// The entries of the layer that a copy step makes over the stage's files.
pub(crate) fn plan(
    copy: &Copy,
    origin: &Origin<'_>,
    stage: &Tree,
    place: &Place<'_>,
) -> Result<Copied, BuildError> {
    let mut layer = Gathered::over(stage);
    let mut files = Vec::new();
    for (index, source) in copy.from.iter().enumerate() {
        let field = if copy.from.len() > 1 { format!("from[{index}]") } else { "from".to_owned() };
        let from = Taken { copy, field: &field, place };
        let picked = match origin {
            Origin::Directory(directory) => from.directory(directory, source, &mut files)?,
            Origin::Tree(tree) => from.tree(tree, source)?,
        };
        for picked in picked {
            let (path, (entry, contents)) = from.planned(picked);
            layer.insert(path, entry, contents).map_err(|message| place.error("to", message))?;
        }
    }
    Ok(Copied { items: layer.finish().map_err(|message| place.error("to", message))?, files })
}

/// A source of a step, and where errors about it are.
struct Taken<'a> {
    copy: &'a Copy,
    field: &'a str,
    place: &'a Place<'a>,
}

impl Taken<'_> {
    fn error(&self, message: impl std::fmt::Display) -> BuildError {
        self.place.error(self.field, message)
    }

    /// The target's path without the leading slash; empty is the root.
    fn to(&self) -> &str {
        self.copy.to.path().as_str().trim_start_matches('/')
    }

    /// The attributes that the step gives.
    fn planned(&self, picked: Picked) -> (String, (Entry, Contents)) {
        let mode = match (&picked.node, self.copy.mode) {
            (Node::Symlink(_), _) => 0o777,
            (Node::Directory, Some(mode)) => mode.of_directory(),
            (Node::Directory, None) => 0o755,
            (Node::File { .. }, Some(mode)) => mode.of_file(),
            (Node::File { .. }, None) => picked.mode.unwrap_or(if picked.executable { 0o755 } else { 0o644 }),
        };
        let owner = self.copy.owner;
        (picked.target, (Entry { node: picked.node, mode, uid: owner.uid, gid: owner.gid }, picked.contents))
    }

    /// The path that a single file gets.
    fn target_of_file(&self, name: &str) -> String {
        match &self.copy.to {
            CopyTarget::Into(_) => join(self.to(), name),
            CopyTarget::As(_) => self.to().to_owned(),
        }
    }

    fn directory(
        &self,
        directory: &Directory<'_>,
        source: &CopySource,
        files: &mut Vec<Found>,
    ) -> Result<Vec<Picked>, BuildError> {
        let context = directory.context;
        match source {
            CopySource::All => self.contents(directory, None, |_| true, files),
            CopySource::Glob(glob) => {
                let base = glob.base();
                if let Some(base) = &base
                    && context.entry(base).map_err(|error| self.error(error))?.is_none()
                {
                    return Err(self.error(format!("`{base}` does not exist")));
                }
                let mut chosen = Chosen::new(glob);
                let picked = self.contents(directory, base.as_ref(), |path| chosen.takes(path), files)?;
                if chosen.any { Ok(picked) } else { Err(self.error(format!("nothing matches `{glob}`"))) }
            }
            CopySource::Path(path) => {
                let found = context.entry(path).map_err(|error| self.error(error))?;
                let found = found.ok_or_else(|| self.error(format!("`{path}` does not exist")))?;
                if context.is_ignored(path, found.what == What::Directory) {
                    return Err(self.error(format!("`{path}` is left out by .aosignore, or is of .git")));
                }
                match &found.what {
                    What::Directory => self.contents(directory, Some(path), |_| true, files),
                    What::Symlink(_) => {
                        Err(self.error(format!("`{path}` is a symbolic link: name what it points to")))
                    }
                    What::File(_) => self.file(directory, found, files),
                }
            }
        }
    }

    fn file(
        &self,
        directory: &Directory<'_>,
        found: Found,
        files: &mut Vec<Found>,
    ) -> Result<Vec<Picked>, BuildError> {
        let name = last(&found.path).to_owned();
        if self.copy.is_excluded(&name) {
            return Ok(Vec::new());
        }
        let target = self.target_of_file(&name);
        self.hashed(directory, vec![found], vec![target], files)
    }

    /// What a directory holds and is taken, the directory itself first.
    fn contents(
        &self,
        directory: &Directory<'_>,
        below: Option<&RelativePath>,
        mut takes: impl FnMut(&str) -> bool,
        files: &mut Vec<Found>,
    ) -> Result<Vec<Picked>, BuildError> {
        let mut found = directory.context.walk(below, directory.threads)?;
        let skipped = below.map_or(0, |below| below.as_str().len() + 1);
        let mut excluded = Excluded::new(self.copy);
        found.retain(|found| !excluded.takes_out(from(&found.path, skipped)) && takes(&found.path));
        let targets = found.iter().map(|found| join(self.to(), from(&found.path, skipped))).collect();
        let mut picked = vec![Picked::directory(self.to().to_owned())];
        picked.append(&mut self.hashed(directory, found, targets, files)?);
        Ok(picked)
    }

    /// Gives files their digests; what is found becomes part of `files`.
    fn hashed(
        &self,
        directory: &Directory<'_>,
        found: Vec<Found>,
        targets: Vec<String>,
        files: &mut Vec<Found>,
    ) -> Result<Vec<Picked>, BuildError> {
        let digests = directory.digests.of(directory.context, &found, directory.threads, directory.read)?;
        let mut digests = digests.into_iter();
        let mut picked = Vec::with_capacity(found.len() + 1);
        for ((number, found), target) in (files.len()..).zip(&found).zip(targets) {
            picked.push(match &found.what {
                What::Directory => Picked::directory(target),
                What::Symlink(to) => Picked::symlink(target, to.clone()),
                What::File(stamp) => {
                    let hashed = digests.next().ok_or(BuildError::Internal("a file has no digest"))?;
                    let contents = hashed.contents.map_or(Contents::Context(number), Contents::Memory);
                    let node = Node::File { size: stamp.size, digest: hashed.digest };
                    Picked { target, node, executable: stamp.is_executable(), mode: None, contents }
                }
            });
        }
        files.extend(found);
        Ok(picked)
    }

    fn tree(&self, tree: &Tree, source: &CopySource) -> Result<Vec<Picked>, BuildError> {
        match source {
            CopySource::All => Ok(self.below(tree, "", |_| true)),
            CopySource::Glob(glob) => {
                let mut chosen = Chosen::new(glob);
                let base = glob.base();
                let base = base.as_ref().map_or("", RelativePath::as_str);
                let picked = self.below(tree, base, |path| chosen.takes(path));
                if chosen.any { Ok(picked) } else { Err(self.error(format!("nothing matches `{glob}`"))) }
            }
            CopySource::Path(path) => {
                let whole: AbsolutePath = format!("/{path}").parse().map_err(|error| self.error(error))?;
                match tree.look_up(&whole) {
                    Lookup::Directory(at) => Ok(self.below(tree, &at, |_| true)),
                    Lookup::Entry(at, entry) => {
                        let name = last(path.as_str());
                        let excluded = self.copy.is_excluded(name);
                        let target = self.target_of_file(name);
                        let picked = (!excluded).then(|| Picked::stored(target, &at, entry));
                        Ok(picked.into_iter().collect())
                    }
                    Lookup::Missing | Lookup::Outside { .. } => {
                        Err(self.error(format!("`{path}` does not exist there")))
                    }
                }
            }
        }
    }

    fn below(&self, tree: &Tree, directory: &str, mut takes: impl FnMut(&str) -> bool) -> Vec<Picked> {
        let skipped = if directory.is_empty() { 0 } else { directory.len() + 1 };
        let mut excluded = Excluded::new(self.copy);
        let mut picked = vec![Picked::directory(self.to().to_owned())];
        for (path, entry) in tree.below(directory) {
            let inside = from(path, skipped);
            if !excluded.takes_out(inside) && takes(path) {
                picked.push(Picked::stored(join(self.to(), inside), path, entry));
            }
        }
        picked
    }
}

impl Picked {
    fn directory(target: String) -> Self {
        Self { target, node: Node::Directory, executable: true, mode: None, contents: Contents::None }
    }

    fn symlink(target: String, to: Box<str>) -> Self {
        Self { target, node: Node::Symlink(to), executable: true, mode: None, contents: Contents::None }
    }

    fn stored(target: String, _at: &str, entry: &Entry) -> Self {
        let is_file = matches!(entry.node, Node::File { .. });
        let contents = if is_file { Contents::Stored } else { Contents::None };
        Self { target, node: entry.node.clone(), executable: false, mode: Some(entry.mode), contents }
    }
}

fn join(above: &str, name: &str) -> String {
    if above.is_empty() {
        return name.to_owned();
    }
    // Not by `format!`: this is done for each file.
    let mut path = String::with_capacity(above.len() + 1 + name.len());
    path.push_str(above);
    path.push('/');
    path.push_str(name);
    path
}

/// A path from this byte on.
fn from(path: &str, start: usize) -> &str {
    path.get(start..).unwrap_or_default()
}

fn last(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or_default()
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(above, _)| above)
}

/// What a pattern takes: what matches, and what is below a directory that matches. Paths come in
/// the order of their bytes, a directory before what it holds.
struct Chosen<'a> {
    glob: &'a Glob,
    taken: BTreeSet<String>,
    any: bool,
}

impl<'a> Chosen<'a> {
    const fn new(glob: &'a Glob) -> Self {
        Self { glob, taken: BTreeSet::new(), any: false }
    }

    fn takes(&mut self, path: &str) -> bool {
        let takes = self.taken.contains(parent(path)) || self.glob.matches(path);
        if takes {
            self.any = true;
            self.taken.insert(path.to_owned());
        }
        takes
    }
}

/// What `exclude` leaves out, and what is below it.
struct Excluded<'a> {
    copy: &'a Copy,
    out: BTreeSet<String>,
}

impl<'a> Excluded<'a> {
    const fn new(copy: &'a Copy) -> Self {
        Self { copy, out: BTreeSet::new() }
    }

    fn takes_out(&mut self, path: &str) -> bool {
        if self.copy.exclude.is_empty() {
            return false;
        }
        let out = self.out.contains(parent(path)) || self.copy.is_excluded(path);
        if out {
            self.out.insert(path.to_owned());
        }
        out
    }
}

/// The entries of a layer while they are collected: a list that is sorted at the end, if it is not
/// already, since one sorted source is the usual case and a large one.
struct Gathered<'a> {
    stage: &'a Tree,
    items: Vec<Planned>,
    is_sorted: bool,
    /// Directories that are among the entries.
    directories: HashSet<Box<str>>,
    /// The directory of the last entry as it is written, and as it is with the stage's links
    /// followed: neighbours follow each other.
    above: (String, String),
    /// The directory of the last entry, which is among the entries.
    inside: String,
    bytes: u64,
}

impl<'a> Gathered<'a> {
    fn over(stage: &'a Tree) -> Self {
        Self {
            stage,
            items: Vec::new(),
            is_sorted: true,
            directories: HashSet::new(),
            above: (String::new(), String::new()),
            inside: String::new(),
            bytes: 0,
        }
    }

    /// Adds an entry and the directories above it. The error is a message without a place.
    fn insert(&mut self, path: String, entry: Entry, contents: Contents) -> Result<(), String> {
        if path.is_empty() {
            return if entry.is_directory() { Ok(()) } else { Err("`/` is a directory".to_owned()) };
        }
        let path = self.resolve(path, entry.is_directory())?;
        if path.len() > PATH_MAX || path.split('/').count() > DEPTH_MAX {
            return Err(format!("a path has more than {PATH_MAX} bytes or {DEPTH_MAX} segments: `/{path}`"));
        }
        if last(&path).starts_with(".wh.") {
            return Err(format!("`/{path}`: names that start with `.wh.` mean deletion in image layers"));
        }
        self.make_parents(&path)?;
        self.place(path.into_boxed_str(), entry, contents)
    }

    /// The path with the stage's links on the way followed; a directory that is a link in the stage
    /// is what the link leads to.
    fn resolve(&mut self, path: String, is_directory: bool) -> Result<String, String> {
        if !self.stage.has_links() {
            return Ok(path);
        }
        let unfit = |path: &str| format!("a file or a circle of links is on the way to `/{path}`");
        if is_directory {
            return self.stage.resolve_directory(&path).ok_or_else(|| unfit(&path));
        }
        let above = parent(&path);
        if self.above.0 != above || above.is_empty() {
            let resolved = self.stage.resolve_directory(above).ok_or_else(|| unfit(&path))?;
            self.above = (above.to_owned(), resolved);
        }
        Ok(join(&self.above.1, last(&path)))
    }

    fn make_parents(&mut self, path: &str) -> Result<(), String> {
        if self.inside == parent(path) {
            return Ok(());
        }
        let mut missing = Vec::new();
        let mut at = parent(path);
        while !at.is_empty() && !self.directories.contains(at) {
            missing.push(at);
            at = parent(at);
        }
        for at in missing.into_iter().rev() {
            self.place(at.into(), Entry::directory(), Contents::None)?;
        }
        self.inside.clear();
        self.inside.push_str(parent(path));
        Ok(())
    }

    fn place(&mut self, path: Box<str>, mut entry: Entry, contents: Contents) -> Result<(), String> {
        if let Some(old) = self.stage.get(&path) {
            settle(&path, old, &mut entry)?;
        }
        if entry.is_directory() && !self.directories.insert(path.clone()) {
            return Ok(());
        }
        if let Node::File { size, .. } = entry.node {
            self.bytes = self.bytes.saturating_add(size);
        }
        self.is_sorted &= self.items.last().is_none_or(|last| last.path < path);
        self.items.push(Planned { path, item: Item::Entry(entry), contents, mtime: None });
        if self.items.len() > FILES_MAX {
            return Err(format!("the package has more than {FILES_MAX} files"));
        }
        if self.bytes > LAYER_UNPACKED_MAX {
            return Err(format!("the package has more than {LAYER_UNPACKED_MAX} bytes"));
        }
        Ok(())
    }

    /// The entries, sorted; of several files of one path the last.
    fn finish(self) -> Result<Vec<Planned>, String> {
        if self.is_sorted {
            return Ok(self.items);
        }
        let mut items = self.items;
        // Stable: what came later is later among its like.
        items.sort_by(|a, b| a.path.cmp(&b.path));
        let mut unique: Vec<Planned> = Vec::with_capacity(items.len());
        for mut planned in items {
            match unique.last_mut() {
                Some(last) if last.path == planned.path => {
                    if let (Item::Entry(old), Item::Entry(entry)) = (&last.item, &mut planned.item) {
                        settle(&planned.path, old, entry)?;
                    }
                    *last = planned;
                }
                _ => unique.push(planned),
            }
        }
        Ok(unique)
    }
}

/// What an entry becomes where another one is: a directory stays as it is, and neither a file nor a
/// directory replaces the other.
fn settle(path: &str, old: &Entry, entry: &mut Entry) -> Result<(), String> {
    match (old.is_directory(), entry.is_directory()) {
        (true, false) => return Err(format!("`/{path}` is a directory already")),
        (false, true) => return Err(format!("`/{path}` is a file already")),
        (true, true) => *entry = old.clone(),
        (false, false) => {}
    }
    Ok(())
}
