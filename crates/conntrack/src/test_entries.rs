//! Connections for tests: one that the engine made, changed into whatever a test needs.
use keepstate_engine::{
    Accounting, Engine, Entry, Instant, ProtocolInfo, SctpState, Secret, Status, Sysctls, TcpSide, TcpState, Tuple,
    UnixTime, Zone, ZoneDirection,
};
use keepstate_wire::Packet;

/// A connection between two endpoints: no answer yet, nothing counted, no times.
pub(crate) fn entry_between(protocol: u8, source: (&str, u16), destination: (&str, u16)) -> Entry {
    let original = Tuple {
        source: source.0.parse().unwrap(),
        destination: destination.0.parse().unwrap(),
        protocol,
        source_key: source.1,
        destination_key: destination.1,
    };
    let reply = original.invert().unwrap();
    let mut entry = tracked_udp_entry();
    (entry.original, entry.reply) = (original, reply);
    entry
}

/// What the engine makes of one UDP datagram.
fn tracked_udp_entry() -> Entry {
    let datagram = [
        0x45, 0, 0, 28, 0, 1, 0, 0, 64, 17, 0x66, 0xce, 10, 0, 0, 1, 10, 0, 0, 2, // IPv4
        3, 232, 0, 53, 0, 8, 0, 0, // UDP without a checksum
    ];
    let now = Instant::from_secs(1_795_443_749);
    let mut engine = Engine::new(Sysctls::default(), Secret([7; 16]));
    engine.handle(&Packet::parse(&datagram).unwrap(), Zone::default(), now);
    let mut entry = engine.entries(now).next().unwrap();
    (entry.accounting, entry.start) = (None, None);
    entry
}

/// Changes, one after the other: `connection(...).tcp(...).answered().assured()`.
pub(crate) trait EntryBuilder: Sized {
    fn with(self, change: impl FnOnce(&mut Entry)) -> Entry;

    fn tcp(self, state: TcpState) -> Entry {
        self.with(|entry| entry.protocol = ProtocolInfo::Tcp { state, sides: [TcpSide::default(); 2] })
    }
    fn sctp(self, state: SctpState, tags: [u32; 2]) -> Entry {
        self.with(|entry| entry.protocol = ProtocolInfo::Sctp { state, tags })
    }
    fn seen_reply(self) -> Entry {
        self.with(|entry| entry.status |= Status::SEEN_REPLY)
    }
    fn assured(self) -> Entry {
        self.with(|entry| entry.status |= Status::ASSURED)
    }
    fn timeout(self, seconds: u32) -> Entry {
        self.with(|entry| entry.timeout = seconds)
    }
    fn zone(self, id: u16, direction: ZoneDirection) -> Entry {
        self.with(|entry| entry.zone = Zone { id, direction })
    }
    fn mark(self, mark: u32) -> Entry {
        self.with(|entry| entry.mark = mark)
    }
    fn id(self, id: u32) -> Entry {
        self.with(|entry| entry.id = id)
    }
    /// Packets and bytes of the original direction, then of the reply.
    fn accounting(self, [packets, bytes, packets_back, bytes_back]: [u64; 4]) -> Entry {
        let back = Accounting { packets: packets_back, bytes: bytes_back };
        self.with(|entry| entry.accounting = Some([Accounting { packets, bytes }, back]))
    }
    fn labels(self, bits: &[u8]) -> Entry {
        let labels = bits.iter().fold(0u128, |sum, bit| sum | 1 << bit);
        self.with(|entry| entry.labels = Some(labels.to_le_bytes()))
    }
    fn start(self, nanoseconds: u64) -> Entry {
        self.with(|entry| entry.start = Some(UnixTime(nanoseconds)))
    }
    fn stop(self, nanoseconds: u64) -> Entry {
        self.with(|entry| entry.stop = Some(UnixTime(nanoseconds)))
    }
    /// Answers come from, and go to, these addresses: the connection is translated.
    fn reply(self, source: &str, destination: &str) -> Entry {
        self.with(|entry| {
            entry.reply.source = source.parse().unwrap();
            entry.reply.destination = destination.parse().unwrap();
            entry.status.set(Status::SRC_NAT, entry.reply.destination != entry.original.source);
            entry.status.set(Status::DST_NAT, entry.reply.source != entry.original.destination);
        })
    }
}

impl EntryBuilder for Entry {
    fn with(mut self, change: impl FnOnce(&mut Entry)) -> Entry {
        change(&mut self);
        self
    }
}
