//! `aos build`: a folder into a package file.

use std::path::{Path, PathBuf};

use anyhow::Result;
use aos_package::build::Built;
use clap::{Args, ValueHint};

use crate::failure::hinted;
use crate::output::Output;
use crate::package;

/// Build a package from a folder
///
/// Reads the Agentfile in the folder and writes the package. The same input gives the same bytes. Nothing is
/// executed and the network is not used. Prints the name of the file.
#[derive(Debug, Args)]
pub(crate) struct BuildArgs {
    /// A folder with an Agentfile
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    folder: PathBuf,

    /// The file to write, or `-` for standard output; NAME-VERSION.aap if it is not given
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    output: Option<PathBuf>,
}

/// Runs `aos build`.
pub(crate) fn run(args: &BuildArgs, out: Output) -> Result<()> {
    if args.folder.is_file() {
        return Err(hinted(
            format!("{} is a file", args.folder.display()),
            "`aos build` takes a folder with an Agentfile, `aos install` a package",
        ));
    }
    if args.output.as_deref() == Some(Path::new("-")) {
        return to_standard_output(args, out);
    }
    let (path, built) = {
        let _step = out.step_on_terminal(&format!("building {}", args.folder.display()));
        package::build_to_file(&args.folder, args.output.as_deref())?
    };
    remark(&built, out);
    Ok(out.line(&path.display().to_string())?)
}

fn to_standard_output(args: &BuildArgs, out: Output) -> Result<()> {
    if out.is_terminal() {
        return Err(hinted("a package is no text for a terminal", "name a file, or use a pipe"));
    }
    // By way of a file: a package may be larger than the memory, and none is written in part.
    let (archive, built) = package::build_to_temporary(&args.folder)?;
    remark(&built, out);
    Ok(out.copy(archive)?)
}

/// What was built, and what would keep it from running here. The package may be meant for another machine.
fn remark(built: &Built, out: Output) {
    out.note(&format!("{} {}", built.reference, built.digest));
    for obstacle in &built.obstacles {
        out.warn(&obstacle.to_string());
    }
}
