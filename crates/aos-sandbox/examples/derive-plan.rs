//! Prints the plan of an agent: `derive-plan AGENT.json ID ROOTFS WORKSPACE [ARGUMENT...]`, with the
//! resolved Agentfile as it stands in a package's config. For looking at plans, and for running
//! `aos-launch` by hand.

use std::error::Error;
use std::io::Write;

use aos_core::config::ResolvedAgent;
use aos_core::path::AbsolutePath;
use aos_sandbox::plan::{PlanInput, derive};
use aos_sandbox::rootfs;

fn main() -> Result<(), Box<dyn Error>> {
    let mut words = std::env::args().skip(1);
    let mut word = || words.next().ok_or("usage: derive-plan AGENT.json ID ROOTFS WORKSPACE [ARGUMENT...]");
    let agent = ResolvedAgent::from_json(&std::fs::read(word()?)?)?;
    let id = word()?.parse()?;
    let rootfs: AbsolutePath = word()?.parse()?;
    let workspace = word()?.parse()?;
    let arguments: Vec<String> = words.collect();
    let entries = rootfs::scan(rootfs.as_path())?;
    let input = PlanInput {
        agent: &agent,
        id: &id,
        arguments: &arguments,
        rootfs: &rootfs,
        entries: &entries,
        workspace: &workspace,
    };
    std::io::stdout().write_all(&derive(&input)?.to_json()?)?;
    Ok(())
}
