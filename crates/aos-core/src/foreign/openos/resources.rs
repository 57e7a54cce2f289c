//! `resources`: flat, or with `limits` and `requests` as Kubernetes has them.

use super::super::reader::Field;
use super::super::yaml::Yaml;
use super::super::{Remarks, units};

/// The section `limits` of an Agentfile.
pub(super) fn limits(remarks: &mut Remarks, section: &Field<'_>) -> Option<Yaml> {
    if let Some(requests) = section.get("requests") {
        remarks.drop(&requests, "there are upper bounds only");
    }
    let nested = section.get("limits");
    let of = nested.as_ref().unwrap_or(section);
    let quantity = |remarks: &mut Remarks, name: &str, parse: fn(&str) -> Option<String>, expected: &str| {
        let field = of.get(name)?;
        let parsed = field.text().and_then(parse);
        if parsed.is_none() {
            remarks.drop(&field, format!("is not {expected}"));
        }
        parsed.map(Yaml::text)
    };
    let memory =
        quantity(remarks, "memory", |text| Some(units::size(text)?.to_string()), "a size, such as 512Mi");
    let cpu = quantity(
        remarks,
        "cpu",
        |text| Some(units::cpu(text)?.to_string()),
        "a number of processors, such as 500m or 2",
    );
    if let Some(gpu) = of.get("gpu") {
        remarks.drop(&gpu, "this version of AOS gives no GPU");
    }
    remarks.drop_others(of, &["cpu", "memory", "gpu", "requests"]);
    if nested.is_some() {
        remarks.drop_others(section, &["limits", "requests"]);
    }
    Yaml::map([("memory", memory), ("cpu", cpu)]).unless_empty()
}
