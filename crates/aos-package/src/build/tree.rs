//! The files of a package before they are packed: where each goes and where it comes from.

use super::BuildError;
use super::context::{Context, Source};
use crate::bounds::{DEPTH_MAX, FILES_MAX, LAYER_UNPACKED_MAX, LINK_MAX, PATH_MAX};
use aos_core::agentfile::{Agentfile, Base, Copy, CopyOrigin, CopySource, CopyTarget, Stage, Step};
use aos_core::path::{AbsolutePath, RelativePath};
use std::collections::BTreeMap;

/// Directories that the launcher makes itself, so that a package's files there are never seen.
const RESERVED: [&str; 6] = ["dev", "proc", "run", "sys", "tmp", "workspace"];

/// An entry of the package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Item {
    Directory,
    File { from: RelativePath, size: u64, executable: bool },
    Symlink(String),
}

/// All entries, by their paths without the leading slash; a directory comes before what is in it.
#[derive(Debug, Default)]
pub(super) struct Tree {
    items: BTreeMap<String, Item>,
    bytes: u64,
}

impl Tree {
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Item)> {
        self.items.iter().map(|(path, item)| (path.as_str(), item))
    }

    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    pub(super) fn get(&self, path: &str) -> Option<&Item> {
        self.items.get(path)
    }

    /// Adds an entry and the directories above it. The error is a message without a place.
    fn insert(&mut self, path: &AbsolutePath, item: Item) -> Result<(), String> {
        let inside = path.as_str().trim_start_matches('/');
        if inside.is_empty() {
            return if item == Item::Directory { Ok(()) } else { Err("`/` is a directory".to_owned()) };
        }
        if inside.len() > PATH_MAX || path.segments().count() > DEPTH_MAX {
            return Err(format!("a path has more than {PATH_MAX} bytes or {DEPTH_MAX} segments: `{path}`"));
        }
        if path.file_name().is_some_and(|name| name.starts_with(".wh.")) {
            return Err(format!("`{path}`: names that start with `.wh.` mean deletion in image layers"));
        }
        for (at, _) in inside.match_indices('/') {
            self.place(inside.get(..at).unwrap_or_default(), Item::Directory)?;
        }
        self.place(inside, item)
    }

    fn place(&mut self, path: &str, item: Item) -> Result<(), String> {
        match (self.items.get(path), &item) {
            (Some(Item::Directory), Item::Directory) => return Ok(()),
            (Some(Item::Directory), _) => return Err(format!("`/{path}` is a directory already")),
            (Some(_), Item::Directory) => return Err(format!("`/{path}` is a file already")),
            _ => {}
        }
        if let Item::File { size, .. } = &item {
            self.bytes = self.bytes.saturating_add(*size);
        }
        self.items.insert(path.to_owned(), item);
        if self.items.len() > FILES_MAX {
            return Err(format!("the package has more than {FILES_MAX} files"));
        }
        if self.bytes > LAYER_UNPACKED_MAX {
            return Err(format!("the package has more than {LAYER_UNPACKED_MAX} bytes"));
        }
        Ok(())
    }
}

/// Where an error is: the Agentfile and the path of a copy step, empty without a build.
struct Place<'a> {
    agentfile: &'a Agentfile,
    step: String,
}

impl Place<'_> {
    fn error(&self, field: &str, message: impl std::fmt::Display) -> BuildError {
        let field = if self.step.is_empty() { String::new() } else { format!("{}.{field}", self.step) };
        self.agentfile.error_at(&field, message).into()
    }
}

/// The files of the package: those of the output stage, or without `build` the whole directory.
pub(super) fn of_package(context: &Context, agentfile: &Agentfile) -> Result<Tree, BuildError> {
    let mut output = None;
    for (number, stage) in agentfile.build.iter().flat_map(|build| build.stages.iter().enumerate()) {
        output = Some(of_stage(context, agentfile, number, stage)?);
    }
    if let Some(tree) = output {
        return Ok(tree);
    }
    let place = Place { agentfile, step: String::new() };
    let app =
        agentfile.default_directory().parse::<AbsolutePath>().map_err(|error| place.error("", error))?;
    let mut tree = Tree::default();
    copy_directory(context, None, &app, &mut tree, &place)?;
    Ok(tree)
}

fn of_stage(
    context: &Context,
    agentfile: &Agentfile,
    number: usize,
    stage: &Stage,
) -> Result<Tree, BuildError> {
    let mut tree = Tree::default();
    let unsupported = |field: &str| {
        let field = format!("build.stages[{number}].{field}");
        agentfile.error_at(&field, "is not supported by this version of AOS").into()
    };
    if !matches!(stage.from, Base::Host | Base::Scratch) {
        return Err(unsupported("from"));
    }
    for (step_number, step) in stage.steps.iter().enumerate() {
        match step {
            Step::Copy(Copy { origin: CopyOrigin::Directory, from, to, .. }) => {
                let step = format!("build.stages[{number}].steps[{step_number}].copy");
                let place = Place { agentfile, step };
                check_target(&stage.from, to, &place)?;
                for source in from {
                    let from = match source {
                        CopySource::All => None,
                        CopySource::Path(path) => Some(path),
                        CopySource::Glob(_) => {
                            return Err(unsupported(&format!("steps[{step_number}].copy.from")));
                        }
                    };
                    copy(context, from, to, &mut tree, &place)?;
                }
            }
            Step::Copy(_) | Step::Run(_) => return Err(unsupported(&format!("steps[{step_number}]"))),
            Step::Env(_) | Step::Workdir(_) | Step::Expose(_) | Step::Label(_) => {}
        }
    }
    Ok(tree)
}

fn check_target(base: &Base, to: &CopyTarget, place: &Place<'_>) -> Result<(), BuildError> {
    let (CopyTarget::As(path) | CopyTarget::Into(path)) = to;
    match path.segments().next() {
        Some(top) if RESERVED.contains(&top) => Err(place.error(
            "to",
            format!("`/{top}` is made by the launcher for each run, files there would not be seen"),
        )),
        None if *base == Base::Host => {
            Err(place.error("to", "a package on the host's root has its files in directories, such as /app"))
        }
        _ => Ok(()),
    }
}

fn copy(
    context: &Context,
    from: Option<&RelativePath>,
    to: &CopyTarget,
    tree: &mut Tree,
    place: &Place<'_>,
) -> Result<(), BuildError> {
    let (CopyTarget::As(path) | CopyTarget::Into(path)) = to;
    let Some(from) = from else {
        return copy_directory(context, None, path, tree, place);
    };
    let source = context.source(from).map_err(|error| place.error("from", error))?;
    let source = source.ok_or_else(|| place.error("from", format!("`{from}` does not exist")))?;
    if context.is_ignored(from, source == Source::Directory) {
        return Err(place.error("from", format!("`{from}` is left out by .aosignore, or is of .git")));
    }
    if source == Source::Directory {
        return copy_directory(context, Some(from), path, tree, place);
    }
    if let Source::Symlink(_) = source {
        return Err(place.error("from", format!("`{from}` is a symbolic link: name what it points to")));
    }
    let target = match (to, from.segments().last()) {
        (CopyTarget::Into(directory), Some(name)) => {
            let name = name.parse::<RelativePath>().map_err(|error| place.error("from", error))?;
            directory.join(&name).map_err(|error| place.error("to", error))?
        }
        _ => path.clone(),
    };
    insert(from, source, &target, tree, place)
}

/// Copies a directory's contents; its own entry is `to`.
fn copy_directory(
    context: &Context,
    from: Option<&RelativePath>,
    to: &AbsolutePath,
    tree: &mut Tree,
    place: &Place<'_>,
) -> Result<(), BuildError> {
    tree.insert(to, Item::Directory).map_err(|message| place.error("to", message))?;
    // A worklist: the depth of the file system is not that of our stack.
    let mut open = vec![(from.cloned(), to.clone())];
    while let Some((from, to)) = open.pop() {
        for (path, source) in context.list(from.as_ref())? {
            let name = path.segments().last().unwrap_or_default();
            let name = name.parse::<RelativePath>().map_err(|error| place.error("from", error))?;
            let target = to.join(&name).map_err(|error| place.error("to", error))?;
            if source == Source::Directory {
                open.push((Some(path.clone()), target.clone()));
            }
            insert(&path, source, &target, tree, place)?;
        }
    }
    Ok(())
}

fn insert(
    from: &RelativePath,
    source: Source,
    target: &AbsolutePath,
    tree: &mut Tree,
    place: &Place<'_>,
) -> Result<(), BuildError> {
    let item = match source {
        Source::Directory => Item::Directory,
        Source::File { size, executable } => Item::File { from: from.clone(), size, executable },
        Source::Symlink(link) if link.is_empty() || link.len() > LINK_MAX => {
            return Err(place.error("from", format!("the target of the symbolic link `{from}` is too long")));
        }
        Source::Symlink(link) => Item::Symlink(link),
    };
    tree.insert(target, item).map_err(|message| place.error("to", message))
}
