//! A capture through the router, on the clock of its timestamps: a test of a ruleset without a network.
use anyhow::{Context, Result};
use keepstate_capture::{Capture, Frame};
use keepstate_engine::Instant;
use keepstate_gateway::clock::{SystemTimeSource, TimeSource};
use keepstate_gateway::static_fib::InterfaceConfig;
use keepstate_router::{Egress, Router, WallClock};
use keepstate_rules::Fib;
use keepstate_wire::{Addresses, Packet, link};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::net::IpAddr;
use std::path::Path;

/// The pcap link type of raw IP.
const LINKTYPE_RAW: u32 = 101;

/// Routes the packets of `input` and writes what leaves to `output`; with `each`, prints a line for each packet.
pub(super) fn route_capture(
    mut router: Router,
    interfaces: &[InterfaceConfig],
    input: &Path,
    output: &Path,
    each: bool,
) -> Result<()> {
    let mut capture = Capture::open(input)?;
    let file = File::create(output).with_context(|| format!("cannot write {}", output.display()))?;
    let mut written = PcapWriter::new(BufWriter::new(file)).with_context(|| format!("{}", output.display()))?;
    let mut lines = BufWriter::new(std::io::stdout().lock());
    let mut number = 0_u64;
    let mut last = 0;
    let read = capture.for_each_frame(|frame: Frame<'_>| {
        number += 1;
        let Ok(network) = link::strip_link_header(frame.link, frame.data) else { return Ok(true) };
        // Time never goes back, though the timestamps of a capture of several cores may.
        last = frame.time.unwrap_or(last).max(last);
        let now = Instant(last);
        let ifindex = ingress_interface(&router, network.packet);
        // A capture's clock is the wall clock.
        let local_offset = SystemTimeSource.timezone_offset(now.to_unix(0));
        router.set_wall_clock(WallClock { utc_offset: 0, local_offset });
        router.poll(now);
        let result = router.handle(network.packet, ifindex, now);
        let out: Vec<Egress> = std::iter::from_fn(|| router.poll_output()).collect();
        if each {
            let name = |index: u32| interfaces.get(index as usize - 1).map_or("?", |interface| interface.name.as_str());
            let verdict = match (&result, out.first()) {
                (Err(reason), _) => reason.to_string(),
                (Ok(()), Some(Egress::Forward { oif, .. })) => format!("to {}", name(*oif)),
                (Ok(()), _) => "to the host".to_owned(),
            };
            writeln!(lines, "{number} from {} {verdict}", name(ifindex))?;
        }
        for egress in &out {
            if let Egress::Forward { packet, .. } = egress {
                written.write_packet(last, packet)?;
            }
        }
        while let Some(line) = router.poll_log() {
            writeln!(lines, "{line}")?;
        }
        Ok(true)
    });
    written.out.flush().with_context(|| format!("cannot write {}", output.display()))?;
    lines.flush()?;
    let counters = *router.counters();
    tracing::info!(
        "rx {} forwarded {} local {} dropped {} generated {} connections {}",
        counters.received,
        counters.forwarded,
        counters.delivered,
        counters.dropped,
        counters.generated,
        router.engine().count()
    );
    read
}

/// The interface that leads to a packet's source: where it must have come in. The first one, if none does.
fn ingress_interface(router: &Router, bytes: &[u8]) -> u32 {
    let source = Packet::parse(bytes).ok().map(|packet| match packet.addresses() {
        Addresses::V4 { source, .. } => IpAddr::from(source),
        Addresses::V6 { source, .. } => IpAddr::from(source),
    });
    source.and_then(|source| router.fib().route_lookup(source, None)).map_or(1, |interface| interface.index)
}

/// Writes a pcap file with nanoseconds.
struct PcapWriter<W: Write> {
    out: W,
}

impl<W: Write> PcapWriter<W> {
    fn new(mut out: W) -> std::io::Result<PcapWriter<W>> {
        out.write_all(&0xa1b2_3c4d_u32.to_le_bytes())?;
        out.write_all(&[2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0])?;
        out.write_all(&65_535_u32.to_le_bytes())?;
        out.write_all(&LINKTYPE_RAW.to_le_bytes())?;
        Ok(PcapWriter { out })
    }

    fn write_packet(&mut self, time: u64, bytes: &[u8]) -> std::io::Result<()> {
        // The format counts seconds to 2106; a packet has at most 65,535 bytes.
        let seconds = u32::try_from(time / 1_000_000_000).unwrap_or(u32::MAX);
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        for word in [seconds, (time % 1_000_000_000) as u32, length, length] {
            self.out.write_all(&word.to_le_bytes())?;
        }
        self.out.write_all(bytes)
    }
}
