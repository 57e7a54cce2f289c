//! The user's keys and their passphrases.
//!
//! Keys are in `$AOS_KEYS`, else `$XDG_CONFIG_HOME/aos/keys`. A passphrase is typed without echo, or read from a file
//! or an open descriptor; never from an argument or a variable, which other processes can read.

use std::fs::File;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use aos_trust::key::{KeyDirectory, KeyDirectoryError, KeyName, Passphrase, PrivateKey, PublicKey};
use clap::{Args, ValueHint};
use zeroize::Zeroizing;

use crate::configure::secret::Secret;
use crate::configure::terminal::Terminal;
use crate::configure::tty::Tty;
use crate::environment;
use crate::exit::{Exit, ExitExt};
use crate::failure::{HintExt, hinted};
use crate::package;

/// The controlling terminal, wherever the standard streams go.
const TERMINAL: &str = "/dev/tty";
/// The prefix of a descriptor in place of a file.
const DESCRIPTOR: &str = "fd:";

/// Where the passphrase of a private key comes from.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct PassphraseArgs {
    /// Read the passphrase of the key from this file, `-` for standard input, or fd:N for an open descriptor
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    passphrase_file: Option<PathBuf>,
}

/// Whether a passphrase is being chosen or told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asking {
    /// A new one: it is asked for twice.
    New,
    /// One that exists.
    Known,
}

impl PassphraseArgs {
    /// Gets the passphrase. `whose` names the key.
    pub(crate) fn obtain(&self, whose: &str, asking: Asking) -> Result<Passphrase> {
        let secret = match &self.passphrase_file {
            Some(path) => from_file(path)?,
            None => ask(whose, asking)?,
        };
        Passphrase::new(Zeroizing::new(secret.reveal().to_owned())).context("the passphrase cannot be used")
    }
}

fn from_file(path: &Path) -> Result<Secret> {
    let descriptor = path.to_str().and_then(|text| text.strip_prefix(DESCRIPTOR));
    match descriptor.map(str::parse::<u32>) {
        None => Secret::from_path(path),
        Some(Ok(number)) => Secret::from_path(Path::new(&format!("/proc/self/fd/{number}"))),
        Some(Err(_)) => bail!("`{}` is not a descriptor, expected a number such as fd:3", path.display()),
    }
}

fn ask(whose: &str, asking: Asking) -> Result<Secret> {
    let advice = "--passphrase-file FILE reads the passphrase from a file";
    let device = File::options().read(true).write(true).open(TERMINAL);
    let device = match device {
        Ok(device) if device.is_terminal() => device,
        Ok(_) | Err(_) => return Err(hinted("there is no terminal to ask for the passphrase on", advice)),
    };
    let mut terminal = Tty::new(device).context("cannot ask for the passphrase")?;
    let mut read = |prompt: String| -> Result<Secret> {
        let answer = terminal.read_secret(&prompt).context("cannot read the passphrase")?;
        answer.context("no passphrase was given")
    };
    match asking {
        Asking::Known => read(format!("Passphrase of {whose} (not shown): ")),
        Asking::New => {
            let first = read(format!("New passphrase of {whose} (not shown): "))?;
            let second = read("The same again: ".to_owned())?;
            if first != second {
                bail!("the two passphrases differ");
            }
            Ok(first)
        }
    }
}

/// The directory of the user's keys.
pub(crate) fn directory() -> Result<KeyDirectory> {
    let path = match environment::keys() {
        Some(path) => path,
        None => environment::config_home()
            .ok_or_else(|| {
                hinted("there is no home directory to keep keys in", "set AOS_KEYS to a directory")
            })?
            .join("aos/keys"),
    };
    Ok(KeyDirectory::new(path))
}

/// True when a word names a file rather than a key of the directory.
fn is_path(word: &str) -> bool {
    word.contains('/') || word.ends_with(".pem") || word.ends_with(".key") || word.ends_with(".pub")
}

/// A key's name.
pub(crate) fn name(word: &str) -> Result<KeyName> {
    word.parse().with_context(|| format!("`{word}` is no key"))
}

/// The private key that a word names: one of the directory, or a PEM file.
pub(crate) fn private(word: &str, passphrase: &PassphraseArgs) -> Result<PrivateKey> {
    if is_path(word) {
        let text = read_pem(Path::new(word))?;
        let passphrase =
            if text.contains("ENCRYPTED") { Some(passphrase.obtain(word, Asking::Known)?) } else { None };
        return PrivateKey::from_pem(&text, passphrase.as_ref())
            .with_context(|| format!("cannot use the key {word}"));
    }
    let name = name(word)?;
    let directory = directory()?;
    // A name without a key is told before anybody types a passphrase.
    found(directory.private_pem(&name))?;
    let passphrase = passphrase.obtain(&format!("the key {name}"), Asking::Known)?;
    found(directory.private(&name, &passphrase))
}

/// The public key that a word names: one of the directory, or a PEM file.
pub(crate) fn public(word: &str) -> Result<PublicKey> {
    if is_path(word) {
        let text = read_pem(Path::new(word))?;
        return PublicKey::from_pem(&text)
            .hint("`aos key export NAME` writes a public key")
            .with_context(|| format!("cannot use the key {word}"));
    }
    found(directory()?.public(&name(word)?))
}

/// The text of a PEM file, within the bound of a key.
pub(crate) fn read_pem(path: &Path) -> Result<Zeroizing<String>> {
    if path != Path::new("-") {
        package::open(path)?;
    }
    let secret = Secret::from_path(path)?;
    Ok(Zeroizing::new(secret.reveal().to_owned()))
}

/// Marks a key that is not there.
pub(crate) fn found<T>(result: Result<T, KeyDirectoryError>) -> Result<T> {
    match result {
        Err(error @ KeyDirectoryError::Missing { .. }) => Err(error).exit(Exit::NotFound),
        other => Ok(other?),
    }
}
