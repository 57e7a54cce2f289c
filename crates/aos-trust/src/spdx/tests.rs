//! The document: its fixed bytes, in any order of the components.

use super::*;
use crate::inventory::Manifest;

fn components() -> Vec<Component> {
    let status =
        "Package: libc6\nVersion: 2.41\nArchitecture: amd64\nSource: glibc\nMaintainer: M <m@example.org>\n";
    let lock =
        r#"{"packages":{"node_modules/a":{"version":"1.0.0","license":"MIT","integrity":"sha1-AAEC"}}}"#;
    let mut components = Manifest::Dpkg.read("var/lib/dpkg/status", status.as_bytes()).unwrap();
    components.extend(Manifest::NpmLock.read("package-lock.json", lock.as_bytes()).unwrap());
    components
}

fn json(components: Vec<Component>) -> serde_json::Value {
    let (name, version) = ("web".parse().unwrap(), "1.0.0".parse().unwrap());
    let manifest = Digest::from_bytes([7; 32]);
    let of = Description { name: &name, version: &version, manifest, created: 0, tool: "aos-0.1.0" };
    serde_json::from_slice(&document(&of, components).unwrap().to_json().unwrap()).unwrap()
}

#[test]
fn the_same_in_any_order_and_each_once() {
    let document = json(components());
    let mut more = components();
    more.extend(components());
    more.reverse();
    assert_eq!(json(more), document);
    assert_eq!(document["spdxVersion"], "SPDX-2.3");
    assert_eq!(document["creationInfo"]["created"], "1970-01-01T00:00:00Z");
    assert_eq!(document["documentNamespace"], format!("https://aos.invalid/spdx/web/{}", "07".repeat(32)));
    let packages = document["packages"].as_array().unwrap();
    assert_eq!(packages.len(), 3);
    assert_eq!(packages[0]["checksums"][0]["checksumValue"], "07".repeat(32));
    assert_eq!(packages[1]["SPDXID"], "SPDXRef-deb-0");
    assert_eq!(
        packages[1]["sourceInfo"],
        "named in var/lib/dpkg/status, built from the source package glibc"
    );
    assert_eq!(packages[1]["supplier"], "Organization: M <m@example.org>");
    assert_eq!(packages[2]["licenseDeclared"], "NOASSERTION");
    assert_eq!(packages[2]["licenseComments"], "declared as: MIT");
    assert_eq!(packages[2]["externalRefs"][0]["referenceLocator"], "pkg:npm/a@1.0.0");
    assert_eq!(packages[2]["checksums"][0]["algorithm"], "SHA1");
    let relationships = document["relationships"].as_array().unwrap();
    assert_eq!(relationships[0]["relationshipType"], "DESCRIBES");
    assert_eq!(relationships[2]["relatedSpdxElement"], packages[2]["SPDXID"]);
}

#[test]
fn a_package_without_components_is_a_document() {
    assert_eq!(json(Vec::new())["packages"].as_array().unwrap().len(), 1);
}
