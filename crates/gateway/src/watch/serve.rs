//! Captures and traces for control clients, each written by the client's own thread.
use super::pcapng::PcapngWriter;
use super::{PacketWatch, WatchGuard, WatchKind, WatchRecord, WatchedPackets};
use crate::client_stream::{HANGUP_CHECK_INTERVAL, WRITE_BUFFER, peer_closed};
use crate::control_protocol::{CaptureRequest, TraceRequest, write_reply_line};
use crate::jobs::{JobCtx, JobSender};
use anyhow::Result;
use keepstate_linux::peercred::PeerCred;
use std::io::{BufWriter, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::RecvTimeoutError;

/// Records written before the client gets them.
const RECORDS_PER_FLUSH: usize = 256;

/// Writes a capture until the client closes the connection, or has as many packets as it wants.
pub(crate) fn capture(
    request: &CaptureRequest,
    mut stream: &UnixStream,
    jobs: &JobSender,
    peer: PeerCred,
) -> Result<()> {
    if peer.uid != 0 && peer.uid != PeerCred::current().uid {
        let why = "capture: permission denied: it shows what connections carry, so it is for root and for the gateway's own user; keepstate control trace shows headers";
        return write_reply_line(&mut stream, Some(why.to_owned()));
    }
    let snaplen = request.snaplen.filter(|length| *length > 0).map_or(usize::MAX, |length| length as usize);
    let watch = begin(WatchKind::Capture { snaplen }, WatchedPackets::of_filter(&request.filter), jobs)?;
    write_reply_line(&mut stream, None)?;
    let out = BufWriter::with_capacity(WRITE_BUFFER, stream);
    let mut writer = PcapngWriter::new(out, request.snaplen.unwrap_or(0) as usize)?;
    writer.beneath().flush()?;
    follow(&watch, request.count, stream, |records, lost| {
        for record in records {
            if let WatchRecord::Packet(packet) = record {
                writer.write(packet)?;
            }
        }
        writer.note_lost(lost)?;
        Ok(writer.beneath().flush()?)
    })
}

/// Writes a trace until the client closes the connection, or has as many packets as it wants.
pub(crate) fn trace(request: &TraceRequest, mut stream: &UnixStream, jobs: &JobSender) -> Result<()> {
    let wanted = match request.filter.is_empty() && !request.all {
        true => WatchedPackets::AskedFor,
        false => WatchedPackets::of_filter(&request.filter),
    };
    let watch = begin(WatchKind::Trace, wanted, jobs)?;
    write_reply_line(&mut stream, None)?;
    let mut out = BufWriter::with_capacity(WRITE_BUFFER, stream);
    let mut told = 0;
    follow(&watch, request.count, stream, |records, lost| {
        for record in records {
            if let WatchRecord::Lines(text) = record {
                out.write_all(text.as_bytes())?;
            }
        }
        if lost > told {
            writeln!(out, "# {} packets not shown: they came faster than they were read", lost - told)?;
            told = lost;
        }
        Ok(out.flush()?)
    })
}

fn begin(kind: WatchKind, wanted: WatchedPackets, jobs: &JobSender) -> Result<WatchGuard> {
    let (tap, watch) = PacketWatch::begin(kind, wanted);
    jobs.run(move |at: &mut JobCtx<'_>| at.router.add_tap(Box::new(tap)))?;
    Ok(watch)
}

/// Hands records on in batches, with the number of those lost so far.
fn follow(
    watch: &WatchGuard,
    count: Option<u64>,
    stream: &UnixStream,
    mut write: impl FnMut(&[WatchRecord], u64) -> Result<()>,
) -> Result<()> {
    let mut left = count.unwrap_or(u64::MAX);
    while left > 0 {
        let mut records = match watch.records.recv_timeout(HANGUP_CHECK_INTERVAL) {
            Ok(first) => vec![first],
            Err(RecvTimeoutError::Timeout) if peer_closed(stream)? => break,
            Err(RecvTimeoutError::Timeout) => Vec::new(),
            Err(RecvTimeoutError::Disconnected) => break,
        };
        if !records.is_empty() {
            records.extend(watch.records.try_iter().take(RECORDS_PER_FLUSH));
        }
        records.iter().for_each(|record| watch.consumed(record));
        records.truncate(usize::try_from(left).unwrap_or(usize::MAX));
        left -= records.len() as u64;
        write(&records, watch.lost())?;
    }
    Ok(())
}
