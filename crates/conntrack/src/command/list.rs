//! `-L`: the kernel tells, a second thread takes apart what it told, and this one writes. So a listing takes hardly longer than the kernel
//! needs to tell it, and its memory does not grow with the table.
use super::error::{ConntrackError, Operation, print_message};
use super::flow_filter::FlowFilter;
use super::flow_writer;
use super::grammar::Table as Of;
use super::request::ConntrackRequest;
use super::target::Target;
use keepstate_linux::ctnetlink::{self, CtDumpKind, CtFamily, CtFlow, DumpFilter};
use keepstate_linux::netlink::NetlinkError;
use std::ops::ControlFlow;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

/// So many pieces of a listing (32 KiB each) may wait to be taken apart.
const QUEUED_CHUNKS: usize = 64;

/// Lists the connections that are meant.
pub(super) fn run(request: &ConntrackRequest) -> Result<(), ConntrackError> {
    let mut out = flow_writer(request)?;
    let mut shown = 0_usize;
    let listed = for_each_flow(request, |flow| {
        shown += 1;
        out.write_flow(flow).map_err(ConntrackError::from)
    });
    let finished = out.finish();
    listed?;
    finished?;
    print_message(format!("{shown} flow entries have been shown."));
    Ok(())
}

/// Hands over each connection that is meant, until `then` fails.
pub(super) fn for_each_flow(
    request: &ConntrackRequest,
    mut then: impl FnMut(&CtFlow) -> Result<(), ConntrackError>,
) -> Result<(), ConntrackError> {
    check_status_filter(&request.filter)?;
    let listing = match (request.table, request.zero) {
        (Of::Dying, _) => CtDumpKind::Dying,
        (Of::Unconfirmed, _) => CtDumpKind::Unconfirmed,
        (_, true) => CtDumpKind::ConfirmedAndZero,
        (_, false) => CtDumpKind::Confirmed,
    };
    let restrictions = dump_filters(&request.filter, listing);
    let (full, pieces) = sync_channel(QUEUED_CHUNKS);
    let (empty, used) = sync_channel(QUEUED_CHUNKS);
    thread::scope(|scope| {
        let telling = scope.spawn(move || dump_to_channel(&request.target, listing, &restrictions, &full, &used));
        let mut flow = CtFlow::default();
        let mut failed = Ok(());
        // Its own end drops `pieces`, which ends the telling.
        for piece in pieces {
            let taken = ctnetlink::for_each_flow(&piece, &mut flow, &mut |flow| {
                if request.filter.matches(flow) {
                    failed = then(flow);
                }
                if failed.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            });
            if let Err(failure) = taken {
                failed = Err(ConntrackError::from_kernel(Operation::List, &failure));
            }
            if failed.is_err() {
                break;
            }
            // Nobody waiting for it any more is no failure.
            let _ = empty.try_send(piece);
        }
        let told = telling.join().unwrap_or_else(|_| Err(ConntrackError::Failed("the listing thread failed".into())));
        failed.and(told)
    })
}

/// Asks the kernel, and hands on what it tells, piece by piece.
fn dump_to_channel(
    place: &Target,
    listing: CtDumpKind,
    restrictions: &[DumpFilter],
    full: &SyncSender<Vec<u8>>,
    used: &Receiver<Vec<u8>>,
) -> Result<(), ConntrackError> {
    for restriction in restrictions {
        let listed = place.open_table()?.dump_chunks(listing, restriction, |told| {
            let mut piece = used.try_recv().unwrap_or_default();
            piece.clear();
            piece.extend_from_slice(told);
            Ok(if full.send(piece).is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
        });
        listed.map_err(|failure| ConntrackError::from_kernel(Operation::List, &failure))?;
    }
    Ok(())
}

/// What to ask of the kernel: it compares tuples only where it is told the family, so without one it is asked twice.
fn dump_filters(pick: &FlowFilter, listing: CtDumpKind) -> Vec<DumpFilter> {
    let all = pick.dump_filter();
    // Those lists are walked whole anyway, and short.
    if matches!(listing, CtDumpKind::Dying | CtDumpKind::Unconfirmed) {
        return vec![DumpFilter { family: all.family, ..DumpFilter::default() }];
    }
    let tuples = !all.original.is_empty() || !all.reply.is_empty();
    match all.family {
        None if tuples => [CtFamily::V4, CtFamily::V6].map(|family| DumpFilter { family: Some(family), ..all }).into(),
        _ => vec![all],
    }
}

/// A status of which no bit is asked for is refused, as the kernel does.
fn check_status_filter(pick: &FlowFilter) -> Result<(), ConntrackError> {
    match pick.status {
        Some([set, unset]) if set.is_empty() && unset.is_empty() => {
            Err(ConntrackError::from_kernel(Operation::List, &NetlinkError::Errno(libc::EINVAL)))
        }
        _ => Ok(()),
    }
}
