//! SYN cookies: the SYN+ACK that answers a SYN, and the SYN for the server when the cookie is acknowledged.
use super::segment::{OutgoingSegment, SynproxyOptions, endpoints};
use keepstate_engine::{Instant, SynproxyState};
use keepstate_rules::ast::SynproxyInfo;
use keepstate_wire::Packet;
use keepstate_wire::keyed_hash::SipKey;
use keepstate_wire::tcp::{TcpFlags, TcpSegment};
use std::hash::BuildHasher;
use std::hash::Hasher;
use std::net::IpAddr;

/// MSS values that a cookie can encode over IPv4; a client without the option gets the first.
const MSS_V4: [u16; 4] = [536, 1300, 1440, 1460];
/// MSS values over IPv6.
const MSS_V6: [u16; 4] = [1220, 1420, 1440, 8940];
/// The unit of a cookie's age, in nanoseconds.
const COOKIE_PERIOD: u64 = 64_000_000_000;
/// The greatest age of a valid cookie: two minutes or a little more.
const MAX_COOKIE_AGE: u32 = 2;
/// Bits of a cookie that authenticate it.
const COOKIE_MAC_BITS: u32 = 28;
/// Bits of the timestamp that hold the client's options.
const TS_OPT_MASK: u32 = 0x3f;
/// In place of a window scale: the client has none.
const TS_OPT_NO_WSCALE: u32 = 0xf;

/// Counters of synproxy, as in Linux's `/proc/net/stat/synproxy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SynproxyStats {
    /// SYNs answered.
    pub syn_received: u64,
    /// Acknowledgements with a valid cookie.
    pub cookie_valid: u64,
    /// Acknowledgements with an invalid cookie.
    pub cookie_invalid: u64,
    /// Acknowledgements retransmitted before the server has answered.
    pub cookie_retrans: u64,
}

/// Makes and verifies SYN cookies.
pub(crate) struct SynCookies {
    key: SipKey,
    stats: SynproxyStats,
}

impl SynCookies {
    pub(crate) fn new(key: SipKey) -> SynCookies {
        SynCookies { key, stats: SynproxyStats::default() }
    }

    pub(crate) fn stats(&self) -> &SynproxyStats {
        &self.stats
    }

    /// Counts a client's acknowledgement that came again before the server has answered.
    pub(crate) fn count_retransmission(&mut self) {
        self.stats.cookie_retrans += 1;
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

    /// The SYN to the server for a client that has acknowledged a cookie and whose initial sequence number was `first`; `None` if the cookie is invalid.
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
        // Linux has the cookie in the acknowledgement number; it is not read.
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

    /// The MSS encoded in a cookie, if it is valid.
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

    /// Two bits of age, two of MSS, the rest is a MAC; plus an offset of the connection, so that a cookie does not reveal the time.
    fn cookie(&self, client: (IpAddr, u16), server: (IpAddr, u16), first: u32, size: u32, age: u32) -> u32 {
        let mut hasher = self.key.build_hasher();
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
    // It wraps after 8,700 years.
    (now.0 / COOKIE_PERIOD) as u32
}

/// Milliseconds, modulo 2³².
fn timestamp_ms(now: Instant) -> u32 {
    (now.0 / 1_000_000) as u32
}
