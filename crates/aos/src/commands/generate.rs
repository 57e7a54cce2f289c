//! `aos gen-man`, `gen-completions`, `gen-schema`, `completions`: what the package builder and shells ask for.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Args, Command};
use clap_complete::env::{Bash, EnvCompleter, Fish, Zsh};
use clap_mangen::Man;
use roff::{Roff, bold, roman};

use crate::cli;
use crate::completion;
use crate::manual::{self, Page};
use crate::output::Output;

/// A shell.
#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// bash, zsh or fish
    #[arg(value_name = "SHELL", value_parser = ["bash", "zsh", "fish"])]
    shell: String,
}

/// A folder.
#[derive(Debug, Args)]
pub(crate) struct FolderArgs {
    /// The folder to write into; it is made if it is missing
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

/// Prints a completion script.
pub(crate) fn completions(args: &CompletionsArgs, out: Output) -> Result<()> {
    let script = match args.shell.as_str() {
        "bash" => script(&Bash)?,
        "zsh" => zsh_script()?,
        "fish" => script(&Fish)?,
        other => bail!("there is no completion for `{other}`"),
    };
    Ok(out.bytes(&script)?)
}

/// Prints the JSON Schema of an Agentfile, as it is in docs/agentfile.schema.json.
pub(crate) fn gen_schema(out: Output) -> Result<()> {
    Ok(out.bytes(aos_core::agentfile::json_schema().as_bytes())?)
}

/// Writes the completion scripts under the names that shells expect.
pub(crate) fn gen_completions(args: &FolderArgs) -> Result<()> {
    prepare(&args.folder)?;
    write(&args.folder.join("aos.bash"), &script(&Bash)?)?;
    write(&args.folder.join("_aos"), &zsh_script()?)?;
    write(&args.folder.join("aos.fish"), &script(&Fish)?)
}

/// A script that asks `aos` itself for candidates, so that names of agents are among them.
fn script(shell: &dyn EnvCompleter) -> Result<Vec<u8>> {
    let mut script = Vec::new();
    shell
        .write_registration(completion::VARIABLE, "aos", "aos", "aos", &mut script)
        .context("cannot write the completion script")?;
    Ok(script)
}

/// zsh loads the file at the first Tab as the body of the function `_aos`, which then must complete, too.
fn zsh_script() -> Result<Vec<u8>> {
    let mut script = script(&Zsh)?;
    script.extend_from_slice(
        b"\nif [ \"${funcstack[1]}\" = \"_aos\" ]; then\n    _clap_dynamic_completer_aos \"$@\"\nfi\n",
    );
    Ok(script)
}

/// Writes a manual page for `aos` and for each command that is not hidden.
pub(crate) fn gen_man(args: &FolderArgs) -> Result<()> {
    prepare(&args.folder)?;
    let mut command = cli::command();
    command.build();
    for page in manual::PAGES {
        let (found, name) = if page.command.is_empty() {
            (Some(&command), "aos".to_owned())
        } else {
            (command.find_subcommand(page.command), format!("aos-{}", page.command))
        };
        let found = found.with_context(|| format!("the manual has a page for `{}`", page.command))?;
        let text = man_page(found.clone().name(name.clone()), page)?;
        write(&args.folder.join(format!("{name}.1")), &text)?;
    }
    Ok(())
}

fn man_page(command: Command, page: &Page) -> Result<Vec<u8>> {
    let has_commands = command.get_subcommands().any(|sub| !sub.is_hide_set());
    let title = command.get_name().to_uppercase();
    let bin_name = command.get_name().replacen("aos-", "aos ", 1);
    // The examples get a section of their own.
    let command = command.bin_name(bin_name).after_long_help(None::<&str>).disable_help_flag(false);
    let man = Man::new(command)
        .title(title)
        .section("1")
        .source(format!("AOS {}", env!("CARGO_PKG_VERSION")))
        .manual("AOS Manual");
    let mut text = Vec::new();
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    man.render_options_section(&mut text)?;
    if has_commands {
        man.render_subcommands_section(&mut text)?;
    }
    sections(page).to_writer(&mut text)?;
    Ok(text)
}

/// The sections that come from the manual's table.
fn sections(page: &Page) -> Roff {
    let mut roff = Roff::new();
    let mut list = |title: &str, rows: &[(&str, &str)]| {
        if rows.is_empty() {
            return;
        }
        roff.control("SH", [title]);
        for (term, text) in rows {
            roff.control("TP", []);
            roff.text([bold(*term)]);
            roff.text([roman(*text)]);
        }
    };
    list("EXAMPLES", page.examples);
    list("EXIT STATUS", page.exit);
    list("FILES", page.files);
    roff.control("SH", ["SEE ALSO"]);
    let own = if page.command.is_empty() { manual::PAGES } else { &[] };
    let mut names: Vec<String> = own
        .iter()
        .filter(|other| !other.command.is_empty())
        .map(|other| format!("aos-{}(1)", other.command))
        .collect();
    if !page.command.is_empty() {
        names.push("aos(1)".to_owned());
    }
    names.extend(page.see_also.iter().map(|&name| name.to_owned()));
    roff.text([roman(names.join(", "))]);
    roff
}

fn prepare(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}
