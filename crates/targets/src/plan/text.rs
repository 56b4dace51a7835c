//! How fields look in TOML: sets as texts, and integers beyond TOML's 63 bits as texts too.

use std::fmt;
use std::str::FromStr;

use crate::error::{Result, TargetsError};

/// A range of source ports: `61000-65535`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SourcePorts {
    /// The lowest port.
    pub first: u16,
    /// The highest port.
    pub last: u16,
}

impl SourcePorts {
    /// A range; `None` when it runs backwards.
    pub fn new(first: u16, last: u16) -> Option<Self> {
        (first <= last).then_some(Self { first, last })
    }
}

impl Default for SourcePorts {
    /// Above Linux's ephemeral range.
    fn default() -> Self {
        Self { first: 61_000, last: 65_535 }
    }
}

impl fmt::Display for SourcePorts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last { write!(f, "{}", self.first) } else { write!(f, "{}-{}", self.first, self.last) }
    }
}

impl FromStr for SourcePorts {
    type Err = TargetsError;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = |reason| TargetsError::Port { text: text.to_owned(), reason };
        let number = |text: &str| {
            let text = text.trim();
            if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(wrong("source ports are one range, FIRST-LAST"));
            }
            text.parse::<u16>().map_err(|_| wrong("ports end at 65535"))
        };
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        Self::new(number(first)?, number(last)?).ok_or_else(|| wrong("the range runs backwards"))
    }
}

pub(super) mod display {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(in crate::plan) fn serialize<T: Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub(in crate::plan) fn deserialize<'de, T, D>(deserializer: D) -> Result<T, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'de>,
    {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

pub(super) mod number {
    use serde::de::{Error, Unexpected};
    use serde::{Deserialize, Deserializer, Serializer};

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Number {
        Integer(i64),
        Text(String),
    }

    pub(in crate::plan) fn serialize<S: Serializer>(value: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        match i64::try_from(*value) {
            Ok(integer) => serializer.serialize_i64(integer),
            Err(_) => serializer.collect_str(value),
        }
    }

    pub(in crate::plan) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        let expected = &"a number from 0 to 18446744073709551615";
        match Number::deserialize(deserializer)? {
            Number::Integer(integer) => {
                u64::try_from(integer).map_err(|_| D::Error::invalid_value(Unexpected::Signed(integer), expected))
            }
            Number::Text(text) => text.parse().map_err(|_| D::Error::invalid_value(Unexpected::Str(&text), expected)),
        }
    }
}

pub(super) mod optional_number {
    use serde::{Deserializer, Serializer};

    pub(in crate::plan) fn serialize<S: Serializer>(value: &Option<u64>, serializer: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => super::number::serialize(value, serializer),
            None => serializer.serialize_none(),
        }
    }

    /// TOML has no null, so a field that is there has a value.
    pub(in crate::plan) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
        super::number::deserialize(deserializer).map(Some)
    }
}
