//! The programs that `aos` starts, and the only module that starts one.
//!
//! Three uses: `journalctl` to read what agents wrote, and, in `aos configure` as root, the few tools that
//! own a setting (`chpasswd`, `systemd-creds`, `mount`). The tools get a fixed environment and absolute paths,
//! and secrets reach them by standard input only: an argument can be read by every process of the machine.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::AsyncWriteExt;

/// How long a tool of the system may take. A TPM that seals a key takes a few seconds at worst.
const TOOL_TIMEOUT: Duration = Duration::from_secs(90);

/// A command that inherits the caller's environment and streams.
#[expect(clippy::disallowed_methods, reason = "this module owns the start of other programs")]
fn command(program: &str) -> std::process::Command {
    std::process::Command::new(program)
}

/// `journalctl` as an asynchronous child in a process group of its own, so that Ctrl-C does not end it before
/// everything the agent wrote has been read. It is killed when its handle is dropped.
pub(crate) fn journalctl() -> tokio::process::Command {
    use std::os::unix::process::CommandExt as _;
    let mut child = command("journalctl");
    child.process_group(0);
    let mut child = tokio::process::Command::from(child);
    child.stdin(Stdio::null()).kill_on_drop(true);
    child
}

/// Runs a tool of the system (`program` is absolute) with `input` on its standard input and returns what it
/// wrote to its standard output. A failure carries the tool's own message.
pub(crate) async fn run_tool(program: &str, args: &[&str], input: &[u8]) -> Result<Vec<u8>> {
    let mut tool = tokio::process::Command::from(command(program));
    tool.args(args).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("LC_ALL", "C.UTF-8");
    tool.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = tool.spawn().with_context(|| format!("cannot start {program}"))?;
    let mut stdin = child.stdin.take().with_context(|| format!("{program} has no standard input"))?;
    let exchange = async {
        let feed = async {
            let written = stdin.write_all(input).await;
            drop(stdin);
            written
        };
        let (written, output) = tokio::join!(feed, child.wait_with_output());
        anyhow::Ok((written, output?))
    };
    let (written, output) = tokio::time::timeout(TOOL_TIMEOUT, exchange)
        .await
        .with_context(|| format!("{program} did not end within {} s", TOOL_TIMEOUT.as_secs()))??;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{program} failed ({}): {}", output.status, said.trim());
    }
    written.with_context(|| format!("{program} did not read its input"))?;
    Ok(output.stdout)
}
