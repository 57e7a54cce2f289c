//! What a stage, a base or a dependency is made of.

use crate::cache::Layer;
use crate::tree::{Item, Listing, Tree};
use aos_core::agentfile::Settings;
use aos_core::config::RootKind;
use std::sync::Arc;

/// Layers and what they make together.
#[derive(Debug, Clone)]
pub(crate) struct Made {
    /// Lowest first.
    pub(crate) layers: Vec<Layer>,
    /// How many of the layers come from a base: they are unpacked together.
    pub(crate) of_base: usize,
    /// What each layer above the base's hides, for overlayfs.
    pub(crate) hidden: Vec<Listing>,
    pub(crate) tree: Arc<Tree>,
    /// What the base at the bottom sets.
    pub(crate) ground: Settings,
    /// What is set with the steps so far, for those that run.
    pub(crate) settings: Settings,
    pub(crate) root: RootKind,
}

impl Made {
    /// Nothing yet.
    pub(crate) fn empty(root: RootKind) -> Self {
        Self {
            layers: Vec::new(),
            of_base: 0,
            hidden: Vec::new(),
            tree: Arc::new(Tree::default()),
            ground: Settings::default(),
            settings: Settings::default(),
            root,
        }
    }

    /// A base of these layers, each with what it lists.
    pub(crate) fn base(root: RootKind, settings: Settings, layers: Vec<(Layer, Listing)>) -> Self {
        let mut made = Self { ground: settings.clone(), settings, ..Self::empty(root) };
        let mut tree = Tree::default();
        for (layer, listing) in layers {
            tree.apply(listing);
            made.layers.push(layer);
        }
        made.of_base = made.layers.len();
        made.tree = Arc::new(tree);
        made
    }

    /// Puts the layer of a step on top.
    pub(crate) fn push(&mut self, layer: Layer, listing: Listing) {
        let hides = |(_, item): &&(Box<str>, Item)| matches!(item, Item::Whiteout | Item::Opaque);
        self.hidden.push(listing.iter().filter(hides).cloned().collect());
        self.layers.push(layer);
        Arc::make_mut(&mut self.tree).apply(listing);
    }
}
