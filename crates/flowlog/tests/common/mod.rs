//! Records for the tests of the logs, and the collectors that judge them.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::panic,
    reason = "each test uses a part; a test that cannot go on has failed"
)]
use keepstate_flowlog::{
    LogEvent, LogRecord, LogSession, LogTime, LoggedPortBlock, SessionCounters, SessionEnd, SocketAddress,
};
use std::net::{IpAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub const BEGIN: u64 = 1_790_000_000_000_000_000;

pub fn end(text: &str, port: u16) -> SocketAddress {
    SocketAddress { address: text.parse().unwrap(), port }
}

pub fn record(millis: u64, event: LogEvent) -> LogRecord {
    LogRecord { at: LogTime(BEGIN + millis * 1_000_000), event }
}

/// The session of this number, of many.
pub fn session(number: u32) -> LogSession {
    let [_, high, middle, low] = (number / 50_000).to_be_bytes();
    let port = 1024 + (number % 50_000) as u16;
    let (inside, outside, peer) = (
        SocketAddress { address: [10, high, middle, low].into(), port },
        end("192.0.2.1", port),
        end("198.51.100.7", 443),
    );
    LogSession::new(6, 0, [inside, peer], [outside, peer])
}

pub fn session_end(session: LogSession, start_millis: u64, counted: u64) -> LogEvent {
    let counters = [
        SessionCounters { packets: 7 + counted, bytes: 700 + counted },
        SessionCounters { packets: 9 + counted, bytes: 9000 + counted },
    ];
    LogEvent::SessionEnd(SessionEnd {
        session,
        start: Some(LogTime(BEGIN + start_millis * 1_000_000)),
        counters: Some(counters),
    })
}

/// One record of each kind.
pub fn one_of_each() -> Vec<LogRecord> {
    let v4 = session(7);
    let v6 = LogSession::new(
        17,
        0,
        [end("fd00::5", 4000), end("2001:db8:9::7", 53)],
        [end("2001:db8::1", 1025), end("2001:db8:9::7", 53)],
    );
    let dnat = LogSession::new(
        6,
        0,
        [end("198.51.100.9", 5000), end("192.0.2.1", 8080)],
        [end("198.51.100.9", 5000), end("10.0.0.9", 80)],
    );
    let plain = LogSession::new(
        6,
        0,
        [end("10.0.0.5", 4001), end("10.9.0.1", 22)],
        [end("10.0.0.5", 4001), end("10.9.0.1", 22)],
    );
    let block = LoggedPortBlock {
        inside: Some("10.0.0.5".parse().unwrap()),
        outside: "192.0.2.1".parse().unwrap(),
        first_port: 2048,
        last_port: 2559,
    };
    let events = [
        LogEvent::SessionBegin(v4),
        LogEvent::SessionBegin(v6),
        LogEvent::SessionBegin(dnat),
        LogEvent::SessionBegin(plain),
        LogEvent::PortBlockTaken(block),
        session_end(v4, 0, 0),
        session_end(v6, 1, 1),
        session_end(dnat, 2, 2),
        session_end(plain, 3, 3),
        LogEvent::PortBlockReturned(block),
        LogEvent::PortsExhausted {
            address: "192.0.2.1".parse::<IpAddr>().unwrap(),
            peer: Some(end("198.51.100.7", 443)),
            protocol: 6,
            refused: 12,
        },
        LogEvent::LimitReached { limit: 65_536, refused: 34 },
        LogEvent::RecordsLost { lost: 5, total: 8 },
    ];
    events.into_iter().zip(0..).map(|(event, millis)| record(millis, event)).collect()
}

pub fn has_tool(name: &str) -> bool {
    // nfacctd would run by any other.
    let version = if name == "nfacctd" { "-V" } else { "-v" };
    Command::new(name).arg(version).stdout(Stdio::null()).stderr(Stdio::null()).stdin(Stdio::null()).status().is_ok()
}

/// nfcapd, which writes what it receives into a directory.
pub struct Nfcapd {
    child: Child,
    pub port: u16,
    folder: tempfile::TempDir,
}

impl Nfcapd {
    pub fn start() -> Nfcapd {
        let folder = tempfile::tempdir().unwrap();
        let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = Command::new("nfcapd")
            .args(["-b", "127.0.0.1", "-p", &port.to_string(), "-B", "4000000", "-t", "3600", "-w"])
            .arg(folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let nfcapd = Nfcapd { child, port, folder };
        nfcapd.wait("nfcapd listens", |queued| queued.is_some());
        nfcapd
    }

    /// Waits until it has taken everything from its socket.
    pub fn wait_until_read(&self) {
        self.wait("nfcapd has read everything", |queued| queued == Some(0));
    }

    fn wait(&self, what: &str, is_so: impl Fn(Option<u64>) -> bool) {
        wait_until(what, || is_so(queued_bytes(self.port)));
    }

    /// Ends it, and gives what nfdump prints of its files with these options.
    pub fn finish(mut self, options: &[&str]) -> String {
        self.wait_until_read();
        Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        self.child.wait().unwrap();
        let output = Command::new("nfdump").arg("-R").arg(self.folder.path()).args(options).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Nfcapd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// pmacct's collector, which prints what it receives to a file.
pub struct Nfacctd {
    child: Child,
    pub port: u16,
    folder: tempfile::TempDir,
}

impl Nfacctd {
    pub fn start() -> Nfacctd {
        let folder = tempfile::tempdir().unwrap();
        let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = format!(
            "daemonize: false\nnfacctd_ip: 127.0.0.1\nnfacctd_port: {port}\nplugins: print\nplugin_pipe_size: 20480000\n\
             aggregate: src_host, src_port, dst_host, dst_port, proto, post_nat_src_host, post_nat_src_port, post_nat_dst_host, post_nat_dst_port, nat_event\n\
             print_output: csv\nprint_output_separator: |\nprint_output_file: {0}/records\nprint_output_file_append: true\nprint_refresh_time: 1\nlogfile: {0}/log\n",
            folder.path().display()
        );
        let path = folder.path().join("nfacctd.conf");
        std::fs::write(&path, config).unwrap();
        let child = Command::new("nfacctd").arg("-f").arg(&path).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let nfacctd = Nfacctd { child: child.unwrap(), port, folder };
        wait_until("nfacctd listens", || queued_bytes(port).is_some());
        // Its printer is a process of its own: what comes before that waits for records is never printed.
        wait_until("nfacctd prints", || nfacctd.log().contains("Purging cache"));
        nfacctd
    }

    /// Waits until it has taken everything from its socket.
    pub fn wait_until_read(&self) {
        wait_until("nfacctd has read everything", || queued_bytes(self.port) == Some(0));
    }

    /// What it has printed so far.
    pub fn printed(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("records")).unwrap_or_default()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Nfacctd {
    fn drop(&mut self) {
        // By this signal it ends its own children too.
        let _ = Command::new("kill").args(["-INT", &self.child.id().to_string()]).status();
        let until = Instant::now() + Duration::from_secs(10);
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits for something outside this process.
pub fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < until, "not within a minute: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Bytes in the receive queue of a UDP port of this network namespace; `None` if nobody listens.
fn queued_bytes(port: u16) -> Option<u64> {
    let table = std::fs::read_to_string("/proc/net/udp").unwrap();
    let here = format!(":{port:04X}");
    let line = table.lines().find(|line| line.split_whitespace().nth(1).is_some_and(|local| local.ends_with(&here)))?;
    let queues = line.split_whitespace().nth(4)?;
    u64::from_str_radix(queues.split_once(':')?.1, 16).ok()
}

/// A capture of UDP packets to port 4739 with these contents.
pub fn write_pcap(path: &Path, messages: &[Vec<u8>]) {
    let mut file = Vec::new();
    file.extend(0xa1b2_c3d4_u32.to_le_bytes());
    file.extend([2, 0, 4, 0]);
    file.extend([0; 8]);
    file.extend(65_535_u32.to_le_bytes());
    file.extend(101_u32.to_le_bytes());
    for message in messages {
        let length = 28 + message.len();
        for word in [1_790_000_000, 0, length as u32, length as u32] {
            file.extend(u32::to_le_bytes(word));
        }
        let mut header =
            vec![0x45, 0, (length >> 8) as u8, length as u8, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        let sum: u32 = header.chunks(2).map(|two| u32::from(two[0]) << 8 | u32::from(two[1])).sum();
        let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        let udp = length - 20;
        header.extend([0x12, 0x83, 0x12, 0x83, (udp >> 8) as u8, udp as u8, 0, 0]);
        file.extend(header);
        file.extend(message);
    }
    std::fs::write(path, file).unwrap();
}

/// What tshark's dissector makes of these messages: for each packet the values of the fields, as text.
pub fn tshark(messages: &[Vec<u8>], options: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path: PathBuf = folder.path().join("ipfix.pcap");
    write_pcap(&path, messages);
    let output = Command::new("tshark")
        .arg("-r")
        .arg(&path)
        .args(["-d", "udp.port==4739,cflow"])
        .args(options)
        .env("HOME", folder.path())
        .env("TZ", "UTC")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
