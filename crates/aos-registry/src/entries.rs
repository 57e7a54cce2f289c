//! An index as others wrote it: entries are added and taken away, and all the rest stays as it is.
//! Fallback tags and directory registries are shared with other tools, which have fields of their
//! own there.

use aos_core::id::Digest;
use aos_package::bounds::FOREIGN_PLATFORMS_MAX;
use aos_package::oci::{Descriptor, INDEX_TYPE, OciError, REF_NAME};
use serde_json::{Map, Value, json};

/// The parts of an index, unread.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entries {
    document: Map<String, Value>,
    entries: Vec<Value>,
}

fn wrong(expected: &str) -> OciError {
    OciError::Value { what: "index", found: "something else".to_owned(), expected: expected.to_owned() }
}

impl Entries {
    /// An index without entries.
    pub(crate) fn empty() -> Self {
        let mut document = Map::new();
        document.insert("schemaVersion".to_owned(), json!(2));
        document.insert("mediaType".to_owned(), json!(INDEX_TYPE));
        Self { document, entries: Vec::new() }
    }

    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, OciError> {
        let source = |source| OciError::Json { what: "index", source };
        let mut document: Map<String, Value> = serde_json::from_slice(bytes).map_err(source)?;
        if document.get("schemaVersion") != Some(&json!(2)) {
            return Err(wrong("one with schemaVersion 2"));
        }
        let entries = match document.remove("manifests") {
            Some(Value::Array(entries)) => entries,
            _ => return Err(wrong("one with a list of manifests")),
        };
        if entries.len() > FOREIGN_PLATFORMS_MAX {
            return Err(wrong(&format!("at most {FOREIGN_PLATFORMS_MAX} manifests")));
        }
        Ok(Self { document, entries })
    }

    pub(crate) fn to_json(&self) -> Result<Vec<u8>, OciError> {
        let mut document = self.document.clone();
        document.insert("manifests".to_owned(), Value::Array(self.entries.clone()));
        serde_json::to_vec(&document).map_err(|source| OciError::Json { what: "index", source })
    }

    pub(crate) const fn len(&self) -> usize {
        self.entries.len()
    }

    /// The entries that are descriptors of SHA-256; others are nothing that we could use.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = Descriptor> {
        self.entries.iter().filter_map(descriptor)
    }

    pub(crate) fn has(&self, digest: &Digest) -> bool {
        let text = digest.to_string();
        self.entries.iter().any(|entry| digest_of(entry) == Some(&text))
    }

    /// The digest that has a name.
    pub(crate) fn named(&self, name: &str) -> Option<Digest> {
        let entry = self.entries.iter().find(|entry| name_of(entry) == Some(name))?;
        digest_of(entry)?.parse().ok()
    }

    /// Adds an entry at the end.
    pub(crate) fn add(&mut self, entry: &Descriptor) -> Result<(), OciError> {
        let source = |source| OciError::Json { what: "index", source };
        self.entries.push(serde_json::to_value(entry).map_err(source)?);
        Ok(())
    }

    /// Takes the entry with a name away.
    pub(crate) fn unname(&mut self, name: &str) {
        self.entries.retain(|entry| name_of(entry) != Some(name));
    }
}

fn digest_of(entry: &Value) -> Option<&str> {
    entry.get("digest")?.as_str()
}

fn name_of(entry: &Value) -> Option<&str> {
    entry.get("annotations")?.get(REF_NAME)?.as_str()
}

fn descriptor(entry: &Value) -> Option<Descriptor> {
    let media_type = entry.get("mediaType")?.as_str()?;
    let digest = digest_of(entry)?.parse().ok()?;
    let mut found = Descriptor::new(media_type, digest, entry.get("size")?.as_u64()?);
    found.artifact_type = entry.get("artifactType").and_then(Value::as_str).map(str::to_owned);
    if let Some(Value::Object(annotations)) = entry.get("annotations") {
        let text = |(name, value): (&String, &Value)| Some((name.clone(), value.as_str()?.to_owned()));
        found.annotations = annotations.iter().filter_map(text).collect();
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use aos_package::oci::MANIFEST_TYPE;

    #[test]
    fn what_others_wrote_stays() {
        let text = br#"{"schemaVersion":2,"annotations":{"x":"y"},"manifests":[
            {"mediaType":"application/x","digest":"sha512:00","size":1,"urls":["u"]},
            {"mediaType":"application/y","digest":"sha256:0000000000000000000000000000000000000000000000000000000000000001",
             "size":2,"platform":{"os":"linux"},"annotations":{"org.opencontainers.image.ref.name":"a"}}]}"#;
        let mut entries = Entries::parse(text).unwrap();
        assert_eq!(entries.descriptors().count(), 1);
        let digest = Digest::from_bytes([7; 32]);
        entries.add(&Descriptor::new(MANIFEST_TYPE, digest, 3)).unwrap();
        let again = Entries::parse(&entries.to_json().unwrap()).unwrap();
        assert_eq!(again, entries);
        let text = String::from_utf8(again.to_json().unwrap()).unwrap();
        assert!(
            text.contains("sha512:00") && text.contains("platform") && text.contains(r#""x":"y""#),
            "{text}"
        );
        assert!(again.has(&digest) && again.named("a").is_some() && again.named("b").is_none());
        entries.unname("a");
        assert_eq!((entries.len(), entries.named("a")), (2, None));
    }

    #[test]
    fn only_indexes_are_indexes() {
        for text in
            ["", "[]", "{}", r#"{"schemaVersion":1,"manifests":[]}"#, r#"{"schemaVersion":2,"layers":[]}"#]
        {
            assert!(Entries::parse(text.as_bytes()).is_err(), "{text}");
        }
        assert_eq!(Entries::parse(&Entries::empty().to_json().unwrap()).unwrap(), Entries::empty());
    }
}
