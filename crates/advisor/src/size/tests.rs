use super::*;
use keepstate_engine::{KernelVersion, Sysctl, Sysctls};
use proptest::prelude::*;

const GIB: u64 = 1 << 30;

fn broker(connections: u64) -> Demand {
    Demand { connections, rate: 0.0, ..Profile::MqttBroker.demand() }.completed()
}

fn size_for(demand: Demand) -> SizeAdvice {
    size(&Workload::Demand(demand), &SizingMachine::new(KernelVersion::V6_18, 16 * GIB))
}

#[test]
fn mqtt_broker_with_100k_clients() {
    // 8 cores, 4 GB, 5.15: 65,536 by default, and a hundred thousand clients.
    let machine = SizingMachine { cpus: Some(8), ..SizingMachine::new(KernelVersion::V5_15, 4 * GIB) };
    let size = size(&Workload::Demand(broker(100_000)), &machine);
    let own = size.defaults.iter().find(|own| own.kernels == "5.15 to 6.17").unwrap();
    assert_eq!((own.max, own.buckets, own.carries), (65_536, 65_536, false));
    assert_eq!(size.load.parts[0].connections, 100_000);
    assert!((150_000..160_000).contains(&size.max.value), "{:?}", size.max);
    assert_eq!(size.buckets.value, size.max.value);
    assert_eq!(size.memory.objects, size.max.value * 256);
    assert_eq!((size.memory.extensions, size.memory.buckets), (0, size.max.value * 8));
    assert!(size.warnings.is_empty(), "{:?}", size.warnings);
}

#[test]
fn littles_law_completes_the_demand() {
    let by_rate = Demand { connections: 0, rate: 500.0, lifetime: 60.0, ..broker(1) }.completed();
    assert_eq!(by_rate.connections, 30_000);
    let by_count = Demand { connections: 30_000, rate: 0.0, lifetime: 60.0, ..broker(1) }.completed();
    assert_eq!(by_count.rate, 500.0);
    let by_both = Demand { connections: 30_000, rate: 500.0, lifetime: 0.0, ..broker(1) }.completed();
    assert_eq!(by_both.lifetime, 60.0);
}

#[test]
fn established_timeout_outlasts_keepalive() {
    let with = |keepalive| Demand { keepalive: Some(keepalive), ..broker(1000) };
    assert_eq!(with(60).min_established_timeout().0, 7440);
    // Four hours of keepalive: 1.5 × and a minute, the article's 21,600 s and a minute.
    assert_eq!(with(14_400).min_established_timeout().0, 21_660);
    assert!(with(u64::MAX).min_established_timeout().0 > 1 << 62);

    // A gateway never learns that a peer is gone: there, and only there, five days cost places.
    let gateway = size_for(Profile::NatGateway.demand());
    let established = &gateway.timeouts[0];
    assert_eq!(
        (established.knob, established.present, established.advised),
        ("nf_conntrack_tcp_timeout_established", 432_000, 10_800)
    );
    assert!(gateway.max_with_present_timeouts.unwrap().value > 10 * gateway.max.value);
    let here = size_for(broker(100_000));
    assert_eq!((here.timeouts[0].advised, here.max_with_present_timeouts), (432_000, None));
}

#[test]
fn too_short_a_timeout_is_raised() {
    let mut machine = SizingMachine::new(KernelVersion::V6_18, 16 * GIB);
    machine.knobs.set(Sysctl::TcpTimeoutEstablished, 3600).unwrap();
    let demand = Demand { keepalive: Some(14_400), notice: Some(21_600), ..broker(1000) };
    let size = size(&Workload::Demand(demand), &machine);
    assert_eq!((size.timeouts[0].present, size.timeouts[0].advised), (3600, 25_200));
    assert!(size.timeouts[0].why.contains("at least 6 h 1 min"), "{}", size.timeouts[0].why);
}

#[test]
fn time_wait_is_rate_times_timeout() {
    let demand = Demand { silent: 0.0, half_open_rate: 0.0, storm: 0.0, ..Profile::WebServer.demand() };
    let size = size_for(Demand { rate: 1000.0, lifetime: 1.0, connections: 0, ..demand }.completed());
    let part = size.load.parts.iter().find(|part| part.name == "TIME_WAIT").unwrap();
    assert_eq!((part.connections, part.knob), (120_000, Some("nf_conntrack_tcp_timeout_time_wait")));
    assert_eq!((size.load.steady, size.load.peak), (121_000, 121_000));
}

#[test]
fn extension_memory_is_counted_only_when_used() {
    let machine = SizingMachine::new(KernelVersion::V6_18, 16 * GIB);
    let cost = |knob: Option<Sysctl>, nat| {
        let mut machine = machine.clone();
        knob.into_iter().for_each(|knob| machine.knobs.set(knob, 1).unwrap());
        size(&Workload::Demand(Demand { nat, ..broker(1000) }), &machine).memory.extension
    };
    assert_eq!((cost(None, false), cost(None, true)), (0, 128));
    for knob in [Sysctl::Acct, Sysctl::Timestamp, Sysctl::Events] {
        assert_eq!(cost(Some(knob), false), 128, "{knob:?}");
    }
}

#[test]
fn chain_lengths_follow_poisson() {
    let few = hash_chains::chain_lengths(16_384, 65_536);
    assert_eq!((few.average, few.walked), (0.5, 1.25));
    assert!((5..=7).contains(&few.worst), "{few:?}");
    // hashsize= alone: eight connections a bucket.
    let many = hash_chains::chain_lengths(524_288, 65_536);
    assert_eq!(many.average, 16.0);
    assert!((34..=42).contains(&many.worst), "{many:?}");
    // Max raised and buckets forgotten: past the kernel's limit.
    assert!(hash_chains::chain_lengths(1_000_000, 65_536).worst >= hash_chains::CHAIN_LIMIT[0]);
    assert_eq!(hash_chains::chain_lengths(0, 0).worst, 0);
    assert!(hash_chains::chain_lengths(u64::MAX, 1).worst > 1 << 62);
}

#[test]
fn longest_chain_matches_random_hashing() {
    // Thrown by a small generator: the mean of the longest of many rounds lies beside what is expected.
    let (balls, bins, rounds) = (8192_u64, 4096_u64, 40_u64);
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut sum = 0;
    for _ in 0..rounds {
        let mut lengths = vec![0_u64; 4096];
        for _ in 0..balls {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            lengths[((state >> 33) % bins) as usize] += 1;
        }
        sum += lengths.into_iter().max().unwrap();
    }
    let expected = hash_chains::chain_lengths(balls / 2, bins).worst;
    let mean = sum as f64 / rounds as f64;
    assert!((mean - expected as f64).abs() < 1.5, "{mean} thrown, {expected} expected");
}

#[test]
fn observed_table_is_sized() {
    let machine = SizingMachine { max: Some(65_536), ..SizingMachine::new(KernelVersion::V5_15, 4 * GIB) };
    let seen = ObservedLoad { connections: 40_000, max: Some(65_536), ..ObservedLoad::default() };
    let calm = size(&Workload::Observed(seen.clone()), &machine);
    assert_eq!((calm.load.steady, calm.load.peak), (40_000, 50_000));
    let growing = ObservedLoad { growth: Some(5.0), rate: Some(100.0), ..seen.clone() };
    let growing = size(&Workload::Observed(growing), &machine);
    assert_eq!((growing.load.steady, growing.load.peak, growing.timeouts[0].holds), (40_000, 68_000, 12_000));
    let full = size(&Workload::Observed(ObservedLoad { connections: 65_536, ..seen.clone() }), &machine);
    assert_eq!(full.load.steady, 131_072);
    assert!(full.warnings.iter().any(|warning| warning.contains("the table is full")), "{:?}", full.warnings);
    let dropping = ObservedLoad { dropped: Some(1), ..seen };
    assert_eq!(size(&Workload::Observed(dropping), &machine).load.steady, 131_072);
}

#[test]
fn warnings_are_given() {
    let warned = |machine: SizingMachine, connections: u64, word: &str| {
        let size = size(&Workload::Demand(broker(connections)), &machine);
        assert!(size.warnings.iter().any(|warning| warning.contains(word)), "no {word:?}: {:?}", size.warnings);
    };
    let small = SizingMachine::new(KernelVersion::V6_18, GIB / 2);
    warned(small.clone(), 1_000_000, "a full table takes");
    warned(small.clone(), 3_000_000_000, "more than a table can hold");
    warned(SizingMachine { max: Some(0), ..small.clone() }, 10, "unlimited");
    warned(SizingMachine { max: Some(1 << 20), ..small.clone() }, 10, "keep it");
    warned(SizingMachine { namespaces: 3, ..small.clone() }, 10, "3 network namespaces");
    warned(SizingMachine { buckets: Some(16_384), ..small }, 1_000_000, "chaintoolong");
    let node = Workload::Demand(Profile::KubernetesNode.demand());
    let eight = SizingMachine { cpus: Some(8), ..SizingMachine::new(KernelVersion::V6_18, 16 * GIB) };
    assert!(size(&node, &eight).warnings.iter().any(|warning| warning.contains("262,144")));
}

#[test]
fn kernel_version_of_release() {
    use kernel_defaults::version_of_release;
    for (release, generation) in [
        ("3.10.0-1160.el7.x86_64", KernelVersion::V3_10),
        ("4.19.0", KernelVersion::V4_19),
        ("5.14.21-150500", KernelVersion::V4_19),
        ("5.15.0-91-generic", KernelVersion::V5_15),
        ("6.17", KernelVersion::V5_15),
        ("6.18.44", KernelVersion::V6_18),
        ("7.0-rc1", KernelVersion::V6_18),
    ] {
        assert_eq!(version_of_release(release), Some(generation), "{release}");
    }
    assert_eq!((version_of_release(""), version_of_release("linux"), version_of_release("6")), (None, None, None));
}

#[test]
fn kernel_3_10_buckets_are_capped_at_16384() {
    let knobs = Sysctls::kernel_defaults(KernelVersion::V3_10, 64 * GIB);
    assert_eq!((knobs[Sysctl::Buckets], knobs[Sysctl::Max]), (16_384, 65_536));
    assert_eq!(Sysctls::kernel_defaults(KernelVersion::V4_19, 64 * GIB)[Sysctl::Buckets], 65_536);
}

fn demands() -> impl Strategy<Value = Demand> {
    let shares = (0.0..=1.0, 0.0..=1.0);
    let rates = (0.0..1e6, 0.0..1e6, 0.0..1e6);
    (1..5_000_000_u64, 1.0..1e7, shares, rates, proptest::option::of(1..100_000_u64), any::<bool>()).prop_map(
        |(connections, lifetime, (silent, storm), (rate, udp_rate, half_open_rate), notice, nat)| Demand {
            profile: None,
            connections,
            rate,
            lifetime,
            keepalive: notice,
            silent,
            notice: notice.map(|notice| notice * 2),
            udp_rate,
            half_open_rate,
            storm,
            nat,
        },
    )
}

proptest! {
    /// Whatever is asked for fits, or a warning says that it cannot; sizes are whole pages; the parts are the whole.
    #[test]
    fn load_always_fits(demand in demands()) {
        let size = size_for(demand);
        let beyond = size.warnings.iter().any(|warning| warning.contains("more than a table can hold"));
        prop_assert!(size.load.peak <= size.max.value || beyond);
        prop_assert_eq!(size.max.value % BUCKETS_PER_PAGE, 0);
        prop_assert!(size.load.steady <= size.load.peak);
        prop_assert_eq!(size.load.parts.iter().map(|part| part.connections).sum::<u64>(), size.load.peak);
        prop_assert_eq!(size.memory.full, size.memory.objects + size.memory.extensions + size.memory.buckets);
        prop_assert!(size.lists.steady.worst <= size.lists.full.worst || beyond);
        for timeout in &size.timeouts {
            prop_assert!(timeout.advised > 0 && !timeout.why.is_empty());
        }
    }

    /// More to carry never costs less, nor takes fewer places.
    #[test]
    fn more_demand_never_advises_less(demand in demands(), more in 1..1_000_000_u64) {
        let larger = Demand { connections: demand.connections + more, ..demand.clone() };
        // The rate, and so all that follows from it, is the same; timeouts too: with more that live, a shorter one may not be worth it.
        let machine = SizingMachine::new(KernelVersion::V6_18, 16 * GIB);
        let (less, more) = (load::estimate(&Workload::Demand(demand.clone()), &machine.knobs), load::estimate(&Workload::Demand(larger), &machine.knobs));
        prop_assert!(less.steady < more.steady && less.peak < more.peak);
        let (few, many) = (recommend_max(&less).value, recommend_max(&more).value);
        prop_assert!(few <= many);
        let cost = |load: &TableLoad, max| memory::memory_cost(&machine, demand.nat, load, max, max);
        prop_assert!(cost(&less, few).full <= cost(&more, many).full && cost(&less, few).steady <= cost(&more, many).steady);
    }

    /// More connections or fewer buckets never make lists shorter.
    #[test]
    fn chains_grow_with_load(connections in 1..3_000_000_u64, buckets in 1..3_000_000_u64) {
        let here = hash_chains::chain_lengths(connections, buckets);
        let fuller = hash_chains::chain_lengths(connections + connections / 10 + 1, buckets);
        prop_assert!(here.average < fuller.average && here.worst <= fuller.worst);
        prop_assert!(here.worst as f64 >= here.average.floor() || here.average < 1.0);
    }
}
