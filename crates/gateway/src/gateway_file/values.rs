//! The values of the keys: what a flag takes as text is the same text in the file.
use super::flow_log::{FlowLogEntry, FlowLogTable};
use crate::engine_settings::{HelperPort, MemorySize};
use crate::static_fib::{InterfaceAddress, InterfaceConfig, RouteConfig, check_name};
use crate::tc::{InterfacePattern, Lifeline, OffloadXdp, OnExit, Unattended};
use keepstate_engine::{
    AdaptiveTimeouts, DeterministicNat, FilteringBehaviour, KernelVersion, MappingBehaviour, SourceLimit, TableReserve,
};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use std::fmt;
use std::marker::PhantomData;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// A value that is written as a text.
#[derive(Clone, Debug, Serialize)]
#[serde(into = "String", bound(serialize = "T: Clone"))]
pub struct TextValue<T> {
    text: String,
    /// What the text says.
    pub value: T,
}

impl<T> PartialEq for TextValue<T> {
    fn eq(&self, other: &TextValue<T>) -> bool {
        self.text == other.text
    }
}

impl<T: FromStr<Err = String>> FromStr for TextValue<T> {
    type Err = String;

    fn from_str(text: &str) -> Result<TextValue<T>, String> {
        text.parse().map(|value| TextValue { text: text.to_owned(), value })
    }
}

// By visitors, not by `try_from`: an error that the deserializer sees gets the place of this value, not that of the list around it.
impl<'de, T: FromStr<Err = String>> Deserialize<'de> for TextValue<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<TextValue<T>, D::Error> {
        struct TextVisitor<T>(PhantomData<T>);
        impl<T: FromStr<Err = String>> Visitor<'_> for TextVisitor<T> {
            type Value = TextValue<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text in quotes")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<TextValue<T>, E> {
                text.parse().map_err(E::custom)
            }
        }
        from.deserialize_str(TextVisitor(PhantomData))
    }
}

/// A table `T` that is the entry `E`, in the same way.
struct TableVisitor<T, E>(PhantomData<(T, E)>);

impl<'de, T: Deserialize<'de>, E: TryFrom<T, Error = String>> Visitor<'de> for TableVisitor<T, E> {
    type Value = E;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table")
    }
    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<E, A::Error> {
        let table = T::deserialize(MapAccessDeserializer::new(map))?;
        E::try_from(table).map_err(A::Error::custom)
    }
}

impl<'de> Deserialize<'de> for DeviceEntry {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<DeviceEntry, D::Error> {
        from.deserialize_map(TableVisitor::<DeviceTable, DeviceEntry>(PhantomData))
    }
}

impl<'de> Deserialize<'de> for FlowLogEntry {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<FlowLogEntry, D::Error> {
        from.deserialize_map(TableVisitor::<FlowLogTable, FlowLogEntry>(PhantomData))
    }
}

impl<'de> Deserialize<'de> for RouteEntry {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<RouteEntry, D::Error> {
        from.deserialize_map(TableVisitor::<RouteTable, RouteEntry>(PhantomData))
    }
}

impl<T> fmt::Display for TextValue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl<T> From<TextValue<T>> for String {
    fn from(value: TextValue<T>) -> String {
        value.text
    }
}

/// An interface, or a pattern for some.
pub type InterfaceText = TextValue<InterfacePattern>;
/// An interface and a port.
pub type LifelineText = TextValue<Lifeline>;

/// `1h`, `forever`.
pub type UnattendedText = TextValue<Unattended>;
/// `ftp`, `ftp:2121`.
pub type HelperText = TextValue<HelperPort>;
/// `4G`.
pub type MemoryText = TextValue<MemorySize>;
/// `1000 for tcp 22 from 10.0.0.0/8`.
pub type TableReserveText = TextValue<TableReserve>;
/// `100 connections 20 new/s`.
pub type SourceLimitText = TextValue<SourceLimit>;
/// `60000-72000`.
pub type AdaptiveTimeoutsText = TextValue<AdaptiveTimeouts>;
/// `100.64.0.0/16=192.0.2.0/28`.
pub type DeterministicText = TextValue<DeterministicMapping>;

/// One `[[device]]`: an interface with its addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(into = "DeviceTable")]
pub struct DeviceEntry(pub InterfaceConfig);

/// An interface with its addresses.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct DeviceTable {
    /// The name of the interface.
    name: String,
    /// Its addresses, each with the length of its prefix: 10.1.0.1/24
    addresses: Vec<TextValue<InterfaceAddress>>,
}

impl TryFrom<DeviceTable> for DeviceEntry {
    type Error = String;

    fn try_from(table: DeviceTable) -> Result<DeviceEntry, String> {
        let name = check_name(&table.name)?.to_owned();
        let addresses = table.addresses.iter().map(|text| (text.value.0, text.value.1));
        Ok(DeviceEntry(InterfaceConfig { name, addresses: addresses.collect() }))
    }
}

impl From<DeviceEntry> for DeviceTable {
    fn from(DeviceEntry(interface): DeviceEntry) -> DeviceTable {
        let address = |(address, length)| TextValue {
            text: format!("{address}/{length}"),
            value: InterfaceAddress(address, length),
        };
        DeviceTable { name: interface.name, addresses: interface.addresses.into_iter().map(address).collect() }
    }
}

/// One `[[route]]`: a prefix and the interface that leads to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(into = "RouteTable")]
pub struct RouteEntry(pub RouteConfig);

/// A prefix and the interface that leads to it.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct RouteTable {
    /// The prefix: 0.0.0.0/0
    to: String,
    /// The name of a device.
    interface: String,
}

impl TryFrom<RouteTable> for RouteEntry {
    type Error = String;

    fn try_from(table: RouteTable) -> Result<RouteEntry, String> {
        format!("{}={}", table.to, table.interface).parse().map(RouteEntry)
    }
}

impl From<RouteEntry> for RouteTable {
    fn from(RouteEntry(route): RouteEntry) -> RouteTable {
        RouteTable { to: format!("{}/{}", route.prefix, route.length), interface: route.interface }
    }
}

/// Deterministic NAT, from text as `100.64.0.0/16=192.0.2.0/28`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeterministicMapping(pub DeterministicNat);

impl FromStr for DeterministicMapping {
    type Err = String;

    fn from_str(text: &str) -> Result<DeterministicMapping, String> {
        let (inside, outside) =
            text.split_once('=').ok_or("write INSIDE=OUTSIDE, two prefixes, like 100.64.0.0/16=192.0.2.0/28")?;
        let (inside, outside) = (parse_prefix(inside)?, parse_prefix(outside)?);
        DeterministicNat::new(inside, outside).map(DeterministicMapping).ok_or_else(|| {
            format!("{text}: more than 64512 subscribers would share an address; make the outside prefix shorter")
        })
    }
}

fn parse_prefix(text: &str) -> Result<(Ipv4Addr, u8), String> {
    let usage = || format!("{text}: write an IPv4 prefix, like 192.0.2.0/28");
    let (address, length) = text.split_once('/').ok_or_else(usage)?;
    let address: Ipv4Addr = address.parse().map_err(|_| usage())?;
    let length: u8 = length.parse().ok().filter(|length| *length <= 32).ok_or_else(usage)?;
    let host_bits = u32::MAX.checked_shr(u32::from(length)).unwrap_or(0);
    if address.to_bits() & host_bits != 0 {
        let prefix = Ipv4Addr::from_bits(address.to_bits() & !host_bits);
        return Err(format!("{text}: the host bits of a prefix are 0; write {prefix}/{length}"));
    }
    Ok((address, length))
}

/// Declares a choice between words, each of which is a value of another type.
macro_rules! choice {
    ($(#[$doc:meta])* $name:ident = $target:ty { $($(#[$word_doc:meta])* $word:ident => $value:expr),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
        #[cfg_attr(test, derive(schemars::JsonSchema))]
        #[serde(rename_all = "kebab-case")]
        pub enum $name {
            $($(#[$word_doc])* $word),+
        }

        impl From<$name> for $target {
            fn from(word: $name) -> $target {
                match word {
                    $($name::$word => $value),+
                }
            }
        }
    };
}

choice! {
    /// What becomes of governed interfaces when the gateway ends.
    OnExitSetting = OnExit {
        /// Nothing passes until a gateway runs again.
        Closed => OnExit::Closed,
        /// The kernel has them again, without the ruleset.
        Open => OnExit::Open,
    }
}

choice! {
    /// Where packets of established connections are sent on at XDP.
    OffloadXdpSetting = OffloadXdp {
        /// At interfaces of hardware whose driver has native XDP.
        Auto => OffloadXdp::Auto,
        /// Wherever the driver has native XDP, also at software interfaces (veth).
        Native => OffloadXdp::Native,
        /// Nowhere.
        Off => OffloadXdp::Off,
    }
}

choice! {
    /// Which connections share an outside port.
    NatMappingSetting = MappingBehaviour {
        /// As in Linux: decided for each connection.
        PerConnection => MappingBehaviour::AddressAndPortDependent,
        /// One outside port per inside address and port, towards every peer (RFC 4787).
        EndpointIndependent => MappingBehaviour::EndpointIndependent,
    }
}

choice! {
    /// Which peers may send to a mapped port.
    NatFilteringSetting = FilteringBehaviour {
        /// Those of its connections, as in Linux.
        PerConnection => FilteringBehaviour::AddressAndPortDependent,
        /// All ports of their addresses.
        AddressDependent => FilteringBehaviour::AddressDependent,
        /// Any.
        EndpointIndependent => FilteringBehaviour::EndpointIndependent,
    }
}

/// A kernel version whose defaults are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum KernelVersionSetting {
    /// Up to 3.19
    #[serde(rename = "3.10")]
    V3_10,
    /// 4.0 to 5.14
    #[serde(rename = "4.19")]
    V4_19,
    /// 5.15 to 6.17
    #[serde(rename = "5.15")]
    V5_15,
    /// 6.18
    #[serde(rename = "6.18")]
    V6_18,
}

impl From<KernelVersionSetting> for KernelVersion {
    fn from(version: KernelVersionSetting) -> KernelVersion {
        match version {
            KernelVersionSetting::V3_10 => KernelVersion::V3_10,
            KernelVersionSetting::V4_19 => KernelVersion::V4_19,
            KernelVersionSetting::V5_15 => KernelVersion::V5_15,
            KernelVersionSetting::V6_18 => KernelVersion::V6_18,
        }
    }
}

/// How much is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum LogSetting {
    /// Notes, warnings and errors, and what the rules log.
    Info,
    /// Steps too, as -v.
    Debug,
    /// Every detail, as -vv.
    Trace,
}

impl LogSetting {
    /// The number of `-v` that says the same.
    pub fn verbosity(self) -> u8 {
        match self {
            LogSetting::Info => 0,
            LogSetting::Debug => 1,
            LogSetting::Trace => 2,
        }
    }
}

/// A sysctl's value: a number, or a text as in sysctl.conf.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(untagged, expecting = "a whole number")]
pub enum SysctlValue {
    /// A number.
    Number(u64),
    /// A text.
    Text(String),
}

impl fmt::Display for SysctlValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SysctlValue::Number(number) => write!(f, "{number}"),
            SysctlValue::Text(text) => f.write_str(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deterministic_prefixes_are_validated() {
        let ports = |text: &str| text.parse().map(|DeterministicMapping(mapping)| mapping.ports_per_subscriber());
        assert_eq!(ports("100.64.0.0/16=192.0.2.0/28"), Ok(15));
        for (text, wanted) in [
            ("100.64.0.0/16", "INSIDE=OUTSIDE"),
            ("100.64.0.0=192.0.2.0/28", "IPv4 prefix"),
            ("100.64.0.1/16=192.0.2.0/28", "100.64.0.0/16"),
            ("100.64.0.0/33=192.0.2.0/28", "IPv4 prefix"),
            ("10.0.0.0/8=192.0.2.1/32", "64512"),
        ] {
            assert!(ports(text).is_err_and(|error| error.contains(wanted)), "{text}");
        }
    }
}
