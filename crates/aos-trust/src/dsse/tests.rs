//! The envelope: its fixed forms, its strictness, and that nothing unsigned passes.

use super::*;
use crate::key::PrivateKey;
use proptest::prelude::*;

fn key() -> PrivateKey {
    PrivateKey::generate().unwrap()
}

fn parse(json: &str) -> Result<Envelope, EnvelopeError> {
    Envelope::parse(json.as_bytes())
}

#[test]
fn pae_is_that_of_the_specification() {
    // The test vector of DSSE's protocol.md.
    assert_eq!(
        pae("http://example.com/HelloWorld", b"hello world"),
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    );
    assert_eq!(pae("", b""), b"DSSEv1 0  0 ");
}

#[test]
fn an_envelope_survives_its_json() {
    let (one, two) = (key(), key());
    let mut envelope = Envelope::sign(IN_TOTO_TYPE, b"{}".to_vec(), &one).unwrap();
    envelope.add_signature(&two).unwrap();
    let json = envelope.to_json().unwrap();
    let read = Envelope::parse(&json).unwrap();
    assert_eq!(read, envelope);
    assert_eq!(read.to_json().unwrap(), json);
    let ids = BTreeSet::from([one.public().id(), two.public().id()]);
    assert_eq!(read.claimed_keys(), ids);
    assert_eq!(read.verify([two.public(), one.public(), key().public()]), Vec::from_iter(ids));
    assert_eq!(read.verify([key().public()]), []);
    assert_eq!(read.verify([]), []);
}

#[test]
fn a_key_counts_once() {
    let one = key();
    let mut envelope = Envelope::sign("t", b"x".to_vec(), &one).unwrap();
    envelope.add_signature(&one).unwrap();
    assert_eq!(envelope.signatures.len(), 1, "signing again changes nothing");
    // The same signature again: with its id, with none, with one of another kind.
    for keyid in [one.public().id().to_string(), String::new(), "SHA256:abc".to_owned()] {
        let bytes = envelope.signatures[0].bytes.clone();
        envelope.signatures.push(Signature { keyid, bytes });
    }
    let read = Envelope::parse(&envelope.to_json().unwrap()).unwrap();
    assert_eq!(read.verify([one.public(), one.public()]), [one.public().id()]);
}

#[test]
fn a_key_id_can_only_take_away() {
    let (one, two) = (key(), key());
    let mut envelope = Envelope::sign("t", b"x".to_vec(), &one).unwrap();
    envelope.signatures[0].keyid = two.public().id().to_string();
    assert_eq!(envelope.verify([one.public(), two.public()]), []);
    envelope.signatures[0].keyid = "not one of ours".to_owned();
    assert_eq!(envelope.verify([one.public(), two.public()]), [one.public().id()]);
    assert!(envelope.claimed_keys().is_empty());
}

#[test]
fn the_json_is_strict() {
    let sig = STANDARD.encode([1; 64]);
    let good = format!(r#"{{"payloadType":"t","payload":"eHk=","signatures":[{{"sig":"{sig}"}}]}}"#);
    parse(&good).unwrap();
    for (from, to, says) in [
        ("\"payloadType\":\"t\"", "\"payloadType\":\"t\",\"payloadType\":\"u\"", "not a DSSE envelope"),
        ("\"payloadType\":\"t\"", "\"payloadType\":\"t\",\"more\":1", "not a DSSE envelope"),
        ("\"payloadType\":\"t\"", "\"PayloadType\":\"t\"", "not a DSSE envelope"),
        ("\"payloadType\":\"t\"", "\"payloadType\":\"\"", "not a media type"),
        ("\"payloadType\":\"t\"", "\"payloadType\":\"a b\"", "not a media type"),
        ("\"payloadType\":\"t\"", "\"payloadType\":\"\\u0000\"", "not a media type"),
        ("\"eHk=\"", "\"eHk\"", "payload is not canonical"),
        ("\"eHk=\"", "\"eHl=\"", "payload is not canonical"),
        ("\"eHk=\"", "\"eHk= \"", "payload is not canonical"),
        ("\"eHk=\"", "\"eH\\nk=\"", "payload is not canonical"),
        ("\"eHk=\"", "\"-_8=\"", "payload is not canonical"),
        ("\"eHk=\"", "null", "not a DSSE envelope"),
        ("\"sig\"", "\"keyid\":\"a\",\"keyid\":\"b\",\"sig\"", "not a DSSE envelope"),
        ("\"sig\"", "\"cert\":\"a\",\"sig\"", "not a DSSE envelope"),
        (&good, &format!(r#"["t","eHk=",[{{"sig":"{sig}"}}]]"#), "not a DSSE envelope"),
        (&format!("{{\"sig\":\"{sig}\"}}"), &format!("[\"\",\"{sig}\"]"), "not a DSSE envelope"),
        (&sig[..8], "", "bytes, at most"),
        (&sig[..1], "", "signature is not canonical"),
        (&format!("{{\"sig\":\"{sig}\"}}"), "", "0 signatures"),
    ] {
        let bad = good.replacen(from, to, 1);
        assert_ne!(bad, good, "{from}");
        let error = parse(&bad).unwrap_err().to_string();
        assert!(error.contains(says), "{bad}: {error}");
    }
    assert!(parse(&format!("{good}x")).is_err());
    assert!(parse(&good[..good.len() - 1]).is_err());
    let many = vec![format!("{{\"sig\":\"{sig}\"}}"); SIGNATURES_MAX + 1].join(",");
    let many = format!(r#"{{"payloadType":"t","payload":"","signatures":[{many}]}}"#);
    assert!(matches!(parse(&many), Err(EnvelopeError::SignatureCount(17))));
    let long = good.replace("{\"sig\"", &format!("{{\"keyid\":\"{}\",\"sig\"", "k".repeat(KEYID_MAX + 1)));
    assert!(matches!(parse(&long), Err(EnvelopeError::KeyIdLength { index: 0, length: 257 })));
    let sig = STANDARD.encode([1; SIGNATURE_MAX + 1]);
    let long = format!(r#"{{"payloadType":"t","payload":"","signatures":[{{"sig":"{sig}"}}]}}"#);
    assert!(matches!(parse(&long), Err(EnvelopeError::SignatureLength { index: 0, length: 1025 })));
}

#[test]
fn what_is_too_large_is_refused_before_it_is_read() {
    assert!(matches!(Envelope::parse(&vec![b' '; ENVELOPE_MAX + 1]), Err(EnvelopeError::TooLong(_))));
    let huge = vec![0; ENVELOPE_MAX];
    assert!(matches!(Envelope::sign("t", huge, &key()), Err(EnvelopeError::TooLong(_))));
    let most = vec![0; ENVELOPE_MAX / 4 * 3 - (64 << 10)];
    let envelope = Envelope::sign("t", most, &key()).unwrap();
    assert!(envelope.to_json().unwrap().len() <= ENVELOPE_MAX);
    assert!(matches!(Envelope::sign("a b", Vec::new(), &key()), Err(EnvelopeError::PayloadType)));
}

proptest! {
    /// Different (type, body) have different encodings: no payload passes as one of another type.
    #[test]
    fn pae_is_injective(
        a in ("[ -~]{0,12}", proptest::collection::vec(any::<u8>(), 0..12)),
        b in ("[ -~]{0,12}", proptest::collection::vec(any::<u8>(), 0..12)),
    ) {
        prop_assert_eq!(pae(&a.0, &a.1) == pae(&b.0, &b.1), a == b);
    }

    /// A bit of payload, type or signature that changes makes the signature bad.
    #[test]
    fn a_changed_envelope_is_unsigned(payload in proptest::collection::vec(any::<u8>(), 1..200), bit in any::<usize>(), part in 0..3) {
        let signer = key();
        let mut envelope = Envelope::sign("type/x", payload, &signer).unwrap();
        match part {
            0 => {
                let bit = bit % (envelope.payload.len() * 8);
                envelope.payload[bit / 8] ^= 1 << (bit % 8);
            }
            1 => envelope.payload_type.push('x'),
            _ => {
                let bit = bit % 512;
                envelope.signatures[0].bytes[bit / 8] ^= 1 << (bit % 8);
            }
        }
        prop_assert!(envelope.verify([signer.public()]).is_empty());
    }

    /// A byte of the JSON that changes, appears or goes makes it unreadable or unsigned, or changes
    /// nothing that is signed.
    #[test]
    fn changed_json_never_says_something_else(at in any::<usize>(), byte in any::<u8>(), way in 0..3) {
        let signer = key();
        let envelope = Envelope::sign("type/x", b"payload".to_vec(), &signer).unwrap();
        let mut json = envelope.to_json().unwrap();
        let at = at % json.len();
        match way {
            0 => json[at] = byte,
            1 => json.insert(at, byte),
            _ => json.truncate(at),
        }
        if let Ok(read) = Envelope::parse(&json)
            && !read.verify([signer.public()]).is_empty()
        {
            prop_assert_eq!((read.payload_type, read.payload), (envelope.payload_type, envelope.payload));
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(Envelope::parse(&bytes).is_err());
    }
}
