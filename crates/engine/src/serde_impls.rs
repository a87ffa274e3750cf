//! `Serialize` and `Deserialize` where a derive does not fit: reasons and sysctls by name, snapshots in their own encoding.
use crate::{ConnSnapshot, Reason, Sysctl, Sysctls};
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// By its name.
impl Serialize for Reason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Reason {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Reason, D::Error> {
        let name = String::deserialize(deserializer)?;
        Reason::all().find(|reason| reason.name() == name).ok_or_else(|| D::Error::custom("unknown reason"))
    }
}

/// By its name.
impl Serialize for Sysctl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Sysctl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Sysctl, D::Error> {
        find_sysctl(&String::deserialize(deserializer)?)
    }
}

fn find_sysctl<E: Error>(name: &str) -> Result<Sysctl, E> {
    Sysctl::any_by_name(name).ok_or_else(|| E::custom("unknown sysctl"))
}

/// A map from names to values.
impl Serialize for Sysctls {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(Sysctl::ALL.iter().map(|sysctl| (sysctl.name(), self[*sysctl])))
    }
}

/// Sysctls not in the map keep their default; read-only ones are ignored.
impl<'de> Deserialize<'de> for Sysctls {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Sysctls, D::Error> {
        let mut sysctls = Sysctls::default();
        for (name, value) in BTreeMap::<String, u64>::deserialize(deserializer)? {
            let sysctl = find_sysctl(&name)?;
            if sysctl.range().is_some() {
                sysctls.set(sysctl, value).map_err(D::Error::custom)?;
            }
        }
        Ok(sysctls)
    }
}

/// The bytes of [`ConnSnapshot::encode`].
impl Serialize for ConnSnapshot {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut bytes = Vec::new();
        self.encode(&mut bytes);
        bytes.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for ConnSnapshot {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ConnSnapshot, D::Error> {
        ConnSnapshot::decode(&Vec::<u8>::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Engine, Instant, Outcome, Secret, Zone};
    use keepstate_wire::Packet;

    #[test]
    fn plain_values_and_snapshots_survive_json() {
        let ping =
            [0x45, 0, 0, 28, 0, 1, 0, 0, 64, 1, 0x66, 0xd3, 10, 1, 0, 2, 10, 2, 0, 9, 8, 0, 0xf7, 0xfd, 0, 1, 0, 1];
        let now = Instant::from_secs(5);
        let mut engine = Engine::new(Sysctls::default(), Secret([7; 16]));
        let outcome = engine.handle(&Packet::parse(&ping).unwrap(), Zone::default(), now);
        let text = serde_json::to_string(&outcome).unwrap();
        assert_eq!(serde_json::from_str::<Outcome>(&text).unwrap(), outcome);
        let snapshot = engine.export(outcome.connection.unwrap(), now).unwrap();
        let text = serde_json::to_string(&snapshot).unwrap();
        assert_eq!(serde_json::from_str::<ConnSnapshot>(&text).unwrap(), snapshot);
        let text = serde_json::to_string(&engine.entry(outcome.connection.unwrap(), now).unwrap()).unwrap();
        assert!(text.contains("\"source\":\"10.1.0.2\""), "{text}");

        let mut sysctls = Sysctls::default();
        sysctls.set(Sysctl::Max, 77).unwrap();
        let text = serde_json::to_string(&sysctls).unwrap();
        assert!(text.contains("\"nf_conntrack_max\":77"), "{text}");
        assert_eq!(serde_json::from_str::<Sysctls>(&text).unwrap(), sysctls);
        assert_eq!(serde_json::from_str::<Reason>("\"table_full\"").unwrap(), Reason::TableFull);
    }
}
