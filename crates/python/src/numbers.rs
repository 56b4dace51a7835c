//! Numbers of Python's, for fields that have bounds.

use std::time::Duration;

use crate::errors::{Error, Result};

/// A whole number, which in Python has no end, that has to fit the field it is for.
pub(crate) fn bounded<T: TryFrom<i128> + Bounded>(name: &str, value: Option<i128>) -> Result<Option<T>> {
    value
        .map(|value| {
            T::try_from(value).map_err(|_| {
                Error::config(format!("{name} = {value} cannot be: it is a whole number up to {}.", T::HIGHEST))
            })
        })
        .transpose()
}

pub(crate) trait Bounded {
    const HIGHEST: u64;
}

macro_rules! bounded {
    ($($type:ty),*) => {$(
        impl Bounded for $type {
            const HIGHEST: u64 = <$type>::MAX as u64;
        }
    )*};
}

bounded!(u8, u16, u32, u64);

/// A time in seconds.
pub(crate) fn seconds(name: &str, value: f64) -> Result<Duration> {
    Duration::try_from_secs_f64(value)
        .map_err(|_| Error::config(format!("{name} = {value} cannot be: it is a number of seconds from 0.")))
}
