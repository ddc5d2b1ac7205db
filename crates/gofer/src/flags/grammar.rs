//! How words become flags: one level of Go's `flag` package, driven by a table.
//!
//! Belongs here: dashes, `=`, which word is a value, where a level ends. Elsewhere: the tables
//! (`super::table`) and what the flags mean (`super`).

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use thiserror::Error;

use super::value::{Kind, Value};

/// One row of a table of flags.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flag {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
}

/// What to do with a flag the table does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unknown {
    /// An error: it may announce a descriptor that somebody waits on.
    Refuse,
    /// Skipped if it has the form `--name=value`; otherwise nobody knows where it ends.
    SkipAssigned,
}

/// Why a level cannot be read.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum SyntaxError {
    #[error("bad flag syntax: {0:?}")]
    Malformed(OsString),
    #[error("flag provided but not defined: -{0}")]
    Undefined(String),
    #[error("flag needs an argument: -{0}")]
    ValueMissing(&'static str),
    #[error("invalid value {value:?} for flag -{name}: {wanted}")]
    BadValue {
        name: &'static str,
        value: OsString,
        wanted: &'static str,
    },
    #[error("help was asked for")]
    Help,
}

/// One level's flags, in the order given, and the words after them.
#[derive(Debug)]
pub(crate) struct Level<'w> {
    set: Vec<(&'static str, Value)>,
    pub(crate) skipped: Vec<OsString>,
    pub(crate) rest: &'w [OsString],
}

impl Level<'_> {
    /// The last value given for `name`: for everything but lists the last one wins.
    pub(crate) fn last(&self, name: &str) -> Option<&Value> {
        self.set
            .iter()
            .rev()
            .find(|(set, _)| *set == name)
            .map(|(_, value)| value)
    }

    /// Every value given for `name`, first to last.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Value> {
        self.set
            .iter()
            .filter(move |(set, _)| *set == name)
            .map(|(_, value)| value)
    }
}

/// Reads flags from the front of `words` up to the first word that is none.
///
/// # Errors
/// The first word that breaks the grammar or the table.
pub(crate) fn parse<'w>(
    table: &[Flag],
    unknown: Unknown,
    words: &'w [OsString],
) -> Result<Level<'w>, SyntaxError> {
    let mut level = Level {
        set: Vec::new(),
        skipped: Vec::new(),
        rest: words,
    };
    while let Some((word, rest)) = level.rest.split_first() {
        let (name, assigned) = match read(word)? {
            Word::Plain => break,
            Word::End => {
                level.rest = rest;
                break;
            }
            Word::Flag { name, assigned } => (name, assigned),
        };
        level.rest = rest;
        let Some(flag) = table.iter().find(|flag| flag.name.as_bytes() == name) else {
            if unknown == Unknown::SkipAssigned && assigned.is_some() {
                level.skipped.push(word.clone());
                continue;
            }
            return Err(undefined(name));
        };
        let value = match assigned {
            Some(text) => text,
            None if flag.kind.is_switch() => OsStr::new("true"),
            None => {
                let (next, rest) = level
                    .rest
                    .split_first()
                    .ok_or(SyntaxError::ValueMissing(flag.name))?;
                level.rest = rest;
                next
            }
        };
        level.set.push((flag.name, checked(flag, value)?));
    }
    Ok(level)
}

enum Word<'w> {
    Flag {
        name: &'w [u8],
        assigned: Option<&'w OsStr>,
    },
    Plain,
    End,
}

fn read(word: &OsStr) -> Result<Word<'_>, SyntaxError> {
    let bytes = word.as_bytes();
    let body = match bytes {
        b"--" => return Ok(Word::End),
        [b'-', b'-', body @ ..] => body,
        [b'-', body @ ..] if !body.is_empty() => body,
        _ => return Ok(Word::Plain),
    };
    if matches!(body.first(), None | Some(b'-' | b'=')) {
        return Err(SyntaxError::Malformed(word.to_owned()));
    }
    let (name, assigned) = match body.iter().position(|byte| *byte == b'=') {
        Some(at) => (&body[..at], Some(OsStr::from_bytes(&body[at + 1..]))),
        None => (body, None),
    };
    Ok(Word::Flag { name, assigned })
}

fn undefined(name: &[u8]) -> SyntaxError {
    match name {
        b"h" | b"help" => SyntaxError::Help,
        _ => SyntaxError::Undefined(String::from_utf8_lossy(name).into_owned()),
    }
}

fn checked(flag: &Flag, text: &OsStr) -> Result<Value, SyntaxError> {
    flag.kind
        .parse(text)
        .map_err(|wanted| SyntaxError::BadValue {
            name: flag.name,
            value: text.to_owned(),
            wanted,
        })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may die where it stands")]
    use super::*;

    const TABLE: &[Flag] = &[
        Flag {
            name: "debug",
            kind: Kind::Bool,
        },
        Flag {
            name: "root",
            kind: Kind::Text,
        },
        Flag {
            name: "n",
            kind: Kind::Int,
        },
    ];

    fn words(text: &str) -> Vec<OsString> {
        text.split(' ').map(OsString::from).collect()
    }

    fn refusal(text: &str) -> SyntaxError {
        parse(TABLE, Unknown::Refuse, &words(text)).unwrap_err()
    }

    #[test]
    fn one_dash_and_two_mean_the_same() {
        for text in ["-n=3 gofer", "--n=3 gofer", "-n 3 gofer", "--n 3 gofer"] {
            let words = words(text);
            let level = parse(TABLE, Unknown::Refuse, &words).unwrap();
            assert_eq!(
                (level.last("n"), level.rest),
                (Some(&Value::Int(3)), &words[words.len() - 1..]),
                "{text}"
            );
        }
    }

    #[test]
    fn a_switch_never_takes_the_next_word_and_others_always_do() {
        let switch = words("--debug false");
        let level = parse(TABLE, Unknown::Refuse, &switch).unwrap();
        assert_eq!(
            (level.last("debug"), level.rest.len()),
            (Some(&Value::Bool(true)), 1)
        );

        let dashed = words("--root --debug");
        let level = parse(TABLE, Unknown::Refuse, &dashed).unwrap();
        assert_eq!(level.last("root"), Some(&Value::Text("--debug".into())));
        assert_eq!(level.last("debug"), None);
    }

    #[test]
    fn a_level_ends_at_a_plain_word_a_lone_dash_or_two() {
        for (text, left) in [
            ("--debug x --n=1", 2),
            ("--debug - --n=1", 2),
            ("--debug -- --n=1", 1),
        ] {
            assert_eq!(
                parse(TABLE, Unknown::Refuse, &words(text))
                    .unwrap()
                    .rest
                    .len(),
                left,
                "{text}"
            );
        }
    }

    #[test]
    fn the_first_equals_sign_ends_the_name() {
        let words = words("--root==a=b --n=1 --n=2");
        let level = parse(TABLE, Unknown::Refuse, &words).unwrap();
        assert_eq!(level.last("root"), Some(&Value::Text("=a=b".into())));
        assert_eq!(level.last("n"), Some(&Value::Int(2)), "the last one wins");
        assert_eq!(level.all("n").count(), 2);
    }

    #[test]
    fn malformed_words_are_named() {
        for text in ["---n", "-=1", "--=1"] {
            assert_eq!(refusal(text), SyntaxError::Malformed(text.into()));
        }
        assert_eq!(refusal("--n"), SyntaxError::ValueMissing("n"));
        assert_eq!(refusal("--x=1"), SyntaxError::Undefined("x".into()));
        assert_eq!(refusal("-h"), SyntaxError::Help);
        assert!(matches!(
            refusal("--n=x"),
            SyntaxError::BadValue { name: "n", .. }
        ));
    }

    #[test]
    fn an_unknown_flag_is_skipped_only_when_its_end_is_known() {
        let assigned = words("--new=1 --n=2");
        let level = parse(TABLE, Unknown::SkipAssigned, &assigned).unwrap();
        assert_eq!(
            (level.skipped.as_slice(), level.last("n")),
            (&[OsString::from("--new=1")][..], Some(&Value::Int(2)))
        );
        let bare = words("--new 1");
        assert_eq!(
            parse(TABLE, Unknown::SkipAssigned, &bare).unwrap_err(),
            SyntaxError::Undefined("new".into())
        );
    }
}
