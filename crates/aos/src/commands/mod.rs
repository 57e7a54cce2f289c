//! One module for each command, or for each family of commands that differ in one word.

pub(crate) mod agents;
pub(crate) mod build;
pub(crate) mod explain;
pub(crate) mod generate;
pub(crate) mod grants;
pub(crate) mod install;
pub(crate) mod list;
pub(crate) mod logs;
pub(crate) mod packages;
pub(crate) mod run;
pub(crate) mod status;
