//! Runs one step of a build: reads its request from standard input, prints its report.

use std::io::{Read, Write};
use std::process::ExitCode;

use aos_escape::step::Step;

fn main() -> ExitCode {
    let mut text = String::new();
    let report = std::io::stdin()
        .read_to_string(&mut text)
        .map_err(|error| error.to_string())
        .and_then(|_| serde_json::from_str::<Step>(&text).map_err(|error| error.to_string()))
        .and_then(|step| serde_json::to_string(&step.run()).map_err(|error| error.to_string()));
    let (text, code) = match &report {
        Ok(report) => (report, ExitCode::SUCCESS),
        Err(error) => (error, ExitCode::FAILURE),
    };
    if std::io::stdout().write_all(text.as_bytes()).is_err() { ExitCode::from(3) } else { code }
}
