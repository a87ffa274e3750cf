//! A sample of the connection table: the first entries of `/proc/net/nf_conntrack`.
//!
//! The kernel lists by bucket, and buckets are chosen by a keyed hash, so the first entries are a random sample. Reading stops
//! at the given limit, however large the table is.
use crate::sysroot::{FileError, SysRoot};
use std::io::{BufRead, BufReader, Read};
use std::net::IpAddr;

/// The file.
pub const PATH: &str = "/proc/net/nf_conntrack";

/// No line is longer; what lies behind that in a broken file is read as another line.
const MAX_LINE_BYTES: u64 = 1 << 16;

/// Some entries of a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcConntrackSample {
    /// In the file's order.
    pub entries: Vec<ProcConntrackEntry>,
    /// Is it the whole table?
    pub is_complete: bool,
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcConntrackEntry {
    /// The layer 4 protocol number.
    pub protocol: u8,
    /// Seconds until it expires; `None` if offloaded.
    pub timeout: Option<u64>,
    /// The state, for protocols that have one.
    pub state: Option<String>,
    /// The original direction.
    pub original: ProcConntrackTuple,
    /// The reply direction.
    pub reply: ProcConntrackTuple,
    /// Is it `[UNREPLIED]`?
    pub is_unreplied: bool,
    /// Is it `[ASSURED]`: not removed early when the table is full?
    pub is_assured: bool,
    /// Does it have packet and byte counters?
    pub is_counted: bool,
    /// Its helper.
    pub helper: Option<String>,
}

/// Addresses and ports of one direction; ports are 0 where a protocol has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ProcConntrackTuple {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
}

/// The first `bound` entries.
///
/// # Errors
/// The kernel has no such file (CONFIG_NF_CONNTRACK_PROCFS), or permission is denied.
pub fn read(root: &SysRoot, bound: usize) -> Result<ProcConntrackSample, FileError> {
    let path = root.path(PATH);
    let failed = |source| FileError { path: path.clone(), operation: "read", source };
    let mut lines = BufReader::with_capacity(1 << 16, root.open_file(PATH)?);
    let mut sample = ProcConntrackSample { entries: Vec::new(), is_complete: false };
    let mut line = Vec::new();
    let mut taken = 0;
    while taken < bound {
        line.clear();
        if lines.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut line).map_err(failed)? == 0 {
            sample.is_complete = true;
            break;
        }
        taken += 1;
        // A line that is not an entry is skipped: the file may be cut short.
        sample.entries.extend(parse_line(&String::from_utf8_lossy(&line)));
    }
    Ok(sample)
}

/// Parses a line of the file, or of `conntrack -L -o extended`.
///
/// ```
/// let line = "ipv4     2 tcp      6 431999 ESTABLISHED src=10.0.0.1 dst=10.0.0.2 sport=4000 dport=1883 \
///             src=10.0.0.2 dst=10.0.0.1 sport=1883 dport=4000 [ASSURED] mark=0 zone=0 use=2";
/// let flow = keepstate_linux::proc_conntrack::parse_line(line).unwrap();
/// assert!(flow.is_assured && flow.state.as_deref() == Some("ESTABLISHED") && flow.original.destination_port == 1883);
/// ```
pub fn parse_line(line: &str) -> Option<ProcConntrackEntry> {
    let mut words = line.split_ascii_whitespace().peekable();
    // The family's name and number, the protocol's name and number; without -o extended there is no family.
    if words.peek()?.starts_with("ipv") {
        words.next();
        words.next();
    }
    words.next()?;
    let protocol = words.next()?.parse().ok()?;
    let timeout = words.next_if(|word| word.bytes().all(|byte| byte.is_ascii_digit()));
    let state = words.next_if(|word| !word.contains(['=', '[']));
    let mut sides: Vec<PartialTuple> = Vec::new();
    let mut flow = ProcConntrackEntry {
        protocol,
        timeout: timeout.and_then(|timeout| timeout.parse().ok()),
        state: state.map(str::to_owned),
        original: ProcConntrackTuple::NONE,
        reply: ProcConntrackTuple::NONE,
        is_unreplied: false,
        is_assured: false,
        is_counted: false,
        helper: None,
    };
    for word in words {
        match word.split_once('=') {
            Some(("src", address)) => {
                sides.push(PartialTuple { source: Some(address.parse().ok()?), ..PartialTuple::default() });
            }
            Some(("dst", address)) => sides.last_mut()?.destination = Some(address.parse().ok()?),
            Some(("sport", port)) => sides.last_mut()?.ports.0 = port.parse().ok()?,
            Some(("dport", port)) => sides.last_mut()?.ports.1 = port.parse().ok()?,
            Some(("packets", _)) => flow.is_counted = true,
            Some(("helper", name)) => flow.helper = Some(name.to_owned()),
            Some(_) => (),
            None if word == "[UNREPLIED]" => flow.is_unreplied = true,
            None if word == "[ASSURED]" => flow.is_assured = true,
            None => (),
        }
    }
    flow.original = sides.first()?.tuple()?;
    flow.reply = sides.get(1)?.tuple()?;
    Some(flow)
}

/// A direction while it is parsed.
#[derive(Default)]
struct PartialTuple {
    source: Option<IpAddr>,
    destination: Option<IpAddr>,
    ports: (u16, u16),
}

impl PartialTuple {
    fn tuple(&self) -> Option<ProcConntrackTuple> {
        let (source_port, destination_port) = self.ports;
        Some(ProcConntrackTuple { source: self.source?, destination: self.destination?, source_port, destination_port })
    }
}

impl ProcConntrackTuple {
    const NONE: ProcConntrackTuple = ProcConntrackTuple {
        source: IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
        destination: IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
        source_port: 0,
        destination_port: 0,
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_udp_icmp_and_offloaded_lines() {
        let udp = parse_line(
            "ipv6     10 udp      17 29 src=fd00::1 dst=fd00::2 sport=5353 dport=53 packets=1 bytes=60 [UNREPLIED] \
             src=fd00::2 dst=fd00::1 sport=53 dport=5353 packets=0 bytes=0 mark=0 zone=0 use=2",
        )
        .unwrap();
        assert!(udp.is_unreplied && udp.is_counted && !udp.is_assured && udp.state.is_none());
        assert_eq!((udp.protocol, udp.timeout, udp.reply.destination_port), (17, Some(29), 5353));
        let icmp = "icmp     1 29 src=10.0.0.1 dst=10.0.0.2 type=8 code=0 id=7 src=10.0.0.2 dst=10.0.0.1 type=0 code=0 id=7 use=1";
        assert_eq!(parse_line(icmp).unwrap().protocol, 1);
        let offloaded = "ipv4 2 tcp 6 src=1.1.1.1 dst=2.2.2.2 sport=1 dport=2 src=2.2.2.2 dst=1.1.1.1 sport=2 dport=1 [OFFLOAD] mark=0 helper=ftp";
        let offloaded = parse_line(offloaded).unwrap();
        assert_eq!((offloaded.timeout, offloaded.helper.as_deref()), (None, Some("ftp")));
    }

    #[test]
    fn malformed_lines_are_none() {
        for line in
            ["", "ipv4", "tcp 6 x", "tcp 6 5 NONE src=1.1.1.1", "tcp 6 5 src=1 dst=2", "tcp 300 5", "dst=1.1.1.1"]
        {
            assert_eq!(parse_line(line), None, "{line}");
        }
    }

    #[test]
    fn reads_at_most_the_limit() {
        let there = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(there.path().join("proc/net")).unwrap();
        let line = "icmp 1 29 src=10.0.0.1 dst=10.0.0.2 src=10.0.0.2 dst=10.0.0.1 use=1\n";
        std::fs::write(there.path().join("proc/net/nf_conntrack"), line.repeat(10)).unwrap();
        let root = SysRoot::at(there.path());
        let sample = read(&root, 4).unwrap();
        assert_eq!((sample.entries.len(), sample.is_complete), (4, false));
        assert!(read(&root, 11).unwrap().is_complete);
    }
}
