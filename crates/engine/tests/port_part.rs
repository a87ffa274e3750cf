//! Source NAT that selects its ports from a part of them, as a gateway of a cluster does.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
use keepstate_engine::{
    Engine, Instant, Manip, MappingBehaviour, NatPolicy, NatRange, NatResult, PartUse, PortPart, PortSelection, Secret,
    Sysctls, Tuple, Zone,
};
use keepstate_wire::Packet;

const NOW: Instant = Instant(1_000_000_000);

fn packet(client: u16) -> Vec<u8> {
    let [high, low] = client.to_be_bytes();
    let mut bytes =
        vec![0x45, 0, 0, 28, 0, 1, 0, 0, 64, 17, 0, 0, 10, 1, 0, 2, 10, 2, 0, 9, high, low, 0, 53, 0, 8, 0, 0];
    let sum: u32 = bytes.chunks(2).take(10).map(|two| u32::from(two[0]) << 8 | u32::from(two[1])).sum();
    let sum = !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
    bytes[10..12].copy_from_slice(&sum.to_be_bytes());
    bytes
}

/// The outside port that a new connection gets.
fn open(engine: &mut Engine, client: u16, range: &NatRange) -> Option<u16> {
    let bytes = packet(client);
    let packet = Packet::parse(&bytes).unwrap();
    let mut ctx = engine.track(&packet, Zone::default(), NOW);
    if engine.translate(&mut ctx, Manip::Source, range, NOW) != NatResult::Changed {
        return None;
    }
    engine.confirm(ctx, NOW);
    let (source, destination) = ([10, 1, 0, 2].into(), [10, 2, 0, 9].into());
    let tuple = Tuple { source, destination, protocol: 17, source_key: client, destination_key: 53 };
    let (conn_id, _) = engine.find(&tuple, Zone::default(), NOW)?;
    engine.entry(conn_id, NOW).map(|entry| entry.reply.destination_key)
}

fn range(port_selection: PortSelection) -> NatRange {
    NatRange { ports: Some(40_000..=40_063), port_selection, ..NatRange::to([192, 0, 2, 1].into()) }
}

#[test]
fn only_ports_of_the_part_are_given_and_others_only_if_that_is_wanted() {
    let independent = NatPolicy { mapping: MappingBehaviour::EndpointIndependent, ..NatPolicy::default() };
    for policy in [NatPolicy::default(), independent] {
        for selection in [PortSelection::PreferOriginal, PortSelection::Random] {
            let mut engine = Engine::new(Sysctls::default(), Secret([7; 16]));
            engine.set_nat_policy(policy.clone(), NOW);
            let own = PortPart::new(2, 4, PartUse::Only);
            engine.set_port_part(own);
            // Clients with ports of the range, which would be kept.
            let mut given: Vec<u16> =
                (40_000..40_016).filter_map(|client| open(&mut engine, client, &range(selection))).collect();
            given.sort_unstable();
            let wanted: Vec<u16> = (40_000..=40_063).filter(|port| own.unwrap().contains(*port)).collect();
            assert_eq!(given, wanted, "{policy:?} {selection:?}");
            assert_eq!(open(&mut engine, 40_016, &range(selection)), None, "all of the part are in use");
            engine.set_port_part(PortPart::new(2, 4, PartUse::First));
            assert!(open(&mut engine, 40_017, &range(selection)).is_some_and(|port| !wanted.contains(&port)));
            engine.set_port_part(None);
            assert!(open(&mut engine, 40_018, &range(selection)).is_some());
        }
    }
}

#[test]
fn a_range_that_leaves_no_choice_is_not_narrowed() {
    let mut engine = Engine::new(Sysctls::default(), Secret([7; 16]));
    engine.set_port_part(PortPart::new(1, 4, PartUse::Only));
    let one = NatRange { ports: Some(40_000..=40_000), ..range(PortSelection::PreferOriginal) };
    assert_eq!(open(&mut engine, 5000, &one), Some(40_000));
}
