//! The files of a stage as its layers together make them: names and attributes, no contents.

use aos_core::id::Digest;
use aos_core::path::AbsolutePath;
use std::collections::{BTreeMap, HashSet};
use std::ops::Bound;

/// Symbolic links on the way to one file, the kernel's own limit.
const LINKS_MAX: usize = 40;

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Node {
    Directory,
    File { size: u64, digest: Digest },
    Symlink(Box<str>),
}

/// An entry of a stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) node: Node,
    /// Permission bits.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl Entry {
    /// A directory that nobody described.
    pub(crate) const fn directory() -> Self {
        Self { node: Node::Directory, mode: 0o755, uid: 0, gid: 0 }
    }

    pub(crate) fn is_directory(&self) -> bool {
        self.node == Node::Directory
    }
}

/// What a layer does to a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Item {
    Entry(Entry),
    /// The path is another name of an earlier file of the layer.
    HardLink(Box<str>),
    /// What the layers below have at the path is hidden.
    Whiteout,
    /// What the layers below have in the directory is hidden.
    Opaque,
}

impl Item {
    /// The entry, unless it is something else.
    fn entry(self) -> Option<Entry> {
        match self {
            Self::Entry(entry) => Some(entry),
            Self::HardLink(_) | Self::Whiteout | Self::Opaque => None,
        }
    }
}

/// All that a layer does, sorted by path; the path of [`Item::Opaque`] may be the empty root.
pub(crate) type Listing = Vec<(Box<str>, Item)>;

/// Where a path leads.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Lookup<'t> {
    /// To an entry that is no directory, whose own path this is.
    Entry(String, &'t Entry),
    /// To a directory; empty is the root.
    Directory(String),
    /// The tree has no such entry.
    Missing,
    /// The path leads to a directory at the top that the tree does not have.
    Outside {
        top: String,
        /// All of the path, after the links of the tree.
        path: String,
    },
}

/// Items of a layer up to which entries are inserted one by one: moving the entries behind them costs
/// less than building a map of all.
const FEW: usize = 64;

/// All entries, sorted by their paths without the leading slash: a directory comes before what is in
/// it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tree {
    entries: Vec<(Box<str>, Entry)>,
    links: usize,
}

impl Tree {
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.entries.iter().map(|(path, entry)| (&**path, entry))
    }

    pub(crate) const fn len(&self) -> usize {
        self.entries.len()
    }

    fn find(&self, path: &str) -> Result<usize, usize> {
        self.entries.binary_search_by(|(found, _)| (**found).cmp(path))
    }

    pub(crate) fn get(&self, path: &str) -> Option<&Entry> {
        self.find(path).ok().and_then(|index| self.entries.get(index)).map(|(_, entry)| entry)
    }

    /// True when no path can lead elsewhere than it says.
    pub(crate) const fn has_links(&self) -> bool {
        self.links > 0
    }

    /// What is below a directory, with paths below the whole tree; empty is the root.
    pub(crate) fn below<'t>(&'t self, directory: &str) -> impl Iterator<Item = (&'t str, &'t Entry)> {
        let prefix = if directory.is_empty() { String::new() } else { format!("{directory}/") };
        let from = self.entries.partition_point(|(path, _)| **path < *prefix);
        let all = self.entries.get(from..).unwrap_or_default().iter();
        all.map(|(path, entry)| (&**path, entry)).take_while(move |(path, _)| path.starts_with(&prefix))
    }

    /// Applies a layer: what it hides first, since nothing of itself is meant by that.
    pub(crate) fn apply(&mut self, listing: Listing) {
        if self.entries.is_empty() && is_whole(&listing) {
            // The usual case, and a large one.
            self.entries =
                listing.into_iter().filter_map(|(path, item)| Some((path, item.entry()?))).collect();
        } else if listing.len() <= FEW && listing.iter().all(|(path, item)| self.has_place(path, item)) {
            for (path, item) in listing {
                match (self.find(&path), item.entry()) {
                    (Ok(at), Some(entry)) => drop(self.entries.get_mut(at).map(|old| old.1 = entry)),
                    (Err(at), Some(entry)) => self.entries.insert(at, (path, entry)),
                    (_, None) => {}
                }
            }
        } else {
            let mut map: Map = std::mem::take(&mut self.entries).into_iter().collect();
            overlay(&mut map, listing);
            self.entries = map.into_iter().collect();
        }
        let is_link = |(_, entry): &&(Box<str>, Entry)| matches!(entry.node, Node::Symlink(_));
        self.links = self.entries.iter().filter(is_link).count();
    }

    /// True for an entry that takes the place of its like or of nothing, in a directory that is there.
    fn has_place(&self, path: &str, item: &Item) -> bool {
        let Item::Entry(entry) = item else { return false };
        let above = path.rsplit_once('/').is_none_or(|(above, _)| self.get(above).is_some());
        above && self.get(path).is_none_or(|old| old.is_directory() == entry.is_directory())
    }

    /// Follows a path through the tree's directories and links.
    pub(crate) fn look_up(&self, path: &AbsolutePath) -> Lookup<'_> {
        match self.walk(path.as_str(), Missing::Stop) {
            Walked::Directory(at) => Lookup::Directory(at),
            Walked::Entry(at) => match self.get(&at) {
                Some(entry) => Lookup::Entry(at, entry),
                None => Lookup::Missing,
            },
            Walked::Missing => Lookup::Missing,
            Walked::Outside { top, path } => Lookup::Outside { top, path },
        }
    }

    /// The path of a directory without links on the way; what the tree does not have is taken as it
    /// is written. `None` when a file is on the way, or links lead in a circle.
    pub(crate) fn resolve_directory(&self, path: &str) -> Option<String> {
        if !self.has_links() {
            return Some(path.to_owned());
        }
        match self.walk(path, Missing::Append) {
            Walked::Directory(at) => Some(at),
            Walked::Entry(_) | Walked::Missing | Walked::Outside { .. } => None,
        }
    }

    fn walk(&self, path: &str, missing: Missing) -> Walked {
        let mut links = 0;
        // Segments still to go, the next one last.
        let mut ahead: Vec<String> = path.split('/').rev().map(str::to_owned).collect();
        let mut at = String::new();
        while let Some(segment) = ahead.pop() {
            match segment.as_str() {
                "" | "." => continue,
                ".." => {
                    at.truncate(at.rfind('/').unwrap_or(0));
                    continue;
                }
                _ => {}
            }
            let next = if at.is_empty() { segment.clone() } else { format!("{at}/{segment}") };
            match self.get(&next).map(|entry| &entry.node) {
                Some(Node::Directory) => at = next,
                None if missing == Missing::Append => at = next,
                None if at.is_empty() => {
                    let rest: Vec<&str> = ahead.iter().rev().map(String::as_str).collect();
                    let rest = rest.join("/");
                    let path = format!("/{segment}/{rest}").trim_end_matches('/').to_owned();
                    return Walked::Outside { top: segment, path };
                }
                None => return Walked::Missing,
                Some(Node::File { .. }) if ahead.is_empty() => return Walked::Entry(next),
                Some(Node::File { .. }) => return Walked::Missing,
                Some(Node::Symlink(target)) => {
                    links += 1;
                    if links > LINKS_MAX {
                        return Walked::Missing;
                    }
                    if target.starts_with('/') {
                        at.clear();
                    }
                    ahead.extend(target.split('/').rev().map(str::to_owned));
                }
            }
        }
        Walked::Directory(at)
    }
}

type Map = BTreeMap<Box<str>, Entry>;

/// Puts a layer on top of entries.
fn overlay(entries: &mut Map, listing: Listing) {
    for (path, item) in &listing {
        if matches!(item, Item::Whiteout | Item::Opaque) {
            clear(entries, path);
        }
        if *item == Item::Whiteout {
            entries.remove(path);
        }
    }
    for (path, item) in listing {
        let entry = match item {
            Item::Entry(entry) => Some(entry),
            Item::HardLink(target) => entries.get(&target).cloned(),
            Item::Whiteout | Item::Opaque => None,
        };
        let Some(entry) = entry else { continue };
        make_parents(entries, &path);
        let directory = entry.is_directory();
        let old = entries.insert(path.clone(), entry);
        if !directory && old.is_some_and(|old| old.is_directory()) {
            clear(entries, &path);
        }
    }
}

/// Removes what is below a directory, and not itself; empty is the root.
fn clear(entries: &mut Map, directory: &str) {
    let prefix = if directory.is_empty() { String::new() } else { format!("{directory}/") };
    let from = (Bound::Included(prefix.as_str()), Bound::Unbounded);
    let below = entries.range::<str, _>(from).map(|(path, _)| path.clone());
    let below: Vec<Box<str>> = below.take_while(|path| path.starts_with(&prefix)).collect();
    for path in below {
        entries.remove(&path);
    }
}

/// Other tools' layers may lack the directories above an entry.
fn make_parents(entries: &mut Map, path: &str) {
    let mut at = path;
    while let Some((above, _)) = at.rsplit_once('/') {
        if entries.contains_key(above) {
            break;
        }
        entries.insert(above.into(), Entry::directory());
        at = above;
    }
}

/// True for a sorted list of entries alone in which each comes after the directory that it is in.
fn is_whole(listing: &Listing) -> bool {
    let mut directories: HashSet<&str> = HashSet::new();
    let (mut last, mut known) = ("", "");
    listing.iter().all(|(path, item)| {
        let Item::Entry(entry) = item else { return false };
        let sorted = last < &**path;
        last = path;
        let above = path.rsplit_once('/').map_or("", |(above, _)| above);
        // Neighbours follow each other.
        if above != known && !above.is_empty() && !directories.contains(above) {
            return false;
        }
        known = above;
        if entry.is_directory() {
            directories.insert(path);
        }
        sorted
    })
}

/// What a walk does at a name that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Missing {
    Stop,
    Append,
}

enum Walked {
    Directory(String),
    Entry(String),
    Missing,
    Outside { top: String, path: String },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> Entry {
        let node = Node::File { size: 1, digest: Digest::from_bytes([1; 32]) };
        Entry { node, mode: 0o644, uid: 0, gid: 0 }
    }

    fn link(target: &str) -> Entry {
        Entry { node: Node::Symlink(target.into()), mode: 0o777, uid: 0, gid: 0 }
    }

    fn paths(tree: &Tree) -> Vec<&str> {
        tree.iter().map(|(path, _)| path).collect()
    }

    #[test]
    fn layers_hide_and_replace() {
        let mut tree = Tree::default();
        let entry = |path: &str, entry| (Box::from(path), Item::Entry(entry));
        tree.apply(vec![
            entry("a/b/c", file()),
            entry("a/b.c", file()),
            entry("d", link("a")),
            entry("e/f", file()),
            entry("g/h", file()),
        ]);
        assert_eq!(paths(&tree), ["a", "a/b", "a/b.c", "a/b/c", "d", "e", "e/f", "g", "g/h"]);
        assert!(tree.has_links());
        tree.apply(vec![
            ("a/b".into(), Item::Whiteout),
            entry("d", file()),
            ("e".into(), Item::Opaque),
            entry("e/new", file()),
            entry("g", file()),
            ("x".into(), Item::HardLink("d".into())),
        ]);
        assert_eq!(paths(&tree), ["a", "a/b.c", "d", "e", "e/new", "g", "x"]);
        assert!(!tree.has_links());
        assert_eq!(tree.below("a").map(|(path, _)| path).collect::<Vec<_>>(), ["a/b.c"]);
        assert_eq!(tree.below("").count(), 7);
    }

    #[test]
    fn paths_follow_links() {
        let mut tree = Tree::default();
        let entry = |path: &str, entry| (Box::from(path), Item::Entry(entry));
        tree.apply(vec![
            entry("bin", link("usr/bin")),
            entry("usr/bin/sh", file()),
            entry("usr/bin/x", link("/usr/bin/sh")),
            entry("loop", link("loop")),
        ]);
        let look = |path: &str| tree.look_up(&path.parse().unwrap());
        assert_eq!(look("/bin/sh"), Lookup::Entry("usr/bin/sh".to_owned(), &file()));
        assert_eq!(look("/bin/x"), Lookup::Entry("usr/bin/sh".to_owned(), &file()));
        assert_eq!(look("/bin"), Lookup::Directory("usr/bin".to_owned()));
        assert_eq!(look("/bin/sh/x"), Lookup::Missing);
        assert_eq!(look("/loop"), Lookup::Missing);
        let outside = Lookup::Outside { top: "opt".to_owned(), path: "/opt/x".to_owned() };
        assert_eq!(look("/opt/x"), outside);
        assert_eq!(tree.resolve_directory("bin/new/dir").as_deref(), Some("usr/bin/new/dir"));
        assert_eq!(tree.resolve_directory("opt/x").as_deref(), Some("opt/x"));
        assert_eq!(tree.resolve_directory("loop/x"), None);
        assert_eq!(tree.resolve_directory("bin/sh/x"), None);
    }
}
