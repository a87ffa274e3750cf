//! Which selectors and instructions hold a connection: what they consult may differ for its next packet (see [`EvalTrace`](super::EvalTrace)).
use super::instr::{CompiledExpr, CompiledRhs, Instr, NatAddress, NatPortSource};
use super::set::CompiledSet;
use super::trace::HoldReasons;
use crate::ast::{AssignTarget, BitRange, CtKey, Endpoint, IpField, MetaKey, PayloadBase, Selector, SocketKey};
use keepstate_engine::{Manip, PortSelection};
use keepstate_wire::Packet;
use keepstate_wire::tcp::TcpFlags;

/// What in a selector may differ between packets of one connection and direction.
pub(super) fn holds_of_selector(selector: &Selector) -> HoldReasons {
    match selector {
        Selector::Ip(field) | Selector::Ip6(field) => match field {
            IpField::Source | IpField::Destination | IpField::Protocol | IpField::Version => HoldReasons::empty(),
            _ => HoldReasons::PACKET_CONTENT,
        },
        Selector::Port(..) | Selector::CtTuple(..) => HoldReasons::empty(),
        Selector::Meta(key) => match key {
            MetaKey::Iif | MetaKey::Oif | MetaKey::IifName | MetaKey::OifName | MetaKey::Group(_) => {
                HoldReasons::empty()
            }
            MetaKey::LinkType(_) | MetaKey::Kind(_) | MetaKey::L4Proto | MetaKey::NfProto | MetaKey::Protocol => {
                HoldReasons::empty()
            }
            // The mark that a packet comes with is noted apart.
            MetaKey::Mark => HoldReasons::empty(),
            MetaKey::Priority => HoldReasons::MARK,
            MetaKey::Random => HoldReasons::NUMGEN,
            MetaKey::Hour | MetaKey::Day | MetaKey::Time => HoldReasons::TIME,
            MetaKey::Realm => HoldReasons::SOCKET,
            _ => HoldReasons::PACKET_CONTENT,
        },
        Selector::Ct(key) => match key {
            CtKey::State | CtKey::Direction | CtKey::Status | CtKey::Zone(_) | CtKey::Helper | CtKey::Id => {
                HoldReasons::empty()
            }
            // Whoever changes it ends the offload.
            CtKey::Mark => HoldReasons::empty(),
            CtKey::Label => HoldReasons::MARK,
            CtKey::Expiration => HoldReasons::CT_COUNTER,
        },
        Selector::CtCounter(..) => HoldReasons::CT_COUNTER,
        // Noted apart: a change of routes or addresses is known to whoever offloads.
        Selector::Fib(_) => HoldReasons::empty(),
        // Noted where it is read.
        Selector::Socket(SocketKey::Transparent | SocketKey::Wildcard | SocketKey::Mark) => HoldReasons::empty(),
        Selector::Socket(_) | Selector::Route(_) | Selector::Xfrm(..) => HoldReasons::SOCKET,
        _ => HoldReasons::PACKET_CONTENT,
    }
}

/// Is a selector the same for every new connection of one client to one port of a server, by the same interfaces?
pub(super) fn is_of_ends(selector: &Selector) -> bool {
    match selector {
        Selector::Ip(field) | Selector::Ip6(field) => {
            matches!(field, IpField::Source | IpField::Destination | IpField::Protocol | IpField::Version)
        }
        Selector::Port(_, end) => *end == Endpoint::Destination,
        Selector::Meta(key) => matches!(
            key,
            MetaKey::Iif
                | MetaKey::Oif
                | MetaKey::IifName
                | MetaKey::OifName
                | MetaKey::Group(_)
                | MetaKey::LinkType(_)
                | MetaKey::Kind(_)
                | MetaKey::L4Proto
                | MetaKey::NfProto
                | MetaKey::Protocol
                | MetaKey::Mark
        ),
        Selector::Ct(key) => matches!(key, CtKey::State | CtKey::Direction | CtKey::Zone(_)),
        Selector::Fib(_) => true,
        _ => false,
    }
}

/// Does an instruction do the same for each of those connections, but for what it reads? Of NAT that chooses ports it does not.
pub(super) fn is_alike(instr: &Instr) -> bool {
    match instr {
        Instr::Match { .. }
        | Instr::Counter(_)
        | Instr::CounterMap(..)
        | Instr::Nop
        | Instr::Vmap(..)
        | Instr::Verdict(_) => true,
        Instr::Nat(nat) => {
            let one_address = match &nat.target {
                NatAddress::Unchanged | NatAddress::Masquerade | NatAddress::Redirect | NatAddress::Value(..) => true,
                NatAddress::Range(first, last) => first == last,
                // Noted where its value is read.
                NatAddress::Map(..) => true,
            };
            let one_port = match (&nat.ports, nat.manip) {
                (None, _) => true,
                (Some(NatPortSource::Range(first, last)), Manip::Destination) => first == last,
                _ => false,
            };
            one_address && one_port && nat.port_selection == PortSelection::default() && !nat.netmap
        }
        _ => false,
    }
}

/// What in an instruction itself may have another effect on the next packet; what it reads is noted where it is read.
pub(super) fn holds_of_instr(instr: &Instr) -> HoldReasons {
    match instr {
        Instr::Stateful(_) | Instr::StatefulMap(..) => HoldReasons::METER,
        Instr::Dynset { .. } => HoldReasons::DYNAMIC_SET,
        Instr::Log(_) => HoldReasons::LOG,
        // Noted where they are set; of the priority nothing leaves the rules, and whoever reads it is noted there.
        Instr::Assign(
            AssignTarget::MetaMark | AssignTarget::MetaPriority | AssignTarget::CtMark | AssignTarget::CtEvents,
            ..,
        ) => HoldReasons::empty(),
        Instr::Assign(..)
        | Instr::Notrack
        | Instr::CtHelper(_)
        | Instr::CtTimeout(_)
        | Instr::TcpOptStrip(_)
        | Instr::Dup { .. } => HoldReasons::REWRITE,
        Instr::Synproxy(_) => HoldReasons::SYNPROXY,
        _ => HoldReasons::empty(),
    }
}

/// The flags of TCP that a match asks for, if it asks for nothing else, and they are the same in all ordinary segments of a connection: `tcp flags syn`, `tcp flags & (fin | syn | rst) == 0`.
pub(super) fn tcp_flags_of_match(left: &[CompiledExpr], right: &CompiledRhs) -> Option<u8> {
    let (field, bits) = match (left, right) {
        ([CompiledExpr::Select(Selector::Payload(field))], CompiledRhs::AnyBit(bits)) => (field, *bits),
        ([CompiledExpr::Bitwise(of, bits, _)], CompiledRhs::AnyBit(_) | CompiledRhs::Ranges(_)) => match &**of {
            CompiledExpr::Select(Selector::Payload(field)) => (field, *bits),
            _ => return None,
        },
        _ => return None,
    };
    let is_flags = field.base == PayloadBase::Transport && field.protocol == Some(6) && field.bits == TCP_FLAGS;
    u8::try_from(bits).ok().filter(|bits| is_flags && bits & !(TcpFlags::ACK | NOT_ORDINARY) == 0)
}

/// Where a TCP header has its flags.
const TCP_FLAGS: BitRange = BitRange::new(104, 8);
/// Flags that ordinary segments do not have.
const NOT_ORDINARY: u8 = TcpFlags::SYN | TcpFlags::FIN | TcpFlags::RST;

/// Are these flags of a packet as in ordinary segments? Of other protocols they are nowhere.
pub(super) fn is_ordinary_in(packet: &Packet<'_>, flags: u8) -> bool {
    let has = packet.transport().get(13).copied().unwrap_or_default();
    packet.protocol() != 6 || has & flags == TcpFlags::ACK & flags
}

/// May a probe, which must change nothing, not pass an instruction?
pub(super) fn stops_probe(instr: &Instr) -> bool {
    let changes = match instr {
        // The connection's mark and events are only compared; mark and priority are the probe's own.
        Instr::Assign(target, ..) => !matches!(
            target,
            AssignTarget::MetaMark | AssignTarget::MetaPriority | AssignTarget::CtMark | AssignTarget::CtEvents
        ),
        // They go by the state of the connection, which changes.
        Instr::FlowOffload | Instr::Tproxy(_) => true,
        _ => false,
    };
    changes || !holds_of_instr(instr).is_empty()
}

/// The sets that instructions change.
pub(super) fn mark_updated_sets(instr: &Instr, sets: &mut [CompiledSet]) {
    match instr {
        Instr::Dynset { set, .. } => {
            if let Some(set) = sets.get_mut(*set) {
                set.packets_update = true;
            }
        }
        Instr::ObjectMap { choices, .. } => choices.iter().for_each(|choice| mark_updated_sets(choice, sets)),
        _ => (),
    }
}
