//! From what a visitor asks in the kernel's messages to what the engine is asked, and back to errno(3).
use keepstate_engine::{
    Draft, Engine, Handle, Instant, Knowledge, Range, Refusal, SctpState, Status, TcpState, Tuple as EngineTuple, Wish,
    Zone, ZoneDirection,
};
use keepstate_linux::ctnetlink::number::message;
use keepstate_linux::ctnetlink::{Flow, Protocol, Translation, Tuple, protocol};
use keepstate_linux::netlink::message::flag;

/// One change asked for.
pub(super) struct Edit {
    /// See [`message`].
    pub(super) kind: u16,
    /// See [`flag`].
    pub(super) flags: u16,
    pub(super) flow: Flow,
}

impl Edit {
    /// Carries it out; 0, or the number of errno(3) that the kernel would give.
    pub(super) fn carry_out(&self, engine: &mut Engine, now: Instant) -> i32 {
        let done = match (self.kind, find(engine, &self.flow, now)) {
            (_, Err(number)) => Err(number),
            (message::CT_DELETE, Ok(found)) => self.delete(engine, found, now),
            (_, Ok(Some(_))) if self.flags & flag::EXCLUSIVE != 0 => Err(libc::EEXIST),
            (_, Ok(Some(handle))) => self.change(engine, handle, now),
            (_, Ok(None)) if self.flags & flag::CREATE == 0 => Err(libc::ENOENT),
            (_, Ok(None)) => self.create(engine, now),
        };
        done.err().unwrap_or(0)
    }

    fn delete(&self, engine: &mut Engine, found: Option<Handle>, now: Instant) -> Result<(), i32> {
        let handle = found.ok_or(libc::ENOENT)?;
        let entry = engine.entry(handle, now).ok_or(libc::ENOENT)?;
        if self.flow.id.is_some_and(|id| id != entry.id) || !engine.remove(handle, now) {
            return Err(libc::ENOENT);
        }
        Ok(())
    }

    fn change(&self, engine: &mut Engine, handle: Handle, now: Instant) -> Result<(), i32> {
        let flow = &self.flow;
        if flow.source_nat.is_some() || flow.destination_nat.is_some() || flow.master.is_some() {
            return Err(libc::EOPNOTSUPP);
        }
        engine.change(handle, &wish(flow)?, now).map_err(number)
    }

    fn create(&self, engine: &mut Engine, now: Instant) -> Result<(), i32> {
        let flow = &self.flow;
        if flow.master.is_some() || flow.helper.is_some() {
            return Err(libc::EOPNOTSUPP);
        }
        let draft = Draft {
            original: tuple(&flow.original).ok_or(libc::EINVAL)?,
            reply: tuple(&flow.reply).ok_or(libc::EINVAL)?,
            zone: zone(flow)?,
            wish: wish(flow)?,
            destination: flow.destination_nat.map(range),
            source: flow.source_nat.map(range),
        };
        engine.create(&draft, now).map(drop).map_err(number)
    }
}

/// The connection that is named, by its original direction if that is told; EINVAL if neither is.
pub(super) fn find(engine: &Engine, flow: &Flow, now: Instant) -> Result<Option<Handle>, i32> {
    let named = if flow.original.is_empty() { &flow.reply } else { &flow.original };
    let named = tuple(named).ok_or(libc::EINVAL)?;
    Ok(engine.find(&named, zone(flow)?, now).map(|(handle, _)| handle))
}

/// A direction, if everything about it is told.
pub(super) fn tuple(told: &Tuple) -> Option<EngineTuple> {
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
fn zone(flow: &Flow) -> Result<Zone, i32> {
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

fn wish(flow: &Flow) -> Result<Wish, i32> {
    let status = flow.status.map(|bits| u16::try_from(bits).map(Status)).transpose().map_err(|_| libc::EINVAL)?;
    let everything = [0xff; 16];
    Ok(Wish {
        timeout: flow.timeout,
        status,
        mark: flow.mark,
        labels: flow.labels.map(|labels| [labels, flow.labels_mask.unwrap_or(everything)]),
        protocol: knowledge(&flow.protocol)?,
    })
}

fn knowledge(protocol: &Protocol) -> Result<Option<Knowledge>, i32> {
    match protocol {
        Protocol::Nothing => Ok(None),
        Protocol::Tcp(info) => {
            let state = |number: u8| TcpState::ALL.get(usize::from(number)).copied().ok_or(libc::EINVAL);
            let scales = match info.scales {
                [Some(original), Some(reply)] => Some([original, reply]),
                _ => None,
            };
            let state = info.state.map(state).transpose()?;
            Ok(Some(Knowledge::Tcp { state, scales, flags: info.flags }))
        }
        // The kernel wants all of it together.
        Protocol::Sctp(info) => match (info.state, info.tags) {
            (Some(state), [Some(original), Some(reply)]) => {
                let state = SctpState::ALL.get(usize::from(state.number())).copied().ok_or(libc::EINVAL)?;
                Ok(Some(Knowledge::Sctp { state, tags: [original, reply] }))
            }
            _ => Err(libc::EINVAL),
        },
    }
}

fn range(to: Translation) -> Range {
    Range { ports: to.ports.map(|[low, high]| low..=high), ..Range::to(to.address) }
}

/// As the kernel says it.
fn number(refusal: Refusal) -> i32 {
    match refusal {
        Refusal::Exists => libc::EEXIST,
        Refusal::Gone => libc::ENOENT,
        Refusal::Unchangeable => libc::EBUSY,
        Refusal::Fixed => libc::EPERM,
        Refusal::Full => libc::ENOMEM,
        _ => libc::EINVAL,
    }
}
