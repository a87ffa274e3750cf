//! Commands that change connections or get one: `-I`, `-A`, `-U`, `-D`, `-G`, `-F`.
use super::error::{ConntrackError, Operation, print_message};
use super::list;
use super::output::flow_writer;
use super::request::{ConntrackRequest, FlowChange};
use super::tcp_info::liberal_tcp_info;
use keepstate_linux::ctnetlink::{
    CtClient, CtFamily, CtFlow, CtLabels, CtProtoInfo, CtSctpInfo, CtTuple, DumpFilter, Status,
};
use keepstate_linux::netlink::NetlinkError;

/// Deletions sent to the kernel in one batch.
const DELETE_BATCH: usize = 128;

/// Creates a connection; returns the number created.
pub(super) fn create(table: &mut CtClient, request: &ConntrackRequest) -> Result<usize, ConntrackError> {
    check_icmp_family(Operation::Create, request)?;
    table
        .create(&fill_original_tuple(&request.flow))
        .map_err(|failure| ConntrackError::from_kernel(Operation::Create, &failure))?;
    Ok(1)
}

/// Creates a connection unless it exists; returns the number created.
pub(super) fn add(table: &mut CtClient, request: &ConntrackRequest) -> Result<usize, ConntrackError> {
    check_icmp_family(Operation::Add, request)?;
    match table.create(&fill_original_tuple(&request.flow)) {
        Ok(()) => Ok(1),
        Err(failure) if failure.errno() == Some(libc::EEXIST) => Ok(0),
        Err(failure) => Err(ConntrackError::from_kernel(Operation::Add, &failure)),
    }
}

/// ICMP belongs to IPv4 and ICMPv6 to IPv6; the kernel would create an entry that no packet matches.
fn check_icmp_family(operation: Operation, request: &ConntrackRequest) -> Result<(), ConntrackError> {
    match (request.protocol, request.family) {
        (Some(1), Some(CtFamily::V6)) | (Some(58), Some(CtFamily::V4)) => {
            Err(ConntrackError::from_kernel(operation, &NetlinkError::Errno(libc::EINVAL)))
        }
        _ => Ok(()),
    }
}

pub(super) fn report_created(count: usize) {
    print_message(format!("{count} flow entries have been created."));
}

pub(super) fn report_added(count: usize) {
    print_message(format!("{count} flow entries have been added."));
}

/// A connection given by its reply direction alone gets its original direction from that.
fn fill_original_tuple(flow: &CtFlow) -> CtFlow {
    let mut flow = flow.clone();
    if flow.original.source.is_none() {
        flow.original = CtTuple {
            source: flow.reply.destination,
            destination: flow.reply.source,
            source_port: flow.original.source_port.or(flow.reply.destination_port),
            destination_port: flow.original.destination_port.or(flow.reply.source_port),
            ..flow.original
        };
    }
    flow
}

/// Shows the connection with the given tuple; returns the number shown.
pub(super) fn get(request: &ConntrackRequest) -> Result<usize, ConntrackError> {
    let mut wanted = CtFlow { family: request.family, zone: request.flow.zone, ..CtFlow::default() };
    // By one direction: the original one if it was given.
    if request.flow.original.source.is_some() {
        wanted.original = request.flow.original;
    } else {
        wanted.reply = request.flow.reply;
    }
    let found = request
        .target
        .open_table()?
        .get(&wanted)
        .map_err(|failure| ConntrackError::from_kernel(Operation::Get, &failure))?;
    let mut out = flow_writer(request)?;
    let mut shown = 0;
    // The kernel compares both directions; only the one that was given counts.
    for flow in found.iter().filter(|flow| request.filter.matches(flow)) {
        out.write_flow(flow)?;
        shown += 1;
    }
    out.finish()?;
    Ok(shown)
}

/// Deletes and shows the selected connections; returns the number deleted.
pub(super) fn delete(request: &ConntrackRequest) -> Result<usize, ConntrackError> {
    let mut table = request.target.open_table()?;
    let mut out = flow_writer(request)?.without_document().for_deleted();
    let mut batch = Vec::with_capacity(DELETE_BATCH);
    let mut deleted = 0;
    list::for_each_flow(request, |flow| {
        batch.push(flow.clone());
        if batch.len() == DELETE_BATCH {
            deleted += delete_batch(&mut table, &mut batch, |flow| out.write_flow(flow))?;
        }
        Ok(())
    })?;
    deleted += delete_batch(&mut table, &mut batch, |flow| out.write_flow(flow))?;
    out.finish()?;
    Ok(deleted)
}

/// Deletes and shows one batch; connections that have ended meanwhile are skipped.
fn delete_batch(
    table: &mut CtClient,
    batch: &mut Vec<CtFlow>,
    mut show: impl FnMut(&CtFlow) -> std::io::Result<()>,
) -> Result<usize, ConntrackError> {
    let mut ended = vec![0; batch.len()];
    table
        .delete_batch(batch, |at, errno| {
            if let Some(slot) = ended.get_mut(at) {
                *slot = errno;
            }
        })
        .map_err(|failure| ConntrackError::from_kernel(Operation::Delete, &failure))?;
    let mut deleted = 0;
    for (flow, errno) in batch.drain(..).zip(ended) {
        match errno {
            0 => {
                show(&flow)?;
                deleted += 1;
            }
            libc::ENOENT => (),
            errno => return Err(ConntrackError::from_kernel(Operation::Delete, &NetlinkError::Errno(errno))),
        }
    }
    Ok(deleted)
}

/// Changes the selected connections and shows each as changed; returns the number changed.
pub(super) fn update(request: &ConntrackRequest) -> Result<usize, ConntrackError> {
    let mut table = request.target.open_table()?;
    let mut out = flow_writer(request)?.without_document();
    let mut updated = 0;
    list::for_each_flow(request, |flow| {
        let Some(change) = diff_update(flow, &request.change) else { return Ok(()) };
        match table.update(&change) {
            Ok(()) => updated += 1,
            Err(failure) if failure.errno() == Some(libc::ENOENT) => return Ok(()),
            Err(failure) => return Err(ConntrackError::from_kernel(Operation::Update, &failure)),
        }
        let named = CtFlow { family: flow.family, original: flow.original, zone: flow.zone, ..CtFlow::default() };
        match table.get(&named) {
            Ok(Some(now)) => Ok(out.write_flow(&now)?),
            Ok(None) => Ok(()),
            Err(failure) if failure.errno() == Some(libc::ENOENT) => Ok(()),
            Err(failure) => Err(ConntrackError::from_kernel(Operation::Get, &failure)),
        }
    })?;
    out.finish()?;
    Ok(updated)
}

/// The attributes to send for the change; `None` if the connection has these values already.
fn diff_update(flow: &CtFlow, change: &FlowChange) -> Option<CtFlow> {
    let now = flow.status.unwrap_or_default();
    let bits = change.status.map(|bits| now | bits).filter(|bits| *bits != now);
    let mark = change.mark.map(|[value, mask]| (flow.mark.unwrap_or(0) & !mask) ^ value);
    let protoinfo = match (&flow.protoinfo, change.tcp_state) {
        (CtProtoInfo::Tcp(info), Some(state)) if info.state != Some(state) => CtProtoInfo::Tcp(liberal_tcp_info(state)),
        // The kernel requires SCTP's verification tags together with its state.
        (CtProtoInfo::Sctp(info), None) if change.sctp_state.is_some_and(|state| info.state != Some(state)) => {
            CtProtoInfo::Sctp(CtSctpInfo { state: change.sctp_state, ..*info })
        }
        _ => CtProtoInfo::Empty,
    };
    let (labels, mask) = label_update(flow.labels, change);
    let mut to = CtFlow {
        timeout: change.timeout.filter(|timeout| flow.timeout != Some(*timeout)),
        mark: mark.filter(|mark| *mark != flow.mark.unwrap_or(0)),
        status: bits.map(|bits| bits | Status::CONFIRMED),
        protoinfo,
        labels,
        labels_mask: mask,
        ..CtFlow::default()
    };
    if to == CtFlow::default() {
        return None;
    }
    // If anything is sent, a TCP state that was given goes with it, as conntrack does.
    if let (CtProtoInfo::Tcp(_), Some(state)) = (&flow.protoinfo, change.tcp_state) {
        to.protoinfo = CtProtoInfo::Tcp(liberal_tcp_info(state));
    }
    Some(CtFlow { family: flow.family, original: flow.original, reply: flow.reply, zone: flow.zone, ..to })
}

/// The labels to set and their mask; `None` if no label changes. (conntrack counts a connection that has them already, too.)
fn label_update(now: Option<CtLabels>, change: &FlowChange) -> (Option<CtLabels>, Option<CtLabels>) {
    let [add, remove] = [change.add_labels, change.remove_labels].map(u128::from_le_bytes);
    // A connection without labels has none to remove.
    if add | remove == 0 || (add == 0 && now.is_none()) {
        return (None, None);
    }
    (Some(add.to_le_bytes()), Some((add | remove).to_le_bytes()))
}

/// Empties the table, or removes one family from it.
pub(super) fn flush(request: &ConntrackRequest) -> Result<(), ConntrackError> {
    let filter = DumpFilter { family: request.family, ..DumpFilter::default() };
    request
        .target
        .open_table()?
        .flush(&filter)
        .map_err(|failure| ConntrackError::from_kernel(Operation::Flush, &failure))?;
    print_message("connection tracking table has been emptied.");
    Ok(())
}
