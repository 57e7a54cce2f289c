//! Administrator access: a password for root, or SSH keys that may log in as root.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use sha2::{Digest as _, Sha256};

use super::secret::Secret;
use super::system::System;
use super::terminal::Questions;
use super::wizard::StepError;

/// The shortest password taken. NIST SP 800-63B asks for at least 8 characters.
const MIN_PASSWORD: usize = 8;
/// The longest: what pam_unix and crypt(5) take is 512.
const MAX_PASSWORD: usize = 511;
/// The shortest RSA modulus that OpenSSH 9 and later accept is 2,048 bits by Debian's policy.
const MIN_RSA_BITS: usize = 2048;

/// The key types that OpenSSH in Debian 13 accepts.
const KEY_TYPES: [&str; 7] = [
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "ssh-rsa",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
];

/// What lets root log in now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct RootAccess {
    /// Root has a password that works.
    pub(crate) password: bool,
    /// The number of valid keys in root's `authorized_keys`.
    pub(crate) keys: usize,
}

impl RootAccess {
    /// True when somebody can administer the machine.
    pub(crate) fn any(self) -> bool {
        self.password || self.keys > 0
    }
}

/// A change to administrator access.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct AccessChange {
    /// The new password.
    pub(crate) password: Option<Password>,
    /// Keys to add.
    pub(crate) keys: Vec<PublicKey>,
}

/// A password, or its hash by crypt(5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Password {
    Plain(Secret),
    Hashed(Secret),
}

impl Password {
    /// Checks a password that a person chose.
    pub(crate) fn plain(secret: Secret) -> Result<Self, String> {
        check_password(&secret)?;
        Ok(Self::Plain(secret))
    }

    /// Checks a hash as `passwd.hashed-password.root` carries it.
    pub(crate) fn hashed(secret: Secret) -> Result<Self, String> {
        let text = secret.reveal().trim();
        let shape = text.starts_with('$') && text.matches('$').count() >= 3;
        if !shape || text.bytes().any(|byte| !byte.is_ascii_graphic() || byte == b':') {
            return Err("a password hash looks like $y$..$..$.. (`mkpasswd` makes one)".to_owned());
        }
        Ok(Self::Hashed(Secret::new(text.to_owned())))
    }
}

fn check_password(secret: &Secret) -> Result<(), String> {
    let text = secret.reveal();
    if text.chars().count() < MIN_PASSWORD {
        return Err(format!("a password has at least {MIN_PASSWORD} characters"));
    }
    if text.len() > MAX_PASSWORD {
        return Err(format!("a password has at most {MAX_PASSWORD} bytes"));
    }
    if text.chars().any(char::is_control) {
        return Err("a password has no control characters (was an arrow key pressed?)".to_owned());
    }
    Ok(())
}

/// An SSH public key, checked down to its encoding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PublicKey {
    kind: String,
    blob: Vec<u8>,
    comment: String,
}

impl PublicKey {
    /// Parses one line as `ssh-keygen` writes it: type, base64, comment.
    pub(crate) fn parse(line: &str) -> Result<Self, String> {
        if line.contains("PRIVATE KEY") {
            return Err("this is a private key, which stays where it is; give the .pub file".to_owned());
        }
        let mut words = line.split_whitespace();
        let (Some(kind), Some(encoded)) = (words.next(), words.next()) else {
            return Err("a public key is one line: its type, its text and a comment".to_owned());
        };
        if !KEY_TYPES.contains(&kind) {
            return Err(format!("`{}` is no key type; known are {}", shorten(kind), KEY_TYPES.join(", ")));
        }
        let blob = STANDARD
            .decode(encoded)
            .or_else(|_| STANDARD_NO_PAD.decode(encoded))
            .map_err(|_| "the text of the key is not complete base64".to_owned())?;
        let mut fields = Fields(&blob);
        if fields.next() != Some(kind.as_bytes()) {
            return Err("the text of the key does not match its type".to_owned());
        }
        check_fields(kind, fields)?;
        let comment: String = words.collect::<Vec<_>>().join(" ");
        if comment.chars().any(char::is_control) {
            return Err("the comment has control characters".to_owned());
        }
        Ok(Self { kind: kind.to_owned(), blob, comment })
    }

    /// Parses a file of keys: one a line, empty lines and comments left out, at least one.
    pub(crate) fn parse_file(text: &str) -> Result<Vec<Self>, String> {
        let mut keys = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if !line.is_empty() && !line.starts_with('#') {
                keys.push(Self::parse(line).map_err(|problem| format!("line {}: {problem}", number + 1))?);
            }
        }
        if keys.is_empty() { Err("there is no key in it".to_owned()) } else { Ok(keys) }
    }

    /// True when both are the same key, whatever their comments.
    pub(crate) fn same_key(&self, other: &Self) -> bool {
        self.kind == other.kind && self.blob == other.blob
    }

    /// The line for `authorized_keys`, without a line break.
    pub(crate) fn line(&self) -> String {
        let key = format!("{} {}", self.kind, STANDARD.encode(&self.blob));
        if self.comment.is_empty() { key } else { format!("{key} {}", self.comment) }
    }

    /// The fingerprint as `ssh-keygen -l` shows it.
    pub(crate) fn fingerprint(&self) -> String {
        format!("SHA256:{}", STANDARD_NO_PAD.encode(Sha256::digest(&self.blob)))
    }
}

/// Checks what follows the type in a key: the number of fields, and the strength of RSA.
fn check_fields(kind: &str, fields: Fields<'_>) -> Result<(), String> {
    let incomplete = || "the text of the key is cut short".to_owned();
    let rest: Vec<&[u8]> = {
        let mut fields = fields;
        let mut rest = Vec::new();
        while let Some(field) = fields.next() {
            rest.push(field);
        }
        if !fields.0.is_empty() {
            return Err(incomplete());
        }
        rest
    };
    match (kind, rest.as_slice()) {
        ("ssh-ed25519", [key]) if key.len() == 32 => Ok(()),
        ("ssh-rsa", [_, modulus]) => {
            let bits = modulus.iter().skip_while(|&&byte| byte == 0).count() * 8;
            if bits < MIN_RSA_BITS {
                return Err(format!("an RSA key has at least {MIN_RSA_BITS} bits, this one has {bits}"));
            }
            Ok(())
        }
        (kind, [_, point]) if kind.starts_with("ecdsa-") && !point.is_empty() => Ok(()),
        ("sk-ssh-ed25519@openssh.com", [key, _]) if key.len() == 32 => Ok(()),
        ("sk-ecdsa-sha2-nistp256@openssh.com", [_, point, _]) if !point.is_empty() => Ok(()),
        _ => Err(incomplete()),
    }
}

/// The length-prefixed fields of a key (RFC 4251, section 5, `string`).
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn next(&mut self) -> Option<&'a [u8]> {
        let (length, rest) = self.0.split_first_chunk::<4>()?;
        let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
        let (field, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some(field)
    }
}

fn shorten(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(40).collect()
}

/// Asks how the administrator logs in; `None` when it stays as it is.
pub(crate) fn ask(ask: &mut Questions<'_>, system: &dyn System) -> Result<Option<AccessChange>, StepError> {
    let now = system.root_access()?;
    ask.say("How you log in as root, the administrator.")?;
    ask.say(match (now.password, now.keys) {
        (false, 0) => "  Now: nobody can log in.",
        (true, 0) => "  Now: by password.",
        (false, _) => "  Now: by SSH key.",
        (true, _) => "  Now: by password and by SSH key.",
    })?;
    let options = ["a password", "an SSH public key", "both", "leave it as it is"];
    let chosen = ask.choose("Log in with", &options, Some(if now.any() { 3 } else { 0 }))?;
    let mut change = AccessChange::default();
    if matches!(chosen, 0 | 2) {
        change.password = Some(ask_password(ask)?);
    }
    if matches!(chosen, 1 | 2) {
        change.keys.push(ask_key(ask)?);
    }
    if chosen == 3 && !now.any() {
        ask.say("  Nobody will be able to log in until you run the setup again.")?;
    }
    Ok((chosen != 3).then_some(change))
}

fn ask_password(ask: &mut Questions<'_>) -> Result<Password, StepError> {
    ask.say(&format!("At least {MIN_PASSWORD} characters; it is asked twice."))?;
    loop {
        let first = ask.secret("New password for root", check_password)?;
        let second = ask.secret("The same again", |_| Ok(()))?;
        if first == second {
            return Ok(Password::Plain(first));
        }
        ask.say("  The two differ; try again.")?;
    }
}

fn ask_key(ask: &mut Questions<'_>) -> Result<PublicKey, StepError> {
    ask.say("Paste the line of your .pub file, such as: ssh-ed25519 AAAA... you@laptop")?;
    let key = ask.text("SSH public key", None, PublicKey::parse)?;
    ask.say(&format!("  {}", key.fingerprint()))?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::super::fake::{FakeSystem, Script};
    use super::*;

    /// A key made for this test by `ssh-keygen -t ed25519`; its private half was thrown away.
    pub(crate) const KEY: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBA test@example";

    #[test]
    fn a_key_survives_the_round_trip() {
        let key = PublicKey::parse(KEY).unwrap();
        assert_eq!(key.line(), KEY);
        assert!(key.fingerprint().starts_with("SHA256:"));
        assert!(key.same_key(&PublicKey::parse(&KEY.replace("test@example", "other")).unwrap()));
    }

    #[test]
    fn what_is_no_public_key_is_refused() {
        let cut = KEY.replace("EBAQEBA test@example", "");
        let bad = [
            "",
            "ssh-ed25519",
            "-----BEGIN OPENSSH PRIVATE KEY-----",
            "ssh-dss AAAAB3NzaC1kc3MAAACBA x",
            "ssh-ed25519 not-base64! x",
            "ssh-rsa AAAAC3NzaC1lZDI1NTE5AAAAIEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBA x",
            "command=\"sh\" ssh-ed25519 AAAA x",
            cut.as_str(),
        ];
        for bad in bad {
            assert!(PublicKey::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_file_names_the_line_that_is_wrong() {
        let problem = PublicKey::parse_file(&format!("# mine\n{KEY}\nnonsense\n")).unwrap_err();
        assert!(problem.starts_with("line 3:"), "{problem}");
        assert_eq!(PublicKey::parse_file(&format!("{KEY}\n\n{KEY}\n")).unwrap().len(), 2);
        assert!(PublicKey::parse_file("# none\n").is_err());
    }

    #[test]
    fn passwords_are_confirmed_and_never_shown() {
        let system = FakeSystem::default();
        let answers = ["1", "short", "correct horse", "correct house", "correct horse", "correct horse"];
        let mut script = Script::new(answers);
        let change = ask(&mut Questions::new(&mut script), &system).unwrap().unwrap();
        assert_eq!(change.password, Some(Password::Plain(Secret::new("correct horse".into()))));
        let shown = script.shown();
        assert!(shown.contains("at least 8 characters") && shown.contains("The two differ"));
        assert!(!shown.contains("correct"));
    }

    #[test]
    fn a_hash_is_told_from_a_password() {
        assert!(Password::hashed(Secret::new("$y$j9T$abc$def\n".into())).is_ok());
        for bad in ["hunter2", "", "!", "$y$a", "$y$j9T$abc$d:f"] {
            assert!(Password::hashed(Secret::new(bad.into())).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn nothing_changes_when_it_is_left() {
        let system = FakeSystem { access: RootAccess { password: true, keys: 0 }, ..FakeSystem::default() };
        let mut script = Script::new([""]);
        assert_eq!(ask(&mut Questions::new(&mut script), &system).unwrap(), None);
    }
}
