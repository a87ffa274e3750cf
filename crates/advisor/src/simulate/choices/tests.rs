//! What each choice does to the broker of the article, and to a NAT gateway under a scan.
use super::*;
use crate::size::Profile;
use keepstate_engine::{KernelVersion, Sysctls};

const MINUTE: u64 = 60_000;
const LIMIT: u32 = 5000;

fn outcomes(model: &TrafficModel, limit: u32) -> Vec<(&'static str, ChoiceOutcome)> {
    let mut knobs = Sysctls::kernel_defaults(KernelVersion::V5_15, 4 << 30);
    knobs.set(Sysctl::Max, limit.into()).unwrap();
    let simulated = TableChoice::usual(limit).into_iter().map(|choice| {
        let made = Simulation::new(model.clone().with_operator(), knobs.clone(), [7; 16]).unwrap();
        let mut simulation = made.with_admission(choice.policy).unwrap();
        simulation.advance(u64::MAX);
        simulation.engine().check_invariants().unwrap();
        (choice.name, ChoiceOutcome::of(&simulation))
    });
    simulated.collect()
}

fn of<'a>(outcomes: &'a [(&'static str, ChoiceOutcome)], name: &str) -> &'a ChoiceOutcome {
    &outcomes.iter().find(|(known, _)| *known == name).unwrap().1
}

/// More clients than the table holds, none of whom leaves.
#[test]
fn a_full_broker_by_each_choice() {
    let broker = TrafficModel {
        clients: Some(LIMIT * 3 / 2),
        arrival: 100.0,
        lifetime: None,
        duration: 10 * MINUTE,
        ..TrafficModel::for_profile(Profile::MqttBroker)
    };
    let all = outcomes(&broker, LIMIT);
    let linux = of(&all, "linux");
    assert_eq!((linux.peak, linux.limit), (LIMIT.into(), LIMIT.into()));
    assert!(linux.clients.clients_refused >= 2400 && linux.clients.logins_dropped > 5, "{linux:?}");
    let reserve = of(&all, "reserve");
    assert_eq!(reserve.clients.logins_dropped, 0, "the machine can still be reached");
    assert!(reserve.dropped.iter().any(|(name, count)| *name == "table_reserved" && *count > 0), "{reserve:?}");
    // Each client has an address of its own, and is there: neither helps.
    for name in ["source-limit", "adaptive-timeouts"] {
        assert!(of(&all, name).clients.clients_refused >= 2400, "{name}");
    }
    let grown = of(&all, "grow-to");
    assert_eq!((grown.limit, grown.clients.refused, grown.clients.logins_dropped), (u64::from(LIMIT) * 2, 0, 0));
    assert_eq!(grown.dropped, []);
}

/// One host behind a NAT gateway tries 100 ports a second of others.
#[test]
fn a_scan_by_each_choice() {
    let gateway = TrafficModel {
        arrival: 5.0,
        udp_rate: 10.0,
        half_open_rate: 0.0,
        scan_rate: 100.0,
        duration: 5 * MINUTE,
        ..TrafficModel::for_profile(Profile::NatGateway)
    };
    let all = outcomes(&gateway, LIMIT);
    let linux = of(&all, "linux");
    assert_eq!(linux.peak, u64::from(LIMIT), "the scan fills the table");
    assert!(linux.early_dropped > 0);
    let limited = of(&all, "source-limit");
    assert!(limited.peak < linux.peak && limited.clients.scan_dropped > 20_000, "{limited:?}");
    assert_eq!((limited.early_dropped, limited.clients.syns_dropped, limited.clients.logins_dropped), (0, 0, 0));
    let adaptive = of(&all, "adaptive-timeouts");
    assert!(adaptive.timeouts_cut > 0 && adaptive.early_dropped < linux.early_dropped, "{adaptive:?}");
}
