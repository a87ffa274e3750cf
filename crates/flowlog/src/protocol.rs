//! Names of transport protocols, as `conntrack` prints them.

const NAMES: [(&str, u8); 9] = [
    ("tcp", 6),
    ("udp", 17),
    ("icmp", 1),
    ("icmpv6", 58),
    ("sctp", 132),
    ("dccp", 33),
    ("gre", 47),
    ("udplite", 136),
    ("esp", 50),
];

/// The name of a protocol; `None` for one that has a number only.
pub fn protocol_name(number: u8) -> Option<&'static str> {
    NAMES.iter().find(|(_, known)| *known == number).map(|(name, _)| *name)
}

/// The number of a protocol, from its name or from digits.
pub fn protocol_number(text: &str) -> Option<u8> {
    let named = NAMES.iter().find(|(name, _)| *name == text).map(|(_, number)| *number);
    named.or_else(|| text.parse().ok())
}
