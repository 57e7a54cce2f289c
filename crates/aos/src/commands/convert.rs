//! `aos convert`: manifests of other systems into Agentfiles.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use aos_core::agentfile::AGENTFILE_MAX_BYTES;
use aos_core::foreign::{Note, System};
use clap::{Args, ValueEnum, ValueHint};
use serde::Serialize;

use crate::cli::Format;
use crate::failure::hinted;
use crate::output::Output;
use crate::package;

/// Make an Agentfile from another system's manifest
///
/// Reads an agent manifest of aaOS or an Agentfile of OpenOS, in YAML, JSON or TOML, and prints an Agentfile. What could
/// not be kept is told on standard error, field by field, and stands as a comment in the Agentfile.
#[derive(Debug, Args)]
pub(crate) struct ConvertArgs {
    /// The manifest, or `-` for standard input
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    file: PathBuf,

    /// The system it is of; told by its fields if it is not given
    #[arg(long, value_enum, value_name = "SYSTEM")]
    from: Option<From>,

    /// The file to write; standard output if it is not given
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    output: Option<PathBuf>,

    #[command(flatten)]
    format: Format,
}

/// A system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum From {
    /// aaOS: an agent manifest
    Aaos,
    /// OpenOS: an Agentfile
    Openos,
}

/// What came of a manifest.
#[derive(Debug, Serialize)]
struct View<'a> {
    /// The Agentfile's text, YAML.
    agentfile: &'a str,
    /// What could not be kept.
    notes: Vec<NoteView<'a>>,
}

#[derive(Debug, Serialize)]
struct NoteView<'a> {
    /// The field's path in the manifest.
    field: &'a str,
    /// Where it stands, `LINE:COLUMN`.
    place: String,
    message: &'a str,
}

/// Runs `aos convert`.
pub(crate) fn run(args: &ConvertArgs, out: Output) -> Result<()> {
    let origin = args.file.display().to_string();
    let text = read(&args.file)?;
    let system = match args.from {
        Some(From::Aaos) => System::Aaos,
        Some(From::Openos) => System::OpenOs,
        None => System::of_manifest(&text, &origin)?.ok_or_else(|| {
            hinted(
                format!("{origin} is of no system that is known"),
                "it has the fields of none: `--from aaos` or `--from openos` says what it should be",
            )
        })?,
    };
    let converted = system.convert(&text, &origin)?;
    for note in &converted.notes {
        out.warn(&format!("{origin}:{note}"));
    }
    if let Some(path) = &args.output {
        ensure!(!path.exists(), "{} exists already", path.display());
        package::write_whole(path, |file| Ok(file.write_all(converted.agentfile.as_bytes())?))?;
    }
    if args.format.is_json() {
        return out.json(&View {
            agentfile: &converted.agentfile,
            notes: converted.notes.iter().map(view).collect(),
        });
    }
    match &args.output {
        Some(path) => Ok(out.line(&path.display().to_string())?),
        None => Ok(out.bytes(converted.agentfile.as_bytes())?),
    }
}

fn view(note: &Note) -> NoteView<'_> {
    NoteView { field: &note.field, place: note.place.to_string(), message: &note.message }
}

/// Reads a manifest of at most as many bytes as an Agentfile has.
fn read(path: &Path) -> Result<String> {
    let mut text = String::new();
    let limit = AGENTFILE_MAX_BYTES as u64 + 1;
    if path == Path::new("-") {
        std::io::stdin().lock().take(limit).read_to_string(&mut text)?;
    } else {
        package::open(path)?.take(limit).read_to_string(&mut text)?;
    }
    ensure!(text.len() <= AGENTFILE_MAX_BYTES, "it has more than {AGENTFILE_MAX_BYTES} bytes");
    Ok(text)
}
