//! The qualifiers of a capability: what holds for each use of it beside what it names.
//!
//! Fewer uses are a subset of more, so each qualifier has an order, and one list is within another when
//! each of its qualifiers is. A qualifier that is not there allows everything.
//!
//! - `max_calls`, `max_bytes`: the smaller is within the larger.
//! - `expires`: the earlier is within the later. It is a point in time and not a span: a span would count
//!   from the grant, so that of two capabilities nobody could say which ends first without knowing when
//!   each was granted, and a child granted later would outlive its parent.
//! - `approval`: see [`Approval`].

use super::access::Circumstances;
use crate::macros::word_enum;
use crate::quantity::{ByteSize, CallCount, QuantityError};
use crate::quoted::Quoted;
use crate::time::{BadTime, UtcTime};
use std::fmt;
use thiserror::Error;

/// The qualifiers and the form of each. Parser, messages and schema are derived from it.
pub const QUALIFIERS: [(&str, &str); 4] = [
    (
        "approval",
        "whether a person is asked: at each use (always), at the first (once), for a whole plan (plan)",
    ),
    ("max_calls", "how often it may be used, such as 10"),
    ("max_bytes", "how many bytes may pass, such as 10M"),
    ("expires", "when it ends, in UTC, such as 2027-01-31T18:00:00Z"),
];

word_enum! {
    /// How a person approves of a use.
    ///
    /// The approval of one very use (`always`) serves wherever one is demanded. That of a plan says nothing
    /// of uses outside the plan, and that of a first use nothing of a plan, so neither serves for the other:
    /// `always` is within `plan` and `once`, each of these within no demand at all, and the two are apart.
    Approval, NotAnApproval {
        /// Each use by itself.
        #[default]
        Always = "always",
        /// The first use; those after it need no other.
        Once = "once",
        /// A plan that has the use in it, before the plan begins.
        Plan = "plan",
    }
}

impl Approval {
    /// True when this approval, given, is enough where `demanded` is demanded.
    pub fn serves(self, demanded: Self) -> bool {
        self == demanded || self == Self::Always
    }
}

/// Why qualifiers are refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum QualifierError {
    /// There is no `name=value`.
    #[error("qualifier {} has not the form name=value, such as max_calls=10", Quoted(.0))]
    Form(String),
    /// The name is unknown.
    #[error("unknown qualifier {}, known are {}", Quoted(.0), known())]
    Unknown(String),
    /// A qualifier is there twice.
    #[error("qualifier `{0}` appears twice")]
    Twice(&'static str),
    /// The word is no approval.
    #[error("qualifier `approval`: {0}")]
    Approval(#[from] NotAnApproval),
    /// The number is wrong.
    #[error("qualifier `{name}`: {source}")]
    Quantity {
        /// The qualifier.
        name: &'static str,
        /// What is wrong.
        source: QuantityError,
    },
    /// The time is wrong.
    #[error("qualifier `expires`: {0}")]
    Expires(#[from] BadTime),
}

fn known() -> String {
    QUALIFIERS.map(|(name, _)| name).join(", ")
}

/// Why a use is refused though the capability names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Unmet {
    /// The capability has ended.
    #[error("expired at {0}")]
    Expired(UtcTime),
    /// It has been used up.
    #[error("used as often as it may be, {0} times")]
    Calls(CallCount),
    /// More bytes would pass than may.
    #[error("more than {0} bytes would pass")]
    Bytes(ByteSize),
    /// Nobody has approved.
    #[error("needs the approval `{0}`")]
    Approval(Approval),
}

/// The qualifiers of a capability; what is `None` allows everything.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Qualifiers {
    /// Whether a person is asked.
    pub approval: Option<Approval>,
    /// How often it may be used.
    pub max_calls: Option<CallCount>,
    /// How many bytes may pass.
    pub max_bytes: Option<ByteSize>,
    /// The end: uses are before it.
    pub expires: Option<UtcTime>,
}

/// Fills a qualifier that is still free.
fn fill<T>(slot: &mut Option<T>, name: &'static str, value: T) -> Result<(), QualifierError> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(QualifierError::Twice(name)),
    }
}

/// True when an upper bound is within another; none is the widest.
fn is_within<T: PartialOrd>(bound: Option<T>, other: Option<T>) -> bool {
    match (bound, other) {
        (_, None) => true,
        (Some(bound), Some(other)) => bound <= other,
        (None, Some(_)) => false,
    }
}

impl Qualifiers {
    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Sets one of them by its name.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), QualifierError> {
        let quantity = |name| move |source| QualifierError::Quantity { name, source };
        match name {
            "approval" => fill(&mut self.approval, "approval", value.parse()?),
            "max_calls" => {
                fill(&mut self.max_calls, "max_calls", value.parse().map_err(quantity("max_calls"))?)
            }
            "max_bytes" => {
                fill(&mut self.max_bytes, "max_bytes", value.parse().map_err(quantity("max_bytes"))?)
            }
            "expires" => fill(&mut self.expires, "expires", value.parse()?),
            _ => Err(QualifierError::Unknown(name.to_owned())),
        }
    }

    /// Parses what stands in the brackets of a line, `name=value` with commas between.
    pub(super) fn parse_list(text: &str) -> Result<Self, QualifierError> {
        let mut qualifiers = Self::default();
        for one in text.split(',') {
            let one = one.trim_matches(' ');
            let (name, value) = one.split_once('=').ok_or_else(|| QualifierError::Form(one.to_owned()))?;
            qualifiers.set(name, value)?;
        }
        Ok(qualifiers)
    }

    /// True when every use that these allow, `other` allows too.
    pub fn is_subset(&self, other: &Self) -> bool {
        let asks = match (self.approval, other.approval) {
            (_, None) => true,
            (Some(mine), Some(demanded)) => mine.serves(demanded),
            (None, Some(_)) => false,
        };
        asks && is_within(self.max_calls, other.max_calls)
            && is_within(self.max_bytes, other.max_bytes)
            && is_within(self.expires, other.expires)
    }

    /// Whether a use is allowed, or the first qualifier that is not met.
    pub fn check(&self, circumstances: &Circumstances<'_>) -> Result<(), Unmet> {
        if let Some(end) = self.expires.filter(|end| circumstances.now >= *end) {
            return Err(Unmet::Expired(end));
        }
        if let Some(max) = self.max_calls.filter(|max| circumstances.calls_before >= u64::from(max.get())) {
            return Err(Unmet::Calls(max));
        }
        if let Some(max) = self.max_bytes.filter(|max| circumstances.bytes_after > max.bytes()) {
            return Err(Unmet::Bytes(max));
        }
        let given = |demanded: Approval| circumstances.approvals.iter().any(|given| given.serves(demanded));
        match self.approval {
            Some(demanded) if !given(demanded) => Err(Unmet::Approval(demanded)),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Qualifiers {
    /// `[approval=once, max_calls=10]`; nothing when there is none.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts = [
            self.approval.map(|word| word.to_string()),
            self.max_calls.map(|count| count.to_string()),
            self.max_bytes.map(|size| size.to_string()),
            self.expires.map(|time| time.to_string()),
        ];
        let mut opening = "[";
        for ((name, _), text) in QUALIFIERS.iter().zip(texts) {
            if let Some(text) = text {
                write!(f, "{opening}{name}={text}")?;
                opening = ", ";
            }
        }
        if opening == "[" { Ok(()) } else { f.write_str("]") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Qualifiers, String> {
        Qualifiers::parse_list(text).map_err(|error| error.to_string())
    }

    #[test]
    fn one_order_when_printed() {
        let all = "[approval=plan, max_calls=10, max_bytes=1M, expires=2027-01-31T18:00:00Z]";
        let mixed =
            parse("expires=2027-01-31T18:00:00Z,max_bytes=1048576,  max_calls=10, approval=plan").unwrap();
        assert_eq!(mixed.to_string(), all);
        assert_eq!(parse("max_calls=1").unwrap().to_string(), "[max_calls=1]");
        assert_eq!(Qualifiers::default().to_string(), "");
        for (bad, says) in [
            ("", "form name=value"),
            ("max_calls", "form name=value"),
            ("max_calls=1,", "form name=value"),
            ("max_calls=0", "`max_calls`: call count `0` is out of range"),
            ("max_calls=1000000001", "allowed is 1 to 1000000000"),
            ("max_bytes=1.5G", "`max_bytes`: size"),
            ("approval=never", "`approval`: expected always, once or plan"),
            ("expires=1h", "such as 2027-01-31T18:00:00Z"),
            ("calls=1", "unknown qualifier `calls`, known are approval, max_calls, max_bytes, expires"),
            ("max_calls =1", "unknown qualifier `max_calls `"),
            ("max_calls=1, max_calls=2", "`max_calls` appears twice"),
        ] {
            let error = parse(bad).unwrap_err();
            assert!(error.contains(says), "{bad}: {error}");
        }
    }

    /// All demands against all sets of approvals: what a demand lets pass, each demand that it is within
    /// lets pass too, and a demand that it is not within refuses some of it. So the order is sound and
    /// misses nothing.
    #[test]
    fn the_order_of_approvals_is_that_of_what_they_let_pass() {
        let demands = [None, Some(Approval::Always), Some(Approval::Once), Some(Approval::Plan)];
        let with = |approval| Qualifiers { approval, ..Qualifiers::default() };
        let passes = |demand, approvals: &[Approval]| {
            let now = UtcTime::from_epoch_seconds(0).unwrap();
            let circumstances = Circumstances { approvals, calls_before: 0, bytes_after: 0, now };
            with(demand).check(&circumstances).is_ok()
        };
        let given: Vec<Vec<Approval>> = (0..8_u8)
            .map(|bits| {
                let all = Approval::ALL.iter().enumerate();
                all.filter(|(bit, _)| bits & (1 << bit) != 0).map(|(_, approval)| *approval).collect()
            })
            .collect();
        for child in demands {
            for parent in demands {
                let narrows = given.iter().all(|given| !passes(child, given) || passes(parent, given));
                assert_eq!(with(child).is_subset(&with(parent)), narrows, "{child:?} in {parent:?}");
            }
        }
        assert!(!with(Some(Approval::Once)).is_subset(&with(Some(Approval::Plan))));
        assert!(!with(Some(Approval::Plan)).is_subset(&with(Some(Approval::Once))));
    }

    #[test]
    fn bounds_are_exact() {
        let qualifiers = parse("max_calls=2, max_bytes=10, expires=1970-01-01T00:01:40Z").unwrap();
        let check = |calls_before, bytes_after, now| {
            let now = UtcTime::from_epoch_seconds(now).unwrap();
            qualifiers.check(&Circumstances { approvals: &[], calls_before, bytes_after, now })
        };
        assert_eq!(check(1, 10, 99), Ok(()));
        assert!(matches!(check(2, 10, 99), Err(Unmet::Calls(_))));
        assert!(matches!(check(1, 11, 99), Err(Unmet::Bytes(_))));
        assert!(matches!(check(1, 10, 100), Err(Unmet::Expired(_))));
    }
}
