//! Quantities that a person writes with a unit: sizes, CPU shares, durations and counts. Each has
//! one canonical text, and is at least 1: a limit of nothing is always a mistake.

use crate::macros::serde_as_text;
use crate::quoted::Quoted;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;
use thiserror::Error;

/// 1,000 CPUs: more than any machine this runs on, far from overflow in systemd's microseconds.
pub const CPU_PERCENT_MAX: u32 = 100_000;
/// The kernel's `PID_MAX_LIMIT` on 64-bit machines.
pub const TASKS_MAX: u32 = 4_194_304;
/// The kernel's default `fs.nr_open`.
pub const OPEN_FILES_MAX: u32 = 1_048_576;
/// The greatest `io.weight` of a control group (cgroup-v2.rst, "IO Interface Files").
pub const IO_WEIGHT_MAX: u32 = 10_000;
/// Calls that a capability may count: one a second for thirty years.
pub const CALLS_MAX: u32 = 1_000_000_000;
/// Ten years; systemd's microseconds in 64 bits hold far more.
pub const DURATION_MAX_SECONDS: u64 = 3_650 * 86_400;

/// Why a text is not a quantity.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum QuantityError {
    /// The text does not have the form of this quantity.
    #[error("{what} {} is not valid, expected {expected}", Quoted(.text))]
    Form {
        /// The kind of quantity.
        what: &'static str,
        /// The text.
        text: String,
        /// The form, with examples.
        expected: &'static str,
    },
    /// The number is out of range.
    #[error("{what} {} is out of range, allowed is {min} to {max}", Quoted(.text))]
    Range {
        /// The kind of quantity.
        what: &'static str,
        /// The text.
        text: String,
        /// The least value allowed.
        min: String,
        /// The greatest value allowed.
        max: String,
    },
}

/// Parses plain decimal digits: no sign, no leading zero, no separators.
fn digits(text: &str) -> Option<u64> {
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let canonical = text == "0" || !text.starts_with('0');
    if plain && canonical { text.parse().ok() } else { None }
}

/// Bytes: `4096`, `64K`, `256M`, `1G`, `2T`, in powers of 1024.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ByteSize(u64);

const SIZE_UNITS: [(char, u32); 4] = [('T', 40), ('G', 30), ('M', 20), ('K', 10)];

impl ByteSize {
    /// A size in bytes; `None` for 0.
    pub const fn from_bytes(bytes: u64) -> Option<Self> {
        if bytes == 0 { None } else { Some(Self(bytes)) }
    }

    /// The size in bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for ByteSize {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let what = "size";
        let form = || QuantityError::Form {
            what,
            text: text.to_owned(),
            expected: "bytes or a number with K, M, G or T (powers of 1024), such as 256M",
        };
        let range = || QuantityError::Range {
            what,
            text: text.to_owned(),
            min: "1".to_owned(),
            max: u64::MAX.to_string(),
        };
        let unit = SIZE_UNITS.iter().find_map(|&(unit, shift)| Some((text.strip_suffix(unit)?, shift)));
        let (number, shift) = unit.unwrap_or((text, 0));
        if number.len() > 20 && number.bytes().all(|b| b.is_ascii_digit()) {
            return Err(range());
        }
        let number = digits(number).ok_or_else(form)?;
        let bytes = number.checked_mul(1 << shift).ok_or_else(range)?;
        Self::from_bytes(bytes).ok_or_else(range)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, shift) in SIZE_UNITS {
            if self.0.trailing_zeros() >= shift {
                return write!(f, "{}{unit}", self.0 >> shift);
            }
        }
        write!(f, "{}", self.0)
    }
}

/// Part of one CPU's time, in percent: `50%`, `200%` is two CPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CpuQuota(u32);

impl CpuQuota {
    /// A share in percent of one CPU; `None` outside 1 to [`CPU_PERCENT_MAX`].
    pub const fn from_percent(percent: u32) -> Option<Self> {
        if percent == 0 || percent > CPU_PERCENT_MAX { None } else { Some(Self(percent)) }
    }

    /// Percent of one CPU.
    pub const fn percent(self) -> u32 {
        self.0
    }

    /// CPU time per second of wall time, systemd's `CPUQuotaPerSecUSec=`, in microseconds.
    pub const fn usec_per_sec(self) -> u64 {
        self.0 as u64 * 10_000
    }
}

impl FromStr for CpuQuota {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let what = "CPU share";
        let number = text.strip_suffix('%').and_then(digits).ok_or_else(|| QuantityError::Form {
            what,
            text: text.to_owned(),
            expected: "whole percent of one CPU, such as 50%",
        })?;
        u32::try_from(number).ok().and_then(Self::from_percent).ok_or_else(|| QuantityError::Range {
            what,
            text: text.to_owned(),
            min: "1%".to_owned(),
            max: format!("{CPU_PERCENT_MAX}%"),
        })
    }
}

impl fmt::Display for CpuQuota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0)
    }
}

/// A span of time in whole seconds: `90s`, `10m`, `1h30m`, `7d`. Units fall from left to right,
/// each at most once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DurationSpec(u64);

const TIME_UNITS: [(char, u64); 4] = [('d', 86_400), ('h', 3_600), ('m', 60), ('s', 1)];

impl DurationSpec {
    /// A span in seconds; `None` outside 1 to [`DURATION_MAX_SECONDS`].
    pub const fn from_seconds(seconds: u64) -> Option<Self> {
        if seconds == 0 || seconds > DURATION_MAX_SECONDS { None } else { Some(Self(seconds)) }
    }

    /// The span in seconds.
    pub const fn seconds(self) -> u64 {
        self.0
    }

    /// The span in microseconds, the unit of systemd's `...USec` properties.
    pub const fn usec(self) -> u64 {
        self.0 * 1_000_000
    }

    /// The span as the standard library's type.
    pub const fn to_std(self) -> Duration {
        Duration::from_secs(self.0)
    }
}

/// Seconds of `1h30m`; `None` when the form is wrong, `Some(None)` when it overflows.
fn duration_seconds(text: &str) -> Option<Option<u64>> {
    let mut rest = text;
    let mut total = Some(0_u64);
    let mut units = TIME_UNITS.iter();
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, tail) = rest.split_at_checked(end)?;
        let unit = tail.chars().next()?;
        // `find` advances: a unit that is repeated or out of order is not found any more.
        let &(_, seconds) = units.find(|&&(name, _)| name == unit)?;
        if number.is_empty() || (number.len() > 1 && number.starts_with('0')) {
            return None;
        }
        let part = number.parse::<u64>().ok().and_then(|count| count.checked_mul(seconds));
        total = total.zip(part).and_then(|(total, part)| total.checked_add(part));
        rest = tail.get(unit.len_utf8()..)?;
    }
    (!text.is_empty()).then_some(total)
}

impl FromStr for DurationSpec {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let what = "duration";
        let total = duration_seconds(text).ok_or_else(|| QuantityError::Form {
            what,
            text: text.to_owned(),
            expected: "numbers with d, h, m or s, such as 10m or 1h30m",
        })?;
        total.and_then(Self::from_seconds).ok_or_else(|| QuantityError::Range {
            what,
            text: text.to_owned(),
            min: "1s".to_owned(),
            max: format!("{}d", DURATION_MAX_SECONDS / 86_400),
        })
    }
}

impl fmt::Display for DurationSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        for (unit, seconds) in TIME_UNITS {
            if rest >= seconds {
                write!(f, "{}{unit}", rest / seconds)?;
                rest %= seconds;
            }
        }
        Ok(())
    }
}

/// Defines a bounded count that is written as plain digits, in JSON also as a number.
macro_rules! count {
    ($(#[$doc:meta])* $name:ident, $what:literal, $max:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
        #[serde(try_from = "u32", into = "u32")]
        pub struct $name(u32);

        impl $name {
            /// The count; `None` for 0 and above the maximum.
            pub const fn new(count: u32) -> Option<Self> {
                if count == 0 || count > $max { None } else { Some(Self(count)) }
            }

            /// The count.
            pub const fn get(self) -> u32 {
                self.0
            }
        }

        impl FromStr for $name {
            type Err = QuantityError;

            fn from_str(text: &str) -> Result<Self, QuantityError> {
                let range = || QuantityError::Range {
                    what: $what,
                    text: text.to_owned(),
                    min: "1".to_owned(),
                    max: $max.to_string(),
                };
                let number = digits(text).ok_or_else(|| QuantityError::Form {
                    what: $what,
                    text: text.to_owned(),
                    expected: "a whole number, such as 64",
                })?;
                u32::try_from(number).ok().and_then(Self::new).ok_or_else(range)
            }
        }

        impl TryFrom<u32> for $name {
            type Error = QuantityError;

            fn try_from(count: u32) -> Result<Self, QuantityError> {
                count.to_string().parse()
            }
        }

        impl From<$name> for u32 {
            fn from(count: $name) -> u32 {
                count.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

count!(
    /// Processes and threads, 1 to [`TASKS_MAX`].
    TaskCount,
    "task count",
    TASKS_MAX
);
count!(
    /// Open file descriptors of one process, 1 to [`OPEN_FILES_MAX`].
    OpenFiles,
    "open file count",
    OPEN_FILES_MAX
);
count!(
    /// The share of the block devices' time that a control group has beside its neighbours, 1 to
    /// [`IO_WEIGHT_MAX`]; the kernel's default is 100.
    IoWeight,
    "I/O weight",
    IO_WEIGHT_MAX
);
count!(
    /// Uses of a capability, 1 to [`CALLS_MAX`].
    CallCount,
    "call count",
    CALLS_MAX
);

serde_as_text!(ByteSize);
serde_as_text!(CpuQuota);
serde_as_text!(DurationSpec);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [("1", 1), ("1K", 1024), ("256M", 256 << 20), ("16777215T", 16_777_215 << 40)] {
            assert_eq!(text.parse::<ByteSize>().unwrap().bytes(), bytes, "{text}");
        }
        for bad in [
            "",
            "0",
            "0M",
            "M",
            "-1",
            "+1",
            "1.5G",
            "1 M",
            "1m",
            "1MB",
            "01M",
            "1KK",
            "16777216T",
            "99999999999999999999999",
        ] {
            assert!(bad.parse::<ByteSize>().is_err(), "{bad:?}");
        }
        let error = "16777216T".parse::<ByteSize>().unwrap_err().to_string();
        assert!(error.contains("out of range"), "{error}");
    }

    #[test]
    fn cpu_shares() {
        let half: CpuQuota = "50%".parse().unwrap();
        assert_eq!((half.percent(), half.usec_per_sec()), (50, 500_000));
        assert!("100000%".parse::<CpuQuota>().is_ok());
        for bad in ["", "%", "0%", "100001%", "50", "50 %", "0.5%", "-5%", "99999999999%"] {
            assert!(bad.parse::<CpuQuota>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn durations() {
        for (text, seconds) in [("1s", 1), ("10m", 600), ("1h30m", 5400), ("1d2h3m4s", 93_784), ("90s", 90)] {
            assert_eq!(text.parse::<DurationSpec>().unwrap().seconds(), seconds, "{text}");
        }
        assert_eq!("90s".parse::<DurationSpec>().unwrap().to_string(), "1m30s");
        for bad in [
            "",
            "10",
            "m",
            "0s",
            "1m1h",
            "1m1m",
            "1h 30m",
            "1w",
            "01m",
            "3651d",
            "99999999999999999999d",
            "1ms",
        ] {
            assert!(bad.parse::<DurationSpec>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn counts() {
        assert_eq!("64".parse::<TaskCount>().unwrap().get(), 64);
        for bad in ["", "0", "-1", "064", "4194305", "1e3"] {
            assert!(bad.parse::<TaskCount>().is_err(), "{bad:?}");
        }
        assert_eq!("10000".parse::<IoWeight>().unwrap().get(), IO_WEIGHT_MAX);
        for bad in ["0", "10001", "50%"] {
            assert!(bad.parse::<IoWeight>().is_err(), "{bad:?}");
        }
        assert!(serde_json::from_str::<TaskCount>("0").is_err());
        assert_eq!(serde_json::to_string(&OpenFiles::new(9).unwrap()).unwrap(), "9");
    }

    proptest! {
        #[test]
        fn text_round_trips(bytes in 1..u64::MAX, percent in 1..=CPU_PERCENT_MAX, seconds in 1..=DURATION_MAX_SECONDS) {
            let size = ByteSize::from_bytes(bytes).unwrap();
            prop_assert_eq!(size.to_string().parse::<ByteSize>().unwrap(), size);
            let quota = CpuQuota::from_percent(percent).unwrap();
            prop_assert_eq!(quota.to_string().parse::<CpuQuota>().unwrap(), quota);
            let span = DurationSpec::from_seconds(seconds).unwrap();
            prop_assert_eq!(span.to_string().parse::<DurationSpec>().unwrap(), span);
        }

        #[test]
        fn no_text_panics(text in ".{0,40}") {
            prop_assert!(text.parse::<ByteSize>().is_err() || text.bytes().all(|b| b.is_ascii_alphanumeric()));
            prop_assert!(text.parse::<DurationSpec>().is_err() || text.is_ascii());
            prop_assert!(text.parse::<CpuQuota>().is_err() || text.ends_with('%'));
        }
    }
}
