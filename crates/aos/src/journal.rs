//! Reading what an agent wrote, from the journal.
//!
//! A `journalctl` child prints the entries of one unit as JSON, which keeps every byte of a message; `-o cat`
//! would not tell an agent's line from systemd's, nor where a line ends. Only fields that journald itself vouches
//! for (their names start with `_`) decide what is shown as the agent's output.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStderr, ChildStdout};

use crate::process;

/// The longest entry taken. A line of an agent has at most 48 KiB (journald.conf(5), `LineMax=`), and a byte
/// takes up to 4 characters in JSON.
const MAX_ENTRY_BYTES: usize = 4 << 20;
/// journald's message about entries it dropped (`SD_MESSAGE_JOURNAL_DROPPED`, sd-messages.h).
const DROPPED: &str = "a596d6fe7bfa4994828e72309e95d61e";
/// How long journald may take to write what it has received.
const SYNC_TIMEOUT: Duration = Duration::from_secs(10);

/// Whose entries, and which of them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Query {
    /// The systemd unit.
    pub(crate) unit: String,
    /// Wait for new entries.
    pub(crate) follow: bool,
    /// Only entries after this one.
    pub(crate) after: Option<String>,
    /// Only the last entries.
    pub(crate) lines: Option<u64>,
    /// Only entries since then, in the notation of journalctl(1).
    pub(crate) since: Option<String>,
    /// What systemd says about the unit, too.
    pub(crate) with_system: bool,
}

impl Query {
    fn arguments(&self) -> Vec<String> {
        let mut arguments: Vec<String> = ["--no-pager", "--output=json", "--all"].map(str::to_owned).into();
        arguments.push(format!("--output-fields={}", FIELDS.join(",")));
        if self.follow {
            arguments.push("--follow".to_owned());
        }
        match self.lines {
            Some(lines) => arguments.push(format!("--lines={lines}")),
            None if self.follow => arguments.push("--no-tail".to_owned()),
            None => {}
        }
        arguments.extend(self.after.iter().map(|cursor| format!("--after-cursor={cursor}")));
        arguments.extend(self.since.iter().map(|since| format!("--since={since}")));
        arguments.push(format!("_SYSTEMD_UNIT={}", self.unit));
        let drops = [format!("OBJECT_SYSTEMD_UNIT={}", self.unit), "_TRANSPORT=driver".to_owned()];
        arguments.push("+".to_owned());
        arguments.extend(drops);
        if self.with_system {
            let system = ["+".to_owned(), format!("UNIT={}", self.unit), "_PID=1".to_owned()];
            arguments.extend(system);
        }
        arguments
    }
}

const FIELDS: [&str; 7] =
    ["MESSAGE", "MESSAGE_ID", "N_DROPPED", "_LINE_BREAK", "_PID", "_SYSTEMD_INVOCATION_ID", "_TRANSPORT"];

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A line, or a piece of one, that the agent wrote.
    Output {
        /// The bytes without a line break.
        bytes: Vec<u8>,
        /// The line ends here.
        ends_line: bool,
    },
    /// What systemd says about the unit.
    System(String),
    /// journald dropped this many entries of the agent.
    Dropped(u64),
}

/// An entry of the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Its place in the journal.
    pub(crate) cursor: String,
    /// When journald received it, microseconds since the epoch.
    pub(crate) time_us: u64,
    /// The run it belongs to; journald does not know it for the last lines of some very short runs.
    pub(crate) invocation: Option<String>,
    /// What it is.
    pub(crate) kind: Kind,
}

impl Entry {
    /// Reads one line of `journalctl --output=json`; `None` for entries that are none of the above.
    fn parse(line: &[u8]) -> Result<Option<Self>> {
        let fields: serde_json::Map<String, Value> =
            serde_json::from_slice(line).context("journalctl printed something that is not JSON")?;
        let text = |name: &str| fields.get(name).and_then(Value::as_str);
        let message = fields.get("MESSAGE").map(message_bytes).unwrap_or_default();
        let kind = match text("_TRANSPORT") {
            Some("driver") if text("MESSAGE_ID") == Some(DROPPED) => {
                Kind::Dropped(text("N_DROPPED").and_then(|count| count.parse().ok()).unwrap_or(1))
            }
            Some("driver" | "audit" | "kernel") => return Ok(None),
            _ if text("_PID") == Some("1") => Kind::System(String::from_utf8_lossy(&message).into_owned()),
            _ => Kind::Output { bytes: message, ends_line: !fields.contains_key("_LINE_BREAK") },
        };
        Ok(Some(Self {
            cursor: text("__CURSOR").context("journalctl printed an entry without a cursor")?.to_owned(),
            time_us: text("__REALTIME_TIMESTAMP").and_then(|time| time.parse().ok()).unwrap_or_default(),
            invocation: text("_SYSTEMD_INVOCATION_ID").map(str::to_owned),
            kind,
        }))
    }
}

/// A message: text, or a list of bytes when it is not printable text (systemd.io/JOURNAL_EXPORT_FORMATS).
fn message_bytes(value: &Value) -> Vec<u8> {
    match value {
        Value::String(text) => text.as_bytes().to_vec(),
        Value::Array(bytes) => {
            bytes.iter().filter_map(|byte| byte.as_u64().and_then(|byte| u8::try_from(byte).ok())).collect()
        }
        _ => Vec::new(),
    }
}

/// A running query.
#[derive(Debug)]
pub(crate) struct Reader {
    child: Child,
    stdout: BufReader<ChildStdout>,
    stderr: Option<ChildStderr>,
    partial: Vec<u8>,
    /// The place of the last entry that was returned or passed over.
    pub(crate) cursor: Option<String>,
}

impl Reader {
    /// Starts `journalctl`.
    pub(crate) fn start(query: &Query) -> Result<Self> {
        let mut command = process::journalctl();
        command.args(query.arguments()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().context("cannot start journalctl, which reads what agents write")?;
        let stdout = child.stdout.take().context("journalctl has no standard output")?;
        let stderr = child.stderr.take();
        Ok(Self {
            child,
            stdout: BufReader::new(stdout),
            stderr,
            partial: Vec::new(),
            cursor: query.after.clone(),
        })
    }

    /// The next entry; `None` when `journalctl` ended. Cancel safe: a line read in part stays in `partial`.
    pub(crate) async fn next(&mut self) -> Result<Option<Entry>> {
        loop {
            let chunk = self.stdout.fill_buf().await.context("cannot read from journalctl")?;
            if chunk.is_empty() {
                return Ok(None);
            }
            let end = chunk.iter().position(|&byte| byte == b'\n');
            let taken = end.map_or(chunk.len(), |end| end + 1);
            if self.partial.len() + taken > MAX_ENTRY_BYTES {
                bail!("an entry of the journal is longer than {MAX_ENTRY_BYTES} bytes");
            }
            self.partial.extend(chunk.iter().take(taken));
            self.stdout.consume(taken);
            if end.is_some() {
                let line = std::mem::take(&mut self.partial);
                if let Some(entry) = Entry::parse(&line)? {
                    self.cursor = Some(entry.cursor.clone());
                    return Ok(Some(entry));
                }
            }
        }
    }

    /// Tells `journalctl` to end; what it has printed can still be read.
    pub(crate) fn stop(&mut self) -> Result<()> {
        self.child.start_kill().context("cannot end journalctl")
    }

    /// What `journalctl` complained about, once it has ended.
    pub(crate) async fn complaint(&mut self) -> String {
        let mut text = String::new();
        if let Some(stderr) = self.stderr.take() {
            let mut bytes = Vec::new();
            let read = stderr.take(16 << 10).read_to_end(&mut bytes).await;
            text = String::from_utf8_lossy(&bytes).into_owned();
            if let Err(error) = read {
                text.push_str(&format!("\nwhat journalctl complained about cannot be read: {error}"));
            }
        }
        text.lines().filter(|line| !line.contains("-- No entries --")).collect::<Vec<_>>().join("\n")
    }
}

/// The newest place in the journal; `None` when it is empty or cannot be read.
pub(crate) async fn newest_cursor() -> Result<Option<String>> {
    let mut command = process::journalctl();
    command.args(["--no-pager", "--quiet", "--lines=0", "--show-cursor"]).stderr(Stdio::null());
    let output = command.output().await.context("cannot start journalctl, which reads what agents write")?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().find_map(|line| line.strip_prefix("-- cursor: ")).map(str::to_owned))
}

/// Waits until journald has written all that it has received. Only root may ask for it.
pub(crate) async fn sync() -> Result<()> {
    let mut command = process::journalctl();
    command.arg("--sync").stdout(Stdio::null()).stderr(Stdio::piped());
    let output = tokio::time::timeout(SYNC_TIMEOUT, command.output())
        .await
        .context("journald does not write what it has received")?
        .context("cannot start journalctl")?;
    if !output.status.success() {
        bail!("journalctl --sync failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(json: &str) -> Option<Entry> {
        Entry::parse(json.as_bytes()).unwrap()
    }

    #[test]
    fn a_line_of_an_agent() {
        let json = r#"{"__CURSOR":"c1","__REALTIME_TIMESTAMP":"7","_TRANSPORT":"stdout","_PID":"42",
            "_SYSTEMD_INVOCATION_ID":"ab","MESSAGE":"hello"}"#;
        let kind = Kind::Output { bytes: b"hello".to_vec(), ends_line: true };
        let expected = Entry { cursor: "c1".into(), time_us: 7, invocation: Some("ab".into()), kind };
        assert_eq!(entry(json), Some(expected));
    }

    #[test]
    fn bytes_and_pieces_of_lines() {
        let json = r#"{"__CURSOR":"c","_TRANSPORT":"stdout","MESSAGE":[27,91,255],"_LINE_BREAK":"line-max"}"#;
        let kind = entry(json).unwrap().kind;
        assert_eq!(kind, Kind::Output { bytes: vec![27, 91, 255], ends_line: false });
    }

    #[test]
    fn only_pid_1_speaks_for_the_system() {
        let system = r#"{"__CURSOR":"c","_TRANSPORT":"journal","_PID":"1","MESSAGE":"Started x."}"#;
        assert_eq!(entry(system).unwrap().kind, Kind::System("Started x.".into()));
        let drops = format!(
            r#"{{"__CURSOR":"c","_TRANSPORT":"driver","MESSAGE_ID":"{DROPPED}","N_DROPPED":"12","MESSAGE":"m"}}"#
        );
        assert_eq!(entry(&drops).unwrap().kind, Kind::Dropped(12));
        assert_eq!(entry(r#"{"__CURSOR":"c","_TRANSPORT":"audit","MESSAGE":"x"}"#), None);
    }

    #[test]
    fn the_query_cannot_become_an_option() {
        let query = Query {
            unit: "aos-agent@x.service".into(),
            since: Some("--rotate".into()),
            after: Some("-x".into()),
            ..Query::default()
        };
        let arguments = query.arguments();
        assert!(arguments.contains(&"--since=--rotate".to_owned()));
        assert!(arguments.contains(&"--after-cursor=-x".to_owned()));
    }
}
