//! What is not granted without a look: writing, places that look like secrets, and the dynamic loader.
//! It keeps an answer that is given without looking (`--yes`, "all") from granting them. Secrets and
//! the loader are known by their names; what these rules do not know is no proof of harmlessness.

use std::fmt;

use aos_core::capability::{Capability, KernelPrefix, Right};
use aos_core::path::AbsolutePath;

/// Directories whose contents are credentials or private, at the top of the file system.
const DIRECTORIES: [(&str, &str); 10] = [
    ("/root", "it is root's home"),
    ("/etc/ssl/private", "it holds private keys"),
    ("/etc/credstore", "it holds credentials of services"),
    ("/etc/credstore.encrypted", "it holds credentials of services"),
    ("/etc/aos", "it is AOS's own configuration"),
    ("/etc/wireguard", "it holds private keys"),
    ("/etc/NetworkManager/system-connections", "it holds passwords of networks"),
    ("/etc/sudoers.d", "it says who may become root"),
    ("/var/lib/private", "it is private to services"),
    ("/var/lib/systemd", "it holds the key of the machine's credentials"),
];
/// Directories of AOS start with this.
const OWN_PREFIX: &str = "/var/lib/aos";

/// Files, at the top of the file system.
const FILES: [&str; 8] = [
    "/etc/shadow",
    "/etc/shadow-",
    "/etc/gshadow",
    "/etc/gshadow-",
    "/etc/sudoers",
    "/etc/krb5.keytab",
    "/etc/machine-id",
    "/etc/security/opasswd",
];

/// Names of directories that hold credentials wherever they are, such as in a home.
const SEGMENTS: [&str; 12] = [
    ".ssh",
    ".gnupg",
    ".aws",
    ".azure",
    ".kube",
    ".docker",
    ".config",
    ".mozilla",
    ".password-store",
    "gcloud",
    "keyrings",
    "private",
];
/// Names of files that hold credentials wherever they are.
const NAMES: [&str; 12] = [
    ".env",
    ".envrc",
    ".netrc",
    ".npmrc",
    ".pypirc",
    ".pgpass",
    ".git-credentials",
    ".bash_history",
    "credentials",
    "credentials.json",
    "token",
    "secrets.yaml",
];
/// Ends of names of private keys and stores of keys.
const ENDINGS: [&str; 7] = [".key", ".pem", ".p12", ".pfx", ".jks", ".kdbx", "_key"];
/// What private keys of OpenSSH start with.
const KEY_PREFIX: &str = "id_";
/// What dynamic loaders are called (ld.so(8)).
const LOADERS: [&str; 3] = ["ld-linux", "ld.so", "ld-musl"];
/// The public half, and certificates that everybody may read.
const PUBLIC: [&str; 2] = [".pub", ".crt"];
const CERTIFICATES: [&str; 3] = ["/etc/ssl/certs", "/usr/share", "/usr/lib"];

/// Why a capability is not granted without a person looking at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caution {
    /// It looks like a secret, since.
    Secret(&'static str),
    /// It is the dynamic loader.
    Loader,
    /// It writes: into a start-up file of a shell, a hook, a Makefile, it runs outside the sandbox.
    Write,
}

impl fmt::Display for Caution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Secret(why) => write!(f, "it looks like a secret: {why}"),
            Self::Loader => {
                f.write_str("it is the dynamic loader, which runs every program that can be read")
            }
            Self::Write => {
                f.write_str("it writes a file of yours, whose content you or a program may act on or execute")
            }
        }
    }
}

/// What to think of before a capability is granted.
pub(crate) fn of(capability: &Capability) -> Option<Caution> {
    let path = match capability.pattern()?.kernel_prefix() {
        KernelPrefix::Exact(path) | KernelPrefix::Subtree(path) => path,
        KernelPrefix::Glob { below } => below,
    };
    let is_loader = path.file_name().is_some_and(|name| LOADERS.iter().any(|start| name.starts_with(start)));
    if is_loader && matches!(capability.right(), Right::Exec(_)) {
        return Some(Caution::Loader);
    }
    let writes = matches!(capability.right(), Right::FileWrite(_)).then_some(Caution::Write);
    why(&path).map(Caution::Secret).or(writes)
}

/// Why a path looks like a secret.
fn why(path: &AbsolutePath) -> Option<&'static str> {
    let text = path.as_str();
    let is_in = |directory: &str| {
        text.strip_prefix(directory).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    if text.starts_with(OWN_PREFIX) {
        return Some("it belongs to AOS");
    }
    if let Some((_, why)) = DIRECTORIES.iter().find(|(directory, _)| is_in(directory)) {
        return Some(why);
    }
    if FILES.contains(&text) {
        return Some("it is private to the system");
    }
    if CERTIFICATES.iter().any(|directory| is_in(directory)) {
        return None;
    }
    if path.segments().any(|segment| SEGMENTS.contains(&segment)) {
        return Some("it is where credentials are kept");
    }
    let name = path.file_name().unwrap_or_default();
    let is_public = PUBLIC.iter().any(|ending| name.ends_with(ending));
    let is_key = ENDINGS.iter().any(|ending| name.ends_with(ending)) || name.starts_with(KEY_PREFIX);
    if is_key && !is_public {
        return Some("its name is that of a private key");
    }
    NAMES.contains(&name).then_some("its name is that of a file with credentials")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loader_is_not_granted_unseen() {
        let caution = |line: &str| of(&line.parse().unwrap());
        assert_eq!(caution("exec: /lib64/ld-linux-x86-64.so.2"), Some(Caution::Loader));
        assert_eq!(caution("file_read: /lib64/ld-linux-x86-64.so.2"), None);
        assert_eq!(caution("exec: /usr/bin/ld"), None);
        assert!(matches!(caution("file_read: /home/u/.ssh/**"), Some(Caution::Secret(_))));
        assert_eq!(caution("listen: 80"), None);
    }

    #[test]
    fn writing_is_not_granted_unseen() {
        for line in [
            "file_write: /home/u/.bashrc",
            "file_write: /srv/a",
            "file_write: /usr/lib/x",
            "file_write: /srv/*/x",
        ] {
            assert_eq!(of(&line.parse().unwrap()), Some(Caution::Write), "{line}");
        }
        assert!(matches!(of(&"file_write: /home/u/.ssh/config".parse().unwrap()), Some(Caution::Secret(_))));
        assert_eq!(of(&"file_read: /srv/a".parse().unwrap()), None);
    }

    #[test]
    fn what_looks_like_a_secret() {
        for secret in [
            "/etc/shadow",
            "/root/notes",
            "/root",
            "/home/u/.ssh/id_ed25519",
            "/home/u/.ssh/config",
            "/srv/tls/server.key",
            "/srv/app/.env",
            "/etc/ssh/ssh_host_ed25519_key",
            "/var/lib/aos/state.sqlite",
            "/var/lib/aos-agents/x/y",
            "/etc/aos/trust.d/a.toml",
            "/home/u/.aws/credentials",
        ] {
            assert!(why(&secret.parse().unwrap()).is_some(), "{secret}");
        }
        for plain in [
            "/srv/data/a.txt",
            "/usr/bin/ssh",
            "/etc/ssl/certs/ca.pem",
            "/etc/hosts.allow",
            "/rootless/x",
            "/srv/id_rsa.pub",
            "/usr/share/doc/x/y.key",
            "/srv/tokens/a",
        ] {
            assert_eq!(why(&plain.parse().unwrap()), None, "{plain}");
        }
    }
}
