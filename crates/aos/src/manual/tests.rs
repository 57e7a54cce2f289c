//! Every command is in the manual, and its examples are command lines.

use super::*;

#[test]
fn every_command_has_a_page_and_every_page_a_command() {
    let command = crate::cli::command();
    let mut names: Vec<&str> =
        command.get_subcommands().filter(|sub| !sub.is_hide_set()).map(Command::get_name).collect();
    names.push("");
    names.sort_unstable();
    let mut pages: Vec<&str> = PAGES.iter().map(|page| page.command).collect();
    pages.sort_unstable();
    assert_eq!(names, pages);
}

#[test]
fn every_example_parses() {
    for (line, _) in PAGES.iter().flat_map(|page| page.examples) {
        // In a pipeline, ours is the part that starts with `aos`.
        let ours = |part: &&str| part.trim_start_matches("sudo ").starts_with("aos ");
        let line = line.split('|').map(str::trim).find(ours).unwrap();
        let line = line.split('<').next().unwrap();
        let words: Vec<&str> = line.split_whitespace().skip_while(|word| *word == "sudo").collect();
        crate::cli::command().try_get_matches_from(&words).unwrap_or_else(|error| panic!("{line}: {error}"));
    }
}
