//! One line of the table of known flows in memory: `struct flow` of IPv4 and `struct flow_v6` of `bpf/flow_table.h`.
use std::net::IpAddr;

/// Where packets of a flow go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcFlowTarget {
    /// Out by the interface of this index, to this neighbour.
    Forward(u32, IpAddr),
    /// To the machine itself.
    Host,
    /// Out, as they were about to leave.
    LetOut,
}

/// One direction of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcFlow {
    /// The source as it comes.
    pub source: (IpAddr, u16),
    /// The destination as it comes.
    pub destination: (IpAddr, u16),
    /// The source as it leaves.
    pub new_source: (IpAddr, u16),
    /// The destination as it leaves.
    pub new_destination: (IpAddr, u16),
    /// TCP or UDP.
    pub protocol: u8,
    /// Does the machine itself send its packets?
    pub is_egress: bool,
    /// The index of the interface that they come in by, or are sent by.
    pub ifindex: u16,
    /// Where they go.
    pub target: TcFlowTarget,
    /// The mark that they get; they keep theirs if `None`.
    pub set_mark: Option<u32>,
    /// Are packets that come with a mark not the flow's?
    pub unmarked_only: bool,
    /// Are packets of another than the ordinary type of service not the flow's?
    pub plain_tos_only: bool,
    /// Are segments with FIN not the flow's?
    pub without_fin: bool,
}

/// A line of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowLine {
    pub(super) is_v6: bool,
    pub(super) number: u32,
}

impl FlowLine {
    /// Is it one of the table of IPv6?
    pub fn is_v6(self) -> bool {
        self.is_v6
    }

    /// Its place in the table of its family.
    pub fn place(self) -> usize {
        self.number as usize
    }
}

/// `LINES` of the programs.
pub(super) const LINES_PER_BUCKET: usize = 4;

/// Where the parts of a line are. Behind its key: addresses and ports as they leave, the next hop, and then the same parts in both families.
#[derive(Debug)]
pub(super) struct LineLayout {
    pub(super) line_len: usize,
    /// Where the parts begin that both have: generation, mark, state, time.
    common: usize,
    /// Packets, then bytes.
    counters: usize,
}

impl LineLayout {
    pub(super) const V4: LineLayout = LineLayout { line_len: 64, common: 32, counters: 48 };
    pub(super) const V6: LineLayout = LineLayout { line_len: 128, common: 92, counters: 112 };

    /// Bytes of its key: addresses and ports as they come, protocol, hook, interface.
    pub(super) const fn key_len(&self) -> usize {
        if self.line_len == LineLayout::V4.line_len { 16 } else { 40 }
    }

    pub(super) const fn generation(&self) -> usize {
        self.common
    }

    /// Target, `live` and interface.
    pub(super) const fn state(&self) -> usize {
        self.common + 8
    }

    pub(super) const fn seen(&self) -> usize {
        self.common + 12
    }

    pub(super) const fn packets(&self) -> usize {
        self.counters
    }

    pub(super) const fn bytes(&self) -> usize {
        self.counters + 8
    }
}

/// A generation that no program takes for its own.
pub(super) const STALE: u32 = 0;
/// `live` in the state's bytes.
pub(super) const LIVE_BYTE: usize = 1;
/// `LIVE`, `OPENING` and `WITHOUT_FIN` in it.
pub(super) const LIVE: u8 = 1;
pub(super) const OPENING: u8 = 2;
pub(super) const WITHOUT_FIN: u8 = 16;
/// `CLAIMED` and `GONE`: in lines that are not live.
pub(super) const CLAIMED: u8 = 32;
pub(super) const GONE: u8 = 64;
/// `SETS_MARK`, `UNMARKED_ONLY`, `KEEPS_HOPS` and `PLAIN_TOS_ONLY`, beside the target.
const SETS_MARK: u8 = 4;
const UNMARKED_ONLY: u8 = 8;
const KEEPS_HOPS: u8 = 16;
const PLAIN_TOS_ONLY: u8 = 32;

/// A line as it is written, not yet live.
pub(super) struct EncodedLine {
    bytes: [u8; LineLayout::V6.line_len],
    length: usize,
    key_len: usize,
}

impl EncodedLine {
    /// The line of a flow; `None` if its addresses are not of one family, or the interface's index has more than 16 bits.
    pub(super) fn new(flow: &TcFlow) -> Option<EncodedLine> {
        let is_v6 = flow.source.0.is_ipv6();
        let unspecified = if is_v6 { IpAddr::from([0_u16; 8]) } else { IpAddr::from([0_u8; 4]) };
        let (target, oif, next_hop) = match flow.target {
            TcFlowTarget::Forward(oif, next_hop) => (0, oif, next_hop),
            TcFlowTarget::Host => (1, 0, unspecified),
            TcFlowTarget::LetOut => (2, 0, unspecified),
        };
        let oif = u16::try_from(oif).ok()?;
        let flag = |is_set, flag| if is_set { flag } else { 0 };
        let what = target
            | flag(flow.set_mark.is_some(), SETS_MARK)
            | flag(flow.unmarked_only, UNMARKED_ONLY)
            | flag(flow.plain_tos_only, PLAIN_TOS_ONLY)
            | flag(flow.is_egress, KEEPS_HOPS);
        let addresses = [flow.source.0, flow.destination.0, flow.new_source.0, flow.new_destination.0, next_hop];
        if addresses.iter().any(|address| address.is_ipv6() != is_v6) {
            return None;
        }
        let mut line = EncodedLine { bytes: [0; LineLayout::V6.line_len], length: 0, key_len: 0 };
        line.push_ends(flow.source, flow.destination);
        line.push(&[flow.protocol, u8::from(flow.is_egress)]);
        line.push(&flow.ifindex.to_ne_bytes());
        line.key_len = line.length;
        line.push_ends(flow.new_source, flow.new_destination);
        line.push_address(next_hop);
        // The generation is the table's.
        line.push(&[0; 4]);
        line.push(&flow.set_mark.unwrap_or(0).to_ne_bytes());
        line.push(&[what, 0]);
        line.push(&oif.to_ne_bytes());
        // No packets yet.
        line.length = if is_v6 { LineLayout::V6.line_len } else { LineLayout::V4.line_len };
        Some(line)
    }

    /// The ends of a key, as packets have them: addresses and ports.
    pub(super) fn ends(source: (IpAddr, u16), destination: (IpAddr, u16)) -> EncodedLine {
        let mut line = EncodedLine { bytes: [0; LineLayout::V6.line_len], length: 0, key_len: 0 };
        line.push_ends(source, destination);
        line
    }

    /// What it is found by.
    pub(super) fn key(&self) -> &[u8] {
        self.bytes.get(..self.key_len).unwrap_or_default()
    }

    /// All of it.
    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }

    fn push(&mut self, part: &[u8]) {
        let end = self.length + part.len();
        if let Some(place) = self.bytes.get_mut(self.length..end) {
            place.copy_from_slice(part);
            self.length = end;
        }
    }

    fn push_ends(&mut self, source: (IpAddr, u16), destination: (IpAddr, u16)) {
        self.push_address(source.0);
        self.push_address(destination.0);
        self.push(&source.1.to_be_bytes());
        self.push(&destination.1.to_be_bytes());
    }

    fn push_address(&mut self, address: IpAddr) {
        match address {
            IpAddr::V4(address) => self.push(&address.octets()),
            IpAddr::V6(address) => self.push(&address.octets()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The parts are where the programs look for them.
    #[test]
    fn lines_have_the_layout_of_the_programs() {
        for (layout, [a, b, c, d, hop], key_len) in [
            (LineLayout::V4, ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5"], 16),
            (LineLayout::V6, ["fd00::1", "fd00::2", "fd00::3", "fd00::4", "fd00::5"], 40),
        ] {
            let address = |text: &str| text.parse::<IpAddr>().unwrap();
            let flow = TcFlow {
                source: (address(a), 0x0102),
                destination: (address(b), 0x0304),
                new_source: (address(c), 0x0506),
                new_destination: (address(d), 0x0708),
                protocol: 6,
                is_egress: true,
                ifindex: 9,
                target: TcFlowTarget::Forward(0x0a0b, address(hop)),
                set_mark: Some(0x0c0d_0e0f),
                unmarked_only: true,
                plain_tos_only: false,
                without_fin: false,
            };
            let line = EncodedLine::new(&flow).unwrap();
            let all = line.bytes();
            assert_eq!((line.key().len(), all.len()), (key_len, layout.line_len));
            assert_eq!(&all[key_len - 8..key_len - 2], [1, 2, 3, 4, 6, 1]);
            assert_eq!(all[layout.generation() - 1], 5, "the next hop ends where the generation begins");
            assert_eq!(all[layout.generation() + 4..layout.state()], 0x0c0d_0e0f_u32.to_ne_bytes());
            let [low, high] = 0x0a0b_u16.to_ne_bytes();
            assert_eq!(all[layout.state()..layout.seen()], [28, 0, low, high]);
            assert_eq!(all[layout.bytes() + 8..].len(), 0);
            let mixed = TcFlow { new_source: (address(if key_len == 16 { "::1" } else { "10.0.0.1" }), 1), ..flow };
            assert!(EncodedLine::new(&mixed).is_none());
            let far = TcFlow { target: TcFlowTarget::Forward(0x1_0000, address(hop)), ..flow };
            assert!(EncodedLine::new(&far).is_none());
        }
    }
}
