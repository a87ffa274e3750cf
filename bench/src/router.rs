//! `bench router`: the router alone. A packet of a known, masqueraded connection traverses every hook of a small ruleset, without driver and kernel.
use crate::counting_alloc;
use crate::flow_order::FlowOrder;
use anyhow::{Context, Result, ensure};
use clap::Args;
use keepstate_engine::{Engine, Instant, Secret, Sysctl, Sysctls};
use keepstate_router::{Egress, FibTable, Interface, Route, Router};
use keepstate_rules::{NoIncludes, Program, compile, parse_with};
use std::time::Instant as Clock;

/// The ruleset, the same as Linux's in the gateway benchmark.
pub const RULESET: &str = "
table ip nat {
	chain post { type nat hook postrouting priority srcnat; policy accept; oifname \"r1\" masquerade; }
}
table ip filter {
	chain forward {
		type filter hook forward priority filter; policy drop
		ct state established,related accept
		iifname \"r0\" ct state new accept
	}
}
";

/// Measure the router alone: ns and allocations a packet
#[derive(Args)]
pub struct RouterBench {
    /// Connections
    #[arg(long, value_delimiter = ',', default_value = "1000,200000")]
    flows: Vec<u32>,
    /// Packets to measure
    #[arg(long, default_value_t = 3_000_000)]
    packets: u32,
    /// Packet length in bytes
    #[arg(long, default_value_t = 46)]
    length: u16,
}

/// Packets are prepared outside the measured time.
const BATCH: u32 = 64;

impl RouterBench {
    pub fn run(self) -> Result<()> {
        println!("{:>10} {:>14} {:>14} {:>20}", "flows", "ns a packet", "ns a new flow", "allocations a packet");
        for flows in &self.flows {
            let (known, new, allocations) = self.measure(*flows)?;
            println!("{flows:>10} {known:>14.0} {new:>14.0} {allocations:>20.3}");
        }
        Ok(())
    }

    fn measure(&self, flows: u32) -> Result<(f64, f64, f64)> {
        let mut sysctls = Sysctls::default();
        sysctls.set(Sysctl::Max, u64::from(flows) * 2).ok().context("cannot set nf_conntrack_max")?;
        let mut router = router(sysctls, RULESET)?;
        let (new, _) = self.send_packets(&mut router, flows, flows, FlowOrder::AsEntered)?;
        let (known, allocations) =
            self.send_packets(&mut router, flows, self.packets.max(flows), FlowOrder::Jumping)?;
        ensure!(router.engine().count() == flows as usize, "{} connections, not {flows}", router.engine().count());
        Ok((known, new, allocations))
    }

    /// Nanoseconds and allocations a packet.
    fn send_packets(&self, router: &mut Router, flows: u32, packets: u32, order: FlowOrder) -> Result<(f64, f64)> {
        let mut batch: Vec<Vec<u8>> = (0..BATCH).map(|_| udp_packet(0, self.length)).collect();
        let (mut nanoseconds, mut allocations) = (0, 0);
        let mut visits = order.visits(flows);
        let mut sent = 0;
        while sent < packets {
            for (bytes, flow) in batch.iter_mut().zip(&mut visits) {
                set_flow(bytes, flow);
            }
            let (before, begin) = (counting_alloc::allocations(), Clock::now());
            // As the gateway does with a batch.
            router.prefetch(batch.iter().map(Vec::as_slice));
            for bytes in &batch {
                router.handle(bytes, 1, Instant(1_000_000_000)).map_err(|loss| anyhow::anyhow!("{loss}"))?;
                while let Some(sent) = router.poll_output() {
                    if let Egress::Forward { oif: 2, packet, .. } = sent {
                        router.recycle_buffer(packet);
                    }
                }
            }
            nanoseconds += begin.elapsed().as_nanos();
            allocations += counting_alloc::allocations() - before;
            sent += BATCH;
        }
        Ok((nanoseconds as f64 / f64::from(sent), allocations as f64 / f64::from(sent)))
    }
}

/// A router with two interfaces and a default route by the second.
pub fn router(sysctls: Sysctls, ruleset: &str) -> Result<Router> {
    let device = |index, name: &str, address: [u8; 4]| Interface {
        index,
        name: name.into(),
        mtu: 1500,
        group: 0,
        link_type: keepstate_router::LINK_TYPE_NONE,
        kind: String::new(),
        addresses: vec![(address.into(), 24)],
    };
    let interfaces = vec![device(1, "r0", [10, 0, 1, 1]), device(2, "r1", [10, 0, 2, 1])];
    let routes = vec![Route::new([0; 4].into(), 0, 2)];
    let engine = Engine::new(sysctls, Secret([7; 16]));
    Ok(Router::new(engine, program(ruleset)?, FibTable::new(interfaces, routes), (1, 2)))
}

fn program(ruleset: &str) -> Result<Program> {
    let (tree, sources) =
        parse_with("bench", ruleset, &NoIncludes, &[]).map_err(|refused| anyhow::anyhow!("{refused}"))?;
    compile(&tree, &sources).map_err(|refused| anyhow::anyhow!("{refused}"))
}

/// A UDP packet from 10.0.1.2 to 10.0.2.2.
pub fn udp_packet(flow: u32, length: u16) -> Vec<u8> {
    let length = length.max(28);
    let mut bytes = vec![0; usize::from(length)];
    let [high, low] = length.to_be_bytes();
    let [over, under] = (length - 20).to_be_bytes();
    let head =
        [0x45, 0, high, low, 0, 0, 0x40, 0, 64, 17, 0, 0, 10, 0, 1, 2, 10, 0, 2, 2, 0, 0, 0, 0, over, under, 0, 0];
    for (to, from) in bytes.iter_mut().zip(head) {
        *to = from;
    }
    let words = head.as_chunks::<2>().0.iter().take(10);
    let sum: u32 = words.map(|word| u32::from(u16::from_be_bytes(*word))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    if let Some(field) = bytes.get_mut(10..12) {
        field.copy_from_slice(&(!(folded as u16)).to_be_bytes());
    }
    set_flow(&mut bytes, flow);
    bytes
}

fn set_flow(bytes: &mut [u8], flow: u32) {
    let (source, destination) = ((1024 + flow % 60_000) as u16, (7000 + flow / 60_000) as u16);
    if let Some(ports) = bytes.get_mut(20..24) {
        ports[..2].copy_from_slice(&source.to_be_bytes());
        ports[2..].copy_from_slice(&destination.to_be_bytes());
    }
}
