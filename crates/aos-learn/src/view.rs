//! The agent's view of files as its plan makes it, and what in it a use of a path comes to: allowed,
//! of no interest, or a need.
//!
//! A path is followed as the kernel follows it inside, segment by segment, link by link, over the
//! plan's places. Where it ends tells what is missing: a Landlock rule (the file is there), or a
//! place in the tree (it is not, and the host may have it).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use aos_core::capability::Capability;
use aos_core::path::AbsolutePath;
use aos_sandbox::plan::{Access, Links, Node, Part, Reach, SandboxPlan};
use aos_sandbox::record::Want;

use crate::ask::{Address, Ask};
use crate::host::{Files, Identity, Look};
use crate::need::{Found, Proposal, below, exact, name_of, unnameable};

/// Links that are followed on the way: as many as the kernel follows.
const LINKS_MAX: usize = 40;
/// Segments that are walked for one path, links included.
const SEGMENTS_MAX: usize = 20_000;
/// Programs of a chain of interpreters.
const CHAIN_MAX: usize = 6;
/// The directory whose missing files may be the host's: a package's own lie beside them.
const SHARED: &str = "/etc";
const DNS_PORT: u16 = 53;

/// What is at a place of the plan.
#[derive(Clone, Debug)]
enum Place {
    /// The agent's own: made for it.
    Own,
    /// A link of the root.
    Link(PathBuf),
    /// Files of the host, the first on top.
    Host(Vec<PathBuf>),
}

/// Where a path of the agent ends.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// In a place that is the agent's own.
    Own(String),
    /// At something that it sees.
    Seen { real: String, look: Look, host: PathBuf },
    /// At nothing; the host has a place of that name that was not given to it.
    Unseen(String),
    /// At nothing, and the directory that lacks it is seen.
    Lacking(String),
    /// Nowhere: too many links, or something that is no directory on the way.
    Nowhere,
}

/// A rule on files.
struct Rule {
    path: String,
    /// Of the directory's entries only those whose names start so.
    prefix: Option<String>,
    writes: bool,
    reads: bool,
}

/// A right to execute.
enum Program {
    One(String, Identity),
    Below(String),
}

/// The view.
pub(crate) struct View<F> {
    files: F,
    places: BTreeMap<String, Place>,
    rules: Vec<Rule>,
    programs: Vec<Program>,
    ports: Vec<u16>,
}

impl<F: Files> View<F> {
    /// The view that a plan makes.
    pub(crate) fn new(plan: &SandboxPlan, files: F) -> Self {
        let places = plan.tree.iter().map(|entry| (entry.path.as_str().to_owned(), place(&entry.node)));
        let ports = plan.listen.iter().map(|rule| rule.port).collect();
        let mut view =
            Self { files, places: places.collect(), rules: Vec::new(), programs: Vec::new(), ports };
        for rule in &plan.landlock {
            let Some(path) = view.real(&rule.path, rule.links) else { continue };
            let prefix = match &rule.part {
                Part::All => None,
                Part::Prefixed(prefix) => Some(prefix.clone()),
            };
            let writes = matches!(rule.access, Access::Write | Access::WriteOwn | Access::Device);
            view.rules.push(Rule { path, prefix, writes, reads: rule.access != Access::List });
        }
        let path = plan.program.env.get("PATH").map_or("", String::as_str);
        for rule in &plan.programs {
            match rule.reach {
                Reach::Subtree => view.programs.extend(view.real(&rule.path, rule.links).map(Program::Below)),
                Reach::File => view.programs.extend(view.chain(rule.path.as_str(), path)),
            }
        }
        view
    }

    /// A program and the interpreters that come with it: those of its `#!` line, and what `env` is
    /// given there.
    fn chain(&self, program: &str, path: &str) -> Vec<Program> {
        let mut programs = Vec::new();
        let mut waiting = vec![program.to_owned()];
        while let Some(End::Seen { real, look: Look::File(identity), host }) =
            waiting.pop().map(|program| self.follow(&program))
        {
            programs.push(Program::One(real, identity));
            if programs.len() >= CHAIN_MAX {
                break;
            }
            let Some((interpreter, argument)) = interpreter(&self.files.head(&host)) else { continue };
            if interpreter.ends_with("/env") && !argument.is_empty() && !argument.contains('/') {
                let found = path.split(':').map(|directory| format!("{directory}/{argument}"));
                let is_file =
                    |path: &String| matches!(self.follow(path), End::Seen { look: Look::File(_), .. });
                waiting.extend(found.into_iter().find(is_file));
            }
            waiting.push(interpreter);
        }
        programs
    }

    /// Where the path of a rule ends.
    fn real(&self, path: &AbsolutePath, links: Links) -> Option<String> {
        match (links, self.follow(path.as_str())) {
            (_, End::Seen { real, .. }) | (_, End::Own(real)) => Some(real),
            // The root itself, and directories that are made on the way to places.
            (Links::Follow, _) if path.as_str() == "/" => Some("/".to_owned()),
            _ => None,
        }
    }

    /// What an ask comes to; `None` when it is allowed, or nothing that a capability is about.
    pub(crate) fn judge(&self, ask: &Ask) -> Option<Found> {
        match ask {
            Ask::Path { path, want, creates } => self.judge_path(path, *want, *creates),
            Ask::Connect(Address::Internet(at)) => self.judge_connection(*at),
            Ask::Connect(Address::File(path)) => self.judge_socket(path),
            Ask::Listen(port) => self.judge_port(*port),
        }
    }

    fn judge_path(&self, path: &[u8], want: Want, creates: bool) -> Option<Found> {
        let Ok(text) = std::str::from_utf8(path) else {
            let path = String::from_utf8_lossy(path);
            let found = Found { proposal: unnameable(want, &path), want, real: None };
            return Some(found).filter(|_| want != Want::Look);
        };
        let end = self.follow(text);
        if let End::Seen { real, look, .. } = &end {
            let proposal = self.seen(text, real, look, want)?;
            let (proposal, real) = with_real(proposal, want, real);
            return Some(Found { proposal, want, real });
        }
        let proposal = match end {
            End::Own(real) => own(want, &real),
            End::Nowhere | End::Seen { .. } => None,
            End::Lacking(real) => self.lacking(&real, want, creates),
            End::Unseen(real) => self.unseen(&real, want, creates),
        };
        proposal.map(|proposal| Found { proposal, want, real: None })
    }

    /// Something that the agent sees and may not use so.
    fn seen(&self, named: &str, real: &str, look: &Look, want: Want) -> Option<Proposal> {
        let is_directory = *look == Look::Directory;
        if let Some(why) = unproposed(look).filter(|_| want != Want::Look) {
            let is_given = match want {
                Want::Entry => self.entry(real).is_none(),
                _ => self.allows(want, real, look),
            };
            return (!is_given).then(|| nothing(want, real, why));
        }
        if want == Want::Entry {
            return self.entry(real);
        }
        // Everything that is seen may be looked at, and every directory listed.
        if want == Want::Look || (is_directory && want != Want::Write) || self.allows(want, real, look) {
            return None;
        }
        let path = self.nameable(named, real);
        let Ok(path) = path.parse() else { return Some(unnameable(want, real)) };
        Some(if is_directory {
            below(want, &path, "it changes the directory itself")
        } else {
            exact(want, &path)
        })
    }

    /// What the agent called a file, where a grant may follow links; else where it really is.
    fn nameable<'a>(&self, named: &'a str, real: &'a str) -> &'a str {
        let top = named.split('/').nth(1).unwrap_or_default();
        let is_provided = !top.is_empty() && self.places.contains_key(&format!("/{top}"));
        if is_provided && named.parse::<AbsolutePath>().is_ok() { named } else { real }
    }

    /// Nothing, in a directory that the agent sees.
    fn lacking(&self, real: &str, want: Want, creates: bool) -> Option<Proposal> {
        if creates || want == Want::Entry { self.entry(real) } else { None }
    }

    /// An entry that is made or removed in a directory that the agent sees.
    fn entry(&self, real: &str) -> Option<Proposal> {
        let directory = parent(real);
        if self.allows(Want::Write, directory, &Look::Directory) {
            return None;
        }
        let Ok(directory) = directory.parse() else { return Some(unnameable(Want::Entry, directory)) };
        Some(below(Want::Entry, &directory, "it makes or removes files there"))
    }

    /// Nothing for the agent, and perhaps something of the host.
    fn unseen(&self, real: &str, want: Want, creates: bool) -> Option<Proposal> {
        let Ok(path) = real.parse::<AbsolutePath>() else {
            let is_there = !matches!(self.files.look(Path::new(real)), Look::Missing);
            return is_there.then(|| unnameable(want, real));
        };
        let directory = path.parent().unwrap_or_else(AbsolutePath::root);
        let makes = |because| Some(below(Want::Entry, &directory, because));
        match self.files.look(path.as_path()) {
            Look::Missing if creates || want == Want::Entry => {
                let has_directory = self.files.look(directory.as_path()) == Look::Directory;
                if has_directory { makes("it makes a file that is not there") } else { None }
            }
            Look::Missing => None,
            Look::Closed => Some(nothing(want, path.as_str(), "you may not reach it yourself"))
                .filter(|_| want != Want::Look),
            Look::Unmounted if want == Want::Look => None,
            look @ (Look::Special | Look::Unmounted) => {
                unproposed(&look).map(|why| nothing(want, path.as_str(), why))
            }
            Look::Link(_) | Look::Behind => self.elsewhere(&path, want),
            Look::Directory if want == Want::Execute => None,
            Look::Directory if want == Want::Entry => makes("it makes or removes files there"),
            Look::Directory => Some(below(want, &path, "it is a directory")),
            Look::File(_) if want == Want::Entry => makes("it makes or removes files there"),
            Look::File(_) => Some(exact(want, &path)),
        }
    }

    /// A path that passes a link of the host, which no grant follows.
    fn elsewhere(&self, path: &AbsolutePath, want: Want) -> Option<Proposal> {
        let target = self.files.leads_to(path.as_path())?;
        Some(Proposal::Nothing {
            what: format!("{}: {path}", name_of(want)),
            why: format!(
                "it leads by a symbolic link to {}, and no grant follows links: let the agent name that",
                target.display()
            ),
        })
    }

    /// Whether a rule allows a use of a path that the agent sees.
    fn allows(&self, want: Want, real: &str, look: &Look) -> bool {
        let is_program = || {
            self.programs.iter().any(|program| match program {
                Program::Below(directory) => is_within(real, directory),
                Program::One(path, identity) => path == real || *look == Look::File(*identity),
            })
        };
        match want {
            Want::Execute => is_program(),
            Want::Look => true,
            Want::Read => self.rules.iter().any(|rule| rule.reads && rule.covers(real)) || is_program(),
            Want::Write | Want::Entry => self.rules.iter().any(|rule| rule.writes && rule.covers(real)),
        }
    }

    fn judge_connection(&self, at: std::net::SocketAddr) -> Option<Found> {
        if at.ip().is_loopback() && self.ports.contains(&at.port()) {
            return None;
        }
        let (what, why) = if at.port() == DNS_PORT {
            (
                format!("net: names, of {at}"),
                "looking up names needs aos-broker, which this version does not have",
            )
        } else if at.ip().is_loopback() {
            (format!("net: {at}"), "nothing of the host is on the agent's own loopback")
        } else {
            (format!("net: {at}"), "the network needs aos-broker, which this version does not have")
        };
        Some(Found {
            proposal: Proposal::Nothing { what, why: why.to_owned() },
            want: Want::Read,
            real: None,
        })
    }

    fn judge_socket(&self, path: &[u8]) -> Option<Found> {
        let text = std::str::from_utf8(path).ok()?;
        let End::Unseen(real) = self.follow(text) else { return None };
        if !matches!(self.files.look(Path::new(&real)), Look::Special | Look::Link(_) | Look::Behind) {
            return None;
        }
        let why = "no capability is about sockets of the host".to_owned();
        let proposal = Proposal::Nothing { what: format!("socket: {real}"), why };
        Some(Found { proposal, want: Want::Read, real: None })
    }

    fn judge_port(&self, port: u16) -> Option<Found> {
        if self.ports.contains(&port) {
            return None;
        }
        let proposal = match format!("listen: {port}").parse() {
            Ok(capability) => Proposal::Exact(capability),
            Err(_) => Proposal::Nothing {
                what: "listen: any port".to_owned(),
                why: "a port that the system chooses cannot be granted: let the agent choose one".to_owned(),
            },
        };
        Some(Found { proposal, want: Want::Write, real: None })
    }

    /// Follows a path as the kernel does inside.
    fn follow(&self, path: &str) -> End {
        let mut waiting: Vec<String> = segments(path);
        let mut real = String::new();
        let (mut links, mut steps) = (0, 0);
        let (mut look, mut host) = (Look::Directory, PathBuf::new());
        while let Some(name) = waiting.pop() {
            steps += 1;
            if steps > SEGMENTS_MAX || look != Look::Directory {
                return End::Nowhere;
            }
            if name == ".." {
                real.truncate(real.rfind('/').unwrap_or(0));
                continue;
            }
            let next = format!("{real}/{name}");
            match self.at(&next) {
                At::Own(place) => {
                    let end = joined(next, std::mem::take(&mut waiting));
                    if is_within(&end, &place) {
                        return End::Own(end);
                    }
                    // Out again by `..`: what is inside is not looked at.
                    waiting = segments(&end);
                    real.clear();
                }
                At::Made => real = next,
                At::Absent => return End::Unseen(joined(next, waiting)),
                At::Found(Look::Missing, _) => return End::Lacking(joined(next, waiting)),
                At::Found(Look::Link(target), _) => {
                    links += 1;
                    let Some(target) = target.to_str().filter(|_| links <= LINKS_MAX) else {
                        return End::Nowhere;
                    };
                    if target.starts_with('/') {
                        real.clear();
                    }
                    waiting.extend(segments(target));
                }
                At::Found(found, path) => {
                    (look, host) = (found, path);
                    real = next;
                }
            }
        }
        End::Seen { real: if real.is_empty() { "/".to_owned() } else { real }, look, host }
    }

    /// What is at a path whose directories are real.
    fn at(&self, path: &str) -> At {
        if let Some(Place::Link(to)) = self.places.get(path) {
            return At::Found(Look::Link(to.clone()), PathBuf::new());
        }
        let mut above = path;
        loop {
            match self.places.get(above) {
                Some(Place::Own) => return At::Own(above.to_owned()),
                Some(Place::Host(sources)) => {
                    let rest = path.get(above.len()..).unwrap_or_default().trim_start_matches('/');
                    let (found, host) = self.first(sources, rest);
                    let is_shared = above == SHARED && found == Look::Missing;
                    return if !is_shared {
                        At::Found(found, host)
                    } else if self.has_places_below(path) {
                        At::Made
                    } else {
                        At::Absent
                    };
                }
                _ if above.is_empty() => break,
                _ => above = parent_or_empty(above),
            }
        }
        if self.has_places_below(path) { At::Made } else { At::Absent }
    }

    /// The topmost of a union's directories that has an entry.
    fn first(&self, sources: &[PathBuf], rest: &str) -> (Look, PathBuf) {
        for source in sources {
            let path = if rest.is_empty() { source.clone() } else { source.join(rest) };
            let look = self.files.look(&path);
            if look != Look::Missing {
                return (look, path);
            }
        }
        (Look::Missing, PathBuf::new())
    }

    fn has_places_below(&self, path: &str) -> bool {
        let prefix = format!("{path}/");
        self.places.range(prefix.clone()..).next().is_some_and(|(other, _)| other.starts_with(&prefix))
    }
}

/// What is at a path, in the places.
enum At {
    /// In this place of the agent's own.
    Own(String),
    /// A directory of the root that only leads to places.
    Made,
    Absent,
    Found(Look, PathBuf),
}

impl Rule {
    fn covers(&self, real: &str) -> bool {
        if !is_within(real, &self.path) {
            return false;
        }
        let Some(prefix) = &self.prefix else { return true };
        let rest = real.strip_prefix(self.path.trim_end_matches('/')).unwrap_or_default();
        rest.trim_start_matches('/').starts_with(prefix.as_str())
    }
}

/// What is at a place of a plan. What is made for the agent is its own.
fn place(node: &Node) -> Place {
    match node {
        Node::Symlink { to } => Place::Link(to.into()),
        Node::Bind(bind) => Place::Host(vec![bind.source.as_path().to_owned()]),
        Node::Overlay { lower, .. } => {
            Place::Host(lower.iter().map(|path| path.as_path().to_owned()).collect())
        }
        _ => Place::Own,
    }
}

/// Why what is at a path is never proposed: to reach a socket, a pipe or a device is to talk to
/// whoever is behind it, which reading is not.
const fn unproposed(look: &Look) -> Option<&'static str> {
    match look {
        Look::Special => Some("it is a socket, a pipe or a device, and files are what is granted"),
        Look::Unmounted => Some("it is below an automount, and nothing is mounted to look at it"),
        _ => None,
    }
}

fn nothing(want: Want, path: &str, why: &str) -> Proposal {
    Proposal::Nothing { what: format!("{}: {path}", name_of(want)), why: why.to_owned() }
}

/// An exact proposal with the capability on what its path is by its links, where that is another one.
/// What that cannot be said of is not proposed.
fn with_real(proposal: Proposal, want: Want, real: &str) -> (Proposal, Option<Capability>) {
    if !matches!(proposal, Proposal::Exact(_)) {
        return (proposal, None);
    }
    match real.parse().map(|real| exact(want, &real)) {
        Ok(Proposal::Exact(real)) => {
            let is_other = proposal != Proposal::Exact(real.clone());
            (proposal, is_other.then_some(real))
        }
        _ => (unnameable(want, real), None),
    }
}

/// A program in a place of the agent's own is the one thing there that it may lack.
fn own(want: Want, real: &str) -> Option<Proposal> {
    let is_written = ["/tmp", "/dev/shm"].iter().any(|directory| is_within(real, directory));
    (want == Want::Execute && is_written).then(|| Proposal::Nothing {
        what: format!("exec: {real}"),
        why: "what an agent can write is never executed: put the program in the package".to_owned(),
    })
}

/// The interpreter of a `#!` line, and the first word that is given to it.
fn interpreter(head: &[u8]) -> Option<(String, String)> {
    let line = head.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let text = std::str::from_utf8(line).ok()?;
    let mut words = text.split_whitespace();
    let interpreter = words.next().filter(|word| word.starts_with('/'))?;
    let argument = words.find(|word| !word.starts_with('-') && !word.contains('=')).unwrap_or_default();
    Some((interpreter.to_owned(), argument.to_owned()))
}

/// The segments of a path, the last first.
fn segments(path: &str) -> Vec<String> {
    path.split('/').filter(|name| !matches!(*name, "" | ".")).rev().map(str::to_owned).collect()
}

/// A path with what was not walked yet.
fn joined(mut path: String, waiting: Vec<String>) -> String {
    for name in waiting.into_iter().rev() {
        if name == ".." {
            path.truncate(path.rfind('/').unwrap_or(0));
        } else {
            path.push('/');
            path.push_str(&name);
        }
    }
    if path.is_empty() { "/".to_owned() } else { path }
}

fn parent(path: &str) -> &str {
    match parent_or_empty(path) {
        "" => "/",
        parent => parent,
    }
}

fn parent_or_empty(path: &str) -> &str {
    path.rfind('/').and_then(|at| path.get(..at)).unwrap_or_default()
}

fn is_within(path: &str, directory: &str) -> bool {
    path.strip_prefix(directory.trim_end_matches('/'))
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests;
