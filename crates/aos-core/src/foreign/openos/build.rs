//! `from`, `stages` and `steps`: the section `build`.

use super::super::Remarks;
use super::super::reader::Field;
use super::super::yaml::Yaml;
use crate::agentfile::{
    APP_DIRECTORY, Base, CopySource, CopyTarget, DebianPackage, STAGES_MAX, STEPS_MAX, StageName,
};
use crate::reference::Reference;
use crate::text::Argument;

/// The stage that the steps at the top become.
const MAIN_STAGE: &str = "main";
/// Suites that `debian:NAME` means as we do; any other tag is an image's.
const SUITES: [&str; 9] =
    ["bullseye", "bookworm", "trixie", "forky", "sid", "oldstable", "stable", "testing", "unstable"];
/// Where an image without a registry is, for the tools that have a default.
const DEFAULT_REGISTRY: &str = "docker.io";
/// Where its images without an owner are.
const DEFAULT_OWNER: &str = "library";

/// Names that the source of a copy step has in manifests.
const SOURCE_NAMES: [&str; 3] = ["src", "source", "from"];
/// Names that its target has.
const TARGET_NAMES: [&str; 5] = ["dst", "dest", "destination", "target", "to"];

/// A stage while it is made.
struct Stage {
    name: StageName,
    from: String,
    depends_on: Vec<StageName>,
    packages: Vec<DebianPackage>,
    steps: Vec<Yaml>,
}

impl Stage {
    fn new(name: StageName, base: Option<String>) -> Self {
        let from = base.unwrap_or_else(|| Base::Host.to_string());
        Self { name, from, depends_on: Vec::new(), packages: Vec::new(), steps: Vec::new() }
    }

    fn to_yaml(&self) -> Yaml {
        Yaml::map([
            ("name", Some(Yaml::text(self.name.as_str()))),
            ("from", Some(Yaml::text(self.from.clone()))),
            ("packages", Yaml::texts(&self.packages).unless_empty()),
            ("dependsOn", Yaml::texts(&self.depends_on).unless_empty()),
            ("steps", Yaml::List(self.steps.clone()).unless_empty()),
        ])
    }
}

/// The section, when the manifest says anything of it: the stages, and last what the top says.
pub(super) fn build(
    remarks: &mut Remarks,
    from: Option<Field<'_>>,
    stages: Option<Field<'_>>,
    steps: Option<Field<'_>>,
) -> Option<Yaml> {
    let mut named: Vec<(StageName, Field<'_>)> = Vec::new();
    for field in stages.as_ref().map(Field::items).unwrap_or_default() {
        match stage_name(&field) {
            None => remarks.drop(&field, "its name is not one of a-z, 0-9, `_` and `-`"),
            Some(name) if named.iter().any(|(known, _)| *known == name) => {
                remarks.drop(&field, "two stages have this name");
            }
            // One is left for what the top says.
            Some(_) if named.len() >= STAGES_MAX - 1 => {
                remarks.drop(&field, format!("a build has at most {STAGES_MAX} stages"));
            }
            Some(name) => named.push((name, field)),
        }
    }
    if let Some(field) = stages.filter(|field| !field.is_list()) {
        remarks.drop(&field, "expected a list of stages");
    }
    let names: Vec<StageName> = named.iter().map(|(name, _)| name.clone()).collect();
    let mut made: Vec<Stage> =
        named.into_iter().map(|(name, field)| stage(remarks, name, &field, &names)).collect();
    if from.is_some() || steps.is_some() {
        made.extend(main_stage(remarks, from, steps, &names));
    }
    let stages = Yaml::List(made.iter().map(Stage::to_yaml).collect()).unless_empty()?;
    Some(Yaml::map([("stages", Some(stages))]))
}

/// The stage that the top of the manifest is: on the last of the others when it names no base.
fn main_stage(
    remarks: &mut Remarks,
    from: Option<Field<'_>>,
    steps: Option<Field<'_>>,
    names: &[StageName],
) -> Option<Stage> {
    let name = |number: usize| match number {
        0 => MAIN_STAGE.to_owned(),
        _ => format!("{MAIN_STAGE}-{number}"),
    };
    let free = |name: String| name.parse::<StageName>().ok().filter(|name| !names.contains(name));
    let name = (0..=names.len()).map(name).find_map(free)?;
    let base = from.and_then(|field| base(remarks, &field, names));
    let below = || names.last().map(|last| Base::Stage(last.clone()).to_string());
    let mut stage = Stage::new(name, base.or_else(below));
    add_steps(remarks, &mut stage, steps);
    Some(stage)
}

fn stage_name(field: &Field<'_>) -> Option<StageName> {
    field.get("name")?.text()?.parse().ok()
}

fn stage(remarks: &mut Remarks, name: StageName, field: &Field<'_>, names: &[StageName]) -> Stage {
    let base = field.get("from").and_then(|from| base(remarks, &from, names));
    let mut stage = Stage::new(name, base);
    for item in field.get("dependsOn").map(|list| list.items()).unwrap_or_default() {
        match item.text().and_then(|text| text.parse().ok()).filter(|other| names.contains(other)) {
            Some(other) if stage.depends_on.contains(&other) => {}
            Some(other) => stage.depends_on.push(other),
            None => remarks.drop(&item, "is not a stage"),
        }
    }
    add_steps(remarks, &mut stage, field.get("steps"));
    remarks.drop_others(field, &["name", "from", "dependsOn", "steps"]);
    stage
}

/// A base: a stage's name, a word or form of ours, or an image, written in full.
fn base(remarks: &mut Remarks, field: &Field<'_>, stages: &[StageName]) -> Option<String> {
    let text = field.text().unwrap_or_default();
    if stages.iter().any(|stage| stage.as_str() == text) {
        return Some(format!("stage:{text}"));
    }
    let suite = text.strip_prefix("debian:");
    let ours = match text.parse::<Base>() {
        Ok(Base::Debian(_)) => suite.is_none_or(|suite| SUITES.contains(&suite)),
        Ok(Base::Stage(_)) => false,
        Ok(_) => true,
        Err(_) => false,
    };
    if ours {
        return Some(text.to_owned());
    }
    match image(text) {
        Some(image) => {
            remarks.note(field, format!("there is no default registry here: {image} is written"));
            Some(image)
        }
        None => {
            remarks.drop(field, "is neither a stage before this one nor an image; host is written");
            None
        }
    }
}

/// `python:3.13` as Docker reads it: `docker.io/library/python:3.13`.
fn image(text: &str) -> Option<String> {
    let reference: Reference = text.strip_prefix("docker://").unwrap_or(text).parse().ok()?;
    let repository = match &reference.registry {
        Some(_) => reference.repository(),
        None if reference.path.as_str().contains('/') => format!("{DEFAULT_REGISTRY}/{}", reference.path),
        None => format!("{DEFAULT_REGISTRY}/{DEFAULT_OWNER}/{}", reference.path),
    };
    let what = match (&reference.tag, &reference.digest) {
        (None, None) => ":latest".to_owned(),
        (tag, digest) => {
            let tag = tag.as_ref().map(|tag| format!(":{tag}")).unwrap_or_default();
            let digest = digest.map(|digest| format!("@{digest}")).unwrap_or_default();
            format!("{tag}{digest}")
        }
    };
    let image = format!("{repository}{what}");
    matches!(image.parse(), Ok(Base::Image(_))).then_some(image)
}

fn add_steps(remarks: &mut Remarks, stage: &mut Stage, steps: Option<Field<'_>>) {
    for field in steps.as_ref().map(Field::items).unwrap_or_default() {
        if stage.steps.len() >= STEPS_MAX {
            remarks.drop(&field, format!("a stage has at most {STEPS_MAX} steps"));
            continue;
        }
        let kind = field.get("type").and_then(|kind| kind.text().map(str::to_owned)).unwrap_or_default();
        let step = match kind.as_str() {
            "copy" => copy(remarks, &field),
            "run" => run(remarks, &field),
            "install" => install(remarks, stage, &field),
            "plugin" => {
                remarks.drop(&field, "there are no plugins here: write a run step");
                None
            }
            _ => {
                remarks.drop(&field, "expected a type: install, copy, run or plugin");
                None
            }
        };
        if let Some(step) = step {
            cache(remarks, &field);
            remarks.drop_others(&field, &["type", "command", "args", "cache"]);
            stage.steps.push(step);
        }
    }
}

/// Every step is cached by what goes into it.
fn cache(remarks: &mut Remarks, field: &Field<'_>) {
    if let Some(cache) = field.get("cache").filter(|cache| cache.text() != Some("true")) {
        remarks
            .drop(&cache, "every step is cached by what goes into it; `aos build --no-cache` makes all anew");
    }
}

/// `args: {src, dst}` under the names that are in use, or `command: "SRC DST"`.
fn copy(remarks: &mut Remarks, field: &Field<'_>) -> Option<Yaml> {
    let args = field.get("args");
    let of = |names: &[&str]| args.as_ref().and_then(|args| args.get_any(names));
    let (from, to) = (of(&SOURCE_NAMES), of(&TARGET_NAMES));
    let command = field.get("command").and_then(|command| command.text().map(str::to_owned));
    let words: Vec<&str> =
        command.as_deref().map(|text| text.split_whitespace().collect()).unwrap_or_default();
    let (source, target) = match (&from, &to, words.as_slice()) {
        (Some(from), Some(to), _) => (from.text().unwrap_or_default(), to.text().unwrap_or_default()),
        (None, None, [source, target]) => (*source, *target),
        _ => {
            remarks.drop(field, "expected args with src and dst");
            return None;
        }
    };
    let target_path = match target.strip_prefix("./").unwrap_or(target) {
        "" | "." => format!("{APP_DIRECTORY}/"),
        absolute if absolute.starts_with('/') => absolute.to_owned(),
        relative => format!("{APP_DIRECTORY}/{relative}"),
    };
    let below = match source.strip_prefix("./").unwrap_or(source).trim_end_matches('/') {
        "" => ".",
        below => below,
    };
    let (from, to) = match (below.parse::<CopySource>(), target_path.parse::<CopyTarget>()) {
        (Ok(from @ CopySource::Glob(_)), Ok(CopyTarget::As(path))) => (from, CopyTarget::Into(path)),
        (Ok(from), Ok(to)) => (from, to),
        (Err(error), _) => {
            remarks.drop(field, error);
            return None;
        }
        (_, Err(error)) => {
            remarks.drop(field, error);
            return None;
        }
    };
    if let Some(args) = &args {
        remarks.drop_others(args, &[SOURCE_NAMES.as_slice(), TARGET_NAMES.as_slice()].concat());
    }
    if to.to_string() != target {
        remarks.note(field, format!("goes to {to}"));
    }
    let text = |path: String| Some(Yaml::text(escaped(&path)));
    let copy = Yaml::map([("from", text(from.to_string())), ("to", text(to.to_string()))]);
    Some(Yaml::map([("copy", Some(copy))]))
}

/// A text in which no `$` starts a build argument: OpenOS has none.
fn escaped(text: &str) -> String {
    text.replace('$', "$$")
}

/// The command of a step, a text or a list.
fn command(remarks: &mut Remarks, field: &Field<'_>) -> Option<Yaml> {
    let command = field.get("command")?;
    if !command.is_list() {
        let text: Argument = remarks.parse(&command)?;
        if text.as_str().trim().is_empty() {
            return None;
        }
        return Some(Yaml::text(escaped(text.as_str())));
    }
    let words: Vec<Argument> = command.items().iter().filter_map(|item| remarks.parse(item)).collect();
    match words.first() {
        Some(first) if !first.as_str().is_empty() => {
            Some(Yaml::texts(words.iter().map(|word| escaped(word.as_str()))))
        }
        _ => None,
    }
}

fn drop_args(remarks: &mut Remarks, field: &Field<'_>, known: &[&str]) {
    if let Some(args) = field.get("args") {
        remarks.drop_others(&args, known);
        for item in args.items() {
            remarks.drop(&item, "write it into the command");
        }
    }
}

fn run(remarks: &mut Remarks, field: &Field<'_>) -> Option<Yaml> {
    let Some(command) = command(remarks, field) else {
        remarks.drop(field, "expected a command");
        return None;
    };
    drop_args(remarks, field, &[]);
    remarks.note(field, "runs offline: name the hosts that it needs in `net`");
    Some(Yaml::map([("run", Some(command))]))
}

/// A command, or `args: {packages: [..]}` on a Debian base.
fn install(remarks: &mut Remarks, stage: &mut Stage, field: &Field<'_>) -> Option<Yaml> {
    if field.get("command").is_some() {
        return run(remarks, field);
    }
    let packages = field.get("args").and_then(|args| args.get("packages"));
    let Some(packages) = packages.filter(|_| stage.from.starts_with("debian")) else {
        remarks.drop(field, "expected a command, or packages on a base `debian`");
        return None;
    };
    for item in packages.items() {
        if let Some(package) = remarks.parse::<DebianPackage>(&item)
            && !stage.packages.contains(&package)
        {
            stage.packages.push(package);
        }
    }
    drop_args(remarks, field, &["packages"]);
    None
}
