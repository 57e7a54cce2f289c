//! The algebra's properties, over random capabilities, sets, accesses and circumstances of every kind.
//!
//! The alphabets are small, so that what is generated often meets.

use super::*;
use crate::quantity::{ByteSize, CallCount};
use crate::time::UtcTime;
use proptest::prelude::*;

/// Lines of rights of one kind; files, which cover each other, are one kind.
fn right_lines(kind: usize) -> BoxedStrategy<String> {
    let path = "(/(a|b|\\*|a\\*)){1,3}(/\\*\\*)?";
    match kind {
        0 => ("(read|write)", path).prop_map(|(word, path)| format!("file_{word}: {path}")).boxed(),
        1 => path.prop_map(|path| format!("exec: {path}")).boxed(),
        2 => "net: ((\\*\\.)?(a\\.)?(a|b)\\.org|10\\.0\\.0\\.[12]|\\[::[12]\\]):[12]".boxed(),
        3 => "listen: [12]".boxed(),
        4 => "inference: [ab]".boxed(),
        5 => "tool: [ab*](\\.[ab*]){0,2}".boxed(),
        6 => "memory: (read|write)".boxed(),
        7 => "message: [ab*]".boxed(),
        8 => "spawn: [ab*]".boxed(),
        9 => "skill: [ab*]".boxed(),
        10 => "secret: [ab]@[ab]\\.org".boxed(),
        _ => "device: [ab]".boxed(),
    }
}

/// How many kinds [`right_lines`] has.
const KINDS: usize = 12;

fn approvals() -> impl Strategy<Value = Approval> {
    prop::sample::select(Approval::ALL)
}

fn times() -> impl Strategy<Value = UtcTime> {
    (0..4_u64).prop_map(|seconds| UtcTime::from_epoch_seconds(seconds).unwrap())
}

fn qualifiers() -> impl Strategy<Value = Qualifiers> {
    let calls = (1..4_u32).prop_map(|count| CallCount::new(count).unwrap());
    let bytes = (1..4_u64).prop_map(|bytes| ByteSize::from_bytes(bytes * 512).unwrap());
    (
        prop::option::weighted(0.4, approvals()),
        prop::option::weighted(0.4, calls),
        prop::option::weighted(0.4, bytes),
        prop::option::weighted(0.4, times()),
    )
        .prop_map(|(approval, max_calls, max_bytes, expires)| Qualifiers {
            approval,
            max_calls,
            max_bytes,
            expires,
        })
}

fn capability(kind: usize) -> impl Strategy<Value = Capability> {
    (right_lines(kind), qualifiers()).prop_map(|(line, qualifiers)| {
        Capability::new(line.parse::<Capability>().unwrap().right().clone(), qualifiers)
    })
}

fn capabilities() -> impl Strategy<Value = Capability> {
    (0..KINDS).prop_flat_map(capability)
}

/// Three of one kind, so that they often cover each other.
fn threes() -> impl Strategy<Value = [Capability; 3]> {
    (0..KINDS).prop_flat_map(|kind| [capability(kind), capability(kind), capability(kind)])
}

/// Up to five members; of two with one right the first stays.
fn sets() -> impl Strategy<Value = CapabilitySet> {
    prop::collection::vec(capabilities(), 0..5).prop_map(|members| {
        let mut set = CapabilitySet::new();
        for member in members {
            if set.get(member.right()).is_none() {
                set.insert(member).unwrap();
            }
        }
        set
    })
}

/// A set that narrows another: members of it, each made narrower or left as it is.
fn narrowed(parent: &CapabilitySet, choices: &[(bool, Qualifiers)]) -> CapabilitySet {
    let mut child = CapabilitySet::new();
    for (mine, (keep, more)) in parent.iter().zip(choices) {
        let stricter = Capability::new(mine.right().clone(), *more);
        let taken = if stricter.is_subset(mine) { stricter } else { mine.clone() };
        if *keep {
            child.insert(taken).unwrap();
        }
    }
    child
}

fn accesses() -> impl Strategy<Value = Access> {
    let path = || "(/(a|b|ab)){1,4}".prop_map(|text| text.parse().unwrap());
    let host = || "(a\\.|b\\.)?(a\\.)?(a|b)\\.org".prop_map(|text| text.parse::<HostName>().unwrap());
    let name = || prop::sample::select(vec!["a", "b"]);
    let address = "(10\\.0\\.0\\.[12]|::[12])".prop_map(|text| text.parse().unwrap());
    prop_oneof![
        path().prop_map(Access::FileRead),
        path().prop_map(Access::FileWrite),
        path().prop_map(Access::Exec),
        (host(), 1..4_u16).prop_map(|(host, port)| Access::Net(host, port)),
        (address, 1..3_u16).prop_map(|(address, port)| Access::NetAddress(address, port)),
        (1..4_u16).prop_map(Access::Listen),
        name().prop_map(|name| Access::Inference(name.parse().unwrap())),
        "(a|b)(\\.(a|b)){0,2}".prop_map(|name| Access::Tool(name.parse().unwrap())),
        prop::sample::select(MemoryUse::ALL).prop_map(Access::Memory),
        name().prop_map(|name| Access::Message(name.parse().unwrap())),
        name().prop_map(|name| Access::Spawn(name.parse().unwrap())),
        name().prop_map(|name| Access::Skill(name.parse().unwrap())),
        (name(), host()).prop_map(|(name, host)| Access::Secret(name.parse().unwrap(), host)),
        name().prop_map(|name| Access::Device(name.parse().unwrap())),
    ]
}

/// Approvals, calls before, bytes after and the time.
type Facts = (Vec<Approval>, u64, u64, UtcTime);

fn facts() -> impl Strategy<Value = Facts> {
    (prop::collection::vec(approvals(), 0..3), 0..4_u64, (0..4_u64).prop_map(|n| n * 512), times())
}

fn circumstances((approvals, calls_before, bytes_after, now): &Facts) -> Circumstances<'_> {
    Circumstances { approvals, calls_before: *calls_before, bytes_after: *bytes_after, now: *now }
}

/// An access that a right names, when it names one: its stars and depths filled with `fill`.
fn member(right: &Right, fill: &str) -> Access {
    let path = |pattern: &PathPattern| {
        let deep = pattern.as_str().replace("/**", &format!("/{fill}/{fill}"));
        deep.replace('*', fill).parse().unwrap()
    };
    let one = |text: &str| text.replace('*', fill);
    match right {
        Right::FileRead(pattern) => Access::FileRead(path(pattern)),
        Right::FileWrite(pattern) => Access::FileWrite(path(pattern)),
        Right::Exec(pattern) => Access::Exec(path(pattern)),
        Right::Net(host, port) => Access::Net(one(&host.to_string()).parse().unwrap(), *port),
        Right::NetAddress(address, port) => Access::NetAddress(*address, *port),
        Right::Listen(port) => Access::Listen(*port),
        Right::Inference(alias) => Access::Inference(alias.clone()),
        Right::Tool(pattern) => Access::Tool(one(pattern.as_str()).parse().unwrap()),
        Right::Memory(word) => Access::Memory(*word),
        Right::Message(agents) => Access::Message(one(&agents.to_string()).parse().unwrap()),
        Right::Spawn(packages) => Access::Spawn(one(&packages.to_string()).parse().unwrap()),
        Right::Skill(skills) => Access::Skill(one(&skills.to_string()).parse().unwrap()),
        Right::Secret(secret, host) => Access::Secret(secret.clone(), host.clone()),
        Right::Device(device) => Access::Device(device.clone()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn narrowing_only_narrows(parent in sets(), child in sets(), access in accesses(), facts in facts()) {
        if let Ok(narrowed) = parent.narrow(child) {
            prop_assert!(!narrowed.permits(&access) || parent.permits(&access));
            let now = circumstances(&facts);
            prop_assert!(!narrowed.permits_under(&access, &now) || parent.permits_under(&access, &now));
        }
    }

    /// The same where most children are narrower, and asked for what they name.
    #[test]
    fn a_narrower_child_permits_nothing_more(
        parent in sets(), choices in prop::collection::vec((any::<bool>(), qualifiers()), 5),
        fill in "(a|b|z)", facts in facts(),
    ) {
        let child = narrowed(&parent, &choices);
        prop_assert!(child.is_subset(&parent));
        let child = parent.narrow(child).unwrap();
        let now = circumstances(&facts);
        for capability in &child {
            let access = member(capability.right(), &fill);
            prop_assert!(capability.permits(&access), "{capability} {access:?}");
            prop_assert!(!child.permits_under(&access, &now) || parent.permits_under(&access, &now));
        }
    }

    #[test]
    fn what_is_covered_is_permitted([wide, narrow, _] in threes(), fill in "(a|b|z)", facts in facts()) {
        let access = member(narrow.right(), &fill);
        let now = circumstances(&facts);
        if wide.covers(&narrow) {
            prop_assert!(wide.permits(&access), "{wide} covers {narrow}: {access:?}");
            prop_assert!(!narrow.permits_under(&access, &now) || wide.permits_under(&access, &now));
        } else if fill == "z" && narrow.qualifiers().is_subset(wide.qualifiers()) {
            // `z` is in no name, so that what is filled with it speaks for all that a star means: a right
            // that is not covered has an access that the other does not name.
            prop_assert!(!wide.permits(&access) || !wide.permits(&member_itself(narrow.right())), "{wide} {narrow}");
        }
    }

    #[test]
    fn coverage_is_a_partial_order([a, b, c] in threes()) {
        prop_assert!(a.is_subset(&a));
        prop_assert!(!(a.is_subset(&b) && b.is_subset(&a)) || a == b);
        prop_assert!(!(a.is_subset(&b) && b.is_subset(&c)) || a.is_subset(&c));
    }

    /// Rights alone meet more often than with random qualifiers.
    #[test]
    fn coverage_of_rights_is_a_partial_order([a, b, c] in threes()) {
        let (a, b, c) = (a.right(), b.right(), c.right());
        prop_assert!(a.covers(a));
        prop_assert!(!(a.covers(b) && b.covers(a)) || a == b);
        prop_assert!(!(a.covers(b) && b.covers(c)) || a.covers(c));
    }

    #[test]
    fn qualifiers_are_a_partial_order(a in qualifiers(), b in qualifiers(), c in qualifiers()) {
        prop_assert!(a.is_subset(&a) && a.is_subset(&Qualifiers::default()));
        prop_assert!(!(a.is_subset(&b) && b.is_subset(&a)) || a == b);
        prop_assert!(!(a.is_subset(&b) && b.is_subset(&c)) || a.is_subset(&c));
    }

    #[test]
    fn qualifiers_allow_what_stricter_ones_do(a in qualifiers(), b in qualifiers(), facts in facts()) {
        let now = circumstances(&facts);
        prop_assert!(!a.is_subset(&b) || a.check(&now).is_err() || b.check(&now).is_ok());
    }

    #[test]
    fn sets_are_preordered(a in sets(), choices in prop::collection::vec((any::<bool>(), qualifiers()), 10)) {
        let (first, second) = choices.split_at(5);
        let b = narrowed(&a, first);
        let c = narrowed(&b, second);
        prop_assert!(a.is_subset(&a) && CapabilitySet::new().is_subset(&a));
        prop_assert!(b.is_subset(&a) && c.is_subset(&b) && c.is_subset(&a));
    }

    #[test]
    fn text_and_json_round_trip(set in sets()) {
        let lines = set.to_lines();
        prop_assert_eq!(CapabilitySet::parse(lines.iter().map(String::as_str)).unwrap(), set.clone());
        let json = serde_json::to_string(&set).unwrap();
        prop_assert_eq!(serde_json::from_str::<CapabilitySet>(&json).unwrap(), set);
    }

    /// Whatever parses prints to a text that parses to the same, and prints the same again.
    #[test]
    fn printing_is_canonical(
        name in "(file_read|exec|net|tool|secret|message|memory)", space in " {0,2}",
        value in "[ab*./:@1\\[\\], ]{1,12}", end in "( ?\\[ ?(max_calls|max_bytes|approval|expires)=(1|1024|once|1970-01-01T00:00:00Z) ?(, max_calls=2)?\\])?",
    ) {
        if let Ok(parsed) = format!("{name}:{space}{value}{end}").parse::<Capability>() {
            let printed = parsed.to_string();
            prop_assert_eq!(&printed.parse::<Capability>().unwrap(), &parsed);
            prop_assert_eq!(printed.parse::<Capability>().unwrap().to_string(), printed);
        }
    }

    /// A dot or an empty segment anywhere is refused, so that no path means another than it says.
    #[test]
    fn no_path_means_another(before in "(/(a|\\*)){0,2}", dots in "(\\.|\\.\\.|)", after in "(/(a|\\*\\*)){0,2}", end in "( \\[max_calls=1\\])?") {
        let line = format!("file_write: {before}/{dots}{after}{end}");
        let whole = before.is_empty() && dots.is_empty() && after.is_empty();
        prop_assert_eq!(line.parse::<Capability>().is_ok(), whole, "{}", line);
    }

    /// Nothing below a directory reaches what lies beside it.
    #[test]
    fn a_subtree_holds_its_own(top in "/[ab]{1,3}", below in "(/[ab.*]{1,3}){0,3}(/\\*\\*)?", access in "(/[ab]{1,3}){1,4}") {
        let tree: Capability = format!("file_read: {top}/**").parse().unwrap();
        let path: crate::path::AbsolutePath = access.parse().unwrap();
        if let Ok(inner) = format!("file_read: {top}{below}").parse::<Capability>() {
            prop_assert!(tree.covers(&inner));
            let inside = path.is_within(&top.parse().unwrap());
            prop_assert!(inside || !inner.permits(&Access::FileRead(path)));
        }
    }

    #[test]
    fn no_text_panics(text in ".{0,60}", name in "(net|tool|secret|exec)") {
        for line in [text.clone(), format!("{name}: {text}"), format!("{name}: a [{text}]")] {
            if let Ok(capability) = line.parse::<Capability>() {
                prop_assert!(!capability.to_string().contains(char::is_control));
            }
        }
    }
}

/// The shallowest access that a right names: a subtree's own top.
fn member_itself(right: &Right) -> Access {
    let top = |pattern: &PathPattern| {
        let text = pattern.as_str().strip_suffix("/**").unwrap_or(pattern.as_str());
        (if text.is_empty() { "/" } else { text }).replace('*', "z").parse().unwrap()
    };
    match right {
        Right::FileRead(pattern) => Access::FileRead(top(pattern)),
        Right::FileWrite(pattern) => Access::FileWrite(top(pattern)),
        Right::Exec(pattern) => Access::Exec(top(pattern)),
        other => member(other, "z"),
    }
}

/// What is generated is of every name, and of random pairs enough cover each other for the properties above
/// to say something.
#[test]
fn the_generators_meet() {
    use proptest::strategy::ValueTree as _;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut names = std::collections::BTreeSet::new();
    let (mut covered, mut strictly) = (0, 0);
    for _ in 0..4_000 {
        let [a, b, _] = threes().new_tree(&mut runner).unwrap().current();
        names.insert(a.name());
        covered += usize::from(a.covers(&b));
        strictly += usize::from(a.covers(&b) && a.right() != b.right());
    }
    assert_eq!(names.len(), KNOWN.len());
    assert!(covered > 300 && strictly > 30, "{covered} {strictly}");
}
