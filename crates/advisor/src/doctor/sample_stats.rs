//! Statistics of a sample of the table: shares by state, protocol and port, and idle times.
use super::observations::{ObservedFlow, ObservedNamespace};
use std::collections::BTreeMap;

/// Shares of a table, from a sample of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SampleStats {
    /// Entries in the sample.
    pub sampled: u64,
    /// Entries in the whole table.
    pub total: u64,
    /// ASSURED: not evicted when the table is full.
    pub assured: u64,
    /// UNREPLIED.
    pub unreplied: u64,
    /// TCP.
    pub tcp: u64,
    /// UDP.
    pub udp: u64,
    /// UDP without a reply.
    pub udp_unreplied: u64,
    /// Entries by protocol number: all, and those without a reply.
    pub protocols: BTreeMap<u8, (u64, u64)>,
    /// TCP by state.
    pub states: BTreeMap<String, u64>,
    /// TCP with an unfinished handshake.
    pub half_open: u64,
    /// TCP picked up in the middle, with one direction only.
    pub one_way: u64,
    /// ESTABLISHED TCP that is idle for more than a day (no broker's keepalive is that long).
    pub idle: u64,
    /// The most frequent destination ports: protocol, port, entries.
    pub ports: Vec<(u8, u16, u64)>,
}

/// Protocol number of TCP.
pub const TCP: u8 = 6;
/// Protocol number of UDP.
pub const UDP: u8 = 17;

/// TCP, UDP, DCCP, SCTP, UDP-Lite.
const PROTOCOLS_WITH_PORTS: [u8; 5] = [TCP, UDP, 33, 132, 136];

/// Percent of the entries that another protocol must have to be named.
const OTHER_PROTOCOL_PERCENT: u64 = 10;

/// Seconds after which the peer of an idle connection is probably gone: a day. Keepalives of brokers reach 18 hours at most.
pub const IDLE_SECONDS: u64 = 86_400;

/// Percent of the entries that a port must have to be named in a remedy.
const MAJOR_PORT_PERCENT: u64 = 20;

/// Entries a sample needs for its shares to mean anything.
const MIN_SAMPLE: u64 = 20;

impl SampleStats {
    /// Counts a namespace's sample; `None` if there is none, or it is too small.
    pub fn from_sample(space: &ObservedNamespace) -> Option<SampleStats> {
        let sample = &space.sample.as_ref()?.value;
        let sampled = sample.flows.len() as u64;
        if sampled < MIN_SAMPLE {
            return None;
        }
        // The table keeps changing: it holds at least the sampled entries.
        let all = space.count.as_ref().map_or(sampled, |count| count.value).max(sampled);
        let mut stats = SampleStats { sampled, total: all, ..SampleStats::default() };
        let established = space.sysctl("nf_conntrack_tcp_timeout_established");
        let mut ports: BTreeMap<(u8, u16), u64> = BTreeMap::new();
        for flow in &sample.flows {
            stats.count_flow(flow, established);
            if PROTOCOLS_WITH_PORTS.contains(&flow.protocol) {
                *ports.entry((flow.protocol, flow.original.destination_port)).or_default() += 1;
            }
        }
        stats.ports = ports.into_iter().map(|((protocol, port), entries)| (protocol, port, entries)).collect();
        stats.ports.sort_by_key(|(_, _, entries)| std::cmp::Reverse(*entries));
        stats.ports.truncate(5);
        Some(stats)
    }

    fn count_flow(&mut self, flow: &ObservedFlow, established: Option<u64>) {
        self.assured += u64::from(flow.is_assured);
        self.unreplied += u64::from(flow.is_unreplied);
        self.udp += u64::from(flow.protocol == UDP);
        self.udp_unreplied += u64::from(flow.protocol == UDP && flow.is_unreplied);
        let (all, unreplied) = self.protocols.entry(flow.protocol).or_default();
        *all += 1;
        *unreplied += u64::from(flow.is_unreplied);
        if flow.protocol != TCP {
            return;
        }
        self.tcp += 1;
        let state = flow.state.as_deref().unwrap_or("NONE");
        *self.states.entry(state.to_owned()).or_default() += 1;
        self.half_open += u64::from(matches!(state, "SYN_SENT" | "SYN_RECV" | "SYN_SENT2"));
        self.one_way += u64::from(flow.is_unreplied && state == "ESTABLISHED");
        if let (true, Some(full), Some(left)) = (state == "ESTABLISHED", established, flow.timeout) {
            self.idle += u64::from(full.saturating_sub(left) >= IDLE_SECONDS);
        }
    }

    /// Sampled entries in percent of the sample.
    pub fn percent(&self, entries: u64) -> u64 {
        entries.saturating_mul(100) / self.sampled.max(1)
    }

    /// The estimated number in the whole table.
    pub fn extrapolate(&self, entries: u64) -> u64 {
        let scaled = u128::from(entries) * u128::from(self.total) / u128::from(self.sampled.max(1));
        u64::try_from(scaled).unwrap_or(u64::MAX)
    }

    /// TCP entries in a state.
    pub fn entries_in_state(&self, name: &str) -> u64 {
        self.states.get(name).copied().unwrap_or(0)
    }

    /// The shares in one line.
    pub fn summary(&self) -> String {
        let mut parts = vec![
            format!("{} % assured", self.percent(self.assured)),
            format!("{} % unreplied", self.percent(self.unreplied)),
            format!("{} % UDP", self.percent(self.udp)),
        ];
        for (protocol, (entries, _)) in &self.protocols {
            let share = self.percent(*entries);
            if ![TCP, UDP].contains(protocol) && share >= OTHER_PROTOCOL_PERCENT {
                parts.push(format!("{share} % {}", protocol_name(*protocol)));
            }
        }
        let mut states: Vec<_> = self.states.iter().collect();
        states.sort_by_key(|(_, entries)| std::cmp::Reverse(**entries));
        for (state, entries) in states.into_iter().take(3) {
            parts.push(format!("{} % {state}", self.percent(*entries)));
        }
        parts.join(", ")
    }

    /// The destination port of a protocol that so many entries have that a remedy for it alone helps.
    pub fn major_port(&self, protocol: u8) -> Option<u16> {
        let (_, port, entries) = self.ports.iter().find(|(other, _, _)| *other == protocol)?;
        (self.percent(*entries) >= MAJOR_PORT_PERCENT).then_some(*port)
    }

    /// The most frequent destination port, in words.
    pub fn top_port(&self) -> Option<String> {
        let (protocol, port, entries) =
            self.ports.first().filter(|(_, _, entries)| self.percent(*entries) >= MAJOR_PORT_PERCENT)?;
        Some(format!("{} port {port}, {} %", protocol_name(*protocol).to_lowercase(), self.percent(*entries)))
    }

    /// The protocol, neither TCP nor UDP, of which most entries have no reply, and how many those are.
    pub fn other_unreplied(&self) -> Option<(u8, u64)> {
        let others = self.protocols.iter().filter(|(protocol, _)| ![TCP, UDP].contains(protocol));
        others.map(|(protocol, (_, unreplied))| (*protocol, *unreplied)).max_by_key(|(_, unreplied)| *unreplied)
    }
}

/// A protocol in words.
pub fn protocol_name(protocol: u8) -> String {
    match protocol {
        1 => "ICMP".to_owned(),
        TCP => "TCP".to_owned(),
        UDP => "UDP".to_owned(),
        33 => "DCCP".to_owned(),
        47 => "GRE".to_owned(),
        58 => "ICMPv6".to_owned(),
        132 => "SCTP".to_owned(),
        136 => "UDP-Lite".to_owned(),
        other => format!("protocol {other}"),
    }
}
