//! Why a packet was refused: one closed list.
//!
//! Each reason has a number (`as usize`, for an array of counters), a short name that does not change, and a sentence for
//! people. The numbers are positions in [`ParseError::ALL`]; only the names may be stored or sent.

macro_rules! parse_errors {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal, $action:ident, $text:literal;)+) => {
        /// The reason a packet, or a part of it, was refused before tracking could look at it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum ParseError { $($(#[doc = $doc])+ $variant,)+ }

        impl ParseError {
            /// What Linux does with such a packet.
            pub const fn linux_action(self) -> LinuxAction {
                match self { $(ParseError::$variant => LinuxAction::$action,)+ }
            }

            /// Every reason, each at the index that `as usize` gives it.
            pub const ALL: &'static [ParseError] = &[$(ParseError::$variant,)+];

            /// The short name: lower case, words joined by underscores; kept stable from release to release.
            pub const fn name(self) -> &'static str {
                match self { $(ParseError::$variant => $name,)+ }
            }

            /// One sentence that says what was wrong with the packet.
            pub const fn text(self) -> &'static str {
                match self { $(ParseError::$variant => $text,)+ }
            }
        }
    };
}

/// What Linux does with a packet that is refused here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinuxAction {
    /// It is gone before tracking sees it: the IP layer or reassembly keeps it. Neither a rule nor a counter of tracking
    /// ever knows of it. What cannot be known of a capture is counted here too.
    Dropped,
    /// Tracking sees it and finds it invalid; it goes on, to rules that may match that.
    Invalid,
    /// Reassembly of IPv6 will not have it and lets it go on as it is (of IPv4, it is dropped). Tracking sees what
    /// [`Packet::parse_reassembled`](crate::Packet::parse_reassembled) makes of the fragment itself.
    PassedUnassembled,
}

parse_errors! {
    /// Link: fewer octets than the link header takes.
    LinkTruncated = "link_truncated", Dropped, "The frame ends inside its link header.";
    /// Link: a capture whose link type is not read here.
    LinkUnknown = "link_unknown", Dropped, "The capture's link type is not one that can be read.";
    /// Link: more VLAN tags in a row than are followed.
    VlanTags = "link_tags", Dropped, "The frame carries more VLAN tags than are followed.";
    /// Link: the frame carries something else than IP (ARP, for one).
    NotIp = "not_ip", Dropped, "The frame does not carry IP.";
    /// Link: the frame says IPv4 or IPv6 and the datagram says the other.
    LinkFamily = "link_family", Dropped, "The frame announces one version of IP and carries the other.";

    /// No octets at all.
    Empty = "empty", Dropped, "There is no datagram: zero octets.";
    /// IP: the version field is neither 4 nor 6.
    Version = "version", Dropped, "The IP version is neither 4 nor 6.";
    /// IP: fewer octets than the fixed header.
    HeaderTruncated = "header_truncated", Dropped, "The datagram ends inside its IP header.";
    /// IPv4: the header length field is under five words.
    HeaderLength = "header_length", Dropped, "The IPv4 header length is under five words.";
    /// IPv4: the total length is less than the header's.
    TotalLength = "total_length", Dropped, "The IPv4 total length is less than the header length.";
    /// IP: the length field goes past the octets there are.
    Truncated = "truncated", Dropped, "The datagram is shorter than its length field says.";
    /// IPv4: the header checksum is wrong.
    HeaderChecksum = "header_checksum", Dropped, "The IPv4 header checksum is wrong.";
    /// IPv6: payload length zero with a hop-by-hop header, the mark of a jumbogram (RFC 2675).
    Jumbogram = "jumbogram", Dropped, "The datagram is an IPv6 jumbogram.";
    /// IPv6: an extension header reaches past the datagram.
    ExtensionTruncated = "extension_truncated", Invalid, "An IPv6 extension header ends past the datagram.";
    /// IPv6: the chain of headers ends in "no next header": there is nothing to track.
    NoNextHeader = "no_next_header", Invalid, "The datagram says that nothing follows its IPv6 headers.";
    /// A capture kept too little of the datagram to read its headers.
    NotCaptured = "not_captured", Dropped, "The capture kept too little of the packet to read its headers.";

    /// TCP: fewer than the twenty octets of the fixed header.
    TcpTruncated = "tcp_truncated", Invalid, "The datagram ends inside its TCP header.";
    /// TCP: the data offset is under five words.
    TcpOffsetSmall = "tcp_offset_small", Invalid, "The TCP data offset is under five words.";
    /// TCP: the data offset goes past the segment.
    TcpOffsetBeyond = "tcp_offset_beyond", Invalid, "The TCP data offset goes past the end of the segment.";
    /// UDP: fewer than eight octets.
    UdpTruncated = "udp_truncated", Invalid, "The datagram ends inside its UDP header.";
    /// UDP: the length field is under eight or past the datagram.
    UdpLength = "udp_length", Invalid, "The UDP length is under eight octets or goes past the datagram.";
    /// UDP-Lite: the coverage is from one to seven, or past the datagram.
    UdpLiteCoverage = "udplite_coverage", Invalid, "The UDP-Lite checksum coverage is under eight octets or goes past the datagram.";
    /// UDP-Lite: a checksum of zero, which RFC 3828 forbids.
    UdpLiteNoChecksum = "udplite_no_checksum", Invalid, "The UDP-Lite checksum is absent, and it must not be.";
    /// ICMP: fewer than eight octets.
    IcmpTruncated = "icmp_truncated", Invalid, "The datagram ends inside its ICMP header.";
    /// GRE: fewer octets than its flags ask for.
    GreTruncated = "gre_truncated", Invalid, "The datagram ends inside its GRE header.";
    /// GRE: a version above one.
    GreVersion = "gre_version", Invalid, "The GRE version is neither 0 nor 1.";
    /// GRE: version one with something else in it than PPP.
    GreProtocol = "gre_protocol", Invalid, "The datagram is enhanced GRE and does not carry PPP.";
    /// SCTP: fewer than the twelve octets of the common header.
    SctpTruncated = "sctp_truncated", Invalid, "The datagram ends inside its SCTP common header.";
    /// SCTP: a chunk shorter than its own header, or reaching past the packet.
    SctpChunk = "sctp_chunk", Invalid, "An SCTP chunk is shorter than its header or goes past the packet.";

    /// ICMP error: the quoted packet is too short to hold an IP header.
    InnerTruncated = "quote_truncated", Invalid, "The packet quoted by an ICMP error ends inside its IP header.";
    /// ICMP error: the quoted packet is a fragment other than the first, so it has no transport header.
    InnerFragment = "quote_fragment", Invalid, "The packet quoted by an ICMP error is a fragment without a transport header.";

    /// Reassembly: a piece before the last whose length is not a multiple of eight.
    FragmentLength = "fragment_length", PassedUnassembled, "A fragment before the last has a length that is not a multiple of eight.";
    /// Reassembly: a piece without any data.
    FragmentEmpty = "fragment_empty", Dropped, "A fragment carries no data.";
    /// Reassembly: the whole would be more than 65,535 octets.
    FragmentTooBig = "fragment_too_big", Dropped, "The fragments would make a datagram of more than 65,535 octets.";
    /// Reassembly: a piece overlaps another without being its copy; the whole queue goes.
    FragmentOverlap = "fragment_overlap", Dropped, "A fragment overlaps another of its datagram.";
    /// Reassembly: two ends, or data after the end.
    FragmentEnd = "fragment_end", Dropped, "A fragment contradicts where its datagram ends.";
    /// Reassembly: the copy of a piece already there.
    FragmentDuplicate = "fragment_duplicate", Dropped, "A fragment is the copy of one already there.";
    /// Reassembly: IPv6, the first piece does not hold all headers (RFC 8200, section 4.5).
    FragmentHeaders = "fragment_headers", PassedUnassembled, "The first fragment does not hold all headers up to the transport's.";
    /// Reassembly: pieces with and without congestion marking in one datagram (RFC 3168, section 5.3).
    FragmentEcn = "fragment_ecn", Dropped, "The fragments disagree on whether congestion is marked.";
    /// Reassembly: no memory left for more fragments.
    FragmentMemory = "fragment_memory", Dropped, "The memory for fragments is used up.";
    /// IPv6: a datagram that was put together is itself a fragment, and not the first.
    FragmentNested = "fragment_nested", Invalid, "The datagram put together from fragments is itself a fragment.";
}

impl core::fmt::Display for ParseError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.text())
    }
}

impl core::error::Error for ParseError {}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeSet;

    #[test]
    fn parse_error_names_are_unique_and_all_is_in_discriminant_order() {
        let names: BTreeSet<_> = ParseError::ALL.iter().map(|refusal| refusal.name()).collect();
        assert_eq!(names.len(), ParseError::ALL.len());
        for (place, refusal) in ParseError::ALL.iter().enumerate() {
            assert_eq!(*refusal as usize, place);
            let name = refusal.name();
            assert!(
                name.bytes().all(|octet| octet.is_ascii_lowercase() || octet == b'_') && name.len() <= 24,
                "{name}"
            );
            assert!(refusal.text().ends_with('.') && !refusal.text().contains('\n'), "{name}");
        }
    }
}
