//! The section `build`: its arguments at once, its stages when the arguments are known.

use super::item::{Item, Result};
use crate::agentfile::build::{Base, DebianPackage, Stage};
use crate::agentfile::draft::PartialBuild;
use crate::agentfile::fields;
use crate::agentfile::step::{
    CACHES_MAX, Command, Copy, CopyOrigin, CopySource, CopyTarget, EXCLUDES_MAX, NET_MAX, Owner, RunStep,
    SECRETS_MAX, SOURCES_MAX, Step,
};
use crate::agentfile::tree::{Node, Value};
use crate::agentfile::{ARGS_MAX, PACKAGES_MAX, STAGES_MAX, STEPS_MAX};
use crate::config::{ARGUMENTS_MAX, ENV_MAX, EXPOSE_MAX, LABELS_MAX};
use crate::path::AbsolutePath;
use crate::quoted::Quoted;
use crate::text::Argument;
use std::collections::BTreeMap;

/// Decodes the section but for its stages, whose list may be missing when there is a parent.
pub(super) fn section(item: &Item<'_>, has_parent: bool) -> Result<PartialBuild> {
    let section = item.section("a mapping with stages", &fields::BUILD)?;
    let args = section.optional("args");
    let args =
        args.map_or_else(|| Ok(BTreeMap::new()), |item| item.table("a mapping of arguments", ARGS_MAX))?;
    let stages = match section.optional("stages") {
        None if has_parent => None,
        None => return Err(section.missing("stages", "a list of stages")),
        Some(list) => {
            let stages = list.list("a list of stages", STAGES_MAX)?;
            if stages.is_empty() {
                return Err(list.problem("expected at least one stage"));
            }
            Some(stages.into_iter().map(|stage| stage.node.clone()).collect())
        }
    };
    Ok(PartialBuild { args, stages })
}

/// Decodes a stage whose arguments are substituted; `path` is its own, such as `build.stages[0]`.
pub(in crate::agentfile) fn stage(node: &Node, path: String) -> Result<Stage> {
    let item = Item { node, path };
    let section = item.section("a mapping with name, from and steps", &fields::STAGE)?;
    let from: Base =
        section.required("from", "host, scratch, debian, ...")?.parse("host, scratch, debian, ...")?;
    Ok(Stage {
        name: section.required("name", "the stage's name")?.parse("the stage's name")?,
        packages: section
            .optional("packages")
            .map_or_else(|| Ok(Vec::new()), |item| packages(item, &from))?,
        depends_on: section
            .optional("dependsOn")
            .map_or_else(|| Ok(Vec::new()), |item| item.list_of("a list of stages", STAGES_MAX))?,
        steps: section.optional("steps").map_or_else(|| Ok(Vec::new()), steps)?,
        from,
    })
}

fn packages(item: &Item<'_>, from: &Base) -> Result<Vec<DebianPackage>> {
    match from {
        Base::Debian(_) => item.list_of("a list of Debian packages", PACKAGES_MAX),
        _ => Err(item.problem(format!("only a stage from debian has packages, and this one is from {from}"))),
    }
}

fn steps(item: &Item<'_>) -> Result<Vec<Step>> {
    item.list("a list of steps", STEPS_MAX)?.iter().map(step).collect()
}

fn step(item: &Item<'_>) -> Result<Step> {
    let what = "a mapping with one of copy, run, env, workdir, expose, label";
    let section = item.section(what, &fields::STEP)?;
    let [(name, value)] = section.fields.as_slice() else {
        return Err(item.problem(format!("expected {what}, found {} of them", section.fields.len())));
    };
    match *name {
        "copy" => copy(value),
        "run" => run(value),
        "env" => Ok(Step::Env(value.table("a mapping of variables", ENV_MAX)?)),
        "workdir" => Ok(Step::Workdir(value.parse("an absolute path")?)),
        "expose" => Ok(Step::Expose(value.list_of("a list of ports", EXPOSE_MAX)?)),
        _ => Ok(Step::Label(value.table("a mapping of labels", LABELS_MAX)?)),
    }
}

fn copy(item: &Item<'_>) -> Result<Step> {
    let section = item.section("a mapping with from and to", &fields::COPY)?;
    let origin = match (section.optional("stage"), section.optional("package")) {
        (None, None) => CopyOrigin::Directory,
        (Some(stage), None) => CopyOrigin::Stage(stage.parse("a stage's name")?),
        (None, Some(package)) => CopyOrigin::Package(package.parse("a dependency's name")?),
        (Some(_), Some(package)) => {
            return Err(package.problem("stands beside `stage`, expected one of them"));
        }
    };
    let written = section.required("from", SOURCES)?;
    let from = sources(written, &origin)?;
    let item = section.required("to", "an absolute path in the package")?;
    let to: CopyTarget = item.parse("an absolute path in the package")?;
    let many = from.len() > 1 || from.iter().any(|source| matches!(source, CopySource::Glob(_)));
    if let (CopyTarget::As(path), true) = (&to, many) {
        return Err(item.problem(format!("several sources go into a directory: write `{path}/`")));
    }
    let exclude = section.optional("exclude");
    Ok(Step::Copy(Copy {
        origin,
        from,
        to,
        owner: section
            .optional("owner")
            .map_or_else(|| Ok(Owner::default()), |item| item.parse("UID:GID, such as 1000:1000"))?,
        mode: section
            .optional("mode")
            .map(|item| item.parse("a mode in quotes, such as \"0755\""))
            .transpose()?,
        exclude: exclude
            .map_or_else(|| Ok(Vec::new()), |item| item.list_of("a list of patterns", EXCLUDES_MAX))?,
    }))
}

/// What a copy step takes, for messages.
const SOURCES: &str = "a path or pattern below the Agentfile's directory, `.`, or a list of them";

fn sources(item: &Item<'_>, origin: &CopyOrigin) -> Result<Vec<CopySource>> {
    let list = match &item.node.value {
        Value::List(_) => item.list(SOURCES, SOURCES_MAX)?,
        _ => vec![Item { node: item.node, path: item.path.clone() }],
    };
    if list.is_empty() {
        return Err(item.problem(format!("empty, expected {SOURCES}")));
    }
    let source = |item: &Item<'_>| {
        let text = item.text(SOURCES)?;
        // The paths of a stage or package are those that its programs see.
        let below = match (origin, text.strip_prefix('/')) {
            (CopyOrigin::Directory, _) | (_, None) => text,
            (_, Some("")) => ".",
            (_, Some(below)) => below,
        };
        below.parse().map_err(|error| item.problem(error))
    };
    list.iter().map(source).collect()
}

fn run(item: &Item<'_>) -> Result<Step> {
    if !matches!(item.node.value, Value::Map(_)) {
        return Ok(Step::Run(RunStep {
            command: command(item)?,
            net: Vec::new(),
            cache: Vec::new(),
            secrets: Vec::new(),
            timeout: None,
        }));
    }
    let section = item.section("a mapping with command", &fields::STEP_RUN)?;
    let optional = |name| section.optional(name);
    let cache = optional("cache").map(caches).transpose()?.unwrap_or_default();
    Ok(Step::Run(RunStep {
        command: command(section.required("command", COMMAND)?)?,
        net: optional("net")
            .map_or_else(|| Ok(Vec::new()), |item| item.list_of("a list of HOST:PORT", NET_MAX))?,
        cache,
        secrets: optional("secrets")
            .map_or_else(|| Ok(Vec::new()), |item| item.list_of("a list of names", SECRETS_MAX))?,
        timeout: optional("timeout").map(|item| item.parse("a duration, such as 10m")).transpose()?,
    }))
}

/// What a run step runs, for messages.
const COMMAND: &str = "a text for the shell, or a list: the program and its arguments";

fn command(item: &Item<'_>) -> Result<Command> {
    let empty = |item: &Item<'_>| item.problem(format!("empty, expected {COMMAND}"));
    if !matches!(item.node.value, Value::List(_)) {
        let text: Argument = item.parse(COMMAND)?;
        return if text.as_str().trim().is_empty() { Err(empty(item)) } else { Ok(Command::Shell(text)) };
    }
    let argument = |item: &Item<'_>| item.parse::<Argument>("text (a number is written in quotes)");
    let words = item.list(COMMAND, ARGUMENTS_MAX)?;
    let words: Vec<Argument> = words.iter().map(argument).collect::<Result<_>>()?;
    match words.first() {
        Some(program) if !program.as_str().is_empty() => Ok(Command::Program(words)),
        _ => Err(empty(item)),
    }
}

/// Directories that lie beside each other: one inside another would be seen in two places.
fn caches(item: &Item<'_>) -> Result<Vec<AbsolutePath>> {
    let paths: Vec<AbsolutePath> = item.list_of("a list of directories", CACHES_MAX)?;
    for path in &paths {
        if *path == AbsolutePath::root() {
            return Err(item.problem("`/` is the stage itself, expected a directory in it"));
        }
        if let Some(above) = paths.iter().find(|other| *other != path && path.is_within(other)) {
            let (path, above) = (Quoted(path.as_str()), Quoted(above.as_str()));
            return Err(item.problem(format!("{path} lies in {above}, which is a cache too")));
        }
    }
    Ok(paths)
}
