//! Measures builds: cold, fully cached, and after one file changed.
//!
//!     cargo run --release -p aos-build --example build-bench -- [FILES] [BYTES EACH] [DIRECTORY] [STORE]
//!
//! Makes FILES small files (20,000 of some 1 KiB by default) in a temporary directory, or takes
//! those of DIRECTORY, and prints the times of the steps in milliseconds, the best of several runs
//! for what is cached. With a STORE that has built DIRECTORY before, everything is.
#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a program that measures reads the clock and prints what it finds"
)]

use aos_build::{Local, Options, Request, Silent, build};
use aos_package::repository::Repository;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

/// Files by default: the tree of the benchmarks page.
const FILES: usize = 20_000;
/// Bytes of each by default.
const BYTES: usize = 1024;
/// Files of one directory.
const FAN_OUT: usize = 100;
/// Runs of which the best counts.
const RUNS: usize = 15;

const AGENTFILE: &str = "\
apiVersion: aos/v1
kind: Agent
metadata: { name: bench, version: 1.0.0 }
run: { entrypoint: [ /usr/bin/env, /app/d0/d0/f0.txt ] }
";

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let files = arguments.next().map_or(Ok(FILES), |text| text.parse())?;
    let bytes = arguments.next().map_or(Ok(BYTES), |text| text.parse())?;
    let scratch = tempfile::tempdir()?;
    let tree = match arguments.next() {
        Some(directory) => directory.into(),
        None => scratch.path().join("tree"),
    };
    if !tree.exists() {
        make(&tree, files, bytes)?;
        // Files that are younger than a tick of the clock are hashed again, and no tree that
        // somebody works on is that young.
        std::thread::sleep(Duration::from_millis(300));
    }
    let store = arguments.next().map_or_else(|| scratch.path().join("store"), PathBuf::from);
    let repository = Repository::open(&store)?;
    let cold = run(&tree, &repository)?;
    println!("cold        {:8.1} ms", cold.as_secs_f64() * 1e3);
    println!("cached      {:8.1} ms", best(&tree, &repository)?.as_secs_f64() * 1e3);
    let changed = tree.join("d0/d0/f0.txt");
    if changed.exists() {
        // Contents that no run had before.
        fs::write(&changed, format!("{:?}", SystemTime::now()))?;
        std::thread::sleep(Duration::from_millis(300));
        println!("one changed {:8.1} ms", run(&tree, &repository)?.as_secs_f64() * 1e3);
        println!("cached      {:8.1} ms", best(&tree, &repository)?.as_secs_f64() * 1e3);
    }
    Ok(())
}

fn run(tree: &Path, repository: &Repository) -> Result<Duration, Box<dyn Error>> {
    let started = Instant::now();
    build(&Request::new(tree, Options::at(SystemTime::now())), repository, &Local, &Silent)?;
    Ok(started.elapsed())
}

fn best(tree: &Path, repository: &Repository) -> Result<Duration, Box<dyn Error>> {
    let mut best = run(tree, repository)?;
    for _ in 1..RUNS {
        best = best.min(run(tree, repository)?);
    }
    Ok(best)
}

/// Files whose contents compress as source code does: words of a small vocabulary.
fn make(tree: &Path, files: usize, bytes: usize) -> Result<(), Box<dyn Error>> {
    let mut state = 1_u64;
    for number in 0..files {
        let directory = tree.join(format!("d{}/d{}", number / FAN_OUT / 10, number / FAN_OUT % 10));
        if number % FAN_OUT == 0 {
            fs::create_dir_all(&directory)?;
        }
        let mut text = String::new();
        while text.len() < bytes {
            // A linear congruential generator (Knuth, MMIX): the same files each time.
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            text.push_str(&format!("word{} ", (state >> 33) % 4096));
        }
        text.truncate(bytes);
        fs::write(directory.join(format!("f{number}.txt")), text)?;
    }
    fs::write(tree.join("Agentfile"), AGENTFILE)?;
    Ok(())
}
