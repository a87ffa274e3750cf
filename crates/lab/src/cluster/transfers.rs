//! Downloads that never end: servers push, clients check every byte and note the longest pause.
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A server sends so much at a time, and so often: 1.6 MB/s.
const CHUNK: usize = 32 << 10;
const CHUNK_INTERVAL: Duration = Duration::from_millis(20);
/// Between two looks whether to stop.
const STOP_CHECK: Duration = Duration::from_millis(100);
/// The bytes repeat after so many: a prime, so that a lost or repeated segment is seen.
const PERIOD: usize = 251;

/// What became of the transfers in a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct TransferCounts {
    /// Bytes received in order.
    pub(super) bytes: u64,
    /// Transfers that ended, or brought a wrong byte.
    pub(super) broken: u32,
    /// The longest time without a byte.
    pub(super) pause: Duration,
}

/// Shared with the threads of the transfers.
#[derive(Debug, Default)]
pub(super) struct Transfers {
    counts: Mutex<TransferCounts>,
    /// How often it was asked who goes on.
    question: AtomicU32,
    /// Those that have received something since it was asked last.
    answers: AtomicU32,
}

impl Transfers {
    /// What happened since this was last called.
    pub(super) fn take(&self) -> TransferCounts {
        self.counts.lock().map(|mut counts| std::mem::take(&mut *counts)).unwrap_or_default()
    }

    /// From now on [`Transfers::have_moved`] waits for every transfer anew. After a pause its server sends again only some seconds later (TCP's retransmission time doubles).
    pub(super) fn ask(&self) {
        self.answers.store(0, Ordering::SeqCst);
        self.question.fetch_add(1, Ordering::SeqCst);
    }

    /// Have so many transfers received something since [`Transfers::ask`]?
    pub(super) fn have_moved(&self, transfers: u32) -> bool {
        self.answers.load(Ordering::SeqCst) >= transfers
    }

    /// Receives one transfer until `stop`. In the clients' network namespace.
    pub(super) fn receive(&self, mut stream: TcpStream, stop: &AtomicBool) {
        let mut buffer = vec![0; 2 * CHUNK];
        let (mut at, mut last) = (0_usize, Instant::now());
        let mut answered = 0;
        let is_whole = stream.set_read_timeout(Some(STOP_CHECK)).is_ok()
            && loop {
                if stop.load(Ordering::Relaxed) {
                    break true;
                }
                match stream.read(&mut buffer) {
                    Ok(0) => break false,
                    Ok(length) => {
                        let received = buffer.get(..length).unwrap_or_default();
                        if !received.iter().enumerate().all(|(index, byte)| *byte == byte_at(at + index)) {
                            break false;
                        }
                        at = (at + length) % PERIOD;
                        self.count(|counts| {
                            counts.bytes += length as u64;
                            counts.pause = counts.pause.max(last.elapsed());
                        });
                        last = Instant::now();
                        let question = self.question.load(Ordering::SeqCst);
                        if std::mem::replace(&mut answered, question) != question {
                            self.answers.fetch_add(1, Ordering::SeqCst);
                        }
                    }
                    Err(error)
                        if matches!(
                            error.kind(),
                            ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                        ) =>
                    {
                        self.count(|counts| counts.pause = counts.pause.max(last.elapsed()));
                    }
                    Err(_) => break false,
                }
            };
        if !is_whole {
            self.count(|counts| counts.broken += 1);
        }
    }

    fn count(&self, change: impl FnOnce(&mut TransferCounts)) {
        if let Ok(mut counts) = self.counts.lock() {
            change(&mut counts);
        }
    }
}

/// A transfer from a client's address. In the clients' network namespace.
///
/// # Errors
/// The server is not reached.
pub(super) fn connect(from: IpAddr, to: SocketAddr, timeout: Duration) -> io::Result<TcpStream> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(to), socket2::Type::STREAM, None)?;
    socket.bind(&SocketAddr::new(from, 0).into())?;
    socket.connect_timeout(&to.into(), timeout)?;
    Ok(socket.into())
}

/// Serves so many transfers on threads of their own, until `stop`.
pub(super) fn serve(listener: &TcpListener, transfers: usize, stop: &Arc<AtomicBool>) {
    for stream in listener.incoming().take(transfers) {
        let Ok(stream) = stream else { return };
        let stop = Arc::clone(stop);
        std::thread::spawn(move || send(stream, &stop));
    }
}

fn send(mut stream: TcpStream, stop: &AtomicBool) {
    let chunk: Vec<u8> = (0..CHUNK + PERIOD).map(byte_at).collect();
    let mut at = 0;
    while !stop.load(Ordering::Relaxed) {
        if stream.write_all(chunk.get(at..at + CHUNK).unwrap_or_default()).is_err() {
            return;
        }
        at = (at + CHUNK) % PERIOD;
        std::thread::sleep(CHUNK_INTERVAL);
    }
    // The client may be gone.
    let _ = stream.shutdown(Shutdown::Both);
}

fn byte_at(position: usize) -> u8 {
    // A remainder of 251 fits.
    (position % PERIOD) as u8
}
