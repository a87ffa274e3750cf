//! Classes of new connections, as the programs take them (`struct class`): those of one client to one port of a server, by one interface. The programs open connections of a class by themselves, at most so many
//! as the budget says before it is set anew, and tell each ([`SegmentNote::opens`](super::SegmentNote::opens)).
use super::flow_line::{EncodedLine, LineLayout, TcFlow, WITHOUT_FIN};
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
type ClassKey = [u8; 16];
type ClassValue = [u8; 48];
/// The same of IPv6: `struct class_key_v6` and `struct class_v6`.
type ClassKeyV6 = [u8; 40];
type ClassValueV6 = [u8; 96];

/// The map of one family.
pub(super) type ClassMap = HashMap<MapData, ClassKey, ClassValue>;
pub(super) type ClassMapV6 = HashMap<MapData, ClassKeyV6, ClassValueV6>;

/// A class as the programs take it.
#[derive(Debug, PartialEq, Eq)]
enum EncodedClass {
    V4(ClassKey, ClassValue),
    V6(ClassKeyV6, ClassValueV6),
}

/// Bitmaps of ports that there are.
pub const MAX_PORT_MAPS: u32 = 256;
/// In `struct heartbeat`, behind the time.
const BUDGET: usize = 8;
const GENERATION: usize = 12;
/// Bytes of `struct heartbeat`.
pub(super) const HEARTBEAT_LEN: usize = 16;

impl TcSynClass {
    /// Its key and the rest; `None` if the programs cannot take it.
    fn encode(&self, generation: u32) -> Option<EncodedClass> {
        let [original, reply] = &self.flows;
        if original.protocol != 6 {
            return None;
        }
        let is_v6 = original.source.0.is_ipv6();
        let layout = if is_v6 { &LineLayout::V6 } else { &LineLayout::V4 };
        let [client, server] = [EncodedLine::new(original)?, EncodedLine::new(reply)?];
        let part = |line: &EncodedLine, part: Range<usize>| line.bytes().get(part).unwrap_or_default().to_vec();
        // Where addresses end: as they come, as they leave.
        let (address, ends) = (if is_v6 { 16 } else { 4 }, layout.key_len());
        let (came, left) = (2 * address, ends + 2 * address);
        // Addresses, the server's port, the interface, the hook.
        let mut key =
            [part(&client, 0..came), part(&client, came + 2..came + 4), part(&client, ends - 2..ends)].concat();
        key.extend(u32::from(original.is_egress).to_ne_bytes());
        let mut value = part(&client, left + 2..left + 4);
        value.extend([u8::from(reply.is_egress), u8::from(self.ports.is_some())]);
        value.extend(reply.ifindex.to_ne_bytes());
        value.extend([0; 2]);
        value.extend(self.ports.unwrap_or(0).to_ne_bytes());
        value.extend(generation.to_ne_bytes());
        let (mark, state) = (layout.generation() + 4, layout.state());
        for (line, flow) in [(&client, original), (&server, reply)] {
            value.extend(part(line, mark..mark + 4));
            value.extend(part(line, state..state + 1));
            value.push(if flow.without_fin { WITHOUT_FIN } else { 0 });
            value.extend(part(line, state + 2..state + 4));
        }
        value.extend(part(&client, ends..left));
        for line in [&client, &server] {
            // The next hop.
            value.extend(part(line, left + 4..layout.generation()));
        }
        Some(if is_v6 {
            EncodedClass::V6(key.try_into().ok()?, value.try_into().ok()?)
        } else {
            EncodedClass::V4(key.try_into().ok()?, value.try_into().ok()?)
        })
    }
}

/// The classes, in the programs' maps.
pub struct SynClassTable {
    v4: ClassMap,
    v6: ClassMapV6,
    keys: Vec<ClassKey>,
    keys_v6: Vec<ClassKeyV6>,
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
    pub(super) fn new((v4, v6): (ClassMap, ClassMapV6), heartbeat: MappedMemory, ports: MappedMemory) -> SynClassTable {
        let generation = heartbeat.atomic_u32(GENERATION).load(Ordering::Relaxed);
        let mut table = SynClassTable { v4, v6, keys: Vec::new(), keys_v6: Vec::new(), heartbeat, ports, generation };
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
        match class.encode(self.generation) {
            None => return Ok(false),
            Some(EncodedClass::V4(key, value)) => {
                self.v4.insert(key, value, 0).map_err(tc_error::<MapError>("cannot write the BPF map classes"))?;
                self.keys.push(key);
            }
            Some(EncodedClass::V6(key, value)) => {
                self.v6.insert(key, value, 0).map_err(tc_error::<MapError>("cannot write the BPF map classes_v6"))?;
                self.keys_v6.push(key);
            }
        }
        Ok(true)
    }

    /// From now on no connection is opened by the classes entered so far.
    pub fn void_all(&mut self) {
        self.generation = self.generation.wrapping_add(1);
        self.heartbeat.atomic_u32(GENERATION).store(self.generation, Ordering::Release);
        // One that is still there is void.
        for key in self.keys.drain(..) {
            let _ = self.v4.remove(&key);
        }
        for key in self.keys_v6.drain(..) {
            let _ = self.v6.remove(&key);
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

    /// A class of these addresses: client, server, both as they leave, next hop.
    fn class_of([client, server, new_client, new_server, hop]: [&str; 5]) -> TcSynClass {
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let original = TcFlow {
            source: (address(client), 0x0102),
            destination: (address(server), 0x0304),
            new_source: (address(new_client), 0x0102),
            new_destination: (address(new_server), 0x0708),
            protocol: 6,
            is_egress: false,
            ifindex: 9,
            target: TcFlowTarget::Forward(10, address(hop)),
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
        TcSynClass { flows: [original, reply], ports: Some(3) }
    }

    #[test]
    fn classes_have_the_layout_of_the_programs() {
        let [nine, ten, eleven] = [9_u16, 10, 11].map(u16::to_ne_bytes);
        let ways = [
            &[7, 8, 1, 1][..],
            &eleven,
            &[0; 2],
            &3_u32.to_ne_bytes(),
            &0x0a0b_0c0d_u32.to_ne_bytes(),
            &[0, 0, 0, 0, 8, WITHOUT_FIN],
            &ten,
            &[0, 0, 0, 0, 2 | 16, 0, 0, 0],
        ]
        .concat();
        let class = class_of(["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5"]);
        let Some(EncodedClass::V4(key, value)) = class.encode(0x0a0b_0c0d) else { panic!("of the other family") };
        assert_eq!(key, [&[10, 0, 0, 1, 10, 0, 0, 2, 3, 4][..], &nine, &[0; 4]].concat()[..]);
        let addresses = [10, 0, 0, 3, 10, 0, 0, 4, 10, 0, 0, 5, 0, 0, 0, 0];
        assert_eq!(value, [&ways[..], &addresses].concat()[..]);

        let mut class = class_of(["fd00::1", "fd00::2", "fd00::3", "fd00::4", "fd00::5"]);
        // The machine itself is the client.
        (class.flows[0].is_egress, class.flows[1].is_egress) = (true, false);
        let mut ways = ways;
        (ways[2], ways[20], ways[28]) = (0, 8 | 16, 2);
        let Some(EncodedClass::V6(key, value)) = class.encode(0x0a0b_0c0d) else { panic!("of the other family") };
        let fd00 = |last: u8| [&[0xfd][..], &[0; 14], &[last]].concat();
        assert_eq!(key, [&fd00(1)[..], &fd00(2), &[3, 4], &nine, &1_u32.to_ne_bytes()].concat()[..]);
        assert_eq!(value, [&ways[..], &fd00(3), &fd00(4), &fd00(5), &[0; 16]].concat()[..]);
    }
}
