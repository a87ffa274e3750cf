//! From what a visitor asks in the kernel's messages to what the engine is asked, and back to errno(3).
use keepstate_engine::{
    ConnId, ConnUpdate, Engine, Instant, NatRange, NewConnection, ProtocolUpdate, Status, TcpState,
    Tuple as EngineTuple, UpdateError, Zone, ZoneDirection,
};
use keepstate_linux::ctnetlink::consts::message;
use keepstate_linux::ctnetlink::{CtFlow, CtNatRange, CtProtoInfo, CtTuple, protocol};
use keepstate_linux::netlink::message::flag;

/// One change asked for.
pub(super) struct CtnlEdit {
    /// See [`message`].
    pub(super) kind: u16,
    /// See [`flag`].
    pub(super) flags: u16,
    pub(super) flow: CtFlow,
}

impl CtnlEdit {
    /// Carries it out; 0, or the number of errno(3) that the kernel would give.
    pub(super) fn apply(&self, engine: &mut Engine, now: Instant) -> i32 {
        let done = match (self.kind, find_connection(engine, &self.flow, now)) {
            (_, Err(number)) => Err(number),
            (message::CT_DELETE, Ok(found)) => self.delete(engine, found, now),
            (_, Ok(Some(_))) if self.flags & flag::EXCLUSIVE != 0 => Err(libc::EEXIST),
            (_, Ok(Some(handle))) => self.update(engine, handle, now),
            (_, Ok(None)) if self.flags & flag::CREATE == 0 => Err(libc::ENOENT),
            (_, Ok(None)) => self.create(engine, now),
        };
        done.err().unwrap_or(0)
    }

    fn delete(&self, engine: &mut Engine, found: Option<ConnId>, now: Instant) -> Result<(), i32> {
        let handle = found.ok_or(libc::ENOENT)?;
        let entry = engine.entry(handle, now).ok_or(libc::ENOENT)?;
        if self.flow.id.is_some_and(|id| id != entry.id) || !engine.remove(handle, now) {
            return Err(libc::ENOENT);
        }
        Ok(())
    }

    fn update(&self, engine: &mut Engine, handle: ConnId, now: Instant) -> Result<(), i32> {
        let flow = &self.flow;
        if flow.source_nat.is_some() || flow.destination_nat.is_some() || flow.master.is_some() {
            return Err(libc::EOPNOTSUPP);
        }
        engine.update(handle, &to_conn_update(flow)?, now).map_err(errno)
    }

    fn create(&self, engine: &mut Engine, now: Instant) -> Result<(), i32> {
        let flow = &self.flow;
        if flow.master.is_some() || flow.helper.is_some() {
            return Err(libc::EOPNOTSUPP);
        }
        let draft = NewConnection {
            original: to_engine_tuple(&flow.original).ok_or(libc::EINVAL)?,
            reply: to_engine_tuple(&flow.reply).ok_or(libc::EINVAL)?,
            zone: to_zone(flow)?,
            attributes: to_conn_update(flow)?,
            dst_nat: flow.destination_nat.map(to_nat_range),
            src_nat: flow.source_nat.map(to_nat_range),
        };
        engine.create(&draft, now).map(drop).map_err(errno)
    }
}

/// The connection that is named, by its original direction if that is told; EINVAL if neither is.
pub(super) fn find_connection(engine: &Engine, flow: &CtFlow, now: Instant) -> Result<Option<ConnId>, i32> {
    let named = if flow.original.is_empty() { &flow.reply } else { &flow.original };
    let named = to_engine_tuple(named).ok_or(libc::EINVAL)?;
    Ok(engine.find(&named, to_zone(flow)?, now).map(|(handle, _)| handle))
}

/// A direction, if everything about it is told.
pub(super) fn to_engine_tuple(told: &CtTuple) -> Option<EngineTuple> {
    let number = told.protocol?;
    let (source_key, destination_key) = match number {
        protocol::ICMP | protocol::ICMPV6 => (told.icmp_id?, u16::from_be_bytes([told.icmp_type?, told.icmp_code?])),
        protocol::TCP | protocol::UDP | protocol::UDPLITE | protocol::SCTP => {
            (told.source_port?, told.destination_port?)
        }
        protocol::GRE => (told.source_port.unwrap_or(0), told.destination_port.unwrap_or(0)),
        _ => (0, 0),
    };
    let (source, destination) = (told.source?, told.destination?);
    let alike = source.is_ipv4() == destination.is_ipv4();
    alike.then_some(EngineTuple { source, destination, protocol: number, source_key, destination_key })
}

/// At most one may be told that is not the default: the kernel refuses a second.
fn to_zone(flow: &CtFlow) -> Result<Zone, i32> {
    let placed = [
        (flow.zone, ZoneDirection::Both),
        (flow.original.zone, ZoneDirection::Original),
        (flow.reply.zone, ZoneDirection::Reply),
    ];
    let mut zone = Zone::default();
    for (id, direction) in placed.into_iter().filter_map(|(id, direction)| Some((id?, direction))) {
        match (zone.id, id) {
            (0, 0) => (),
            (0, id) => zone = Zone { id, direction },
            _ => return Err(libc::EINVAL),
        }
    }
    Ok(zone)
}

fn to_conn_update(flow: &CtFlow) -> Result<ConnUpdate, i32> {
    if flow.status.is_some_and(|status| !Status::all().contains(status)) {
        return Err(libc::EINVAL);
    }
    let everything = [0xff; 16];
    Ok(ConnUpdate {
        timeout: flow.timeout,
        status: flow.status,
        mark: flow.mark,
        labels: flow.labels.map(|labels| [labels, flow.labels_mask.unwrap_or(everything)]),
        protocol: to_protocol_update(&flow.protoinfo)?,
    })
}

fn to_protocol_update(protocol: &CtProtoInfo) -> Result<Option<ProtocolUpdate>, i32> {
    match protocol {
        CtProtoInfo::Empty => Ok(None),
        CtProtoInfo::Tcp(info) => {
            let state = |number: u8| TcpState::from_number(number).ok_or(libc::EINVAL);
            let scales = match info.wscale {
                [Some(original), Some(reply)] => Some([original, reply]),
                _ => None,
            };
            let state = info.state.map(state).transpose()?;
            Ok(Some(ProtocolUpdate::Tcp { state, scales, flags: info.flags }))
        }
        // The kernel wants all of it together.
        CtProtoInfo::Sctp(info) => match (info.state, info.vtags) {
            (Some(state), [Some(original), Some(reply)]) => {
                Ok(Some(ProtocolUpdate::Sctp { state, tags: [original, reply] }))
            }
            _ => Err(libc::EINVAL),
        },
    }
}

fn to_nat_range(to: CtNatRange) -> NatRange {
    NatRange { ports: to.ports.map(|[low, high]| low..=high), ..NatRange::to(to.address) }
}

/// As the kernel says it.
fn errno(refusal: UpdateError) -> i32 {
    match refusal {
        UpdateError::Exists => libc::EEXIST,
        UpdateError::NotFound => libc::ENOENT,
        UpdateError::StatusUnchangeable => libc::EBUSY,
        UpdateError::FixedTimeout => libc::EPERM,
        UpdateError::TableFull => libc::ENOMEM,
        _ => libc::EINVAL,
    }
}
