//! The graph of a build's stages: which needs which, their order, and what is wrong with it.

use super::build::{Base, Build, Stage, StageName};
use super::step::{CopyOrigin, Step};
use crate::graph::{Cycle, topological};
use crate::quoted::Quoted;
use std::collections::{BTreeMap, BTreeSet};
use thiserror::Error;

/// Why stages have no order, with the path of the field that is to blame.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum GraphError {
    /// A stage is named that the build does not have.
    #[error("there is no stage {}, stages are {known}", Quoted(.name.as_str()))]
    Unknown {
        /// The field that names it.
        field: String,
        /// The name.
        name: StageName,
        /// The names that there are.
        known: String,
    },
    /// A stage needs itself.
    #[error("stage {} needs itself", Quoted(.name.as_str()))]
    Itself {
        /// The field that names it.
        field: String,
        /// The name.
        name: StageName,
    },
    /// Stages need each other in a circle.
    #[error("the stages need each other in a circle: {cycle}")]
    Cycle {
        /// The first field of the circle.
        field: String,
        /// The stages.
        cycle: Cycle<StageName>,
    },
}

impl GraphError {
    /// The path of the field to blame.
    pub fn field(&self) -> &str {
        match self {
            Self::Unknown { field, .. } | Self::Itself { field, .. } | Self::Cycle { field, .. } => field,
        }
    }
}

/// The stages that a stage needs, each with the field below the stage that names it, in the order of
/// the file.
pub fn needs(stage: &Stage) -> Vec<(String, &StageName)> {
    let base = stage.from.stage().map(|name| ("from".to_owned(), name));
    let declared = stage.depends_on.iter().enumerate();
    let declared = declared.map(|(index, name)| (format!("dependsOn[{index}]"), name));
    let copied = stage.steps.iter().enumerate().filter_map(|(index, step)| match step {
        Step::Copy(copy) => match &copy.origin {
            CopyOrigin::Stage(name) => Some((format!("steps[{index}].copy.stage"), name)),
            CopyOrigin::Directory | CopyOrigin::Package(_) => None,
        },
        _ => None,
    });
    base.into_iter().chain(declared).chain(copied).collect()
}

/// The indexes of the stages in an order in which each comes after all that it needs; among those
/// that could come next, the least name comes first.
pub fn order(build: &Build) -> Result<Vec<usize>, GraphError> {
    let index_of: BTreeMap<&StageName, usize> =
        build.stages.iter().enumerate().map(|(index, stage)| (&stage.name, index)).collect();
    let mut graph: BTreeMap<StageName, BTreeSet<StageName>> = BTreeMap::new();
    for (index, stage) in build.stages.iter().enumerate() {
        let of = graph.entry(stage.name.clone()).or_default();
        for (field, name) in needs(stage) {
            let field = format!("build.stages[{index}].{field}");
            if *name == stage.name {
                return Err(GraphError::Itself { field, name: name.clone() });
            }
            if !index_of.contains_key(name) {
                let known: Vec<&str> = build.stages.iter().map(|stage| stage.name.as_str()).collect();
                return Err(GraphError::Unknown { field, name: name.clone(), known: known.join(", ") });
            }
            of.insert(name.clone());
        }
    }
    let order =
        topological(&graph).map_err(|cycle| GraphError::Cycle { field: blamed(build, &cycle), cycle })?;
    Ok(order.iter().filter_map(|name| index_of.get(name).copied()).collect())
}

/// The field by which the first stage of a cycle names the second.
fn blamed(build: &Build, cycle: &Cycle<StageName>) -> String {
    let first = cycle.0.first();
    let second = cycle.0.get(1).or(first);
    let found = build.stages.iter().enumerate().find(|(_, stage)| Some(&stage.name) == first);
    found.map_or_else(String::new, |(index, stage)| {
        let field = needs(stage).into_iter().find(|(_, name)| Some(*name) == second);
        let field = field.map_or_else(String::new, |(field, _)| format!(".{field}"));
        format!("build.stages[{index}]{field}")
    })
}

impl Build {
    /// The stage that makes the package: the last.
    pub fn output(&self) -> Option<&Stage> {
        self.stages.last()
    }

    /// The stage of a name.
    pub fn stage(&self, name: &StageName) -> Option<&Stage> {
        self.stages.iter().find(|stage| stage.name == *name)
    }

    /// The stages that a stage starts from, its own first, down to the one whose base is no stage.
    /// Ends after as many steps as there are stages, so that a circle ends too.
    pub fn lineage<'a>(&'a self, stage: &'a Stage) -> Vec<&'a Stage> {
        let below = |stage: &&'a Stage| stage.from.stage().and_then(|name| self.stage(name));
        std::iter::successors(Some(stage), below).take(self.stages.len()).collect()
    }

    /// What the output stage starts from in the end: never [`Base::Stage`] in a build that has an
    /// [`order`].
    pub fn foundation(&self) -> Option<&Base> {
        let output = self.output()?;
        self.lineage(output).last().map(|stage| &stage.from)
    }

    /// The stages that the output stage needs, itself included, by index: what a build must make.
    pub fn needed(&self) -> BTreeSet<usize> {
        let mut needed = BTreeSet::new();
        let mut open: Vec<usize> = self.stages.len().checked_sub(1).into_iter().collect();
        while let Some(index) = open.pop() {
            if needed.insert(index) {
                let of = self.stages.get(index).map(needs).unwrap_or_default();
                open.extend(
                    of.iter().filter_map(|(_, name)| self.stages.iter().position(|s| s.name == **name)),
                );
            }
        }
        needed
    }
}
