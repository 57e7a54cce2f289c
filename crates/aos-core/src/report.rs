//! The launcher's report: for each layer of confinement, what was asked and what the kernel
//! confirms. The launcher writes it as `report.json` before it starts the entrypoint; the
//! supervisor and `aos explain` read it.
//!
//! The file is written under the agent's own uid, so a reader treats it as untrusted: it is
//! bounded, and no text in it holds a control or invisible character.

use crate::id::AgentId;
use crate::quoted::is_hidden;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The version of the format.
pub const REPORT_VERSION: u32 = 1;
/// Bytes of the file: some hundred times what a real report has.
pub const REPORT_MAX_BYTES: usize = 256 * 1024;
/// Layers of one report; there are about a dozen.
pub const LAYERS_MAX: usize = 64;
/// Missing Landlock features; each ABI adds one or two.
pub const MISSING_MAX: usize = 64;
/// Bytes of one text: a detail may list all granted paths.
pub const TEXT_MAX_BYTES: usize = 16 * 1024;

/// What is in force around one run of an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LaunchReport {
    /// [`REPORT_VERSION`].
    pub version: u32,
    /// The agent.
    pub agent: AgentId,
    /// The launcher's version.
    pub launcher: String,
    /// The kernel's release, as `uname -r` prints it.
    pub kernel: String,
    /// Every declared layer, in the order of application.
    pub layers: Vec<LayerReport>,
    /// What Landlock offers; `None` when the kernel has none (and so nothing started).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub landlock: Option<LandlockReport>,
}

/// One layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayerReport {
    /// Its name, such as `landlock`, `seccomp` or `mounts`.
    pub layer: String,
    /// What the plan asked for.
    pub asked: String,
    /// What the kernel confirms.
    pub in_force: String,
    /// True when what is in force is what was asked.
    pub ok: bool,
    /// More, for a person; empty when there is nothing to say.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

/// What Landlock offers and gave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LandlockReport {
    /// The ABI of the kernel.
    pub kernel_abi: u32,
    /// The ABI whose rights are in force.
    pub effective_abi: u32,
    /// Rights of newer ABIs that this kernel does not have.
    pub missing: Vec<String>,
}

/// Why bytes are not a report.
#[derive(Debug, Error)]
pub enum ReportError {
    /// The file is too large.
    #[error("the launcher's report has {0} bytes, at most {REPORT_MAX_BYTES} are allowed")]
    TooLarge(usize),
    /// The JSON is wrong.
    #[error("the launcher's report is not valid")]
    Json(#[from] serde_json::Error),
    /// The format's version is not known.
    #[error("the launcher's report has version {0}, expected {REPORT_VERSION}")]
    Version(u32),
    /// A list is too long.
    #[error("the launcher's report has {count} {what}, at most {max} are allowed")]
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// How many there are.
        count: usize,
        /// How many are allowed.
        max: usize,
    },
    /// A text is too long or has a character that does not show.
    #[error(
        "the launcher's report has a bad text in `{0}`: control characters, or over {TEXT_MAX_BYTES} bytes"
    )]
    Text(&'static str),
}

impl LaunchReport {
    /// Parses and checks the file's bytes.
    pub fn parse(bytes: &[u8]) -> Result<Self, ReportError> {
        if bytes.len() > REPORT_MAX_BYTES {
            return Err(ReportError::TooLarge(bytes.len()));
        }
        let report: Self = serde_json::from_slice(bytes)?;
        report.check()?;
        Ok(report)
    }

    /// The file's bytes.
    pub fn to_json(&self) -> Result<Vec<u8>, ReportError> {
        self.check()?;
        let bytes = serde_json::to_vec(self)?;
        if bytes.len() > REPORT_MAX_BYTES { Err(ReportError::TooLarge(bytes.len())) } else { Ok(bytes) }
    }

    /// True when every layer is in force as asked, and there is at least one.
    pub fn all_in_force(&self) -> bool {
        !self.layers.is_empty() && self.layers.iter().all(|layer| layer.ok)
    }

    fn check(&self) -> Result<(), ReportError> {
        if self.version != REPORT_VERSION {
            return Err(ReportError::Version(self.version));
        }
        let missing = self.landlock.as_ref().map_or(&[][..], |landlock| &landlock.missing);
        for (what, count, max) in
            [("layers", self.layers.len(), LAYERS_MAX), ("missing rights", missing.len(), MISSING_MAX)]
        {
            if count > max {
                return Err(ReportError::TooMany { what, count, max });
            }
        }
        let layers = self.layers.iter().flat_map(|layer| {
            [
                ("layer", &layer.layer),
                ("asked", &layer.asked),
                ("in_force", &layer.in_force),
                ("detail", &layer.detail),
            ]
        });
        let texts = [("launcher", &self.launcher), ("kernel", &self.kernel)]
            .into_iter()
            .chain(layers)
            .chain(missing.iter().map(|text| ("missing", text)));
        for (what, text) in texts {
            if text.len() > TEXT_MAX_BYTES || text.chars().any(|c| is_hidden(c) && c != '\n') {
                return Err(ReportError::Text(what));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> LaunchReport {
        LaunchReport {
            version: REPORT_VERSION,
            agent: "web".parse().unwrap(),
            launcher: "0.1.0".to_owned(),
            kernel: "6.12.0".to_owned(),
            layers: vec![LayerReport {
                layer: "landlock".to_owned(),
                asked: "abi >= 6".to_owned(),
                in_force: "abi 6".to_owned(),
                ok: true,
                detail: String::new(),
            }],
            landlock: Some(LandlockReport {
                kernel_abi: 6,
                effective_abi: 6,
                missing: vec!["tsync".to_owned()],
            }),
        }
    }

    #[test]
    fn round_trips() {
        let bytes = report().to_json().unwrap();
        assert_eq!(LaunchReport::parse(&bytes).unwrap(), report());
        assert!(report().all_in_force());
    }

    #[test]
    fn bad_reports_are_refused() {
        let change = |f: &dyn Fn(&mut LaunchReport)| {
            let mut changed = report();
            f(&mut changed);
            LaunchReport::parse(&serde_json::to_vec(&changed).unwrap()).unwrap_err().to_string()
        };
        assert!(change(&|r| r.version = 2).contains("version 2"));
        assert!(change(&|r| r.kernel = "\u{1b}[2J".to_owned()).contains("`kernel`"));
        assert!(change(&|r| r.launcher = "x".repeat(TEXT_MAX_BYTES + 1)).contains("`launcher`"));
        assert!(change(&|r| r.layers = vec![r.layers[0].clone(); 65]).contains("65 layers"));
        assert!(LaunchReport::parse(&vec![b' '; REPORT_MAX_BYTES + 1]).is_err());
        assert!(LaunchReport::parse(br#"{"version":1,"extra":0}"#).is_err());
        assert!(!LaunchReport { layers: vec![], ..report() }.all_in_force());
    }
}
