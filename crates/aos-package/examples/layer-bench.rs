//! Measures the layers of packages: `layer-bench DIR [ROUNDS]` makes three inputs below DIR, which
//! must not exist and is removed at the end, and prints for each how long it takes to write and to
//! read it, and what it becomes. The best of ROUNDS (default 3) counts: everything else is the
//! machine's other work. Nothing is synced: that costs whoever keeps the result the same each time.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a program of the tests: a panic is its failure report, and its output is its result"
)]

use aos_core::path::RelativePath;
use aos_package::layer::read::Items;
use aos_package::layer::write::{Compression, Header, Kind, LayerWriter, Written};
use aos_package::unpack::{Layer, Options, unpack};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Instant;

const MIB: usize = 1 << 20;
/// Words of the text: as many as a large vocabulary, so that it compresses as prose does.
const WORDS: usize = 2000;

/// Numbers that are the same on every machine (splitmix64).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap()
    }

    fn words(&mut self) -> Vec<String> {
        (0..WORDS)
            .map(|_| {
                let letters = 2 + self.below(8);
                (0..letters).map(|_| char::from(b'a' + u8::try_from(self.below(26)).unwrap())).collect()
            })
            .collect()
    }

    fn text(&mut self, words: &[String], bytes: usize) -> Vec<u8> {
        let mut text = Vec::with_capacity(bytes + 16);
        while text.len() < bytes {
            text.extend_from_slice(words[self.below(words.len())].as_bytes());
            text.push(b' ');
        }
        text.truncate(bytes);
        text
    }
}

/// Fills a folder.
type Maker = fn(&Path);

/// 20,000 files of text, 100 to 8,000 bytes each, in 200 folders.
fn small_files(folder: &Path) {
    let mut numbers = Numbers(1);
    let words = numbers.words();
    for n in 0..20_000 {
        let parent = folder.join(format!("d{:03}", n % 200));
        fs::create_dir_all(&parent).unwrap();
        let size = 100 + numbers.below(7901);
        fs::write(parent.join(format!("f{n:05}.txt")), numbers.text(&words, size)).unwrap();
    }
}

/// One file of 1 GiB, from blocks of 1 MiB.
fn large_file(folder: &Path, mut block: impl FnMut(usize) -> Vec<u8>) {
    let mut file = BufWriter::new(File::create(folder.join("large")).unwrap());
    (0..1024).for_each(|n| file.write_all(&block(n)).unwrap());
    file.flush().unwrap();
}

fn text_file(folder: &Path) {
    let mut numbers = Numbers(2);
    let words = numbers.words();
    large_file(folder, |_| numbers.text(&words, MIB));
}

fn random_file(folder: &Path) {
    let mut numbers = Numbers(3);
    large_file(folder, |_| (0..MIB / 8).flat_map(|_| numbers.next().to_le_bytes()).collect());
}

fn tree(directory: &Path, top: &Path, found: &mut BTreeMap<RelativePath, PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        found.insert(path.strip_prefix(top).unwrap().to_str().unwrap().parse().unwrap(), path.clone());
        if path.is_dir() {
            tree(&path, top, found);
        }
    }
}

fn write(input: &Path, output: &Path, compression: Compression, threads: NonZeroUsize) -> Written<File> {
    let mut entries = BTreeMap::new();
    tree(input, input, &mut entries);
    let mut writer = LayerWriter::with_threads(File::create(output).unwrap(), compression, threads).unwrap();
    for (path, place) in &entries {
        let file = File::open(place).unwrap();
        let metadata = file.metadata().unwrap();
        let directory = metadata.is_dir();
        let kind = if directory { Kind::Directory } else { Kind::File { size: metadata.len() } };
        let mode = if directory { 0o755 } else { 0o644 };
        writer.append(&Header { path, kind, mode, uid: 0, gid: 0, mtime: 0 }, file).unwrap();
    }
    writer.finish().unwrap()
}

/// Seconds of the fastest round.
fn best<T>(rounds: usize, mut work: impl FnMut() -> T) -> (f64, T) {
    let mut best = (f64::INFINITY, None);
    for _ in 0..rounds {
        let started = Instant::now();
        let result = work();
        let seconds = started.elapsed().as_secs_f64();
        if seconds < best.0 {
            best = (seconds, Some(result));
        }
    }
    (best.0, best.1.expect("at least one round"))
}

fn measure(name: &str, input: &Path, work: &Path, rounds: usize) {
    let cores = std::thread::available_parallelism().unwrap();
    let (layer, root) = (work.join("layer"), work.join("root"));
    let one = (Compression::Gzip, NonZeroUsize::MIN, "gzip, 1 thread");
    for (compression, threads, label) in
        [one, (Compression::Gzip, cores, "gzip, all"), (Compression::Zstd, cores, "zstd, all")]
    {
        let (writing, written) = best(rounds, || write(input, &layer, compression, threads));
        let blob = || File::open(&layer);
        let (listing, _) = best(rounds, || {
            let items = Items::open(blob().unwrap(), &written.descriptor, written.diff_id).unwrap();
            items.map(Result::unwrap).count()
        });
        let layers = [Layer { descriptor: &written.descriptor, diff_id: written.diff_id, open: &blob }];
        let mut unpacking = f64::INFINITY;
        for _ in 0..rounds {
            fs::create_dir(&root).unwrap();
            unpacking = unpacking.min(best(1, || unpack(&layers, &root, Options::default()).unwrap()).0);
            fs::remove_dir_all(&root).unwrap();
        }
        let mib = |bytes: u64| bytes / MIB as u64;
        println!(
            "{name:<14} {label:<15} {:>6} MiB -> {:>5} MiB   write {writing:>6.2} s   list {listing:>6.2} s   unpack {unpacking:>6.2} s",
            mib(written.unpacked),
            mib(written.descriptor.size),
        );
    }
}

/// The largest memory that this process has had, as the kernel says it.
fn peak() -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    status.lines().find(|line| line.starts_with("VmHWM")).unwrap().to_owned()
}

fn main() -> io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let work = PathBuf::from(arguments.next().expect("usage: layer-bench DIR [ROUNDS]"));
    let rounds = arguments.next().map_or(3, |rounds| rounds.parse().expect("a number of rounds"));
    fs::create_dir(&work)?;
    let inputs: [(&str, Maker); 3] =
        [("20,000 files", small_files), ("1 GiB text", text_file), ("1 GiB random", random_file)];
    for (name, make) in inputs {
        let input = work.join("input");
        fs::create_dir(&input)?;
        make(&input);
        measure(name, &input, &work, rounds);
        fs::remove_dir_all(&input)?;
    }
    println!("{}", peak());
    fs::remove_dir_all(&work)
}
