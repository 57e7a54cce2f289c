//! The rounds with an agent that is a list of what it needs.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::Unattended;
use crate::need::{Found, Record};
use aos_sandbox::record::Want;

/// An agent that asks for its needs in order and ends where it does not get one that it must have.
#[derive(Default)]
struct Fake {
    /// Capability, whether the agent must have it, whether it only looks.
    needs: Vec<(&'static str, bool, bool)>,
    /// What the plan refuses.
    refuses: Vec<&'static str>,
    /// What the launcher refuses.
    fails: Vec<&'static str>,
    sets: Vec<Vec<String>>,
    /// Whether it ends with 0 whatever it gets; its output then says what it got.
    is_tolerant: bool,
    /// What is asked for by a link, with the capability on what that is.
    leads: BTreeMap<&'static str, &'static str>,
    counted: std::cell::Cell<usize>,
}

impl Trials for Fake {
    fn check(&self, capabilities: &CapabilitySet) -> Result<(), String> {
        let refused = |line: &&&str| capabilities.to_lines().iter().any(|own| own == **line);
        self.refuses
            .iter()
            .find(refused)
            .map_or(Ok(()), |line| Err(format!("capability `{line}` is refused")))
    }

    fn run(
        &mut self,
        capabilities: &CapabilitySet,
        _: Purpose,
        _: Option<&Capability>,
    ) -> Result<Trial, LearnError> {
        self.sets.push(capabilities.to_lines());
        if let Some(line) =
            self.fails.iter().find(|line| capabilities.to_lines().iter().any(|own| own == **line))
        {
            return Ok(Trial::Refused(format!("grant: capability `{line}`: is not there")));
        }
        let mut record = Record::default();
        let (mut status, mut output) = (0, [0; 32]);
        for (index, (line, is_needed, looks)) in self.needs.iter().enumerate() {
            let capability: Capability = line.parse().unwrap();
            if capabilities.covers(&capability) {
                output[index] = 1;
                continue;
            }
            let proposal = if line.ends_with("/**") {
                Proposal::Directory { capability, because: "it is a directory" }
            } else {
                Proposal::Exact(capability)
            };
            let want = if *looks { Want::Look } else { Want::Read };
            let real = self.leads.get(line).map(|real| real.parse().unwrap());
            record.add(Found { proposal, want, real }, "openat", "sh");
            if *is_needed && !self.is_tolerant {
                status = 1;
                break;
            }
        }
        Ok(Trial::Ran(Ran { ending: Ending::Status(status), output, record }))
    }

    fn count(&self, _: &AbsolutePath) -> usize {
        self.counted.set(self.counted.get() + 1);
        7
    }
}

/// Answers by a table; what is not in it is denied.
struct Table(BTreeMap<&'static str, Answer>, Vec<String>);

impl Choices for Table {
    fn choose(&mut self, question: &Question<'_>) -> Result<Answer, LearnError> {
        let subject = question.need.proposal.subject();
        self.1.push(subject.clone());
        Ok(self.0.get(subject.as_str()).copied().unwrap_or(Answer::Deny))
    }
}

fn settings() -> Settings {
    Settings {
        rounds: 10,
        minimise: true,
        goal: Goal::Status,
        serves: false,
        deny: Vec::new(),
        keep: Vec::new(),
    }
}

fn learnt(fake: &mut Fake, settings: &Settings) -> Lesson {
    learn(&CapabilitySet::new(), settings, fake, &mut Unattended::Grant).unwrap()
}

fn lines(lesson: &Lesson) -> Vec<String> {
    lesson.capabilities.to_lines()
}

#[test]
fn what_is_missing_is_found_one_after_the_other() {
    let needs = vec![
        ("file_read: /srv/a", true, false),
        ("exec: /usr/bin/git", true, false),
        ("listen: 80", true, false),
    ];
    let mut fake = Fake { needs, ..Fake::default() };
    let lesson = learnt(&mut fake, &settings());
    assert_eq!(lines(&lesson), ["file_read: /srv/a", "exec: /usr/bin/git", "listen: 80"]);
    // Three that fail, one that passes, and one without each.
    assert_eq!((lesson.runs, lesson.passed, lesson.is_minimised), (7, true, true));
}

#[test]
fn what_is_not_needed_is_left_out() {
    let needs = vec![
        ("file_read: /srv/optional", false, false),
        ("file_read: /srv/a", true, false),
        ("file_read: /srv/late", false, false),
    ];
    let lesson = learnt(&mut Fake { needs: needs.clone(), ..Fake::default() }, &settings());
    assert_eq!(lines(&lesson), ["file_read: /srv/a"]);
    assert!(!lesson.learned[0].is_needed);
    assert_eq!(lesson.denied[0].why, "the run passes without");
    let keep = Settings { minimise: false, ..settings() };
    let lesson = learnt(&mut Fake { needs, ..Fake::default() }, &keep);
    assert_eq!(lines(&lesson), ["file_read: /srv/a", "file_read: /srv/optional"]);
}

#[test]
fn what_was_only_looked_at_comes_last() {
    let needs = vec![("file_read: /srv/look", false, true), ("file_read: /srv/a", true, false)];
    let mut fake = Fake { needs, ..Fake::default() };
    let lesson = learnt(&mut fake, &settings());
    assert_eq!(lines(&lesson), ["file_read: /srv/a"]);
    assert!(fake.sets.iter().all(|set| !set.contains(&"file_read: /srv/look".to_owned())));
    let needs = vec![("file_read: /srv/look", true, true)];
    assert_eq!(lines(&learnt(&mut Fake { needs, ..Fake::default() }, &settings())), ["file_read: /srv/look"]);
}

#[test]
fn secrets_and_directories_are_not_granted_unseen() {
    let needs = vec![
        ("file_read: /etc/shadow", false, false),
        ("file_read: /srv/**", false, false),
        ("file_read: /srv/a", true, false),
    ];
    let lesson = learnt(&mut Fake { needs, ..Fake::default() }, &settings());
    assert_eq!(lines(&lesson), ["file_read: /srv/a"]);
    assert!(lesson.denied[0].why.contains("looks like a secret"), "{:?}", lesson.denied);
    assert_eq!(
        (lesson.suggestions[0].capability.to_string().as_str(), lesson.suggestions[0].files),
        ("file_read: /srv/**", 7)
    );
}

/// Says yes to all that one answer may be for, as `a` does.
struct All(Vec<String>);

impl Choices for All {
    fn choose(&mut self, question: &Question<'_>) -> Result<Answer, LearnError> {
        let subject = question.need.proposal.subject();
        if !question.is_plain() {
            self.0.push(subject);
            return Ok(Answer::Deny);
        }
        Ok(Answer::Exact)
    }
}

#[test]
fn writing_and_links_to_what_needs_a_look_are_asked_about() {
    let needs = vec![
        ("file_write: /home/u/.bashrc", false, false),
        ("exec: /app/tool", false, false),
        ("exec: /app/other", false, false),
        ("file_read: /app/notes", false, false),
        ("file_read: /srv/a", true, false),
    ];
    let leads = [
        ("exec: /app/tool", "exec: /usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"),
        ("exec: /app/other", "exec: /usr/bin/git"),
        ("file_read: /app/notes", "file_read: /etc/shadow"),
    ];
    let fake = || Fake { needs: needs.clone(), leads: leads.into_iter().collect(), ..Fake::default() };
    let all_of_it = Settings { goal: Goal::SameOutput, ..settings() };
    let lesson = learnt(&mut fake(), &all_of_it);
    assert_eq!(lines(&lesson), ["file_read: /srv/a", "exec: /app/other"]);
    let denied: Vec<(String, &str)> =
        lesson.denied.iter().map(|denied| (denied.capability.to_string(), denied.why.as_str())).collect();
    for (capability, says) in [
        ("file_write: /home/u/.bashrc", "it writes a file"),
        ("exec: /app/tool", "it is the dynamic loader"),
        ("file_read: /app/notes", "it looks like a secret"),
    ] {
        assert!(
            denied.iter().any(|(one, why)| one == capability && why.contains(says)),
            "{capability}: {denied:?}"
        );
    }
    let mut all = All(Vec::new());
    let lesson = learn(&CapabilitySet::new(), &all_of_it, &mut fake(), &mut all).unwrap();
    assert_eq!(lines(&lesson), ["file_read: /srv/a", "exec: /app/other"]);
    assert_eq!(all.0, ["file_write: /home/u/.bashrc", "exec: /app/tool", "file_read: /app/notes"]);
    // Whoever means it says so beforehand.
    let start = CapabilitySet::parse(["file_write: /home/u/.bashrc"]).unwrap();
    let lesson = learn(&start, &settings(), &mut fake(), &mut Unattended::Grant).unwrap();
    assert!(lesson.passed && lines(&lesson).contains(&"file_write: /home/u/.bashrc".to_owned()));
    // What --deny names is denied by its link, too.
    let deny = Settings { deny: vec!["/usr/bin/**".parse().unwrap()], ..all_of_it };
    assert_eq!(lines(&learnt(&mut fake(), &deny)), ["file_read: /srv/a"]);
}

/// Whoever reads a file, and would write it, gets the reading.
#[test]
fn reading_does_not_wait_for_writing() {
    let needs = vec![("file_write: /srv/a", false, false), ("file_read: /srv/a", true, false)];
    let lesson = learnt(&mut Fake { needs: needs.clone(), ..Fake::default() }, &settings());
    assert_eq!((lines(&lesson), lesson.passed), (vec!["file_read: /srv/a".to_owned()], true));
    let mut table = Table([("file_write: /srv/a", Answer::Exact)].into_iter().collect(), Vec::new());
    let mut fake = Fake { needs, ..Fake::default() };
    let lesson = learn(&CapabilitySet::new(), &settings(), &mut fake, &mut table).unwrap();
    assert_eq!(
        (lines(&lesson), table.1),
        (vec!["file_write: /srv/a".to_owned()], vec!["file_write: /srv/a".to_owned()])
    );
}

#[test]
fn what_is_kept_is_not_written_whatever_is_answered() {
    let needs = vec![
        ("file_write: /src/agent/main.sh", false, false),
        ("file_write: /src/**", false, false),
        ("file_write: /src/agent/**", false, false),
        ("file_read: /src/agent/main.sh", true, false),
        ("file_write: /src/agents", true, false),
    ];
    let yes = needs
        .iter()
        .map(|(line, ..)| (*line, if line.ends_with("/**") { Answer::Wider } else { Answer::Exact }));
    let mut table = Table(yes.collect(), Vec::new());
    let keep = Settings { keep: vec!["/src/agent".into()], ..settings() };
    let mut fake = Fake { needs, ..Fake::default() };
    let lesson = learn(&CapabilitySet::new(), &keep, &mut fake, &mut table).unwrap();
    assert_eq!(lines(&lesson), ["file_read: /src/agent/main.sh", "file_write: /src/agents"]);
    assert_eq!(lesson.denied.iter().filter(|denied| denied.why.contains("/src/agent is kept")).count(), 3);
}

#[test]
fn directories_are_not_counted_for_ever() {
    let line = |number| &*Box::leak(format!("file_read: /srv/{number}/**").into_boxed_str());
    let needs = (0..300).map(|number| (line(number), false, false)).collect();
    let mut fake = Fake { needs, is_tolerant: true, ..Fake::default() };
    let lesson = learnt(&mut fake, &Settings { goal: Goal::SameOutput, ..settings() });
    assert_eq!((lesson.suggestions.len(), fake.counted.get()), (300, 200));
    assert_eq!(lesson.suggestions.iter().filter(|one| one.files == crate::COUNTED_MAX).count(), 100);
}

#[test]
fn ways_to_a_folder_are_no_suggestions() {
    let needs = vec![
        ("file_read: /srv/**", false, true),
        ("file_read: /home/**", false, true),
        ("file_read: /srv/www/**", true, false),
    ];
    let lesson = learnt(&mut Fake { needs, ..Fake::default() }, &settings());
    let told: Vec<String> = lesson.suggestions.iter().map(|one| one.capability.to_string()).collect();
    assert_eq!(told, ["file_read: /srv/www/**", "file_read: /home/**"]);
}

#[test]
fn answers_count_and_each_question_is_asked_once() {
    let needs = vec![
        ("file_read: /srv/a", true, false),
        ("file_read: /srv/b", true, false),
        ("file_read: /srv/no", false, false),
        ("file_write: /srv/out/**", true, false),
    ];
    let answers = [("file_read: /srv/a", Answer::Wider), ("file_write: /srv/out/**", Answer::Wider)];
    let mut table = Table(answers.into_iter().collect(), Vec::new());
    let mut fake = Fake { needs, ..Fake::default() };
    let lesson = learn(&CapabilitySet::new(), &settings(), &mut fake, &mut table).unwrap();
    assert_eq!(lines(&lesson), ["file_read: /srv/**", "file_write: /srv/out/**"]);
    assert_eq!(table.1, ["file_read: /srv/a", "file_write: /srv/out/**"]);
    assert_eq!(lesson.learned[0].files, Some(6));
}

#[test]
fn nothing_granted_is_one_run_and_no_pass() {
    let needs = vec![("file_read: /srv/a", true, false)];
    let mut fake = Fake { needs, ..Fake::default() };
    let lesson = learn(&CapabilitySet::new(), &settings(), &mut fake, &mut Unattended::Record).unwrap();
    assert_eq!((lesson.runs, lesson.passed, lines(&lesson).len()), (1, false, 0));
    assert_eq!(lesson.denied[0].capability.to_string(), "file_read: /srv/a");
}

#[test]
fn denied_and_refused_ones_are_told() {
    let needs = vec![
        ("file_read: /srv/private/a", false, false),
        ("file_write: /usr/x", false, false),
        ("file_read: /srv/gone", true, false),
    ];
    let deny = Settings { deny: vec!["/srv/private/**".parse().unwrap()], ..settings() };
    let mut fake = Fake {
        needs,
        refuses: vec!["file_write: /usr/x"],
        fails: vec!["file_read: /srv/gone"],
        ..Fake::default()
    };
    let lesson = learnt(&mut fake, &deny);
    assert!(!lesson.passed && lines(&lesson).is_empty());
    assert_eq!(lesson.denied[0].why, "--deny /srv/private/**");
    let refused: Vec<&str> = lesson.refused.iter().map(|refused| refused.what.as_str()).collect();
    assert_eq!(refused, ["file_write: /usr/x", "file_read: /srv/gone"]);
    assert_eq!(lesson.refused[1].why, "is not there");
    // What the launcher refused is not asked about again, and nothing loops.
    assert!(lesson.runs <= 4, "{}", lesson.runs);
    // One that was not learnt is an error of its own.
    let start = CapabilitySet::parse(["file_read: /srv/gone"]).unwrap();
    let mut fake = Fake { fails: vec!["file_read: /srv/gone"], ..Fake::default() };
    let error = learn(&start, &settings(), &mut fake, &mut Unattended::Grant).unwrap_err();
    assert!(matches!(error, LearnError::Confinement(_)), "{error}");
}

#[test]
fn the_same_output_is_a_stricter_goal() {
    let needs = vec![("file_read: /srv/a", true, false), ("file_read: /srv/b", true, false)];
    let tolerant = Fake { needs, is_tolerant: true, ..Fake::default() };
    let lesson = learnt(
        &mut Fake { needs: tolerant.needs.clone(), is_tolerant: true, ..Fake::default() },
        &settings(),
    );
    assert!(lesson.passed && lines(&lesson).is_empty());
    let strict = Settings { goal: Goal::SameOutput, ..settings() };
    let mut tolerant = tolerant;
    let lesson = learnt(&mut tolerant, &strict);
    assert_eq!(lines(&lesson), ["file_read: /srv/a", "file_read: /srv/b"]);
}

#[test]
fn rounds_end() {
    let needs = vec![("file_read: /srv/a", true, false), ("file_read: /srv/b", true, false)];
    let two = Settings { rounds: 2, ..settings() };
    let lesson = learnt(&mut Fake { needs, ..Fake::default() }, &two);
    assert!(lesson.is_exhausted && !lesson.passed && lesson.runs == 2);
}

#[test]
fn what_was_there_before_stays() {
    let start = CapabilitySet::parse([
        "file_read: /srv/unused/**",
        "net: a.example:443",
        "exec: /usr/bin/sort [approval=once]",
    ])
    .unwrap();
    let needs = vec![("exec: /usr/bin/git", true, false), ("exec: /usr/bin/sort", true, false)];
    let mut fake = Fake { needs, ..Fake::default() };
    let lesson = learn(&start, &settings(), &mut fake, &mut Unattended::Grant).unwrap();
    let expected = [
        "file_read: /srv/unused/**",
        "exec: /usr/bin/git",
        "exec: /usr/bin/sort [approval=once]",
        "net: a.example:443",
    ];
    assert_eq!(lines(&lesson), expected);
    assert!(fake.sets.iter().flatten().all(|line| !line.starts_with("net") && !line.ends_with(']')));
}

#[test]
fn a_crowd_is_a_suggestion() {
    let names = [
        "file_read: /srv/d/1",
        "file_read: /srv/d/2",
        "file_read: /srv/d/3",
        "file_read: /srv/d/4",
        "file_read: /srv/d/5",
    ];
    let needs = names.iter().map(|name| (*name, true, false)).collect();
    let lesson = learnt(&mut Fake { needs, ..Fake::default() }, &settings());
    assert_eq!(lines(&lesson), names);
    assert_eq!(lesson.suggestions[0].capability.to_string(), "file_read: /srv/d/**");
    assert_eq!(lesson.suggestions[0].files, 2);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// Without a person, what is learnt is something that was asked for, exactly, is no folder and
    /// looks like no secret; and a list that is learnt passes.
    #[test]
    fn nothing_is_learnt_that_was_not_asked_for(
        chosen in prop::collection::btree_set((0..POOL.len(), any::<bool>(), any::<bool>()), 0..8),
        goal in prop_oneof![Just(Goal::Status), Just(Goal::SameOutput)],
    ) {
        let needs: Vec<_> = chosen.iter().map(|(index, needed, looks)| (POOL[*index], *needed, *looks)).collect();
        let mut fake = Fake { needs: needs.clone(), ..Fake::default() };
        let lesson = learnt(&mut fake, &Settings { goal, ..settings() });
        for line in lines(&lesson) {
            prop_assert!(needs.iter().any(|(asked, ..)| *asked == line), "{line}");
            prop_assert!(!line.ends_with("/**") && !line.contains("shadow") && !line.contains(".ssh"));
            prop_assert!(!line.starts_with("file_write"), "{line}");
        }
        if lesson.passed {
            let Trial::Ran(ran) = fake.run(&lesson.capabilities, Purpose::Round(1), None).unwrap() else { panic!() };
            prop_assert_eq!(ran.ending, Ending::Status(0));
        }
    }
}

const POOL: [&str; 7] = [
    "file_read: /srv/a",
    "file_write: /srv/a",
    "exec: /usr/bin/git",
    "file_read: /etc/shadow",
    "file_read: /home/u/.ssh/id",
    "file_write: /srv/out/**",
    "listen: 80",
];
