//! What changes connections, and looks for one: `-I`, `-A`, `-U`, `-D`, `-G`, `-F`.
use super::fault::{Doing, Fault, say};
use super::request::{Change, Request};
use super::{list, writer};
use keepstate_linux::ctnetlink::{
    Family, Flow, Labels, Protocol, Restriction, SctpInfo, Table, TcpInfo, Tuple, status,
};
use keepstate_linux::netlink::Failure;

/// So many deletions go to the kernel at once.
const BATCH: usize = 128;

/// Puts a connection into the table; says how many were put there.
pub(super) fn create(table: &mut Table, request: &Request) -> Result<usize, Fault> {
    check_icmp(Doing::Create, request)?;
    table.create(&whole(&request.flow)).map_err(|failure| Fault::kernel(Doing::Create, &failure))?;
    Ok(1)
}

/// Puts a connection into the table unless it is there already; says how many were put there.
pub(super) fn add(table: &mut Table, request: &Request) -> Result<usize, Fault> {
    check_icmp(Doing::Add, request)?;
    match table.create(&whole(&request.flow)) {
        Ok(()) => Ok(1),
        Err(failure) if failure.errno() == Some(libc::EEXIST) => Ok(0),
        Err(failure) => Err(Fault::kernel(Doing::Add, &failure)),
    }
}

/// ICMP goes over IPv4 and ICMPv6 over IPv6; the kernel would make an entry that no packet fits.
fn check_icmp(doing: Doing, request: &Request) -> Result<(), Fault> {
    match (request.protocol, request.family) {
        (Some(1), Some(Family::V6)) | (Some(58), Some(Family::V4)) => {
            Err(Fault::kernel(doing, &Failure::Refused(libc::EINVAL)))
        }
        _ => Ok(()),
    }
}

pub(super) fn created(count: usize) {
    say(format!("{count} flow entries have been created."));
}

pub(super) fn added(count: usize) {
    say(format!("{count} flow entries have been added."));
}

/// A connection that was named by its reply direction alone gets its original one from that.
fn whole(flow: &Flow) -> Flow {
    let mut flow = flow.clone();
    if flow.original.source.is_none() {
        flow.original = Tuple {
            source: flow.reply.destination,
            destination: flow.reply.source,
            source_port: flow.original.source_port.or(flow.reply.destination_port),
            destination_port: flow.original.destination_port.or(flow.reply.source_port),
            ..flow.original
        };
    }
    flow
}

/// Shows the connection that was named; says how many that were.
pub(super) fn find(request: &Request) -> Result<usize, Fault> {
    let mut wanted = Flow { family: request.family, zone: request.flow.zone, ..Flow::default() };
    // By one direction: the original one, if it was told.
    if request.flow.original.source.is_some() {
        wanted.original = request.flow.original;
    } else {
        wanted.reply = request.flow.reply;
    }
    let found = request.place.table()?.find(&wanted).map_err(|failure| Fault::kernel(Doing::Find, &failure))?;
    let mut out = writer(request)?;
    let mut shown = 0;
    // The kernel looks at both directions of each; only the one that was named is meant.
    for flow in found.iter().filter(|flow| request.pick.fits(flow)) {
        out.flow(flow)?;
        shown += 1;
    }
    out.finish()?;
    Ok(shown)
}

/// Takes the connections that are meant out of the table and shows each; says how many.
pub(super) fn delete(request: &Request) -> Result<usize, Fault> {
    let mut table = request.place.table()?;
    let mut out = writer(request)?.bare().of_deleted();
    let mut batch = Vec::with_capacity(BATCH);
    let mut deleted = 0;
    list::each(request, |flow| {
        batch.push(flow.clone());
        if batch.len() == BATCH {
            deleted += delete_batch(&mut table, &mut batch, |flow| out.flow(flow))?;
        }
        Ok(())
    })?;
    deleted += delete_batch(&mut table, &mut batch, |flow| out.flow(flow))?;
    out.finish()?;
    Ok(deleted)
}

/// Deletes and shows; what was gone already is passed over.
fn delete_batch(
    table: &mut Table,
    batch: &mut Vec<Flow>,
    mut show: impl FnMut(&Flow) -> std::io::Result<()>,
) -> Result<usize, Fault> {
    let mut ended = vec![0; batch.len()];
    table
        .delete_all(batch, |at, errno| {
            if let Some(slot) = ended.get_mut(at) {
                *slot = errno;
            }
        })
        .map_err(|failure| Fault::kernel(Doing::Delete, &failure))?;
    let mut deleted = 0;
    for (flow, errno) in batch.drain(..).zip(ended) {
        match errno {
            0 => {
                show(&flow)?;
                deleted += 1;
            }
            libc::ENOENT => (),
            errno => return Err(Fault::kernel(Doing::Delete, &Failure::Refused(errno))),
        }
    }
    Ok(deleted)
}

/// Changes the connections that are meant and shows each as it is then; says how many.
pub(super) fn update(request: &Request) -> Result<usize, Fault> {
    let mut table = request.place.table()?;
    let mut out = writer(request)?.bare();
    let mut updated = 0;
    list::each(request, |flow| {
        let Some(change) = changed(flow, &request.change) else { return Ok(()) };
        match table.update(&change) {
            Ok(()) => updated += 1,
            Err(failure) if failure.errno() == Some(libc::ENOENT) => return Ok(()),
            Err(failure) => return Err(Fault::kernel(Doing::Update, &failure)),
        }
        let named = Flow { family: flow.family, original: flow.original, zone: flow.zone, ..Flow::default() };
        match table.find(&named) {
            Ok(Some(now)) => Ok(out.flow(&now)?),
            Ok(None) => Ok(()),
            Err(failure) if failure.errno() == Some(libc::ENOENT) => Ok(()),
            Err(failure) => Err(Fault::kernel(Doing::Find, &failure)),
        }
    })?;
    out.finish()?;
    Ok(updated)
}

/// What to send so that a connection becomes as it is wanted; `None` where it is so already.
fn changed(flow: &Flow, change: &Change) -> Option<Flow> {
    let now = flow.status.unwrap_or(0);
    let bits = change.status.map(|bits| now | bits).filter(|bits| *bits != now);
    let mark = change.mark.map(|[value, mask]| (flow.mark.unwrap_or(0) & !mask) ^ value);
    let tcp = match (&flow.protocol, change.state) {
        (Protocol::Tcp(info), Some(state)) if info.state != Some(state) => {
            Protocol::Tcp(TcpInfo { state: Some(state), ..TcpInfo::default() })
        }
        // The kernel wants SCTP's tags together with its state.
        (Protocol::Sctp(info), None) if change.sctp_state.is_some_and(|state| info.state != Some(state)) => {
            Protocol::Sctp(SctpInfo { state: change.sctp_state, ..*info })
        }
        _ => Protocol::Nothing,
    };
    let (labels, mask) = labels(flow.labels, change);
    let to = Flow {
        timeout: change.timeout.filter(|timeout| flow.timeout != Some(*timeout)),
        mark: mark.filter(|mark| *mark != flow.mark.unwrap_or(0)),
        status: bits.map(|bits| bits | status::CONFIRMED),
        protocol: tcp,
        labels,
        labels_mask: mask,
        ..Flow::default()
    };
    if to == Flow::default() {
        return None;
    }
    Some(Flow { family: flow.family, original: flow.original, reply: flow.reply, zone: flow.zone, ..to })
}

/// The labels to set, and which are meant at all; none where none are meant. (conntrack counts those that were so already.)
fn labels(now: Option<Labels>, change: &Change) -> (Option<Labels>, Option<Labels>) {
    let [add, remove] = [change.add, change.remove].map(u128::from_le_bytes);
    // Where there never were any, none can be taken away.
    if add | remove == 0 || (add == 0 && now.is_none()) {
        return (None, None);
    }
    (Some(add.to_le_bytes()), Some((add | remove).to_le_bytes()))
}

/// Empties the table, of one family if that is asked for.
pub(super) fn flush(request: &Request) -> Result<(), Fault> {
    let restriction = Restriction { family: request.family, ..Restriction::default() };
    request.place.table()?.flush(&restriction).map_err(|failure| Fault::kernel(Doing::Flush, &failure))?;
    say("connection tracking table has been emptied.");
    Ok(())
}
