use super::timeseries::StateHistogram;
use super::*;
use crate::size::Profile;
use keepstate_engine::{KernelVersion, Sysctl, Sysctls, TcpState};
use proptest::prelude::*;

const GIB: u64 = 1 << 30;
const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

fn broker(clients: u32) -> TrafficModel {
    TrafficModel { clients: Some(clients), arrival: 500.0, ..TrafficModel::for_profile(Profile::MqttBroker) }
}

fn knobs(settings: &[(Sysctl, u64)]) -> Sysctls {
    let mut knobs = Sysctls::kernel_defaults(KernelVersion::V5_15, 4 * GIB);
    settings.iter().for_each(|(knob, value)| knobs.set(*knob, *value).unwrap());
    knobs
}

fn simulate(model: TrafficModel, knobs: Sysctls) -> Simulation {
    let mut simulation = Simulation::new(model, knobs, [7; 16]).unwrap();
    simulation.advance(u64::MAX);
    simulation.engine.check_invariants().unwrap();
    assert_eq!(simulation.engine.events_lost(), 0);
    simulation
}

fn entries_in_state(histogram: &StateHistogram, state: TcpState) -> u64 {
    histogram.0[state as usize]
}

#[test]
fn default_broker_table_is_full_at_65536() {
    // 4 GB, 5.15's defaults; more clients than that, none of whom leaves.
    let model = TrafficModel { lifetime: None, duration: 10 * MINUTE, ..broker(100_000) };
    let simulation = simulate(model, knobs(&[]));
    let record = simulation.timeseries();
    assert_eq!((record.limit(), record.peak.0), (65_536, 65_536));
    assert_eq!(record.full_at, Some(65_535 * 2));
    assert_eq!((simulation.stats.opened, simulation.stats.connected), (65_536, 65_536));
    assert_eq!(simulation.stats.clients_refused, 100_000 - 65_536);
    // Only the last of them were still half open when there was no more room.
    assert!(
        record.early_dropped.sum() < 100
            && entries_in_state(&record.early_dropped, TcpState::SynRecv) == record.early_dropped.sum()
    );
    assert_eq!(simulation.stats.syns_dropped + simulation.stats.broken, simulation.engine().counters().drop);
    let last = record.samples.last().unwrap();
    assert_eq!(
        (last.connections, last.assured, entries_in_state(&last.by_state, TcpState::Established)),
        (65_536, 65_536, 65_536)
    );
    let told = summarize(record, Some(&simulation.stats), 10 * MINUTE).join("\n");
    for piece in [
        "the table is full after 2 min 11 s: 65,536",
        "no new connections after 65,536",
        "100 % of the entries are ASSURED",
        "34,464 clients were refused",
    ] {
        assert!(told.contains(piece), "no {piece:?} in:\n{told}");
    }
}

#[test]
fn larger_table_accepts_all_clients() {
    let model = TrafficModel { lifetime: None, duration: 10 * MINUTE, ..broker(100_000) };
    let simulation = simulate(model, knobs(&[(Sysctl::Max, 158_208)]));
    assert_eq!((simulation.stats.opened, simulation.stats.refused, simulation.timeseries.full_at), (100_000, 0, None));
    assert!(summarize(simulation.timeseries(), Some(&simulation.stats), 1)[0].contains("never fills: peak 100,000"));
}

/// The shortcut and every packet: the same occupancy at each sample, the same tallies but for the packets.
fn assert_same_with_every_packet(model: &TrafficModel, knobs: &Sysctls) -> (u64, u64) {
    let short = simulate(TrafficModel { every_packet: false, ..model.clone() }, knobs.clone());
    let long = simulate(TrafficModel { every_packet: true, ..model.clone() }, knobs.clone());
    let pairs = short.timeseries.samples.iter().zip(&long.timeseries.samples);
    let different = pairs.into_iter().find(|(short, long)| short != long);
    assert!(different.is_none() && short.timeseries.samples.len() == long.timeseries.samples.len(), "{different:?}");
    assert_eq!((short.timeseries.peak, short.timeseries.full_at), (long.timeseries.peak, long.timeseries.full_at));
    assert_eq!(
        (short.timeseries.early_dropped, short.timeseries.expired),
        (long.timeseries.early_dropped, long.timeseries.expired)
    );
    let but_packets = |tally: ClientStats| ClientStats { packets: 0, ..tally };
    assert_eq!(but_packets(short.stats), but_packets(long.stats));
    (short.stats.packets, long.stats.packets)
}

#[test]
fn skipping_messages_changes_nothing() {
    // Everything at once: leaving, falling silent, storms of both kinds, a full table, a timeout that matters.
    let storms = vec![
        ReconnectStorm { at: HOUR, share: 0.5, cause: StormCause::Outage },
        ReconnectStorm { at: 2 * HOUR, share: 0.8, cause: StormCause::Restart },
    ];
    let model = TrafficModel {
        lifetime: Some(HOUR),
        silent: 0.3,
        notice: None,
        storms,
        arrival: 20.0,
        duration: 4 * HOUR,
        half_open_rate: 0.5,
        udp_rate: 0.5,
        ..broker(600)
    };
    for (established, max) in [(432_000, 65_536), (1800, 700), (7440, 1000), (90, 65_536), (45, 620)] {
        let knobs = knobs(&[(Sysctl::TcpTimeoutEstablished, established), (Sysctl::Max, max)]);
        let (short, long) = assert_same_with_every_packet(&model, &knobs);
        assert!(if established > 1000 { short * 3 < long } else { short <= long }, "{established}: {short} of {long}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn skipping_messages_changes_nothing_for_any_model(
        clients in 1..60_u32,
        lifetime in proptest::option::of(MINUTE..6 * HOUR),
        (keepalive, message) in (0..10 * MINUTE, proptest::option::of((1000..20 * MINUTE, 1..4000_u32))),
        silent in 0.0..=1.0,
        notice in proptest::option::of(1..30 * MINUTE),
        (established, max) in (1..20_000_u64, 10..100_u64),
        storm in 1..2 * HOUR,
        share in 0.0..=1.0,
    ) {
        let storms = vec![ReconnectStorm { at: storm, share, cause: StormCause::Outage }];
        let model = TrafficModel { lifetime, keepalive, message, silent, notice, storms, arrival: 5.0, duration: 2 * HOUR + 1, half_open_rate: 0.05, ..broker(clients) };
        assert_same_with_every_packet(&model, &knobs(&[(Sysctl::TcpTimeoutEstablished, established), (Sysctl::Max, max)]));
    }

    /// Whatever is asked, nothing panics, nothing is lost from the books, and the limit is kept.
    #[test]
    fn opened_and_ended_connections_balance(seed in any::<u64>(), max in 1..500_u64, silent in 0.0..=1.0, rate in 0.1..50.0) {
        let model = TrafficModel { arrival: rate, silent, duration: 5 * MINUTE, ..TrafficModel::for_profile(Profile::NatGateway) };
        let model = TrafficModel { udp_rate: rate, half_open_rate: rate, ..model };
        let mut secret = [0; 16];
        secret[..8].copy_from_slice(&seed.to_le_bytes());
        let mut simulation = Simulation::new(model, knobs(&[(Sysctl::Max, max)]), secret).unwrap();
        simulation.advance(u64::MAX);
        simulation.engine.check_invariants().unwrap();
        prop_assert!(simulation.timeseries.peak.0 <= max);
        prop_assert!(simulation.timeseries.samples.iter().all(|sample| sample.connections <= max && sample.by_state.sum() == sample.connections));
        let ended = simulation.stats.closed + simulation.stats.fell_silent + simulation.stats.connected + simulation.stats.broken;
        prop_assert!(simulation.stats.opened <= ended && ended <= simulation.stats.opened + simulation.stats.broken);
    }
}

#[test]
fn same_seed_gives_same_result() {
    let model = TrafficModel {
        duration: 5 * MINUTE,
        arrival: 50.0,
        udp_rate: 10.0,
        ..TrafficModel::for_profile(Profile::WebServer)
    };
    let (one, other) = (simulate(model.clone(), knobs(&[])), simulate(model, knobs(&[])));
    assert_eq!((one.stats, &one.timeseries.samples), (other.stats, &other.timeseries.samples));
}

#[test]
fn time_wait_is_rate_times_timeout() {
    let model = TrafficModel {
        arrival: 50.0,
        silent: 0.0,
        half_open_rate: 0.0,
        lifetime: Some(1000),
        duration: HOUR,
        ..TrafficModel::for_profile(Profile::WebServer)
    };
    let simulation = simulate(model, knobs(&[]));
    let later: Vec<u64> = simulation
        .timeseries
        .samples
        .iter()
        .filter(|sample| sample.at > 5 * MINUTE)
        .map(|sample| entries_in_state(&sample.by_state, TcpState::TimeWait))
        .collect();
    let mean = later.iter().sum::<u64>() as f64 / later.len() as f64;
    assert!((5700.0..6300.0).contains(&mean), "{mean}, not 50/s × 120 s");
}

#[test]
fn dead_peers_stay_for_the_established_timeout() {
    let model = TrafficModel {
        arrival: 1.0,
        silent: 1.0,
        lifetime: Some(1000),
        message: None,
        notice: None,
        udp_rate: 0.0,
        half_open_rate: 0.0,
        duration: 6 * HOUR,
        ..TrafficModel::for_profile(Profile::NatGateway)
    };
    let standing = |seconds| {
        simulate(model.clone(), knobs(&[(Sysctl::TcpTimeoutEstablished, seconds)]))
            .timeseries
            .samples
            .last()
            .unwrap()
            .connections
    };
    assert!((6900..8000).contains(&standing(7440)), "{}", standing(7440));
    assert!(standing(432_000) > 20_000);
}

#[test]
fn half_open_entries_are_early_dropped() {
    let model =
        TrafficModel { half_open_rate: 50.0, lifetime: None, arrival: 5.0, duration: 10 * MINUTE, ..broker(900) };
    let simulation = simulate(model, knobs(&[(Sysctl::Max, 1000)]));
    // Clients get in at the cost of those who never finish.
    assert_eq!(simulation.stats.connected, 900);
    let record = simulation.timeseries();
    assert!(entries_in_state(&record.early_dropped, TcpState::SynRecv) > 100, "{:?}", record.early_dropped.nonzero());
    assert_eq!(record.early_dropped.nonzero()[0].0, "SYN_RECV");
}

#[test]
fn timeout_below_keepalive_loses_live_connections() {
    let model = TrafficModel { lifetime: None, keepalive: 20 * MINUTE, duration: 2 * HOUR, ..broker(100) };
    let picked = simulate(model.clone(), knobs(&[(Sysctl::TcpTimeoutEstablished, 600)])).stats;
    assert!(picked.picked_up >= 400 && picked.invalid == 0, "{picked:?}");
    let strict = simulate(model.clone(), knobs(&[(Sysctl::TcpTimeoutEstablished, 600), (Sysctl::TcpLoose, 0)])).stats;
    assert!(strict.picked_up == 0 && strict.invalid >= 400, "{strict:?}");
    let long = simulate(model, knobs(&[(Sysctl::TcpTimeoutEstablished, 7440)])).stats;
    assert_eq!((long.picked_up, long.invalid), (0, 0));
}

#[test]
fn reconnect_storm_doubles_the_table() {
    let storms = vec![ReconnectStorm { at: 30 * MINUTE, share: 1.0, cause: StormCause::Outage }];
    let model = TrafficModel { lifetime: None, storms, notice: Some(10 * MINUTE), duration: HOUR, ..broker(1000) };
    let simulation = simulate(model, knobs(&[]));
    assert!((1900..=2000).contains(&simulation.timeseries.peak.0), "{:?}", simulation.timeseries.peak);
    assert_eq!(simulation.timeseries.samples.last().unwrap().connections, 1000);
    assert_eq!((simulation.stats.fell_silent, simulation.stats.opened), (1000, 2000));
}

#[test]
fn inconsistent_models_are_rejected() {
    let refused = |model: TrafficModel| Simulation::new(model, knobs(&[]), [0; 16]).err().unwrap();
    let base = broker(10);
    assert!(refused(TrafficModel { clients: Some(0), ..base.clone() }).contains("at least one"));
    assert!(refused(TrafficModel { clients: Some(MAX_CLIENTS + 1), ..base.clone() }).contains("10,000,000"));
    assert!(refused(TrafficModel { arrival: 0.0, ..base.clone() }).contains("never come"));
    assert!(refused(TrafficModel { arrival: f64::NAN, ..base.clone() }).contains("a rate"));
    assert!(refused(TrafficModel { silent: 1.5, ..base.clone() }).contains("a share"));
    assert!(refused(TrafficModel { duration: 0, ..base.clone() }).contains("duration must be longer than 0"));
    assert!(refused(TrafficModel { duration: MAX_DURATION + 1, ..base.clone() }).contains("60 days"));
    assert!(
        refused(TrafficModel { message: Some((0, 10)), ..base.clone() }).contains("interval must be longer than 0")
    );
    assert!(refused(TrafficModel { message: Some((10, MAX_MESSAGE_BYTES + 1)), ..base.clone() }).contains("bytes"));
    assert!(refused(TrafficModel { clients: None, lifetime: None, ..base.clone() }).contains("need a lifetime"));
    let storms = vec![ReconnectStorm { at: DAY, share: 0.5, cause: StormCause::Restart }];
    assert!(refused(TrafficModel { storms, ..base }).contains("after the end"));
}

#[test]
fn every_profile_runs() {
    for profile in Profile::ALL {
        let model =
            TrafficModel { arrival: 20.0, udp_rate: 5.0, duration: 10 * MINUTE, ..TrafficModel::for_profile(profile) };
        let simulation = simulate(model, knobs(&[]));
        assert!(simulation.stats.opened > 1000 && simulation.stats.refused == 0, "{profile:?}: {:?}", simulation.stats);
        assert_eq!(simulation.timeseries.samples.len() as u64, timeseries::MIN_SAMPLES + 1);
    }
}
