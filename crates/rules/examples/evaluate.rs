//! Evaluates two packets against the forward hook of a ruleset, without any routes.
//!
//! `cargo run -p keepstate-rules --example evaluate -- [FILE]`; without a file, a small ruleset is used.
use keepstate_engine::{Engine, Instant, Secret, Sysctls, Zone};
use keepstate_rules::ast::Hook;
use keepstate_rules::{AddressType, EvalCtx, Fib, InterfaceInfo, NoIncludes, PacketMeta, Verdict, compile, parse_with};
use keepstate_wire::{Packet, checksum};
use std::error::Error;
use std::io::Write;
use std::net::IpAddr;

const DEFAULT_RULESET: &str = "table ip filter {
    chain forward {
        type filter hook forward priority filter; policy drop;
        ct state new udp dport 53 counter accept
        tcp dport 22 counter reject with tcp reset
    }
}
";

/// A machine without routes: every address is unicast, and no interface has an address.
struct EmptyFib;

impl Fib for EmptyFib {
    fn address_type(&self, _: IpAddr, _: Option<u32>) -> AddressType {
        AddressType::Unicast
    }
    fn route_lookup(&self, _: IpAddr, _: Option<u32>) -> Option<InterfaceInfo> {
        None
    }
    fn source_address(&self, _: u32, _: IpAddr, _: Option<IpAddr>) -> Option<IpAddr> {
        None
    }
    fn redirect_address(&self, _: u32, _: IpAddr) -> Option<IpAddr> {
        None
    }
    fn primary_address(&self, _: u32, _: bool) -> Option<IpAddr> {
        None
    }
    fn next_hop(&self, _: IpAddr, _: u32) -> Option<IpAddr> {
        None
    }
    fn mtu(&self, _: u32) -> u32 {
        1500
    }
}

/// A packet from 10.0.0.1 port 4000 to 198.51.100.9.
fn packet(protocol: u8, destination_port: u16, transport: &[u8]) -> Vec<u8> {
    let length = 24 + transport.len() as u16;
    let mut bytes = vec![0x45, 0];
    bytes.extend(length.to_be_bytes());
    bytes.extend([0, 1, 0, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 198, 51, 100, 9]);
    let sum = checksum::internet(&bytes);
    bytes[10..12].copy_from_slice(&sum.to_be_bytes());
    bytes.extend(4000_u16.to_be_bytes());
    bytes.extend(destination_port.to_be_bytes());
    bytes.extend(transport);
    bytes
}

fn main() -> Result<(), Box<dyn Error>> {
    let (name, text) = match std::env::args().nth(1) {
        Some(name) => (name.clone(), std::fs::read_to_string(&name)?),
        None => ("built-in.nft".to_owned(), DEFAULT_RULESET.to_owned()),
    };
    let (tree, sources) = parse_with(&name, &text, &NoIncludes, &[])?;
    let mut program = compile(&tree, &sources)?;
    // A real program takes the secret from the operating system.
    let mut engine = Engine::new(Sysctls::default(), Secret([1; 16]));
    let now = Instant::from_millis(1);

    let dns = packet(17, 53, &[0, 12, 0, 0, 1, 2, 3, 4]);
    // Sequence number 1, a SYN; the checksum is not filled in, so the engine finds the segment invalid.
    let ssh = packet(6, 22, &[0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0]);
    for (what, bytes) in [("udp dport 53", &dns), ("tcp dport 22", &ssh)] {
        let packet = Packet::parse(bytes).map_err(|error| format!("{error:?}"))?;
        let mut tracked = engine.track(&packet, Zone::default(), now);
        let mut meta = PacketMeta::default();
        let mut ctx = EvalCtx {
            engine: &mut engine,
            packet_ctx: Some(&mut tracked),
            packet: &packet,
            meta: &mut meta,
            fib: &EmptyFib,
            sockets: None,
            now,
        };
        let verdict = program.eval_filter_chains(Hook::Forward, i32::MIN..=i32::MAX, &mut ctx);
        writeln!(std::io::stdout(), "{what}: {verdict:?}")?;
        if verdict == Verdict::Accept {
            engine.confirm(tracked, now);
        }
    }
    writeln!(std::io::stdout(), "connections {}\n{}", engine.count(), program.list())?;
    Ok(())
}
