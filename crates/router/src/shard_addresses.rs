//! Which of a cluster's shards an address, and so a connection, belongs to.
use keepstate_engine::Tuple;
use std::net::IpAddr;
use std::ops::RangeInclusive;

/// The addresses of all shards, as ranges. A shard is named by its place in the configuration, which is the same on all gateways.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShardAddresses {
    /// First and last address, and the shard: sorted.
    ranges: Vec<(IpAddr, IpAddr, usize)>,
    count: usize,
}

/// What decides over a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionShard {
    /// This shard: it has the connection's outside address, or else the address that the client has asked for.
    Of(usize),
    /// None: it has no address of a shard, and is this gateway's alone.
    Local,
    /// Its source is translated to an address of no shard, which other gateways might give too.
    Unassigned,
}

impl ShardAddresses {
    /// The addresses of each shard; no address may be in two of the ranges.
    pub fn new(shards: &[Vec<RangeInclusive<IpAddr>>]) -> ShardAddresses {
        let all = shards.iter().enumerate();
        let ranges =
            all.flat_map(|(shard, ranges)| ranges.iter().map(move |range| (*range.start(), *range.end(), shard)));
        let mut ranges: Vec<(IpAddr, IpAddr, usize)> = ranges.collect();
        ranges.sort_unstable();
        ShardAddresses { ranges, count: shards.len() }
    }

    /// Number of shards.
    pub fn count(&self) -> usize {
        self.count
    }

    /// All addresses, each range with its shard.
    pub fn iter(&self) -> impl Iterator<Item = (RangeInclusive<IpAddr>, usize)> + '_ {
        self.ranges.iter().map(|(first, last, shard)| (*first..=*last, *shard))
    }

    /// The shard of an address.
    pub fn of_address(&self, address: IpAddr) -> Option<usize> {
        let behind = self.ranges.partition_point(|(first, ..)| *first <= address);
        let (_, last, shard) = self.ranges.get(behind.checked_sub(1)?)?;
        (address <= *last).then_some(*shard)
    }

    /// The shard of a connection with these tuples: that of its outside address if its source is translated, else that of the address the client has asked for, which a service or DNAT may have.
    pub fn of_connection(&self, original: &Tuple, reply: &Tuple) -> ConnectionShard {
        if reply.destination != original.source {
            return self.of_address(reply.destination).map_or(ConnectionShard::Unassigned, ConnectionShard::Of);
        }
        self.of_address(original.destination).map_or(ConnectionShard::Local, ConnectionShard::Of)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn the_outside_address_decides_and_without_one_the_address_that_was_asked_for() {
        let address = |last: u8| IpAddr::from(Ipv4Addr::new(192, 0, 2, last));
        let (inside, peer, backend) = ([10, 0, 0, 2].into(), [198, 51, 100, 9].into(), [10, 0, 0, 80].into());
        let one = |last: u8| address(last)..=address(last);
        let shards = ShardAddresses::new(&[vec![one(1), address(64)..=address(127)], vec![one(2), one(3)]]);
        for (last, shard) in [(1, Some(0)), (2, Some(1)), (3, Some(1)), (63, None), (64, Some(0)), (127, Some(0))] {
            assert_eq!(shards.of_address(address(last)), shard, "{last}");
        }
        assert_eq!((shards.of_address(address(128)), shards.of_address("::1".parse().unwrap())), (None, None));
        let shard = |[from, to, back_from, back_to]: [IpAddr; 4]| {
            let tuple =
                |source, destination| Tuple { source, destination, protocol: 6, source_key: 1, destination_key: 2 };
            shards.of_connection(&tuple(from, to), &tuple(back_from, back_to))
        };
        assert_eq!(shard([inside, peer, peer, address(1)]), ConnectionShard::Of(0));
        assert_eq!(shard([inside, peer, peer, address(3)]), ConnectionShard::Of(1));
        assert_eq!(shard([peer, address(2), backend, peer]), ConnectionShard::Of(1));
        // A client of one shard and a service of another: its own outside address is what must be unique.
        assert_eq!(shard([inside, address(2), backend, address(1)]), ConnectionShard::Of(0));
        assert_eq!(shard([inside, address(2), address(2), address(1)]), ConnectionShard::Of(0));
        // The client's own address is no outside address of ours, even if it is one of a shard.
        assert_eq!(shard([address(1), address(2), backend, address(1)]), ConnectionShard::Of(1));
        assert_eq!(shard([inside, peer, peer, inside]), ConnectionShard::Local);
        assert_eq!(shard([inside, peer, peer, address(9)]), ConnectionShard::Unassigned);
        assert_eq!(shard([inside, address(2), backend, address(9)]), ConnectionShard::Unassigned);
    }
}
