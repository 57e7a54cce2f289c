//! Drives the crate from a shell, for tests with real registries; see `tests/registry/run`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    missing_docs,
    reason = "a program for tests"
)]

#[path = "../tests/common/package.rs"]
#[allow(unreachable_pub, dead_code, reason = "shared with the tests")]
mod package;

use aos_core::id::Digest;
use aos_core::reference::Reference;
use aos_package::repository::{Origin, Repository};
use aos_registry::{Client, DockerConfig, Options, PlainHttp, Progress, layout};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const USAGE: &str = "\
usage: registry [--config FILE] [--certs DIR] [--plain HOST] [--idle SECONDS] [--parallel N] COMMAND
  make STORE NAME:TAG BYTES...        a package with a layer for each size
  attach STORE NAME:TAG TEXT          something attached to it
  push STORE NAME:TAG REMOTE          with its attachments
  pull STORE REMOTE                   tagged by its remote name
  pull-image STORE REMOTE ARCH
  tags REMOTE | resolve REMOTE
  push-dir STORE NAME:TAG DIR NAME | pull-dir STORE DIR [NAME] | tags-dir DIR";

type Failure = Box<dyn std::error::Error>;

/// Prints notes.
struct Notes;

impl Progress for Notes {
    fn blob(&self, _digest: &Digest, _total: u64) {}
    fn advance(&self, _digest: &Digest, _bytes: u64) {}
    fn note(&self, text: &str) {
        eprintln!("note: {text}");
    }
}

fn main() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let Err(failure) = runtime.block_on(run(words)) {
        let mut text = failure.to_string();
        let mut source = failure.source();
        while let Some(cause) = source {
            text = format!("{text}: {cause}");
            source = cause.source();
        }
        eprintln!("error: {text}");
        std::process::exit(1);
    }
}

/// Takes the options off the front.
fn options(words: &mut Vec<String>) -> Result<Options, Failure> {
    let mut options = Options::default();
    let mut plain = Vec::new();
    while words.first().is_some_and(|word| word.starts_with("--")) {
        let (name, value) = (words.remove(0), words.remove(0));
        match name.as_str() {
            "--config" => options.credentials = DockerConfig::load(Path::new(&value))?,
            "--certs" => options.certificates = vec![PathBuf::from(value)],
            "--plain" => plain.push(value),
            "--idle" => options.timeouts.idle = Duration::from_secs_f64(value.parse()?),
            "--parallel" => options.parallel = value.parse()?,
            _ => return Err(USAGE.into()),
        }
    }
    options.plain_http = PlainHttp::also(plain);
    Ok(options)
}

async fn run(mut words: Vec<String>) -> Result<(), Failure> {
    let client = Client::new(options(&mut words)?);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let started = Instant::now();
    match words.as_slice() {
        ["make", store, name, sizes @ ..] => {
            let (repository, reference) = open(store, name)?;
            let lease = repository.lease()?;
            let sizes: Vec<usize> = sizes.iter().map(|size| size.parse()).collect::<Result<_, _>>()?;
            let version = reference.tag.as_ref().expect("a tag").as_str();
            let seed = sizes.iter().sum::<usize>() as u64;
            let made = package::package(&lease, reference.path.name(), version, seed, &sizes);
            repository.tag(&lease, &reference, &made, Origin::Built)?;
            println!("{}", made.digest);
        }
        ["attach", store, name, text] => {
            let (repository, reference) = open(store, name)?;
            let lease = repository.lease()?;
            let subject = repository.resolve(&reference)?;
            println!("{}", package::attachment(&lease, &subject, text).digest);
        }
        ["push", store, name, remote] => {
            let (repository, reference) = open(store, name)?;
            let lease = repository.lease()?;
            let package = repository.resolve(&reference)?;
            let attachments: Vec<_> =
                repository.attachments(&package.digest)?.into_iter().map(|one| one.descriptor).collect();
            let remote: Reference = remote.parse()?;
            let pushed = client.push(&repository, &package, &attachments, &remote, &Notes).await?;
            if let Some(tag) = remote.tag.clone() {
                repository.tag(&lease, &remote.with_tag(tag), &package, Origin::Built)?;
            }
            println!("{pushed:?} in {:.3} s", started.elapsed().as_secs_f64());
        }
        ["pull", store, remote] => {
            let (repository, remote) = open(store, remote)?;
            let lease = repository.lease()?;
            let pulled = client.pull(&remote, &lease, &Notes).await?;
            if let Some(tag) = remote.tag.clone() {
                repository.tag(&lease, &remote.with_tag(tag), &pulled.descriptor, Origin::Pulled)?;
            }
            let count = pulled.attachments.len();
            println!(
                "{} attachments={count} in {:.3} s",
                pulled.descriptor.digest,
                started.elapsed().as_secs_f64()
            );
        }
        ["pull-image", store, remote, architecture] => {
            let (repository, remote) = open(store, remote)?;
            let lease = repository.lease()?;
            let pulled = client.pull_image(&remote, architecture, &lease, &Notes).await?;
            let (manifest, config) = repository.image(&pulled)?;
            println!("{} layers={} {}", pulled.digest, manifest.layers.len(), config.architecture);
        }
        ["tags", remote] => {
            for tag in client.tags(&remote.parse()?).await? {
                println!("{}", tag.as_str());
            }
        }
        ["resolve", remote] => println!("{}", client.resolve(&remote.parse()?).await?.digest),
        ["push-dir", store, name, directory, target] => {
            let (repository, reference) = open(store, name)?;
            let package = repository.resolve(&reference)?;
            let attachments: Vec<_> =
                repository.attachments(&package.digest)?.into_iter().map(|one| one.descriptor).collect();
            let target = target.parse()?;
            let pushed =
                layout::push(&repository, &package, &attachments, Path::new(directory), &target, &Notes)?;
            println!("{pushed:?}");
        }
        ["pull-dir", store, directory, name @ ..] => {
            let repository = Repository::open(Path::new(store))?;
            let lease = repository.lease()?;
            let name: Option<Reference> = name.first().map(|name| name.parse()).transpose()?;
            let pulled = layout::pull(Path::new(directory), name.as_ref(), &lease, &Notes)?;
            if let Some(name) = name.filter(|name| name.tag.is_some()) {
                repository.tag(&lease, &name, &pulled.descriptor, Origin::Imported)?;
            }
            println!("{} attachments={}", pulled.descriptor.digest, pulled.attachments.len());
        }
        ["tags-dir", directory] => {
            for named in layout::tags(Path::new(directory))? {
                println!("{} {}", named.name, named.descriptor.digest);
            }
        }
        _ => return Err(USAGE.into()),
    }
    Ok(())
}

fn open(store: &str, reference: &str) -> Result<(Repository, Reference), Failure> {
    Ok((Repository::open(Path::new(store))?, reference.parse()?))
}
