//! A namespace for one test, its traffic, and the doctor asked about it.
use crate::common::{ProgramOutput, keepstate, report_skipped};
use crate::remedy_commands;
use keepstate_linux::netns;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How long a test waits for something that must happen.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// The lock of the machine-wide sysctls.
const SYSCTL_LOCK: &str = "/tmp/keepstate-global-knobs.lock";

/// Addresses that nobody answers for: below the namespace's dummy device.
pub const UNREACHABLE_ADDR: [u8; 4] = [10, 9, 1, 1];

/// A network namespace of its own, with loopback and a device that swallows everything. It goes with its test.
pub struct NetnsFixture {
    pub name: String,
    /// Commands that the doctor gave for it; run at its end.
    remedies: Mutex<BTreeSet<String>>,
    _lock: SysctlLock,
}

/// The lock, shared or alone, as long as it is held.
pub struct SysctlLock(#[allow(dead_code, reason = "it is held, not read")] File);

impl SysctlLock {
    pub fn shared() -> SysctlLock {
        SysctlLock::flock(libc::LOCK_SH)
    }

    pub fn exclusive() -> SysctlLock {
        SysctlLock::flock(libc::LOCK_EX)
    }

    #[allow(unsafe_code, reason = "flock(2) of a file that others lock too")]
    fn flock(how: i32) -> SysctlLock {
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(SYSCTL_LOCK).unwrap();
        // SAFETY: the descriptor is open; the call changes no memory.
        assert_eq!(unsafe { libc::flock(file.as_raw_fd(), how) }, 0);
        SysctlLock(file)
    }
}

impl NetnsFixture {
    /// A namespace; none, and loudly, where this machine makes none for us.
    pub fn create(lock: SysctlLock) -> Option<NetnsFixture> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("ks-doc-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        if !run(&["ip", "netns", "add", &name]) {
            report_skipped("the doctor's test bed: it needs root, ip(8) and network namespaces");
            return None;
        }
        let bed = NetnsFixture { name, remedies: Mutex::default(), _lock: lock };
        for words in [
            "link set lo up",
            // What is sent to nobody goes through every hook and ends at the other end of the cable, whose address it has not.
            "link add d0 type veth peer name d1",
            "link set d0 arp off",
            "link set d1 up",
            "addr add 10.9.0.1/16 dev d0",
            "link set d0 up",
            // More than 28,000 connections from one address, and none that waits for its end.
        ] {
            let words: Vec<&str> = ["ip", "-n", &bed.name].into_iter().chain(words.split(' ')).collect();
            assert!(run(&words), "{words:?}");
        }
        // A rule that asks for a state makes the namespace track.
        bed.nft("table inet bed { chain out { type filter hook output priority 0; ct state established accept; } }");
        Some(bed)
    }

    /// A namespace whose limits nobody changes meanwhile.
    pub fn create_shared() -> Option<NetnsFixture> {
        NetnsFixture::create(SysctlLock::shared())
    }

    /// Does something inside.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        netns::find(&self.name).unwrap().enter(work).unwrap()
    }

    /// Loads rules.
    pub fn nft(&self, rules: &str) {
        // A block ends with its line, for nft before 1.1.
        let rules = &rules.replace("} }", "}\n}").replace("} chain", "}\nchain").replace("} set", "}\nset");
        let file = crate::common::TempFile::new(&format!("{}.nft", self.name), rules.as_bytes());
        assert!(run(&["ip", "netns", "exec", &self.name, "nft", "-f", file.path()]), "{rules}");
    }

    /// Sets a knob inside.
    pub fn set_sysctl(&self, knob: &str, value: u64) {
        self.enter(|| fs::write(format!("/proc/sys/net/netfilter/{knob}"), value.to_string()).unwrap());
    }

    /// Runs the doctor on this namespace.
    pub fn run_doctor(&self) -> DoctorOutput {
        let output = DoctorOutput::run(&["doctor", "--netns", &self.name, "--interval", "400ms", "--json"]);
        let findings = output.document["findings"].as_array().unwrap().iter();
        let commands = findings.flat_map(remedy_commands::commands).map(str::to_owned);
        self.remedies.lock().unwrap().extend(commands);
        output
    }

    /// Runs the doctor on this namespace while `work` is repeated inside.
    pub fn run_doctor_during(&self, work: impl Fn() + Send + Sync) -> DoctorOutput {
        self.repeat_during(work, || self.run_doctor())
    }

    /// Calls `run` while `work` is repeated inside, until it was really repeated during one call: on a busy machine the interval
    /// between two readings may pass without it.
    pub fn repeat_during(&self, work: impl Fn() + Send + Sync, run: impl Fn() -> DoctorOutput) -> DoctorOutput {
        repeat_during(|repeat| self.enter(repeat), work, run)
    }

    /// Runs the doctor on this namespace while `work` is repeated in another one.
    pub fn run_doctor_during_in(&self, namespace: &str, work: impl Fn() + Send + Sync) -> DoctorOutput {
        repeat_during(|repeat| netns::find(namespace).unwrap().enter(repeat).unwrap(), work, || self.run_doctor())
    }

    /// Runs the doctor on this namespace while `work` is repeated in the initial one.
    pub fn run_doctor_during_host(&self, work: impl Fn() + Send + Sync) -> DoctorOutput {
        repeat_during(|repeat| repeat(), work, || self.run_doctor())
    }
}

impl Drop for NetnsFixture {
    fn drop(&mut self) {
        let remedies = self.remedies.lock().map(|remedies| remedies.clone()).unwrap_or_default();
        let failed = remedies.iter().filter_map(|command| {
            remedy_commands::run_in_namespace(&self.name, command).err().map(|error| format!("{command}: {error}"))
        });
        let failed: Vec<String> = if std::thread::panicking() { Vec::new() } else { failed.collect() };
        run(&["ip", "netns", "del", &self.name]);
        assert_eq!(failed, Vec::<String>::new(), "remedies that fail in the namespace they are for");
    }
}

/// Calls `run` while `work` is repeated by a thread of `within`; see [`NetnsFixture::repeat_during`].
fn repeat_during(
    within: impl FnOnce(&(dyn Fn() + Send + Sync)) + Send,
    work: impl Fn() + Send + Sync,
    run: impl Fn() -> DoctorOutput,
) -> DoctorOutput {
    const MIN_REPETITIONS: u32 = 5;
    let over = AtomicBool::new(false);
    let repetitions = AtomicU32::new(0);
    let repeat = || {
        while !over.load(Ordering::Relaxed) {
            work();
            repetitions.fetch_add(1, Ordering::Relaxed);
        }
    };
    std::thread::scope(|scope| {
        // Also when `run` panics: else the scope would wait for ever.
        let _end = SetOnDrop(&over);
        scope.spawn(|| within(&repeat));
        let deadline = Instant::now() + DEADLINE;
        while repetitions.load(Ordering::Relaxed) == 0 && Instant::now() < deadline {
            std::thread::yield_now();
        }
        loop {
            let before = repetitions.load(Ordering::Relaxed);
            let output = run();
            let during = repetitions.load(Ordering::Relaxed) - before;
            if during >= MIN_REPETITIONS || Instant::now() >= deadline {
                return output;
            }
        }
    })
}

/// Sets a flag when it is dropped.
pub struct SetOnDrop<'a>(pub &'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What the doctor said.
pub struct DoctorOutput {
    pub code: Option<i32>,
    pub document: Value,
}

impl DoctorOutput {
    pub fn run(arguments: &[&str]) -> DoctorOutput {
        let ProgramOutput { code, out, err } = keepstate(arguments, b"");
        let document = serde_json::from_str(&out).unwrap_or_else(|_| panic!("{arguments:?}: {out}{err}"));
        remedy_commands::check_report(&document);
        DoctorOutput { code, document }
    }

    /// The names of the findings, of one namespace or the machine.
    pub fn finding_names(&self) -> Vec<&str> {
        let findings = self.document["findings"].as_array().unwrap();
        findings.iter().map(|finding| finding["name"].as_str().unwrap()).collect()
    }

    /// The finding of this name is the first, and the exit code is as bad as it is.
    #[track_caller]
    pub fn assert_first_finding(&self, name: &str) {
        assert_eq!(self.finding_names().first(), Some(&name), "{:#}", self.document);
        let bad = match self.document["findings"][0]["severity"].as_str().unwrap() {
            "critical" => 2,
            _ => 1,
        };
        assert!(self.code.is_some_and(|code| code >= bad && code < 3), "{:?}", self.code);
        for (at, finding) in self.document["findings"].as_array().unwrap().iter().enumerate() {
            assert!(!finding["evidence"].as_array().unwrap().is_empty(), "{at}");
            assert!(!finding["now"].as_array().unwrap().is_empty(), "{at}");
            assert!(!finding["for_good"].as_array().unwrap().is_empty(), "{at}");
        }
    }

    /// The name of the first finding about a namespace.
    pub fn first_finding_in(&self, namespace: &str) -> Option<&str> {
        let findings = self.document["findings"].as_array().unwrap();
        findings
            .iter()
            .find(|finding| finding["namespace"] == namespace)
            .map(|finding| finding["name"].as_str().unwrap())
    }
}

/// Runs a program; did it succeed?
pub fn run(words: &[&str]) -> bool {
    let output = Command::new(words[0]).args(&words[1..]).output();
    output.is_ok_and(|output| output.status.success())
}

/// Real TCP connections over loopback, both ends held.
pub struct Connections {
    pub clients: Vec<TcpStream>,
    pub servers: Vec<TcpStream>,
    pub listener: TcpListener,
}

impl Connections {
    /// `number` connections to a port of loopback; made inside.
    pub fn open(port: u16, number: usize) -> Connections {
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let mut held = Connections { clients: Vec::new(), servers: Vec::new(), listener };
        for _ in 0..number {
            held.clients.push(TcpStream::connect(("127.0.0.1", port)).unwrap());
            held.servers.push(held.listener.accept().unwrap().0);
        }
        held
    }
}

/// Datagrams to an address, each from a socket of its own.
pub fn send_datagrams(to: SocketAddr, number: usize) {
    // Many are open at a time, so that they have different ports.
    const OPEN: usize = 400;
    for first in (0..number).step_by(OPEN) {
        let more = OPEN.min(number - first);
        let sockets: Vec<UdpSocket> = (0..more).map(|_| UdpSocket::bind("0.0.0.0:0").unwrap()).collect();
        for socket in sockets {
            let _ = socket.send_to(b"keepstate", to);
        }
    }
}

/// Nobody, at a port.
pub fn unreachable(port: u16) -> SocketAddr {
    SocketAddr::from((UNREACHABLE_ADDR, port))
}
