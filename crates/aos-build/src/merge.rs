//! Fewer layers, when stages have made more than a package may have.

use crate::builder::{Builder, Current, step_key};
use crate::cache::Layer;
use crate::error::BuildError;
use crate::layer::{self, Contents, Planned, Sources};
use crate::made::Made;
use crate::place::Place;
use crate::progress::StepName;
use crate::tree::{Entry, Item, Node, Tree};
use crate::trees::Stored;
use aos_package::bounds::LAYERS_MAX;
use std::time::Instant;

impl Builder<'_> {
    /// The layers of the package: those of the stage, the lowest merged as far as there are too
    /// many. The lowest change least often, so that the others stay what they are.
    pub(crate) fn merged(&self, made: &Made) -> Result<Vec<Layer>, BuildError> {
        let Some(too_many) = made.layers.len().checked_sub(LAYERS_MAX).filter(|&count| count > 0) else {
            return Ok(made.layers.clone());
        };
        let (lowest, rest) = made.layers.split_at_checked(too_many + 1).unwrap_or((&made.layers, &[]));
        let place = Place { agentfile: self.agentfile, field: "build".to_owned() };
        let title = format!("merge {} layers", lowest.len());
        let name = StepName { stage: "", number: 0, of: 0, title: &title, place: place.position() };
        let current = Current { name, place, started: Instant::now() };
        let key =
            step_key("merge", self.options).list(lowest, |key, layer| key.digest(&layer.diff_id)).finish();
        let make = || self.merge(lowest).map(Some);
        let merged = self.cached(&key, &current, Box::new(make))?.0.layer;
        Ok(merged.into_iter().chain(rest.iter().cloned()).collect())
    }

    /// One layer of several that nothing is below: what they hide is not there.
    fn merge(&self, layers: &[Layer]) -> Result<layer::WrittenLayer, BuildError> {
        let mut tree = Tree::default();
        for layer in layers {
            tree.apply(self.listing(layer)?);
        }
        let stored = Stored::new(self.trees().whole(layers)?, &tree)?;
        let items = tree.iter().map(planned).collect();
        let sources = Sources { stored: Some(&stored), ..Sources::default() };
        layer::write(items, &sources, self.options, self.lease, &|_| {})
    }
}

fn planned((path, entry): (&str, &Entry)) -> Planned {
    let contents = if matches!(entry.node, Node::File { .. }) { Contents::Stored } else { Contents::None };
    Planned { path: path.into(), item: Item::Entry(entry.clone()), contents, mtime: None }
}
