//! What of the language is not supported: why, and what to write instead.

/// Statements that are not supported: why, and a hint.
pub(super) const UNSUPPORTED_STATEMENTS: [(&str, &str, &str); 4] = [
    (
        "tproxy",
        "there are no sockets to give a packet to",
        "use redirect; the proxy can ask for the original destination (SO_ORIGINAL_DST)",
    ),
    ("fwd", "it belongs to the ingress of a device in a table of family netdev", "use a route, or `dup to`"),
    ("tc", "classes are those of the kernel's queueing disciplines", "use `meta priority set`, or tc in the kernel"),
    (
        "xt",
        "extensions of iptables are the kernel's modules",
        "translate the iptables rule with iptables-translate, and load what it prints",
    ),
];

/// Selectors that are not supported, with a hint.
pub(super) const UNSUPPORTED_SELECTORS: [(&str, &str, &str); 9] = [
    ("arp", "ARP is the kernel's", "use a table of family arp there"),
    ("vxlan", INNER_REASON, "match the VXLAN interface: iifname \"vxlan0\""),
    ("geneve", INNER_REASON, "match the Geneve interface: iifname \"geneve0\""),
    ("gre", INNER_REASON, "match the tunnel interface, or meta l4proto gre"),
    ("gretap", INNER_REASON, "match the tunnel interface"),
    ("xfrm", "nft calls it ipsec", "write `ipsec in reqid 1`, match esp, or the tunnel interface"),
    ("tunnel", "packets carry no metadata of tunnels here", "match the tunnel interface"),
    ("rt2", "the header's fields are read as those of rt", "use rt type 2"),
    ("rt4", "the header's fields are read as those of rt", "use rt type 4"),
];

/// Why the packet in a tunnel's packet cannot be matched.
const INNER_REASON: &str = "the packet inside of a tunnel's packet is not looked at";
