//! One reading of the whole kernel table, on a thread of its own: the node's turns stay short however large the table is.
use crate::kernel_sender::KernelTableSender;
use keepstate_linux::ctnetlink::{CtClient, CtDumpKind, CtFlow, DumpFilter};
use keepstate_linux::netlink::NetlinkError;
use std::collections::HashSet;
use std::io;
use std::ops::ControlFlow;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};

/// Entries that are handed over together, pieces that may wait, and pieces taken in one turn.
const PIECE: usize = 256;
const MAX_WAITING: usize = 8;
const PIECES_PER_TURN: usize = 4;

/// A reading under way.
pub(crate) struct TableReading {
    pieces: Receiver<Result<Vec<CtFlow>, NetlinkError>>,
    seen: HashSet<u32>,
}

impl TableReading {
    /// Begins to read the table of this thread's network namespace.
    pub(crate) fn start() -> io::Result<TableReading> {
        let (sender, pieces) = sync_channel(MAX_WAITING);
        let mut table = CtClient::open()?;
        std::thread::Builder::new().name("table".into()).spawn(move || {
            if let Err(error) = read(&mut table, &sender) {
                // Nobody waits any more where this fails.
                let _ = sender.send(Err(error));
            }
        })?;
        Ok(TableReading { pieces, seen: HashSet::new() })
    }

    /// Tells the sender what was read so far; true when all was.
    pub(crate) fn poll(&mut self, sender: &mut KernelTableSender) -> Result<bool, NetlinkError> {
        for _ in 0..PIECES_PER_TURN {
            match self.pieces.try_recv() {
                Ok(piece) => self.seen.extend(piece?.iter().filter_map(|flow| sender.handle_listed(flow))),
                Err(TryRecvError::Empty) => return Ok(false),
                Err(TryRecvError::Disconnected) => {
                    sender.handle_unlisted(&self.seen);
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }
}

fn read(table: &mut CtClient, to: &SyncSender<Result<Vec<CtFlow>, NetlinkError>>) -> Result<(), NetlinkError> {
    let mut piece = Vec::new();
    table.dump(CtDumpKind::Confirmed, &DumpFilter::default(), |flow| {
        piece.push(flow.clone());
        if piece.len() == PIECE && to.send(Ok(std::mem::take(&mut piece))).is_err() {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    })?;
    let _ = to.send(Ok(piece));
    Ok(())
}
