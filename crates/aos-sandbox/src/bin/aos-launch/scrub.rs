//! What a process inherits and an agent must not: descriptors, execution domain, umask.

use std::os::fd::AsFd;

use aos_sys::process;
use rustix::fs::{FileType, Mode, fstat};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::error::{Context, LaunchError, Layer, fail};
use crate::options::{Inherited, Options};

/// Scrubs this process; the first thing it does. What the command line names is left to it.
pub(crate) fn process(options: &Options) -> Result<Inherited, LaunchError> {
    let inherited = options.take_inherited()?;
    check_standard("standard input", std::io::stdin())?;
    check_standard("standard output", std::io::stdout())?;
    check_standard("standard error", std::io::stderr())?;
    process::reset_personality().layer(Layer::Process, "cannot reset the execution domain")?;
    rustix::process::umask(Mode::WGRP | Mode::WOTH);
    // The tree needs a descriptor for each bind; the agent's own limit is set later.
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
        .layer(Layer::Limits, "cannot raise the number of open files")?;
    Ok(inherited)
}

/// A directory as a standard stream would be a way around the file tree. The runtime has opened
/// `/dev/null` for streams that were closed.
fn check_standard(name: &str, stream: impl AsFd) -> Result<(), LaunchError> {
    let stat = fstat(stream).layer(Layer::Descriptors, name)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory | FileType::BlockDevice => {
            fail(Layer::Descriptors, format!("{name} is a directory or a disk"))
        }
        _ => Ok(()),
    }
}
