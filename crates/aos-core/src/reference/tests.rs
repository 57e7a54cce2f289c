//! What is a reference, what is a location, and that both print as they are read.

use super::*;
use crate::path::RelativePath;
use proptest::prelude::*;

const HEX: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

#[test]
fn good_references() {
    for (text, registry, path, tag) in [
        ("web", None, "web", None),
        ("web:1.0.0", None, "web", Some("1.0.0")),
        ("team/web:1.0.0", None, "team/web", Some("1.0.0")),
        ("reg.example/team/web", Some("reg.example"), "team/web", None),
        ("reg.example:5000/team/web:latest", Some("reg.example:5000"), "team/web", Some("latest")),
        ("localhost/web:1", Some("localhost"), "web", Some("1")),
        ("host:5000/web", Some("host:5000"), "web", None),
        ("127.0.0.1:5000/web:V_1", Some("127.0.0.1:5000"), "web", Some("V_1")),
        ("[::1]:5000/web:1", Some("[::1]:5000"), "web", Some("1")),
        ("a/b__c/d--e.f", None, "a/b__c/d--e.f", None),
    ] {
        let reference: Reference = text.parse().unwrap();
        assert_eq!(reference.registry.as_ref().map(Registry::as_str), registry, "{text}");
        assert_eq!(reference.path.as_str(), path, "{text}");
        assert_eq!(reference.tag.as_ref().map(Tag::as_str), tag, "{text}");
        assert_eq!(reference.to_string(), text);
    }
    for text in [format!("web@{HEX}"), format!("r.example/a/web:1.0.0@{HEX}")] {
        let reference: Reference = text.parse().unwrap();
        assert_eq!(reference.to_string(), text);
        assert!(reference.is_specific() && reference.digest.is_some());
    }
}

#[test]
fn bad_references_say_why() {
    let long = format!("a{}", "/b".repeat(128));
    for (bad, says) in [
        ("", "empty"),
        (":1.0.0", "reference is empty"),
        ("web:", "tag `` is not valid"),
        ("web@sha256:aa", "digest"),
        ("web:1:2", "tag `1:2`"),
        ("Web", "part `Web`"),
        ("a//b", "part ``"),
        ("/a", "part ``"),
        ("a/", "part ``"),
        ("../a", "registry `..`"),
        ("a/../b", "part `..`"),
        ("a..b", "part `a..b`"),
        ("a___b", "part `a___b`"),
        ("a._b", "part `a._b`"),
        ("-a", "part `-a`"),
        ("a-", "part `a-`"),
        ("a b", "part `a b`"),
        ("a\nb", "part `a\\nb`"),
        ("reg.example:0/a", "registry `reg.example:0`"),
        ("reg.example:65536/a", "registry"),
        ("reg.example:/a", "registry"),
        ("Reg.example/a", "registry `Reg.example`"),
        ("reg..example/a", "registry"),
        ("-x.example/a", "registry"),
        ("[::1/a", "registry"),
        ("[0:0::1]:5/a", "registry"),
        ("user:pass@reg.example/a", "digest"),
        ("docker://reg.example/a", "starts with `docker://`: leave it out"),
        ("https://reg.example/a", "leave it out"),
        (long.as_str(), "at most 255"),
    ] {
        let error = bad.parse::<Reference>().unwrap_err().to_string();
        assert!(error.contains(says), "{bad:?}: {error}");
    }
    assert!("x".repeat(TAG_MAX).parse::<Tag>().is_ok() && "x".repeat(TAG_MAX + 1).parse::<Tag>().is_err());
    for bad in [".a", "-a", "a/b", "a b", "ä", ""] {
        assert!(bad.parse::<Tag>().is_err(), "{bad:?}");
    }
}

#[test]
fn a_registry_has_a_host_and_perhaps_a_port() {
    for (text, host, port) in [
        ("reg.example:5000", "reg.example", Some(5000)),
        ("a.b", "a.b", None),
        ("[::1]:80", "[::1]", Some(80)),
    ] {
        let registry: Registry = text.parse().unwrap();
        assert_eq!((registry.host(), registry.port()), (host, port));
    }
    assert_eq!("[::1]".parse::<Registry>().unwrap().port(), None);
}

#[test]
fn versions_and_tags() {
    for (version, tag) in [("1.0.0", "1.0.0"), ("1.0.0-rc.1+b.5", "1.0.0-rc.1_b.5")] {
        let parsed = parse_version(version).unwrap();
        assert_eq!(Tag::of_version(&parsed).as_str(), tag);
        assert_eq!(Tag::of_version(&parsed).version(), Some(parsed));
    }
    for none in ["latest", "1.0", "v1.0.0", "1.0.0_a_b", "_"] {
        assert_eq!(none.parse::<Tag>().unwrap().version(), None, "{none}");
    }
    let reference = Reference::local(&"web".parse().unwrap(), &parse_version("1.2.3").unwrap()).unwrap();
    assert_eq!(reference.to_string(), "web:1.2.3");
    assert!(Reference::local(&"a._b".parse().unwrap(), &parse_version("1.2.3").unwrap()).is_err());
}

#[test]
fn locations_by_their_spelling() {
    let reference = |text: &str| text.parse::<Reference>().unwrap();
    for (text, location) in [
        ("web:1.0.0", Location::Local(reference("web:1.0.0"))),
        ("team/web", Location::Local(reference("team/web"))),
        ("reg.example/web:1", Location::Registry(reference("reg.example/web:1"))),
        ("oci:/srv/reg", Location::Layout { path: "/srv/reg".into(), name: None }),
        ("oci:reg:web", Location::Layout { path: "reg".into(), name: Some(reference("web")) }),
        ("oci:../r:web:1.0.0", Location::Layout { path: "../r".into(), name: Some(reference("web:1.0.0")) }),
        (
            "oci:/r:reg.example:5000/t/web:1",
            Location::Layout { path: "/r".into(), name: Some(reference("reg.example:5000/t/web:1")) },
        ),
        ("./out/web.aap", Location::Archive("./out/web.aap".into())),
        ("web.aap", Location::Archive("web.aap".into())),
        ("oci-archive:/tmp/x:y.tar", Location::Archive("/tmp/x:y.tar".into())),
    ] {
        assert_eq!(text.parse::<Location>().unwrap(), location, "{text}");
        assert_eq!(location.to_string(), text);
    }
    for bad in ["", "oci:", "oci::web", "oci:/r:", "oci-archive:", "a\n.aap", "./web", "/srv/x"] {
        assert!(bad.parse::<Location>().is_err(), "{bad:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn what_parses_prints_back(text in "[a-c0./:@_\\[\\]-]{0,16}") {
        if let Ok(reference) = text.parse::<Reference>() {
            prop_assert_eq!(reference.to_string(), &text[..]);
            // A repository is a relative path in normal form: it cannot lead out of a directory.
            prop_assert!(reference.path.as_str().parse::<RelativePath>().is_ok());
            let json = serde_json::to_string(&reference).unwrap();
            prop_assert_eq!(serde_json::from_str::<Reference>(&json).unwrap(), reference);
        }
    }

    #[test]
    fn good_parts_make_a_good_reference(
        registry in prop::option::of("[a-z]{1,5}\\.[a-z]{1,5}(:[1-9][0-9]{0,3})?"),
        path in "[a-z0-9]{1,4}((\\.|_|__|-{1,3})[a-z0-9]{1,3}){0,2}(/[a-z0-9]{1,4}){0,2}",
        tag in prop::option::of("[A-Za-z0-9_][A-Za-z0-9._-]{0,9}"),
        bytes in prop::option::of(any::<[u8; 32]>()),
    ) {
        let reference = Reference::new(
            registry.map(|text| text.parse().unwrap()),
            path.parse().unwrap(),
            tag.map(|text| text.parse().unwrap()),
            bytes.map(Digest::from_bytes),
        );
        if let Ok(reference) = reference {
            prop_assert_eq!(reference.to_string().parse::<Reference>().unwrap(), reference);
        }
    }

    #[test]
    fn locations_print_back(text in "(oci:|oci-archive:)?[a-c./:]{0,10}(\\.aap)?") {
        if let Ok(location) = text.parse::<Location>() {
            prop_assert_eq!(location.to_string().parse::<Location>().unwrap(), location);
        }
    }
}
