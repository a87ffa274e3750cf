//! A value together with where it comes from.
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::ops::Range;
use toml::Spanned;

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SettingOrigin {
    /// Nobody has said anything.
    Default,
    /// This byte range of the file.
    File(Range<usize>),
    /// This flag of the command line.
    Flag(&'static str),
}

/// A value and its origin. From TOML it is the value alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given<T> {
    /// The value.
    pub value: T,
    /// Where it comes from.
    pub origin: SettingOrigin,
}

impl<T> Given<T> {
    /// From a flag.
    pub fn flag(value: T, flag: &'static str) -> Given<T> {
        Given { value, origin: SettingOrigin::Flag(flag) }
    }

    /// What holds if nobody says anything.
    pub(super) fn by_default(value: T) -> Given<T> {
        Given { value, origin: SettingOrigin::Default }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Given<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Given<T>, D::Error> {
        let spanned = Spanned::<T>::deserialize(from)?;
        let origin = SettingOrigin::File(spanned.span());
        Ok(Given { value: spanned.into_inner(), origin })
    }
}

impl<T: Serialize> Serialize for Given<T> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.value.serialize(to)
    }
}
