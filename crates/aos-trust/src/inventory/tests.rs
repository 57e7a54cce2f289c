//! Manifests as the real programs write them, and that none of them can do harm.

use super::*;
use proptest::prelude::*;

fn read(path: &str, text: &str) -> Vec<Component> {
    Manifest::at(path).unwrap().read(path, text.as_bytes()).unwrap()
}

fn purls(components: &[Component]) -> Vec<String> {
    components.iter().map(Component::purl).collect()
}

#[test]
fn files_are_known_by_their_place() {
    for (path, manifest) in [
        ("var/lib/dpkg/status", Some(Manifest::Dpkg)),
        ("var/lib/dpkg/status.d/libc6", Some(Manifest::Dpkg)),
        ("var/lib/dpkg/status.d/libc6.md5sums", None),
        ("x/var/lib/dpkg/status", None),
        ("status", None),
        ("usr/lib/python3/dist-packages/six-1.0.dist-info/METADATA", Some(Manifest::PythonInstalled)),
        ("METADATA", None),
        ("requirements.txt", Some(Manifest::PythonRequirements)),
        ("app/requirements-dev.txt", Some(Manifest::PythonRequirements)),
        ("app/package-lock.json", Some(Manifest::NpmLock)),
        ("Cargo.lock", Some(Manifest::CargoLock)),
        ("Cargo.toml", None),
        ("", None),
    ] {
        assert_eq!(Manifest::at(path), manifest, "{path}");
    }
}

#[test]
fn dpkg() {
    let status = "Package: libc6\nStatus: install ok installed\nMaintainer: GNU Libc <g@example.org>\n\
                  Architecture: amd64\nMulti-Arch: same\nSource: glibc (2.41-12)\nVersion: 2.41-12+b1\n\
                  Description: GNU C Library\n Shared\n .\n more: text\nConffiles:\n /etc/x 0123\n\n\
                  Package: gone\nStatus: deinstall ok config-files\nVersion: 1\n\n\n\
                  Package: vim\nStatus: install ok installed\nArchitecture: amd64\nVersion: 2:9.1\n";
    let components = read("var/lib/dpkg/status", status);
    assert_eq!(
        purls(&components),
        ["pkg:deb/debian/libc6@2.41-12%2Bb1?arch=amd64", "pkg:deb/debian/vim@2:9.1?arch=amd64"]
    );
    assert_eq!(components[0].source.as_deref(), Some("glibc (2.41-12)"));
    assert_eq!(components[0].supplier.as_deref(), Some("GNU Libc <g@example.org>"));
    // One package a file, without a status: what small images have.
    assert_eq!(read("var/lib/dpkg/status.d/base", "Package: base\nVersion: 1\n").len(), 1);

    let bad = |text: &str| Manifest::Dpkg.read("s", text.as_bytes()).unwrap_err().to_string();
    assert!(bad("Package: x\noops\n").contains("dpkg status \"s\": line 2 is neither"));
    assert!(bad("Package: x\n").contains("has no version"));
}

#[test]
fn python() {
    let metadata = "Metadata-Version: 2.4\nName: My_Package\nVersion: 1.0+local\nLicense-Expression: MIT\n\nName: not this\n";
    let components = read("x/My_Package-1.0.dist-info/METADATA", metadata);
    assert_eq!(purls(&components), ["pkg:pypi/my-package@1.0%2Blocal"]);
    assert_eq!(components[0].license.as_deref(), Some("MIT"));

    let requirements = "# comment\n-r other.txt\n--index-url https://example.org\nflask\nrequests==2.31.0\n\
        uvicorn[standard]==0.30.1 ; python_version >= '3.8'\nnumpy>=1,<2\nx==1.*\nhashed==1.0 \\\n    --hash=sha256:00\n\
        git+https://example.org/a.git\n./local\nhttps://example.org/x.whl\nname @ https://example.org/y.whl\nz===1 # pinned\n";
    assert_eq!(
        purls(&read("requirements.txt", requirements)),
        [
            "pkg:pypi/flask",
            "pkg:pypi/requests@2.31.0",
            "pkg:pypi/uvicorn@0.30.1",
            "pkg:pypi/numpy",
            "pkg:pypi/x",
            "pkg:pypi/hashed@1.0",
            "pkg:pypi/name",
            "pkg:pypi/z@1"
        ]
    );
}

#[test]
fn npm() {
    let three = r#"{"name":"app","lockfileVersion":3,"packages":{
        "":{"name":"app","version":"1.0.0"},
        "node_modules/@scope/a":{"version":"1.2.3","license":"MIT","integrity":"sha512-AAEC sha1-AA=="},
        "node_modules/b/node_modules/a":{"version":"2.0.0","license":{"type":"X"}},
        "node_modules/alias":{"name":"real","version":"3.0.0"},
        "node_modules/linked":{"link":true,"resolved":"linked"},
        "linked":{"version":"1.0.0"}}}"#;
    let components = read("package-lock.json", three);
    assert_eq!(purls(&components), ["pkg:npm/%40scope/a@1.2.3", "pkg:npm/real@3.0.0", "pkg:npm/a@2.0.0"]);
    assert_eq!(components[0].checksum, Some(Checksum { algorithm: "SHA512", hex: "000102".to_owned() }));
    assert_eq!(components[0].license.as_deref(), Some("MIT"));
    let one = r#"{"lockfileVersion":1,"dependencies":{"a":{"version":"1.0.0","requires":{"b":"^1"},"dependencies":{"b":{"version":"1.0.1"}}}}}"#;
    assert_eq!(purls(&read("package-lock.json", one)), ["pkg:npm/a@1.0.0", "pkg:npm/b@1.0.1"]);
    assert!(Manifest::NpmLock.read("p", b"[]").is_err());
    let deep = r#"{"dependencies":{"a":"#.repeat(200);
    assert!(Manifest::NpmLock.read("p", deep.as_bytes()).is_err());
}

#[test]
fn cargo() {
    let text = format!(
        "version = 4\n[[package]]\nname = \"own\"\nversion = \"0.1.0\"\n\n[[package]]\nname = \"serde\"\nversion = \"1.0.0\"\n\
         source = \"registry+https://github.com/rust-lang/crates.io-index\"\nchecksum = \"{}\"\n",
        "0a".repeat(32)
    );
    let components = read("Cargo.lock", &text);
    assert_eq!(purls(&components), ["pkg:cargo/serde@1.0.0"]);
    assert_eq!(components[0].checksum.as_ref().unwrap().algorithm, "SHA256");
    // The real thing.
    let own = include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.lock"));
    assert!(Manifest::CargoLock.read("Cargo.lock", own).unwrap().len() > 50);
}

#[test]
fn what_is_long_is_cut_or_refused() {
    let text = format!("Package: {}\nVersion: 1\n", "ä".repeat(2000));
    let name = &read("var/lib/dpkg/status", &text)[0].name;
    assert_eq!(name.len(), TEXT_MAX);
    assert!(
        Manifest::Dpkg.read("s", &vec![b'\n'; MANIFEST_MAX + 1]).unwrap_err().to_string().contains("at most")
    );
    let many = "a\n".repeat(COMPONENTS_MAX + 1);
    assert!(
        Manifest::PythonRequirements
            .read("r", many.as_bytes())
            .unwrap_err()
            .to_string()
            .contains("more than")
    );
    assert!(Manifest::Dpkg.read("s", b"a: b\n\xff").unwrap_err().to_string().contains("line 2 is not UTF-8"));
}

proptest! {
    #[test]
    fn nothing_makes_a_reader_panic(text in "([A-Za-z]{0,8}(: |==|\\[|\\]|=|@| |\n|\"|\\{|\\})){0,30}.{0,20}") {
        for manifest in [Manifest::Dpkg, Manifest::PythonInstalled, Manifest::PythonRequirements, Manifest::NpmLock, Manifest::CargoLock] {
            if let Ok(components) = manifest.read("x", text.as_bytes()) {
                for component in components {
                    prop_assert!(component.purl().is_ascii());
                }
            }
        }
    }
}
