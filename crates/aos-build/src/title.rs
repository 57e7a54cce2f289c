//! What a step does, on one line.

use aos_core::agentfile::{Command, CopyOrigin, Stage, Step};

/// Characters of a title: beside the stage's name and the time it fits into a terminal's line.
const TITLE_MAX: usize = 72;

/// The title of a stage's base.
pub(crate) fn title_of_base(stage: &Stage) -> String {
    let packages: Vec<&str> = stage.packages.iter().map(|package| package.as_str()).collect();
    let with = if packages.is_empty() { String::new() } else { format!(" with {}", packages.join(" ")) };
    cut(&format!("from {}{with}", stage.from))
}

/// The title of a step.
pub(crate) fn title_of_step(step: &Step) -> String {
    let title = match step {
        Step::Copy(copy) => {
            let from: Vec<String> = copy.from.iter().map(ToString::to_string).collect();
            let origin = match &copy.origin {
                CopyOrigin::Directory => String::new(),
                CopyOrigin::Stage(name) => format!("stage:{name} "),
                CopyOrigin::Package(name) => format!("package:{name} "),
            };
            format!("copy {origin}{} {}", from.join(" "), copy.to)
        }
        Step::Run(run) => match &run.command {
            Command::Shell(text) => format!("run {}", text.as_str()),
            Command::Program(_) => format!("run {}", run.command.argv().join(" ")),
        },
        Step::Env(env) => {
            let names: Vec<&str> = env.keys().map(|name| name.as_str()).collect();
            format!("env {}", names.join(" "))
        }
        Step::Workdir(path) => format!("workdir {path}"),
        Step::Expose(ports) => {
            let ports: Vec<String> = ports.iter().map(ToString::to_string).collect();
            format!("expose {}", ports.join(" "))
        }
        Step::Label(labels) => {
            let names: Vec<&str> = labels.keys().map(|name| name.as_str()).collect();
            format!("label {}", names.join(" "))
        }
    };
    cut(&title)
}

/// One line of bounded length, without what a terminal could take for a command.
fn cut(text: &str) -> String {
    let plain: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let plain = plain.split_whitespace().collect::<Vec<_>>().join(" ");
    match plain.char_indices().nth(TITLE_MAX) {
        Some((at, _)) => format!("{}…", plain.get(..at).unwrap_or_default()),
        None => plain,
    }
}
