//! Durations as configuration files write them: `336h`, `1h30m`, `700ms`.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A duration of at most 2^63 - 1 nanoseconds (292 years), written like `1h30m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Span(pub Duration);

/// Not a duration such as `336h`, `90s` or `1h30m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected a duration such as 336h, 90s or 1h30m")]
pub struct ParseSpanError;

const UNITS: [(&str, u64); 6] =
    [("h", 3_600_000_000_000), ("m", 60_000_000_000), ("s", 1_000_000_000), ("ms", 1_000_000), ("us", 1000), ("ns", 1)];

impl Span {
    /// The longest duration.
    pub const MAX: Self = Self(Duration::from_nanos(i64::MAX.cast_unsigned()));
}

/// `number` (with an optional fraction) times `unit`, in nanoseconds.
fn nanos(number: &str, unit: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.len() + fraction.len() == 0 || fraction.contains('.') {
        return None;
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    // Digits beyond the 18th are far below a nanosecond.
    let fraction = &fraction[..fraction.len().min(18)];
    let part: u128 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
    let part = part * u128::from(unit) / 10u128.pow(fraction.len() as u32);
    whole.checked_mul(unit)?.checked_add(u64::try_from(part).ok()?)
}

impl FromStr for Span {
    type Err = ParseSpanError;

    fn from_str(text: &str) -> Result<Self, ParseSpanError> {
        let mut rest = text.trim();
        if rest == "0" {
            return Ok(Self(Duration::ZERO));
        }
        if rest.is_empty() {
            return Err(ParseSpanError);
        }
        let mut sum = 0u64;
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or(ParseSpanError)?;
            let (number, tail) = rest.split_at(digits);
            let (name, tail) = tail.split_at(tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len()));
            let name = if name == "µs" { "us" } else { name };
            let (_, unit) = UNITS.iter().find(|(known, _)| *known == name).ok_or(ParseSpanError)?;
            sum = nanos(number, *unit).and_then(|part| sum.checked_add(part)).ok_or(ParseSpanError)?;
            rest = tail;
        }
        let span = Self(Duration::from_nanos(sum));
        if span > Self::MAX { Err(ParseSpanError) } else { Ok(span) }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0.as_nanos();
        if rest == 0 {
            return f.write_str("0s");
        }
        for (name, unit) in UNITS {
            let count = rest / u128::from(unit);
            if count > 0 {
                write!(f, "{count}{name}")?;
                rest -= count * u128::from(unit);
            }
        }
        Ok(())
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

/// Text, or a whole number of nanoseconds as the official node takes it too.
#[derive(Deserialize)]
#[serde(untagged)]
enum Form {
    Text(String),
    Nanos(u64),
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        match Form::deserialize(from).map_err(|_| serde::de::Error::custom(ParseSpanError))? {
            Form::Text(text) => text.parse().map_err(serde::de::Error::custom),
            Form::Nanos(nanos) => Ok(Self(Duration::from_nanos(nanos))),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_are_those_of_the_official_programs() {
        let nanos = |text: &str| text.parse::<Span>().map(|Span(s)| s.as_nanos());
        assert_eq!(nanos("336h"), Ok(336 * 3_600_000_000_000));
        assert_eq!(nanos("1h30m"), nanos("90m"));
        assert_eq!(nanos("1.5h"), nanos("90m"));
        assert_eq!(nanos(".5s"), nanos("500ms"));
        assert_eq!(nanos("0.3s"), nanos("300ms"));
        assert_eq!(nanos("7µs"), Ok(7000));
        assert_eq!(nanos("0"), Ok(0));
        assert_eq!(nanos("2562047h47m16.854775807s"), Ok(u128::from(i64::MAX.cast_unsigned())));
        for bad in ["", "5", "h", "1 h", "1d", "-1s", ".s", "1..2s", "2562047h47m16.854775808s", "99999999999999999999h"] {
            assert_eq!(nanos(bad), Err(ParseSpanError), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_back(nanos in 0..=i64::MAX.cast_unsigned()) {
            let span = Span(Duration::from_nanos(nanos));
            prop_assert_eq!(span.to_string().parse(), Ok(span));
        }

        #[test]
        fn no_text_breaks_the_parser(text in "[0-9.hmsnµu ]{0,24}") {
            let _ = text.parse::<Span>();
        }
    }
}
