//! Times for people: UTC dates, ages and durations.

use std::time::Duration;

/// `2026-11-21 22:10:03.123Z` for Unix milliseconds. Days to date by the proleptic Gregorian calendar, counted in eras of
/// 400 years that begin on 1 March.
pub(super) fn utc(ms: u64) -> String {
    let (seconds, ms) = (ms / 1000, ms % 1000);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let shifted = days + 719_468; // days from 0000-03-01 to 1970-01-01
    let (era, day) = (shifted / 146_097, shifted % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let march = (5 * day + 2) / 153; // month, with March as 0
    let date = day - (153 * march + 2) / 5 + 1;
    let (month, next) = if march < 10 {
        (march + 3, 0)
    } else {
        (march - 9, 1)
    };
    let year = era * 400 + year + next;
    let (h, m, s) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{date:02} {h:02}:{m:02}:{s:02}.{ms:03}Z")
}

/// `3 s ago`, `5 min ago`; what lies ahead, by a clock that differs, is `just now`.
pub(super) fn ago(then_ms: u64, now_ms: u64) -> String {
    let seconds = now_ms.saturating_sub(then_ms) / 1000;
    match seconds {
        0 => "just now".into(),
        1..120 => format!("{seconds} s ago"),
        120..7200 => format!("{} min ago", seconds / 60),
        7200..172_800 => format!("{} h ago", seconds / 3600),
        _ => format!("{} days ago", seconds / 86_400),
    }
}

/// `85 µs`, `1.25 ms`, `812 ms`, `1.02 s`: three digits or so.
pub(super) fn short(d: Duration) -> String {
    let us = d.as_secs_f64() * 1e6;
    match us {
        ..1e3 => format!("{us:.0} µs"),
        ..1e4 => format!("{:.2} ms", us / 1e3),
        ..1e5 => format!("{:.1} ms", us / 1e3),
        ..1e6 => format!("{:.0} ms", us / 1e3),
        ..1e7 => format!("{:.2} s", us / 1e6),
        _ => format!("{:.0} s", us / 1e6),
    }
}

/// [`short`] of milliseconds, as status carries them; nonsense is nothing.
pub(super) fn short_ms(ms: f64) -> String {
    short(Duration::try_from_secs_f64(ms / 1e3).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_right_around_leap_days_and_new_years() {
        for (ms, text) in [
            (0, "1970-01-01 00:00:00.000Z"),
            (951_782_399_999, "2000-02-28 23:59:59.999Z"),
            (951_782_400_000, "2000-02-29 00:00:00.000Z"),
            (1_709_251_200_000, "2024-03-01 00:00:00.000Z"),
            (1_767_225_599_001, "2025-12-31 23:59:59.001Z"),
            (1_767_225_600_000, "2026-01-01 00:00:00.000Z"),
            (4_107_542_400_000, "2100-03-01 00:00:00.000Z"),
        ] {
            assert_eq!(utc(ms), text);
        }
        utc(u64::MAX);
    }

    #[test]
    fn ages_and_durations_are_short() {
        assert_eq!(ago(5_000, 4_000), "just now");
        assert_eq!(ago(0, 119_999), "119 s ago");
        assert_eq!(ago(0, 3_600_000), "60 min ago");
        assert_eq!(ago(0, 864_000_000), "10 days ago");
        assert_eq!(short(Duration::from_micros(85)), "85 µs");
        assert_eq!(short(Duration::from_micros(1_254)), "1.25 ms");
        assert_eq!(short(Duration::from_millis(812)), "812 ms");
        assert_eq!(short(Duration::from_millis(1_024)), "1.02 s");
        assert_eq!(short_ms(f64::NAN), "0 µs");
    }
}
