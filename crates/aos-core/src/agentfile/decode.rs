//! Turns the tree of a document into an [`Agentfile`].

use super::error::{Position, Problem, below};
use super::fields::{self, Fields};
use super::tree::{Node, PlainKind, Value, places};
use super::{
    API_VERSION, APP_DIRECTORY, Agentfile, Base, Build, CopyTarget, KIND, Metadata, Run, STAGES_MAX,
    STEPS_MAX, Stage, Step,
};
use crate::capability::{CAPABILITIES_MAX, Capability, CapabilitySet};
use crate::config::{ARGUMENTS_MAX, ENV_MAX, Entrypoint, LABELS_MAX, Lifecycle, Limits};
use crate::id::parse_version;
use crate::path::AbsolutePath;
use crate::quoted::Quoted;
use crate::text::Argument;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;

type Result<T> = std::result::Result<T, Problem>;

/// A node and the path of its field.
struct Item<'n> {
    node: &'n Node,
    path: String,
}

/// A mapping whose keys are all known.
struct Section<'n> {
    place: Position,
    path: String,
    fields: Vec<(&'n str, Item<'n>)>,
}

fn not_enforced(name: &str) -> String {
    format!("{} is not supported by this version of AOS, which could not enforce it: remove it", Quoted(name))
}

impl<'n> Item<'n> {
    fn problem(&self, message: impl Display) -> Problem {
        Problem::Field { place: self.node.place, field: self.path.clone(), message: message.to_string() }
    }

    fn expected(&self, what: &str) -> Problem {
        self.problem(format!("expected {what}, found {}", self.node.value.describe()))
    }

    /// Text. A scalar that YAML leaves unquoted is text as it is written.
    fn text(&self, what: &str) -> Result<&'n str> {
        match &self.node.value {
            Value::Text(text) | Value::Plain { text, is_text: true, .. } => Ok(text),
            _ => Err(self.expected(what)),
        }
    }

    /// Text, or an integer as its digits.
    fn text_or_integer(&self, what: &str) -> Result<&'n str> {
        match &self.node.value {
            Value::Plain { kind: PlainKind::Integer, text, .. } => Ok(text),
            _ => self.text(what),
        }
    }

    fn parse<T: FromStr<Err: Display>>(&self, what: &str) -> Result<T> {
        self.text(what)?.parse().map_err(|error| self.problem(error))
    }

    fn parse_quantity<T: FromStr<Err: Display>>(&self, what: &str) -> Result<T> {
        self.text_or_integer(what)?.parse().map_err(|error| self.problem(error))
    }

    /// The items of a list, at most `max`.
    fn list(&self, what: &str, max: usize) -> Result<Vec<Item<'n>>> {
        let Value::List(items) = &self.node.value else {
            return Err(self.expected(what));
        };
        if items.len() > max {
            return Err(self.problem(format!("{} elements, at most {max} are allowed", items.len())));
        }
        let item = |(index, node)| Item { node, path: format!("{}[{index}]", self.path) };
        Ok(items.iter().enumerate().map(item).collect())
    }

    /// The entries of a mapping, each with its key as a field of its own.
    fn entries(&self, what: &str) -> Result<Vec<(Item<'n>, &'n str, Position)>> {
        let Value::Map(entries) = &self.node.value else {
            return Err(self.expected(what));
        };
        let entry = |(key, node): &'n (super::tree::Key, Node)| {
            (Item { node, path: below(&self.path, &key.text) }, key.text.as_str(), key.place)
        };
        Ok(entries.iter().map(entry).collect())
    }

    /// A mapping of typed names to typed text, at most `max`.
    fn table<K, V>(&self, what: &str, max: usize) -> Result<BTreeMap<K, V>>
    where
        K: FromStr<Err: Display> + Ord,
        V: FromStr<Err: Display>,
    {
        let entries = self.entries(what)?;
        if entries.len() > max {
            return Err(self.problem(format!("{} entries, at most {max} are allowed", entries.len())));
        }
        let mut table = BTreeMap::new();
        for (item, key, place) in entries {
            let name = key.parse().map_err(|error: K::Err| Problem::Field {
                place,
                field: item.path.clone(),
                message: error.to_string(),
            })?;
            table.insert(name, item.parse("text")?);
        }
        Ok(table)
    }

    /// A mapping of known fields.
    fn section(&self, what: &str, fields: &Fields) -> Result<Section<'n>> {
        let mut taken = Vec::new();
        for (item, key, place) in self.entries(what)? {
            if fields.known.contains(&key) {
                taken.push((key, item));
                continue;
            }
            let message = if fields.later.contains(&key) {
                not_enforced(key)
            } else {
                format!("unknown field {}, known are {}", Quoted(key), fields.known.join(", "))
            };
            return Err(Problem::Field { place, field: item.path, message });
        }
        Ok(Section { place: self.node.place, path: self.path.clone(), fields: taken })
    }
}

impl<'n> Section<'n> {
    fn optional(&self, name: &str) -> Option<&Item<'n>> {
        self.fields.iter().find_map(|(key, item)| (*key == name).then_some(item))
    }

    fn required(&self, name: &str, expected: &str) -> Result<&Item<'n>> {
        self.optional(name).ok_or_else(|| Problem::Field {
            place: self.place,
            field: below(&self.path, name),
            message: format!("missing, expected {expected}"),
        })
    }
}

/// Decodes the whole document.
pub(super) fn agentfile(root: &Node, origin: &str) -> Result<Agentfile> {
    let top = Item { node: root, path: String::new() }
        .section("a mapping with apiVersion, kind, ...", &fields::TOP)?;
    api_version(top.required("apiVersion", API_VERSION)?)?;
    kind(top.required("kind", "Agent")?)?;
    let limits = top.optional("limits").map_or_else(|| Ok(Limits::default()), limits)?;
    let (capabilities, written) =
        top.optional("capabilities").map_or_else(|| Ok(Default::default()), capabilities)?;
    Ok(Agentfile {
        metadata: metadata(top.required("metadata", "a mapping with name and version")?)?,
        build: top.optional("build").map(build).transpose()?,
        run: run(top.required("run", "a mapping with entrypoint")?)?,
        capabilities,
        written,
        limits,
        origin: origin.to_owned(),
        places: places(root),
    })
}

fn api_version(item: &Item<'_>) -> Result<()> {
    match item.text(API_VERSION)? {
        API_VERSION => Ok(()),
        other => Err(item.problem(format!("expected {API_VERSION}, found {}", Quoted(other)))),
    }
}

fn kind(item: &Item<'_>) -> Result<()> {
    match item.text("Agent")? {
        KIND => Ok(()),
        later if fields::LATER_KINDS.contains(&later) => Err(item.problem(format!(
            "kind {} is not supported by this version of AOS, expected Agent",
            Quoted(later)
        ))),
        other => Err(item.problem(format!("expected Agent, found {}", Quoted(other)))),
    }
}

fn metadata(item: &Item<'_>) -> Result<Metadata> {
    let section = item.section("a mapping with name and version", &fields::METADATA)?;
    let name = section.required("name", "a package name, such as sitewatch")?;
    let version = section.required("version", "a version, such as 1.0.0")?;
    let text = version.text("a version in quotes, such as \"1.0.0\"")?;
    Ok(Metadata {
        name: name.parse("a package name, such as sitewatch")?,
        version: parse_version(text).map_err(|error| version.problem(error))?,
        description: section.optional("description").map(|item| item.parse("text")).transpose()?,
        labels: section
            .optional("labels")
            .map_or_else(|| Ok(BTreeMap::new()), |item| item.table("a mapping of labels", LABELS_MAX))?,
    })
}

fn build(item: &Item<'_>) -> Result<Build> {
    let section = item.section("a mapping with stages", &fields::BUILD)?;
    let list = section.required("stages", "a list of stages")?;
    let mut stages: Vec<Stage> = Vec::new();
    for item in list.list("a list of stages", STAGES_MAX)? {
        let section = item.section("a mapping with name, from and steps", &fields::STAGE)?;
        let name = section.required("name", "the stage's name")?;
        let stage = Stage {
            name: name.parse("the stage's name")?,
            from: base(section.required("from", "host or scratch")?)?,
            steps: section.optional("steps").map_or_else(|| Ok(Vec::new()), steps)?,
        };
        if stages.iter().any(|other| other.name == stage.name) {
            return Err(name.problem(format!("two stages have the name {}", Quoted(stage.name.as_str()))));
        }
        stages.push(stage);
    }
    if stages.is_empty() {
        return Err(list.problem("expected at least one stage"));
    }
    Ok(Build { stages })
}

fn base(item: &Item<'_>) -> Result<Base> {
    let written = item.text("host or scratch")?;
    let found = Base::ALL.into_iter().find_map(|(word, base)| (word == written).then_some(base));
    found.ok_or_else(|| {
        item.problem(format!(
            "{} is not supported by this version of AOS, expected host or scratch",
            Quoted(written)
        ))
    })
}

fn steps(item: &Item<'_>) -> Result<Vec<Step>> {
    item.list("a list of steps", STEPS_MAX)?.iter().map(step).collect()
}

fn step(item: &Item<'_>) -> Result<Step> {
    let what = "a mapping with one of copy, env, workdir, label";
    let section = item.section(what, &fields::STEP)?;
    let [(name, value)] = section.fields.as_slice() else {
        return Err(item.problem(format!("expected {what}, found {} of them", section.fields.len())));
    };
    match *name {
        "copy" => copy(value),
        "env" => Ok(Step::Env(value.table("a mapping of variables", ENV_MAX)?)),
        "workdir" => Ok(Step::Workdir(value.parse("an absolute path")?)),
        _ => Ok(Step::Label(value.table("a mapping of labels", LABELS_MAX)?)),
    }
}

fn copy(item: &Item<'_>) -> Result<Step> {
    let section = item.section("a mapping with from and to", &fields::COPY)?;
    let from = section.required("from", "a path below the Agentfile's directory, or `.`")?;
    let source = match from.text("a path below the Agentfile's directory, or `.`")? {
        "." => None,
        _ => Some(from.parse("a path")?),
    };
    let to = section.required("to", "an absolute path in the package")?;
    let text = to.text("an absolute path in the package")?;
    let parse = |text: &str| text.parse::<AbsolutePath>().map_err(|error| to.problem(error));
    let target = match text.strip_suffix('/') {
        Some("") => CopyTarget::Into(AbsolutePath::root()),
        Some(directory) if directory != "/" => CopyTarget::Into(parse(directory)?),
        _ => CopyTarget::As(parse(text)?),
    };
    Ok(Step::Copy { from: source, to: target })
}

fn run(item: &Item<'_>) -> Result<Run> {
    let section = item.section("a mapping with entrypoint", &fields::RUN)?;
    Ok(Run {
        entrypoint: entrypoint(section.required("entrypoint", "a list: the program and its arguments")?)?,
        env: section
            .optional("env")
            .map_or_else(|| Ok(BTreeMap::new()), |item| item.table("a mapping of variables", ENV_MAX))?,
        workdir: section.optional("workdir").map(|item| item.parse("an absolute path")).transpose()?,
        lifecycle: section.optional("lifecycle").map_or_else(|| Ok(Lifecycle::default()), lifecycle)?,
    })
}

fn entrypoint(item: &Item<'_>) -> Result<Entrypoint> {
    let words = item.list("a list: the program and its arguments", ARGUMENTS_MAX)?;
    let Some((first, rest)) = words.split_first() else {
        return Err(item.problem("empty, expected the program and its arguments"));
    };
    let text = first.text("the program's path")?;
    let path = if text.is_empty() || text.starts_with('/') {
        Cow::Borrowed(text)
    } else {
        Cow::Owned(format!("{APP_DIRECTORY}/{text}"))
    };
    let program: AbsolutePath = path.parse().map_err(|error| first.problem(error))?;
    if program == AbsolutePath::root() {
        return Err(first.problem("`/` is not a program"));
    }
    let argument = |item: &Item<'_>| item.parse::<Argument>("text (a number is written in quotes)");
    Ok(Entrypoint { program, arguments: rest.iter().map(argument).collect::<Result<_>>()? })
}

fn lifecycle(item: &Item<'_>) -> Result<Lifecycle> {
    if matches!(&item.node.value, Value::Map(entries) if entries.iter().any(|(key, _)| key.text == "schedule"))
    {
        return Err(item.problem(not_enforced("schedule")));
    }
    item.parse("oneshot or persistent")
}

/// Capabilities, as a set and in the order of the file: each is text, or a mapping of one entry,
/// which is how YAML reads the line when it is not in quotes.
fn capabilities(item: &Item<'_>) -> Result<(CapabilitySet, Vec<Capability>)> {
    let mut set = CapabilitySet::new();
    let mut written = Vec::new();
    for item in item.list("a list of capabilities", CAPABILITIES_MAX)? {
        let capability = match &item.node.value {
            Value::Map(_) => capability_of_mapping(&item)?,
            _ => item.parse("a capability, such as `file_read: /data/**`")?,
        };
        set.insert(capability.clone()).map_err(|error| item.problem(error))?;
        written.push(capability);
    }
    Ok((set, written))
}

fn capability_of_mapping(item: &Item<'_>) -> Result<Capability> {
    let entries = item.entries("a capability")?;
    if let Some((option, name, place)) =
        entries.iter().find(|(_, name, _)| fields::CAPABILITY_OPTIONS.contains(name))
    {
        return Err(Problem::Field {
            place: *place,
            field: option.path.clone(),
            message: not_enforced(name),
        });
    }
    let [(value, name, place)] = entries.as_slice() else {
        return Err(item.problem("expected one capability, such as `file_read: /data/**`"));
    };
    let text = value.text_or_integer("the capability's value")?;
    Capability::from_parts(name, text).map_err(|error| Problem::Field {
        place: *place,
        field: item.path.clone(),
        message: error.to_string(),
    })
}

fn limits(item: &Item<'_>) -> Result<Limits> {
    let section = item.section("a mapping of limits", &fields::LIMITS)?;
    let of = |name| section.optional(name);
    Ok(Limits {
        memory: of("memory").map(|item| item.parse_quantity("a size, such as 256M")).transpose()?,
        cpu: of("cpu").map(|item| item.parse("a share, such as 50%")).transpose()?,
        tasks: of("tasks").map(|item| item.parse_quantity("a number, such as 64")).transpose()?,
        runtime: of("runtime").map(|item| item.parse("a duration, such as 10m")).transpose()?,
        open_files: of("open_files").map(|item| item.parse_quantity("a number, such as 1024")).transpose()?,
    })
}
