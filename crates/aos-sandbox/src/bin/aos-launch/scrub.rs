//! What a process inherits and an agent must not: descriptors, execution domain, umask.

use std::os::fd::{AsFd, AsRawFd, IntoRawFd, RawFd};

use aos_sys::{process, signal};
use rustix::fs::{FileType, Mode, OFlags, fstat, open};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::error::{Context, LaunchError, Layer, fail};
use crate::options::{Inherited, Options};

/// Scrubs this process; the first thing it does. What the command line names is left to it.
pub(crate) fn process(options: &Options) -> Result<Inherited, LaunchError> {
    // Also SIGPIPE: a message that nobody reads is no reason to end without an exit status.
    signal::block_all().layer(Layer::Process, "cannot block signals")?;
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

/// A directory as a standard stream would be a way around the file tree. One that is closed becomes
/// `/dev/null`: the next file that is opened would take its number.
fn check_standard(name: &str, stream: impl AsFd) -> Result<(), LaunchError> {
    let number = stream.as_fd().as_raw_fd();
    let stat = match fstat(stream) {
        Err(Errno::BADF) => return open_null(name, number),
        stat => stat.layer(Layer::Descriptors, name)?,
    };
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory | FileType::BlockDevice => {
            fail(Layer::Descriptors, format!("{name} is a directory or a disk"))
        }
        _ => Ok(()),
    }
}

/// The lowest number is taken, and the streams before this one are open.
fn open_null(name: &str, number: RawFd) -> Result<(), LaunchError> {
    let null = open("/dev/null", OFlags::RDWR, Mode::empty()).layer(Layer::Descriptors, name)?;
    if null.into_raw_fd() == number { Ok(()) } else { fail(Layer::Descriptors, format!("{name} is closed")) }
}
