//! What a build would do: its stages in their order, their steps, and which of these are cached.
//!
//! A step's key is known as soon as all that it depends on is: for a copy step, the files; for a
//! run step, the layers below, so that behind a run step that must be run no key is known.

use crate::bases::Bases;
use crate::builder::{Builder, Current, listing_of};
use crate::engine::{self, Prepared};
use crate::error::BuildError;
use crate::layer::Planned;
use crate::made::Made;
use crate::options::Request;
use crate::place::Place;
use crate::progress::{Silent, StepName};
use crate::title::{title_of_base, title_of_step};
use aos_core::agentfile::{Base, Build, Stage, StageName, Step, graph};
use aos_core::config::RootKind;
use aos_core::id::Digest;
use aos_package::repository::Repository;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

/// What a build would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// The package, `name:version`.
    pub package: String,
    /// What it is.
    pub kind: String,
    /// The stages that are needed, in the order in which they would be built one by one.
    pub stages: Vec<PlannedStage>,
}

/// A stage of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlannedStage {
    /// Its name; empty for an Agentfile without `build`.
    pub name: String,
    /// What it starts from.
    pub from: String,
    /// The stages that must be done before.
    pub needs: Vec<String>,
    /// Its steps; the first is its base when that has to be made.
    pub steps: Vec<PlannedStep>,
}

/// A step of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlannedStep {
    /// Its number in the stage, counted from 1; 0 is the base.
    pub number: usize,
    /// What it does.
    pub title: String,
    /// The line in the Agentfile.
    pub line: usize,
    /// The column there.
    pub column: usize,
    /// Its key, when it makes a layer and all that it depends on is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<Digest>,
    /// What would be done.
    pub state: StepState,
}

/// What would be done for a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum StepState {
    /// Its layer is in the cache.
    Cached,
    /// Its layer would be made.
    Build,
    /// Whether its layer is there is known when the steps before it are done.
    Later,
    /// It changes no files.
    Setting,
}

impl StepState {
    /// The word in a table.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cached => "cached",
            Self::Build => "build",
            Self::Later => "later",
            Self::Setting => "-",
        }
    }
}

impl fmt::Display for StepState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Plan {
    /// The header of [`Self::rows`].
    pub const COLUMNS: [&'static str; 5] = ["stage", "step", "does", "key", "state"];

    /// A row for each step, for a table.
    pub fn rows(&self) -> Vec<[String; 5]> {
        let row = |stage: &PlannedStage, step: &PlannedStep| {
            let key = step.key.map(|key| key.hex().chars().take(12).collect()).unwrap_or_default();
            [stage.name.clone(), step.number.to_string(), step.title.clone(), key, step.state.to_string()]
        };
        self.stages.iter().flat_map(|stage| stage.steps.iter().map(move |step| row(stage, step))).collect()
    }
}

/// How much of a stage is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Known {
    /// Neither its layers nor its files.
    Nothing,
    /// Its files.
    Files,
    /// Its layers.
    Layers,
}

/// A stage as far as it is known.
#[derive(Clone)]
struct Sketch {
    made: Arc<Made>,
    known: Known,
}

/// Says what [`crate::build()`] would do. Files are hashed, and what `bases` brings is brought;
/// nothing is made.
pub fn plan(request: &Request<'_>, repository: &Repository, bases: &dyn Bases) -> Result<Plan, BuildError> {
    let prepared = engine::prepare(request, repository, bases)?;
    let builder = prepared.builder(request, repository, bases, &Silent);
    let stages = match &prepared.agentfile.build {
        Some(build) => Planner { builder: &builder, build, done: BTreeMap::new() }.stages(&prepared)?,
        None => vec![whole_directory(&builder)?],
    };
    prepared.digests.save().map_err(|source| builder.cache_error(source))?;
    let metadata = &prepared.agentfile.metadata;
    let package = format!("{}:{}", metadata.name, metadata.version);
    Ok(Plan { package, kind: prepared.agentfile.kind.to_string(), stages })
}

fn whole_directory(builder: &Builder<'_>) -> Result<PlannedStage, BuildError> {
    let to = builder.agentfile.default_directory();
    let title = format!("copy . {to}");
    let copy = crate::builder::whole_copy(to)?;
    let place = Place { agentfile: builder.agentfile, field: String::new() };
    let name = StepName { stage: "", number: 1, of: 1, title: &title, place: place.position() };
    let current = Current { name, place, started: Instant::now() };
    let made = Made::empty(RootKind::Host);
    let key = builder.plan_copy(&copy, &|_| None, &made.tree, &current)?.key;
    let step = PlannedStep {
        number: 1,
        title: title.clone(),
        line: name.place.line,
        column: name.place.column,
        key: Some(key),
        state: state(builder, &key),
    };
    Ok(PlannedStage { name: String::new(), from: "host".to_owned(), needs: Vec::new(), steps: vec![step] })
}

/// Whether a step's layer is in the cache.
fn state(builder: &Builder<'_>, key: &Digest) -> StepState {
    if builder.cached_step(key).is_some() { StepState::Cached } else { StepState::Build }
}

struct Planner<'p> {
    builder: &'p Builder<'p>,
    build: &'p Build,
    done: BTreeMap<StageName, Sketch>,
}

impl Planner<'_> {
    fn stages(mut self, prepared: &Prepared) -> Result<Vec<PlannedStage>, BuildError> {
        let mut stages = Vec::new();
        for index in engine::order(&prepared.agentfile)? {
            let stage = self.build.stages.get(index).ok_or(BuildError::Internal("a stage is not there"))?;
            stages.push(self.stage(index, stage)?);
        }
        Ok(stages)
    }

    fn stage(&mut self, index: usize, stage: &Stage) -> Result<PlannedStage, BuildError> {
        let mut steps = Vec::new();
        let (mut sketch, base) = self.base(index, stage)?;
        steps.extend(base);
        for (number, step) in stage.steps.iter().enumerate() {
            let title = title_of_step(step);
            let field = format!("build.stages[{index}].steps[{number}].{}", step.name());
            let place = Place { agentfile: self.builder.agentfile, field };
            let of = stage.steps.len();
            let at = place.position();
            let name =
                StepName { stage: stage.name.as_str(), number: number + 1, of, title: &title, place: at };
            let current = Current { name, place, started: Instant::now() };
            let (key, state) = self.step(stage, step, &mut sketch, &current)?;
            steps.push(PlannedStep {
                number: number + 1,
                title: title.clone(),
                line: at.line,
                column: at.column,
                key,
                state,
            });
        }
        self.done.insert(stage.name.clone(), sketch);
        let mut needs: Vec<String> =
            graph::needs(stage).into_iter().map(|(_, name)| name.to_string()).collect();
        needs.sort();
        needs.dedup();
        Ok(PlannedStage { name: stage.name.to_string(), from: stage.from.to_string(), needs, steps })
    }

    fn base(&self, index: usize, stage: &Stage) -> Result<(Sketch, Option<PlannedStep>), BuildError> {
        let title = title_of_base(stage);
        let place = Place { agentfile: self.builder.agentfile, field: format!("build.stages[{index}].from") };
        let at = place.position();
        let name = StepName {
            stage: stage.name.as_str(),
            number: 0,
            of: stage.steps.len(),
            title: &title,
            place: at,
        };
        let current = Current { name, place, started: Instant::now() };
        let known = |made: Made, known| Sketch { made: Arc::new(made), known };
        let step = |key: Option<Digest>, state| {
            let (line, column) = (at.line, at.column);
            Some(PlannedStep { number: 0, title: title.clone(), line, column, key, state })
        };
        match &stage.from {
            Base::Stage(name) => {
                let below = self.done.get(name).cloned();
                Ok((below.ok_or(BuildError::Internal("a stage is not planned"))?, None))
            }
            Base::Debian(suite) => {
                let key = self.builder.debian_key(suite, &stage.packages);
                let state = state(self.builder, &key);
                let sketch = if state == StepState::Cached {
                    known(self.builder.base(stage, &|_| None, &current)?, Known::Layers)
                } else {
                    known(Made::empty(RootKind::Own), Known::Nothing)
                };
                Ok((sketch, step(Some(key), state)))
            }
            Base::Host | Base::Scratch | Base::Package(_) | Base::Image(_) => {
                Ok((known(self.builder.base(stage, &|_| None, &current)?, Known::Layers), None))
            }
        }
    }

    fn step(
        &self,
        stage: &Stage,
        step: &Step,
        sketch: &mut Sketch,
        current: &Current<'_>,
    ) -> Result<(Option<Digest>, StepState), BuildError> {
        let made = Arc::make_mut(&mut sketch.made);
        match step {
            Step::Copy(copy) => {
                self.builder.check_target(stage, &copy.to, made.root, &current.place)?;
                let from = match &copy.origin {
                    aos_core::agentfile::CopyOrigin::Stage(name) => self.done.get(name),
                    _ => None,
                };
                if sketch.known == Known::Nothing || from.is_some_and(|from| from.known == Known::Nothing) {
                    sketch.known = Known::Nothing;
                    return Ok((None, StepState::Later));
                }
                let done = |name: &StageName| self.done.get(name).map(|sketch| Arc::clone(&sketch.made));
                let planned = self.builder.plan_copy(copy, &done, &made.tree, current)?;
                let key = planned.key;
                let state = state(self.builder, &key);
                sketch.known = self.push(made, planned.items, &key, sketch.known);
                Ok((Some(key), state))
            }
            Step::Run(run) => {
                if sketch.known < Known::Layers {
                    sketch.known = Known::Nothing;
                    return Ok((None, StepState::Later));
                }
                let key = self.builder.run_key(run, made, &self.builder.workdir(made, current)?);
                let record = self.builder.cached_step(&key);
                match record {
                    Some(record) => {
                        if let Some(layer) = record.layer {
                            let listing = self.builder.listing(&layer)?;
                            made.push(layer, listing);
                        }
                        Ok((Some(key), StepState::Cached))
                    }
                    None => {
                        sketch.known = Known::Nothing;
                        Ok((Some(key), StepState::Build))
                    }
                }
            }
            Step::Env(_) | Step::Workdir(_) | Step::Expose(_) | Step::Label(_) => {
                made.settings.apply(step);
                Ok((None, StepState::Setting))
            }
        }
    }

    /// Puts the layer of a copy step on top: its files are known, itself perhaps not.
    fn push(&self, made: &mut Made, items: Vec<Planned>, key: &Digest, known: Known) -> Known {
        let listing = listing_of(items);
        match self.builder.cached_step(key).and_then(|record| record.layer) {
            Some(layer) => {
                made.push(layer, listing);
                known
            }
            None => {
                Arc::make_mut(&mut made.tree).apply(listing);
                known.min(Known::Files)
            }
        }
    }
}
