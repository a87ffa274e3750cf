//! Target `reassembly`: pieces of a few datagrams, in any order, doubled, overlapping, lying about their place, or never coming.

use crate::{Script, forge};
use keepstate_wire::reassembly::{Limits, Reassembler, Reassembly};
use keepstate_wire::{Family, Packet};

/// Sends the pieces that `data` tells of, and checks what comes out whole.
pub fn reassembly(data: &[u8]) {
    let mut script = Script::new(data);
    let limits = Limits { memory: MEMORY, ..Limits::default() };
    let mut story =
        Story { reassembler: Reassembler::new((7, 11), limits), now: 0, out: Vec::new(), lied: [false; DATAGRAMS] };
    while let Some(what) = script.octet() {
        match what {
            0..=223 => story.piece(usize::from(what) % DATAGRAMS, &mut script),
            224..=239 => story.anything(script.take(128)),
            _ => story.wait(u64::from(script.octet().unwrap_or(0))),
        }
        story.books();
    }
    story.wait(3600);
    assert_eq!(story.reassembler.waiting(), 0, "nothing waits for ever");
    story.books();
}

struct Story {
    reassembler: Reassembler,
    now: u64,
    out: Vec<u8>,
    /// Datagrams of which a piece with other octets than the datagram's was sent: nobody can say what they will be.
    lied: [bool; DATAGRAMS],
}

impl Story {
    /// A piece of a datagram: from where, how much, whether more follow, whether it lies.
    fn piece(&mut self, which: usize, script: &mut Script<'_>) {
        let ipv6 = which & 1 != 0;
        let shape = script.octet().unwrap_or(0);
        let (start, len, more) = match shape {
            // Of a datagram of three pieces of sixteen octets.
            0..=159 => (u16::from(shape % 3) * 16, 16, shape % 3 != 2),
            // The whole at once, or a little more or less of it.
            160..=191 => (0, script.pick(&[48, 32, 24, 20]), shape & 1 == 0),
            _ => (u16::from(script.octet().unwrap_or(0)) * 8, script.pick(&[8, 16, 17, 0, 1400]), shape & 1 == 0),
        };
        let lie = script.octet().unwrap_or(0) > 250;
        self.lied[which] |= lie;
        let octets = honest(which, usize::from(start), len).map(|octet| octet ^ u8::from(lie)).collect();
        let bytes = forge::fragment(ipv6, which as u8, start, more, octets);
        let packet = Packet::parse(&bytes).expect("a sound fragment");
        if let Ok(Reassembly::Whole(_)) = self.reassembler.push(&packet, self.now, &mut self.out) {
            let whole = Packet::parse_reassembled(&self.out).expect("a whole datagram is a sound one");
            assert!(whole.fragment().is_none(), "a whole datagram is no fragment");
            assert_eq!(whole.addresses(), packet.addresses());
            assert_eq!(whole.transport_len(), whole.transport().len());
            let told = honest(which, 0, whole.transport().len());
            assert!(self.lied[which] || whole.transport().iter().copied().eq(told), "its octets, in their places");
        }
    }

    /// Any octets as a packet: by chance they may name any of the datagrams.
    fn anything(&mut self, bytes: &[u8]) {
        if let Ok(packet) = Packet::parse(bytes) {
            self.lied = [true; DATAGRAMS];
            let _ = self.reassembler.push(&packet, self.now, &mut self.out);
        }
    }

    fn wait(&mut self, seconds: u64) {
        self.now += seconds * 1_000_000_000;
        self.reassembler.poll(self.now);
        assert!(self.reassembler.next_wake().is_none_or(|wake| wake > self.now), "a poll leaves nothing that is over");
    }

    fn books(&self) {
        for family in [Family::V4, Family::V6] {
            assert!(self.reassembler.memory(family) <= MEMORY + ONE_PIECE, "the limit holds but for the last piece");
        }
        if self.reassembler.waiting() == 0 {
            assert_eq!((self.reassembler.memory(Family::V4), self.reassembler.memory(Family::V6)), (0, 0));
        } else {
            assert!(self.reassembler.next_wake().is_some(), "what waits will be over one day");
        }
    }
}

/// The octets of datagram `which` from `start` on.
fn honest(which: usize, start: usize, len: usize) -> impl Iterator<Item = u8> {
    (start..start + len).map(move |at| (at * 7 + at / 256 + which * 31) as u8 | 0x80)
}

/// Datagrams that are in pieces at a time; the odd ones are of IPv6.
const DATAGRAMS: usize = 16;
/// Octets a queue may take beyond the limit: the piece that went over it, with its bookkeeping.
const ONE_PIECE: usize = 70_000;
/// Little, so that it is reached.
const MEMORY: usize = 4096;
