//! Target `reassembly`: fragments of a few packets: reordered, duplicated, overlapping, with wrong offsets, or missing.

use crate::{FuzzInput, packet_gen};
use keepstate_wire::reassembly::{Reassembler, Reassembly, ReassemblyLimits};
use keepstate_wire::{Family, Packet};

/// Sends the fragments that `data` describes, and checks the reassembled packets.
pub fn reassembly(data: &[u8]) {
    let mut script = FuzzInput::new(data);
    let limits = ReassemblyLimits { high_thresh: HIGH_THRESH, ..ReassemblyLimits::default() };
    let mut run = ReassemblyRun {
        reassembler: Reassembler::new((7, 11), limits),
        now: 0,
        out: Vec::new(),
        corrupted: [false; DATAGRAMS],
    };
    while let Some(what) = script.next_byte() {
        match what {
            0..=223 => run.push_fragment(usize::from(what) % DATAGRAMS, &mut script),
            224..=239 => run.push_raw(script.take_bytes(128)),
            _ => run.advance_time(u64::from(script.next_byte().unwrap_or(0))),
        }
        run.check_memory();
    }
    run.advance_time(3600);
    assert_eq!(run.reassembler.queue_count(), 0, "nothing waits for ever");
    run.check_memory();
}

struct ReassemblyRun {
    reassembler: Reassembler,
    now: u64,
    out: Vec<u8>,
    /// Packets with a corrupted fragment: their reassembled bytes cannot be predicted.
    corrupted: [bool; DATAGRAMS],
}

impl ReassemblyRun {
    /// Sends a fragment of a packet: offset, length, more-fragments flag, and whether its bytes are corrupted.
    fn push_fragment(&mut self, which: usize, script: &mut FuzzInput<'_>) {
        let ipv6 = which & 1 != 0;
        let shape = script.next_byte().unwrap_or(0);
        let (start, len, more) = match shape {
            // One of three fragments of sixteen bytes each.
            0..=159 => (u16::from(shape % 3) * 16, 16, shape % 3 != 2),
            // The whole packet, or nearly.
            160..=191 => (0, script.choose(&[48, 32, 24, 20]), shape & 1 == 0),
            _ => (u16::from(script.next_byte().unwrap_or(0)) * 8, script.choose(&[8, 16, 17, 0, 1400]), shape & 1 == 0),
        };
        let lie = script.next_byte().unwrap_or(0) > 250;
        self.corrupted[which] |= lie;
        let bytes = expected_bytes(which, usize::from(start), len).map(|byte| byte ^ u8::from(lie)).collect();
        let bytes = packet_gen::fragment(ipv6, which as u8, start, more, bytes);
        let packet = Packet::parse(&bytes).expect("a sound fragment");
        if let Ok(Reassembly::Complete(_)) = self.reassembler.push(&packet, self.now, &mut self.out) {
            let whole = Packet::parse_reassembled(&self.out).expect("a whole datagram is a sound one");
            assert!(whole.fragment().is_none(), "a whole datagram is no fragment");
            assert_eq!(whole.addresses(), packet.addresses());
            assert_eq!(whole.transport_len(), whole.transport().len());
            let expected = expected_bytes(which, 0, whole.transport().len());
            assert!(
                self.corrupted[which] || whole.transport().iter().copied().eq(expected),
                "its bytes, in their places"
            );
        }
    }

    /// Sends any bytes as a packet: by chance they may be a fragment of any of the packets.
    fn push_raw(&mut self, bytes: &[u8]) {
        if let Ok(packet) = Packet::parse(bytes) {
            self.corrupted = [true; DATAGRAMS];
            let _ = self.reassembler.push(&packet, self.now, &mut self.out);
        }
    }

    fn advance_time(&mut self, seconds: u64) {
        self.now += seconds * 1_000_000_000;
        self.reassembler.poll(self.now);
        assert!(self.reassembler.next_wake().is_none_or(|wake| wake > self.now), "a poll leaves nothing that is over");
    }

    fn check_memory(&self) {
        for family in [Family::V4, Family::V6] {
            assert!(
                self.reassembler.memory(family) <= HIGH_THRESH + QUEUE_OVERSHOOT,
                "the limit holds but for the last piece"
            );
        }
        if self.reassembler.queue_count() == 0 {
            assert_eq!((self.reassembler.memory(Family::V4), self.reassembler.memory(Family::V6)), (0, 0));
        } else {
            assert!(self.reassembler.next_wake().is_some(), "what waits will be over one day");
        }
    }
}

/// The bytes of packet `which` from offset `start` on.
fn expected_bytes(which: usize, start: usize, len: usize) -> impl Iterator<Item = u8> {
    (start..start + len).map(move |at| (at * 7 + at / 256 + which * 31) as u8 | 0x80)
}

/// Number of packets being reassembled at a time; odd ones are IPv6.
const DATAGRAMS: usize = 16;
/// Bytes a queue may use beyond the limit: the fragment that exceeded it, with its bookkeeping.
const QUEUE_OVERSHOOT: usize = 70_000;
/// Small, so that the limit is reached.
const HIGH_THRESH: usize = 4096;
