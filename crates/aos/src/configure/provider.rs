//! Model providers: which are known, where each is configured, and the questions.
//!
//! A provider is `/etc/aos/providers.d/NAME.toml` with `kind` (the protocol it speaks) and `base_url`; its key
//! is the encrypted credential `aos.provider.NAME`. Editing the file touches those two keys and nothing else.

use toml_edit::{DocumentMut, Item, value};

use super::secret::Secret;
use super::system::System;
use super::terminal::Questions;
use super::wizard::StepError;

/// The folder of provider files.
pub(crate) const PROVIDERS_DIR: &str = "/etc/aos/providers.d";
/// The longest provider name.
const MAX_NAME: usize = 32;
/// What is said when [`BaseUrl::exposes_key`].
pub(crate) const EXPOSED: &str = "over http the key can be read by others in the network";
/// The longest key taken.
const MAX_KEY: usize = 4096;

/// A provider that `aos configure` knows by name.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Known {
    /// Its name here.
    pub(crate) name: &'static str,
    /// What the menu says.
    title: &'static str,
    /// The protocol it speaks: `anthropic` or `openai`.
    kind: &'static str,
    /// Where it is.
    base_url: &'static str,
    /// Whether it asks for a key.
    needs_key: bool,
}

/// The known providers, in the order of the menu.
pub(crate) const KNOWN: [Known; 5] = [
    Known {
        name: "anthropic",
        title: "Anthropic",
        kind: "anthropic",
        base_url: "https://api.anthropic.com",
        needs_key: true,
    },
    Known {
        name: "openai",
        title: "OpenAI",
        kind: "openai",
        base_url: "https://api.openai.com/v1",
        needs_key: true,
    },
    Known {
        name: "deepseek",
        title: "DeepSeek",
        kind: "openai",
        base_url: "https://api.deepseek.com/v1",
        needs_key: true,
    },
    Known {
        name: "openrouter",
        title: "OpenRouter",
        kind: "openai",
        base_url: "https://openrouter.ai/api/v1",
        needs_key: true,
    },
    Known {
        name: "ollama",
        title: "Ollama (on this machine or in your network, no key)",
        kind: "openai",
        base_url: "http://127.0.0.1:11434/v1",
        needs_key: false,
    },
];

/// A provider's name: it becomes a file name and a part of a credential's name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ProviderName(String);

impl ProviderName {
    /// Checks a name: `[a-z0-9]`, inner hyphens, at most 32 characters.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let inner = text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if text.is_empty() || text.len() > MAX_NAME || !inner {
            return Err(format!("a provider's name has 1 to {MAX_NAME} of a-z, 0-9 and hyphens"));
        }
        if text.starts_with('-') || text.ends_with('-') {
            return Err("a provider's name does not start or end with a hyphen".to_owned());
        }
        Ok(Self(text.to_owned()))
    }

    /// The name.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of the credential that holds the key.
    pub(crate) fn credential(&self) -> String {
        format!("aos.provider.{}", self.0)
    }

    /// The provider's row in the table, when it has one.
    pub(crate) fn known(&self) -> Option<Known> {
        KNOWN.into_iter().find(|known| known.name == self.0)
    }
}

/// A provider's address, checked to be free of credentials and of anything that is not an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BaseUrl(String);

impl BaseUrl {
    /// Parses `https://host[:port][/path]`, or `http://` for a machine of one's own.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim().trim_end_matches('/');
        let expected = || "an address looks like https://llm.example.org/v1".to_owned();
        let rest = text
            .strip_prefix("https://")
            .or_else(|| text.strip_prefix("http://"))
            .ok_or_else(|| format!("{}, or starts with http:// for a server of your own", expected()))?;
        if text.bytes().any(|byte| !byte.is_ascii_graphic()) || text.contains(['"', '\\', '<', '>']) {
            return Err(expected());
        }
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        if authority.contains('@') {
            return Err("no name or password in the address: the key is asked for separately".to_owned());
        }
        if rest.contains(['?', '#']) {
            return Err("no `?` or `#` in the address".to_owned());
        }
        let (host, port) = split_port(authority).ok_or_else(expected)?;
        if host.is_empty() || port.is_some_and(|port| port.parse::<u16>().is_err()) {
            return Err(expected());
        }
        Ok(Self(text.to_owned()))
    }

    /// The address.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// True when a key sent there can be read on the way: `http` to another machine.
    pub(crate) fn exposes_key(&self) -> bool {
        let Some(rest) = self.0.strip_prefix("http://") else { return false };
        let authority = rest.split('/').next().unwrap_or_default();
        let host = split_port(authority).map_or("", |(host, _)| host);
        let loopback = host == "localhost" || host == "[::1]" || host.starts_with("127.");
        !loopback
    }
}

/// Takes `host:port`, `host`, `[v6]:port` or `[v6]` apart.
fn split_port(authority: &str) -> Option<(&str, Option<&str>)> {
    if authority.starts_with('[') {
        let end = authority.find(']')?;
        let (host, rest) = authority.split_at_checked(end + 1)?;
        return match rest {
            "" => Some((host, None)),
            rest => rest.strip_prefix(':').map(|port| (host, Some(port))),
        };
    }
    match authority.split_once(':') {
        Some((host, port)) => Some((host, Some(port))),
        None => Some((authority, None)),
    }
}

/// Checks a key: printable, in one piece.
pub(crate) fn check_key(secret: &Secret) -> Result<(), String> {
    let text = secret.reveal();
    if text.is_empty() || text.len() > MAX_KEY {
        return Err(format!("a key has 1 to {MAX_KEY} characters"));
    }
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("a key has no spaces or control characters".to_owned());
    }
    Ok(())
}

/// What is there already.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ProviderState {
    /// The text of the provider's file.
    pub(crate) file: Option<String>,
    /// Whether a key is stored.
    pub(crate) has_key: bool,
}

impl ProviderState {
    /// The address in the file.
    pub(crate) fn base_url(&self) -> Option<String> {
        let document: DocumentMut = self.file.as_deref()?.parse().ok()?;
        document.get("base_url")?.as_str().map(str::to_owned)
    }
}

/// A change to one provider. What is `None` stays as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProviderChange {
    /// Which one.
    pub(crate) name: ProviderName,
    /// Its address.
    pub(crate) base_url: Option<BaseUrl>,
    /// Its key.
    pub(crate) key: Option<Secret>,
}

impl ProviderChange {
    /// The new text of the provider's file, or `None` when it needs no change.
    pub(crate) fn edit(&self, current: Option<&str>) -> Result<Option<String>, String> {
        let before = current.unwrap_or_default();
        let mut document: DocumentMut = before.parse().map_err(|error| format!("not valid TOML: {error}"))?;
        let known = self.name.known();
        if !document.contains_key("kind") {
            set(&mut document, "kind", known.map_or("openai", |known| known.kind));
        }
        match (&self.base_url, known) {
            (Some(url), _) => set(&mut document, "base_url", url.as_str()),
            (None, Some(known)) if !document.contains_key("base_url") => {
                set(&mut document, "base_url", known.base_url);
            }
            (None, None) if !document.contains_key("base_url") => {
                return Err(format!("provider `{}` is not known, so it needs a base URL", self.name.0));
            }
            (None, _) => {}
        }
        let mut after = document.to_string();
        if current.is_none() {
            let name = self.name.as_str();
            after = format!(
                "# Model provider {name}. Its key is the encrypted credential {}.\n{after}",
                self.name.credential()
            );
        }
        Ok((Some(after.as_str()) != current).then_some(after))
    }

    /// True when the provider's key, this one or a stored one, would be sent where others can read it.
    pub(crate) fn exposes_key(&self, state: &ProviderState) -> bool {
        let stored = || BaseUrl::parse(&state.base_url()?).ok();
        let url = self.base_url.clone().or_else(stored);
        (self.key.is_some() || state.has_key) && url.is_some_and(|url| url.exposes_key())
    }

    /// True when the provider would be left without a key that it needs.
    pub(crate) fn lacks_key(&self, state: &ProviderState) -> bool {
        self.name.known().is_some_and(|known| known.needs_key) && self.key.is_none() && !state.has_key
    }
}

/// Sets one key; its comments and its place stay.
fn set(document: &mut DocumentMut, key: &str, text: &str) {
    match document.get_mut(key).and_then(Item::as_value_mut) {
        Some(current) if current.as_str() == Some(text) => {}
        Some(current) => {
            let decor = current.decor().clone();
            *current = toml_edit::Value::from(text);
            *current.decor_mut() = decor;
        }
        None => drop(document.insert(key, value(text))),
    }
}

/// Asks for a provider and its key; `None` when none is wanted now.
pub(crate) fn ask(ask: &mut Questions<'_>, system: &dyn System) -> Result<Option<ProviderChange>, StepError> {
    ask.say("The model provider that agents may use. Agents without a model need none.")?;
    let mut options: Vec<&str> = KNOWN.iter().map(|known| known.title).collect();
    options.push("another server that speaks the OpenAI protocol");
    options.push("none now");
    let chosen = ask.choose("Provider", &options, Some(options.len() - 1))?;
    let (name, known) = match KNOWN.get(chosen) {
        Some(known) => (ProviderName(known.name.to_owned()), Some(*known)),
        None if chosen == KNOWN.len() => {
            (ask.text("A short name for it", Some("custom"), ProviderName::parse)?, None)
        }
        None => return Ok(None),
    };
    let state = system.provider(&name)?;
    let shown = state.base_url().or_else(|| known.map(|known| known.base_url.to_owned()));
    let asks_address = known.is_none_or(|known| !known.needs_key);
    let base_url = if asks_address {
        let url = ask.text("Address (base URL)", shown.as_deref(), BaseUrl::parse)?;
        (Some(url.as_str()) != state.base_url().as_deref()).then_some(url)
    } else {
        None
    };
    let key = ask_key(ask, known, &state, base_url.as_ref())?;
    Ok(Some(ProviderChange { name, base_url, key }))
}

fn ask_key(
    ask: &mut Questions<'_>,
    known: Option<Known>,
    state: &ProviderState,
    url: Option<&BaseUrl>,
) -> Result<Option<Secret>, StepError> {
    let wanted = match known {
        Some(known) if !known.needs_key => false,
        _ if state.has_key => ask.confirm("A key is stored. Replace it", false)?,
        Some(_) => true,
        None => ask.confirm("Does it need a key", true)?,
    };
    if !wanted {
        return Ok(None);
    }
    if url.is_some_and(BaseUrl::exposes_key) {
        ask.say(&format!("  Note: {EXPOSED}."))?;
    }
    Ok(Some(ask.secret("API key", check_key)?))
}

#[cfg(test)]
mod tests {
    use super::super::fake::{FakeSystem, Script};
    use super::*;

    #[test]
    fn a_key_over_http_is_noticed() {
        let stored =
            |url: &str, has_key| ProviderState { file: Some(format!("base_url = \"{url}\"\n")), has_key };
        let with_key = |url| ProviderChange { key: Some(Secret::new("sk-1".into())), ..change("lab", url) };
        let (plain, safe) = ("http://lab.example/v1", "https://lab.example/v1");
        assert!(with_key(Some(plain)).exposes_key(&ProviderState::default()));
        assert!(with_key(None).exposes_key(&stored(plain, false)));
        assert!(change("lab", Some(plain)).exposes_key(&stored(safe, true)));
        assert!(!with_key(Some(safe)).exposes_key(&stored(plain, true)));
        assert!(!with_key(Some("http://127.0.0.1:1/v1")).exposes_key(&ProviderState::default()));
        assert!(!change("lab", Some(plain)).exposes_key(&ProviderState::default()));
    }

    fn change(name: &str, url: Option<&str>) -> ProviderChange {
        let name = ProviderName::parse(name).unwrap();
        ProviderChange { name, base_url: url.map(|url| BaseUrl::parse(url).unwrap()), key: None }
    }

    #[test]
    fn a_new_file_has_what_is_needed() {
        let text = change("deepseek", None).edit(None).unwrap().unwrap();
        insta::assert_snapshot!(text, @r#"
        # Model provider deepseek. Its key is the encrypted credential aos.provider.deepseek.
        kind = "openai"
        base_url = "https://api.deepseek.com/v1"
        "#);
    }

    #[test]
    fn only_what_was_asked_for_changes() {
        let before = "# my notes\nbase_url = \"https://old.example/v1\" # old\nkind = \"openai\"\n\n[retry]\nmax = 3\n";
        let after = change("lab", Some("https://new.example/v1/")).edit(Some(before)).unwrap().unwrap();
        assert_eq!(after, before.replace("old.example", "new.example"));
        assert_eq!(change("lab", None).edit(Some(before)).unwrap(), None);
        assert!(change("lab", None).edit(Some("base_url = ")).unwrap_err().contains("not valid TOML"));
        assert!(change("lab", None).edit(None).unwrap_err().contains("needs a base URL"));
    }

    #[test]
    fn addresses() {
        for good in ["https://a.example", "http://127.0.0.1:11434/v1/", "http://[::1]:80/v1"] {
            assert!(BaseUrl::parse(good).is_ok(), "{good}");
        }
        let bad = [
            "a.example",
            "ftp://a.example",
            "https://",
            "https://u:p@a.example",
            "https://a.example/?key=1",
            "https://a.example:99999",
            "https://a b",
            "https://a\nb",
            "http://[::1",
        ];
        for bad in bad {
            assert!(BaseUrl::parse(bad).is_err(), "{bad}");
        }
        assert!(BaseUrl::parse("http://lab.example/v1").unwrap().exposes_key());
        assert!(!BaseUrl::parse("http://127.0.0.1:1/v1").unwrap().exposes_key());
    }

    #[test]
    fn names_become_file_names_safely() {
        for bad in ["", "..", "a/b", "A", "-a", "a\n", &"a".repeat(33)] {
            assert!(ProviderName::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_wizard_asks_for_a_key_without_showing_it() {
        let system = FakeSystem::default();
        let mut script = Script::new(["1", "two words", "sk-secret"]);
        let change = ask(&mut Questions::new(&mut script), &system).unwrap().unwrap();
        assert_eq!(change.name.as_str(), "anthropic");
        assert_eq!(change.key.unwrap().reveal(), "sk-secret");
        assert!(!script.shown().contains("sk-secret"));
    }

    #[test]
    fn a_stored_key_is_kept_unless_it_is_replaced() {
        let provider = ProviderState { file: None, has_key: true };
        let system = FakeSystem { provider, ..FakeSystem::default() };
        let mut script = Script::new(["2", ""]);
        let change = ask(&mut Questions::new(&mut script), &system).unwrap().unwrap();
        assert_eq!(change.key, None);
        assert!(!change.lacks_key(&system.provider));
    }

    #[test]
    fn another_server_needs_an_address() {
        let system = FakeSystem::default();
        let mut script = Script::new(["6", "lab", "lab.example", "https://lab.example/v1", "no"]);
        let change = ask(&mut Questions::new(&mut script), &system).unwrap().unwrap();
        assert_eq!(change.base_url.unwrap().as_str(), "https://lab.example/v1");
        assert_eq!(change.key, None);
    }
}
