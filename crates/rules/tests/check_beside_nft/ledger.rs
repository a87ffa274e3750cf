//! Intended differences from nft 1.0.6, each with its reason.
use std::collections::BTreeSet;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Difference {
    OnlyWeTake,
    OnlyWeRefuse,
}
use Difference::{OnlyWeRefuse, OnlyWeTake};

/// A difference, a part of the rulesets that have it, and why.
const LEDGER: &[(Difference, &str, &str)] = &[
    (OnlyWeTake, "{ 10.0.0.1/32 }", "a prefix of full length is the address"),
    (OnlyWeTake, "queue num 1", "this kernel has no queues"),
    (OnlyWeTake, " expires ", "what is left of a timeout is taken as the timeout"),
    (OnlyWeTake, "mark set ", "a mark takes the bits of any field, as in nft since 1.0.8"),
    (OnlyWeTake, "{ ip dscp set ", "any number is taken: its low bits are written"),
    (OnlyWeTake, "{ ip ttl set ", "any number is taken: its low bits are written"),
    (OnlyWeTake, "{ ip6 hoplimit set ", "any number is taken: its low bits are written"),
    (OnlyWeTake, "{ ip saddr set ", "any number is taken: its low bits are written"),
    (OnlyWeTake, "{ tcp dport set ", "any number is taken: its low bits are written"),
    (OnlyWeTake, "{ tcp option maxseg size set ", "any number is taken: its low bits are written"),
    (OnlyWeTake, "{ ct zone set ", "any number is taken: its low bits are written"),
    (OnlyWeTake, "{ ct label set ", "any number is taken: its low bits are written"),
    (OnlyWeTake, "{ meta priority set ", "any number is taken as major and minor number"),
    (OnlyWeTake, "meta priority set 1:1", "the colon needs no quotation marks"),
    (OnlyWeTake, "meta nftrace set ", "tracing has no effect here"),
    (OnlyWeRefuse, "{ meta nftrace set ", "tracing has no effect here: only a constant is taken"),
    (OnlyWeRefuse, "{ meta priority set ", "a traffic class is written as such"),
    (OnlyWeRefuse, "flags interval; flags dynamic;", "nft forgets the first line of flags; here both count"),
    (OnlyWeTake, "10.0.0.1 . *", "any value of one part, in a set of several"),
    (OnlyWeTake, "priority srcnat", "newer nft has srcnat at input too"),
    (OnlyWeTake, "priority dstnat", "newer nft has dstnat at output too"),
    (OnlyWeRefuse, "counter packets 1;", "a counter is written with both numbers"),
    (OnlyWeRefuse, "log group 70000", "nft cuts the number to 16 bits"),
    (OnlyWeRefuse, "tcp dport > 65535", "a match that can never hold is an error"),
    (OnlyWeRefuse, "tcp dport < 0", "a match that can never hold is an error"),
    (OnlyWeTake, "iif \"nosuch0\"", "interfaces are compared by name, and may appear later"),
    (OnlyWeTake, "ip dscp << 2 == 4", "a shifted field is compared with a number"),
    (OnlyWeTake, "tcp flags syn / fin", "a mask of one flag"),
    (OnlyWeRefuse, " set 4; };", "a version is never changed"),
    (OnlyWeTake, "ip protocol set tcp", "nft lists a protocol by its name, and does not read it"),
    (OnlyWeRefuse, "meta hour 86400", "a day has 86400 seconds, the last one is 86399"),
    (OnlyWeRefuse, "wscale 15", "RFC 7323, 2.3: a window scale is at most 14"),
    (OnlyWeRefuse, "reject with icmp type 256", "nft cuts the number to 8 bits"),
    (OnlyWeRefuse, "{ set s { typeof ", "numbers of another width: the lookup would never match"),
    (OnlyWeRefuse, "synproxy", "behind tracking only: chains of type filter at input or forward"),
    (OnlyWeRefuse, "ct timeout x { protocol tcp; }", "a timeout without a policy has no effect"),
    (OnlyWeRefuse, "established : 0", "a timeout of 0 would end connections at once"),
    (OnlyWeRefuse, "add @s { 10.0.0.1 }", "a constant is written into the set"),
    (OnlyWeRefuse, "map s { type ipv4_addr : verdict; }; chain c { ip saddr @s", "a map is looked up with map or vmap"),
];

/// Index of the entry that a difference belongs to.
pub fn ledger_entry(difference: Difference, ruleset: &str) -> Option<usize> {
    LEDGER.iter().position(|(known, part, _)| *known == difference && ruleset.contains(part))
}

/// Entries that no ruleset needed.
pub fn stale(used: &BTreeSet<usize>) -> Vec<&'static str> {
    let entries = LEDGER.iter().enumerate();
    entries.filter(|(at, _)| !used.contains(at)).map(|(_, (_, part, _))| *part).collect()
}
