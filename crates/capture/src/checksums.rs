//! Which checksums of a capture are believed.
//!
//! A machine that captures its own packets sees them before its network card has filled in their checksums, and tools that change
//! addresses leave the checksums of before. A [`ChecksumPolicy`] lives as long as its tracker and parses each packet:
//!
//! - `verify`: each checksum is verified, as a router does that received the packets.
//! - `trust`: none is.
//! - `auto`: what the card was to fill in is trusted (a TCP or UDP checksum that is the sum of the pseudo-header, an IPv4 header checksum
//!   of zero, a length of zero), as Linux trusts it. Any other wrong checksum is trusted if most checksums of its sender are wrong, or
//!   most of the whole capture, and at least two. A [sample](ChecksumPolicy::sample_frame) of the capture, taken before, decides; a sender
//!   that is not in the sample is judged by what it has sent so far.
//!
//! Where the kernel says what it knows of a checksum ([`FrameChecksum`]), that counts instead. The policy must never change a packet.
use crate::frame::{Frame, FrameChecksum};
use keepstate_types::ipproto;
use keepstate_wire::link::LinkPayload;
use keepstate_wire::{Addresses, Family, Packet, ParseError};
use std::collections::HashMap;
use std::net::IpAddr;

/// See the module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ChecksumTrust {
    /// Verify every checksum.
    Verify,
    /// Verify none.
    Trust,
    /// Trust what the network card was to fill in, and senders of which most checksums are wrong.
    #[default]
    Auto,
}

/// How many checksums were trusted although they are not right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrustedChecksums {
    /// Packets with a field that the network card was to fill in.
    pub left_open: u64,
    /// Packets with another wrong checksum, of senders of which most are wrong.
    pub wrong: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub struct ChecksumPolicy {
    mode: ChecksumTrust,
    senders: HashMap<IpAddr, SenderChecksums>,
    capture: SenderChecksums,
    trusted: TrustedChecksums,
}

/// The senders that are remembered at most; later ones are judged by the whole capture.
const MAX_SENDERS: usize = 1 << 20;

/// What is known of the checksums of one sender.
#[derive(Clone, Copy, Debug, Default)]
struct SenderChecksums {
    /// Of the IPv4 header, and of the transport header.
    counts: [WrongCount; 2],
    /// It is in the sample: what it sends later does not count.
    sampled: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct WrongCount {
    checked: u64,
    wrong: u64,
}

impl WrongCount {
    fn add(&mut self, is_right: bool) {
        self.checked += 1;
        self.wrong += u64::from(!is_right);
    }

    const fn is_mostly_wrong(self) -> bool {
        self.wrong >= 2 && self.wrong * 2 > self.checked
    }
}

/// Which of a packet's checksums: an index of [`SenderChecksums::counts`].
#[derive(Clone, Copy)]
enum Layer {
    Header,
    Transport,
}

impl ChecksumPolicy {
    /// A policy without a sample.
    pub fn new(mode: ChecksumTrust) -> ChecksumPolicy {
        ChecksumPolicy { mode, ..ChecksumPolicy::default() }
    }

    /// Does it want a sample of the capture?
    pub fn wants_sample(&self) -> bool {
        self.mode == ChecksumTrust::Auto
    }

    /// The checksums trusted so far although they are not right.
    pub fn trusted(&self) -> TrustedChecksums {
        self.trusted
    }

    /// The mode it was made with.
    pub fn mode(&self) -> ChecksumTrust {
        self.mode
    }

    /// Counts the checksums of a frame of the capture, before the frames are tracked.
    pub fn sample_frame(&mut self, frame: &Frame<'_>) {
        let Ok(network) = keepstate_wire::link::strip_link_header(frame.link, frame.data) else { return };
        let wire_len = frame.wire_len.saturating_sub(network.offset);
        let header = Packet::parse_snapped(network.packet, wire_len);
        let wrong_header = matches!(header, Err(ParseError::HeaderChecksum));
        let Ok(packet) = Packet::parse_unfinished(network.packet, wire_len) else { return };
        let sender = packet.addresses().source();
        if packet.family() == Family::V4 && !is_header_checksum_open(network.packet) {
            self.count(sender, Layer::Header, !wrong_header, true);
        }
        if has_transport_checksum(&packet) && !packet.has_partial_checksum() {
            self.count(sender, Layer::Transport, is_transport_right(&packet), true);
        }
    }

    /// Parses the packet of a frame of `wire_len` bytes from the IP header on. A packet whose transport checksum is trusted is marked so.
    ///
    /// # Errors
    /// As [`Packet::parse_snapped`], less the checksums that are trusted.
    pub fn parse<'a>(
        &mut self,
        bytes: &'a [u8],
        wire_len: usize,
        told: FrameChecksum,
    ) -> Result<Packet<'a>, ParseError> {
        let packet = self.parse_header(bytes, wire_len)?;
        Ok(if packet.fragment().is_none() { self.check_transport(packet, told) } else { packet })
    }

    fn parse_header<'a>(&mut self, bytes: &'a [u8], wire_len: usize) -> Result<Packet<'a>, ParseError> {
        match (self.mode, Packet::parse_snapped(bytes, wire_len)) {
            (ChecksumTrust::Verify, parsed) => parsed,
            // TCP without a byte: a segment whose length was left open.
            (_, Ok(packet)) if packet.protocol() == ipproto::TCP && packet.transport_len() == 0 => {
                Ok(Packet::parse_unfinished(bytes, wire_len).unwrap_or(packet))
            }
            (ChecksumTrust::Auto, Ok(packet)) => {
                if packet.family() == Family::V4 {
                    self.count_later(&packet, Layer::Header, true);
                }
                Ok(packet)
            }
            (_, Err(ParseError::HeaderChecksum | ParseError::TotalLength)) => self.trust_header(bytes, wire_len),
            (_, parsed) => parsed,
        }
    }

    #[cold]
    fn trust_header<'a>(&mut self, bytes: &'a [u8], wire_len: usize) -> Result<Packet<'a>, ParseError> {
        let packet = Packet::parse_unfinished(bytes, wire_len)?;
        if is_header_checksum_open(bytes) {
            self.trusted.left_open += 1;
            return Ok(packet);
        }
        // The length was left open, and the checksum was not.
        if Packet::parse_snapped(bytes, wire_len) == Err(ParseError::TotalLength) || self.mode == ChecksumTrust::Trust {
            return Ok(packet);
        }
        self.count_later(&packet, Layer::Header, false);
        if !self.is_trusted(&packet, Layer::Header) {
            return Err(ParseError::HeaderChecksum);
        }
        self.trusted.wrong += 1;
        Ok(packet)
    }

    /// Marks a complete packet as one whose transport checksum need not be verified, if it is right or trusted.
    pub fn check_transport<'a>(&mut self, packet: Packet<'a>, told: FrameChecksum) -> Packet<'a> {
        match (self.mode, told) {
            (ChecksumTrust::Verify, _) | (ChecksumTrust::Auto, FrameChecksum::Unverified) => packet,
            (ChecksumTrust::Trust, _) | (ChecksumTrust::Auto, FrameChecksum::Unnecessary) => {
                packet.checksum_unnecessary()
            }
            (ChecksumTrust::Auto, FrameChecksum::Unknown) => {
                let is_right = is_transport_right(&packet);
                if !is_right && packet.has_partial_checksum() {
                    self.trusted.left_open += 1;
                    return packet.checksum_unnecessary();
                }
                if has_transport_checksum(&packet) {
                    self.count_later(&packet, Layer::Transport, is_right);
                }
                if is_right {
                    return packet.checksum_unnecessary();
                }
                if !self.is_trusted(&packet, Layer::Transport) {
                    return packet;
                }
                self.trusted.wrong += 1;
                packet.checksum_unnecessary()
            }
        }
    }

    /// Counts a checksum met while tracking, unless the sample has decided about its sender.
    fn count_later(&mut self, packet: &Packet<'_>, layer: Layer, is_right: bool) {
        if !self.capture.sampled || !is_right {
            self.count(packet.addresses().source(), layer, is_right, false);
        }
    }

    fn count(&mut self, sender: IpAddr, layer: Layer, is_right: bool, sampled: bool) {
        if sampled || !self.capture.sampled {
            self.capture.sampled |= sampled;
            self.capture.counts[layer as usize].add(is_right);
        }
        let room = self.senders.len() < MAX_SENDERS;
        let known = match self.senders.get_mut(&sender) {
            None if room => self.senders.entry(sender).or_default(),
            None => return,
            Some(known) => known,
        };
        if sampled || !known.sampled {
            known.sampled |= sampled;
            known.counts[layer as usize].add(is_right);
        }
    }

    fn is_trusted(&self, packet: &Packet<'_>, layer: Layer) -> bool {
        let sender = self.senders.get(&packet.addresses().source());
        let mostly_wrong = |known: &SenderChecksums| known.counts[layer as usize].is_mostly_wrong();
        sender.is_some_and(mostly_wrong) || mostly_wrong(&self.capture)
    }
}

/// Is the checksum field of this IPv4 header zero, as a network card gets it that is to fill it in?
fn is_header_checksum_open(bytes: &[u8]) -> bool {
    bytes.first().is_some_and(|first| first >> 4 == 4) && bytes.get(10..12) == Some(&[0, 0])
}

/// Is there a transport checksum that can be verified?
fn has_transport_checksum(packet: &Packet<'_>) -> bool {
    let of_family = match packet.protocol() {
        ipproto::TCP | ipproto::UDP | ipproto::UDPLITE | ipproto::SCTP => true,
        ipproto::ICMP => matches!(packet.addresses(), Addresses::V4 { .. }),
        ipproto::ICMPV6 => matches!(packet.addresses(), Addresses::V6 { .. }),
        _ => false,
    };
    of_family && !packet.is_snapped() && packet.fragment().is_none()
}

fn is_transport_right(packet: &Packet<'_>) -> bool {
    match packet.protocol() {
        ipproto::UDPLITE => packet.udp_lite_checksum_ok_as_udp(),
        _ => packet.transport_checksum_ok(),
    }
}

/// The error of a frame whose packet was captured in part: missing bytes are the capture's fault.
pub(crate) fn blame_capture(frame: &Frame<'_>, error: ParseError) -> ParseError {
    let cut = frame.wire_len > frame.data.len() && error.is_truncation();
    if cut { ParseError::NotCaptured } else { error }
}

/// The packet in a frame, and its length on the wire.
pub(crate) fn network_part<'a>(frame: &Frame<'a>) -> Result<(LinkPayload<'a>, usize), ParseError> {
    let network =
        keepstate_wire::link::strip_link_header(frame.link, frame.data).map_err(|error| blame_capture(frame, error))?;
    Ok((network, frame.wire_len.saturating_sub(network.offset)))
}
