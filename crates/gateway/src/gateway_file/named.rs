//! A table whose keys are the user's names: variables of the ruleset, sysctls.
use super::given::Given;
use serde::de::{MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::marker::PhantomData;

/// Names and their values, in the order in which they were given; both know where they come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedValues<V> {
    /// Name and value.
    pub entries: Vec<(Given<String>, Given<V>)>,
}

impl<V> Default for NamedValues<V> {
    fn default() -> NamedValues<V> {
        NamedValues { entries: Vec::new() }
    }
}

impl<V> NamedValues<V> {
    /// A name and its value, from a flag; a later one of the same name counts.
    pub fn set_by_flag(&mut self, name: String, value: V, flag: &'static str) {
        self.entries.retain(|(known, _)| known.value != name);
        self.entries.push((Given::flag(name, flag), Given::flag(value, flag)));
    }

    /// These, and those of `below` whose names these do not have.
    pub(super) fn over(mut self, below: NamedValues<V>) -> NamedValues<V> {
        let mut entries = below.entries;
        entries.retain(|(name, _)| self.entries.iter().all(|(own, _)| own.value != name.value));
        entries.append(&mut self.entries);
        NamedValues { entries }
    }
}

impl<'de, V: Deserialize<'de>> Deserialize<'de> for NamedValues<V> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<NamedValues<V>, D::Error> {
        struct NamedVisitor<V>(PhantomData<V>);
        impl<'de, V: Deserialize<'de>> Visitor<'de> for NamedVisitor<V> {
            type Value = NamedValues<V>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table of names and values")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<NamedValues<V>, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(NamedValues { entries })
            }
        }
        from.deserialize_map(NamedVisitor(PhantomData))
    }
}

impl<V: Serialize> Serialize for NamedValues<V> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(Some(self.entries.len()))?;
        for (name, value) in &self.entries {
            map.serialize_entry(&name.value, value)?;
        }
        map.end()
    }
}
