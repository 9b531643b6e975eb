//! Sizes in bytes as people write and read them.

/// Reads `8T`, `512G`, `4GiB`, `300GB`, `1024`: a suffix K, M, G, T (with or without `iB`) counts in powers of 1024, with `B` in
/// powers of 1000.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let suffix = suffix.trim().to_ascii_lowercase();
    let (prefix, base) = match suffix.as_str() {
        "" | "b" => ("", 1),
        s if s.ends_with("ib") => (&suffix[..suffix.len() - 2], 1024),
        s if s.ends_with('b') => (&suffix[..suffix.len() - 1], 1000),
        s => (s, 1024),
    };
    let power = match prefix {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return Err(format!("{text:?} is not a size: write bytes, or a number with K, M, G or T")),
    };
    let factor = u64::pow(base, power);
    let invalid = || format!("{text:?} is not a size");
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(factor).ok_or_else(|| format!("{text:?} is more than 64 bits can count"));
    }
    let bytes = number.parse::<f64>().map_err(|_| invalid())? * factor as f64;
    if bytes.is_finite() && (0.0..9.0e18).contains(&bytes) { Ok(bytes as u64) } else { Err(invalid()) }
}

/// `256.0 GiB`.
pub fn show_size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// `3 d 4 h`, `12 min`, `8 s`.
pub fn show_duration(seconds: f64) -> String {
    if !seconds.is_finite() || seconds > 1e10 {
        return "unknown".to_owned();
    }
    let seconds = seconds.round() as u64;
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86400 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {} h", seconds / 86400, seconds % 86400 / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        assert_eq!(parse_size("1024"), Ok(1024));
        assert_eq!(parse_size("8T"), Ok(8 << 40));
        assert_eq!(parse_size("4GiB"), Ok(4 << 30));
        assert_eq!(parse_size("4 gb"), Ok(4_000_000_000));
        assert_eq!(parse_size("1.5k"), Ok(1536));
        for bad in ["", "x", "1Q", "-1", "1.2.3", "99999999T", "1e3"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn values_are_shown_with_their_unit() {
        assert_eq!(show_size(256 << 30), "256.0 GiB");
        assert_eq!(show_size(12), "12 B");
        assert_eq!(show_duration(3.0 * 86400.0 + 4.0 * 3600.0), "3 d 4 h");
        assert_eq!(show_duration(f64::INFINITY), "unknown");
    }
}
