//! Keys: their forms, the bounds on hostile files, the directory's promises.

use super::*;
use crate::FileError;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

fn passphrase(text: &str) -> Passphrase {
    Passphrase::new(text.to_owned()).unwrap()
}

fn name(text: &str) -> KeyName {
    text.parse().unwrap()
}

/// RFC 8032, 7.1, TEST 2.
const SEED: [u8; 32] = [
    0x4c, 0xcd, 0x08, 0x9b, 0x28, 0xff, 0x96, 0xda, 0x9d, 0xb6, 0xc3, 0x46, 0xec, 0x11, 0x4e, 0x0f, 0x5b,
    0x8a, 0x31, 0x9f, 0x35, 0xab, 0xa6, 0x24, 0xda, 0x8c, 0xf6, 0xed, 0x4f, 0xb8, 0xa6, 0xfb,
];

/// That seed as `openssl pkey` and `openssl pkcs8 -topk8 -passout pass:test` write it.
const OPENSSL_PLAIN: &str = include_str!("testdata/openssl-plain.pem");
const OPENSSL_PUBLIC: &str = include_str!("testdata/openssl-public.pem");
const OPENSSL_PBKDF2: &str = include_str!("testdata/openssl-pbkdf2.pem");
const OPENSSL_SCRYPT: &str = include_str!("testdata/openssl-scrypt.pem");
const OPENSSL_RSA: &str = include_str!("testdata/openssl-rsa-public.pem");

#[test]
fn signatures_are_those_of_rfc_8032() {
    let key = PrivateKey::from_seed(&SEED).unwrap();
    let signature = key.sign(&[0x72]);
    let hex: String = signature.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(
        hex,
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da\
         085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
    );
    assert!(key.public().verify(&[0x72], &signature));
    assert!(!key.public().verify(&[0x73], &signature));
}

#[test]
fn a_signature_has_one_form() {
    let key = PrivateKey::from_seed(&SEED).unwrap();
    let signature = key.sign(b"m");
    // s + L, where L is the group's order: a verifier that does not compare s with L takes it.
    const L: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let mut malleable = signature;
    let mut carry = 0;
    for (byte, add) in malleable[32..].iter_mut().zip(L) {
        let sum = u16::from(*byte) + u16::from(add) + carry;
        (*byte, carry) = (sum.to_le_bytes()[0], sum >> 8);
    }
    assert_eq!(carry, 0);
    assert!(!key.public().verify(b"m", &malleable));
    for length in [0, 63, 65] {
        let mut other = signature.to_vec();
        other.resize(length, 0);
        assert!(!key.public().verify(b"m", &other));
    }
    for bit in 0..512 {
        let mut flipped = signature;
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(!key.public().verify(b"m", &flipped), "bit {bit}");
    }
}

#[test]
fn a_weak_public_key_is_refused() {
    // The neutral element: with R = A and s = 0 everybody signs everything.
    let der = [&[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00, 0x01][..], &[0; 31]]
        .concat();
    let pem = pkcs8::der::pem::encode_string("PUBLIC KEY", LineEnding::LF, &der).unwrap();
    assert!(matches!(PublicKey::from_pem(&pem), Err(KeyError::Weak)));
}

#[test]
fn openssl_keys_are_read_in_each_form() {
    let public = PublicKey::from_pem(OPENSSL_PUBLIC).unwrap();
    assert_eq!(public.to_pem().unwrap(), OPENSSL_PUBLIC);
    assert_eq!(PrivateKey::from_pem(OPENSSL_PLAIN, None).unwrap().public(), &public);
    for pem in [OPENSSL_PBKDF2, OPENSSL_SCRYPT] {
        assert_eq!(PrivateKey::from_pem(pem, Some(&passphrase("test"))).unwrap().public(), &public);
        assert!(matches!(PrivateKey::from_pem(pem, None), Err(KeyError::PassphraseNeeded)));
        assert!(matches!(PrivateKey::from_pem(pem, Some(&passphrase("tesT"))), Err(KeyError::Passphrase)));
    }
}

#[test]
fn a_key_survives_its_own_form() {
    let key = PrivateKey::from_seed(&SEED).unwrap();
    let first = key.to_pem(&passphrase("pässword ✓")).unwrap();
    assert!(first.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----\n") && first.len() < PEM_MAX);
    assert_ne!(*first, *key.to_pem(&passphrase("pässword ✓")).unwrap(), "the salt is new");
    let read = PrivateKey::from_pem(&first, Some(&passphrase("pässword ✓"))).unwrap();
    assert_eq!(read.key.to_bytes(), SEED);
    let public = key.public().to_pem().unwrap();
    assert_eq!(PublicKey::from_pem(&public).unwrap(), *key.public());
    assert_eq!(format!("{:?}", key.public()), format!("PublicKey({})", key.public().id()));
}

#[test]
fn what_is_no_key_says_what_it_is() {
    let read = |pem: &str| PublicKey::from_pem(pem).unwrap_err().to_string();
    assert!(read(OPENSSL_PLAIN).contains("public key (it is a private key)"));
    assert!(read(OPENSSL_RSA).contains("of another kind"));
    assert!(read("ssh-ed25519 AAAA").contains("no PEM text"));
    assert!(read(&"x".repeat(PEM_MAX + 1)).contains("at most"));
    assert!(read(&format!("{OPENSSL_PUBLIC}{OPENSSL_PUBLIC}")).contains("no PEM text"));
    let private = PrivateKey::from_pem(OPENSSL_PUBLIC, None).err().unwrap().to_string();
    assert!(private.contains("private key in PKCS#8 (it is a public key)"));
}

/// A scrypt key file that asks for `n`, `r` and `p`, with the numbers' own encodings.
fn scrypt_file(n: u64, r: u16, p: u16) -> String {
    use pkcs8::der::Encode as _;
    use pkcs8::pkcs5::pbes2;
    let kdf = pbes2::ScryptParams {
        salt: pbes2::Salt::new([0; 16]).unwrap(),
        cost_parameter: n,
        block_size: r,
        parallelization: p,
        key_length: None,
    };
    let encryption = pbes2::EncryptionScheme::Aes256Cbc { iv: [0; 16] };
    let info = pkcs8::EncryptedPrivateKeyInfoOwned {
        encryption_algorithm: pbes2::Parameters { kdf: kdf.into(), encryption }.into(),
        encrypted_data: pkcs8::der::asn1::OctetString::new(vec![0; 64]).unwrap(),
    };
    pkcs8::der::pem::encode_string("ENCRYPTED PRIVATE KEY", LineEnding::LF, &info.to_der().unwrap()).unwrap()
}

#[test]
fn a_hostile_key_file_gets_no_memory_and_no_time() {
    for (n, r, p, says) in [
        (1 << 30, 8, 1, "scrypt memory"),
        (1 << 16, 8, 1, "scrypt memory"),
        (1 << 63, u16::MAX, u16::MAX, "scrypt memory"),
        (1 << 14, 8, u16::MAX, "scrypt work"),
        (2, 1, u16::MAX, "passphrase is wrong"),
        (0, 8, 1, "no power of two"),
        (1, 8, 1, "no power of two"),
        (3, 8, 1, "no power of two"),
        (2, 0, 1, "passphrase is wrong"),
        (2, 1, 0, "passphrase is wrong"),
    ] {
        let error = PrivateKey::from_pem(&scrypt_file(n, r, p), Some(&passphrase("x"))).err().unwrap();
        assert!(error.to_string().contains(says), "{n} {r} {p}: {error}");
    }
}

#[test]
fn passphrases() {
    assert_eq!(Passphrase::new(String::new()).err(), Some(PassphraseError::Empty));
    assert_eq!(Passphrase::new("x".repeat(1024)).err(), Some(PassphraseError::TooLong(1024)));
    for text in ["a\0b", "a\n", "\ra"] {
        assert_eq!(Passphrase::new(text.to_owned()).err(), Some(PassphraseError::Break));
    }
}

#[test]
fn key_ids_and_names() {
    let hex = "0a".repeat(32);
    assert_eq!(hex.parse::<KeyId>().unwrap().to_string(), hex);
    assert_eq!(format!("sha256:{hex}").parse::<KeyId>().unwrap().to_string(), hex);
    for bad in ["", "0a", &hex.to_uppercase(), &format!("sha256:sha256:{hex}"), &format!("{hex} ")] {
        assert!(bad.parse::<KeyId>().is_err(), "{bad:?}");
    }
    for bad in ["", ".", "..", "../x", "a/b", "-x", ".x", "a b", "é", &"x".repeat(64)] {
        assert!(bad.parse::<KeyName>().is_err(), "{bad:?}");
    }
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o7777
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_directory_keeps_its_keys() {
    let temporary = tempfile::tempdir().unwrap();
    let keys = KeyDirectory::new(temporary.path().join("a/keys"));
    assert!(keys.list().unwrap().is_empty());
    let release = name("release");
    let public = keys.generate(&release, &passphrase("one")).unwrap();
    assert_eq!(mode(keys.path()), 0o700);
    assert_eq!(mode(&keys.path().join("release.key")), 0o600);
    assert_eq!(mode(&keys.path().join("release.pub")), 0o644);
    assert_eq!(keys.public(&release).unwrap(), public);
    assert_eq!(keys.private(&release, &passphrase("one")).unwrap().public(), &public);
    assert!(keys.private(&release, &passphrase("two")).is_err());

    let other = PrivateKey::generate().unwrap();
    keys.import_public(&name("friend"), other.public()).unwrap();
    fs::write(keys.path().join("notes.txt"), "").unwrap();
    let entries = keys.list().unwrap();
    let shown: Vec<_> = entries.iter().map(|entry| (entry.name.as_str(), entry.private)).collect();
    assert_eq!(shown, [("friend", Private::Absent), ("release", Private::Present)]);
    assert_eq!(keys.find(&other.public().id()).unwrap().unwrap().0, name("friend"));
    let error = keys.private_pem(&name("friend")).err().unwrap().to_string();
    assert!(error.contains("only the public half"), "{error}");
    assert!(matches!(keys.public(&name("none")), Err(KeyDirectoryError::Missing { .. })));
}

#[test]
fn a_key_is_never_overwritten() {
    let temporary = tempfile::tempdir().unwrap();
    let keys = KeyDirectory::new(temporary.path());
    chmod(temporary.path(), 0o700);
    let x = name("x");
    keys.generate(&x, &passphrase("p")).unwrap();
    let before = fs::read(temporary.path().join("x.key")).unwrap();
    assert!(matches!(
        keys.generate(&x, &passphrase("p")),
        Err(KeyDirectoryError::File(FileError::Exists(_)))
    ));
    let other = PrivateKey::generate().unwrap();
    assert!(keys.import(&x, &other, &passphrase("p")).is_err());
    assert!(keys.import_public(&x, other.public()).is_err());
    assert_eq!(fs::read(temporary.path().join("x.key")).unwrap(), before);
    // A dangling link is a file that is there.
    symlink("/nonexistent", temporary.path().join("y.key")).unwrap();
    assert!(keys.generate(&name("y"), &passphrase("p")).is_err());
    assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 3, "nothing is left over");
}

#[test]
fn many_writers_of_one_name_have_one_winner() {
    let temporary = tempfile::tempdir().unwrap();
    let keys = KeyDirectory::new(temporary.path().join("keys"));
    let winners: Vec<PublicKey> = std::thread::scope(|scope| {
        let work = || keys.generate(&name("x"), &passphrase("p"));
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(work)).collect();
        threads.into_iter().filter_map(|thread| thread.join().unwrap().ok()).collect()
    });
    assert_eq!(winners.len(), 1);
    assert_eq!(keys.private(&name("x"), &passphrase("p")).unwrap().public(), &winners[0]);
}

#[test]
fn a_private_key_that_others_can_read_is_refused() {
    let temporary = tempfile::tempdir().unwrap();
    let keys = KeyDirectory::new(temporary.path().join("keys"));
    let x = name("x");
    keys.generate(&x, &passphrase("p")).unwrap();
    let file = keys.path().join("x.key");
    for bad in [0o640, 0o604, 0o620, 0o602, 0o610] {
        chmod(&file, bad);
        let error = keys.private(&x, &passphrase("p")).err().unwrap().to_string();
        assert!(error.contains("its group or others may read or write it"), "{error}");
    }
    chmod(&file, 0o400);
    keys.private(&x, &passphrase("p")).unwrap();
    fs::rename(&file, keys.path().join("elsewhere")).unwrap();
    symlink("elsewhere", &file).unwrap();
    assert!(keys.private(&x, &passphrase("p")).is_err(), "a link is not followed");
    chmod(keys.path(), 0o777);
    assert!(keys.generate(&name("y"), &passphrase("p")).is_err());
}

#[test]
fn swapped_halves_are_found() {
    let temporary = tempfile::tempdir().unwrap();
    let keys = KeyDirectory::new(temporary.path().join("keys"));
    keys.generate(&name("x"), &passphrase("p")).unwrap();
    keys.generate(&name("y"), &passphrase("p")).unwrap();
    fs::rename(keys.path().join("y.pub"), keys.path().join("x.pub")).unwrap();
    let error = keys.private(&name("x"), &passphrase("p")).err().unwrap();
    assert!(matches!(error, KeyDirectoryError::NotAPair { .. }));
}
