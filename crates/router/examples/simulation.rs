//! A connection through a masquerading ruleset on a virtual clock: out, back, and its end. No network, no waiting.
//!
//! cargo run -p keepstate-router --example simulation
use etherparse::{PacketBuilder, SlicedPacket, TransportSlice};
use keepstate_engine::{Engine, Instant, Secret, Sysctls};
use keepstate_router::{DropReason, Egress, FibTable, Interface, Route, Router};
use keepstate_rules::{NoIncludes, compile, parse_with};
use std::error::Error;

const RULES: &str = "
table ip filter {
    chain forward {
        type filter hook forward priority filter; policy drop;
        ct state established,related accept
        iifname lan0 accept
    }
}
table ip nat {
    chain postrouting { type nat hook postrouting priority srcnat; oifname wan0 masquerade; }
}";
const LAN: u32 = 1;
const WAN: u32 = 2;

fn main() -> Result<(), Box<dyn Error>> {
    let start = Instant::from_secs(1_000);
    let mut router = router()?;
    router.poll(start);

    let query = udp([10, 1, 0, 7], [198, 51, 100, 53], 40_000, 53)?;
    router.handle(&query, LAN, start)?;
    let sent = router.poll_output().ok_or("the query was not sent")?;
    println!("query   {} -> {}", ends(&query)?, ends(sent.packet())?);
    assert!(matches!(sent, Egress::Forward { oif: WAN, .. }));

    let answer = udp([198, 51, 100, 53], [192, 0, 2, 1], 53, 40_000)?;
    router.handle(&answer, WAN, start)?;
    let back = router.poll_output().ok_or("the answer was not sent")?;
    println!("answer  {} -> {}", ends(&answer)?, ends(back.packet())?);
    assert!(matches!(back, Egress::Forward { oif: LAN, .. }));
    for entry in router.engine().entries(start) {
        let (original, reply) = (entry.original, entry.reply);
        println!(
            "table   src={} dst={} | reply src={} dst={}",
            original.source, original.destination, reply.source, reply.destination
        );
    }

    // The clock goes from one event to the next.
    let mut now = start;
    while let Some(due) = router.next_wake(now) {
        now = due;
        router.poll(now);
    }
    println!("expired {} s later: {} connections", now.since(start).as_secs(), router.engine().count());
    // A late answer is not translated any more: it is for the router itself.
    router.handle(&answer, WAN, now)?;
    assert!(matches!(router.poll_output(), Some(Egress::LocalDeliver(_))));
    // And nobody on the other side opens a connection.
    let stranger = udp([198, 51, 100, 53], [10, 1, 0, 7], 53, 40_000)?;
    assert_eq!(router.handle(&stranger, WAN, now), Err(DropReason::RulesetDrop));
    println!("{}", router.counters());
    Ok(())
}

fn router() -> Result<Router, Box<dyn Error>> {
    let (ruleset, sources) = parse_with("simulation.nft", RULES, &NoIncludes, &[])?;
    let lan = Interface::new(LAN, "lan0", 1500).with_address([10, 1, 0, 1].into(), 24);
    let wan = Interface::new(WAN, "wan0", 1500).with_address([192, 0, 2, 1].into(), 24);
    let default = Route::new([0; 4].into(), 0, WAN).via([192, 0, 2, 254].into());
    let fib = FibTable::new(vec![lan, wan], vec![default]);
    let engine = Engine::new(Sysctls::default(), Secret([7; 16]));
    Ok(Router::new(engine, compile(&ruleset, &sources)?, fib, (1, 2)))
}

fn udp(source: [u8; 4], destination: [u8; 4], sport: u16, dport: u16) -> Result<Vec<u8>, Box<dyn Error>> {
    let builder = PacketBuilder::ipv4(source, destination, 64).udp(sport, dport);
    let mut packet = Vec::new();
    builder.write(&mut packet, b"hello")?;
    Ok(packet)
}

/// Source and destination of a UDP packet.
fn ends(packet: &[u8]) -> Result<String, Box<dyn Error>> {
    let sliced = SlicedPacket::from_ip(packet)?;
    let (Some(etherparse::NetSlice::Ipv4(ip)), Some(TransportSlice::Udp(udp))) = (sliced.net, sliced.transport) else {
        return Err("not UDP over IPv4".into());
    };
    let (source, destination) = (ip.header().source_addr(), ip.header().destination_addr());
    Ok(format!("{source}:{} > {destination}:{}", udp.source_port(), udp.destination_port()))
}
