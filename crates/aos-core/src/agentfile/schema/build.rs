//! The section `build`. A value in it may name a build argument; what it becomes only the decoder
//! can check, so that every pattern here also takes a text that has `${NAME}` in it.

use super::{Value, json, labels, list, patterns, section, table};
use crate::agentfile::fields;
use crate::agentfile::step::{
    CACHES_MAX, DEFAULT_TIMEOUT_SECONDS, EXCLUDES_MAX, NET_MAX, SECRETS_DIRECTORY, SECRETS_MAX, SOURCES_MAX,
};
use crate::agentfile::{ARGS_MAX, PACKAGES_MAX, STAGES_MAX, STEPS_MAX};
use crate::config::{ARGUMENTS_MAX, EXPOSE_MAX};
use crate::quantity::DurationSpec;
use crate::text::{ENV_NAME_MAX, ENV_VALUE_MAX};

/// Text that may name an argument: there is no bound of its length, since the argument's is not known.
fn text(what: &str, pattern: &str) -> Value {
    let pattern = format!("{pattern}|{}", patterns::ARGUMENT);
    json!({ "type": "string", "description": what, "pattern": pattern })
}

/// A list without repetitions.
fn set(what: &str, max: usize, items: Value) -> Value {
    json!({ "type": "array", "description": what, "maxItems": max, "items": items, "uniqueItems": true })
}

/// A schema with one more keyword.
fn with(mut schema: Value, keyword: &str, value: Value) -> Value {
    if let Value::Object(fields) = &mut schema {
        fields.insert(keyword.to_owned(), value);
    }
    schema
}

pub(super) fn build() -> Value {
    let what = "How the package's files are made. Without it, all files of the directory go to /app (for a skill: /skill), except those of .aosignore and .git.";
    section(what, &fields::BUILD, &[], build_field)
}

pub(super) fn build_field(name: &str) -> Option<Value> {
    Some(match name {
        "args" => {
            let what = "Build arguments with their defaults; `aos build --arg NAME=VALUE` sets others. `${NAME}` in any value of `stages` stands for the value, `$$` for a dollar.";
            let value = json!({
                "type": "string", "description": "The default; a number is written in quotes.",
                "pattern": patterns::ANY, "maxLength": ENV_VALUE_MAX,
            });
            table(what, ARGS_MAX, (patterns::ENV_NAME, ENV_NAME_MAX), value)
        }
        "stages" => {
            let what = "The stages. The last one makes the package; what it does not need is not built.";
            let stage = section("One stage.", &fields::STAGE, &["name", "from"], stage);
            list(what, 1, STAGES_MAX, with(stage, "allOf", json!([packages_of_debian()])))
        }
        _ => return None,
    })
}

fn packages_of_debian() -> Value {
    json!({
        "if": { "required": ["packages"] },
        "then": { "properties": { "from": { "pattern": patterns::debian_base() } } },
    })
}

pub(super) fn stage(name: &str) -> Option<Value> {
    Some(match name {
        "name" => text("Its name, once in the file: a-z, 0-9, `_` and `-`.", patterns::STAGE_NAME),
        "from" => base(),
        "packages" => {
            let item = text("NAME, or NAME=VERSION.", patterns::DEBIAN_PACKAGE);
            set("Debian packages to install; only `from: debian`.", PACKAGES_MAX, item)
        }
        "dependsOn" => {
            let item = text("A stage's name.", patterns::STAGE_NAME);
            let what = "Stages that must be done before, besides those that `from` and copy steps name.";
            set(what, STAGES_MAX, item)
        }
        "steps" => {
            let what = "One step: a mapping with exactly one field.";
            let step = with(section(what, &fields::STEP, &[], step), "minProperties", json!(1));
            list("Its steps, in order.", 0, STEPS_MAX, with(step, "maxProperties", json!(1)))
        }
        _ => return None,
    })
}

fn base() -> Value {
    let forms = crate::agentfile::build::BASES.map(|(form, what)| format!("{form}: {what}"));
    let what = format!("What the stage starts from. {}.", forms.join("; "));
    with(
        text(&what, &patterns::base()),
        "examples",
        json!(["host", "scratch", "debian:trixie", "stage:NAME"]),
    )
}

pub(super) fn step(name: &str) -> Option<Value> {
    Some(match name {
        "copy" => {
            let what = "Copies files into the package.";
            let copy = section(what, &fields::COPY, &["from", "to"], copy);
            with(copy, "allOf", json!([{ "not": { "required": ["stage", "package"] } }, relative_source()]))
        }
        "run" => run_step(),
        "env" => {
            let value = text("Text; a number is written in quotes.", patterns::ANY);
            let names = (patterns::ENV_NAME, ENV_NAME_MAX);
            table(
                "Sets environment variables, for the steps after it and for the agent.",
                crate::config::ENV_MAX,
                names,
                value,
            )
        }
        "workdir" => text(
            "Sets the working directory, for the steps after it and for the agent; absolute.",
            &patterns::absolute(),
        ),
        "expose" => {
            let what = "Names ports that the package listens on, for people and tools; the right to listen is the capability `listen`.";
            let number = json!({ "type": "integer", "minimum": 1, "maximum": u16::MAX });
            let port =
                json!({ "anyOf": [number, text("A port, or with a protocol: 53/udp.", &patterns::port())] });
            set(what, EXPOSE_MAX, port)
        }
        "label" => build_labels(),
        _ => return None,
    })
}

/// Labels whose values may name an argument.
fn build_labels() -> Value {
    let mut schema = with(labels(), "description", json!("Sets labels."));
    let value = text("A line of text.", &patterns::visible(false));
    if let Some(slot) = schema.pointer_mut("/additionalProperties") {
        *slot = value;
    }
    schema
}

/// Without a stage or package, sources are below the directory that is built.
fn relative_source() -> Value {
    let relative = json!({ "not": { "type": "string", "pattern": "^/" } });
    json!({
        "if": { "not": { "anyOf": [{ "required": ["stage"] }, { "required": ["package"] }] } },
        "then": { "properties": { "from": { "allOf": [relative], "items": relative } } },
    })
}

pub(super) fn copy(name: &str) -> Option<Value> {
    Some(match name {
        "from" => {
            let source = || {
                text(
                    "A file, a directory (its contents are copied), a pattern (`*`, `?`, `[a-z]` within a segment, `**` for any depth), or `.` for everything.",
                    &patterns::copy_source(),
                )
            };
            let many = list("Several of them.", 1, SOURCES_MAX, source());
            json!({
                "description": "What is copied, below the directory that is built; with `stage` or `package` a path in that. What a pattern matches keeps its path below the pattern's first special segment.",
                "anyOf": [source(), many],
            })
        }
        "to" => text(
            "Where it goes in the package, absolute. With a closing slash it is the directory that the sources go into, as it must be for several sources or a pattern.",
            &patterns::copy_target(),
        ),
        "stage" => text("Copies from the result of this stage.", patterns::STAGE_NAME),
        "package" => {
            let what = "Copies from a package of `dependencies`, by its name there.";
            text(what, patterns::PACKAGE_NAME)
        }
        "owner" => with(
            text("The owner of the copies, UID:GID in numbers.", patterns::OWNER),
            "default",
            json!("0:0"),
        ),
        "mode" => text(
            "The permissions of the copies: three octal digits, such as \"0644\"; directories may also be passed by whom they are read. Without it a file stays executable or not.",
            patterns::FILE_MODE,
        ),
        "exclude" => {
            let what = "What is left out. A pattern without a slash is compared with the name at any depth, any other with the path below the copied directory.";
            set(what, EXCLUDES_MAX, text("A pattern, such as `*.pyc` or `**/test`.", &patterns::glob()))
        }
        _ => return None,
    })
}

fn command() -> Value {
    let argument = text("An argument; a number is written in quotes.", patterns::ANY);
    let program = text("The program.", r"^[^\u0000]+$");
    let words = with(
        list("The program and its arguments, without a shell.", 1, ARGUMENTS_MAX, argument),
        "prefixItems",
        json!([program]),
    );
    let shell = text("A text for /bin/sh -c.", r"^(?=[\s\S]*\S)[^\u0000]*$");
    json!({ "description": "What is run: a text for the shell, or a list.", "anyOf": [shell, words] })
}

fn run_step() -> Value {
    let mut forms = vec![section("With its options.", &fields::STEP_RUN, &["command"], run)];
    if let Some(Value::Array(short)) = command().get("anyOf") {
        forms.splice(0..0, short.iter().cloned());
    }
    json!({
        "description": "Runs a program in the stage's root, confined by the launcher and offline unless it names hosts: a text for the shell, a list, or a mapping with options.",
        "anyOf": forms,
    })
}

pub(super) fn run(name: &str) -> Option<Value> {
    Some(match name {
        "command" => command(),
        "net" => {
            let host = patterns::net_name();
            let item = text("HOST:PORT, or *.HOST:PORT for one label more.", &format!("^{host}$"));
            set("Hosts that it may reach; without it the step is offline.", NET_MAX, item)
        }
        "cache" => {
            let what = "Directories that are kept from build to build and never enter a layer.";
            set(what, CACHES_MAX, text("An absolute path.", &patterns::absolute()))
        }
        "secrets" => {
            let what = format!(
                "Secrets that it finds as files in {SECRETS_DIRECTORY}, mode 0400; they never enter a layer."
            );
            set(&what, SECRETS_MAX, text("The secret's name.", patterns::SECRET_NAME))
        }
        "timeout" => {
            let what = "When it is killed, with d, h, m, s.";
            let default = DurationSpec::from_seconds(DEFAULT_TIMEOUT_SECONDS)?.to_string();
            with(text(what, patterns::DURATION), "default", json!(default))
        }
        _ => return None,
    })
}
