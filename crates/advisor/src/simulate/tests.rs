use super::record::Histogram;
use super::*;
use crate::size::Profile;
use keepstate_engine::{Generation, TcpState};
use proptest::prelude::*;

const GIB: u64 = 1 << 30;
const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

fn broker(clients: u32) -> Model {
    Model { clients: Some(clients), arrival: 500.0, ..Model::of(Profile::MqttBroker) }
}

fn knobs(settings: &[(Knob, u64)]) -> Knobs {
    let mut knobs = Knobs::as_linux(Generation::V5_15, 4 * GIB);
    settings.iter().for_each(|(knob, value)| knobs.set(*knob, *value).unwrap());
    knobs
}

fn run(model: Model, knobs: Knobs) -> Simulation {
    let mut simulation = Simulation::new(model, knobs, [7; 16]).unwrap();
    simulation.advance(u64::MAX);
    simulation.engine.check().unwrap();
    assert_eq!(simulation.engine.events_lost(), 0);
    simulation
}

fn of(histogram: &Histogram, state: TcpState) -> u64 {
    histogram.0[state as usize]
}

#[test]
fn the_articles_broker_stops_at_65536() {
    // 4 GB, 5.15's defaults; more clients than that, none of whom leaves.
    let model = Model { lifetime: None, duration: 10 * MINUTE, ..broker(100_000) };
    let simulation = run(model, knobs(&[]));
    let record = simulation.record();
    assert_eq!((record.limit(), record.peak.0), (65_536, 65_536));
    assert_eq!(record.filled, Some(65_535 * 2));
    assert_eq!((simulation.tally.opened, simulation.tally.connected), (65_536, 65_536));
    assert_eq!(simulation.tally.clients_refused, 100_000 - 65_536);
    // Only the last of them were still half open when there was no more room.
    assert!(record.pushed_out.sum() < 100 && of(&record.pushed_out, TcpState::SynRecv) == record.pushed_out.sum());
    assert_eq!(simulation.tally.syns_dropped + simulation.tally.broken, simulation.engine().counters().drop);
    let last = record.samples.last().unwrap();
    assert_eq!((last.connections, last.assured, of(&last.kinds, TcpState::Established)), (65_536, 65_536, 65_536));
    let told = story(record, Some(&simulation.tally), 10 * MINUTE).join("\n");
    for piece in [
        "after 2 min 11 s the table is full: 65,536",
        "no new connections after 65,536",
        "100 % of the entries are ASSURED",
        "34,464 clients were refused",
    ] {
        assert!(told.contains(piece), "no {piece:?} in:\n{told}");
    }
}

#[test]
fn a_larger_table_takes_them_all() {
    let model = Model { lifetime: None, duration: 10 * MINUTE, ..broker(100_000) };
    let simulation = run(model, knobs(&[(Knob::Max, 158_208)]));
    assert_eq!((simulation.tally.opened, simulation.tally.refused, simulation.record.filled), (100_000, 0, None));
    assert!(story(simulation.record(), Some(&simulation.tally), 1)[0].contains("never fills: at most 100,000"));
}

/// The shortcut and every packet: the same occupancy at each sample, the same tallies but for the packets.
fn assert_same_both_ways(model: &Model, knobs: &Knobs) -> (u64, u64) {
    let short = run(Model { every_packet: false, ..model.clone() }, knobs.clone());
    let long = run(Model { every_packet: true, ..model.clone() }, knobs.clone());
    let pairs = short.record.samples.iter().zip(&long.record.samples);
    let different = pairs.into_iter().find(|(short, long)| short != long);
    assert!(different.is_none() && short.record.samples.len() == long.record.samples.len(), "{different:?}");
    assert_eq!((short.record.peak, short.record.filled), (long.record.peak, long.record.filled));
    assert_eq!((short.record.pushed_out, short.record.expired), (long.record.pushed_out, long.record.expired));
    let but_packets = |tally: Tally| Tally { packets: 0, ..tally };
    assert_eq!(but_packets(short.tally), but_packets(long.tally));
    (short.tally.packets, long.tally.packets)
}

#[test]
fn the_shortcut_changes_nothing() {
    // Everything at once: leaving, falling silent, storms of both kinds, a full table, a timeout that matters.
    let storms = vec![
        Storm { at: HOUR, share: 0.5, cause: Cause::Outage },
        Storm { at: 2 * HOUR, share: 0.8, cause: Cause::Restart },
    ];
    let model = Model {
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
        let knobs = knobs(&[(Knob::TcpTimeoutEstablished, established), (Knob::Max, max)]);
        let (short, long) = assert_same_both_ways(&model, &knobs);
        assert!(if established > 1000 { short * 3 < long } else { short <= long }, "{established}: {short} of {long}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn the_shortcut_changes_nothing_whatever_the_model(
        clients in 1..60_u32,
        lifetime in proptest::option::of(MINUTE..6 * HOUR),
        (keepalive, message) in (0..10 * MINUTE, proptest::option::of((1000..20 * MINUTE, 1..4000_u32))),
        silent in 0.0..=1.0,
        notice in proptest::option::of(1..30 * MINUTE),
        (established, max) in (1..20_000_u64, 10..100_u64),
        storm in 1..2 * HOUR,
        share in 0.0..=1.0,
    ) {
        let storms = vec![Storm { at: storm, share, cause: Cause::Outage }];
        let model = Model { lifetime, keepalive, message, silent, notice, storms, arrival: 5.0, duration: 2 * HOUR + 1, half_open_rate: 0.05, ..broker(clients) };
        assert_same_both_ways(&model, &knobs(&[(Knob::TcpTimeoutEstablished, established), (Knob::Max, max)]));
    }

    /// Whatever is asked, nothing panics, nothing is lost from the books, and the limit is kept.
    #[test]
    fn the_books_balance(seed in any::<u64>(), max in 1..500_u64, silent in 0.0..=1.0, rate in 0.1..50.0) {
        let model = Model { arrival: rate, silent, duration: 5 * MINUTE, ..Model::of(Profile::NatGateway) };
        let model = Model { udp_rate: rate, half_open_rate: rate, ..model };
        let mut secret = [0; 16];
        secret[..8].copy_from_slice(&seed.to_le_bytes());
        let mut simulation = Simulation::new(model, knobs(&[(Knob::Max, max)]), secret).unwrap();
        simulation.advance(u64::MAX);
        simulation.engine.check().unwrap();
        prop_assert!(simulation.record.peak.0 <= max);
        prop_assert!(simulation.record.samples.iter().all(|sample| sample.connections <= max && sample.kinds.sum() == sample.connections));
        let ended = simulation.tally.closed + simulation.tally.fell_silent + simulation.tally.connected + simulation.tally.broken;
        prop_assert!(simulation.tally.opened <= ended && ended <= simulation.tally.opened + simulation.tally.broken);
    }
}

#[test]
fn the_same_each_time() {
    let model = Model { duration: 5 * MINUTE, arrival: 50.0, udp_rate: 10.0, ..Model::of(Profile::WebServer) };
    let (one, other) = (run(model.clone(), knobs(&[])), run(model, knobs(&[])));
    assert_eq!((one.tally, &one.record.samples), (other.tally, &other.record.samples));
}

#[test]
fn time_wait_is_rate_times_timeout() {
    let model = Model {
        arrival: 50.0,
        silent: 0.0,
        half_open_rate: 0.0,
        lifetime: Some(1000),
        duration: HOUR,
        ..Model::of(Profile::WebServer)
    };
    let simulation = run(model, knobs(&[]));
    let later: Vec<u64> = simulation
        .record
        .samples
        .iter()
        .filter(|sample| sample.at > 5 * MINUTE)
        .map(|sample| of(&sample.kinds, TcpState::TimeWait))
        .collect();
    let mean = later.iter().sum::<u64>() as f64 / later.len() as f64;
    assert!((5700.0..6300.0).contains(&mean), "{mean}, not 50/s × 120 s");
}

#[test]
fn the_dead_stand_for_the_established_timeout_where_nobody_notices() {
    let model = Model {
        arrival: 1.0,
        silent: 1.0,
        lifetime: Some(1000),
        message: None,
        notice: None,
        udp_rate: 0.0,
        half_open_rate: 0.0,
        duration: 6 * HOUR,
        ..Model::of(Profile::NatGateway)
    };
    let standing = |seconds| {
        run(model.clone(), knobs(&[(Knob::TcpTimeoutEstablished, seconds)])).record.samples.last().unwrap().connections
    };
    assert!((6900..8000).contains(&standing(7440)), "{}", standing(7440));
    assert!(standing(432_000) > 20_000);
}

#[test]
fn half_open_handshakes_make_room_and_are_told_by_state() {
    let model = Model { half_open_rate: 50.0, lifetime: None, arrival: 5.0, duration: 10 * MINUTE, ..broker(900) };
    let simulation = run(model, knobs(&[(Knob::Max, 1000)]));
    // Clients get in at the cost of those who never finish.
    assert_eq!(simulation.tally.connected, 900);
    let record = simulation.record();
    assert!(of(&record.pushed_out, TcpState::SynRecv) > 100, "{:?}", record.pushed_out.present());
    assert_eq!(record.pushed_out.present()[0].0, "SYN_RECV");
}

#[test]
fn a_timeout_below_the_keepalive_forgets_the_living() {
    let model = Model { lifetime: None, keepalive: 20 * MINUTE, duration: 2 * HOUR, ..broker(100) };
    let picked = run(model.clone(), knobs(&[(Knob::TcpTimeoutEstablished, 600)])).tally;
    assert!(picked.picked_up >= 400 && picked.invalid == 0, "{picked:?}");
    let strict = run(model.clone(), knobs(&[(Knob::TcpTimeoutEstablished, 600), (Knob::TcpLoose, 0)])).tally;
    assert!(strict.picked_up == 0 && strict.invalid >= 400, "{strict:?}");
    let long = run(model, knobs(&[(Knob::TcpTimeoutEstablished, 7440)])).tally;
    assert_eq!((long.picked_up, long.invalid), (0, 0));
}

#[test]
fn a_storm_doubles_the_table_for_as_long_as_nobody_notices() {
    let storms = vec![Storm { at: 30 * MINUTE, share: 1.0, cause: Cause::Outage }];
    let model = Model { lifetime: None, storms, notice: Some(10 * MINUTE), duration: HOUR, ..broker(1000) };
    let simulation = run(model, knobs(&[]));
    assert!((1900..=2000).contains(&simulation.record.peak.0), "{:?}", simulation.record.peak);
    assert_eq!(simulation.record.samples.last().unwrap().connections, 1000);
    assert_eq!((simulation.tally.fell_silent, simulation.tally.opened), (1000, 2000));
}

#[test]
fn what_does_not_fit_together() {
    let refused = |model: Model| Simulation::new(model, knobs(&[]), [0; 16]).err().unwrap();
    let base = broker(10);
    assert!(refused(Model { clients: Some(0), ..base.clone() }).contains("at least one"));
    assert!(refused(Model { clients: Some(MOST_CLIENTS + 1), ..base.clone() }).contains("10,000,000"));
    assert!(refused(Model { arrival: 0.0, ..base.clone() }).contains("never come"));
    assert!(refused(Model { arrival: f64::NAN, ..base.clone() }).contains("a rate"));
    assert!(refused(Model { silent: 1.5, ..base.clone() }).contains("a share"));
    assert!(refused(Model { duration: 0, ..base.clone() }).contains("no time"));
    assert!(refused(Model { duration: LONGEST + 1, ..base.clone() }).contains("60 days"));
    assert!(refused(Model { message: Some((0, 10)), ..base.clone() }).contains("pause"));
    assert!(refused(Model { message: Some((10, LARGEST_MESSAGE + 1)), ..base.clone() }).contains("octets"));
    assert!(refused(Model { clients: None, lifetime: None, ..base.clone() }).contains("never end"));
    let storms = vec![Storm { at: DAY, share: 0.5, cause: Cause::Restart }];
    assert!(refused(Model { storms, ..base }).contains("after the end"));
}

#[test]
fn every_profile_runs() {
    for profile in Profile::ALL {
        let model = Model { arrival: 20.0, udp_rate: 5.0, duration: 10 * MINUTE, ..Model::of(profile) };
        let simulation = run(model, knobs(&[]));
        assert!(simulation.tally.opened > 1000 && simulation.tally.refused == 0, "{profile:?}: {:?}", simulation.tally);
        assert_eq!(simulation.record.samples.len() as u64, record::SAMPLES + 1);
    }
}
