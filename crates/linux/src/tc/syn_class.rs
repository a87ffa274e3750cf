//! Classes of new connections, as the programs take them (`struct class`): those of one client to one port of a server, by one interface. The programs open connections of a class by themselves, at most so many
//! as the budget says before it is set anew, and tell each ([`SegmentNote::opens`](super::SegmentNote::opens)).
use super::flow_line::{EncodedLine, TcFlow, WITHOUT_FIN};
use super::port_map::{PORT_MAP_LEN, PortMap};
use super::tc_error::{TcError, tc_error};
use crate::mapped_memory::MappedMemory;
use aya::maps::{HashMap, MapData, MapError};
use std::fmt;
use std::ops::Range;
use std::sync::atomic::Ordering;

/// A class: the ways of one of its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcSynClass {
    /// Original, reply; whatever the client's port is in them.
    pub flows: [TcFlow; 2],
    /// The bitmap of the outside ports in use, where the source is translated.
    pub ports: Option<u32>,
}

/// Bytes of `struct class_key` and `struct class`.
type ClassKey = [u8; 12];
type ClassValue = [u8; 48];

/// Bitmaps of ports that there are.
pub const MAX_PORT_MAPS: u32 = 256;
/// In `struct heartbeat`, behind the time.
const BUDGET: usize = 8;
const GENERATION: usize = 12;
/// Bytes of `struct heartbeat`.
pub(super) const HEARTBEAT_LEN: usize = 16;

impl TcSynClass {
    /// Its key and the rest; `None` if the programs cannot take it: IPv6, own packets.
    fn encode(&self, generation: u32) -> Option<(ClassKey, ClassValue)> {
        let [original, reply] = &self.flows;
        if original.source.0.is_ipv6() || original.is_egress || original.protocol != 6 {
            return None;
        }
        let [client, server] = [self.flows[0], self.flows[1]].map(|flow| EncodedLine::new(&flow));
        let (client, server) = (client?, server?);
        let part = |line: &EncodedLine, part: Range<usize>| line.bytes().get(part).unwrap_or_default().to_vec();
        // Addresses, the server's port, the interface.
        let key = [part(&client, 0..8), part(&client, 10..12), part(&client, 14..16)].concat();
        let mut value = [part(&client, 16..24), part(&client, 26..28)].concat();
        value.extend([u8::from(reply.is_egress), u8::from(self.ports.is_some())]);
        value.extend(reply.ifindex.to_ne_bytes());
        value.extend([0; 2]);
        value.extend(self.ports.unwrap_or(0).to_ne_bytes());
        value.extend(generation.to_ne_bytes());
        for (line, flow) in [(&client, original), (&server, reply)] {
            // Next hop, mark, target, `live`, interface.
            value.extend([part(line, 28..32), part(line, 36..41)].concat());
            value.push(if flow.without_fin { WITHOUT_FIN } else { 0 });
            value.extend(part(line, 42..44));
        }
        Some((key.try_into().ok()?, value.try_into().ok()?))
    }
}

/// The classes, in the programs' maps.
pub struct SynClassTable {
    classes: HashMap<MapData, ClassKey, ClassValue>,
    keys: Vec<ClassKey>,
    heartbeat: MappedMemory,
    ports: MappedMemory,
    generation: u32,
}

impl fmt::Debug for SynClassTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SynClassTable").field("generation", &self.generation).finish_non_exhaustive()
    }
}

impl SynClassTable {
    /// The table in these maps; classes of an earlier gateway are void.
    pub(super) fn new(
        classes: HashMap<MapData, ClassKey, ClassValue>,
        heartbeat: MappedMemory,
        ports: MappedMemory,
    ) -> SynClassTable {
        let generation = heartbeat.atomic_u32(GENERATION).load(Ordering::Relaxed);
        let mut table = SynClassTable { classes, keys: Vec::new(), heartbeat, ports, generation };
        table.set_budget(0);
        table.void_all();
        table
    }

    /// How many connections the programs may open from now on.
    pub fn set_budget(&self, connections: usize) {
        let budget = i32::try_from(connections).unwrap_or(i32::MAX);
        self.heartbeat.atomic_u32(BUDGET).store(budget.cast_unsigned(), Ordering::Release);
    }

    /// Enters a class. False if the programs cannot take it.
    ///
    /// # Errors
    /// The map cannot be written: it is full.
    pub fn insert(&mut self, class: &TcSynClass) -> Result<bool, TcError> {
        let Some((key, value)) = class.encode(self.generation) else { return Ok(false) };
        self.classes.insert(key, value, 0).map_err(tc_error::<MapError>("cannot write the BPF map classes"))?;
        self.keys.push(key);
        Ok(true)
    }

    /// From now on no connection is opened by the classes entered so far.
    pub fn void_all(&mut self) {
        self.generation = self.generation.wrapping_add(1);
        self.heartbeat.atomic_u32(GENERATION).store(self.generation, Ordering::Release);
        for key in self.keys.drain(..) {
            // One that is still there is void.
            let _ = self.classes.remove(&key);
        }
    }

    /// One of the bitmaps of ports, of [`MAX_PORT_MAPS`].
    pub fn port_map(&self, number: u32) -> PortMap<'_> {
        PortMap { memory: &self.ports, number: number % MAX_PORT_MAPS }
    }
}

/// Bytes of all bitmaps.
pub(super) const PORT_MAPS_LEN: usize = MAX_PORT_MAPS as usize * PORT_MAP_LEN;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tc::TcFlowTarget;
    use std::net::IpAddr;

    #[test]
    fn classes_have_the_layout_of_the_programs() {
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let original = TcFlow {
            source: (address("10.0.0.1"), 0x0102),
            destination: (address("10.0.0.2"), 0x0304),
            new_source: (address("10.0.0.3"), 0x0102),
            new_destination: (address("10.0.0.4"), 0x0708),
            protocol: 6,
            is_egress: false,
            ifindex: 9,
            target: TcFlowTarget::Forward(10, address("10.0.0.5")),
            set_mark: None,
            unmarked_only: true,
            plain_tos_only: false,
            without_fin: true,
        };
        let reply = TcFlow {
            is_egress: true,
            ifindex: 11,
            target: TcFlowTarget::LetOut,
            unmarked_only: false,
            without_fin: false,
            ..original
        };
        let class = TcSynClass { flows: [original, reply], ports: Some(3) };
        let (key, value) = class.encode(0x0a0b_0c0d).unwrap();
        let [nine, ten, eleven] = [9_u16, 10, 11].map(u16::to_ne_bytes);
        assert_eq!(key, [&[10, 0, 0, 1, 10, 0, 0, 2, 3, 4][..], &nine].concat()[..]);
        let wanted = [
            &[10, 0, 0, 3, 10, 0, 0, 4, 7, 8, 1, 1][..],
            &eleven,
            &[0; 2],
            &3_u32.to_ne_bytes(),
            &0x0a0b_0c0d_u32.to_ne_bytes(),
            &[10, 0, 0, 5, 0, 0, 0, 0, 8, WITHOUT_FIN],
            &ten,
            &[0, 0, 0, 0, 0, 0, 0, 0, 2 | 16, 0, 0, 0],
        ];
        assert_eq!(value, wanted.concat()[..]);
        let own = TcFlow { is_egress: true, ..original };
        assert_eq!(TcSynClass { flows: [own, reply], ports: None }.encode(1), None);
    }
}
