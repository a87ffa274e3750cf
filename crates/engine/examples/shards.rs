//! One table on two cores: each thread has a shard. A packet that belongs to the other shard is handed over, and so is a request to list what is there.
#![allow(clippy::unwrap_used, reason = "an example: the packets are its own")]

use keepstate_engine::wire::{Packet, checksum};
use keepstate_engine::{Engine, Instant, Secret, ShardInboxes, ShardMap, ShardedEngine, Sysctls, Tuple, Zone};
use std::sync::mpsc;

const NOW: Instant = Instant(0);

/// What a thread can be handed.
enum Handed {
    /// A packet of its shard.
    Packet(Vec<u8>),
    /// List your connections.
    List(mpsc::Sender<Vec<Tuple>>),
    /// No more will come.
    End,
}

/// A UDP packet over IPv4 without payload (and without a UDP checksum, which IPv4 permits).
fn udp_packet(source: ([u8; 4], u16), destination: ([u8; 4], u16)) -> Vec<u8> {
    let mut bytes = vec![0x45, 0, 0, 28, 0, 1, 0, 0, 64, 17, 0, 0];
    bytes.extend(source.0);
    bytes.extend(destination.0);
    let header_checksum = checksum::internet(&bytes);
    bytes[10..12].copy_from_slice(&header_checksum.to_be_bytes());
    bytes.extend(source.1.to_be_bytes());
    bytes.extend(destination.1.to_be_bytes());
    bytes.extend([0, 8, 0, 0]);
    bytes
}

/// A thread: the packets of its queue of the network card, then what others hand it.
fn run(own: usize, mut shard: Engine, map: &ShardMap, inboxes: &ShardInboxes<Handed>, queue: Vec<Vec<u8>>) -> Engine {
    let mut handed_over = 0;
    for bytes in queue {
        let packet = Packet::parse(&bytes).unwrap();
        match map.shard_of(&packet) {
            // If the inbox is full the packet is dropped, as by a network card without room.
            Some(other) if other != own => handed_over += u32::from(inboxes.send(other, Handed::Packet(bytes)).is_ok()),
            _ => drop(shard.handle(&packet, Zone::default(), NOW)),
        }
    }
    println!("thread {own}: {handed_over} packets handed over");
    loop {
        match inboxes.take(own) {
            Some(Handed::Packet(bytes)) => drop(shard.handle(&Packet::parse(&bytes).unwrap(), Zone::default(), NOW)),
            Some(Handed::List(answer)) => {
                // Whoever asked may be gone.
                let _ = answer.send(shard.entries(NOW).map(|entry| entry.original).collect());
            }
            Some(Handed::End) => return shard,
            // A real driver waits for its network card here, and is woken for its inbox.
            None => std::thread::yield_now(),
        }
    }
}

fn main() {
    let (map, shards) = ShardedEngine::new(Sysctls::default(), Secret([7; 16]), 2).into_shards();
    let inboxes = ShardInboxes::new(map.shards(), 256);
    let server = ([192, 0, 2, 53], 53);
    // The network card deals clients out in its own way.
    let queue = |thread: u8| (0..20).map(|n| udp_packet(([10, 0, thread, n], 40_000), server)).collect::<Vec<_>>();
    let shards = std::thread::scope(|scope| {
        let threads: Vec<_> = shards
            .into_iter()
            .zip(0u8..)
            .map(|(shard, thread)| {
                let (map, inboxes) = (&map, &inboxes);
                scope.spawn(move || run(thread.into(), shard, map, inboxes, queue(thread)))
            })
            .collect();
        while map.count() < 40 {
            std::thread::yield_now();
        }
        // A listing over all, while the threads run.
        let (answer, listed) = mpsc::channel();
        for shard in 0..map.shards() {
            assert!(inboxes.send(shard, Handed::List(answer.clone())).is_ok());
            assert!(inboxes.send(shard, Handed::End).is_ok());
        }
        drop(answer);
        let listed: Vec<usize> = listed.iter().map(|tuples| tuples.len()).collect();
        println!("{} connections listed", listed.iter().sum::<usize>());
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    // Together again, they are one table as before.
    let mut engine = ShardedEngine::from_shards(map, shards).unwrap();
    println!("{} connections in {} shards", engine.count(), engine.shards().len());
    engine.flush(NOW);
    println!("{} after a flush", engine.count());
}
