//! The schedulers: which backend gets a new connection.
//!
//! A schedule is rebuilt when the backends that may get connections, or their weights, change; in between it is asked once a connection. It has no clock and
//! no randomness: random numbers are arguments.
use super::candidate::Candidate;
use super::config::{HashInput, Scheduler};
use super::maglev::Maglev;
use keepstate_engine::Tuple;
use siphasher::sip::SipHasher13;
use std::hash::Hasher;
use std::net::IpAddr;

/// The state of a scheduler.
#[derive(Clone, Debug)]
enum SchedulerState {
    /// The current weight of each candidate.
    RoundRobin(Vec<i64>),
    Random,
    SourceHash,
    Maglev(Maglev),
    LeastConnections,
}

/// A scheduler and its candidates.
#[derive(Clone, Debug)]
pub(super) struct Schedule {
    scheduler: Scheduler,
    method: SchedulerState,
    candidates: Vec<Candidate>,
    /// Cumulative weights, each with its candidate's included.
    cumulative_weights: Vec<u64>,
}

impl Schedule {
    /// A schedule of these candidates, in their order.
    pub(super) fn new(scheduler: Scheduler, candidates: Vec<Candidate>) -> Schedule {
        let method = match scheduler {
            Scheduler::RoundRobin => SchedulerState::RoundRobin(vec![0; candidates.len()]),
            Scheduler::Random => SchedulerState::Random,
            Scheduler::SourceHash => SchedulerState::SourceHash,
            Scheduler::Maglev => SchedulerState::Maglev(Maglev::new(&candidates)),
            Scheduler::LeastConnections => SchedulerState::LeastConnections,
        };
        let sums = candidates.iter().scan(0, |sum, candidate| {
            *sum += u64::from(candidate.weight);
            Some(*sum)
        });
        Schedule { scheduler, method, cumulative_weights: sums.collect(), candidates }
    }

    /// Was it built from these?
    pub(super) fn is_for(&self, scheduler: Scheduler, candidates: &[Candidate]) -> bool {
        self.scheduler == scheduler && self.candidates == candidates
    }

    /// The index of the backend for a connection: by the hash of its client, a random number, and each backend's number of connections.
    pub(super) fn pick(&mut self, hash: u64, random: u64, live: impl Fn(usize) -> u64) -> Option<usize> {
        let number = match &mut self.method {
            SchedulerState::RoundRobin(ahead) => smooth_weighted_round_robin(&self.candidates, ahead),
            SchedulerState::Random => self.by_weight(random),
            SchedulerState::SourceHash => self.by_weight(hash),
            SchedulerState::Maglev(table) => table.pick(hash),
            SchedulerState::LeastConnections => {
                // One more than there are: so that of idle backends the heaviest is first.
                let load = |candidate: &Candidate| u128::from(live(candidate.index)) + 1;
                let of = |candidate: &Candidate| u128::from(candidate.weight);
                let numbers = 0..self.candidates.len();
                numbers.reduce(|best, other| match (self.candidates.get(best), self.candidates.get(other)) {
                    (Some(one), Some(two)) if load(two) * of(one) < load(one) * of(two) => other,
                    _ => best,
                })
            }
        };
        number.and_then(|number| self.candidates.get(number)).map(|candidate| candidate.index)
    }

    /// The candidate whose share, by weight, of all 64-bit numbers contains `number`.
    fn by_weight(&self, number: u64) -> Option<usize> {
        let all = *self.cumulative_weights.last()?;
        let at = (u128::from(number) * u128::from(all)) >> 64;
        Some(self.cumulative_weights.partition_point(|sum| u128::from(*sum) <= at))
    }
}

/// Smooth weighted round robin: each gains its weight, the one with the most is chosen and loses the sum of all weights.
fn smooth_weighted_round_robin(candidates: &[Candidate], ahead: &mut [i64]) -> Option<usize> {
    let mut all = 0;
    let mut best: Option<(usize, i64)> = None;
    for (number, (candidate, ahead)) in candidates.iter().zip(ahead.iter_mut()).enumerate() {
        *ahead += i64::from(candidate.weight);
        all += i64::from(candidate.weight);
        if best.is_none_or(|(_, most)| *ahead > most) {
            best = Some((number, *ahead));
        }
    }
    let (number, _) = best?;
    *ahead.get_mut(number)? -= all;
    Some(number)
}

/// The hash of a client.
pub(super) fn hash_client(seed: u64, hashed: HashInput, tuple: &Tuple) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(seed, CLIENT_HASH_KEY);
    write_address(&mut hasher, tuple.source);
    if hashed == HashInput::AddressAndPort {
        hasher.write_u16(tuple.source_key.to_be());
    }
    hasher.finish()
}

/// Two hashes of a backend: routers with the same backends build the same table.
pub(super) fn hash_backend(seed: u64, address: IpAddr, port: Option<u16>) -> [u64; 2] {
    BACKEND_HASH_KEYS.map(|key| {
        let mut hasher = SipHasher13::new_with_keys(seed, key);
        write_address(&mut hasher, address);
        hasher.write_u16(port.unwrap_or(0).to_be());
        hasher.finish()
    })
}

fn write_address(hasher: &mut SipHasher13, address: IpAddr) {
    match address {
        IpAddr::V4(address) => hasher.write(&address.octets()),
        IpAddr::V6(address) => hasher.write(&address.octets()),
    }
}

/// Keys that separate the hashes by purpose.
const CLIENT_HASH_KEY: u64 = 1;
const BACKEND_HASH_KEYS: [u64; 2] = [2, 3];

#[cfg(test)]
mod tests;
