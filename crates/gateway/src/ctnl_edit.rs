//! Changes asked for by ctnetlink messages: from a message's attributes to the engine's calls, and from its errors to errno(3).
use keepstate_engine::{
    ConnId, ConnUpdate, Engine, Instant, NatRange, NewConnection, ProtocolUpdate, Status, TcpState,
    Tuple as EngineTuple, UpdateError, Zone, ZoneDirection,
};
use keepstate_linux::ctnetlink::consts::message;
use keepstate_linux::ctnetlink::{CtFlow, CtNatRange, CtProtoInfo, CtTuple, protocol};
use keepstate_linux::netlink::message::flag;

/// One change.
pub(super) struct CtnlEdit {
    /// See [`message`].
    pub(super) kind: u16,
    /// See [`flag`].
    pub(super) flags: u16,
    pub(super) flow: CtFlow,
}

impl CtnlEdit {
    /// Carries it out; 0, or the errno(3) that the kernel gives.
    pub(super) fn apply(&self, engine: &mut Engine, now: Instant) -> i32 {
        let result = match (self.kind, find_connection(engine, &self.flow, now)) {
            (_, Err(errno)) => Err(errno),
            (message::CT_DELETE, Ok(found)) => self.delete(engine, found, now),
            (_, Ok(Some(_))) if self.flags & flag::EXCLUSIVE != 0 => Err(libc::EEXIST),
            (_, Ok(Some(id))) => self.update(engine, id, now),
            (_, Ok(None)) if self.flags & flag::CREATE == 0 => Err(libc::ENOENT),
            (_, Ok(None)) => self.create(engine, now),
        };
        result.err().unwrap_or(0)
    }

    fn delete(&self, engine: &mut Engine, found: Option<ConnId>, now: Instant) -> Result<(), i32> {
        let handle = found.ok_or(libc::ENOENT)?;
        let entry = engine.entry(handle, now).ok_or(libc::ENOENT)?;
        if self.flow.id.is_some_and(|id| id != entry.id) || !engine.remove(handle, now) {
            return Err(libc::ENOENT);
        }
        Ok(())
    }

    fn update(&self, engine: &mut Engine, id: ConnId, now: Instant) -> Result<(), i32> {
        let flow = &self.flow;
        if flow.source_nat.is_some() || flow.destination_nat.is_some() || flow.master.is_some() {
            return Err(libc::EOPNOTSUPP);
        }
        engine.update(id, &to_conn_update(flow)?, now).map_err(errno)
    }

    fn create(&self, engine: &mut Engine, now: Instant) -> Result<(), i32> {
        let flow = &self.flow;
        if flow.master.is_some() || flow.helper.is_some() {
            return Err(libc::EOPNOTSUPP);
        }
        let new = NewConnection {
            original: to_engine_tuple(&flow.original).ok_or(libc::EINVAL)?,
            reply: to_engine_tuple(&flow.reply).ok_or(libc::EINVAL)?,
            zone: to_zone(flow)?,
            attributes: to_conn_update(flow)?,
            dst_nat: flow.destination_nat.map(to_nat_range),
            src_nat: flow.source_nat.map(to_nat_range),
        };
        engine.create(&new, now).map(drop).map_err(errno)
    }
}

/// The connection of a tuple: the original one if it is given, else the reply one; EINVAL if neither is.
pub(super) fn find_connection(engine: &Engine, flow: &CtFlow, now: Instant) -> Result<Option<ConnId>, i32> {
    let tuple = if flow.original.is_empty() { &flow.reply } else { &flow.original };
    let tuple = to_engine_tuple(tuple).ok_or(libc::EINVAL)?;
    Ok(engine.find(&tuple, to_zone(flow)?, now).map(|(id, _)| id))
}

/// A tuple, if it is complete.
pub(super) fn to_engine_tuple(tuple: &CtTuple) -> Option<EngineTuple> {
    let number = tuple.protocol?;
    let (source_key, destination_key) = match number {
        protocol::ICMP | protocol::ICMPV6 => (tuple.icmp_id?, u16::from_be_bytes([tuple.icmp_type?, tuple.icmp_code?])),
        protocol::TCP | protocol::UDP | protocol::UDPLITE | protocol::SCTP => {
            (tuple.source_port?, tuple.destination_port?)
        }
        protocol::GRE => (tuple.source_port.unwrap_or(0), tuple.destination_port.unwrap_or(0)),
        _ => (0, 0),
    };
    let (source, destination) = (tuple.source?, tuple.destination?);
    let same_family = source.is_ipv4() == destination.is_ipv4();
    same_family.then_some(EngineTuple { source, destination, protocol: number, source_key, destination_key })
}

/// At most one zone other than 0: the kernel refuses a second.
fn to_zone(flow: &CtFlow) -> Result<Zone, i32> {
    let zones = [
        (flow.zone, ZoneDirection::Both),
        (flow.original.zone, ZoneDirection::Original),
        (flow.reply.zone, ZoneDirection::Reply),
    ];
    let mut zone = Zone::default();
    for (id, direction) in zones.into_iter().filter_map(|(id, direction)| Some((id?, direction))) {
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
    let all = [0xff; 16];
    Ok(ConnUpdate {
        timeout: flow.timeout,
        status: flow.status,
        mark: flow.mark,
        labels: flow.labels.map(|labels| [labels, flow.labels_mask.unwrap_or(all)]),
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
        // The kernel requires all of them together.
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

/// The kernel's errno(3) for an error.
fn errno(error: UpdateError) -> i32 {
    match error {
        UpdateError::Exists => libc::EEXIST,
        UpdateError::NotFound => libc::ENOENT,
        UpdateError::StatusUnchangeable => libc::EBUSY,
        UpdateError::FixedTimeout => libc::EPERM,
        UpdateError::TableFull => libc::ENOMEM,
        _ => libc::EINVAL,
    }
}
