//! The JSON that packages and launchers write.
#![no_main]

use aos_core::config::ResolvedAgent;
use aos_core::report::LaunchReport;
use aos_package::oci::{
    ArtifactManifest, ForeignConfig, ForeignDocument, Index, Manifest, PackageConfig, check_layout,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(report) = LaunchReport::parse(bytes) {
        report.to_json().expect("what was read can be written");
    }
    if let Ok(agent) = ResolvedAgent::from_canonical_json(bytes) {
        assert_eq!(agent.to_canonical_json().expect("it was read"), bytes);
    }
    if let Ok(index) = Index::parse(bytes) {
        let written = index.to_json().expect("it was read");
        assert_eq!(Index::parse(&written).expect("it was written"), index);
    }
    if let Ok(manifest) = Manifest::parse(bytes) {
        let written = manifest.to_json().expect("it was read");
        assert_eq!(Manifest::parse(&written).expect("it was written"), manifest);
    }
    if let Ok(attachment) = ArtifactManifest::parse(bytes) {
        let written = attachment.to_json().expect("it was read");
        assert_eq!(ArtifactManifest::parse(&written).expect("it was written"), attachment);
    }
    if let Ok(ForeignDocument::Index(index)) = ForeignDocument::parse(bytes) {
        drop(index.select("amd64").cloned());
    }
    drop(ForeignConfig::parse(bytes));
    drop(PackageConfig::parse(bytes));
    drop(check_layout(bytes));
});
