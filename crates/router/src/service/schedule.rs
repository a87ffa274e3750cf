//! Who gets a new connection, of those who may: the schedulers.
//!
//! A schedule is made anew whenever it changes who may get connections, or by what weight; in between it is asked once a connection. It holds no clock and
//! draws no lots of its own: what is random is handed in.
use super::maglev::Maglev;
use super::{Hashed, Scheduler};
use keepstate_engine::Tuple;
use siphasher::sip::SipHasher13;
use std::hash::Hasher;
use std::net::IpAddr;

/// One who may get connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    /// His place among the service's members.
    pub(super) member: usize,
    /// His weight, at least 1.
    pub(super) weight: u16,
    /// Two hashes of who he is.
    pub(super) hashes: [u64; 2],
}

/// What a scheduler keeps.
#[derive(Clone, Debug)]
enum Method {
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
    method: Method,
    candidates: Vec<Candidate>,
    /// The weights summed up, up to and with each candidate.
    sums: Vec<u64>,
}

impl Schedule {
    /// A schedule of these candidates, in an order of their own.
    pub(super) fn new(scheduler: Scheduler, candidates: Vec<Candidate>) -> Schedule {
        let method = match scheduler {
            Scheduler::RoundRobin => Method::RoundRobin(vec![0; candidates.len()]),
            Scheduler::Random => Method::Random,
            Scheduler::SourceHash => Method::SourceHash,
            Scheduler::Maglev => Method::Maglev(Maglev::new(&candidates)),
            Scheduler::LeastConnections => Method::LeastConnections,
        };
        let sums = candidates.iter().scan(0, |sum, candidate| {
            *sum += u64::from(candidate.weight);
            Some(*sum)
        });
        Schedule { scheduler, method, sums: sums.collect(), candidates }
    }

    /// Is it what would be made of these?
    pub(super) fn is_of(&self, scheduler: Scheduler, candidates: &[Candidate]) -> bool {
        self.scheduler == scheduler && self.candidates == candidates
    }

    /// The member who gets a connection: by the hash of its client, by a lot, and by how many connections each member has.
    pub(super) fn pick(&mut self, hash: u64, lot: u64, live: impl Fn(usize) -> u64) -> Option<usize> {
        let number = match &mut self.method {
            Method::RoundRobin(ahead) => in_turn(&self.candidates, ahead),
            Method::Random => self.share(lot),
            Method::SourceHash => self.share(hash),
            Method::Maglev(table) => table.pick(hash),
            Method::LeastConnections => {
                // One more than there are: so that of those without any the heaviest is first.
                let load = |candidate: &Candidate| u128::from(live(candidate.member)) + 1;
                let of = |candidate: &Candidate| u128::from(candidate.weight);
                let numbers = 0..self.candidates.len();
                numbers.reduce(|best, other| match (self.candidates.get(best), self.candidates.get(other)) {
                    (Some(one), Some(two)) if load(two) * of(one) < load(one) * of(two) => other,
                    _ => best,
                })
            }
        };
        number.and_then(|number| self.candidates.get(number)).map(|candidate| candidate.member)
    }

    /// Whose share `number` falls in, if all numbers there are were shared out by weight.
    fn share(&self, number: u64) -> Option<usize> {
        let all = *self.sums.last()?;
        let at = (u128::from(number) * u128::from(all)) >> 64;
        Some(self.sums.partition_point(|sum| u128::from(*sum) <= at))
    }
}

/// Round robin by weight, evenly mixed: each gains his weight, who is ahead has his turn, and pays for it what all have gained.
fn in_turn(candidates: &[Candidate], ahead: &mut [i64]) -> Option<usize> {
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
pub(super) fn hash_client(seed: u64, hashed: Hashed, tuple: &Tuple) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(seed, CLIENTS);
    write_address(&mut hasher, tuple.source);
    if hashed == Hashed::AddressAndPort {
        hasher.write_u16(tuple.source_key.to_be());
    }
    hasher.finish()
}

/// Two hashes of a backend: who knows the same backends makes the same table of them.
pub(super) fn hash_backend(seed: u64, address: IpAddr, port: Option<u16>) -> [u64; 2] {
    PLACE_AND_STEP.map(|key| {
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
const CLIENTS: u64 = 1;
const PLACE_AND_STEP: [u64; 2] = [2, 3];

#[cfg(test)]
mod tests;
