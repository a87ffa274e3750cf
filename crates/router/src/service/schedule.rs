//! Who gets a new connection, of those who may: the schedulers.
//!
//! A schedule is made anew whenever it changes who may get connections, or by what weight; in between it is asked once a connection. It holds no clock and
//! draws no lots of its own: what is random is handed in.
use super::candidate::Candidate;
use super::config::{HashInput, Scheduler};
use super::maglev::Maglev;
use keepstate_engine::Tuple;
use siphasher::sip::SipHasher13;
use std::hash::Hasher;
use std::net::IpAddr;

/// What a scheduler keeps.
#[derive(Clone, Debug)]
enum SchedulerState {
    /// How far each is ahead of his turn.
    RoundRobin(Vec<i64>),
    Random,
    SourceHash,
    Maglev(Maglev),
    LeastConnections,
}

/// A scheduler at work.
#[derive(Clone, Debug)]
pub(super) struct Schedule {
    scheduler: Scheduler,
    method: SchedulerState,
    candidates: Vec<Candidate>,
    /// The weights summed up, up to and with each candidate.
    cumulative_weights: Vec<u64>,
}

impl Schedule {
    /// A schedule of these candidates, in an order of their own.
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

    /// Is it what would be made of these?
    pub(super) fn is_for(&self, scheduler: Scheduler, candidates: &[Candidate]) -> bool {
        self.scheduler == scheduler && self.candidates == candidates
    }

    /// The member who gets a connection: by the hash of its client, by a lot, and by how many connections each member has.
    pub(super) fn pick(&mut self, hash: u64, random: u64, live: impl Fn(usize) -> u64) -> Option<usize> {
        let number = match &mut self.method {
            SchedulerState::RoundRobin(ahead) => smooth_weighted_round_robin(&self.candidates, ahead),
            SchedulerState::Random => self.by_weight(random),
            SchedulerState::SourceHash => self.by_weight(hash),
            SchedulerState::Maglev(table) => table.pick(hash),
            SchedulerState::LeastConnections => {
                // One more than there are: so that of those without any the heaviest is first.
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

    /// Whose share `number` falls in, if all numbers there are were shared out by weight.
    fn by_weight(&self, number: u64) -> Option<usize> {
        let all = *self.cumulative_weights.last()?;
        let at = (u128::from(number) * u128::from(all)) >> 64;
        Some(self.cumulative_weights.partition_point(|sum| u128::from(*sum) <= at))
    }
}

/// Round robin by weight, evenly mixed: each gains his weight, who is ahead has his turn, and pays for it what all have gained.
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

/// Two hashes of a backend: who knows the same backends makes the same table of them.
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

/// Keeps what is hashed for one purpose apart from what is hashed for another.
const CLIENT_HASH_KEY: u64 = 1;
const BACKEND_HASH_KEYS: [u64; 2] = [2, 3];

#[cfg(test)]
mod tests;
