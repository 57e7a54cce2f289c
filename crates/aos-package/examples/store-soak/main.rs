//! A soak of the package store: `store-soak [--kills N] [--workers N] [--seed N] [DIR]`.
//!
//! Workers put, tag, untag, attach, import, resume and collect in one store, all at once, and are
//! killed at random moments. After each kill, while the others go on, every byte of the store is
//! checked, and each tag must be what its worker last said, or was just about to make of it. Every
//! now and then all are killed: a collection must then leave nothing but what has a tag.
//!
//! Prints `N passed, N failed`, one check a kill, and exits with 1 when one failed. A failure
//! keeps the store, to be looked at, and says which seed led to it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a program of the tests: a panic is its failure report, and its output is its result"
)]

#[path = "../../tests/common/mod.rs"]
mod common;
mod journal;
mod worker;

use aos_package::repository::{Depth, Repository};
use common::{chain, gc};
use journal::Journal;
use std::collections::{BTreeSet, VecDeque};
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use worker::Random;

/// What the command line says.
struct Settings {
    kills: u32,
    workers: u32,
    seed: u64,
    directory: Option<PathBuf>,
}

/// All workers are killed together after this many kills.
const KILLS_A_ROUND: u32 = 12;
/// Longest life of a worker once it works: some dozen operations.
const LIFE_MAX_US: u64 = 40_000;
/// Longest time that a worker may take to begin.
const BEGIN_MAX: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1).peekable();
    if arguments.peek().is_some_and(|first| first == "worker") {
        let rest: Vec<String> = arguments.skip(1).collect();
        worker::run(Path::new(&rest[0]), rest[1].parse().unwrap(), rest[2].parse().unwrap());
    }
    let mut settings = Settings { kills: 60, workers: 3, seed: 1, directory: None };
    while let Some(argument) = arguments.next() {
        let mut number = || arguments.next().and_then(|text| text.parse().ok()).expect("a number");
        match argument.as_str() {
            "--kills" => settings.kills = number(),
            "--workers" => settings.workers = number(),
            "--seed" => settings.seed = u64::from(number()),
            directory => settings.directory = Some(PathBuf::from(directory)),
        }
    }
    Soak::new(settings).run()
}

/// A worker that runs.
struct Worker {
    slot: u32,
    child: Child,
    /// Reads what it says until it ends.
    lines: JoinHandle<Vec<String>>,
    /// How many lines that are.
    said: Arc<AtomicU64>,
}

impl Worker {
    /// Waits until it has begun, so that it is killed at its work.
    fn begin(&self) {
        let started = Instant::now();
        while self.said.load(Ordering::Relaxed) == 0 && started.elapsed() < BEGIN_MAX {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

struct Soak {
    settings: Settings,
    root: PathBuf,
    repository: Repository,
    random: Random,
    journals: Vec<Journal>,
    operations: u64,
    passed: u32,
    failed: u32,
}

impl Soak {
    fn new(settings: Settings) -> Self {
        let temporary = || tempfile::tempdir().unwrap().keep();
        let root = settings.directory.clone().unwrap_or_else(temporary);
        let repository = Repository::open(&root).unwrap();
        let random = Random::new(settings.seed);
        let journals = (0..settings.workers).map(Journal::of).collect();
        Self { settings, root, repository, random, journals, operations: 0, passed: 0, failed: 0 }
    }

    fn run(mut self) -> ExitCode {
        let slots = self.settings.workers;
        let mut workers: VecDeque<Worker> = (0..slots).map(|slot| self.spawn(slot)).collect();
        for kill in 1..=self.settings.kills {
            if let Some(first) = workers.front() {
                first.begin();
            }
            std::thread::sleep(Duration::from_micros(self.random.below(LIFE_MAX_US)));
            let mut wrong = Vec::new();
            if kill % KILLS_A_ROUND == 0 {
                for worker in workers.drain(..) {
                    wrong.extend(self.bury(worker));
                }
                wrong.extend(self.check());
                if wrong.is_empty() {
                    wrong.extend(self.check_alone());
                }
                workers.extend((0..slots).map(|slot| self.spawn(slot)));
            } else if let Some(worker) = workers.pop_front() {
                let slot = worker.slot;
                wrong.extend(self.bury(worker));
                wrong.extend(self.check());
                workers.push_back(self.spawn(slot));
            }
            if wrong.is_empty() {
                self.passed += 1;
            } else {
                self.failed += 1;
                println!("kill {kill}:\n  {}", wrong.join("\n  "));
                break;
            }
        }
        for worker in workers {
            let wrong = self.bury(worker);
            if !wrong.is_empty() {
                self.failed += 1;
                println!("at the end:\n  {}", wrong.join("\n  "));
            }
        }
        self.report()
    }

    fn report(self) -> ExitCode {
        if self.failed > 0 {
            eprintln!("seed {}, the store is kept in {}", self.settings.seed, self.root.display());
        } else if self.settings.directory.is_none() {
            std::fs::remove_dir_all(&self.root).unwrap();
        }
        eprintln!("{} operations were begun", self.operations);
        println!("{} passed, {} failed", self.passed, self.failed);
        if self.failed > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }

    fn spawn(&mut self, slot: u32) -> Worker {
        let seed = self.random.below(1 << 31);
        let mut child = Command::new(std::env::current_exe().unwrap())
            .arg("worker")
            .arg(&self.root)
            .args([slot.to_string(), seed.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let said = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&said);
        let lines = std::thread::spawn(move || {
            let counted = |line: std::io::Result<String>| {
                count.fetch_add(1, Ordering::Relaxed);
                line.unwrap()
            };
            output.lines().map(counted).collect()
        });
        Worker { slot, child, lines, said }
    }

    /// Kills a worker; says what it did wrong: it ended by itself, or a tag is not what it said.
    fn bury(&mut self, mut worker: Worker) -> Vec<String> {
        worker.child.kill().unwrap();
        let status = worker.child.wait().unwrap();
        let lines = worker.lines.join().unwrap();
        self.operations += lines.iter().filter(|line| line.starts_with("next")).count() as u64;
        let tags = match self.repository.tags() {
            Ok(tags) => tags.into_iter(),
            Err(error) => return vec![chain(&error)],
        };
        let tags = tags.map(|tag| (tag.reference.to_string(), tag.descriptor.digest.to_string())).collect();
        let journal = &mut self.journals[usize::try_from(worker.slot).unwrap()];
        let mut wrong = journal.read(&lines);
        if status.signal() != Some(9) {
            wrong.push(format!("worker {} ended by itself: {status}", worker.slot));
        }
        wrong.extend(journal.settle(&tags));
        wrong
    }

    /// Every byte of the store, while the other workers go on.
    fn check(&self) -> Vec<String> {
        let found = match self.repository.check(Depth::Contents, &BTreeSet::new()) {
            Ok(found) => found,
            Err(error) => return vec![chain(&error)],
        };
        found.iter().filter(|problem| problem.is_damage()).map(|problem| chain(problem)).collect()
    }

    /// With nobody there, a collection leaves nothing that is not needed.
    fn check_alone(&self) -> Vec<String> {
        gc(&self.repository, &[]);
        let found = self.repository.check(Depth::Contents, &BTreeSet::new()).unwrap();
        let mut wrong: Vec<String> = found.iter().map(|problem| chain(problem)).collect();
        for place in ["leases", "partial", "tmp"] {
            let left = std::fs::read_dir(self.root.join(place)).unwrap().count();
            if left > 0 {
                wrong.push(format!("{left} files are left in {place}"));
            }
        }
        wrong
    }
}
