//! Runs the escape corpus in every situation that the caller can make and prints a table of each.
//! With `--unit` the one situation is the installed unit `aos-agent@escape.service`, whose user
//! exists; with `--backends` the isolation backends that are named, or all; with `--write-docs` nothing runs and `docs/escape-corpus.md` is written. Ends with 1 if anything escaped, or if
//! anything that is allowed did not work.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use aos_escape::runner::{self, Situation, launcher, unit};
use aos_escape::table;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let result = match arguments.next().as_deref() {
        None => launcher::find()
            .map_err(|error| error.to_string())
            .and_then(|path| run(&path, &Situation::possible())),
        Some("--backends") => launcher::find()
            .map_err(|error| error.to_string())
            .and_then(|path| run(&path, &backends(&arguments.collect::<Vec<_>>())?)),
        Some("--unit") => run(Path::new(unit::LAUNCHER), &[Situation::Unit]),
        Some("--write-docs") => write_docs(),
        Some(_) => Err("usage: escape [--unit | --backends [NAME...] | --write-docs]".to_owned()),
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

/// The situations of the named backends; of all when none is named.
fn backends(names: &[String]) -> Result<Vec<Situation>, String> {
    let all = Situation::backends();
    let is = |situation: &Situation, name: &str| matches!(situation, Situation::Backend(one) if one.name() == name);
    if let Some(unknown) = names.iter().find(|name| !all.iter().any(|one| is(one, name))) {
        return Err(format!("no backend `{unknown}`"));
    }
    Ok(all.into_iter().filter(|one| names.is_empty() || names.iter().any(|name| is(one, name))).collect())
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
