//! Entries of every kind, at random: what the kernel can hold.
use keepstate_linux::ctnetlink::{
    CtFamily, CtFlow, CtNatRange, CtProtoInfo, CtSctpInfo, CtSeqAdj, CtSynproxy, CtTcpInfo, CtTuple, SctpState, Status,
};
use proptest::prelude::*;
use std::net::IpAddr;

/// The port of the connection that expected ones belong to.
const MASTER_PORT: u16 = 21;

pub fn addresses(family: CtFamily) -> [IpAddr; 2] {
    match family {
        CtFamily::V4 => [[10, 0, 0, 1].into(), [10, 0, 0, 2].into()],
        CtFamily::V6 => ["fd00::1".parse().unwrap(), "fd00::2".parse().unwrap()],
    }
}

pub fn master(family: CtFamily) -> CtFlow {
    let [source, destination] = addresses(family);
    let original = CtTuple {
        source: Some(source),
        destination: Some(destination),
        protocol: Some(6),
        source_port: Some(MASTER_PORT),
        destination_port: Some(MASTER_PORT),
        ..CtTuple::default()
    };
    CtFlow {
        family: Some(family),
        original,
        reply: invert(&original),
        timeout: Some(10_000),
        status: Some(Status::CONFIRMED),
        protoinfo: CtProtoInfo::Tcp(CtTcpInfo { state: Some(3), ..CtTcpInfo::default() }),
        ..CtFlow::default()
    }
}

pub fn invert(tuple: &CtTuple) -> CtTuple {
    // An echo request is 8, its answer 0; every other request's answer has the next number.
    let icmp_type = tuple.icmp_type.map(|kind| if kind == 8 { 0 } else { kind + 1 });
    CtTuple {
        source: tuple.destination,
        destination: tuple.source,
        source_port: tuple.destination_port,
        destination_port: tuple.source_port,
        icmp_type,
        zone: None,
        ..*tuple
    }
}

fn transport(family: CtFamily) -> impl Strategy<Value = (CtTuple, CtProtoInfo)> {
    let with_ports = |protocol: u8| {
        (1_u16..9, 1_u16..9).prop_map(move |(source, destination)| CtTuple {
            protocol: Some(protocol),
            source_port: Some(source),
            destination_port: Some(destination),
            ..CtTuple::default()
        })
    };
    let tcp = (with_ports(6), 0_u8..10, any::<[u8; 2]>(), prop::array::uniform2(0_u8..15)).prop_map(
        |(tuple, state, flags, scales)| {
            let info = CtTcpInfo {
                state: Some(state),
                wscale: scales.map(Some),
                flags: flags.map(|flags| Some([flags, 0xff])),
            };
            (tuple, CtProtoInfo::Tcp(info))
        },
    );
    let states: Vec<SctpState> = SctpState::ALL.to_vec();
    let sctp = (with_ports(132), prop::sample::select(states), any::<[u32; 2]>()).prop_map(|(tuple, state, tags)| {
        (tuple, CtProtoInfo::Sctp(CtSctpInfo { state: Some(state), vtags: tags.map(Some) }))
    });
    let (number, types): (u8, &'static [u8]) =
        if family == CtFamily::V4 { (1, &[8, 13, 15, 17]) } else { (58, &[128, 139]) };
    let icmp = (prop::sample::select(types), 0_u16..9).prop_map(move |(kind, id)| {
        let tuple = CtTuple {
            protocol: Some(number),
            icmp_type: Some(kind),
            icmp_code: Some(0),
            icmp_id: Some(id),
            ..CtTuple::default()
        };
        (tuple, CtProtoInfo::Empty)
    });
    let others = prop::sample::select(&[0_u8, 2, 33, 33, 50, 51, 99, 255][..])
        .prop_map(|protocol| (CtTuple { protocol: Some(protocol), ..CtTuple::default() }, CtProtoInfo::Empty));
    let stateless = prop::sample::select(&[17_u8, 47, 136][..])
        .prop_flat_map(with_ports)
        .prop_map(|tuple| (tuple, CtProtoInfo::Empty));
    prop_oneof![4 => tcp, 1 => sctp, 2 => icmp, 1 => others, 3 => stateless]
}

/// What the reply direction is: the inverse, another, or left to a translation.
#[derive(Clone, Debug)]
pub enum Reply {
    Inverse,
    Differs,
    DoneOnly,
    Nat { source: Option<(bool, Option<u16>)>, destination: Option<(bool, Option<u16>)> },
}

fn reply() -> impl Strategy<Value = Reply> {
    let side = || prop::option::of((any::<bool>(), prop::option::of(1_u16..60_000)));
    prop_oneof![
        2 => Just(Reply::Inverse),
        1 => Just(Reply::Differs),
        1 => Just(Reply::DoneOnly),
        4 => (side(), side()).prop_map(|(source, destination)| Reply::Nat { source, destination }),
    ]
}

/// The attributes beside tuples.
fn extras() -> impl Strategy<Value = CtFlow> {
    let bits = [Status::SEEN_REPLY, Status::ASSURED, Status::FIXED_TIMEOUT, Status::HELPER];
    let status = prop::collection::vec(prop::sample::select(bits.to_vec()), 0..3)
        .prop_map(|bits| bits.into_iter().fold(Status::CONFIRMED, |all, bit| all | bit));
    let zones = prop_oneof![
        2 => Just([None; 3]),
        1 => any::<u16>().prop_map(|zone| [Some(zone), None, None]),
        1 => any::<u16>().prop_map(|zone| [None, Some(zone), None]),
        1 => any::<u16>().prop_map(|zone| [None, None, Some(zone)]),
    ];
    let corrections = prop::option::of(any::<[[u32; 3]; 2]>());
    let synproxy = prop::option::of(any::<[u32; 3]>());
    let rest = (status, 1000_u32..8_000_000, any::<Option<u32>>(), zones);
    (rest, prop::option::of(any::<[u8; 16]>()), corrections, synproxy, any::<[bool; 2]>()).prop_map(
        |((status, timeout, mark, [zone, original, reply]), labels, corrections, synproxy, [helper, expected])| {
            CtFlow {
                status: Some(status),
                timeout: Some(timeout),
                mark,
                zone,
                original: CtTuple { zone: original, ..CtTuple::default() },
                reply: CtTuple { zone: reply, ..CtTuple::default() },
                labels,
                helper: helper.then(|| "ftp".into()),
                master: expected.then(CtTuple::default),
                seqadj: corrections.map_or([None; 2], |sides| {
                    sides.map(|[correction_pos, offset_before, offset_after]| {
                        Some(CtSeqAdj { correction_pos, offset_before, offset_after })
                    })
                }),
                synproxy: synproxy.map(|[isn, its, tsoff]| CtSynproxy { isn, its, tsoff }),
                ..CtFlow::default()
            }
        },
    )
}

pub fn entry() -> impl Strategy<Value = CtFlow> {
    prop::sample::select(&[CtFamily::V4, CtFamily::V4, CtFamily::V6][..]).prop_flat_map(|family| {
        (transport(family), extras(), reply()).prop_map(move |((tuple, protoinfo), extras, reply)| {
            let [source, destination] = addresses(family);
            let is_tcp = tuple.protocol == Some(6);
            let original =
                CtTuple { source: Some(source), destination: Some(destination), zone: extras.original.zone, ..tuple };
            let back = CtTuple { zone: extras.reply.zone, ..invert(&original) };
            let no_zone = [extras.zone, original.zone, back.zone] == [None; 3];
            let flow = CtFlow {
                family: Some(family),
                original,
                reply: back,
                protoinfo,
                helper: extras.helper.clone().filter(|_| is_tcp),
                seqadj: if is_tcp { extras.seqadj } else { [None; 2] },
                synproxy: extras.synproxy.filter(|_| is_tcp),
                // A master is looked for in the zone of its child.
                master: extras.master.filter(|_| no_zone).map(|_| master(family).original),
                ..extras
            };
            with_reply(flow, &reply)
        })
    })
}

fn other_address(family: CtFamily, last: u8) -> IpAddr {
    match family {
        CtFamily::V4 => [192, 0, 2, last].into(),
        CtFamily::V6 => std::net::Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, last.into()).into(),
    }
}

pub fn with_reply(flow: CtFlow, reply: &Reply) -> CtFlow {
    let family = flow.family.unwrap();
    let [source, destination] = addresses(family);
    let range = |side: &Option<(bool, Option<u16>)>, own: IpAddr, last: u8| {
        let (moves, port) = (*side)?;
        let address = if moves { other_address(family, last) } else { own };
        Some(CtNatRange { address, ports: port.map(|port| [port, port]) })
    };
    match reply {
        Reply::Inverse => flow,
        Reply::Differs => {
            let back = flow.reply;
            let back = CtTuple {
                source: Some(other_address(family, 7)),
                destination_port: back.destination_port.map(|port| port + 100),
                icmp_id: back.icmp_id.map(|id| id + 100),
                ..back
            };
            CtFlow { reply: back, ..flow }
        }
        Reply::DoneOnly => CtFlow { destination_nat: Some(CtNatRange { address: destination, ports: None }), ..flow },
        Reply::Nat { source: from, destination: to } => {
            CtFlow { source_nat: range(from, source, 8), destination_nat: range(to, destination, 9), ..flow }
        }
    }
}
