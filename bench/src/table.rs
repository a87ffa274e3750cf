//! `bench table`: the engine and Linux's table in turns, for each table size; medians, and ratios within the same turn.
use crate::attack::{Attack, AttackFigures};
use crate::engine_bench::{CountedPackets, EngineFigures, EngineWorkload};
use crate::instructions::{self, InstructionFigures};
use crate::kernel_table;
use crate::median::median;
use crate::shards::{self, ShardFigures};
use crate::table_case::TableCase;
use anyhow::Result;
use clap::Args;

/// Measure ns and allocations a packet and bytes a connection, beside Linux's conntrack table
#[derive(Args)]
pub struct TableBench {
    /// Connections in the table; several numbers separated by commas
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 65_536, 1_000_000, 10_000_000])]
    sizes: Vec<u32>,
    /// Rounds, for medians
    #[arg(long, default_value_t = 3)]
    turns: usize,
    /// Only the engine, without Linux
    #[arg(long)]
    alone: bool,
    /// Traffic, one row for each size; several separated by commas (Linux is measured with TCP over IPv4)
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [TableCase::Tcp, TableCase::Tcp6, TableCase::Udp, TableCase::Udp6, TableCase::Nat, TableCase::Zone, TableCase::Track])]
    cases: Vec<TableCase>,
    /// Packets to known connections to measure, at least
    #[arg(long, default_value_t = 4_000_000)]
    packets: u32,
    /// Only the instructions a packet, counted by valgrind's callgrind in tables of 2,048 connections
    #[arg(long)]
    instructions: bool,
    /// Only known packets beside attacks, in tables at their limit; sizes above a million are left out
    #[arg(long)]
    attacks: bool,
    /// Only the table in one shard and in as many as there are processors, a thread each
    #[arg(long)]
    shards: bool,
    /// What callgrind runs: send the packets whose instructions it counts
    #[arg(long, value_enum, hide = true)]
    count: Option<CountedPackets>,
    /// Of `count`: one packet at a time
    #[arg(long, hide = true)]
    single: bool,
}

/// One round: the engine's result, and Linux's if it was measured.
type RoundFigures = (EngineFigures, Option<kernel_table::KernelFigures>);

impl TableBench {
    /// Runs the measurements, and prints the results.
    pub fn run(&self) -> Result<()> {
        if let Some(count) = self.count {
            return self.count_packets(count);
        }
        if self.instructions {
            return self.print_instructions();
        }
        if self.attacks {
            return self.print_attacks();
        }
        if self.shards {
            return self.print_shards();
        }
        println!(
            "ns a packet (new, expiry: a connection); median of {} turns; lookup and insert are Linux's bare ones",
            self.turns
        );
        println!(
            "{:>5} {:>11} | {:>6} | {:>6} {:>6} {:>6} | {:>6} {:>6} {:>6} {:>6} | {:>6} {:>6} | {:>6} {:>6} | {:>7} {:>7} | {:>6}",
            "",
            "connections",
            "parse",
            "known",
            "single",
            "lookup",
            "new",
            "first",
            "single",
            "insert",
            "expiry",
            "step",
            "alloc/",
            "alloc/",
            "known/",
            "new/",
            "bytes/"
        );
        println!(
            "{:>5} {:>11} | {:>6} | {:>6} {:>6} {:>6} | {:>6} {:>6} {:>6} {:>6} | {:>6} {:>6} | {:>6} {:>6} | {:>7} {:>7} | {:>6}",
            "",
            "",
            "",
            "x32",
            "",
            "Linux",
            "x32",
            "x32",
            "",
            "Linux",
            "",
            "µs",
            "known",
            "new",
            "lookup",
            "insert",
            "conn."
        );
        for case in &self.cases {
            for connections in &self.sizes {
                let turns = self.measure_rounds(*connections, *case)?;
                print(*connections, *case, &turns);
            }
        }
        Ok(())
    }

    fn print_attacks(&self) -> Result<()> {
        println!(
            "ns of a turn (upkeep, then 32 known packets) while hostile packets come between turns; the table is at its limit, half of it known"
        );
        println!(
            "{:>10} {:>11} | {:>8} {:>8} {:>8} | {:>14}",
            "", "connections", "median", "p99", "/ quiet", "hostile packet"
        );
        for connections in self.sizes.iter().filter(|size| **size <= 1_000_000) {
            let mut quiet = None;
            for attack in Attack::ALL {
                let turns = self.packets.div_ceil(32).min(100_000);
                let rounds: Vec<AttackFigures> =
                    (0..self.turns).map(|_| attack.measure(*connections, turns)).collect::<Result<_>>()?;
                let of =
                    |pick: fn(&AttackFigures) -> f64| median(rounds.iter().map(pick).collect()).unwrap_or(f64::NAN);
                let p99 = of(|figures| figures.p99);
                println!(
                    "{:>10} {connections:>11} | {:>8.0} {p99:>8.0} {:>8.2} | {:>14.0}",
                    attack.name(),
                    of(|figures| figures.median),
                    p99 / *quiet.get_or_insert(p99),
                    of(|figures| figures.hostile),
                );
            }
        }
        Ok(())
    }

    fn print_shards(&self) -> Result<()> {
        let most = std::thread::available_parallelism()?.get();
        println!(
            "millions of packets a second, median of {} turns; each thread has a shard and its own packets",
            self.turns
        );
        println!(
            "{:>11} {:>7} | {:>12} {:>7} {:>8} | {:>12} {:>7} {:>8}",
            "connections", "threads", "known/thread", "all", "x one", "new/thread", "all", "x one"
        );
        for connections in &self.sizes {
            let mut threads = 1;
            let mut one: Option<ShardFigures> = None;
            while threads <= most {
                let rounds = (self.packets / connections).clamp(2, 64).next_multiple_of(2);
                let turns: Vec<ShardFigures> =
                    (0..self.turns).map(|_| shards::measure(*connections, threads, rounds)).collect::<Result<_>>()?;
                let of = |pick: fn(&ShardFigures) -> f64| median(turns.iter().map(pick).collect()).unwrap_or(f64::NAN);
                let figures = ShardFigures { known: of(|figures| figures.known), new: of(|figures| figures.new) };
                let base = *one.get_or_insert(figures);
                let [known, new] = [figures.known, figures.new].map(|each| each * threads as f64);
                println!(
                    "{connections:>11} {threads:>7} | {:>12.2} {known:>7.2} {:>8.2} | {:>12.2} {new:>7.2} {:>8.2}",
                    figures.known,
                    known / base.known,
                    figures.new,
                    new / base.new
                );
                threads *= 2;
            }
        }
        Ok(())
    }

    fn print_instructions(&self) -> Result<()> {
        println!("instructions a packet, by callgrind; ways of calling the engine: in batches of 32, and one by one");
        println!("{:>5} | {:>9} {:>9} | {:>9} {:>9}", "", "known x32", "single", "new x32", "single");
        for case in &self.cases {
            let Some(InstructionFigures { known, known_single, new, new_single }) = instructions::measure(*case)?
            else {
                return Ok(());
            };
            println!("{:>5} | {known:>9.0} {known_single:>9.0} | {new:>9.0} {new_single:>9.0}", case.name());
        }
        Ok(())
    }

    fn count_packets(&self, count: CountedPackets) -> Result<()> {
        for case in &self.cases {
            for connections in &self.sizes {
                let work = EngineWorkload {
                    connections: *connections,
                    case: *case,
                    packets: self.packets,
                    count: Some(count),
                };
                println!("packets {}", work.count_packets(!self.single)?);
            }
        }
        Ok(())
    }

    fn measure_rounds(&self, connections: u32, case: TableCase) -> Result<Vec<RoundFigures>> {
        let mut turns = Vec::new();
        let mut linux = !self.alone && case == TableCase::Tcp;
        for _ in 0..self.turns {
            let ours = EngineWorkload { connections, case, packets: self.packets, count: None }.measure()?;
            let theirs = if linux { kernel_table::measure(connections)? } else { None };
            linux &= theirs.is_some();
            turns.push((ours, theirs));
        }
        Ok(turns)
    }
}

fn print(connections: u32, case: TableCase, turns: &[RoundFigures]) {
    let ours =
        |pick: fn(&EngineFigures) -> f64| median(turns.iter().map(|turn| pick(&turn.0)).collect()).unwrap_or(f64::NAN);
    let theirs = |pick: fn(&kernel_table::KernelFigures) -> f64| {
        median(turns.iter().filter_map(|turn| Some(pick(turn.1.as_ref()?))).collect()).unwrap_or(f64::NAN)
    };
    let ratio = |pick: fn(&EngineFigures, &kernel_table::KernelFigures) -> f64| {
        median(turns.iter().filter_map(|turn| Some(pick(&turn.0, turn.1.as_ref()?))).collect()).unwrap_or(f64::NAN)
    };
    println!(
        "{:>5} {connections:>11} | {:>6.1} | {:>6.1} {:>6.1} {:>6.0} | {:>6.1} {:>6.1} {:>6.1} {:>6.0} | {:>6.1} {:>6.1} | {:>6.3} {:>6.3} | {:>7} {:>7} | {:>6.1}",
        case.name(),
        ours(|f| f.parse),
        ours(|f| f.known_batched),
        ours(|f| f.known_single),
        theirs(|f| f.lookup),
        ours(|f| f.new_batched),
        ours(|f| f.new_first),
        ours(|f| f.new_single),
        theirs(|f| f.insert),
        ours(|f| f.expiry),
        ours(|f| f.longest_step),
        ours(|f| f.known_allocations),
        ours(|f| f.new_allocations),
        format_ratio(ratio(|our, linux| linux.lookup / our.known_batched)),
        format_ratio(ratio(|our, linux| linux.insert / our.new_batched)),
        ours(|f| f.bytes),
    );
}

fn format_ratio(ratio: f64) -> String {
    if ratio.is_nan() { "-".into() } else { format!("1/{ratio:.1}") }
}
