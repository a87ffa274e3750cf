//! `tproxy` and `socket` over made-up sockets. That Linux does the same is shown beside it by keepstate/tests/tc_beside_netfilter/tproxy.rs.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod empty_fib;

use empty_fib::EmptyFib;
use keepstate_engine::{Engine, Instant, Secret, Sysctls};
use keepstate_rules::ast::Hook;
use keepstate_rules::datatype::encode_name;
use keepstate_rules::{
    EvalCtx, HoldReasons, InterfaceInfo, NoIncludes, PacketMeta, SocketEnds, SocketInfo, SocketLookup, SocketState,
    Verdict, compile, parse_with,
};
use keepstate_wire::Packet;
use std::net::SocketAddr;
use std::sync::Mutex;

const SYN: u8 = 2;
const ACK: u8 = 16;

/// What listens, and what has a peer.
#[derive(Default)]
struct Sockets {
    listening: Vec<(u8, SocketAddr, bool)>,
    connected: Vec<(u8, SocketAddr, SocketAddr, SocketInfo)>,
    ended: Mutex<Vec<(SocketEnds, u64)>>,
}

impl SocketLookup for Sockets {
    fn find(&self, ends: &SocketEnds) -> Option<SocketInfo> {
        let connected = self
            .connected
            .iter()
            .find(|(protocol, peer, local, _)| (*protocol, *peer, *local) == (ends.protocol, ends.peer, ends.local));
        let listening = || {
            let mut found = self.listening.iter().filter(|(protocol, at, _)| {
                let is_there = at.ip() == ends.local.ip() || at.ip().is_unspecified();
                *protocol == ends.protocol && is_there && at.port() == ends.local.port()
            });
            let (_, at, is_transparent) = found.next()?;
            let is_wildcard = at.ip().is_unspecified();
            Some(SocketInfo { is_wildcard, ..info(SocketState::Listening, Some(*is_transparent)) })
        };
        connected.map(|(.., info)| *info).or_else(listening)
    }

    fn end_time_wait(&self, ends: &SocketEnds, number: u64) {
        self.ended.lock().unwrap().push((*ends, number));
    }
}

fn info(state: SocketState, is_transparent: Option<bool>) -> SocketInfo {
    SocketInfo { state, is_transparent, is_wildcard: false, mark: Some(5) }
}

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// From 10.0.1.2:4000 to 10.0.2.2:80.
fn packet(protocol: u8, flags: u8) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 40, 0, 1, 0, 0, 64, protocol, 0, 0, 10, 0, 1, 2, 10, 0, 2, 2];
    packet.extend([0x0f, 0xa0, 0, 80, 0, 20, 0, 0, 0, 0, 0, 0, 0x50, flags, 0, 0, 0, 0, 0, 0]);
    let sum = packet[..20].chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum::<u32>();
    packet[10..12].copy_from_slice(&(!((sum & 0xffff) + (sum >> 16)) as u16).to_be_bytes());
    packet
}

/// How long a verdict holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lasts {
    /// For the whole connection.
    Connection,
    /// Until something else listens.
    Listeners,
    /// For this packet.
    Packet,
}

/// What a rule makes of a packet: whether it matches, where the socket listens that it is given to, and how long that holds.
fn judge(rule: &str, bytes: &[u8], sockets: Option<&Sockets>) -> (bool, Option<Option<SocketAddr>>, Lasts) {
    let text = format!(
        "table inet t {{ map m {{ type inet_service : ipv4_addr; elements = {{ 80 : 127.0.0.9 }}; }}
            chain c {{ type filter hook prerouting priority mangle; policy drop; {rule} accept; }}; }}"
    );
    let (tree, sources) = parse_with("t", &text, &NoIncludes, &[]).unwrap_or_else(|error| panic!("{error}"));
    assert!(tree.notes.is_empty(), "{:?}", tree.notes);
    let mut program = compile(&tree, &sources).unwrap_or_else(|error| panic!("{error}"));
    assert!(program.asks_for_sockets());
    let iif = InterfaceInfo { index: 3, name: encode_name("r0").unwrap(), group: 0, link_type: 1, kind: 0 };
    let mut meta = PacketMeta { iif: Some(iif), ..PacketMeta::default() };
    let verdict = program.eval_filter_chains(
        Hook::Prerouting,
        i32::MIN..=i32::MAX,
        &mut EvalCtx {
            engine: &mut Engine::new(Sysctls::default(), Secret([1; 16])),
            packet_ctx: None,
            packet: &Packet::parse(bytes).unwrap(),
            meta: &mut meta,
            fib: &EmptyFib,
            sockets: sockets.map(|sockets| sockets as &dyn SocketLookup),
            now: Instant(1),
        },
    );
    let lasts = match (meta.trace.holds, meta.trace.listeners_read) {
        (holds, false) if holds.is_empty() => Lasts::Connection,
        (holds, true) if holds.is_empty() => Lasts::Listeners,
        (holds, _) => {
            assert_eq!(holds, HoldReasons::SOCKET);
            Lasts::Packet
        }
    };
    (verdict == Verdict::Accept, meta.proxy.map(|proxy| proxy.listens_at), lasts)
}

#[test]
fn tproxy_gives_packets_to_what_listens() {
    let listening = [
        (6, at("127.0.0.1:50080"), true),
        (17, at("127.0.0.1:50080"), true),
        (6, at("127.0.0.9:80"), true),
        (6, at("10.0.2.2:50081"), true),
        (6, at("127.0.0.1:50082"), false),
    ];
    let sockets = Sockets { listening: listening.into(), ..Sockets::default() };
    for (rule, protocol, listens_at) in [
        ("tcp dport 80 tproxy ip to 127.0.0.1:50080", 6, Some("127.0.0.1:50080")),
        ("udp dport 80 tproxy ip to 127.0.0.1:50080", 17, Some("127.0.0.1:50080")),
        // The packet's own port.
        ("tcp dport 80 tproxy ip to tcp dport map @m", 6, Some("127.0.0.9:80")),
        // The interface has no address: the packet's own.
        ("tcp dport 80 tproxy to :50081", 6, Some("10.0.2.2:50081")),
        ("meta l4proto udp tproxy to :50081", 17, None),
        ("tcp dport 80 tproxy ip to 127.0.0.1:50082", 6, None),
        ("tcp dport 80 tproxy ip to 127.0.0.1:50083", 6, None),
        ("meta l4proto tcp tproxy ip6 to [::1]:50080", 6, None),
    ] {
        let (matches, proxy, _) = judge(rule, &packet(protocol, SYN), Some(&sockets));
        assert_eq!((matches, proxy), (listens_at.is_some(), listens_at.map(|text| Some(at(text)))), "{rule}");
        assert_eq!(
            judge(rule, &packet(protocol, SYN), None),
            (false, None, Lasts::Connection),
            "{rule}, without sockets"
        );
    }
}

/// The connection of a packet comes first.
#[test]
fn tproxy_leaves_packets_to_their_own_connection() {
    let rule = "meta l4proto { tcp, udp } tproxy ip to 127.0.0.1:50080";
    let own = |protocol, state, is_transparent| Sockets {
        listening: vec![(protocol, at("127.0.0.1:50080"), true)],
        connected: vec![(protocol, at("10.0.1.2:4000"), at("10.0.2.2:80"), info(state, is_transparent))],
        ..Sockets::default()
    };
    let judged = |flags, sockets: &Sockets| judge(rule, &packet(6, flags), Some(sockets));
    assert_eq!(judged(ACK, &own(6, SocketState::Connected, Some(true))), (true, Some(None), Lasts::Connection));
    assert_eq!(judged(ACK, &own(6, SocketState::Handshake, None)), (true, Some(None), Lasts::Packet));
    assert_eq!(judged(ACK, &own(6, SocketState::TimeWait(7), None)), (true, Some(None), Lasts::Packet));
    // The machine's own connection is no proxy's.
    assert_eq!(judged(ACK, &own(6, SocketState::Connected, Some(false))), (false, None, Lasts::Listeners));
    let udp = own(17, SocketState::Connected, Some(true));
    assert_eq!(judge(rule, &packet(17, 0), Some(&udp)), (true, Some(None), Lasts::Packet));
    // A new one takes the place of one that has ended.
    let reopened = own(6, SocketState::TimeWait(7), None);
    assert_eq!(judged(SYN, &reopened), (true, Some(Some(at("127.0.0.1:50080"))), Lasts::Packet));
    let ends = SocketEnds { protocol: 6, peer: at("10.0.1.2:4000"), local: at("10.0.2.2:80"), iif: 3 };
    assert_eq!(*reopened.ended.lock().unwrap(), [(ends, 7)]);
    // Where nobody listens what has ended stays.
    let gone = Sockets { listening: Vec::new(), ..own(6, SocketState::TimeWait(7), None) };
    assert_eq!(judged(SYN, &gone), (true, Some(None), Lasts::Packet));
    assert!(gone.ended.lock().unwrap().is_empty());
}

#[test]
fn sockets_are_matched() {
    let connected =
        |state, is_transparent| vec![(6, at("10.0.1.2:4000"), at("10.0.2.2:80"), info(state, is_transparent))];
    let proxied = Sockets { connected: connected(SocketState::Connected, Some(true)), ..Sockets::default() };
    let own = Sockets { connected: connected(SocketState::Connected, Some(false)), ..Sockets::default() };
    let handshake = Sockets { connected: connected(SocketState::Handshake, None), ..Sockets::default() };
    let own_handshake = Sockets {
        listening: vec![(6, at("0.0.0.0:80"), false)],
        connected: connected(SocketState::Handshake, None),
        ..Sockets::default()
    };
    let listener = Sockets { listening: vec![(6, at("0.0.0.0:80"), true)], ..Sockets::default() };
    for (rule, sockets, matches, holds) in [
        ("socket transparent 1", &proxied, true, Lasts::Connection),
        ("socket transparent 0", &proxied, false, Lasts::Connection),
        ("socket wildcard 0", &proxied, true, Lasts::Connection),
        ("socket mark 5", &proxied, true, Lasts::Packet),
        ("socket transparent 0", &own, true, Lasts::Connection),
        // Nobody listens where it was sent to: only a proxy can have taken it.
        ("socket transparent 1", &handshake, true, Lasts::Packet),
        ("socket transparent 0", &own_handshake, true, Lasts::Packet),
        ("socket wildcard { 0, 1 }", &handshake, false, Lasts::Packet),
        ("socket mark 5", &handshake, false, Lasts::Packet),
        ("socket transparent 1", &listener, true, Lasts::Listeners),
        ("socket wildcard 1", &listener, true, Lasts::Listeners),
        ("socket mark 5", &listener, true, Lasts::Packet),
        ("socket transparent { 0, 1 }", &Sockets::default(), false, Lasts::Listeners),
    ] {
        let judged = judge(rule, &packet(6, ACK), Some(sockets));
        assert_eq!((judged.0, judged.2), (matches, holds), "{rule}");
    }
}
