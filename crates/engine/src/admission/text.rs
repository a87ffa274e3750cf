//! The parts of a policy as texts: `1000 for tcp 22 from 10.0.0.0/8`, `100 connections 20 new/s for udp`, `60000-72000`.
use super::policy::{AdaptiveTimeouts, AddressPrefix, SourceLimit, TableReserve, TextError, TupleSelector};
use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;
use core::ops::RangeInclusive;
use core::str::{FromStr, SplitWhitespace};
use keepstate_types::ipproto;

impl FromStr for TableReserve {
    type Err = TextError;

    /// `ENTRIES for SELECTOR`
    fn from_str(text: &str) -> Result<TableReserve, TextError> {
        let usage = "write ENTRIES for CONNECTIONS, like \"1000 for tcp 22 from 10.0.0.0/8\"";
        let mut words = text.split_whitespace();
        let entries = words.next().ok_or(usage)?;
        let entries = number(entries, "a number of entries").map_err(|error| format!("{error}; {usage}"))?;
        match words.next() {
            Some("for") => Ok(TableReserve { entries, selector: selector(words)? }),
            _ => Err(usage.to_string()),
        }
    }
}

impl FromStr for SourceLimit {
    type Err = TextError;

    /// `[N connections] [N new/s] [burst N] [per BITS,BITS] [for SELECTOR]`
    fn from_str(text: &str) -> Result<SourceLimit, TextError> {
        let usage =
            "write like \"100 connections 20 new/s burst 40 per 32,64 for tcp 443\", and leave out what is not limited";
        let mut limit = SourceLimit {
            connections: None,
            new_per_second: None,
            burst: 0,
            ipv4_length: 32,
            ipv6_length: 64,
            selector: TupleSelector::default(),
        };
        let mut words = text.split_whitespace();
        while let Some(word) = words.next() {
            match word {
                "for" => {
                    limit.selector = selector(words)?;
                    break;
                }
                "burst" => limit.burst = at_least_one(words.next().ok_or(usage)?, "a burst")?,
                "per" => (limit.ipv4_length, limit.ipv6_length) = lengths(words.next().ok_or(usage)?)?,
                amount => match words.next() {
                    Some("connections" | "connection") => {
                        limit.connections = Some(number(amount, "a number of connections")?);
                    }
                    Some("new/s") => {
                        limit.new_per_second = Some(at_least_one(amount, "a number of new connections a second")?);
                    }
                    _ => return Err(format!("{text}: {usage}")),
                },
            }
        }
        if limit.burst != 0 && limit.new_per_second.is_none() {
            return Err(format!("{text}: a burst needs a number of new connections a second; {usage}"));
        }
        if limit.burst == 0 {
            limit.burst = limit.new_per_second.unwrap_or(1);
        }
        Ok(limit)
    }
}

impl FromStr for AdaptiveTimeouts {
    type Err = TextError;

    /// `START-END`
    fn from_str(text: &str) -> Result<AdaptiveTimeouts, TextError> {
        let usage = || format!("{text}: write two numbers of connections, START-END, like 60000-72000");
        let (start, end) = text.split_once('-').ok_or_else(usage)?;
        let range = start.trim().parse().ok().zip(end.trim().parse().ok());
        let (start, end) = range.filter(|(start, end)| start < end).ok_or_else(usage)?;
        Ok(AdaptiveTimeouts { start, end })
    }
}

/// The protocols that have a name here.
const PROTOCOLS: [(&str, u8); 7] = [
    ("tcp", ipproto::TCP),
    ("udp", ipproto::UDP),
    ("sctp", ipproto::SCTP),
    ("udplite", ipproto::UDPLITE),
    ("icmp", ipproto::ICMP),
    ("icmpv6", ipproto::ICMPV6),
    ("gre", ipproto::GRE),
];

/// `[PROTOCOL [PORTS]] [from PREFIX] [to PREFIX]`
fn selector(words: SplitWhitespace<'_>) -> Result<TupleSelector, TextError> {
    let usage = "connections are PROTOCOL, PORTS, from PREFIX, to PREFIX, each if wanted, like \"tcp 22,8000-8100 from 10.0.0.0/8\"";
    let mut selector = TupleSelector::default();
    let mut words = words.peekable();
    if words.peek().is_none() {
        return Err(usage.to_string());
    }
    let mut is_first = true;
    while let Some(word) = words.next() {
        match word {
            "from" => selector.source = Some(prefix(words.next().ok_or(usage)?)?),
            "to" => selector.destination = Some(prefix(words.next().ok_or(usage)?)?),
            protocol if is_first => {
                let known = PROTOCOLS.iter().find(|(name, _)| *name == protocol).map(|(_, number)| *number);
                let number = known.or_else(|| protocol.parse().ok());
                selector.protocol = Some(number.ok_or_else(|| format!("{protocol} is no protocol; {usage}"))?);
                if let Some(text) = words.next_if(|word| word.starts_with(|c: char| c.is_ascii_digit())) {
                    let has_ports = [ipproto::TCP, ipproto::UDP, ipproto::SCTP, ipproto::UDPLITE];
                    if !selector.protocol.is_some_and(|protocol| has_ports.contains(&protocol)) {
                        return Err(format!("{protocol} has no ports; leave {text} out"));
                    }
                    selector.ports = text.split(',').map(ports).collect::<Result<Vec<_>, _>>()?;
                }
            }
            _ => return Err(format!("{word} is not understood; {usage}")),
        }
        is_first = false;
    }
    Ok(selector)
}

fn ports(text: &str) -> Result<RangeInclusive<u16>, TextError> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let range = first.parse().ok().zip(last.parse().ok()).filter(|(first, last)| first <= last);
    let (first, last): (u16, u16) = range.ok_or_else(|| format!("{text} is no port: write 22, or 8000-8100"))?;
    Ok(first..=last)
}

fn prefix(text: &str) -> Result<AddressPrefix, TextError> {
    let usage = || format!("{text} is no prefix: write an address, or like 10.0.0.0/8 or fd00::/16");
    let (address, length) = text.split_once('/').map_or((text, None), |(address, length)| (address, Some(length)));
    let address: core::net::IpAddr = address.parse().map_err(|_| usage())?;
    let length = match length {
        Some(length) => length.parse().map_err(|_| usage())?,
        None if address.is_ipv4() => 32,
        None => 128,
    };
    let prefix = AddressPrefix::new(address, length).ok_or_else(usage)?;
    if prefix.address == address {
        Ok(prefix)
    } else {
        Err(format!("{text}: the host bits of a prefix are 0; write {}/{length}", prefix.address))
    }
}

/// `32,64`, or for IPv4 alone `24`.
fn lengths(text: &str) -> Result<(u8, u8), TextError> {
    let usage =
        || format!("per {text}: write the bits of a source for IPv4 and IPv6, 1 to 32 and 1 to 128, like 24,56");
    let (ipv4, ipv6) = text.split_once(',').unwrap_or((text, "64"));
    let lengths: Option<(u8, u8)> = ipv4.parse().ok().zip(ipv6.parse().ok());
    lengths.filter(|(ipv4, ipv6)| (1..=32).contains(ipv4) && (1..=128).contains(ipv6)).ok_or_else(usage)
}

fn number(text: &str, what: &str) -> Result<u32, TextError> {
    text.parse().map_err(|_| format!("{text} is not {what}"))
}

fn at_least_one(text: &str, what: &str) -> Result<u32, TextError> {
    number(text, what).ok().filter(|number| *number > 0).ok_or_else(|| format!("{text} is not {what}, 1 or more"))
}
