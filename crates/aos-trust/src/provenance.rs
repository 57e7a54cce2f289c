//! How a package was built: SLSA provenance, version 1 (<https://slsa.dev/spec/v1.0/provenance>), as
//! the predicate of an in-toto statement.
//!
//! Pure and deterministic: what is not given is not in it, and there is no time unless the caller
//! gives one. Secrets never belong in it: the names of build secrets may, their values are not among
//! what can be given.

use crate::statement::{PROVENANCE_PREDICATE, Statement, StatementError, Subject};
use crate::time::utc;
use aos_core::id::Digest;
use serde::Serialize;
use std::collections::BTreeMap;

/// The build type: what the parameters mean. Like the predicate types it is no address.
pub const BUILD_TYPE: &str = "https://aos.invalid/build/v1";

/// An input of the build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// What it is for: a stage's base, a dependency, the Agentfile.
    pub name: String,
    /// Where it came from: an OCI reference, a package reference, a path in the context.
    pub uri: String,
    /// Its content.
    pub content: Content,
}

/// The content of an input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A blob, manifest or file.
    Sha256(Digest),
    /// A revision of a git repository, in hex.
    GitCommit(String),
}

/// A build.
#[derive(Debug, Clone, Default)]
pub struct Build {
    /// Who built: a URI. A person's machine is `https://aos.invalid/builder/local`.
    pub builder: String,
    /// The versions of the programs that built: `aos` -> `0.1.0`.
    pub programs: BTreeMap<String, String>,
    /// What the caller chose: build arguments, the Agentfile's path, the target architecture.
    pub parameters: BTreeMap<String, String>,
    /// All inputs, in any order.
    pub inputs: Vec<Input>,
    /// When the build began, in seconds since 1970.
    pub started: Option<u64>,
    /// When it ended.
    pub finished: Option<u64>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Predicate<'a> {
    build_definition: Definition<'a>,
    run_details: Details<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Definition<'a> {
    build_type: &'static str,
    external_parameters: &'a BTreeMap<String, String>,
    resolved_dependencies: Vec<Resource<'a>>,
}

#[derive(Serialize, PartialEq, Eq, PartialOrd, Ord)]
struct Resource<'a> {
    name: &'a str,
    uri: &'a str,
    digest: BTreeMap<&'static str, String>,
}

#[derive(Serialize)]
struct Details<'a> {
    builder: Builder<'a>,
    #[serde(skip_serializing_if = "Metadata::is_empty")]
    metadata: Metadata,
}

#[derive(Serialize)]
struct Builder<'a> {
    id: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    version: &'a BTreeMap<String, String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    #[serde(skip_serializing_if = "Option::is_none")]
    started_on: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    finished_on: Option<String>,
}

impl Metadata {
    fn is_empty(&self) -> bool {
        self.started_on.is_none() && self.finished_on.is_none()
    }
}

/// The statement that `subject` came out of this build.
pub fn statement(subject: Subject, build: &Build) -> Result<Statement, StatementError> {
    let mut resolved_dependencies: Vec<Resource<'_>> = build.inputs.iter().map(resource).collect();
    resolved_dependencies.sort();
    resolved_dependencies.dedup();
    let predicate = Predicate {
        build_definition: Definition {
            build_type: BUILD_TYPE,
            external_parameters: &build.parameters,
            resolved_dependencies,
        },
        run_details: Details {
            builder: Builder { id: &build.builder, version: &build.programs },
            metadata: Metadata { started_on: build.started.map(utc), finished_on: build.finished.map(utc) },
        },
    };
    Statement::about(subject, PROVENANCE_PREDICATE, &predicate)
}

fn resource(input: &Input) -> Resource<'_> {
    let digest = match &input.content {
        Content::Sha256(digest) => ("sha256", digest.hex()),
        Content::GitCommit(revision) => ("gitCommit", revision.clone()),
    };
    Resource { name: &input.name, uri: &input.uri, digest: BTreeMap::from([digest]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_is_its_fixed_bytes_in_any_order() {
        let input =
            |name: &str, content| Input { name: name.to_owned(), uri: format!("uri:{name}"), content };
        let mut build = Build {
            builder: "https://aos.invalid/builder/local".to_owned(),
            programs: BTreeMap::from([("aos".to_owned(), "0.1.0".to_owned())]),
            parameters: BTreeMap::from([("arg:A".to_owned(), "1".to_owned())]),
            inputs: vec![
                input("source", Content::GitCommit("c0ffee".to_owned())),
                input("base", Content::Sha256(Digest::from_bytes([1; 32]))),
            ],
            ..Build::default()
        };
        let subject = || Subject { name: "web:1.0.0".to_owned(), digest: Digest::from_bytes([7; 32]) };
        let json = statement(subject(), &build).unwrap().to_json().unwrap();
        let statement_of = Statement::parse(&json).unwrap();
        assert_eq!(
            statement_of.predicate.get(),
            format!(
                r#"{{"buildDefinition":{{"buildType":"https://aos.invalid/build/v1","externalParameters":{{"arg:A":"1"}},"resolvedDependencies":[{{"name":"base","uri":"uri:base","digest":{{"sha256":"{}"}}}},{{"name":"source","uri":"uri:source","digest":{{"gitCommit":"c0ffee"}}}}]}},"runDetails":{{"builder":{{"id":"https://aos.invalid/builder/local","version":{{"aos":"0.1.0"}}}}}}}}"#,
                "01".repeat(32)
            )
        );
        build.inputs.reverse();
        assert_eq!(statement(subject(), &build).unwrap().to_json().unwrap(), json);
        build.finished = Some(0);
        let dated = statement(subject(), &build).unwrap();
        assert!(dated.predicate.get().ends_with(r#""metadata":{"finishedOn":"1970-01-01T00:00:00Z"}}}"#));
    }
}
