//! A recorded capture as a story: the datagrams of its frames, made fit to be forwarded, without their pauses.
//!
//! Left out is what a router does not forward: loopback, link-local, multicast and broadcast addresses, and frames that carry no IP. Hop limits and
//! traffic classes are overwritten, since the first must not run out and the second carries the answer.
use super::craft;
use super::kernel::Toward;
use super::step::{Step, View};
use super::story::Story;
use anyhow::{Context, Result, bail};
use keepstate_engine::Knob;
use keepstate_wire::link::{self, LinkType};
use pcap_parser::traits::PcapNGPacketBlock;
use pcap_parser::{Block, PcapBlockOwned, PcapError, create_reader};
use std::fs::File;
use std::net::IpAddr;
use std::path::Path;

/// Octets of a capture that are read at a time: more than any frame.
const WINDOW: usize = 1 << 20;

/// Reads a pcap or pcapng file. Checksums are not judged: captures of virtual devices have them unfinished.
pub fn read(path: &Path) -> Result<Story> {
    let file = File::open(path).with_context(|| path.display().to_string())?;
    let mut reader =
        create_reader(WINDOW, file).ok().context("neither pcap nor pcapng (a compressed one: unpack it first)")?;
    let mut story = Story { knobs: vec![(Knob::Checksum, 0)], slow: true, ..Story::default() };
    let mut links = Vec::new();
    loop {
        match reader.next() {
            Ok((used, block)) => {
                match &block {
                    PcapBlockOwned::LegacyHeader(header) => links.push(header.network.0),
                    PcapBlockOwned::Legacy(frame) => push(&mut story, links.first(), frame.data),
                    PcapBlockOwned::NG(Block::InterfaceDescription(interface)) => links.push(interface.linktype.0),
                    PcapBlockOwned::NG(Block::EnhancedPacket(frame)) => {
                        let link = usize::try_from(frame.if_id).ok().and_then(|at| links.get(at));
                        push(&mut story, link, frame.packet_data());
                    }
                    PcapBlockOwned::NG(_) => {}
                }
                reader.consume(used);
            }
            Err(PcapError::Eof) => return Ok(story),
            Err(PcapError::Incomplete(_)) => {
                reader.refill().ok().context("the capture ends in the middle of a frame")?
            }
            Err(error) => bail!("{}: {error:?}", path.display()),
        }
    }
}

fn push(story: &mut Story, link: Option<&i32>, frame: &[u8]) {
    let link = link.and_then(|link| u32::try_from(*link).ok()).map(LinkType);
    let network = link.and_then(|link| link::datagram(link, frame).ok());
    story.steps.extend(
        network.and_then(|network| forwardable(network.datagram)).map(|bytes| Step::whole(Toward::Server, bytes)),
    );
}

/// The datagram without padding, ready to cross a router.
fn forwardable(datagram: &[u8]) -> Option<Vec<u8>> {
    let word = |at: usize| datagram.get(at..at + 2).map(|pair| usize::from(pair[0]) << 8 | usize::from(pair[1]));
    let v4 = datagram.first()? >> 4 == 4;
    let length = if v4 { word(2)? } else { word(4)? + 40 };
    let mut bytes = datagram.get(..length)?.to_vec();
    let view = View::read(&bytes)?;
    if !crosses(view.source) || !crosses(view.destination) {
        return None;
    }
    if v4 {
        (bytes[1], bytes[8]) = (0, 64);
        craft::seal(&mut bytes);
    } else {
        (bytes[0], bytes[1], bytes[7]) = (0x60, bytes[1] & 15, 64);
    }
    Some(bytes)
}

fn crosses(address: IpAddr) -> bool {
    let local = match address {
        IpAddr::V4(address) => address.is_broadcast() || address.is_link_local() || address.octets()[0] == 0,
        IpAddr::V6(address) => address.segments()[0] & 0xffc0 == 0xfe80,
    };
    !local && !address.is_loopback() && !address.is_multicast() && !address.is_unspecified()
}
