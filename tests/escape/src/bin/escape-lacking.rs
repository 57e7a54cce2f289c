//! Runs a program as on a kernel that lacks something: `escape-lacking LACK... -- PROGRAM ARGUMENT...`.

use std::io::Write;
use std::process::{Command, ExitCode};

use aos_escape::lacking::Lack;

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            let told = writeln!(std::io::stderr(), "escape-lacking: {error}");
            ExitCode::from(if told.is_ok() { 99 } else { 98 })
        }
    }
}

fn run() -> Result<ExitCode, String> {
    let mut arguments = std::env::args_os().skip(1);
    let mut lacks: Vec<Lack> = Vec::new();
    for argument in arguments.by_ref() {
        if argument == "--" {
            break;
        }
        lacks.push(argument.to_string_lossy().parse()?);
    }
    let program = arguments.next().ok_or("no program")?;
    for lack in lacks {
        lack.take_away().map_err(|error| error.to_string())?;
    }
    #[allow(clippy::disallowed_methods, reason = "starting a program is the point")]
    let status = Command::new(program).args(arguments).status().map_err(|error| error.to_string())?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::from(97), ExitCode::from))
}
