//! A capture as a scenario: the packets of its frames, changed so that they can be forwarded, without pauses.
//!
//! Packets that a router does not forward are left out: loopback, link-local, multicast and broadcast addresses, and frames without IP. Hop limits and
//! traffic classes are overwritten, since the hop limit must not run out and the traffic class carries the result.
use super::kernel::Toward;
use super::packet_builder;
use super::scenario::OracleScenario;
use super::step::{OracleStep, RawPacketView};
use anyhow::{Context, Result, bail};
use keepstate_engine::Sysctl;
use keepstate_wire::link::{self, LinkType};
use pcap_parser::traits::PcapNGPacketBlock;
use pcap_parser::{Block, PcapBlockOwned, PcapError, create_reader};
use std::fs::File;
use std::net::IpAddr;
use std::path::Path;

/// Bytes of a capture read at a time: more than any frame.
const READ_BUFFER: usize = 1 << 20;

/// Reads a pcap or pcapng file. Checksums are not verified: captures on virtual interfaces have incomplete ones.
pub fn read_capture(path: &Path) -> Result<OracleScenario> {
    let file = File::open(path).with_context(|| path.display().to_string())?;
    let mut reader =
        create_reader(READ_BUFFER, file).ok().context("neither pcap nor pcapng (a compressed one: unpack it first)")?;
    let mut scenario = OracleScenario { sysctls: vec![(Sysctl::Checksum, 0)], slow: true, ..OracleScenario::default() };
    let mut links = Vec::new();
    loop {
        match reader.next() {
            Ok((used, block)) => {
                match &block {
                    PcapBlockOwned::LegacyHeader(header) => links.push(header.network.0),
                    PcapBlockOwned::Legacy(frame) => push_frame(&mut scenario, links.first(), frame.data),
                    PcapBlockOwned::NG(Block::InterfaceDescription(interface)) => links.push(interface.linktype.0),
                    PcapBlockOwned::NG(Block::EnhancedPacket(frame)) => {
                        let link = usize::try_from(frame.if_id).ok().and_then(|at| links.get(at));
                        push_frame(&mut scenario, link, frame.packet_data());
                    }
                    PcapBlockOwned::NG(_) => {}
                }
                reader.consume(used);
            }
            Err(PcapError::Eof) => return Ok(scenario),
            Err(PcapError::Incomplete(_)) => {
                reader.refill().ok().context("the capture ends in the middle of a frame")?
            }
            Err(error) => bail!("{}: {error:?}", path.display()),
        }
    }
}

fn push_frame(scenario: &mut OracleScenario, link: Option<&i32>, frame: &[u8]) {
    let link = link.and_then(|link| u32::try_from(*link).ok()).map(LinkType);
    let network = link.and_then(|link| link::strip_link_header(link, frame).ok());
    scenario.steps.extend(
        network
            .and_then(|network| forwardable(network.packet))
            .map(|bytes| OracleStep::from_packet(Toward::Server, bytes)),
    );
}

/// The packet without padding, changed so that it can cross a router.
fn forwardable(packet: &[u8]) -> Option<Vec<u8>> {
    let word = |at: usize| packet.get(at..at + 2).map(|pair| usize::from(pair[0]) << 8 | usize::from(pair[1]));
    let v4 = packet.first()? >> 4 == 4;
    let length = if v4 { word(2)? } else { word(4)? + 40 };
    let mut bytes = packet.get(..length)?.to_vec();
    let view = RawPacketView::parse(&bytes)?;
    if !is_forwardable_address(view.source) || !is_forwardable_address(view.destination) {
        return None;
    }
    if v4 {
        (bytes[1], bytes[8]) = (0, 64);
        packet_builder::update_header_checksum(&mut bytes);
    } else {
        (bytes[0], bytes[1], bytes[7]) = (0x60, bytes[1] & 15, 64);
    }
    Some(bytes)
}

fn is_forwardable_address(address: IpAddr) -> bool {
    let local = match address {
        IpAddr::V4(address) => address.is_broadcast() || address.is_link_local() || address.octets()[0] == 0,
        IpAddr::V6(address) => address.segments()[0] & 0xffc0 == 0xfe80,
    };
    !local && !address.is_loopback() && !address.is_multicast() && !address.is_unspecified()
}
