//! Real nats-servers on loopback addresses of their own, for tests: one, or several as a cluster. Each is known by its process id; only these are stopped.
use crate::report_skipped;
use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

/// How long servers may take until they answer, on a busy machine.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// Between two questions whether they do.
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// Client, cluster and monitoring port of a server.
const PORTS_PER_SERVER: u16 = 3;

/// Servers that are ended when dropped.
#[derive(Debug)]
pub struct NatsServers {
    servers: Vec<Server>,
    folder: PathBuf,
}

#[derive(Debug)]
struct Server {
    address: String,
    port: u16,
    config: PathBuf,
    child: Option<Child>,
}

impl NatsServers {
    /// Starts `count` servers with JetStream, and `extra` in each one's configuration; waits until they answer. `None` where there is no nats-server; that is reported.
    ///
    /// # Panics
    /// They do not start.
    pub fn start(count: usize, extra: &str) -> Option<NatsServers> {
        NatsServers::start_with(count, &format!("jetstream {{ store_dir: \"STORE\" }}\n{extra}"))
    }

    /// As [`NatsServers::start`], with this configuration alone; `STORE` in it is a folder of the server.
    ///
    /// # Panics
    /// They do not start.
    pub fn start_with(count: usize, extra: &str) -> Option<NatsServers> {
        NatsServers::start_on(&NatsServers::address(), count, extra)
    }

    /// One server with JetStream on this address of this thread's network namespace.
    ///
    /// # Panics
    /// It does not start.
    pub fn start_at(address: &str) -> Option<NatsServers> {
        NatsServers::start_on(address, 1, "jetstream { store_dir: \"STORE\" }\n")
    }

    /// One server on this address of this thread's network namespace, with this configuration alone.
    ///
    /// # Panics
    /// It does not start.
    pub fn start_at_with(address: &str, extra: &str) -> Option<NatsServers> {
        NatsServers::start_on(address, 1, extra)
    }

    fn start_on(address: &str, count: usize, extra: &str) -> Option<NatsServers> {
        static NEXT_PORT: AtomicU16 = AtomicU16::new(14_000);
        if Command::new("nats-server").arg("--version").stdout(Stdio::null()).status().is_err() {
            report_skipped("nats-server is missing (Debian's package nats-server)");
            return None;
        }
        let ports = PORTS_PER_SERVER * u16::try_from(count).unwrap_or(u16::MAX);
        let base = NEXT_PORT.fetch_add(ports, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("keepstate-nats-{}-{base}", std::process::id()));
        let port = |index: usize| base + PORTS_PER_SERVER * u16::try_from(index).unwrap_or(0);
        let routes: Vec<String> = (0..count).map(|index| format!("nats://{address}:{}", port(index) + 1)).collect();
        let mut servers = Vec::new();
        for index in 0..count {
            let store = folder.join(format!("n{index}"));
            std::fs::create_dir_all(&store).unwrap_or_else(|error| panic!("{}: {error}", store.display()));
            let mut text = extra.replace("STORE", &store.display().to_string());
            let port = port(index);
            let _ = writeln!(
                text,
                "\nserver_name: n{index}\nlisten: \"{address}:{port}\"\nhttp: \"{address}:{}\"",
                port + 2
            );
            if count > 1 {
                let routes = routes.join(", ");
                let _ =
                    writeln!(text, "cluster {{ name: test, listen: \"{address}:{}\", routes: [{routes}] }}", port + 1);
            }
            let config = folder.join(format!("n{index}.conf"));
            std::fs::write(&config, text).unwrap_or_else(|error| panic!("{}: {error}", config.display()));
            servers.push(Server { address: address.to_owned(), port, config, child: None });
        }
        let mut all = NatsServers { servers, folder };
        all.servers.iter_mut().for_each(Server::spawn);
        all.wait_ready();
        Some(all)
    }

    /// The address that all servers of this process have: one of its own, so no two tests meet.
    pub fn address() -> String {
        let [_, a, b, c] = std::process::id().to_be_bytes();
        format!("127.{}.{b}.{c}", 64 + a % 128)
    }

    /// The address of the first one.
    pub fn url(&self) -> String {
        self.urls().remove(0)
    }

    /// The addresses of all.
    pub fn urls(&self) -> Vec<String> {
        self.servers.iter().map(|server| format!("nats://{}:{}", server.address, server.port)).collect()
    }

    /// A folder for files of the test, removed with the servers.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The process of a server.
    pub fn pid(&self, index: usize) -> Option<u32> {
        self.servers.get(index)?.child.as_ref().map(Child::id)
    }

    /// The index of the server with this name, as JetStream tells it.
    pub fn index_of(&self, name: &str) -> Option<usize> {
        name.strip_prefix('n')?.parse().ok().filter(|index| *index < self.servers.len())
    }

    /// Ends a server with SIGKILL.
    pub fn kill(&mut self, index: usize) {
        if let Some(mut child) = self.servers.get_mut(index).and_then(|server| server.child.take()) {
            // It may have ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts a killed server again, on the same address with what it had stored, and waits until all that run answer.
    pub fn restart(&mut self, index: usize) {
        self.kill(index);
        self.servers[index].spawn();
        self.wait_ready();
    }

    /// Stops a server's process (SIGSTOP): it is there and answers nothing.
    pub fn pause(&self, index: usize) {
        self.signal(index, "-STOP");
    }

    /// Lets it go on.
    pub fn resume(&self, index: usize) {
        self.signal(index, "-CONT");
    }

    fn signal(&self, index: usize, signal: &str) {
        let pid = self.pid(index).unwrap_or_else(|| panic!("server {index} does not run"));
        let done = Command::new("kill").args([signal, &pid.to_string()]).status();
        assert!(done.is_ok_and(|status| status.success()), "kill {signal} {pid}");
    }

    fn wait_ready(&self) {
        let deadline = Instant::now() + START_TIMEOUT;
        for server in self.servers.iter().filter(|server| server.child.is_some()) {
            while !server.is_healthy() {
                assert!(Instant::now() < deadline, "nats-server does not answer: {}", server.log());
                std::thread::sleep(POLL_INTERVAL);
            }
        }
    }
}

impl Drop for NatsServers {
    fn drop(&mut self) {
        (0..self.servers.len()).for_each(|index| self.kill(index));
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

impl Server {
    fn spawn(&mut self) {
        let log = std::fs::File::options().create(true).append(true).open(self.config.with_extension("log"));
        let log = log.unwrap_or_else(|error| panic!("{}: {error}", self.config.display()));
        let child = Command::new("nats-server").arg("-c").arg(&self.config).stdout(Stdio::null()).stderr(log).spawn();
        self.child = Some(child.unwrap_or_else(|error| panic!("nats-server: {error}")));
    }

    /// It answers, and its JetStream, where it has one, has a leader.
    fn is_healthy(&self) -> bool {
        let Ok(mut stream) = TcpStream::connect((self.address.as_str(), self.port + 2)) else { return false };
        let _ = stream.set_read_timeout(Some(Duration::from_secs(2)));
        let asked = stream.write_all(b"GET /healthz HTTP/1.0\r\n\r\n");
        let mut answer = String::new();
        let read = stream.read_to_string(&mut answer);
        asked.is_ok() && read.is_ok() && answer.starts_with("HTTP/1.0 200")
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.config.with_extension("log")).unwrap_or_default()
    }
}

/// Makes `ca.pem`, an authority, and `server.pem`, `client.pem` with their keys, for the address that the servers of this process have. `None` without openssl.
pub fn make_certificates(folder: &Path) -> Option<()> {
    let run = |args: &[&str]| {
        let mut command = Command::new("openssl");
        let done = command.args(args).current_dir(folder).stdout(Stdio::null()).stderr(Stdio::null()).status();
        done.ok().filter(std::process::ExitStatus::success).map(drop)
    };
    let curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"];
    run(&[&["req", "-x509", "-subj", "/CN=test CA", "-keyout", "ca.key", "-out", "ca.pem"][..], &curve].concat())?;
    let extensions = format!("subjectAltName=IP:{}\nextendedKeyUsage=serverAuth,clientAuth\n", NatsServers::address());
    std::fs::write(folder.join("ext"), extensions).ok()?;
    for name in ["server", "client"] {
        let (key, request, certificate) = (format!("{name}.key"), format!("{name}.csr"), format!("{name}.pem"));
        let subject = format!("/CN={name}");
        run(&[&["req", "-subj", &subject, "-keyout", &key, "-out", &request][..], &curve[..5]].concat())?;
        let sign =
            ["x509", "-req", "-in", &request, "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2"];
        run(&[&sign[..], &["-extfile", "ext", "-out", &certificate]].concat())?;
    }
    Some(())
}
