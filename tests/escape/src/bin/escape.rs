//! Runs the escape corpus in every situation that the caller can make and prints a table of each.
//! With `--unit` the one situation is the installed unit `aos-agent@escape.service`, whose user
//! exists; with `--write-docs` nothing runs and `docs/escape-corpus.md` is written. Ends with 1 if anything escaped, or if
//! anything that is allowed did not work.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use aos_escape::runner::{self, Situation, launcher, unit};
use aos_escape::table;

fn main() -> ExitCode {
    let result = match std::env::args().nth(1).as_deref() {
        None => launcher::find()
            .map_err(|error| error.to_string())
            .and_then(|path| run(&path, &Situation::possible())),
        Some("--backends") => launcher::find()
            .map_err(|error| error.to_string())
            .and_then(|path| run(&path, &Situation::backends())),
        Some("--unit") => run(Path::new(unit::LAUNCHER), &[Situation::Unit]),
        Some("--write-docs") => write_docs(),
        Some(_) => Err("usage: escape [--unit | --backends | --write-docs]".to_owned()),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            if writeln!(std::io::stderr(), "escape: {error}").is_err() {
                return ExitCode::from(3);
            }
            ExitCode::from(2)
        }
    }
}

fn run(launch: &Path, situations: &[Situation]) -> Result<bool, String> {
    let probe = launcher::probe().map_err(|error| error.to_string())?;
    let mut ok = true;
    for &situation in situations {
        let scratch = runner::scratch().map_err(|error| error.to_string())?;
        let judged = runner::run(launch, &probe, situation, scratch).map_err(|error| error.to_string())?;
        ok &= judged.iter().all(|one| one.ok);
        let text = table::plain(situation, &judged);
        std::io::stdout().write_all(text.as_bytes()).map_err(|error| error.to_string())?;
    }
    Ok(ok)
}

fn write_docs() -> Result<bool, String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/escape-corpus.md");
    std::fs::write(&path, table::markdown()).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(true)
}
