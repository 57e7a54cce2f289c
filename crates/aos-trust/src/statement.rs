//! The in-toto statement, version 1 (<https://github.com/in-toto/attestation>): which artifacts a
//! predicate is about.
//!
//! Properties that this version does not know are passed over, as the specification asks of those
//! who read statements; a property that is used must be there once and be well-formed. Version 0.1
//! has the same properties under another `_type` and is read too, since cosign 2 writes it. What
//! is written is deterministic: properties in a fixed order, no white space, no time.

use crate::object::Object;
use aos_core::id::Digest;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use thiserror::Error;

/// The `_type` that is written.
pub const STATEMENT_V1: &str = "https://in-toto.io/Statement/v1";
/// The `_type` of version 0.1, which is read too.
pub const STATEMENT_V0_1: &str = "https://in-toto.io/Statement/v0.1";
/// The predicate of a package's signature: "the signer publishes these bytes under this name". It
/// is an identifier, not an address: RFC 6761 keeps `.invalid` from ever being one.
pub const PACKAGE_PREDICATE: &str = "https://aos.invalid/attestation/package/v1";
/// The predicate of a build's provenance.
pub const PROVENANCE_PREDICATE: &str = "https://slsa.dev/provenance/v1";
/// The predicate of an SPDX document.
pub const SPDX_PREDICATE: &str = "https://spdx.dev/Document";
/// Subjects of one statement; ours have one.
pub const SUBJECTS_MAX: usize = 1000;
/// Bytes of a subject's name, and of the type of a statement or predicate.
pub const NAME_MAX: usize = 1024;

/// Why bytes are not a statement, or one cannot be made.
#[derive(Debug, Error)]
pub enum StatementError {
    /// The JSON is wrong.
    #[error("the payload is not an in-toto statement")]
    Json(#[source] serde_json::Error),
    /// `_type` is another.
    #[error("the statement's _type is not {STATEMENT_V1}")]
    Type,
    /// There are too many subjects, or none.
    #[error("the statement has {0} subjects, 1 to {SUBJECTS_MAX} are allowed")]
    Subjects(usize),
    /// A subject has no good SHA-256.
    #[error("subject {0} of the statement has no sha256 digest of 64 lowercase hex digits")]
    Digest(usize),
    /// A name is too long.
    #[error("a name in the statement has more than {NAME_MAX} bytes")]
    NameLength,
}

/// An artifact that a statement is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// Its name: `web:1.0.0` for a package.
    pub name: String,
    /// Its SHA-256: a package's manifest's.
    pub digest: Digest,
}

/// A statement.
#[derive(Debug, Clone)]
pub struct Statement {
    /// What it is about; never empty.
    pub subjects: Vec<Subject>,
    /// What kind of thing is said.
    pub predicate_type: String,
    /// What is said: any JSON, as it was written.
    pub predicate: Box<RawValue>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct StatementJson {
    #[serde(rename = "_type")]
    kind: String,
    subject: Vec<Object<SubjectJson>>,
    predicate_type: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    predicate: Option<Box<RawValue>>,
}

#[derive(Serialize, Deserialize)]
struct SubjectJson {
    #[serde(default)]
    name: String,
    digest: BTreeMap<String, String>,
}

impl Statement {
    /// A statement about one artifact. `predicate` must serialise deterministically: structs and
    /// sorted maps do.
    pub fn about(
        subject: Subject,
        predicate_type: &str,
        predicate: &impl Serialize,
    ) -> Result<Self, StatementError> {
        let predicate = serde_json::value::to_raw_value(predicate).map_err(StatementError::Json)?;
        Ok(Self { subjects: vec![subject], predicate_type: predicate_type.to_owned(), predicate })
    }

    /// Reads a statement of a payload that was verified.
    pub fn parse(json: &[u8]) -> Result<Self, StatementError> {
        let Object(json): Object<StatementJson> =
            serde_json::from_slice(json).map_err(StatementError::Json)?;
        if json.kind != STATEMENT_V1 && json.kind != STATEMENT_V0_1 {
            return Err(StatementError::Type);
        }
        if !(1..=SUBJECTS_MAX).contains(&json.subject.len()) {
            return Err(StatementError::Subjects(json.subject.len()));
        }
        if json.predicate_type.len() > NAME_MAX || json.subject.iter().any(|s| s.0.name.len() > NAME_MAX) {
            return Err(StatementError::NameLength);
        }
        let subject = |(index, Object(subject)): (usize, Object<SubjectJson>)| {
            let hex = subject.digest.get("sha256").ok_or(StatementError::Digest(index))?;
            let digest = format!("sha256:{hex}").parse().map_err(|_| StatementError::Digest(index))?;
            Ok(Subject { name: subject.name, digest })
        };
        let predicate = match json.predicate {
            Some(predicate) => predicate,
            None => serde_json::value::to_raw_value(&()).map_err(StatementError::Json)?,
        };
        Ok(Self {
            subjects: json.subject.into_iter().enumerate().map(subject).collect::<Result<_, _>>()?,
            predicate_type: json.predicate_type,
            predicate,
        })
    }

    /// The JSON, on one line.
    pub fn to_json(&self) -> Result<Vec<u8>, StatementError> {
        let subject = |subject: &Subject| {
            let digest = BTreeMap::from([("sha256".to_owned(), subject.digest.hex())]);
            Object(SubjectJson { name: subject.name.clone(), digest })
        };
        let json = StatementJson {
            kind: STATEMENT_V1.to_owned(),
            subject: self.subjects.iter().map(subject).collect(),
            predicate_type: self.predicate_type.clone(),
            predicate: Some(self.predicate.clone()),
        };
        serde_json::to_vec(&json).map_err(StatementError::Json)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject() -> Subject {
        Subject { name: "web:1.0.0".to_owned(), digest: Digest::from_bytes([7; 32]) }
    }

    #[test]
    fn a_statement_is_its_fixed_bytes() {
        let statement = Statement::about(subject(), PACKAGE_PREDICATE, &BTreeMap::<(), ()>::new()).unwrap();
        let json = String::from_utf8(statement.to_json().unwrap()).unwrap();
        let hex = "07".repeat(32);
        assert_eq!(
            json,
            format!(
                r#"{{"_type":"https://in-toto.io/Statement/v1","subject":[{{"name":"web:1.0.0","digest":{{"sha256":"{hex}"}}}}],"predicateType":"https://aos.invalid/attestation/package/v1","predicate":{{}}}}"#
            )
        );
        let read = Statement::parse(json.as_bytes()).unwrap();
        assert_eq!(read.subjects, [subject()]);
        assert_eq!(read.predicate_type, PACKAGE_PREDICATE);
        assert_eq!(read.predicate.get(), "{}");
    }

    #[test]
    fn what_is_used_must_be_there_and_well_formed() {
        let hex = "07".repeat(32);
        let good = format!(
            r#"{{"_type":"{STATEMENT_V0_1}","subject":[{{"name":"a","digest":{{"sha256":"{hex}","sha512":"x"}},"uri":"u"}}],"predicateType":"t","extra":1}}"#
        );
        assert_eq!(Statement::parse(good.as_bytes()).unwrap().predicate.get(), "null");
        for (from, to) in [
            (STATEMENT_V0_1, "https://in-toto.io/Statement/v2"),
            ("\"sha256\":", "\"sha-256\":"),
            (hex.as_str(), "07"),
            (hex.as_str(), &"0A".repeat(32)),
            ("\"predicateType\":\"t\"", "\"predicateType\":\"t\",\"predicateType\":\"u\""),
            ("\"predicateType\":\"t\",", ""),
            (&good[good.find("[{").unwrap()..good.find("}]").unwrap() + 2], "[]"),
        ] {
            let bad = good.replacen(from, to, 1);
            assert_ne!(bad, good, "{from}");
            assert!(Statement::parse(bad.as_bytes()).is_err(), "{bad}");
        }
        let long = good.replace("\"a\"", &format!("\"{}\"", "a".repeat(NAME_MAX + 1)));
        assert!(matches!(Statement::parse(long.as_bytes()), Err(StatementError::NameLength)));
    }
}
