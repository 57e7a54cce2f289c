//! `aos verify`: whether a package is trusted, and by whom it is signed.

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::{Context, Result, anyhow};
use aos_core::reference::{Location, Reference};
use aos_trust::dsse::Envelope;
use aos_trust::key::{KeyId, PublicKey};
use aos_trust::signature::{signers, subject};
use clap::{Args, ValueHint};
use serde::Serialize;

use crate::cli::Format;
use crate::completion;
use crate::exit::{Exit, marked};
use crate::failure::{self, hinted};
use crate::held::{Freshness, Held};
use crate::keys;
use crate::output::{Output, Tone};
use crate::place;
use crate::signature_file;
use crate::store::UserStore;
use crate::trust;

/// Check who signed a package
///
/// Without --key, decides as `aos pull`, `aos import` and `aos install` do: by the rules in /etc/aos/trust.d and in
/// trust.d of your store. With --key, asks whether these keys have signed the package, whatever the rules say.
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// A package: of your store, a registry, a directory registry, or a file
    #[arg(value_name = "PACKAGE", add = completion::stored())]
    package: String,

    /// A key that must have signed it: a name, as `aos key list` shows it, or a PEM file
    #[arg(long, value_name = "KEY", add = completion::keys())]
    key: Vec<String>,

    /// The signature's file; signature.json beside a package file if it is not given
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    signature: Option<PathBuf>,

    #[command(flatten)]
    format: Format,
}

/// What was found.
#[derive(Debug, Serialize)]
struct Verdict {
    /// `name:version`.
    reference: String,
    /// The manifest.
    digest: String,
    /// True when the rules, or the keys that were given, are content.
    trusted: bool,
    /// The ids of the keys whose signatures count.
    keys: Vec<String>,
    /// The rule that allows it, `FILE:LINE`; absent with --key.
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<String>,
    /// Why it is not trusted.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// Runs `aos verify`.
pub(crate) async fn run(args: &VerifyArgs, out: Output) -> Result<()> {
    let store = UserStore::open()?;
    let held = place::open(&args.package, &store, Freshness::Pulled, out).await?;
    let mut envelopes = trust::envelopes(held.repository(), &held.attachments);
    envelopes.extend(signature_file::of(&held, args.signature.as_deref())?);
    let decision = if args.key.is_empty() {
        by_rules(&store, &held, &envelopes)
    } else {
        by_keys(&args.key, &held, &envelopes)?
    };
    let (keys, rule, reason) = match &decision {
        Ok((keys, rule)) => (keys.clone(), rule.clone(), None),
        Err(error) => (Vec::new(), None, Some(failure::sentence(error))),
    };
    let verdict = Verdict {
        reference: held.config.agent.reference().to_string(),
        digest: held.descriptor.digest.to_string(),
        trusted: decision.is_ok(),
        keys,
        rule,
        reason,
    };
    if args.format.is_json() {
        out.json(&verdict)?;
        // The reason is in the JSON; the exit status says it, too.
        return decision.map(drop);
    }
    decision?;
    let by = match verdict.keys.as_slice() {
        [] => "not signed".to_owned(),
        keys => format!("signed by {}", keys.join(", ")),
    };
    let rule = verdict.rule.map_or_else(String::new, |rule| format!(", allowed by {rule}"));
    let text = format!("{} {} is trusted: {by}{rule}", verdict.reference, verdict.digest);
    Ok(out.line(&out.paint(Tone::Good, &text))?)
}

type Decision = Result<(Vec<String>, Option<String>)>;

fn by_rules(store: &UserStore, held: &Held, envelopes: &[Envelope]) -> Decision {
    let from: Option<&Reference> = match &held.location {
        Location::Registry(reference) => Some(reference),
        _ => None,
    };
    let trusted = trust::decide(store, &held.descriptor, &held.config, from, envelopes)?;
    Ok((trusted.keys.iter().map(KeyId::to_string).collect(), Some(trusted.rule.to_string())))
}

/// Each key that is given must have signed.
fn by_keys(words: &[String], held: &Held, envelopes: &[Envelope]) -> Result<Decision> {
    let wanted: Vec<PublicKey> = words.iter().map(|word| keys::public(word)).collect::<Result<_>>()?;
    let agent = &held.config.agent;
    let subject = subject(&agent.name, &agent.version, held.descriptor.digest);
    let good: BTreeSet<KeyId> = signers(&subject, envelopes, wanted.iter());
    let missing: Vec<String> =
        wanted.iter().map(PublicKey::id).filter(|id| !good.contains(id)).map(|id| id.to_string()).collect();
    if missing.is_empty() {
        return Ok(Ok((good.iter().map(KeyId::to_string).collect(), None)));
    }
    let claimed: BTreeSet<KeyId> = envelopes.iter().flat_map(Envelope::claimed_keys).collect();
    let error = anyhow!("{} is not signed by {}", agent.reference(), missing.join(", "));
    let error = match claimed.is_empty() {
        true => hinted(error, "it has no signature at all: `aos sign` makes one"),
        false => {
            let claimed: Vec<String> = claimed.iter().map(KeyId::to_string).collect();
            hinted(error, format!("its signatures claim to be of {}", claimed.join(", ")))
        }
    };
    Ok(Err(marked(error, Exit::Refused)).context("the signature is refused"))
}
