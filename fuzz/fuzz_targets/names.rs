//! References, places, ranges and patterns: what is parsed prints as a text that parses to the same.
#![no_main]

use aos_core::agentfile::{Base, CopyTarget, Extends};
use aos_core::dependency::{Provider, Requirement};
use aos_core::glob::Glob;
use aos_core::path::RelativePath;
use aos_core::port::{NetTarget, Port};
use aos_core::reference::{Location, Reference};
use libfuzzer_sys::fuzz_target;
use std::fmt::{Debug, Display};
use std::str::FromStr;

fn prints_back<T: FromStr<Err: Debug> + Display + PartialEq + Debug>(text: &str) -> Option<T> {
    let value: T = text.parse().ok()?;
    assert_eq!(value.to_string().parse::<T>().expect("it was printed"), value);
    Some(value)
}

fuzz_target!(|text: &str| {
    if let Some(reference) = prints_back::<Reference>(text) {
        assert_eq!(reference.to_string(), text);
        reference.path.as_str().parse::<RelativePath>().expect("a repository stays in its directory");
    }
    prints_back::<Location>(text);
    prints_back::<Extends>(text);
    prints_back::<Base>(text);
    prints_back::<CopyTarget>(text);
    prints_back::<Requirement>(text);
    prints_back::<Provider>(text);
    prints_back::<Port>(text);
    prints_back::<NetTarget>(text);
    // Half of the text against the other half.
    let middle = (0..=text.len() / 2).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    let (pattern, path) = text.split_at(middle);
    if let Some(glob) = prints_back::<Glob>(pattern) {
        let _matches: bool = glob.matches(path) | glob.excludes(path);
    }
});
