//! The reasons why a packet cannot be parsed or reassembled.
//!
//! Each reason has a number (`as usize`, for an array of counters), a short name that does not change, and a sentence. The
//! numbers are positions in [`ParseError::ALL`] and may change with a release; only the names may be stored or sent.

macro_rules! parse_errors {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal, $action:ident, $text:literal;)+) => {
        /// The reason why a packet, or a part of it, cannot be parsed or reassembled.
        ///
        /// With the feature `serde` it is written as its [`name`](ParseError::name).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
        #[non_exhaustive]
        #[repr(u8)]
        pub enum ParseError { $($(#[doc = $doc])+ #[cfg_attr(feature = "serde", serde(rename = $name))] $variant,)+ }

        impl ParseError {
            /// What Linux does with such a packet.
            pub const fn linux_action(self) -> LinuxAction {
                match self { $(ParseError::$variant => LinuxAction::$action,)+ }
            }

            /// Every reason, each at the index that `as usize` gives it.
            pub const ALL: &'static [ParseError] = &[$(ParseError::$variant,)+];

            /// The short name: lower case, words joined by underscores, stable from release to release.
            pub const fn name(self) -> &'static str {
                match self { $(ParseError::$variant => $name,)+ }
            }

            /// One sentence that says what is wrong with the packet.
            pub const fn text(self) -> &'static str {
                match self { $(ParseError::$variant => $text,)+ }
            }
        }
    };
}

/// What Linux does with a packet that cannot be parsed or reassembled.
///
/// The list is closed: code that decides by it should not compile when it grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum LinuxAction {
    /// The IP layer or reassembly drops it before connection tracking: no rule and no conntrack counter sees it. Packets of
    /// which a capture has too little to tell count here too.
    Dropped,
    /// Connection tracking finds it invalid (`ct state invalid`); the rules decide.
    Invalid,
    /// IPv6 reassembly rejects it and lets the fragment go on as it is (IPv4 drops it). Connection tracking sees what
    /// [`Packet::parse_reassembled`](crate::Packet::parse_reassembled) makes of the fragment itself.
    PassedUnassembled,
}

parse_errors! {
    /// Link: shorter than the link header.
    LinkTruncated = "link_truncated", Dropped, "The frame ends inside its link header.";
    /// Link: a link type that is not supported.
    LinkUnknown = "link_unknown", Dropped, "The link type of the capture is not supported.";
    /// Link: more VLAN tags than are followed (4).
    VlanTags = "link_tags", Dropped, "The frame carries more VLAN tags than are followed (4).";
    /// Link: the frame does not carry IP (but ARP, for example).
    NotIp = "not_ip", Dropped, "The frame does not carry IP.";
    /// Link: the frame announces IPv4 and carries IPv6, or the reverse.
    LinkFamily = "link_family", Dropped, "The frame announces one IP version and carries the other.";

    /// IP: no bytes at all.
    Empty = "empty", Dropped, "The packet is empty.";
    /// IP: the version field is neither 4 nor 6.
    Version = "version", Dropped, "The IP version is neither 4 nor 6.";
    /// IP: shorter than the fixed header.
    HeaderTruncated = "header_truncated", Dropped, "The packet ends inside its IP header.";
    /// IPv4: the header length field is under five 32-bit words.
    HeaderLength = "header_length", Dropped, "The IPv4 header length is under 20 bytes.";
    /// IPv4: the total length is less than the header length.
    TotalLength = "total_length", Dropped, "The IPv4 total length is less than the header length.";
    /// IP: the length field goes past the end of the data.
    Truncated = "truncated", Dropped, "The packet is shorter than its length field says.";
    /// IPv4: the header checksum is wrong.
    HeaderChecksum = "header_checksum", Dropped, "The IPv4 header checksum is wrong.";
    /// IPv6: a jumbo payload option (RFC 2675): a jumbogram, or malformed.
    Jumbogram = "jumbogram", Dropped, "The packet is an IPv6 jumbogram.";
    /// IPv6: malformed hop-by-hop options, or one that must not be skipped (RFC 8200, section 4.2).
    HopByHopOptions = "hop_by_hop_options", Dropped, "The IPv6 hop-by-hop options are malformed or must not be skipped.";
    /// IPv6: an extension header ends past the end of the packet.
    ExtensionTruncated = "extension_truncated", Invalid, "An IPv6 extension header goes past the end of the packet.";
    /// IPv6: the header chain ends in "no next header" (59): there is nothing to track.
    NoNextHeader = "no_next_header", Invalid, "The IPv6 header chain ends in \"no next header\".";
    /// Capture: too little of the packet was captured to read its headers.
    NotCaptured = "not_captured", Dropped, "Too little of the packet was captured to read its headers.";

    /// TCP: shorter than the fixed header (20 bytes).
    TcpTruncated = "tcp_truncated", Invalid, "The packet ends inside its TCP header.";
    /// TCP: the data offset is under five 32-bit words.
    TcpOffsetSmall = "tcp_offset_small", Invalid, "The TCP data offset is under 20 bytes.";
    /// TCP: the data offset goes past the end of the segment.
    TcpOffsetBeyond = "tcp_offset_beyond", Invalid, "The TCP data offset goes past the end of the segment.";
    /// UDP: shorter than the header (8 bytes).
    UdpTruncated = "udp_truncated", Invalid, "The packet ends inside its UDP header.";
    /// UDP: the length field is under 8, or goes past the end of the packet.
    UdpLength = "udp_length", Invalid, "The UDP length is under 8 bytes or goes past the end of the packet.";
    /// UDP-Lite: the coverage is 1 to 7, or goes past the end of the packet.
    UdpLiteCoverage = "udplite_coverage", Invalid, "The UDP-Lite checksum coverage is under 8 bytes or goes past the end of the packet.";
    /// UDP-Lite: a checksum of zero, which RFC 3828 forbids.
    UdpLiteNoChecksum = "udplite_no_checksum", Invalid, "The UDP-Lite checksum is missing, but it is mandatory.";
    /// ICMP: shorter than the header (8 bytes).
    IcmpTruncated = "icmp_truncated", Invalid, "The packet ends inside its ICMP header.";
    /// GRE: shorter than its flags require.
    GreTruncated = "gre_truncated", Invalid, "The packet ends inside its GRE header.";
    /// GRE: a version above one.
    GreVersion = "gre_version", Invalid, "The GRE version is neither 0 nor 1.";
    /// GRE: version 1 that does not carry PPP.
    GreProtocol = "gre_protocol", Invalid, "The packet is enhanced GRE (version 1) and does not carry PPP.";
    /// SCTP: shorter than the common header (12 bytes).
    SctpTruncated = "sctp_truncated", Invalid, "The packet ends inside its SCTP common header.";
    /// SCTP: a chunk is shorter than its header, or goes past the end of the packet.
    SctpChunk = "sctp_chunk", Invalid, "An SCTP chunk is shorter than its header or goes past the end of the packet.";

    /// ICMP error: the inner packet is too short to hold an IP header.
    InnerTruncated = "quote_truncated", Invalid, "The packet inside an ICMP error ends inside its IP header.";
    /// ICMP error: the inner packet is a fragment other than the first, without a transport header.
    InnerFragment = "quote_fragment", Invalid, "The packet inside an ICMP error is a fragment without a transport header.";

    /// Reassembly: a fragment before the last has a length that is not a multiple of 8.
    FragmentLength = "fragment_length", PassedUnassembled, "A fragment before the last has a length that is not a multiple of 8.";
    /// Reassembly: a fragment without data.
    FragmentEmpty = "fragment_empty", Dropped, "A fragment carries no data.";
    /// Reassembly: the reassembled packet would be longer than 65,535 bytes.
    FragmentTooBig = "fragment_too_big", Dropped, "The reassembled packet would be longer than 65,535 bytes.";
    /// Reassembly: a fragment overlaps another and is no duplicate; the whole queue is dropped.
    FragmentOverlap = "fragment_overlap", Dropped, "A fragment overlaps another one of the same packet.";
    /// Reassembly: two different ends, or data after the end.
    FragmentEnd = "fragment_end", Dropped, "Two fragments disagree on where the packet ends.";
    /// Reassembly: a duplicate of data already received.
    FragmentDuplicate = "fragment_duplicate", Dropped, "A fragment is a duplicate of data already received.";
    /// Reassembly, IPv6: the first fragment does not hold all headers (RFC 8200, section 4.5).
    FragmentHeaders = "fragment_headers", PassedUnassembled, "The first fragment does not hold all headers up to the transport header.";
    /// Reassembly: ECN-capable and other fragments in one packet (RFC 3168, section 5.3).
    FragmentEcn = "fragment_ecn", Dropped, "The fragments disagree on ECN.";
    /// Reassembly: the memory limit for fragments is reached.
    FragmentMemory = "fragment_memory", Dropped, "The memory limit for fragments is reached.";
    /// IPv6: a reassembled packet is itself a fragment, and not the first.
    FragmentNested = "fragment_nested", Invalid, "The reassembled packet is itself a fragment.";
}

impl ParseError {
    /// Whether bytes are missing: of a packet that was captured in part this says nothing ([`ParseError::NotCaptured`]).
    pub const fn is_truncation(self) -> bool {
        matches!(
            self,
            ParseError::LinkTruncated
                | ParseError::Empty
                | ParseError::HeaderTruncated
                | ParseError::Truncated
                | ParseError::ExtensionTruncated
                | ParseError::NotCaptured
                | ParseError::TcpTruncated
                | ParseError::UdpTruncated
                | ParseError::IcmpTruncated
                | ParseError::GreTruncated
                | ParseError::SctpTruncated
                | ParseError::SctpChunk
                | ParseError::InnerTruncated
        )
    }
}

impl core::fmt::Display for LinuxAction {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.pad(match self {
            LinuxAction::Dropped => "dropped",
            LinuxAction::Invalid => "invalid",
            LinuxAction::PassedUnassembled => "passed unassembled",
        })
    }
}

impl core::fmt::Display for ParseError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.pad(self.text())
    }
}

impl core::error::Error for ParseError {}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeSet;

    #[test]
    fn parse_error_names_are_unique_and_all_is_in_discriminant_order() {
        let names: BTreeSet<_> = ParseError::ALL.iter().map(|error| error.name()).collect();
        assert_eq!(names.len(), ParseError::ALL.len());
        for (index, error) in ParseError::ALL.iter().enumerate() {
            assert_eq!(*error as usize, index);
            let name = error.name();
            assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_') && name.len() <= 24, "{name}");
            assert!(error.text().ends_with('.') && !error.text().contains('\n'), "{name}");
        }
    }
}
