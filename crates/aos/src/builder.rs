//! One build as the command line asks for it: the settings, the lock, the engine.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result, ensure};
use aos_build::run::{Cancel, LAUNCHER, Secret};
use aos_build::{BuildError, Built, CacheUse, Options, Plan, Request};
use aos_core::agentfile::{Arguments, SecretName};
use aos_core::id::{PackageName, Version};
use aos_core::lock::Lockfile;
use aos_core::text::{EnvName, EnvValue};
use clap::Args;
use tokio::runtime::{Handle, Runtime};
use zeroize::Zeroizing;

use crate::build_progress::{Steps, Telling};
use crate::dependencies::{self, Fetcher, LockMode, SourceArgs};
use crate::environment;
use crate::failure::{HintExt, advised};
use crate::output::Output;
use crate::quantity;
use crate::store::UserStore;

/// Bytes of a secret: what the engine takes.
const SECRET_MAX: u64 = 64 << 10;

/// How to build: what `aos build` and `aos run DIR` share.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct BuildSettings {
    /// Set a build argument of the Agentfile
    #[arg(long = "build-arg", visible_alias = "arg", value_name = "NAME=VALUE", help_heading = "Build")]
    arguments: Vec<Argument>,

    /// Give run steps a secret, id=NAME,src=FILE; it is in no layer and in no key
    #[arg(long = "secret", value_name = "id=NAME,src=FILE", help_heading = "Build")]
    secrets: Vec<SecretFile>,

    /// Stages and threads at once; the number of processors if it is not given
    #[arg(long, value_name = "NUMBER", help_heading = "Build")]
    jobs: Option<NonZeroUsize>,

    /// The mirror of `from: debian`; also AOS_DEBIAN_MIRROR
    #[arg(long, value_name = "URL", help_heading = "Build")]
    mirror: Option<String>,

    #[command(flatten)]
    sources: SourceArgs,
}

/// `NAME=VALUE`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Argument {
    name: EnvName,
    value: EnvValue,
}

impl FromStr for Argument {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (name, value) = text.split_once('=').context("expected NAME=VALUE")?;
        Ok(Self { name: name.parse()?, value: value.parse()? })
    }
}

/// `id=NAME,src=FILE`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct SecretFile {
    name: SecretName,
    file: PathBuf,
}

impl FromStr for SecretFile {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let expected = "expected id=NAME,src=FILE";
        let (id, source) = text.split_once(',').context(expected)?;
        let name = id.strip_prefix("id=").context(expected)?;
        let file = source.strip_prefix("src=").filter(|file| !file.is_empty()).context(expected)?;
        Ok(Self { name: name.parse()?, file: PathBuf::from(file) })
    }
}

/// A name and perhaps a version in place of the Agentfile's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) name: PackageName,
    pub(crate) version: Option<Version>,
}

/// A build that is about to happen.
pub(crate) struct Builder<'a> {
    store: &'a UserStore,
    folder: &'a Path,
    file: Option<&'a Path>,
    settings: &'a BuildSettings,
    telling: Telling,
    out: Output,
    cancel: Cancel,
    handle: Handle,
    /// The runtime, where the caller has none. It ends with the build.
    _runtime: Option<Runtime>,
}

impl<'a> Builder<'a> {
    /// A build of a folder. On a thread of a runtime, that is used.
    pub(crate) fn new(
        store: &'a UserStore,
        folder: &'a Path,
        file: Option<&'a Path>,
        settings: &'a BuildSettings,
        telling: Telling,
        out: Output,
    ) -> Result<Self> {
        let (handle, runtime) = match Handle::try_current() {
            Ok(handle) => (handle, None),
            Err(_) => {
                let runtime = crate::runtime()?;
                (runtime.handle().clone(), Some(runtime))
            }
        };
        let cancel = Cancel::default();
        handle.spawn(cancel_on_interrupt(cancel.clone()));
        Ok(Self { store, folder, file, settings, telling, out, cancel, handle, _runtime: runtime })
    }

    /// The store that is built into.
    pub(crate) const fn store(&self) -> &'a UserStore {
        self.store
    }

    /// Builds.
    pub(crate) fn build(&self, mode: &LockMode, named: Option<&Named>, cache: CacheUse) -> Result<Built> {
        let steps = Steps::new(self.out, self.telling);
        let fetcher = self.fetcher(&steps, mode)?;
        let request = self.request(named, cache, fetcher.lock.clone())?;
        aos_build::build(&request, self.store.repository(), &fetcher, &steps)
            .map_err(|error| self.advised(error))
            .with_context(|| format!("cannot build {}", self.folder.display()))
    }

    /// Says what would be built.
    pub(crate) fn plan(&self, mode: &LockMode, named: Option<&Named>) -> Result<Plan> {
        let steps = Steps::new(self.out, self.telling);
        let fetcher = self.fetcher(&steps, mode)?;
        let request = self.request(named, CacheUse::Use, fetcher.lock.clone())?;
        aos_build::plan(&request, self.store.repository(), &fetcher)
            .map_err(|error| self.advised(error))
            .with_context(|| format!("cannot plan {}", self.folder.display()))
    }

    /// Sees to the lock, and brings what the build needs by it.
    fn fetcher(&self, steps: &Steps, mode: &LockMode) -> Result<Fetcher<'a>> {
        let sources = &self.settings.sources;
        let mut fetcher = Fetcher::new(
            self.store,
            sources,
            Lockfile::default(),
            self.handle.clone(),
            self.out,
            steps.bars(),
        );
        let lease = self.store.lease()?;
        let declared = dependencies::declared(self.folder, self.file, &fetcher, &lease)
            .with_context(|| format!("cannot build {}", self.folder.display()))?;
        let change = dependencies::lock(&declared, self.folder, &fetcher, &lease, mode)
            .with_context(|| format!("cannot lock the dependencies of {}", self.folder.display()))?;
        if let Some(path) = &change.written {
            self.out.note(&format!(
                "{} is written: {} packages",
                path.display(),
                change.lock.packages().count()
            ));
        }
        fetcher.lock = change.lock;
        Ok(fetcher)
    }

    fn request(&self, named: Option<&Named>, cache: CacheUse, lock: Lockfile) -> Result<Request<'a>> {
        let mut options = Options::at(quantity::now());
        options.source_date_epoch = environment::source_date_epoch()?.unwrap_or(0);
        options.cache = cache;
        options.cancel = self.cancel.clone();
        options.secrets = secrets(&self.settings.secrets)?;
        options.debian_environment = environment::proxies();
        if let Some(jobs) = self.settings.jobs {
            options.threads = jobs;
        }
        if let Some(launcher) = environment::launcher() {
            options.launcher = launcher;
        }
        if let Some(mirror) = self.settings.mirror.clone().or_else(environment::debian_mirror) {
            options.mirror = mirror;
        }
        let mut request = Request::new(self.folder, options);
        request.agentfile = self.file;
        request.arguments = arguments(&self.settings.arguments);
        request.name = named.map(|named| named.name.clone());
        request.version = named.and_then(|named| named.version.clone());
        request.lock = Some(lock);
        Ok(request)
    }

    /// An error of the engine, with what to do where that is known.
    fn advised(&self, error: BuildError) -> anyhow::Error {
        if self.cancel.is_cancelled() {
            return anyhow::anyhow!("the build was interrupted");
        }
        let launcher = environment::launcher().unwrap_or_else(|| PathBuf::from(LAUNCHER));
        if is_of_a_step(&error) && !launcher.exists() {
            let advice =
                "the package `agentd` brings the program that confines run steps; AOS_LAUNCH names another";
            return advised(error, advice);
        }
        match unsearchable(self.store.root()) {
            Some(path) if is_of_a_step(&error) => advised(
                error,
                format!(
                    "steps run as an account of their own, which cannot pass {}: chmod o+x, or another AOS_STORE",
                    path.display()
                ),
            ),
            _ => error.into(),
        }
    }
}

/// True for an error of a step, or of what a step ran.
const fn is_of_a_step(error: &BuildError) -> bool {
    matches!(error, BuildError::Step { .. } | BuildError::Run(_))
}

/// Of root, a directory on the way to the store that others cannot pass.
fn unsearchable(root: &Path) -> Option<PathBuf> {
    use std::os::unix::fs::PermissionsExt as _;
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let closed = |path: &&Path| path.metadata().is_ok_and(|found| found.permissions().mode() & 0o001 == 0);
    root.ancestors().find(closed).map(Path::to_owned)
}

fn arguments(given: &[Argument]) -> Arguments {
    given.iter().map(|argument| (argument.name.clone(), argument.value.clone())).collect()
}

fn secrets(files: &[SecretFile]) -> Result<BTreeMap<SecretName, Secret>> {
    let mut secrets = BTreeMap::new();
    for SecretFile { name, file } in files {
        let read = || format!("cannot read the secret {name} from {}", file.display());
        let mut value = Zeroizing::new(Vec::new());
        let opened = File::open(file).hint("write --secret id=NAME,src=FILE").with_context(read)?;
        opened.take(SECRET_MAX + 1).read_to_end(&mut value).with_context(read)?;
        ensure!(value.len() as u64 <= SECRET_MAX, "the secret {name} has more than {SECRET_MAX} bytes");
        secrets.insert(name.clone(), Secret { name: name.as_str().to_owned(), value });
    }
    Ok(secrets)
}

/// The first Ctrl-C ends the steps and lets the build clean up; the second ends the program.
async fn cancel_on_interrupt(cancel: Cancel) {
    if tokio::signal::ctrl_c().await.is_err() {
        return;
    }
    cancel.cancel();
    if tokio::signal::ctrl_c().await.is_ok() {
        // As a shell shows a program that an interrupt ended.
        std::process::exit(130);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_and_secrets_are_parsed_whole() {
        let argument: Argument = "A=b=c".parse().unwrap();
        assert_eq!((argument.name.as_str(), argument.value.as_str()), ("A", "b=c"));
        assert!("A".parse::<Argument>().is_err());
        let secret: SecretFile = "id=token,src=/a,b=c".parse().unwrap();
        assert_eq!((secret.name.as_str(), secret.file.to_str()), ("token", Some("/a,b=c")));
        for bad in ["token", "id=token", "id=,src=x", "id=../x,src=y", "id=token,src=", "src=x,id=token"] {
            assert!(bad.parse::<SecretFile>().is_err(), "{bad}");
        }
    }
}
