//! Quantities as Kubernetes and Docker write them, in ours.

use crate::quantity::{ByteSize, CpuQuota};

/// Suffixes of sizes: powers of 1024, and of 1000.
const SUFFIXES: [(&str, u64); 14] = [
    ("Ti", 1 << 40),
    ("Gi", 1 << 30),
    ("Mi", 1 << 20),
    ("Ki", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("T", 1_000_000_000_000),
    ("G", 1_000_000_000),
    ("M", 1_000_000),
    ("k", 1_000),
    ("K", 1_000),
    ("B", 1),
];
/// Digits behind the point of a number of processors; more is no percent.
const FRACTION_MAX: usize = 6;

/// `512Mi`, `2GiB`, `1G` (powers of 1000 without `i`), `1073741824`.
pub(super) fn size(text: &str) -> Option<ByteSize> {
    let text = text.trim();
    let text = if text.ends_with("iB") { text.strip_suffix('B')? } else { text };
    let unit = SUFFIXES.iter().find_map(|&(suffix, factor)| Some((text.strip_suffix(suffix)?, factor)));
    let (number, factor) = unit.unwrap_or((text, 1));
    let plain = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    let bytes = number.parse::<u64>().ok().filter(|_| plain)?.checked_mul(factor)?;
    ByteSize::from_bytes(bytes)
}

/// `500m`, `2`, `0.5` processors, or `50%`; rounded up to whole percent.
pub(super) fn cpu(text: &str) -> Option<CpuQuota> {
    let text = text.trim();
    if text.ends_with('%') {
        return text.parse().ok();
    }
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit()) && text.len() <= FRACTION_MAX;
    let millis: u64 = if let Some(millis) = text.strip_suffix('m') {
        millis.parse().ok().filter(|_| digits(millis))?
    } else {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
        if whole.is_empty() || fraction.is_empty() || !digits(whole) || !digits(fraction) {
            return None;
        }
        let thousandths: String = fraction.chars().chain("000".chars()).take(3).collect();
        whole.parse::<u64>().ok()?.checked_mul(1000)?.checked_add(thousandths.parse::<u64>().ok()?)?
    };
    u32::try_from(millis.div_ceil(10)).ok().and_then(CpuQuota::from_percent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, canonical) in [
            ("512Mi", "512M"),
            ("2GiB", "2G"),
            ("1G", "1000000000"),
            ("64k", "64000"),
            ("10GB", "9765625K"),
            ("4096", "4K"),
            (" 1Ti ", "1T"),
        ] {
            assert_eq!(size(text).map(|size| size.to_string()).as_deref(), Some(canonical), "{text}");
        }
        for bad in ["", "0", "Mi", "1.5Gi", "-1", "1 Gi", "99999999999Ti", "big"] {
            assert_eq!(size(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn processors() {
        for (text, percent) in
            [("500m", 50), ("2", 200), ("0.5", 50), ("1.25", 125), ("5m", 1), ("50%", 50), ("0.001", 1)]
        {
            assert_eq!(cpu(text).map(CpuQuota::percent), Some(percent), "{text}");
        }
        for bad in ["", "0", "m", ".5", "1.", "-1", "1e3", "0m", "99999999", "two"] {
            assert_eq!(cpu(bad), None, "{bad:?}");
        }
    }
}
