//! The running kernel as reference: a network namespace, two TUN interfaces, and packets that cross from one to the other
//! with conntrack's verdict written into their DSCP field.
//!
//! It lives as long as the process is in that namespace: when the process ends, interfaces, rules and table end with it. It must never
//! change a sysctl of the namespace it came from.
use super::syscalls;
use super::verdict::{CtStateDscp, ObservedVerdict};
use anyhow::{Context, Result, bail, ensure};
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::process::{Command, Stdio};

/// The side a packet is sent to: the original direction is toward `Server` in most traffic, but not in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Toward {
    Server,
    Client,
}

/// The nftables ruleset between the two interfaces.
const NFT_RULES: &str = "
table inet oracle {
  chain say {
    type filter hook prerouting priority -100; policy accept;
    ct state new ct direction original ip dscp set 1
    ct state established ct direction original ip dscp set 2
    ct state established ct direction reply ip dscp set 3
    ct state related ct direction original ip dscp set 4
    ct state related ct direction reply ip dscp set 5
    ct state invalid ip dscp set 6
    ct state untracked ip dscp set 7
    ct state new ct direction original ip6 dscp set 1
    ct state established ct direction original ip6 dscp set 2
    ct state established ct direction reply ip6 dscp set 3
    ct state related ct direction original ip6 dscp set 4
    ct state related ct direction reply ip6 dscp set 5
    ct state invalid ip6 dscp set 6
    ct state untracked ip6 dscp set 7
  }
  chain hush {
    type filter hook output priority -500; policy drop;
  }
}
";

/// The helper rule for scenarios: see [`FTP_PORT`].
const NFT_HELPERS: &str = "
table inet oracle {
  ct helper ftp4 { type \"ftp\" protocol tcp; l3proto ip; }
  ct helper ftp6 { type \"ftp\" protocol tcp; l3proto ip6; }
  chain help {
    type filter hook prerouting priority -90; policy accept;
    meta nfproto ipv4 tcp dport 21 ct helper set \"ftp4\"
    meta nfproto ipv6 tcp dport 21 ct helper set \"ftp6\"
  }
}
";

/// The port whose connections get the FTP helper, in the kernel and in the engine.
pub const FTP_PORT: u16 = 21;

/// The interfaces. The kernel itself has no address that the traffic uses.
const IP_BATCH: &str = "
link set lo up
link set t0 mtu 65535
link set t1 mtu 65535
link set t0 up
link set t1 up
addr add 192.0.0.9/32 dev t0
addr add 192.0.0.10/32 dev t1
";

/// Routing of packets written into an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Routes {
    /// Clients (10.1.0.0/16, fd01::/64) behind t0, servers (10.2.0.0/16, fd02::/64) behind t1.
    TwoNetworks,
    /// Everything to t1, whatever its addresses: for captures, which are written into t0 in both directions.
    OneWay,
}

impl Routes {
    fn ip_batch(self) -> &'static str {
        match self {
            Routes::TwoNetworks => {
                "route add 10.1.0.0/16 dev t0\nroute add 10.2.0.0/16 dev t1\nroute add fd01::/64 dev t0\nroute add fd02::/64 dev t1\n"
            }
            Routes::OneWay => "route add 0.0.0.0/0 dev t1\nroute add ::/0 dev t1\n",
        }
    }
}

/// Sysctls of the network other than conntrack's.
const NET_SYSCTLS: &[(&str, &str)] = &[
    ("ipv4/ip_forward", "1"),
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/all/send_redirects", "0"),
    // The kernel counts the memory of fragments by its own buffers, so this limit cannot be compared.
    ("ipv4/ipfrag_high_thresh", "268435456"),
    ("netfilter/nf_conntrack_frag6_high_thresh", "268435456"),
    ("ipv4/conf/all/accept_source_route", "1"),
    ("ipv6/conf/all/forwarding", "1"),
];

/// Sysctls that must be set before the interfaces are up.
const SYSCTLS_BEFORE_LINKS: &[(&str, &str)] = &[
    ("ipv4/conf/default/rp_filter", "0"),
    ("ipv6/conf/default/accept_ra", "0"),
    ("ipv6/conf/default/router_solicitations", "0"),
    ("ipv6/conf/default/addr_gen_mode", "1"),
    ("ipv6/conf/default/accept_dad", "0"),
];

/// The namespace and its two interfaces.
pub struct KernelNetns {
    client_tun: File,
    server_tun: File,
    buffer: Vec<u8>,
}

impl KernelNetns {
    /// Moves this process into a new namespace, and sets it up.
    pub fn create(routes: Routes) -> Result<KernelNetns> {
        syscalls::unshare_net().context("cannot create a network namespace (unshare)")?;
        for (name, value) in SYSCTLS_BEFORE_LINKS {
            write_sysctl(name, value)?;
        }
        run_with_stdin("nft", &["-f", "-"], NFT_RULES)?;
        run_with_stdin("nft", &["-f", "-"], NFT_HELPERS)
            .context("the kernel has no FTP helper (modprobe nf_conntrack_ftp)")?;
        let clients = syscalls::open_tun("t0").context("cannot create TUN interface t0")?;
        let servers = syscalls::open_tun("t1").context("cannot create TUN interface t1")?;
        run_with_stdin("ip", &["-batch", "-"], &[IP_BATCH, routes.ip_batch()].concat())?;
        for (name, value) in NET_SYSCTLS {
            write_sysctl(name, value)?;
        }
        let mut kernel = KernelNetns { client_tun: clients, server_tun: servers, buffer: vec![0; 65536] };
        kernel.drain()?;
        Ok(kernel)
    }

    /// Sets `net.netfilter.NAME` in this namespace.
    pub fn set_sysctl(&self, name: &str, value: u64) -> Result<()> {
        write_sysctl(&format!("netfilter/{name}"), &value.to_string())
    }

    /// Discards all packets queued in the interfaces.
    fn drain(&mut self) -> Result<()> {
        for device in [&mut self.client_tun, &mut self.server_tun] {
            while read_packet(device, &mut self.buffer)?.is_some() {}
        }
        Ok(())
    }

    /// Sends one packet, identified by `ident`, and returns the result. The write runs through the whole kernel path, so the forwarded packet
    /// is there when it returns; if it is forwarded in fragments, the first has the verdict.
    pub fn forward_packet(&mut self, toward: Toward, packet: &[u8]) -> Result<ObservedVerdict> {
        let (into, out) = match toward {
            Toward::Server => (&mut self.client_tun, &mut self.server_tun),
            Toward::Client => (&mut self.server_tun, &mut self.client_tun),
        };
        match into.write(packet) {
            Ok(_) => {}
            // The TUN driver itself rejects what is not an IP packet.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => return Ok(ObservedVerdict::NotForwarded),
            Err(error) => return Err(error).context("cannot write to the TUN interface"),
        }
        let Some(length) = read_packet(out, &mut self.buffer)? else { return Ok(ObservedVerdict::NotForwarded) };
        let seen = &self.buffer[..length];
        ensure!(
            packet_ident(seen) == packet_ident(packet),
            "a packet came out that was not the one sent: {seen:02x?}, sent {packet:02x?}"
        );
        let mark = CtStateDscp::from_dscp(seen);
        if is_fragment(seen) {
            while read_packet(out, &mut self.buffer)?.is_some() {}
        }
        Ok(ObservedVerdict::Passed(mark.with_context(|| "a packet was forwarded without a mark")?))
    }
}

/// The next queued packet, if any.
fn read_packet(device: &mut File, buffer: &mut [u8]) -> Result<Option<usize>> {
    match device.read(buffer) {
        Ok(length) => Ok(Some(length)),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error).context("cannot read from the TUN interface"),
    }
}

/// The number that identifies a packet: see `IpHeaderSpec`.
fn packet_ident(packet: &[u8]) -> u32 {
    match packet.first().map(|byte| byte >> 4) {
        Some(4) => u32::from(packet[4]) << 8 | u32::from(packet[5]),
        Some(6) => u32::from(packet[1] & 15) << 16 | u32::from(packet[2]) << 8 | u32::from(packet[3]),
        _ => 0,
    }
}

fn is_fragment(packet: &[u8]) -> bool {
    match packet[0] >> 4 {
        4 => packet[6] & 0x3f != 0 || packet[7] != 0,
        _ => packet[6] == super::packet_builder::FRAGMENT,
    }
}

/// Writes `/proc/sys/net/NAME` of this namespace.
fn write_sysctl(name: &str, value: &str) -> Result<()> {
    fs::write(format!("/proc/sys/net/{name}"), value).with_context(|| format!("setting net/{name} to {value}"))
}

/// Runs a program with `text` on its standard input, in this namespace.
fn run_with_stdin(program: &str, arguments: &[&str], text: &str) -> Result<()> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("running {program}"))?;
    child.stdin.take().context("no standard input")?.write_all(text.trim_start().as_bytes())?;
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("{program}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}
