//! The time zone: found by part of its name in the list that timedated knows.

use super::system::System;
use super::terminal::Questions;
use super::wizard::StepError;

/// The longest list of matches that is shown; a longer one is asked to be narrowed.
const MAX_SHOWN: usize = 12;

/// A name from the machine's own list of time zones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TimeZone(String);

impl TimeZone {
    /// Checks `text` against the list; letter case does not matter.
    pub(crate) fn parse(text: &str, known: &[String]) -> Result<Self, String> {
        match known.iter().find(|zone| zone.eq_ignore_ascii_case(text)) {
            Some(zone) => Ok(Self(zone.clone())),
            None => Err(unknown(text, known)),
        }
    }

    /// The name, such as `Europe/Paris`.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// Says that a zone is unknown and names a few that resemble it.
fn unknown(text: &str, known: &[String]) -> String {
    let near: Vec<&str> = search(text, known).into_iter().take(3).collect();
    if near.is_empty() {
        format!("no time zone is called `{text}`; `timedatectl list-timezones` shows all")
    } else {
        format!("no time zone is called `{text}`; is it {}?", near.join(", "))
    }
}

/// The zones whose name contains `text`; a space stands for an underscore, letter case does not matter.
fn search<'a>(text: &str, known: &'a [String]) -> Vec<&'a str> {
    let wanted = text.trim().to_ascii_lowercase().replace(' ', "_");
    if wanted.is_empty() {
        return Vec::new();
    }
    known.iter().map(String::as_str).filter(|zone| zone.to_ascii_lowercase().contains(&wanted)).collect()
}

/// What an answer to the first question means.
enum Answer {
    Zone(TimeZone),
    Several(Vec<String>),
}

fn interpret(text: &str, known: &[String]) -> Result<Answer, String> {
    if let Ok(zone) = TimeZone::parse(text, known) {
        return Ok(Answer::Zone(zone));
    }
    let matches = search(text, known);
    match matches.as_slice() {
        [] => Err(format!("no time zone has `{text}` in its name; try the largest city near you")),
        [one] => Ok(Answer::Zone(TimeZone((*one).to_owned()))),
        several if several.len() <= MAX_SHOWN => {
            Ok(Answer::Several(several.iter().map(|&zone| zone.to_owned()).collect()))
        }
        several => Err(format!("{} time zones have `{text}` in their name; type more of it", several.len())),
    }
}

/// Asks for the zone; `None` when it stays as it is.
pub(crate) fn ask(ask: &mut Questions<'_>, system: &dyn System) -> Result<Option<TimeZone>, StepError> {
    let current = system.time_zone()?;
    let known = system.time_zones()?;
    ask.say("The time zone, such as Europe/Paris, or a part of its name to search for.")?;
    let zone = loop {
        match ask.text("Time zone", Some(&current), |text| interpret(text, &known))? {
            Answer::Zone(zone) => break zone,
            Answer::Several(zones) => {
                let mut options: Vec<&str> = zones.iter().map(String::as_str).collect();
                options.push("none of these");
                let index = ask.choose("Which one", &options, None)?;
                if let Some(zone) = zones.get(index) {
                    break TimeZone(zone.clone());
                }
            }
        }
    };
    ask.say(&format!("  {}", zone.as_str()))?;
    Ok((zone.as_str() != current).then_some(zone))
}

#[cfg(test)]
mod tests {
    use super::super::fake::{FakeSystem, Script};
    use super::*;

    fn chosen<const N: usize>(answers: [&str; N]) -> (Option<TimeZone>, String) {
        let system = FakeSystem::default();
        let mut script = Script::new(answers);
        let zone = ask(&mut Questions::new(&mut script), &system).unwrap();
        (zone, script.shown())
    }

    #[test]
    fn a_unique_part_is_enough() {
        assert_eq!(chosen(["paris"]).0.unwrap().as_str(), "Europe/Paris");
    }

    #[test]
    fn several_matches_are_offered_by_number() {
        let (zone, shown) = chosen(["new york", "america", "1"]);
        assert_eq!(zone.unwrap().as_str(), "America/New_York");
        assert!(!shown.contains("1) "), "a unique match asks nothing more: {shown}");
        let (zone, shown) = chosen(["america", "2"]);
        assert_eq!(zone.unwrap().as_str(), "America/Sao_Paulo");
        assert!(shown.contains("2) America/Sao_Paulo"));
    }

    #[test]
    fn nonsense_is_refused_with_advice() {
        let (zone, shown) = chosen(["../../etc/passwd", ""]);
        assert_eq!(zone, None);
        assert!(shown.contains("no time zone has"));
    }

    #[test]
    fn flags_name_a_zone_exactly() {
        let known = FakeSystem::default().time_zones().unwrap();
        assert_eq!(TimeZone::parse("europe/paris", &known).unwrap().as_str(), "Europe/Paris");
        assert!(TimeZone::parse("paris", &known).unwrap_err().contains("Europe/Paris"));
    }
}
