//! Key files, as `aos key import` takes them from anybody: no text makes the reader panic, and none
//! takes more memory or time than a key's decryption needs.
#![no_main]

use aos_trust::key::{Passphrase, PrivateKey, PublicKey};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(key) = PublicKey::from_pem(text) {
        let pem = key.to_pem().expect("it was read");
        assert_eq!(PublicKey::from_pem(&pem).expect("it was written"), key);
    }
    let passphrase = Passphrase::new("test".to_owned()).expect("it is one");
    drop(PrivateKey::from_pem(text, Some(&passphrase)));
});
