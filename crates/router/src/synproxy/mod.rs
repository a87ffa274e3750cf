//! Handshakes answered in a server's name (Linux's `synproxy`): a flood of SYNs that nobody stands behind costs neither a place in the table nor the server anything.
//!
//! ```text
//! client ── SYN ──▶ a promise (a cookie, a clock), and nothing kept
//!        ── ACK ──▶ is it ours? ── SYN in the client's name ──▶ server
//!                   window opened ◀── its numbers shifted to the promise ── SYN+ACK
//! ```
//! The cookie says by which of four sizes the client's segments go, and vouches for addresses, ports, the client's own first number and the time; what else a SYN may ask for (scale,
//! selective acknowledgements) waits in the low bits of the clock that the client echoes. It must never believe an acknowledgement that it has not promised itself.
mod splice;

use keepstate_engine::{Instant, SynproxyState};
use keepstate_rules::ast::SynproxyInfo;
use keepstate_wire::tcp::{TcpFlags, TcpOption, TcpSegment};
use keepstate_wire::{Addresses, Packet};
use siphasher::sip::SipHasher13;
use std::hash::Hasher;
use std::net::IpAddr;

/// Largest segments that a cookie can tell apart; a client that names none gets the first.
const MSS_V4: [u16; 4] = [536, 1300, 1440, 1460];
/// The same over IPv6.
const MSS_V6: [u16; 4] = [1220, 1420, 1440, 8940];
/// A cookie's age is counted in these nanoseconds.
const COOKIE_PERIOD: u64 = 64_000_000_000;
/// Ages until which it is good: two minutes or a little more.
const MAX_COOKIE_AGE: u32 = 2;
/// Bits of a cookie that vouch for it.
const COOKIE_MAC_BITS: u32 = 28;
/// Bits of the clock in which what the client has asked for waits.
const TS_OPT_MASK: u32 = 0x3f;
/// In the place of a scale: none was asked for.
const TS_OPT_NO_WSCALE: u32 = 0xf;

/// What was answered, and what came back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SynproxyStats {
    /// SYNs that were answered.
    pub syn_received: u64,
    /// Acknowledgements of a promise of ours.
    pub cookie_valid: u64,
    /// Acknowledgements of something that nobody has promised.
    pub cookie_invalid: u64,
    /// Acknowledgements that came again before the server had answered.
    pub cookie_retrans: u64,
}

/// What a segment says in its options, and what an answer is to say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SynproxyOptions {
    pub(crate) mss: Option<u16>,
    pub(crate) wscale: Option<u8>,
    pub(crate) sack: bool,
    /// Value and echo.
    pub(crate) timestamps: Option<(u32, u32)>,
}

impl SynproxyOptions {
    pub(crate) fn parse(segment: &TcpSegment<'_>) -> SynproxyOptions {
        let mut options = SynproxyOptions::default();
        for choice in segment.options() {
            match choice {
                TcpOption::Mss(size) => options.mss = Some(size),
                TcpOption::WindowScale(scale) => options.wscale = Some(scale.min(14)),
                TcpOption::SackPermitted => options.sack = true,
                TcpOption::Timestamps(value, echo) => options.timestamps = Some((value, echo)),
                _ => (),
            }
        }
        options
    }

    /// As the header has them, padded to words.
    fn to_bytes(&self) -> Vec<u8> {
        let mut octets = Vec::with_capacity(40);
        if let Some(size) = self.mss {
            octets.extend([2, 4]);
            octets.extend(size.to_be_bytes());
        }
        match (self.timestamps, self.sack) {
            (Some((value, echo)), sack) => {
                octets.extend(if sack { [4, 2, 8, 10] } else { [1, 1, 8, 10] });
                octets.extend(value.to_be_bytes());
                octets.extend(echo.to_be_bytes());
            }
            (None, true) => octets.extend([1, 1, 4, 2]),
            (None, false) => (),
        }
        octets.extend(self.wscale.iter().flat_map(|scale| [1, 3, 3, *scale]));
        octets
    }
}

/// One segment to be sent: its ends, its numbers, what it says.
pub(crate) struct OutgoingSegment {
    pub(crate) from: (IpAddr, u16),
    pub(crate) to: (IpAddr, u16),
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) flags: u8,
    pub(crate) window: u16,
    pub(crate) options: SynproxyOptions,
}

impl OutgoingSegment {
    /// The segment, from the first port to the checksum left open.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let options = self.options.to_bytes();
        let mut octets = Vec::with_capacity(20 + options.len());
        octets.extend(self.from.1.to_be_bytes());
        octets.extend(self.to.1.to_be_bytes());
        octets.extend(self.seq.to_be_bytes());
        octets.extend(self.ack.to_be_bytes());
        // At most ten words of options.
        octets.extend([((5 + options.len() / 4) as u8) << 4, self.flags]);
        octets.extend(self.window.to_be_bytes());
        octets.extend([0; 4]);
        octets.extend(options);
        octets
    }
}

/// Both ends of a segment: address and port of its source and its destination.
pub(crate) fn endpoints(packet: &Packet<'_>, segment: &TcpSegment<'_>) -> [(IpAddr, u16); 2] {
    let (source, destination) = match packet.addresses() {
        Addresses::V4 { source, destination } => (IpAddr::from(source), IpAddr::from(destination)),
        Addresses::V6 { source, destination } => (IpAddr::from(source), IpAddr::from(destination)),
    };
    [(source, segment.source), (destination, segment.destination)]
}

/// Who promises.
pub(crate) struct SynCookies {
    secret: (u64, u64),
    pub(crate) stats: SynproxyStats,
}

impl SynCookies {
    pub(crate) fn new(secret: (u64, u64)) -> SynCookies {
        SynCookies { secret, stats: SynproxyStats::default() }
    }

    /// The answer to a SYN, in the name of whom it goes to.
    pub(crate) fn syn_ack(
        &mut self,
        packet: &Packet<'_>,
        segment: &TcpSegment<'_>,
        rule: &SynproxyInfo,
        now: Instant,
    ) -> OutgoingSegment {
        self.stats.syn_received += 1;
        let [client, server] = endpoints(packet, segment);
        let asked = SynproxyOptions::parse(segment);
        // Without a clock that comes back there is nowhere to keep them.
        let clocks = asked.timestamps.filter(|_| rule.timestamp).map(|(value, _)| {
            let scale = asked.wscale.filter(|_| rule.wscale.is_some()).map_or(TS_OPT_NO_WSCALE, u32::from);
            let bits = scale | u32::from(asked.sack && rule.sack) << 4;
            (timestamp_ms(now) & !TS_OPT_MASK | bits, value)
        });
        let kept = clocks.is_some();
        let options = SynproxyOptions {
            mss: asked.mss.and(rule.mss),
            wscale: asked.wscale.and(rule.wscale).filter(|_| kept),
            sack: asked.sack && rule.sack && kept,
            timestamps: clocks,
        };
        let flags = TcpFlags::SYN | TcpFlags::ACK;
        let size = asked.mss.unwrap_or(0);
        let sizes = mss_table(client.0);
        let size = sizes.iter().rposition(|known| size >= *known).unwrap_or(0) as u32;
        let seq = self.cookie(client, server, segment.seq, size, cookie_age(now));
        OutgoingSegment { from: server, to: client, seq, ack: segment.seq.wrapping_add(1), flags, window: 0, options }
    }

    /// The SYN in the name of a client who has acknowledged a promise, whose own first number was `first`; `None` if nobody has promised him that.
    pub(crate) fn verify_ack(
        &mut self,
        packet: &Packet<'_>,
        segment: &TcpSegment<'_>,
        first: u32,
        now: Instant,
    ) -> Option<(OutgoingSegment, SynproxyState)> {
        let [client, server] = endpoints(packet, segment);
        let promised = segment.ack.wrapping_sub(1);
        let Some(size) = self.cookie_mss(promised, client, server, first, now) else {
            self.stats.cookie_invalid += 1;
            return None;
        };
        self.stats.cookie_valid += 1;
        let clocks = SynproxyOptions::parse(segment).timestamps;
        let bits = clocks.map_or(TS_OPT_NO_WSCALE, |(_, echo)| echo & TS_OPT_MASK);
        let options = SynproxyOptions {
            mss: Some(size),
            wscale: (bits & TS_OPT_NO_WSCALE != TS_OPT_NO_WSCALE).then_some((bits & TS_OPT_NO_WSCALE) as u8),
            sack: bits & 0x10 != 0,
            timestamps: clocks,
        };
        let promise = SynproxyState::new(promised, clocks.map_or(0, |(_, echo)| echo), segment.window);
        // Linux tells itself there what was promised; nobody reads it.
        let syn = OutgoingSegment {
            from: client,
            to: server,
            seq: first,
            ack: promised,
            flags: TcpFlags::SYN,
            window: segment.window,
            options,
        };
        Some((syn, promise))
    }

    /// The largest segment that is to be asked for, if the cookie is a good one.
    fn cookie_mss(
        &self,
        cookie: u32,
        client: (IpAddr, u16),
        server: (IpAddr, u16),
        first: u32,
        now: Instant,
    ) -> Option<u16> {
        let sizes = mss_table(client.0);
        for old in 0..=MAX_COOKIE_AGE {
            let age = cookie_age(now).checked_sub(old)?;
            for (number, size) in sizes.iter().enumerate() {
                if self.cookie(client, server, first, number as u32, age) == cookie {
                    return Some(*size);
                }
            }
        }
        None
    }

    /// Two bits of age, two of size, the rest vouches; and over all of it what only this connection has, so that no number tells the time.
    fn cookie(&self, client: (IpAddr, u16), server: (IpAddr, u16), first: u32, size: u32, age: u32) -> u32 {
        let mut hasher = SipHasher13::new_with_keys(self.secret.0 ^ 0x7379_6e70, self.secret.1);
        for (address, port) in [client, server] {
            match address {
                IpAddr::V4(address) => hasher.write(&address.octets()),
                IpAddr::V6(address) => hasher.write(&address.octets()),
            }
            hasher.write_u16(port);
        }
        let over = hasher.finish() as u32;
        hasher.write_u32(first);
        hasher.write_u32(age);
        hasher.write_u32(size);
        let vouching = (hasher.finish() >> 32) as u32 & ((1 << COOKIE_MAC_BITS) - 1);
        (vouching | (size & 3) << COOKIE_MAC_BITS | (age & 3) << (COOKIE_MAC_BITS + 2)).wrapping_add(over)
    }
}

fn mss_table(address: IpAddr) -> &'static [u16; 4] {
    if address.is_ipv4() { &MSS_V4 } else { &MSS_V6 }
}

fn cookie_age(now: Instant) -> u32 {
    // It wraps after eight thousand years.
    (now.0 / COOKIE_PERIOD) as u32
}

/// A clock, modulo 2³².
fn timestamp_ms(now: Instant) -> u32 {
    (now.0 / 1_000_000) as u32
}

#[cfg(test)]
mod tests;
