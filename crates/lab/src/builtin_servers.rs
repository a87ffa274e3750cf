//! Built-in servers for machines without real ones: a web page with the addresses of both ends, and an endless stream of bytes.
use anyhow::{Context, Result};
use keepstate_linux::netns::AnonNetns;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// Port of the stream of bytes: iperf3's.
pub(super) const THROUGHPUT_PORT: u16 = 5201;
/// Timeout of reads and writes.
const IO_TIMEOUT: Duration = Duration::from_secs(3);
/// Maximum length of a page or request, in bytes.
const MAX_LEN: u64 = 65_536;

/// A server; its threads end with the process.
#[derive(Debug)]
pub(super) struct BuiltinServer;

impl BuiltinServer {
    /// Serves a web page at this address.
    pub(super) fn serve_page(netns: &AnonNetns, at: SocketAddr) -> Result<BuiltinServer> {
        BuiltinServer::start(netns, at, answer_request)
    }

    /// Sends bytes to every client until it closes the connection.
    pub(super) fn serve_bytes(netns: &AnonNetns, at: SocketAddr) -> Result<BuiltinServer> {
        BuiltinServer::start(netns, at, |stream| {
            let buffer = vec![0x5a; 1 << 16];
            loop {
                stream.write_all(&buffer)?;
            }
        })
    }

    fn start(netns: &AnonNetns, at: SocketAddr, serve: fn(&mut TcpStream) -> io::Result<()>) -> Result<BuiltinServer> {
        let listener = netns.enter(|| TcpListener::bind(at))?.with_context(|| format!("cannot listen on {at}"))?;
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                // One thread each: connections are few, and a silent one delays no other.
                std::thread::spawn(move || {
                    let timed =
                        stream.set_read_timeout(Some(IO_TIMEOUT)).and(stream.set_write_timeout(Some(IO_TIMEOUT)));
                    // The client may have gone.
                    let _ = timed.and_then(|()| serve(&mut stream));
                });
            }
        });
        Ok(BuiltinServer)
    }
}

/// Answers one HTTP request.
fn answer_request(stream: &mut TcpStream) -> io::Result<()> {
    let mut request = Vec::new();
    let mut buffer = [0; 1024];
    while !request.windows(4).any(|end| end == b"\r\n\r\n") && request.len() < MAX_LEN as usize {
        match stream.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
            Ok(0) => return Ok(()),
            Ok(length) => request.extend_from_slice(buffer.get(..length).unwrap_or_default()),
            Err(error) => return Err(error),
        }
    }
    let page = format!("I am {}, you are {}\n", stream.local_addr()?.ip(), stream.peer_addr()?.ip());
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        page.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(page.as_bytes())
}

/// Fetches a page over HTTP.
pub(super) fn http_get(at: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&at, IO_TIMEOUT)?;
    stream.set_read_timeout(Some(IO_TIMEOUT))?;
    stream.write_all(format!("GET / HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.take(MAX_LEN).read_to_string(&mut answer)?;
    Ok(answer.split_once("\r\n\r\n").map_or_else(String::new, |(_, page)| page.to_owned()))
}

/// Downloads for some time; returns bits per second.
pub(super) fn measure_download(at: SocketAddr, time: Duration) -> io::Result<f64> {
    let mut stream = TcpStream::connect_timeout(&at, IO_TIMEOUT)?;
    stream.set_read_timeout(Some(IO_TIMEOUT))?;
    let mut buffer = vec![0; 1 << 18];
    let (start, mut bytes) = (Instant::now(), 0_u64);
    while start.elapsed() < time {
        match stream.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
            Ok(0) => break,
            Ok(length) => bytes += length as u64,
            Err(error) => return Err(error),
        }
    }
    Ok(bytes as f64 * 8.0 / start.elapsed().as_secs_f64())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
    use super::*;

    #[test]
    fn page_names_both_ends_even_for_a_slow_request() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            for stream in listener.incoming().take(3) {
                // One client sends no request.
                let _ = answer_request(&mut stream.unwrap());
            }
        });
        assert_eq!(http_get(at).unwrap(), "I am 127.0.0.1, you are 127.0.0.1\n");
        drop(TcpStream::connect(at).unwrap());
        let mut slow = TcpStream::connect(at).unwrap();
        for part in ["GET / HTTP/1.1\r", "\nHost: a\r\n\r", "\n"] {
            slow.write_all(part.as_bytes()).unwrap();
        }
        let mut answer = String::new();
        slow.read_to_string(&mut answer).unwrap();
        assert!(answer.ends_with("you are 127.0.0.1\n"), "{answer}");
        server.join().unwrap();
    }
}
