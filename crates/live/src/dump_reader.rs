//! One whole dump of a table, on two threads: one waits for the owner, which makes each piece while it is asked for it, the other takes the pieces.
//!
//! Pieces go round: a used one is filled again, so that memory does not grow with the table. If the taker is slower, the reader waits for it.
use keepstate_linux::ctnetlink::{CtClient, CtDumpKind, DumpFilter};
use keepstate_linux::netlink::NetlinkError;
use rustix::time::{ClockId, clock_gettime};
use std::io;
use std::ops::ControlFlow;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

/// Pieces that have been read and not yet taken, at most; each is at most 32 KiB of Linux's.
const PIECES: usize = 64;
/// So many are taken at once, if they are there.
const TAKEN_AT_ONCE: usize = 16;
/// After so many reads there is a rest.
const READS_PER_REST: u32 = 32;

/// Reads the table: `take` gets undecoded pieces until the dump ends or it breaks; `rest` is called now and again with the time that the reader has
/// worked since. Returns the processor time of both threads.
///
/// # Errors
/// The owner's, the socket's or `take`'s error.
pub(crate) fn read_table(
    client: CtClient,
    rest: impl Fn(Duration) + Send,
    mut take: impl FnMut(&[Vec<u8>]) -> Result<ControlFlow<()>, NetlinkError>,
) -> Result<Duration, NetlinkError> {
    let before = processor_time();
    let (full, pieces) = sync_channel(PIECES);
    let (used, empty) = sync_channel(PIECES + TAKEN_AT_ONCE);
    thread::scope(|scope| {
        let reader = thread::Builder::new()
            .name("live-read".into())
            .spawn_scoped(scope, move || read(client, &full, &empty, rest))?;
        let taken = take_all(pieces, &used, &mut take);
        let read = reader.join().unwrap_or_else(|_| Err(io::Error::other("the reading thread failed").into()));
        taken?;
        Ok(read? + processor_time().saturating_sub(before))
    })
}

/// Sends each piece on; returns the processor time that it took.
fn read(
    mut client: CtClient,
    full: &SyncSender<Vec<u8>>,
    empty: &Receiver<Vec<u8>>,
    rest: impl Fn(Duration),
) -> Result<Duration, NetlinkError> {
    let (mut reads, mut since) = (0, Instant::now());
    client.dump_chunks(CtDumpKind::Confirmed, &DumpFilter::default(), |bytes| {
        let mut piece = empty.try_recv().unwrap_or_default();
        piece.clear();
        piece.extend_from_slice(bytes);
        if full.send(piece).is_err() {
            return Ok(ControlFlow::Break(()));
        }
        reads += 1;
        if reads % READS_PER_REST == 0 {
            rest(since.elapsed());
            since = Instant::now();
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(processor_time())
}

/// Takes the pieces until there are no more. Who ends earlier drops the receiver: the reader then ends too.
fn take_all(
    pieces: Receiver<Vec<u8>>,
    used: &SyncSender<Vec<u8>>,
    take: &mut impl FnMut(&[Vec<u8>]) -> Result<ControlFlow<()>, NetlinkError>,
) -> Result<(), NetlinkError> {
    let mut batch = Vec::with_capacity(TAKEN_AT_ONCE);
    while let Ok(piece) = pieces.recv() {
        batch.push(piece);
        batch.extend(pieces.try_iter().take(TAKEN_AT_ONCE - 1));
        if take(&batch)?.is_break() {
            return Ok(());
        }
        for piece in batch.drain(..) {
            // The dump may have ended already.
            let _ = used.try_send(piece);
        }
    }
    Ok(())
}

/// The processor time of this thread.
fn processor_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
    use super::*;
    use keepstate_linux::ctnetlink::consts;
    use keepstate_linux::netlink::message::{NlRequest, flag, push_done};
    use keepstate_linux::netlink::stream_frame::{read_frame, write_frame};
    use keepstate_linux::netlink::{NetlinkSocket, NlMessages};
    use std::os::unix::net::UnixStream;

    /// An owner that answers a dump with so many pieces and then ends it, if the reader stays so long.
    fn owner(pieces: usize) -> CtClient {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        thread::spawn(move || {
            let mut frame = Vec::new();
            while read_frame(&mut ours, &mut frame).is_ok_and(|more| more) {
                let Some(Ok(request)) = NlMessages::new(&frame).next() else { return };
                let piece = NlRequest::new(consts::message::CT_NEW, flag::MULTI, 2).finish(request.sequence).to_vec();
                let mut done = Vec::new();
                push_done(&mut done, request.sequence);
                let mut answers = std::iter::repeat_n(piece, pieces).chain([done]);
                if answers.any(|answer| write_frame(&mut ours, &answer).is_err()) {
                    return;
                }
            }
        });
        CtClient::from_socket(NetlinkSocket::over_stream(theirs))
    }

    #[test]
    fn every_piece_is_taken_in_batches_that_are_bounded() {
        let mut taken = 0;
        let rested = std::sync::atomic::AtomicUsize::new(0);
        let rest = |_| {
            rested.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        };
        read_table(owner(1000), rest, |pieces| {
            assert!((1..=TAKEN_AT_ONCE).contains(&pieces.len()));
            taken += pieces.len();
            Ok(ControlFlow::Continue(()))
        })
        .unwrap();
        assert_eq!((taken, rested.into_inner()), (1001, 31), "the last piece is the end");
    }

    #[test]
    fn who_takes_no_more_ends_the_dump() {
        let mut taken = 0;
        let broken = |taken: &mut usize| {
            *taken += 1;
            if *taken < 3 { Ok(ControlFlow::Continue(())) } else { Ok(ControlFlow::Break(())) }
        };
        read_table(owner(1_000_000), |_| (), |_| broken(&mut taken)).unwrap();
        assert_eq!(taken, 3);
        let failed = read_table(owner(1_000_000), |_| (), |_| Err(NetlinkError::Errno(libc::EIO)));
        assert_eq!(failed.unwrap_err().errno(), Some(libc::EIO));
    }
}
