//! `-L`: the kernel tells, a second thread takes apart what it told, and this one writes. So a listing takes hardly longer than the kernel
//! needs to tell it, and its memory does not grow with the table.
use super::fault::{Doing, Fault, say};
use super::grammar::Table as Of;
use super::pick::Pick;
use super::place::Place;
use super::request::Request;
use super::writer;
use keepstate_linux::ctnetlink::{Family, Flow, Listing, Restriction, flows_in};
use keepstate_linux::netlink::Failure;
use std::ops::ControlFlow;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

/// So many pieces of a listing (32 KiB each) may wait to be taken apart.
const WAITING: usize = 64;

/// Lists the connections that are meant.
pub(super) fn run(request: &Request) -> Result<(), Fault> {
    let mut out = writer(request)?;
    let mut shown = 0_usize;
    let listed = each(request, |flow| {
        shown += 1;
        out.flow(flow).map_err(Fault::from)
    });
    let finished = out.finish();
    listed?;
    finished?;
    say(format!("{shown} flow entries have been shown."));
    Ok(())
}

/// Hands over each connection that is meant, until `then` fails.
pub(super) fn each(request: &Request, mut then: impl FnMut(&Flow) -> Result<(), Fault>) -> Result<(), Fault> {
    check_restriction(&request.pick)?;
    let listing = match (request.table, request.zero) {
        (Of::Dying, _) => Listing::Dying,
        (Of::Unconfirmed, _) => Listing::Unconfirmed,
        (_, true) => Listing::Zeroing,
        (_, false) => Listing::Confirmed,
    };
    let restrictions = restrictions(&request.pick, listing);
    let (full, pieces) = sync_channel(WAITING);
    let (empty, used) = sync_channel(WAITING);
    thread::scope(|scope| {
        let telling = scope.spawn(move || tell(&request.place, listing, &restrictions, &full, &used));
        let mut flow = Flow::default();
        let mut failed = Ok(());
        // Its own end drops `pieces`, which ends the telling.
        for piece in pieces {
            let taken = flows_in(&piece, &mut flow, &mut |flow| {
                if request.pick.fits(flow) {
                    failed = then(flow);
                }
                if failed.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            });
            if let Err(failure) = taken {
                failed = Err(Fault::kernel(Doing::List, &failure));
            }
            if failed.is_err() {
                break;
            }
            // Nobody waiting for it any more is no failure.
            let _ = empty.try_send(piece);
        }
        let told = telling.join().unwrap_or_else(|_| Err(Fault::Failed("the listing thread failed".into())));
        failed.and(told)
    })
}

/// Asks the kernel, and hands on what it tells, piece by piece.
fn tell(
    place: &Place,
    listing: Listing,
    restrictions: &[Restriction],
    full: &SyncSender<Vec<u8>>,
    used: &Receiver<Vec<u8>>,
) -> Result<(), Fault> {
    for restriction in restrictions {
        let listed = place.table()?.list_pieces(listing, restriction, |told| {
            let mut piece = used.try_recv().unwrap_or_default();
            piece.clear();
            piece.extend_from_slice(told);
            Ok(if full.send(piece).is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
        });
        listed.map_err(|failure| Fault::kernel(Doing::List, &failure))?;
    }
    Ok(())
}

/// What to ask of the kernel: it compares tuples only where it is told the family, so without one it is asked twice.
fn restrictions(pick: &Pick, listing: Listing) -> Vec<Restriction> {
    let all = pick.restriction();
    // Those lists are walked whole anyway, and short.
    if matches!(listing, Listing::Dying | Listing::Unconfirmed) {
        return vec![Restriction { family: all.family, ..Restriction::default() }];
    }
    let tuples = !all.original.is_empty() || !all.reply.is_empty();
    match all.family {
        None if tuples => [Family::V4, Family::V6].map(|family| Restriction { family: Some(family), ..all }).into(),
        _ => vec![all],
    }
}

/// A status of which no bit is asked for is refused, as the kernel does.
fn check_restriction(pick: &Pick) -> Result<(), Fault> {
    match pick.status {
        Some([0, 0]) => Err(Fault::kernel(Doing::List, &Failure::Refused(libc::EINVAL))),
        _ => Ok(()),
    }
}
