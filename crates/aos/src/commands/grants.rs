//! What a package may do, shown to whoever brings it onto the machine: the package's author chose it.

use anyhow::Result;
use aos_client::Client;

use crate::output::Output;
use crate::supervisor;

/// What an installed package is granted when it runs; `None` when it is not there any more.
pub(crate) async fn of(client: &Client, reference: &str) -> Result<Option<Vec<String>>> {
    let packages = client.packages().await.map_err(supervisor::explain)?;
    let found = packages.into_iter().find(|package| package.reference == reference);
    Ok(found.map(|package| package.capabilities))
}

/// Tells it on standard error.
pub(crate) async fn show(client: &Client, reference: &str, out: Output) -> Result<()> {
    for line in of(client, reference).await?.iter().flat_map(|capabilities| lines(reference, capabilities)) {
        out.note(&line);
    }
    Ok(())
}

fn lines(reference: &str, capabilities: &[String]) -> Vec<String> {
    if capabilities.is_empty() {
        return vec![format!("{reference} may do nothing outside its own workspace")];
    }
    let mut lines = vec![format!("{reference} may, where its Unix user may:")];
    lines.extend(capabilities.iter().map(|capability| format!("  {capability}")));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_capability_is_a_line() {
        assert_eq!(lines("a:1.0.0", &[]), ["a:1.0.0 may do nothing outside its own workspace"]);
        let capabilities = ["file_read: /srv/**".to_owned(), "listen: 8080".to_owned()];
        let shown = lines("a:1.0.0", &capabilities);
        assert_eq!(
            shown,
            ["a:1.0.0 may, where its Unix user may:", "  file_read: /srv/**", "  listen: 8080"]
        );
    }
}
