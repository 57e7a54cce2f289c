//! The policy: decisions, refusals that say what to do, errors with their place, and that a rule
//! changes nothing for names that it does not match.

use super::*;
use crate::key::PrivateKey;
use crate::signature::sign_package;
use proptest::prelude::*;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::LazyLock;
use tempfile::TempDir;

/// Four keys that all tests share.
static KEYS: LazyLock<Vec<PrivateKey>> =
    LazyLock::new(|| (0..4).map(|_| PrivateKey::generate().unwrap()).collect());

fn id(key: usize) -> KeyId {
    KEYS[key].public().id()
}

fn digest(byte: u8) -> Digest {
    Digest::from_bytes([byte; 32])
}

fn package(name: &str) -> Package {
    let version = "1.0.0".parse().unwrap();
    Package { name: name.parse().unwrap(), version, repository: None, manifest: digest(1) }
}

fn signed(name: &str, keys: &[usize]) -> Vec<Envelope> {
    let version = "1.0.0".parse().unwrap();
    keys.iter()
        .map(|key| sign_package(&name.parse().unwrap(), &version, digest(1), &KEYS[*key]).unwrap())
        .collect()
}

/// A directory with these files, which only its owner can write.
fn directory(files: &[(&str, &str)]) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = directory.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    }
    directory
}

/// The policy of one file, with the four keys beside it as `0.pub` to `3.pub`.
fn policy(text: &str) -> Result<Policy, PolicyError> {
    let pems: Vec<String> = KEYS.iter().map(|key| key.public().to_pem().unwrap()).collect();
    let directory = directory(&[
        ("a.toml", text),
        ("0.pub", &pems[0]),
        ("1.pub", &pems[1]),
        ("2.pub", &pems[2]),
        ("3.pub", &pems[3]),
    ]);
    Policy::load(&[directory.path()])
}

fn refused(policy: &Policy, package: &Package, envelopes: &[Envelope]) -> String {
    policy.decide(package, envelopes).unwrap_err().to_string()
}

#[test]
fn nothing_is_trusted_without_a_rule() {
    for policy in [Policy::load(&["/nonexistent"]).unwrap(), policy("").unwrap()] {
        assert!(policy.is_empty());
        let text = refused(&policy, &package("web"), &signed("web", &[0]));
        assert!(text.contains("no rule of the trust policy is about this name"), "{text}");
        assert!(text.contains(&id(0).to_string()), "{text}");
        assert!(text.contains("names = [\"web\"]"), "{text}");
    }
}

#[test]
fn a_rule_is_content_with_its_keys_only() {
    let policy = policy("[[allow]]\nnames = [\"acme-*\"]\nkeys = [\"0.pub\"]").unwrap();
    let trusted = policy.decide(&package("acme-web"), &signed("acme-web", &[1, 0])).unwrap();
    assert_eq!(trusted.keys, [id(0)]);
    assert_eq!(trusted.rule.line, 1);
    let text = refused(&policy, &package("acme-web"), &signed("acme-web", &[1]));
    assert!(text.contains("no key that may sign this name") && text.contains(&id(1).to_string()), "{text}");
    let text = refused(&policy, &package("acme-web"), &[]);
    assert!(text.contains("it is not signed"), "{text}");
    assert!(policy.decide(&package("other"), &signed("other", &[0])).is_err());
}

#[test]
fn a_signature_is_for_one_package() {
    let policy = policy("[[allow]]\nnames = [\"*\"]\nkeys = [\"0.pub\"]").unwrap();
    let text = refused(&policy, &package("web"), &signed("other", &[0]));
    assert!(text.contains("has signed \"other:1.0.0\" instead"), "{text}");
    let mut changed = package("web");
    changed.manifest = digest(2);
    let text = refused(&policy, &changed, &signed("web", &[0]));
    assert!(text.contains("other bytes of that name, sha256:0101"), "{text}");
    let mut newer = package("web");
    newer.version = "1.0.1".parse().unwrap();
    assert!(policy.decide(&newer, &signed("web", &[0])).is_err());
}

#[test]
fn another_predicate_or_payload_type_signs_nothing() {
    let policy = policy("[[allow]]\nnames = [\"*\"]\nkeys = [\"0.pub\"]").unwrap();
    let web = package("web");
    let subject = signature::subject(&web.name, &web.version, web.manifest);
    let sbom = Statement::about(subject, crate::statement::SPDX_PREDICATE, &0).unwrap();
    let sbom = signature::sign_statement(&sbom, &KEYS[0]).unwrap();
    assert!(policy.decide(&web, &[sbom]).is_err());
    // The same bytes under another type, truly signed.
    let right = &signed("web", &[0])[0];
    let payload = right.unverified_payload().to_vec();
    let other = Envelope::sign("application/json", payload, &KEYS[0]).unwrap();
    assert!(policy.decide(&web, std::slice::from_ref(&other)).is_err());
    // A bad envelope does not keep a good one from counting.
    policy.decide(&web, &[other, right.clone()]).unwrap();
}

#[test]
fn a_threshold_counts_keys() {
    let policy =
        policy("[[allow]]\nnames = [\"web\"]\nkeys = [\"0.pub\", \"1.pub\", \"2.pub\"]\nthreshold = 2")
            .unwrap();
    let text = refused(&policy, &package("web"), &signed("web", &[0, 0, 3]));
    assert!(text.contains("1 of 2 needed keys"), "{text}");
    assert_eq!(policy.decide(&package("web"), &signed("web", &[2, 0])).unwrap().keys.len(), 2);
    // Both in one envelope.
    let mut both = signed("web", &[1]).remove(0);
    both.add_signature(&KEYS[2]).unwrap();
    policy.decide(&package("web"), &[both]).unwrap();
}

#[test]
fn a_threshold_is_not_met_by_two_rules_together() {
    let text = "[[allow]]\nnames=[\"web\"]\nkeys=[\"0.pub\",\"1.pub\"]\nthreshold=2\n\
                [[allow]]\nnames=[\"web\"]\nkeys=[\"2.pub\",\"3.pub\"]\nthreshold=2\n";
    let policy = policy(text).unwrap();
    assert!(policy.decide(&package("web"), &signed("web", &[0, 2])).is_err());
    policy.decide(&package("web"), &signed("web", &[2, 3])).unwrap();
}

#[test]
fn unsigned_is_explicit() {
    let policy = policy("[[allow]]\nnames = [\"demo\"]\nunsigned = true").unwrap();
    assert_eq!(policy.decide(&package("demo"), &[]).unwrap().keys, []);
    assert!(policy.decide(&package("demo2"), &[]).is_err());
}

#[test]
fn a_repository_is_matched_only_when_it_is_known() {
    let policy =
        policy("[[allow]]\nnames=[\"*\"]\nrepositories=[\"reg.example/acme/*\"]\nkeys=[\"0.pub\"]").unwrap();
    let mut web = package("web");
    let envelopes = signed("web", &[0]);
    assert!(policy.decide(&web, &envelopes).is_err());
    web.repository = Some("reg.example/acme/web".to_owned());
    policy.decide(&web, &envelopes).unwrap();
    web.repository = Some("reg.example/evil/web\u{202e}".to_owned());
    let text = refused(&policy, &web, &envelopes);
    assert!(text.contains("from \"reg.example/evil/web\\u{202e}\""), "{text}");
}

#[test]
fn a_revoked_key_is_good_for_nothing() {
    let text = format!(
        "[[allow]]\nnames=[\"web\"]\nkeys=[\"0.pub\",\"1.pub\"]\n\
         [[allow]]\nnames=[\"one\"]\nunsigned=true\n\
         [[revoke]]\nkeys=[\"{}\"]\nreason=\"lost\"",
        id(0)
    );
    let policy = policy(&text).unwrap();
    let text = refused(&policy, &package("web"), &signed("web", &[0]));
    assert!(text.contains(&format!("its key {} is revoked", id(0))), "{text}");
    assert_eq!(policy.decide(&package("web"), &signed("web", &[0, 1])).unwrap().keys, [id(1)]);
    assert!(policy.keys().all(|key| key.id() != id(0)));
}

#[test]
fn a_key_is_named_in_three_ways() {
    let pem = KEYS[0].public().to_pem().unwrap();
    for named in [format!("'''\n{pem}'''"), format!("\"{}\"", id(0)), format!("\"sha256:{}\"", id(0))] {
        let policy = policy(&format!("[[allow]]\nnames=[\"web\"]\nkeys=[{named}]")).unwrap();
        policy.decide(&package("web"), &signed("web", &[0])).unwrap();
    }
    // Across files and directories, with an absolute path.
    let one = directory(&[("a.toml", &format!("[[allow]]\nnames=[\"web\"]\nkeys=[\"{}\"]", id(0)))]);
    let two = directory(&[("k.pub", &pem)]);
    assert!(Policy::load(&[one.path()]).is_err());
    let policy = Policy::load(&[one.path(), two.path()]).unwrap();
    policy.decide(&package("web"), &signed("web", &[0])).unwrap();
    let absolute = format!("[[allow]]\nnames=[\"web\"]\nkeys=[{:?}]", two.path().join("k.pub"));
    Policy::load(&[directory(&[("a.toml", &absolute)]).path()]).unwrap();
}

#[test]
fn errors_name_the_file_and_the_line() {
    let zeros = "0".repeat(64);
    for (text, line, says) in [
        ("[[allow]]\nname = [\"web\"]", 2, "unknown field `name`"),
        ("[[allow]]\nnames = \"web\"", 2, "invalid type"),
        ("\n[[allow]]\nkeys = [\"0.pub\"]", 2, "missing field `names`"),
        ("[allow]\n", 1, "invalid type"),
        ("x = 1", 1, "unknown field `x`"),
        ("allow = [[[\"web\"], [], [], 1, true]]", 1, "invalid type: sequence"),
        ("[[allow]]\nnames = [\n  \"web\",\n  \"A*\",\n]\nunsigned = true", 4, "has 'A'"),
        ("[[allow]]\nnames = []\nunsigned = true", 2, "`names` is empty"),
        ("[[allow]]\nnames = [\"web\"]\nkeys = []", 3, "`keys` is empty"),
        ("[[allow]]\nnames = [\"web\"]\nrepositories = []\nunsigned = true", 3, "`repositories` is empty"),
        ("[[allow]]\nnames = [\"web\"]", 1, "either `keys` or `unsigned = true`"),
        ("[[allow]]\nnames = [\"web\"]\nunsigned = false", 1, "either `keys` or `unsigned = true`"),
        ("[[allow]]\nnames = [\"web\"]\nunsigned = true\nkeys = [\"0.pub\"]", 1, "either `keys`"),
        ("[[allow]]\nnames = [\"web\"]\nunsigned = true\nthreshold = 1", 1, "either `keys`"),
        ("[[allow]]\nnames = [\"web\"]\nkeys = [\"0.pub\"]\nthreshold = 0", 1, "the threshold is 0"),
        (
            "[[allow]]\nnames = [\"web\"]\nkeys = [\"0.pub\", \"0.pub\"]\nthreshold = 2",
            1,
            "has 1 different keys",
        ),
        ("[[allow]]\nnames = [\"web\"]\nkeys = [\"0.pub\"]\nthreshold = -1", 4, "invalid value"),
        ("[[allow]]\nnames = [\"web\"]\nkeys = [\"9.pub\"]", 3, "9.pub: No such file"),
        ("[[allow]]\nnames = [\"web\"]\nkeys = [\"a.toml\"]", 3, "is not usable: the text is not an Ed25519"),
        ("[[allow]]\nnames = [\"web\"]\nkeys = [\"-----BEGIN PUBLIC KEY-----\"]", 3, "it is no PEM text"),
        (&format!("[[allow]]\nnames = [\"web\"]\nkeys = [\"{zeros}\"]"), 3, "there is no key 0000"),
        ("[[revoke]]\nkeys = [\"nothing\"]", 2, "nothing: No such file"),
        ("[[revoke]]\nkey = [\"nothing\"]", 2, "unknown field `key`"),
    ] {
        let error = policy(text).unwrap_err().to_string();
        assert!(error.contains(&format!("/a.toml:{line}: ")) && error.contains(says), "{text}\n{error}");
    }
    let bad = directory(&[("a.toml", "")]);
    fs::write(bad.path().join("a.toml"), b"[[allow]]\n\xff").unwrap();
    let error = Policy::load(&[bad.path()]).unwrap_err().to_string();
    assert!(error.ends_with("a.toml:2: the text is not UTF-8"), "{error}");
}

#[test]
fn one_bad_file_refuses_everything() {
    let pem = KEYS[0].public().to_pem().unwrap();
    let files =
        [("a.toml", "[[allow]]\nnames=[\"*\"]\nkeys=[\"k.pub\"]"), ("k.pub", pem.as_str()), ("z.toml", "")];
    let directory = directory(&files);
    let decide = || decide(&[directory.path()], &package("web"), &signed("web", &[0]));
    decide().unwrap();
    let bad = directory.path().join("z.toml");
    fs::write(&bad, "oops").unwrap();
    let text = decide().unwrap_err().to_string();
    assert!(text.contains("the trust policy cannot be read") && text.contains("z.toml:1:"), "{text}");
    fs::write(&bad, "").unwrap();
    decide().unwrap();

    for (mode, path) in [(0o646, &bad), (0o664, &bad), (0o666, &directory.path().join("k.pub"))] {
        let before = path.metadata().unwrap().permissions();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        let text = decide().unwrap_err().to_string();
        assert!(text.contains("its group or others may write it"), "{text}");
        fs::set_permissions(path, before).unwrap();
    }
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).unwrap();
    assert!(decide().unwrap_err().to_string().contains("may write"));
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    decide().unwrap();

    fs::remove_file(&bad).unwrap();
    fs::create_dir(&bad).unwrap();
    assert!(decide().unwrap_err().to_string().contains("is not a regular file"));
    fs::remove_dir(&bad).unwrap();
    std::os::unix::fs::symlink("/nonexistent", &bad).unwrap();
    assert!(decide().unwrap_err().to_string().contains("No such file"));
    fs::remove_file(&bad).unwrap();
    fs::write(&bad, " ".repeat(FILE_MAX + 1)).unwrap();
    assert!(decide().unwrap_err().to_string().contains("more than"));
}

#[test]
fn a_change_counts_at_once() {
    let pem = KEYS[0].public().to_pem().unwrap();
    let directory = directory(&[("k.pub", pem.as_str())]);
    let decide = || decide(&[directory.path()], &package("web"), &signed("web", &[0]));
    decide().unwrap_err();
    let rule = directory.path().join("a.toml");
    fs::write(&rule, "[[allow]]\nnames=[\"web\"]\nkeys=[\"k.pub\"]").unwrap();
    decide().unwrap();
    fs::remove_file(&rule).unwrap();
    decide().unwrap_err();
}

#[test]
fn too_many_envelopes_are_not_tried() {
    let policy = policy("[[allow]]\nnames = [\"*\"]\nkeys = [\"0.pub\"]").unwrap();
    let envelopes = vec![signed("web", &[0]).remove(0); ENVELOPES_MAX + 1];
    assert!(refused(&policy, &package("web"), &envelopes).contains("65 signature envelopes"));
}

#[derive(Debug, Clone)]
struct AnyRule {
    names: Vec<&'static str>,
    /// Empty: unsigned.
    keys: BTreeSet<usize>,
    threshold: usize,
}

const GLOBS: [&str; 6] = ["*", "a*", "a-web", "b-*", "*web", "c"];
const NAMES: [&str; 4] = ["a-web", "b-web", "b-x", "c"];

fn any_rule() -> impl Strategy<Value = AnyRule> {
    let names = proptest::sample::subsequence(GLOBS.to_vec(), 1..3);
    let keys = proptest::sample::subsequence(vec![0_usize, 1, 2, 3], 0..=4);
    (names, keys, 1..=4_usize).prop_map(|(names, keys, threshold)| {
        let threshold = threshold.min(keys.len().max(1));
        AnyRule { names, keys: keys.into_iter().collect(), threshold }
    })
}

fn toml(rules: &[AnyRule]) -> String {
    let rule = |rule: &AnyRule| {
        let keys: Vec<String> = rule.keys.iter().map(|key| format!("{key}.pub")).collect();
        let demand = if keys.is_empty() {
            "unsigned = true".to_owned()
        } else {
            format!("keys = {keys:?}\nthreshold = {}", rule.threshold)
        };
        format!("[[allow]]\nnames = {:?}\n{demand}\n", rule.names)
    };
    rules.iter().map(rule).collect()
}

fn matches(rule: &AnyRule, name: &str) -> bool {
    rule.names.iter().any(|glob| glob::NameGlob::parse(glob).unwrap().matches(&name.parse().unwrap()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// The decision is: some rule that matches the name has its threshold met by its own keys. So a
    /// rule for other names changes nothing, and no rule takes away what another gives.
    #[test]
    fn a_package_passes_when_one_matching_rule_is_content(
        rules in proptest::collection::vec(any_rule(), 0..4),
        extra in any_rule(),
        name in proptest::sample::select(NAMES.to_vec()),
        signers in proptest::sample::subsequence(vec![0_usize, 1, 2, 3], 0..=4),
    ) {
        let envelopes = signed(name, &signers);
        let content = |rule: &AnyRule| {
            let have = rule.keys.iter().filter(|key| signers.contains(key)).count();
            matches(rule, name) && (rule.keys.is_empty() || have >= rule.threshold)
        };
        let before = policy(&toml(&rules)).unwrap().decide(&package(name), &envelopes).is_ok();
        prop_assert_eq!(before, rules.iter().any(content));

        let mut more = rules.clone();
        more.push(extra.clone());
        let after = policy(&toml(&more)).unwrap().decide(&package(name), &envelopes).is_ok();
        prop_assert!(after || !before, "a rule took something away");
        if !matches(&extra, name) {
            prop_assert_eq!(after, before, "a rule for other names changed the decision");
        }
        // More signatures never hurt, fewer never help.
        if let Some((_, fewer)) = envelopes.split_last() {
            let fewer = policy(&toml(&rules)).unwrap().decide(&package(name), fewer).is_ok();
            prop_assert!(before || !fewer);
        }
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in "(\\[\\[(allow|revoke)\\]\\]\n|names|keys|unsigned|threshold| = |\"[a-z*./]{0,8}\"|\\[|\\]|true|[0-9]|\n|.){0,20}") {
        if let Ok(policy) = policy(&text) {
            prop_assert!(policy.decide(&package("web"), &[]).is_err() || text.contains("unsigned"));
        }
    }
}
