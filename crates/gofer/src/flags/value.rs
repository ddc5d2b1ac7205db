//! Single flag values: the number, duration, list and switch syntax of Go's `flag` package.
//!
//! Belongs here: one value's text into one value. Elsewhere: which flag has which kind
//! (`super::table`), how words become flags (`super::grammar`).

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use jail::{Conf, Confs};

/// What a flag's text may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `true`, `false` and Go's other spellings; without `=` it means true.
    Bool,
    /// `gvisor-gro` was a duration in older releases and is a switch in newer ones.
    BoolOrDuration,
    /// A signed number with Go's prefixes and `_` between digits.
    Int,
    /// The same without a sign.
    Uint,
    /// `15s`, `1m30s`, `0`.
    Duration,
    /// Anything.
    Text,
    /// Decimal descriptor numbers, joined with commas; occurrences append.
    FdList,
    /// Mount configurations, joined with commas; occurrences append.
    ConfList,
}

/// What a flag's text held.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Bool(bool),
    Int(i64),
    Uint(u64),
    /// Sign and size: Go's durations may be negative.
    Duration {
        negative: bool,
        size: Duration,
    },
    Text(OsString),
    Fds(Vec<i32>),
    Confs(Vec<Conf>),
}

impl Kind {
    /// Whether the flag may stand without a value, and so never takes the next word.
    pub(crate) fn is_switch(self) -> bool {
        matches!(self, Kind::Bool | Kind::BoolOrDuration)
    }

    /// # Errors
    /// What a value of this kind has to look like, for people.
    pub(crate) fn parse(self, text: &OsStr) -> Result<Value, &'static str> {
        let utf8 = text.to_str();
        match self {
            Kind::Text => Ok(Value::Text(text.to_owned())),
            Kind::Bool => utf8
                .and_then(boolean)
                .map(Value::Bool)
                .ok_or("want true or false"),
            Kind::BoolOrDuration => utf8
                .and_then(|t| boolean(t).map(Value::Bool).or_else(|| duration(t)))
                .ok_or("want true, false or a duration"),
            Kind::Int => utf8
                .and_then(int)
                .map(Value::Int)
                .ok_or("want a whole number"),
            Kind::Uint => utf8
                .and_then(uint)
                .map(Value::Uint)
                .ok_or("want a number without sign"),
            Kind::Duration => utf8.and_then(duration).ok_or("want a duration such as 15s"),
            Kind::FdList => fds(text)
                .map(Value::Fds)
                .ok_or("want descriptor numbers from -1 on"),
            Kind::ConfList => utf8
                .and_then(|list| list.parse::<Confs>().ok())
                .map(|list| Value::Confs(list.0))
                .ok_or("want LOWER:UPPER[:size=…] for each mount"),
        }
    }
}

fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

fn int(text: &str) -> Option<i64> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let size = uint(digits)?;
    if negative {
        0i64.checked_sub_unsigned(size)
    } else {
        i64::try_from(size).ok()
    }
}

/// `strconv.ParseUint` with base 0: the prefix decides, `_` may separate digits.
fn uint(text: &str) -> Option<u64> {
    let (radix, digits, prefixed) = match text.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, &text[2..], true),
        [b'0', b'o' | b'O', ..] => (8, &text[2..], true),
        [b'0', b'b' | b'B', ..] => (2, &text[2..], true),
        [b'0', _, ..] => (8, &text[1..], true),
        _ => (10, text, false),
    };
    // An underscore may follow a prefix or a digit, and a digit must follow it.
    let mut may_separate = prefixed;
    let mut total: Option<u64> = None;
    for c in digits.chars() {
        if c == '_' && may_separate {
            may_separate = false;
            continue;
        }
        let digit = u64::from(c.to_digit(radix)?);
        total = Some(
            total
                .unwrap_or(0)
                .checked_mul(u64::from(radix))?
                .checked_add(digit)?,
        );
        may_separate = true;
    }
    if may_separate { total } else { None }
}

const NANOSECONDS_OF: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("\u{b5}s", 1_000),
    ("\u{3bc}s", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// `time.ParseDuration`: pairs of a decimal number and a unit, or a bare `0`.
fn duration(text: &str) -> Option<Value> {
    let negative = text.starts_with('-');
    let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    if rest == "0" {
        return Some(Value::Duration {
            negative: false,
            size: Duration::ZERO,
        });
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let number_len = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let (number, after) = rest.split_at(number_len);
        let unit_len = after
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_len);
        let (_, scale) = NANOSECONDS_OF.into_iter().find(|(name, _)| *name == unit)?;
        total = total.checked_add(scaled(number, scale)?)?;
        rest = after;
    }
    let within = i64::try_from(total).is_ok() || (negative && total == i64::MIN.unsigned_abs());
    within.then_some(Value::Duration {
        negative,
        size: Duration::from_nanos(total),
    })
}

/// `1.5` times `scale`, digits below the nanosecond dropped.
fn scaled(number: &str, scale: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
        return None;
    }
    let whole: u64 = if whole.is_empty() {
        0
    } else {
        whole.parse().ok()?
    };
    let mut total = whole.checked_mul(scale)?;
    let mut part = scale;
    for digit in fraction.bytes() {
        // Units above a minute are no powers of ten: keep the remainder by multiplying first.
        let share = u64::from(digit - b'0').checked_mul(part)? / 10;
        total = total.checked_add(share)?;
        part /= 10;
    }
    Some(total)
}

/// `strconv.Atoi` for each item: decimal only, one sign at most, −1 as the least.
fn fds(text: &OsStr) -> Option<Vec<i32>> {
    text.as_bytes()
        .split(|byte| *byte == b',')
        .map(|item| {
            std::str::from_utf8(item)
                .ok()?
                .parse()
                .ok()
                .filter(|fd| *fd >= -1)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may die where it stands")]
    use super::*;

    fn parse(kind: Kind, text: &str) -> Option<Value> {
        kind.parse(OsStr::new(text)).ok()
    }

    #[test]
    fn whole_numbers_take_prefixes_signs_and_separators_as_go_does() {
        let good = [
            ("7", 7),
            ("-1", -1),
            ("+8", 8),
            ("0", 0),
            ("0x1F", 31),
            ("0X1f", 31),
            ("0o17", 15),
            ("017", 15),
            ("0b101", 5),
            ("1_000", 1000),
            ("0x_f", 15),
            ("0_7", 7),
            ("-0x8000000000000000", i64::MIN),
            ("9223372036854775807", i64::MAX),
        ];
        for (text, number) in good {
            assert_eq!(parse(Kind::Int, text), Some(Value::Int(number)), "{text}");
        }
        for text in [
            "",
            "-",
            "1_",
            "_1",
            "1__0",
            "08",
            "0x",
            "1.0",
            " 1",
            "--1",
            "9223372036854775808",
        ] {
            assert_eq!(parse(Kind::Int, text), None, "{text:?}");
        }
        assert_eq!(parse(Kind::Uint, "+1"), None);
        assert_eq!(
            parse(Kind::Uint, "18446744073709551615"),
            Some(Value::Uint(u64::MAX))
        );
    }

    #[test]
    fn switches_accept_go_spellings_only() {
        for text in ["1", "t", "T", "true", "TRUE", "True"] {
            assert_eq!(parse(Kind::Bool, text), Some(Value::Bool(true)), "{text}");
        }
        for text in ["", "yes", "tRUE", "on", "2"] {
            assert_eq!(parse(Kind::Bool, text), None, "{text:?}");
        }
    }

    #[test]
    fn durations_follow_go() {
        let nanoseconds = |text| match parse(Kind::Duration, text) {
            Some(Value::Duration { negative, size }) => Some((negative, size.as_nanos())),
            _ => None,
        };
        let good = [
            ("0", 0),
            ("15s", 15_000_000_000),
            ("1m30s", 90_000_000_000),
            ("20000ns", 20_000),
            ("1.5h", 5_400_000_000_000),
            (".5s", 500_000_000),
            ("1.s", 1_000_000_000),
            ("3us", 3_000),
            ("3\u{b5}s", 3_000),
        ];
        for (text, want) in good {
            assert_eq!(nanoseconds(text), Some((false, want)), "{text}");
        }
        assert_eq!(nanoseconds("-15s"), Some((true, 15_000_000_000)));
        for text in [
            "",
            "15",
            "s",
            ".s",
            "1.2.3s",
            "1x",
            "-",
            "9999999999999h",
            "1s ",
        ] {
            assert_eq!(nanoseconds(text), None, "{text:?}");
        }
    }

    #[test]
    fn descriptor_lists_are_decimal_and_start_at_minus_one() {
        assert_eq!(
            parse(Kind::FdList, "6,7,-1,+8,010"),
            Some(Value::Fds(vec![6, 7, -1, 8, 10]))
        );
        for text in ["", "6,", "0x6", "-2", "6_0", "6, 7", "99999999999"] {
            assert_eq!(parse(Kind::FdList, text), None, "{text:?}");
        }
    }
}
