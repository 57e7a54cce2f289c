//! Which versions of a dependency there are: in the user store, in the places that the Agentfile or the command line
//! names, and, for what a package of a registry needs, beside that package.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use aos_core::dependency::{Dependency, Provider};
use aos_core::id::{Digest, Version};
use aos_core::lock::{LockedPackage, PackageKey, Source};
use aos_core::reference::{Location, Reference, RepositoryPath, Tag};
use aos_package::repository::Lease;
use aos_registry::layout;
use aos_solver::{Catalogue, Release, Wanted};
use thiserror::Error;

use super::fetch::Fetcher;
use crate::failure::Carried;
use crate::store;

/// Why a question of the solver has no answer.
#[derive(Debug, Error)]
#[error("cannot find out about {about}")]
pub(crate) struct OfferError {
    about: String,
    source: Carried,
}

/// One version of a package, where it is.
#[derive(Debug, Clone)]
struct Offer {
    source: Source,
    tag: Tag,
    /// The manifest, when the lock says which.
    locked: Option<Digest>,
}

/// Answers the solver's questions, and remembers what it brought for them.
pub(crate) struct Offers<'a> {
    fetcher: &'a Fetcher<'a>,
    lease: &'a Lease,
    /// The lock that is kept where it fits.
    locked: BTreeMap<PackageKey, LockedPackage>,
    places: RefCell<BTreeMap<PackageKey, BTreeSet<Place>>>,
    offers: RefCell<BTreeMap<Release, Offer>>,
    brought: RefCell<BTreeMap<Release, (Digest, Source)>>,
}

/// A place for versions, with whether somebody named it: what is only guessed may be absent.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    location: Location,
    guessed: bool,
}

impl<'a> Offers<'a> {
    /// Offers for the dependencies of an Agentfile.
    pub(crate) fn new(
        fetcher: &'a Fetcher<'a>,
        lease: &'a Lease,
        dependencies: &[Dependency],
        locked: BTreeMap<PackageKey, LockedPackage>,
    ) -> Self {
        let mut places: BTreeMap<PackageKey, BTreeSet<Place>> = BTreeMap::new();
        for dependency in dependencies {
            let key = PackageKey { kind: dependency.kind, name: dependency.name.clone() };
            if let Some(place) = dependency.from.as_ref().map(Provider::location) {
                places.entry(key).or_default().insert(Place { location: place.clone(), guessed: false });
            }
        }
        Self {
            fetcher,
            lease,
            locked,
            places: RefCell::new(places),
            offers: RefCell::default(),
            brought: RefCell::default(),
        }
    }

    /// What was brought for a release: its manifest and where it is.
    pub(crate) fn brought(&self, release: &Release) -> Option<(Digest, Source)> {
        self.brought.borrow().get(release).cloned()
    }

    fn all(&self, key: &PackageKey) -> anyhow::Result<BTreeMap<Version, Offer>> {
        let mut offers: BTreeMap<Version, Offer> = BTreeMap::new();
        if let Some(locked) = self.locked.get(key) {
            let tag = Tag::of_version(&locked.version);
            let offer = Offer { source: locked.source.clone(), tag, locked: Some(locked.digest) };
            offers.insert(locked.version.clone(), offer);
        }
        for tagged in self.fetcher.store.repository().tags()? {
            if tagged.reference.registry.is_none() && tagged.reference.path.as_str() == key.name.as_str() {
                add(&mut offers, Source::Local, tagged.reference.tag);
            }
        }
        for place in self.places_of(key)? {
            match self.at(&place.location, key) {
                Ok(tags) => tags.into_iter().for_each(|(source, tag)| add(&mut offers, source, Some(tag))),
                Err(error)
                    if place.guessed && crate::exit::Exit::of(&error) == crate::exit::Exit::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(offers)
    }

    /// The places to look into: those that the Agentfile names, those of the command line, those beside packages
    /// that need it.
    fn places_of(&self, key: &PackageKey) -> anyhow::Result<Vec<Place>> {
        let named = self.places.borrow().get(key).cloned().unwrap_or_default();
        let mut places: Vec<Place> = named.into_iter().collect();
        for prefix in &self.fetcher.args.from {
            let location = prefix.parse::<Location>()?;
            places.extend(beside(&location, key));
        }
        Ok(places)
    }

    /// The versions in one place.
    fn at(&self, location: &Location, key: &PackageKey) -> anyhow::Result<Vec<(Source, Tag)>> {
        match location {
            Location::Registry(reference) if self.fetcher.args.offline => {
                let tags = self.fetcher.store.repository().tags()?;
                let here = |other: &Reference| other.repository() == reference.repository();
                let tags = tags.into_iter().map(|tagged| tagged.reference).filter(here);
                let source = Source::At(Location::Registry(bare(reference)));
                Ok(tags.filter_map(|other| Some((source.clone(), other.tag?))).collect())
            }
            Location::Registry(reference) => {
                let client = self.fetcher.client()?;
                let tags = self.fetcher.wait(client.tags(reference))?;
                let source = Source::At(Location::Registry(bare(reference)));
                Ok(tags.into_iter().map(|tag| (source.clone(), tag)).collect())
            }
            Location::Layout { path, .. } => {
                let source = Source::At(Location::Layout { path: path.clone(), name: None });
                let names =
                    layout::tags(path)?.into_iter().filter_map(|named| named.name.parse::<Reference>().ok());
                let names =
                    names.filter(|name| name.registry.is_none() && name.path.as_str() == key.name.as_str());
                Ok(names.filter_map(|name| Some((source.clone(), name.tag?))).collect())
            }
            Location::Archive(_) | Location::Local(_) => anyhow::bail!("{location} is no registry"),
        }
    }

    fn bring(&self, release: &Release) -> anyhow::Result<Vec<Wanted>> {
        let offer = self.offers.borrow().get(release).cloned();
        let Some(Offer { source, tag, locked }) = offer else { anyhow::bail!("nobody offers {release}") };
        let name = release.package.name.as_str();
        let descriptor = self.fetcher.sourced(&source, &tag, name, locked, self.lease)?;
        let (_, config) = store::package(self.fetcher.store.repository(), &descriptor)?;
        let agent = config.agent;
        let is = (Some(agent.kind), &agent.name, &agent.version);
        if is != (release.package.kind.package_kind(), &release.package.name, &release.version) {
            anyhow::bail!(
                "what is called {name}:{tag} at {source} is the {} {}",
                agent.kind,
                agent.reference()
            );
        }
        let wanted: Vec<Wanted> = agent
            .dependencies
            .into_iter()
            .filter(|dependency| dependency.kind.is_package())
            .map(|dependency| Wanted {
                package: PackageKey { kind: dependency.kind, name: dependency.name },
                requirement: dependency.req,
            })
            .collect();
        if let Source::At(location) = &source {
            let mut places = self.places.borrow_mut();
            for want in &wanted {
                places.entry(want.package.clone()).or_default().extend(siblings(location, &want.package));
            }
        }
        self.brought.borrow_mut().insert(release.clone(), (descriptor.digest, source));
        Ok(wanted)
    }
}

impl Catalogue for Offers<'_> {
    type Error = OfferError;

    fn versions(&self, package: &PackageKey) -> Result<Vec<Version>, OfferError> {
        let failed = |error: anyhow::Error| OfferError { about: package.to_string(), source: Carried(error) };
        let found = self.all(package).map_err(failed)?;
        let mut offers = self.offers.borrow_mut();
        let versions = found.keys().cloned().collect();
        for (version, offer) in found {
            offers.insert(Release { package: package.clone(), version }, offer);
        }
        Ok(versions)
    }

    fn wants(&self, release: &Release) -> Result<Vec<Wanted>, OfferError> {
        self.bring(release).map_err(|error| OfferError { about: release.to_string(), source: Carried(error) })
    }
}

/// Adds an offer, unless a better one is there: what came first is nearer. A tag that is no version offers nothing.
fn add(offers: &mut BTreeMap<Version, Offer>, source: Source, tag: Option<Tag>) {
    if let Some(tag) = tag
        && let Some(version) = tag.version()
    {
        offers.entry(version).or_insert(Offer { source, tag, locked: None });
    }
}

/// The repository without tag and digest.
fn bare(reference: &Reference) -> Reference {
    let mut bare = reference.clone();
    bare.tag = None;
    bare.digest = None;
    bare
}

/// The repository of a package in a folder of repositories.
fn beside(folder: &Location, key: &PackageKey) -> Option<Place> {
    match folder {
        Location::Registry(reference) => below(reference, Some(reference.path.as_str()), key),
        Location::Layout { path, .. } => Some(guess(Location::Layout { path: path.clone(), name: None })),
        Location::Archive(_) | Location::Local(_) => None,
    }
}

/// The repository of a package beside another.
fn siblings(of: &Location, key: &PackageKey) -> Option<Place> {
    match of {
        Location::Registry(reference) => {
            below(reference, reference.path.as_str().rsplit_once('/').map(|(folder, _)| folder), key)
        }
        other => beside(other, key),
    }
}

fn below(reference: &Reference, folder: Option<&str>, key: &PackageKey) -> Option<Place> {
    let path = folder.map_or_else(|| key.name.to_string(), |folder| format!("{folder}/{}", key.name));
    let mut below = bare(reference);
    below.path = path.parse::<RepositoryPath>().ok()?;
    Some(guess(Location::Registry(below)))
}

const fn guess(location: Location) -> Place {
    Place { location, guessed: true }
}
