use super::super::maglev::TABLE_SIZE;
use super::*;

fn address(number: usize) -> IpAddr {
    IpAddr::V4((0x0a00_0001 + u32::try_from(number).unwrap()).into())
}

/// Members 0, 1, …, of these weights; a weight of 0 is somebody who may get nothing.
fn candidates(weights: &[u16]) -> Vec<Candidate> {
    let all = weights.iter().enumerate().map(|(member, weight)| Candidate {
        index: member,
        weight: *weight,
        hashes: hash_backend(0, address(member), Some(80)),
    });
    all.filter(|candidate| candidate.weight > 0).collect()
}

fn client(number: u32, port: u16) -> Tuple {
    Tuple {
        source: IpAddr::V4((0xc000_0200 + number).into()),
        destination: address(0),
        protocol: 6,
        source_key: port,
        destination_key: 80,
    }
}

/// Whom each of so many clients gets.
fn spread(schedule: &mut Schedule, clients: u32) -> Vec<usize> {
    let one = |number| {
        let tuple = client(number, 4000);
        let random = hash_client(77, HashInput::Address, &tuple);
        schedule.pick(hash_client(0, HashInput::Address, &tuple), random, |_| 0).unwrap()
    };
    (0..clients).map(one).collect()
}

fn counts(picked: &[usize], members: usize) -> Vec<f64> {
    (0..members).map(|member| picked.iter().filter(|other| **other == member).count() as f64).collect()
}

/// Pearson's statistic against what the weights say.
fn chi_square(counts: &[f64], weights: &[u16]) -> f64 {
    let (all, weight): (f64, f64) = (counts.iter().sum(), weights.iter().map(|weight| f64::from(*weight)).sum());
    let expected = weights.iter().map(|one| all * f64::from(*one) / weight);
    counts.iter().zip(expected).map(|(count, expected)| (count - expected).powi(2) / expected).sum()
}

#[test]
fn round_robin_mixes_evenly_by_weight() {
    let mut schedule = Schedule::new(Scheduler::RoundRobin, candidates(&[5, 1, 1]));
    let order: Vec<_> = (0..14).map(|_| schedule.pick(0, 0, |_| 0).unwrap()).collect();
    // The known sequence of smooth weighted round robin: never five in a row.
    assert_eq!(order, [0, 0, 1, 0, 2, 0, 0, 0, 0, 1, 0, 2, 0, 0]);
    let mut schedule = Schedule::new(Scheduler::RoundRobin, candidates(&[1, 1, 1]));
    let order: Vec<_> = (0..6).map(|_| schedule.pick(0, 0, |_| 0).unwrap()).collect();
    assert_eq!(order, [0, 1, 2, 0, 1, 2]);
}

#[test]
fn random_and_hash_schedulers_follow_weights() {
    let weights = [1, 2, 3, 4];
    for scheduler in [Scheduler::Random, Scheduler::SourceHash, Scheduler::Maglev] {
        let mut schedule = Schedule::new(scheduler, candidates(&weights));
        let counts = counts(&spread(&mut schedule, 20_000), 4);
        // Three degrees of freedom: 16.27 is met once in a thousand; the clients are always the same, so that this is decided once.
        let statistic = chi_square(&counts, &weights);
        assert!(statistic < 16.27, "{scheduler:?}: {statistic} {counts:?}");
    }
}

#[test]
fn hash_schedulers_map_a_client_to_one_backend() {
    for scheduler in [Scheduler::SourceHash, Scheduler::Maglev] {
        let mut schedule = Schedule::new(scheduler, candidates(&[1; 7]));
        let first = spread(&mut schedule, 500);
        assert_eq!(spread(&mut schedule, 500), first, "{scheduler:?}");
    }
    let by = |hashed, port| hash_client(0, hashed, &client(1, port));
    assert_eq!(by(HashInput::Address, 1), by(HashInput::Address, 2));
    assert_ne!(by(HashInput::AddressAndPort, 1), by(HashInput::AddressAndPort, 2));
    let seeded = |seed| hash_client(seed, HashInput::Address, &client(1, 1));
    assert_ne!(seeded(0), seeded(1));
}

/// The share of clients that move when a backend leaves, of those who need not.
fn fraction_moved(scheduler: Scheduler, weights: &[u16], leaves: usize) -> f64 {
    let mut less = weights.to_vec();
    less[leaves] = 0;
    let before = spread(&mut Schedule::new(scheduler, candidates(weights)), 20_000);
    let after = spread(&mut Schedule::new(scheduler, candidates(&less)), 20_000);
    assert!(after.iter().all(|member| *member != leaves));
    let stayed = before.iter().filter(|member| **member != leaves).count();
    let moved = before.iter().zip(&after).filter(|(before, after)| **before != leaves && before != after).count();
    moved as f64 / stayed as f64
}

#[test]
fn maglev_remaps_few_clients_when_a_backend_leaves() {
    for (weights, leaves) in [(&[1; 10][..], 0), (&[1; 10], 5), (&[1; 10], 9), (&[1; 100], 50), (&[3, 1, 2, 1], 1)] {
        let moved = fraction_moved(Scheduler::Maglev, weights, leaves);
        assert!(moved < 0.03, "{weights:?} without {leaves}: {moved}");
    }
    // That this is no property of any schedule:
    let moved = fraction_moved(Scheduler::SourceHash, &[1; 10], 0);
    assert!(moved > 0.3, "{moved}");
}

#[test]
fn maglev_slots_are_shared_by_weight_and_all_filled() {
    let places = |weights: &[u16]| {
        let table = Maglev::new(&candidates(weights));
        let mut counts = vec![0_usize; weights.len()];
        (0..TABLE_SIZE as u64).for_each(|hash| counts[table.pick(hash).unwrap()] += 1);
        assert_eq!(counts.iter().sum::<usize>(), TABLE_SIZE);
        counts
    };
    let even = places(&[7; 10]);
    // Turns are taken round by round: nobody is more than one ahead.
    assert!(even.iter().max().unwrap() - even.iter().min().unwrap() <= 1, "{even:?}");
    let uneven = places(&[1, 3]);
    assert!((uneven[1] as f64 / uneven[0] as f64 - 3.0).abs() < 0.01, "{uneven:?}");
    assert_eq!(Maglev::new(&[]).pick(7), None);
    assert_eq!(places(&[65_535, 1]).len(), 2);
}

#[test]
fn least_connections_is_weighted() {
    let mut schedule = Schedule::new(Scheduler::LeastConnections, candidates(&[1, 4, 1]));
    let mut live = [0_u64; 3];
    let mut order = Vec::new();
    for _ in 0..6 {
        let next = schedule.pick(0, 0, |member| live[member]).unwrap();
        live[next] += 1;
        order.push(next);
    }
    assert_eq!(order, [1, 1, 1, 0, 1, 2]);
    assert_eq!(schedule.pick(0, 0, |member| [9, 100, 2][member]), Some(2));
}

#[test]
fn no_candidates_no_backend() {
    for scheduler in Scheduler::ALL {
        assert_eq!(Schedule::new(scheduler, Vec::new()).pick(1, 2, |_| 0), None, "{scheduler:?}");
    }
}
