//! `-L`: one thread reads the dump from the kernel, another decodes it and writes. So a listing takes hardly longer than the kernel's
//! dump, and its memory does not grow with the table.
use super::error::{ConntrackError, Operation, print_message};
use super::grammar::Table;
use super::output::flow_writer;
use super::request::ConntrackRequest;
use super::target::Target;
use crate::flow_filter::FlowFilter;
use keepstate_linux::ctnetlink::{self, CtDumpKind, CtFamily, CtFlow, DumpFilter};
use keepstate_linux::netlink::NetlinkError;
use std::ops::ControlFlow;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

/// Chunks of a dump (32 KiB each) that may wait to be decoded.
const QUEUED_CHUNKS: usize = 64;

/// Lists the selected connections.
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

/// Calls `then` for each selected connection, until it fails.
pub(super) fn for_each_flow(
    request: &ConntrackRequest,
    mut then: impl FnMut(&CtFlow) -> Result<(), ConntrackError>,
) -> Result<(), ConntrackError> {
    check_status_filter(&request.filter)?;
    let kind = match (request.table, request.zero) {
        (Table::Dying, _) => CtDumpKind::Dying,
        (Table::Unconfirmed, _) => CtDumpKind::Unconfirmed,
        (_, true) => CtDumpKind::ConfirmedAndZero,
        (_, false) => CtDumpKind::Confirmed,
    };
    let filters = dump_filters(&request.filter, kind);
    let (full, chunks) = sync_channel(QUEUED_CHUNKS);
    let (empty, used) = sync_channel(QUEUED_CHUNKS);
    thread::scope(|scope| {
        let dumper = scope.spawn(move || dump_to_channel(&request.target, kind, &filters, &full, &used));
        let mut flow = CtFlow::default();
        let mut failed = Ok(());
        // Leaving the loop drops `chunks`, which ends the dump.
        for chunk in chunks {
            let decoded = ctnetlink::for_each_flow(&chunk, &mut flow, &mut |flow| {
                if request.filter.matches(flow) {
                    failed = then(flow);
                }
                if failed.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            });
            if let Err(failure) = decoded {
                failed = Err(ConntrackError::from_kernel(Operation::List, &failure));
            }
            if failed.is_err() {
                break;
            }
            // The dump may have ended already.
            let _ = empty.try_send(chunk);
        }
        let dumped = dumper.join().unwrap_or_else(|_| Err(ConntrackError::Failed("the dump thread failed".into())));
        failed.and(dumped)
    })
}

/// Dumps the table and sends it on, chunk by chunk.
fn dump_to_channel(
    target: &Target,
    kind: CtDumpKind,
    filters: &[DumpFilter],
    full: &SyncSender<Vec<u8>>,
    used: &Receiver<Vec<u8>>,
) -> Result<(), ConntrackError> {
    for filter in filters {
        let listed = target.open_table()?.dump_chunks(kind, filter, |dumped| {
            let mut chunk = used.try_recv().unwrap_or_default();
            chunk.clear();
            chunk.extend_from_slice(dumped);
            Ok(if full.send(chunk).is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
        });
        listed.map_err(|failure| ConntrackError::from_kernel(Operation::List, &failure))?;
    }
    Ok(())
}

/// The filters to send to the kernel. It compares tuples only if the family is given, so without one there are two dumps.
fn dump_filters(filter: &FlowFilter, kind: CtDumpKind) -> Vec<DumpFilter> {
    let all = filter.dump_filter();
    // The kernel does not filter these lists, and they are short.
    if matches!(kind, CtDumpKind::Dying | CtDumpKind::Unconfirmed) {
        return vec![DumpFilter { family: all.family, ..DumpFilter::default() }];
    }
    let tuples = !all.original.is_empty() || !all.reply.is_empty();
    match all.family {
        None if tuples => [CtFamily::V4, CtFamily::V6].map(|family| DumpFilter { family: Some(family), ..all }).into(),
        _ => vec![all],
    }
}

/// A status filter without any bit is rejected, as the kernel rejects it.
fn check_status_filter(filter: &FlowFilter) -> Result<(), ConntrackError> {
    match filter.status {
        Some([set, unset]) if set.is_empty() && unset.is_empty() => {
            Err(ConntrackError::from_kernel(Operation::List, &NetlinkError::Errno(libc::EINVAL)))
        }
        _ => Ok(()),
    }
}
