//! The DSSE envelope and the in-toto statement: no bytes make a reader panic, an envelope that is
//! read is written as the same, and a key that signed nothing has signed nothing.
#![no_main]

use aos_trust::dsse::Envelope;
use aos_trust::key::PublicKey;
use aos_trust::statement::Statement;
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

/// The key of RFC 8032's second test.
const PEM: &str = include_str!("../../crates/aos-trust/src/key/testdata/openssl-public.pem");
static KEY: LazyLock<PublicKey> = LazyLock::new(|| PublicKey::from_pem(PEM).expect("it is a key"));

fuzz_target!(|bytes: &[u8]| {
    if let Ok(envelope) = Envelope::parse(bytes) {
        let json = envelope.to_json().expect("it was read");
        assert_eq!(Envelope::parse(&json).expect("it was written"), envelope);
        assert!(envelope.verify([&*KEY]).is_empty(), "a signature nobody made");
        drop(Statement::parse(envelope.unverified_payload()));
    }
    if let Ok(statement) = Statement::parse(bytes) {
        let json = statement.to_json().expect("it was read");
        assert_eq!(Statement::parse(&json).expect("it was written").subjects, statement.subjects);
    }
});
