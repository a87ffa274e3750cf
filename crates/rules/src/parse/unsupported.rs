//! What of the language is not supported: why, and what to write instead.

/// Statements that are not supported: why, and a hint.
pub(super) const UNSUPPORTED_STATEMENTS: [(&str, &str, &str); 3] = [
    ("fwd", "it belongs to the ingress of a device in a table of family netdev", "use a route, or `dup to`"),
    ("tc", "classes are those of the kernel's queueing disciplines", "use `meta priority set`, or tc in the kernel"),
    (
        "xt",
        "extensions of iptables are the kernel's modules",
        "translate the iptables rule with iptables-translate, and load what it prints",
    ),
];

/// Selectors that are not supported, with a hint.
pub(super) const UNSUPPORTED_SELECTORS: [(&str, &str, &str); 5] = [
    ("arp", "ARP is the kernel's", "use a table of family arp there"),
    ("xfrm", "nft calls it ipsec", "write `ipsec in reqid 1`, match esp, or the tunnel interface"),
    ("tunnel", "packets carry no metadata of tunnels here", "match the tunnel interface"),
    ("rt2", "the header's fields are read as those of rt", "use rt type 2"),
    ("rt4", "the header's fields are read as those of rt", "use rt type 4"),
];
