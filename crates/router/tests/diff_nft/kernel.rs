//! Linux as the other router: a network namespace of this thread, two TUN interfaces, and the ruleset loaded by nft.
//!
//! It lives as long as its thread; interfaces, rules and table end with the namespace. It must never change the namespace it came from.
#![allow(unsafe_code, reason = "unshare(2) and TUNSETIFF have no safe wrapper in std")]

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

pub struct Kernel {
    devices: [File; 2],
    /// Is there a virtio-net header before each packet?
    vnet_hdr: bool,
}

/// Addresses and routes: the same as in our FIB.
const IP_COMMANDS: &str = "
link set lo up
link set lan0 up
link set wan0 up
addr add 10.1.0.1/24 dev lan0
addr add 192.0.2.1/24 dev wan0
addr add fd00:1::1/64 dev lan0 nodad
addr add 2001:db8::1/64 dev wan0 nodad
route add default dev wan0
route add default dev wan0 metric 1
route add 100.64.0.0/10 dev lan0
";

const SYSCTLS: [(&str, &str); 8] = [
    ("net/ipv4/ip_forward", "1"),
    ("net/ipv6/conf/all/forwarding", "1"),
    ("net/ipv4/conf/all/rp_filter", "0"),
    ("net/ipv4/conf/default/rp_filter", "0"),
    ("net/ipv4/icmp_ratelimit", "0"),
    ("net/ipv6/icmp/ratelimit", "0"),
    ("net/ipv6/conf/default/addr_gen_mode", "1"),
    ("net/ipv4/conf/all/send_redirects", "0"),
];

/// How often it is looked for packets that leave, every 2 ms: on a busy machine the stack may take a while.
const MAX_LOOKS: usize = 1000;

/// The kernel makes the routes to its own IPv6 addresses a moment after they are given: until then it would forward what is for itself.
fn wait_for_own_addresses() {
    for address in ["fd00:1::1", "2001:db8::1"] {
        let is_local = || {
            let asked = Command::new("ip").args(["-6", "route", "get", address]).output().unwrap();
            asked.stdout.starts_with(b"local ")
        };
        assert!(
            (0..MAX_LOOKS * 10).any(|_| is_local() || (std::thread::sleep(Duration::from_millis(2)), false).1),
            "{address} is not the router's"
        );
    }
}

impl Kernel {
    /// Moves this thread into a new namespace and loads `ruleset`. `None` without permission.
    #[allow(dead_code, reason = "not every test wants it")]
    pub fn new(ruleset: &str) -> Option<Kernel> {
        Kernel::create(false, ruleset)
    }

    /// The same with interfaces that offload checksums of TCP segments; only TCP may be sent into them.
    #[allow(dead_code, reason = "not every test wants it")]
    pub fn with_checksum_offload(ruleset: &str) -> Option<Kernel> {
        Kernel::create(true, ruleset)
    }

    fn create(headed: bool, ruleset: &str) -> Option<Kernel> {
        // SAFETY: no pointers are passed; only this thread changes its namespace.
        if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
            return None;
        }
        for (knob, value) in SYSCTLS {
            fs::write(Path::new("/proc/sys").join(knob), value).unwrap_or_else(|error| panic!("{knob}: {error}"));
        }
        for knob in ["net/ipv4/icmp_msgs_per_sec", "net/ipv4/icmp_msgs_burst"] {
            // Per namespace since Linux 6.13; machine-wide before, and then not to be changed.
            let _ = fs::write(Path::new("/proc/sys").join(knob), "1000000");
        }
        let devices = ["lan0", "wan0"].map(|name| tun(name, headed).unwrap());
        for knob in ["net/ipv4/conf/lan0/send_redirects", "net/ipv4/conf/wan0/send_redirects"] {
            fs::write(Path::new("/proc/sys").join(knob), "0").unwrap();
        }
        run("ip", &["-force", "-batch", "-"], IP_COMMANDS);
        run("ip", &["-6", "route", "add", "default", "dev", "wan0"], "");
        wait_for_own_addresses();
        run("nft", &["--file", "-"], ruleset);
        Some(Kernel { devices, vnet_hdr: headed })
    }

    /// Sends a packet into an interface (0 is lan0, 1 is wan0), and returns the packets that leave, each with its interface. Waits for `expected` packets.
    pub fn handle(&mut self, bytes: &[u8], device: usize, expected: usize) -> Vec<(usize, Vec<u8>)> {
        match self.devices[device].write(&if self.vnet_hdr { with_vnet_hdr(bytes) } else { bytes.to_vec() }) {
            // The stack rejects some malformed packets on input.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => return Vec::new(),
            other => drop(other.unwrap()),
        }
        let mut out = Vec::new();
        for _ in 0..MAX_LOOKS {
            for (at, device) in self.devices.iter_mut().enumerate() {
                let mut buffer = [0; 65_536];
                while let Ok(length) = device.read(&mut buffer) {
                    let datagram = &buffer[if self.vnet_hdr { VNET_HDR_LEN } else { 0 }..length];
                    // The stack's own neighbour discovery and multicast.
                    let own = datagram[0] >> 4 == 6 && (datagram[8] == 0xfe || datagram[24] == 0xff);
                    if !own {
                        out.push((at, datagram.to_vec()));
                    }
                }
            }
            if out.len() >= expected {
                break;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        out
    }

    /// Runs `ip` in the namespace of this thread, one command a line.
    #[allow(dead_code, reason = "not every test wants it")]
    pub fn ip(&self, commands: &str) {
        run("ip", &["-batch", "-"], commands);
    }

    /// Packets and bytes of each rule's counter, in the order of the listing.
    #[allow(dead_code, reason = "not every test wants it")]
    pub fn rule_counters(&self) -> Vec<(u64, u64)> {
        let output = Command::new("nft").args(["list", "ruleset"]).output().unwrap();
        let listing = String::from_utf8_lossy(&output.stdout);
        let counters = listing.match_indices("counter packets ").map(|(at, what)| {
            let mut words = listing[at + what.len()..].split_whitespace();
            (words.next().unwrap().parse().unwrap(), words.nth(1).unwrap().parse().unwrap())
        });
        counters.collect()
    }

    /// The connections that are expected, sorted: protocol, source, destination and port, and the connection that expects them.
    #[allow(dead_code, reason = "not every test wants it")]
    pub fn expected_connections(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for family in ["ipv4", "ipv6"] {
            let output = Command::new("conntrack").args(["-L", "expect", "-f", family]).output().unwrap();
            for line in String::from_utf8_lossy(&output.stdout).lines() {
                let words: Vec<&str> = line.split_whitespace().collect();
                let nth = |name: &str, at: usize| {
                    words.iter().filter_map(|word| word.strip_prefix(name)).nth(at).unwrap_or_default()
                };
                // The ports of the expected tuple, of the mask, of the master.
                lines.push(format!(
                    "{} {} > {}:{} of {}:{} > {}:{}",
                    nth("proto=", 0),
                    nth("src=", 0),
                    nth("dst=", 0),
                    nth("dport=", 0),
                    nth("master-src=", 0),
                    nth("sport=", 2),
                    nth("master-dst=", 0),
                    nth("dport=", 2)
                ));
            }
        }
        lines.sort();
        lines
    }

    /// The tuples of the connection table: `protocol original | reply`, sorted.
    pub fn table(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for family in ["ipv4", "ipv6"] {
            let output = Command::new("conntrack").args(["-L", "-f", family]).output().unwrap();
            for line in String::from_utf8_lossy(&output.stdout).lines() {
                let words: Vec<&str> = line.split_whitespace().collect();
                let wanted = |word: &&&str| {
                    ["src=", "dst=", "sport=", "dport=", "type=", "code=", "id=", "srckey=", "dstkey="]
                        .iter()
                        .any(|prefix| word.starts_with(prefix))
                };
                let tuples: Vec<&str> = words.iter().filter(wanted).copied().collect();
                lines.push(format!("{} {}", words[1], tuples.join(" ")));
            }
        }
        lines.sort();
        lines
    }
}

fn run(program: &str, arguments: &[&str], input: &str) {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{program}: {error}"));
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    // `ip -force` continues after a route that already exists.
    assert!(output.status.success() || stderr.contains("File exists"), "{program} {arguments:?}: {stderr}");
}

/// Length of the virtio-net header in bytes.
const VNET_HDR_LEN: usize = 10;

/// A segment with checksum offload: the flag `VIRTIO_NET_HDR_F_NEEDS_CSUM`, the offsets of the segment and of its checksum, and the sum of the
/// pseudo-header in the checksum field.
fn with_vnet_hdr(bytes: &[u8]) -> Vec<u8> {
    let (at, addresses) = if bytes[0] >> 4 == 6 { (40, 8..40) } else { (20, 12..20) };
    let mut sum = (bytes.len() - at) as u32 + 6;
    for pair in bytes[addresses].chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(pair[1]);
    }
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let mut headed = vec![1, 0, 0, 0, 0, 0, at as u8, 0, 16, 0];
    headed.extend(bytes);
    headed[VNET_HDR_LEN + at + 16..VNET_HDR_LEN + at + 18].copy_from_slice(&(sum as u16).to_be_bytes());
    headed
}

/// A nonblocking TUN interface with this name.
fn tun(name: &str, header: bool) -> io::Result<File> {
    open_tun(name, libc::IFF_TUN | if header { libc::IFF_VNET_HDR } else { 0 })
}

/// A nonblocking TAP interface: packets with Ethernet headers.
#[allow(dead_code, reason = "not every test wants it")]
pub fn tap(name: &str) -> io::Result<File> {
    open_tun(name, libc::IFF_TAP)
}

fn open_tun(name: &str, kind: libc::c_int) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun")?;
    // SAFETY: an all-zero ifreq is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (kind | libc::IFF_NO_PI) as libc::c_short;
    // SAFETY: the request outlives the call, and is what TUNSETIFF expects.
    if unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(file)
}
