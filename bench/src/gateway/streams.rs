//! Real TCP and UDP between client and server: throughput, connections per second, round-trip time.
use super::topology::{BenchHost, BenchTopology};
use anyhow::{Context, Result, anyhow};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The results.
#[derive(Clone, Copy, Debug, Default)]
pub struct StreamResults {
    /// Gbit/s of one TCP stream.
    pub throughput: f64,
    /// Connections per second, each with a request and a response: one after another, and with many at once.
    pub connections_per_second: [f64; 2],
    /// UDP round trip in µs: 50th, 99th and 99.9th percentile.
    pub latency: [f64; 3],
}

/// Number of listening ports: each can be reached from all ephemeral ports of a client.
const PORTS: std::ops::Range<u16> = 5001..5009;
const IO_TIMEOUT: Duration = Duration::from_secs(5);
/// Number of round trips.
const ROUND_TRIPS: usize = 20_000;

/// Connections at once.
const CONCURRENCY: usize = 64;
/// Threads of the server a port: so many connections to it wait for nothing but their own packets.
const ACCEPTORS: usize = CONCURRENCY / PORTS.end.abs_diff(PORTS.start) as usize;
/// How long a thread of the server waits for a connection before it looks whether the measurement is over.
const ACCEPT_TIMEOUT: Duration = Duration::from_millis(100);

/// Measures all of it between the client and a server on this host, each for the given time.
pub fn measure(stage: &BenchTopology, host: BenchHost, time: Duration) -> Result<StreamResults> {
    let server_address = if host == BenchHost::Router { ROUTER } else { SERVER };
    let ended = Arc::new(AtomicBool::new(false));
    let taken = Arc::new(AtomicU64::new(0));
    let (over, bytes) = (ended.clone(), taken.clone());
    let server = stage.spawn_in_netns(host, None, move || run_server(&over, &bytes));
    std::thread::sleep(Duration::from_millis(300));
    let count = taken.clone();
    let client = stage.spawn_in_netns(BenchHost::Client, None, move || {
        let latency = measure_round_trips(server_address)?;
        let throughput = measure_throughput(server_address, time, &count)?;
        let one = connections_in(server_address, 0, time)?;
        let many = connections_at_once(server_address, time)?;
        Ok(StreamResults { throughput, connections_per_second: [one, many], latency })
    });
    let found = client.join().map_err(|_| anyhow!("the client has failed"))?;
    ended.store(true, Ordering::Relaxed);
    server.join().map_err(|_| anyhow!("the server has failed"))??;
    found
}

/// The server: TCP port 5000 reads a stream, the others answer one byte, UDP port 9 echoes.
fn run_server(ended: &Arc<AtomicBool>, bytes: &Arc<AtomicU64>) -> Result<()> {
    let mut threads = Vec::new();
    for port in std::iter::once(5000).chain(PORTS) {
        let listener = TcpListener::bind(("0.0.0.0", port))?;
        set_socket_timeout(&listener, Timeout::Recv, Some(ACCEPT_TIMEOUT))?;
        for _ in 0..if port == 5000 { 1 } else { ACCEPTORS } {
            let (listener, ended, bytes) = (listener.try_clone()?, ended.clone(), bytes.clone());
            threads.push(std::thread::spawn(move || {
                while !ended.load(Ordering::Relaxed) {
                    match listener.accept() {
                        Ok((peer, _)) if port == 5000 => count_bytes(peer, &bytes),
                        Ok((peer, _)) => echo_byte(peer),
                        // Nobody has come.
                        Err(_) => (),
                    }
                }
            }));
        }
    }
    let echo = UdpSocket::bind(("0.0.0.0", 9))?;
    echo.set_read_timeout(Some(Duration::from_millis(100)))?;
    let mut buffer = [0; 64];
    while !ended.load(Ordering::Relaxed) {
        if let Ok((length, peer)) = echo.recv_from(&mut buffer) {
            echo.send_to(buffer.get(..length).unwrap_or_default(), peer)?;
        }
    }
    for thread in threads {
        thread.join().map_err(|_| anyhow!("a listener has failed"))?;
    }
    Ok(())
}

fn count_bytes(mut peer: TcpStream, bytes: &AtomicU64) {
    let mut buffer = vec![0; 1 << 18];
    while let Ok(length) = peer.read(&mut buffer) {
        if length == 0 {
            break;
        }
        bytes.fetch_add(length as u64, Ordering::Relaxed);
    }
}

fn echo_byte(mut peer: TcpStream) {
    let _ = peer.set_read_timeout(Some(IO_TIMEOUT));
    let mut byte = [0];
    if peer.read_exact(&mut byte).is_ok() {
        // The client may have closed the connection.
        let _ = peer.write_all(&byte);
    }
}

const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 1);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);

fn measure_throughput(server: Ipv4Addr, time: Duration, bytes: &AtomicU64) -> Result<f64> {
    let mut peer =
        TcpStream::connect_timeout(&(server, 5000).into(), IO_TIMEOUT).context("cannot connect to the server")?;
    peer.set_write_timeout(Some(IO_TIMEOUT))?;
    let (buffer, clock) = (vec![7; 1 << 17], Instant::now());
    // The first fifth is not counted: TCP slow start.
    while clock.elapsed() < time / 5 {
        peer.write_all(&buffer)?;
    }
    let (before, clock) = (bytes.load(Ordering::Relaxed), Instant::now());
    while clock.elapsed() < time {
        peer.write_all(&buffer)?;
    }
    Ok((bytes.load(Ordering::Relaxed) - before) as f64 * 8.0 / clock.elapsed().as_nanos() as f64)
}

/// Connections a second of one client, to the listening ports in turn.
fn connections_in(server: Ipv4Addr, first: usize, time: Duration) -> Result<f64> {
    let (clock, mut count) = (Instant::now(), 0);
    while clock.elapsed() < time {
        let port = PORTS.start + ((first + count) % PORTS.len()) as u16;
        let mut peer =
            TcpStream::connect_timeout(&(server, port).into(), IO_TIMEOUT).context("cannot connect to the server")?;
        peer.set_read_timeout(Some(IO_TIMEOUT))?;
        peer.write_all(&[1])?;
        peer.read_exact(&mut [0])?;
        count += 1;
    }
    Ok(count as f64 / clock.elapsed().as_secs_f64())
}

/// The same of many clients.
fn connections_at_once(server: Ipv4Addr, time: Duration) -> Result<f64> {
    // Threads of this one are in its namespace.
    let clients: Vec<_> =
        (0..CONCURRENCY).map(|number| std::thread::spawn(move || connections_in(server, number, time))).collect();
    let rates: Result<Vec<f64>> =
        clients.into_iter().map(|client| client.join().map_err(|_| anyhow!("a client has failed"))?).collect();
    Ok(rates?.iter().sum())
}

fn measure_round_trips(server: Ipv4Addr) -> Result<[f64; 3]> {
    let socket = UdpSocket::bind(("0.0.0.0", 0))?;
    socket.connect((server, 9))?;
    socket.set_read_timeout(Some(IO_TIMEOUT))?;
    let mut times = Vec::with_capacity(ROUND_TRIPS);
    let mut buffer = [0; 64];
    for _ in 0..ROUND_TRIPS {
        let clock = Instant::now();
        socket.send(&[1; 16])?;
        match socket.recv(&mut buffer) {
            Ok(_) => times.push(clock.elapsed().as_nanos() as f64 / 1000.0),
            Err(error) if error.kind() == ErrorKind::WouldBlock => anyhow::bail!("a UDP round trip timed out"),
            Err(error) => return Err(error.into()),
        }
    }
    times.sort_by(f64::total_cmp);
    let at = |share: f64| times.get((times.len() as f64 * share) as usize).copied().unwrap_or_default();
    Ok([at(0.5), at(0.99), at(0.999)])
}
