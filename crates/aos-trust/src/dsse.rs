//! The DSSE envelope, version 1 (<https://github.com/secure-systems-lab/dsse>): a payload, its
//! type, and signatures over both.
//!
//! What is signed is [`pae`], the pre-authentication encoding, so a payload cannot be taken for one
//! of another type. The JSON is strict: the three properties and no other, each once, base64 with
//! the standard alphabet and its padding in the one canonical form, and every size bounded; so an
//! envelope with good signatures cannot be written in a second way that says something else.
//!
//! `keyid` is a hint by somebody who may lie: it can only spare trying other keys, never make a
//! signature good.

use crate::key::{KeyId, PrivateKey, PublicKey, SIGNATURE_LENGTH};
use crate::object::Object;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use thiserror::Error;

/// The type of a payload that is an in-toto statement.
pub const IN_TOTO_TYPE: &str = "application/vnd.in-toto+json";
/// The media type of an envelope, and the `artifactType` of an attachment that is one.
pub const ENVELOPE_TYPE: &str = "application/vnd.dsse.envelope.v1+json";
/// Bytes of an envelope's JSON: an SBOM of a Debian base with its files has some megabytes.
pub const ENVELOPE_MAX: usize = 32 << 20;
/// Signatures of one envelope: a threshold of people, and a rotation of their keys.
pub const SIGNATURES_MAX: usize = 16;
/// Bytes of a payload type.
pub const PAYLOAD_TYPE_MAX: usize = 128;
/// Bytes of a `keyid`: 64 hex digits, or another tool's fingerprint.
pub const KEYID_MAX: usize = 256;

/// Why bytes are not an envelope, or one cannot be made.
#[derive(Debug, Error)]
pub enum EnvelopeError {
    /// The JSON is too long.
    #[error("the envelope has {0} bytes, at most {ENVELOPE_MAX} are allowed")]
    TooLong(usize),
    /// The JSON is wrong.
    #[error("the envelope is not a DSSE envelope")]
    Json(#[source] serde_json::Error),
    /// The payload type is empty, too long or has other characters than a media type.
    #[error("the envelope's payload type is not a media type of at most {PAYLOAD_TYPE_MAX} characters")]
    PayloadType,
    /// Base64 is wrong.
    #[error("the envelope's {what} is not canonical standard base64")]
    Base64 {
        /// Which property.
        what: &'static str,
        /// What the decoder says.
        source: base64::DecodeError,
    },
    /// A signature has not the length of an Ed25519 signature and is too long for any other.
    #[error("signature {index} of the envelope has {length} bytes, at most {SIGNATURE_MAX} are allowed")]
    SignatureLength {
        /// Which one, from 0.
        index: usize,
        /// Its bytes.
        length: usize,
    },
    /// A `keyid` is too long.
    #[error(
        "signature {index} of the envelope has a keyid of {length} bytes, at most {KEYID_MAX} are allowed"
    )]
    KeyIdLength {
        /// Which one, from 0.
        index: usize,
        /// Its bytes.
        length: usize,
    },
    /// There are too many signatures, or none.
    #[error("the envelope has {0} signatures, 1 to {SIGNATURES_MAX} are allowed")]
    SignatureCount(usize),
}

/// Bytes of a signature of any kind: RSA-4096 has 512. Others than Ed25519 never verify here.
const SIGNATURE_MAX: usize = 1024;

/// The pre-authentication encoding: `DSSEv1 LEN(type) type LEN(body) body`, lengths in bytes as
/// decimal ASCII.
pub fn pae(payload_type: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), body.len());
    [head.as_bytes(), body].concat()
}

/// One signature.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Signature {
    /// Empty when the signer gave none.
    keyid: String,
    bytes: Vec<u8>,
}

/// An envelope: well-formed, not necessarily signed by anybody that matters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    payload_type: String,
    payload: Vec<u8>,
    signatures: Vec<Signature>,
}

/// The JSON of an envelope.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct EnvelopeJson {
    payload_type: String,
    payload: String,
    signatures: Vec<Object<SignatureJson>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SignatureJson {
    // The specification makes it optional; cosign writes it empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    keyid: String,
    sig: String,
}

/// True for what RFC 6838 allows in a media type, with parameters.
fn is_media_type(text: &str) -> bool {
    (1..=PAYLOAD_TYPE_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
}

impl Envelope {
    /// Signs a payload.
    pub fn sign(payload_type: &str, payload: Vec<u8>, key: &PrivateKey) -> Result<Self, EnvelopeError> {
        if !is_media_type(payload_type) {
            return Err(EnvelopeError::PayloadType);
        }
        // Base64 makes 4 characters of 3 bytes; the rest of the envelope is small.
        if payload.len() > ENVELOPE_MAX / 4 * 3 - (64 << 10) {
            return Err(EnvelopeError::TooLong(payload.len()));
        }
        let mut envelope = Self { payload_type: payload_type.to_owned(), payload, signatures: Vec::new() };
        envelope.add_signature(key)?;
        Ok(envelope)
    }

    /// Signs once more, with another key. A key that has signed already is not added again.
    pub fn add_signature(&mut self, key: &PrivateKey) -> Result<(), EnvelopeError> {
        let bytes = key.sign(&self.signed_bytes()).to_vec();
        let signature = Signature { keyid: key.public().id().to_string(), bytes };
        if self.signatures.contains(&signature) {
            return Ok(());
        }
        if self.signatures.len() >= SIGNATURES_MAX {
            return Err(EnvelopeError::SignatureCount(self.signatures.len() + 1));
        }
        self.signatures.push(signature);
        Ok(())
    }

    /// Reads an envelope. Nothing is verified yet.
    pub fn parse(json: &[u8]) -> Result<Self, EnvelopeError> {
        if json.len() > ENVELOPE_MAX {
            return Err(EnvelopeError::TooLong(json.len()));
        }
        let Object(json): Object<EnvelopeJson> = serde_json::from_slice(json).map_err(EnvelopeError::Json)?;
        if !is_media_type(&json.payload_type) {
            return Err(EnvelopeError::PayloadType);
        }
        if !(1..=SIGNATURES_MAX).contains(&json.signatures.len()) {
            return Err(EnvelopeError::SignatureCount(json.signatures.len()));
        }
        let decode =
            |what, text: &str| STANDARD.decode(text).map_err(|source| EnvelopeError::Base64 { what, source });
        let payload = decode("payload", &json.payload)?;
        let mut signatures = Vec::with_capacity(json.signatures.len());
        for (index, Object(signature)) in json.signatures.into_iter().enumerate() {
            let length = signature.keyid.len();
            if length > KEYID_MAX {
                return Err(EnvelopeError::KeyIdLength { index, length });
            }
            let bytes = decode("signature", &signature.sig)?;
            let length = bytes.len();
            if !(SIGNATURE_LENGTH..=SIGNATURE_MAX).contains(&length) {
                return Err(EnvelopeError::SignatureLength { index, length });
            }
            signatures.push(Signature { keyid: signature.keyid, bytes });
        }
        Ok(Self { payload_type: json.payload_type, payload, signatures })
    }

    /// The JSON, on one line, without a line break at its end. It is the same for the same
    /// envelope.
    pub fn to_json(&self) -> Result<Vec<u8>, EnvelopeError> {
        let signatures = self.signatures.iter();
        let json = EnvelopeJson {
            payload_type: self.payload_type.clone(),
            payload: STANDARD.encode(&self.payload),
            signatures: signatures
                .map(|signature| {
                    let sig = STANDARD.encode(&signature.bytes);
                    Object(SignatureJson { keyid: signature.keyid.clone(), sig })
                })
                .collect(),
        };
        serde_json::to_vec(&json).map_err(EnvelopeError::Json)
    }

    /// The payload's type, as the envelope claims it until a signature is verified.
    pub fn payload_type(&self) -> &str {
        &self.payload_type
    }

    /// The payload, as the envelope claims it until a signature is verified.
    pub fn unverified_payload(&self) -> &[u8] {
        &self.payload
    }

    /// The ids of our kind that the envelope claims as its signers', each once.
    pub fn claimed_keys(&self) -> BTreeSet<KeyId> {
        self.signatures.iter().filter_map(|signature| signature.keyid.parse().ok()).collect()
    }

    /// The keys among `keys` of which the envelope has a good signature, each once, sorted; none
    /// when there is none. Two signatures of one key count as one, under whatever key ids.
    #[must_use = "an empty answer means that nobody signed"]
    pub fn verify<'k>(&self, keys: impl IntoIterator<Item = &'k PublicKey>) -> Vec<KeyId> {
        let message = self.signed_bytes();
        let mut good = BTreeSet::new();
        for key in keys {
            let mut signatures = self.signatures.iter().filter(|signature| signature.may_be_of(key));
            if !good.contains(&key.id()) && signatures.any(|signature| key.verify(&message, &signature.bytes))
            {
                good.insert(key.id());
            }
        }
        good.into_iter().collect()
    }

    fn signed_bytes(&self) -> Vec<u8> {
        pae(&self.payload_type, &self.payload)
    }
}

impl Signature {
    /// False when the key id is one of our kind and names another key.
    fn may_be_of(&self, key: &PublicKey) -> bool {
        self.keyid.parse::<KeyId>().map_or(true, |claimed| claimed == key.id())
    }
}

#[cfg(test)]
mod tests;
