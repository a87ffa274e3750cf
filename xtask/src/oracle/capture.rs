//! A capture as a scenario: the packets of its frames, changed so that they can be forwarded, without pauses.
//!
//! Loopback, link-local, multicast and broadcast addresses, which a router does not forward, get stand-ins (`capture_rewrite`); frames without IP are
//! left out. Hop limits and traffic classes are overwritten, since the hop limit must not run out and the traffic class carries the result.
use super::capture_rewrite::{self, AddressMap};
use super::kernel::Toward;
use super::scenario::OracleScenario;
use super::step::OracleStep;
use anyhow::{Context, Result, bail};
use keepstate_wire::link::{self, LinkType};
use pcap_parser::traits::PcapNGPacketBlock;
use pcap_parser::{Block, PcapBlockOwned, PcapError, create_reader};
use std::fs::File;
use std::path::Path;

/// Bytes of a capture read at a time: more than any frame.
const READ_BUFFER: usize = 1 << 20;

/// Reads a pcap or pcapng file. Checksums are verified by both sides: wrong ones are as wrong as in the capture, those left to the card are filled in.
pub fn read_capture(path: &Path) -> Result<OracleScenario> {
    let file = File::open(path).with_context(|| path.display().to_string())?;
    let mut reader =
        create_reader(READ_BUFFER, file).ok().context("neither pcap nor pcapng (a compressed one: unpack it first)")?;
    let mut scenario = OracleScenario { slow: true, ..OracleScenario::default() };
    let mut links = Vec::new();
    let mut map = AddressMap::default();
    loop {
        match reader.next() {
            Ok((used, block)) => {
                match &block {
                    PcapBlockOwned::LegacyHeader(header) => links.push(header.network.0),
                    PcapBlockOwned::Legacy(frame) => push_frame(&mut scenario, &mut map, links.first(), frame.data),
                    PcapBlockOwned::NG(Block::InterfaceDescription(interface)) => links.push(interface.linktype.0),
                    PcapBlockOwned::NG(Block::EnhancedPacket(frame)) => {
                        let link = usize::try_from(frame.if_id).ok().and_then(|at| links.get(at));
                        push_frame(&mut scenario, &mut map, link, frame.packet_data());
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

fn push_frame(scenario: &mut OracleScenario, map: &mut AddressMap, link: Option<&i32>, frame: &[u8]) {
    let link = link.and_then(|link| u32::try_from(*link).ok()).map(LinkType);
    let network = link.and_then(|link| link::strip_link_header(link, frame).ok());
    scenario.steps.extend(
        network
            .and_then(|network| forwardable(network.packet, map))
            .map(|bytes| OracleStep::from_packet(Toward::Server, bytes)),
    );
}

/// The packet without padding, changed so that it can cross a router.
fn forwardable(packet: &[u8], map: &mut AddressMap) -> Option<Vec<u8>> {
    let word = |at: usize| packet.get(at..at + 2).map(|pair| usize::from(pair[0]) << 8 | usize::from(pair[1]));
    let length = if packet.first()? >> 4 == 4 { word(2)? } else { word(4)? + 40 };
    capture_rewrite::rewrite(packet.get(..length)?, map)
}
