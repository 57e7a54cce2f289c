//! The wall clock, read here only, and times and sizes in words.

use std::time::{SystemTime, UNIX_EPOCH};

/// The time.
#[expect(clippy::disallowed_methods, reason = "this module owns the wall clock")]
pub(crate) fn now() -> SystemTime {
    SystemTime::now()
}

/// Microseconds since the epoch.
pub(crate) fn now_us() -> u64 {
    let elapsed = now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX)
}

/// How long ago `then_us` was, in the largest unit that fits.
pub(crate) fn ago(then_us: u64, now_us: u64) -> String {
    let seconds = now_us.saturating_sub(then_us) / 1_000_000;
    format!("{} ago", duration(seconds))
}

/// Seconds in words: `5 s`, `3 min`, `2 h`, `4 d`.
pub(crate) fn duration(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min", seconds / 60),
        3_600..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// Bytes in the largest binary unit that fits.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [(&str, u64); 3] = [("G", 1 << 30), ("M", 1 << 20), ("K", 1 << 10)];
    match UNITS.into_iter().find(|(_, size)| count >= *size) {
        Some((unit, size)) => {
            let tenths = count.saturating_mul(10) / size;
            format!("{}.{}{unit}", tenths / 10, tenths % 10)
        }
        None => format!("{count}B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        assert_eq!(ago(0, 59_000_000), "59 s ago");
        assert_eq!(ago(0, 3_599_000_000), "59 min ago");
        assert_eq!(ago(5, 0), "0 s ago");
        assert_eq!(duration(86_400 * 3), "3 d");
        assert_eq!(bytes(512), "512B");
        assert_eq!(bytes(1536), "1.5K");
        assert_eq!(bytes(3 << 30), "3.0G");
    }
}
