//! TCP: two ends that mostly follow RFC 9293, with errors in sequence numbers, flags, windows and options.
use super::generated_packet::{GeneratedPacket, endpoints_toward, ports_between};
use crate::oracle::kernel::Toward;
use crate::oracle::packet_builder::{self, OracleSegment, PacketEndpoints};
use crate::oracle::rng::OracleRng;

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const PSH: u8 = 8;
const ACK: u8 = 16;

/// One end, as the generator models it.
#[derive(Clone, Debug, Default)]
struct Side {
    /// Next sequence number to send.
    snd_next: u32,
    /// Next sequence number expected from the other end: its acknowledgement.
    rcv_next: u32,
    window: u16,
    scale: Option<u8>,
    sack: bool,
    timestamps: bool,
    sent_syn: bool,
    sent_fin: bool,
    received_syn: bool,
    received_fin: bool,
    /// Largest window offered, scaled.
    max_window: u32,
    /// Length of the last data, for retransmission.
    last_data_len: u32,
}

/// One connection, or several in sequence on the same ports.
pub struct TcpFlow {
    ends: PacketEndpoints,
    ports: (u16, u16),
    client: Side,
    server: Side,
    /// Percentage of packets with an error.
    error_percent: usize,
    /// Sequence number of the last stray SYN.
    stray_syn_seq: u32,
}

impl TcpFlow {
    pub fn new(ends: PacketEndpoints, random: &mut OracleRng) -> TcpFlow {
        let ports = ports_between(ends, (40000 + random.below(12) as u16, random.pick(&[80, 443, 1883, 40001])));
        let wildness = random.weighted(&[(30, 0), (30, 5), (25, 15), (15, 45)]);
        let mut flow = TcpFlow {
            ends,
            ports,
            client: Side::new(random),
            server: Side::new(random),
            error_percent: wildness,
            stray_syn_seq: random.next_u32(),
        };
        if random.percent(12) {
            flow.start_midstream();
        }
        flow
    }

    /// Starts as if the handshake was before the capture.
    fn start_midstream(&mut self) {
        (self.client.rcv_next, self.server.rcv_next) = (self.server.snd_next, self.client.snd_next);
        for side in [&mut self.client, &mut self.server] {
            (side.sent_syn, side.received_syn) = (true, true);
        }
    }

    pub fn next_packet(&mut self, random: &mut OracleRng) -> GeneratedPacket {
        let toward = self.choose_sender(random);
        let mut segment = self.regular_segment(toward, random);
        if random.percent(self.error_percent) {
            self.corrupt_segment(toward, &mut segment, random);
            if random.percent(30) {
                self.corrupt_segment(toward, &mut segment, random);
            }
            if random.percent(40) {
                self.apply_segment(toward, &segment);
            }
        } else {
            self.apply_segment(toward, &segment);
        }
        let ends = endpoints_toward(self.ends, toward);
        GeneratedPacket { toward, ends, protocol: packet_builder::TCP, transport: segment.to_bytes(ends) }
    }

    fn side(&self, toward: Toward) -> (&Side, &Side) {
        match toward {
            Toward::Server => (&self.client, &self.server),
            Toward::Client => (&self.server, &self.client),
        }
    }

    /// Selects the sender: the end that has something to send, otherwise either.
    fn choose_sender(&self, random: &mut OracleRng) -> Toward {
        let (client, server) = (&self.client, &self.server);
        match () {
            () if random.percent(6) => random.pick(&[Toward::Server, Toward::Client]),
            () if !client.sent_syn => Toward::Server,
            () if client.sent_syn && !server.sent_syn && server.received_syn => {
                random.weighted(&[(9, Toward::Client), (1, Toward::Server)])
            }
            () if server.sent_syn && !client.received_syn => Toward::Client,
            () => random.pick(&[Toward::Server, Toward::Client]),
        }
    }

    /// The segment that this end would send next according to the RFC.
    fn regular_segment(&mut self, toward: Toward, random: &mut OracleRng) -> OracleSegment {
        let over = self.client.sent_fin && self.server.sent_fin;
        if (over && random.percent(25)) || random.permille(8) {
            self.reopen(random);
        }
        let (me, peer) = self.side(toward);
        let (source, destination) = if toward == Toward::Server { self.ports } else { (self.ports.1, self.ports.0) };
        let window = if random.permille(30) { random.pick(&[0, 1, 512, 65535]) } else { me.window };
        let mut segment = OracleSegment {
            source,
            destination,
            seq: me.snd_next,
            ack: me.rcv_next,
            window,
            ..OracleSegment::default()
        };
        if !me.sent_syn || (!me.received_syn && random.percent(60)) {
            segment.flags = if me.received_syn { SYN | ACK } else { SYN };
            segment.seq = if me.sent_syn { me.snd_next.wrapping_sub(1) } else { me.snd_next };
            segment.ack = if me.received_syn { me.rcv_next } else { 0 };
            segment.options = me.syn_options(random);
            return segment;
        }
        segment.flags = ACK;
        let fin = if me.received_fin { 40 } else { 5 };
        match random.below(100) {
            _ if !me.sent_fin && random.percent(fin) => segment.flags |= FIN,
            _ if me.sent_fin && random.percent(10) => {
                segment.flags |= FIN;
                segment.seq = me.snd_next.wrapping_sub(1);
            }
            0..35 => {}
            35..70 => {
                segment.data_len = random.pick(&[1, 10, 100, 1000]);
                segment.flags |= PSH;
            }
            70..78 => {
                segment.seq = me.snd_next.wrapping_sub(me.last_data_len);
                segment.data_len = me.last_data_len as usize;
            }
            78..82 => segment.seq = me.snd_next.wrapping_sub(1),
            82..84 => segment.window = 0,
            84..86 if peer.sent_fin || random.percent(20) => {
                segment.flags = RST | (segment.flags & random.next_u8() & ACK)
            }
            _ => {}
        }
        if me.sack && random.percent(10) {
            segment.options = sack_blocks(me.rcv_next, random);
        } else if me.timestamps {
            segment.options = vec![1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2];
        }
        segment
    }

    /// Starts a new connection on the same ports.
    fn reopen(&mut self, random: &mut OracleRng) {
        let (before_client, before_server) = (self.client.snd_next, self.server.snd_next);
        self.client = Side::new(random);
        self.server = Side::new(random);
        if random.percent(50) {
            let gap = random.pick(&[0, 1, 1000, 100_000]);
            self.client.snd_next = before_client.wrapping_add(gap);
            self.server.snd_next = before_server.wrapping_add(gap);
        }
        if random.percent(15) {
            std::mem::swap(&mut self.client.sent_syn, &mut self.server.sent_syn);
        }
    }

    /// Introduces one error.
    fn corrupt_segment(&mut self, toward: Toward, segment: &mut OracleSegment, random: &mut OracleRng) {
        match random.below(100) {
            0..24 => segment.seq = self.seq_near_window_edge(toward, segment.data_len as u32, random),
            24..44 => segment.ack = self.ack_near_window_edge(toward, random),
            44..56 => {
                segment.flags =
                    random.pick(&[SYN, SYN | ACK, RST, RST | ACK, FIN | ACK, FIN, ACK, 0, SYN | FIN, SYN | RST])
            }
            56..60 => segment.flags = random.next_u8(),
            60..66 => {
                segment.flags = RST | random.pick(&[0, ACK]);
                segment.seq = match random.below(5) {
                    0 => 0,
                    1 => self.side(toward).1.rcv_next,
                    2 => self.side(toward).1.rcv_next.wrapping_add(random.pick(&[1, 1000, u32::MAX, u32::MAX - 999])),
                    _ => segment.seq,
                };
            }
            66..74 => {
                let any = random.next_u32();
                segment.flags = SYN;
                segment.seq = random.pick(&[
                    segment.seq,
                    segment.seq.wrapping_add(1),
                    segment.seq.wrapping_sub(1),
                    self.stray_syn_seq,
                    any,
                ]);
                segment.options = self.side(toward).0.syn_options(random);
                self.stray_syn_seq = segment.seq;
            }
            74..80 => {
                let any = random.next_u32();
                segment.flags = SYN | ACK;
                segment.ack = random.pick(&[self.stray_syn_seq.wrapping_add(1), self.stray_syn_seq, segment.ack, any]);
                segment.options = self.side(toward).0.syn_options(random);
            }
            80..84 => segment.window = random.pick(&[0, 1, 2, 65535]),
            84..88 => segment.data_len = random.pick(&[0, 1, 1460, 20000, 60000]),
            88..92 => segment.options = malformed_options(random),
            92..94 => segment.bad_checksum = true,
            94..96 => segment.data_offset = Some(random.below(16) as u8),
            96..97 => segment.truncate_to = Some(random.below(24)),
            _ => segment.options = sack_blocks(self.ack_near_window_edge(toward, random), random),
        }
    }

    /// A sequence number near one of the edges of the window check.
    fn seq_near_window_edge(&self, toward: Toward, data: u32, random: &mut OracleRng) -> u32 {
        let (me, peer) = self.side(toward);
        let base = match random.below(7) {
            0 => me.snd_next,
            1 => peer.rcv_next,
            2 => peer.rcv_next.wrapping_add(peer.max_window).wrapping_sub(data),
            3 => peer.rcv_next.wrapping_add(peer.max_window),
            4 => me.snd_next.wrapping_sub(peer.max_window),
            5 => me.snd_next.wrapping_sub(peer.max_window).wrapping_sub(data),
            _ => random.next_u32(),
        };
        base.wrapping_add(boundary_offset(random))
    }

    fn ack_near_window_edge(&self, toward: Toward, random: &mut OracleRng) -> u32 {
        let (me, peer) = self.side(toward);
        let base = match random.below(6) {
            0 => peer.snd_next,
            1 => me.rcv_next,
            2 => peer.snd_next.wrapping_sub(66000),
            3 => peer.snd_next.wrapping_sub(me.max_window.max(66000)),
            4 => 0,
            _ => random.next_u32(),
        };
        base.wrapping_add(boundary_offset(random))
    }

    /// Both ends process the segment as valid.
    fn apply_segment(&mut self, toward: Toward, segment: &OracleSegment) {
        let (me, peer) = match toward {
            Toward::Server => (&mut self.client, &mut self.server),
            Toward::Client => (&mut self.server, &mut self.client),
        };
        let flags = segment.flags;
        let length = segment.data_len as u32 + u32::from(flags & SYN != 0) + u32::from(flags & FIN != 0);
        let end = segment.seq.wrapping_add(length);
        if flags & RST != 0 {
            return;
        }
        if (end.wrapping_sub(me.snd_next) as i32) > 0 || flags & SYN != 0 {
            me.snd_next = end;
        }
        if segment.data_len > 0 {
            me.last_data_len = segment.data_len as u32;
        }
        me.sent_syn |= flags & SYN != 0;
        me.sent_fin |= flags & FIN != 0;
        let scale = if flags & SYN == 0 && me.scale.is_some() && peer.scale.is_some() {
            me.scale.unwrap_or(0).min(14)
        } else {
            0
        };
        me.max_window = me.max_window.max(u32::from(segment.window) << scale);
        peer.received_syn |= flags & SYN != 0;
        peer.received_fin |= flags & FIN != 0;
        peer.rcv_next = me.snd_next;
    }
}

impl Side {
    fn new(random: &mut OracleRng) -> Side {
        let any = random.next_u32();
        Side {
            snd_next: random.pick(&[1000, 50_000, u32::MAX - 500, 0x7fff_ff00, any]),
            window: random.pick(&[64240, 65535, 29200, 1024, 100, 65160]),
            scale: random.weighted(&[
                (3, None),
                (2, Some(0)),
                (3, Some(2)),
                (3, Some(7)),
                (1, Some(14)),
                (1, Some(15)),
            ]),
            sack: random.percent(60),
            timestamps: random.percent(20),
            max_window: 1,
            ..Side::default()
        }
    }

    /// The options of a SYN.
    fn syn_options(&self, random: &mut OracleRng) -> Vec<u8> {
        let mut options = vec![2, 4, 5, 180];
        if self.sack {
            options.extend([1, 1, 4, 2]);
        }
        if let Some(scale) = self.scale {
            options.extend([1, 3, 3, scale]);
        }
        if self.timestamps {
            options.extend([1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0]);
        }
        if random.permille(10) {
            options = malformed_options(random);
        }
        options
    }
}

fn boundary_offset(random: &mut OracleRng) -> u32 {
    random.pick(&[0, 0, 1, 2, u32::MAX, u32::MAX - 1, 1000, 0u32.wrapping_sub(1000), 1 << 31])
}

/// One to three SACK blocks, after `ack` or not.
fn sack_blocks(ack: u32, random: &mut OracleRng) -> Vec<u8> {
    let count = 1 + random.below(3) as u8;
    let mut options = vec![1, 1, 5, 2 + 8 * count];
    for _ in 0..count {
        let left = ack.wrapping_add(random.pick(&[0, 1, 1000, 66000, 1 << 31, u32::MAX - 999]));
        let right = left.wrapping_add(random.pick(&[0, 1, 1000, 100_000]));
        options.extend(left.to_be_bytes());
        options.extend(right.to_be_bytes());
    }
    if random.percent(10) {
        options[3] = random.next_u8();
    }
    options
}

/// Malformed options, each in a different way.
fn malformed_options(random: &mut OracleRng) -> Vec<u8> {
    match random.below(9) {
        0 => vec![3, 3, random.next_u8()],
        1 => vec![3, 2, 7, 0],
        2 => vec![3, 4, 7, 7],
        3 => vec![0, 3, 3, 7],
        4 => vec![5, 0, 0, 0],
        5 => vec![3, 1, 3, 3],
        6 => vec![1, 1, 3],
        7 => vec![4, 3, 0, 3, 3, 9, 3, 3, 4],
        _ => (0..random.below(41)).map(|_| random.pick(&[0, 1, 2, 3, 4, 5, 8, 10, 255])).collect(),
    }
}
