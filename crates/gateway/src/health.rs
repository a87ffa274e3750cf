//! Health checks of backends: a thread for each, which probes by a TCP connection or a command; only changes come back to the main loop.
//!
//! The threads live from one load of the services to the next; those of an older load end by themselves, and their results are ignored. The first result after
//! the start decides alone, later ones only in a row ([`RiseFall`]). No packet ever waits for a check.
use keepstate_engine::Instant;
use keepstate_linux::file_access::FileAccess;
use keepstate_linux::{priority, privileges, signal};
use keepstate_router::Router;
use keepstate_router::service::{BackendId, HealthCheckConfig, Probe};
use socket2::{Domain, Socket, Type};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant as Clock};

/// Stack size in bytes: a check needs little, and there may be thousands.
const STACK_SIZE: usize = 128 * 1024;
/// How often a running command is polled.
const COMMAND_POLL_INTERVAL: Duration = Duration::from_millis(10);

/// All checks of a gateway.
#[derive(Default)]
pub(super) struct HealthMonitor {
    /// The generation of services that the threads were started for.
    generation: u64,
    changes: Option<Receiver<HealthChange>>,
    /// Dropping them ends the threads.
    stop_senders: Vec<Sender<()>>,
    /// Checks to be started, and where they send their results.
    pending: Vec<(HealthCheck, Sender<HealthChange>)>,
    /// What is to be logged.
    notes: Vec<(BackendHealth, String)>,
    /// The thread that starts them, if not the one of the main loop.
    starter: Option<HealthStarter>,
}

/// A thread that starts checks: one that began before the gateway limited its access to files, so that their commands still find what they need.
pub(super) struct HealthStarter(Sender<NewCheck>);

/// A check, where it sends its results, and what ends it.
type NewCheck = (HealthCheck, Sender<HealthChange>, Receiver<()>);

impl HealthStarter {
    /// Starts the thread. It has no capabilities, and may read and start everything that its user may, but write only devices and temporary files. It ends with its gateway.
    ///
    /// # Errors
    /// There is no thread.
    pub(super) fn start() -> std::io::Result<HealthStarter> {
        let (checks, new_checks) = channel();
        let start_all = move || {
            priority::ordinary_thread();
            if let Err(error) = privileges::drop_thread_capabilities().and_then(|()| {
                COMMAND_WRITES
                    .iter()
                    .fold(FileAccess::default().execute("/"), |access, path| access.write(*path))
                    .device("/dev")
                    .limit_thread()
                    .map(drop)
            }) {
                tracing::error!("no health checks, backend states unchanged: dropping what they do not need: {error}");
                return;
            }
            for (check, results, stopped) in new_checks {
                spawn_check(check, results, stopped);
            }
        };
        thread::Builder::new().name("health-start".into()).spawn(start_all)?;
        Ok(HealthStarter(checks))
    }
}

/// Where the commands of checks may write, beside devices.
const COMMAND_WRITES: [&str; 3] = ["/tmp", "/var/tmp", "/dev/shm"];

fn spawn_check(check: HealthCheck, results: Sender<HealthChange>, stopped: Receiver<()>) {
    let thread = thread::Builder::new().name("health".into()).stack_size(STACK_SIZE);
    if let Err(error) = thread.spawn(move || check.run(&results, &stopped)) {
        tracing::warn!("health check not started, backend state unchanged: no thread: {error}");
    }
}

/// Whether a note is about a backend that is up or down.
enum BackendHealth {
    Up,
    Down,
}

/// A backend went up or down.
struct HealthChange {
    backend: BackendId,
    /// Up, or why it is down.
    result: Result<(), String>,
}

/// The check of one backend.
struct HealthCheck {
    backend: BackendId,
    service: String,
    address: IpAddr,
    /// The backend's port, or the service's first.
    port: u16,
    config: HealthCheckConfig,
    rise_fall: RiseFall,
}

/// The state after the results so far.
struct RiseFall {
    is_up: Option<bool>,
    /// Results in a row that contradict it.
    streak: u32,
    rise: u32,
    fall: u32,
}

impl HealthMonitor {
    /// A monitor whose checks are started by this thread.
    pub(super) fn started_by(starter: Option<HealthStarter>) -> HealthMonitor {
        HealthMonitor { starter, ..HealthMonitor::default() }
    }

    /// Passes changes to the router. It is called under the router's lock: what takes longer is left to [`HealthMonitor::finish_poll`].
    pub(super) fn poll(&mut self, router: &mut Router, now: Instant) {
        let generation = router.services().generation();
        if generation != self.generation {
            self.generation = generation;
            self.prepare_checks(router);
        }
        while let Some(HealthChange { backend, result }) =
            self.changes.as_ref().and_then(|changes| changes.try_recv().ok())
        {
            if router.set_health(backend, result.is_ok(), now) {
                self.notes.extend(change_note(router, backend, result));
            }
        }
    }

    fn prepare_checks(&mut self, router: &mut Router) {
        self.stop_senders.clear();
        let (sender, changes) = channel();
        self.changes = Some(changes);
        let checks = router.services().backends().filter_map(|(backend, service, state)| {
            let service = service.config();
            let check = service.check.clone()?;
            let rise_fall = RiseFall { is_up: state.is_up(), streak: 0, rise: check.rise, fall: check.fall };
            let port = state.config().port.unwrap_or(*service.ports.start());
            let (service, address) = (service.name.clone(), state.config().address);
            Some(HealthCheck { backend, service, address, port, config: check, rise_fall })
        });
        self.pending = checks.map(|check| (check, sender.clone())).collect();
    }

    /// Logs, and starts the threads of new checks: not to be called under the router's lock.
    pub(super) fn finish_poll(&mut self) {
        for (health, note) in self.notes.drain(..) {
            match health {
                BackendHealth::Up => tracing::info!("{note}"),
                BackendHealth::Down => tracing::warn!("{note}"),
            }
        }
        for (check, results) in self.pending.drain(..) {
            let (stop, stopped) = channel();
            self.stop_senders.push(stop);
            match &self.starter {
                // If that thread has ended, it has said why.
                Some(HealthStarter(starter)) => drop(starter.send((check, results, stopped))),
                None => spawn_check(check, results, stopped),
            }
        }
    }
}

fn change_note(router: &Router, backend: BackendId, result: Result<(), String>) -> Option<(BackendHealth, String)> {
    let (_, service, state) = router.services().backends().find(|(id, ..)| *id == backend)?;
    let (name, backend) = (&service.config().name, state.config());
    Some(match result {
        Ok(()) => (BackendHealth::Up, format!("{name}: {backend} is up")),
        Err(reason) => (BackendHealth::Down, format!("{name}: {backend} is down: {reason}")),
    })
}

impl HealthCheck {
    /// Probes until the services are loaded again or the gateway ends.
    fn run(mut self, changes: &Sender<HealthChange>, stopped: &Receiver<()>) {
        // A check needs none, and its command gets what this thread has.
        if let Err(error) = privileges::drop_thread_capabilities() {
            tracing::warn!("health check not started, backend state unchanged: dropping capabilities: {error}");
            return;
        }
        // Checks do not all start at once …
        let mut wait = random_fraction(self.config.interval.min(Duration::from_secs(1)) / 2);
        while stopped.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
            let result = self.probe();
            if self.rise_fall.record(result.is_ok())
                && changes.send(HealthChange { backend: self.backend, result }).is_err()
            {
                return;
            }
            // … and do not fall into step later.
            wait = random_fraction(self.config.interval / 5) + self.config.interval * 9 / 10;
        }
    }

    fn probe(&self) -> Result<(), String> {
        match &self.config.probe {
            Probe::Connect { port, source } => {
                let to = SocketAddr::new(self.address, port.unwrap_or(self.port));
                probe_tcp(to, *source, self.config.timeout).map_err(|error| format!("{to}: {error}"))
            }
            Probe::Command(words) => self.run_command(words),
        }
    }

    fn run_command(&self, words: &[String]) -> Result<(), String> {
        let Some((program, arguments)) = words.split_first() else { return Err("no command".into()) };
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        command.env("KEEPSTATE_SERVICE", &self.service).env("KEEPSTATE_ADDRESS", self.address.to_string());
        command.env("KEEPSTATE_PORT", self.port.to_string());
        let mut child = command.spawn().map_err(|error| format!("{program}: {error}"))?;
        let started = Clock::now();
        loop {
            match child.try_wait() {
                Ok(Some(status)) if status.success() => return Ok(()),
                Ok(Some(status)) => return Err(format!("{program}: {status}")),
                Ok(None) if started.elapsed() < self.config.timeout => thread::sleep(COMMAND_POLL_INTERVAL),
                ended => {
                    // With all processes that it has started.
                    signal::kill_process_group(child.id());
                    let _ = child.wait();
                    return Err(match ended {
                        Err(error) => format!("{program}: {error}"),
                        Ok(_) => format!("{program}: no answer within {:?}", self.config.timeout),
                    });
                }
            }
        }
    }
}

fn probe_tcp(to: SocketAddr, source: Option<IpAddr>, timeout: Duration) -> std::io::Result<()> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
    if let Some(source) = source {
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    // Closed by a reset: no check leaves a connection in TIME_WAIT.
    socket.set_linger(Some(Duration::ZERO))?;
    socket.connect_timeout(&to.into(), timeout)?;
    refuse_itself(&socket)
}

/// A local port at which nobody listens may be the one that the probe itself was given: then TCP connects it with itself, and the backend is down.
fn refuse_itself(socket: &Socket) -> std::io::Result<()> {
    let (ours, theirs) = (socket.local_addr()?.as_socket(), socket.peer_addr()?.as_socket());
    if ours == theirs { Err(std::io::Error::from_raw_os_error(libc::ECONNREFUSED)) } else { Ok(()) }
}

impl RiseFall {
    /// Records a result. True if the state changes.
    fn record(&mut self, success: bool) -> bool {
        let enough = match self.is_up {
            Some(is_up) if is_up == success => {
                self.streak = 0;
                return false;
            }
            Some(_) if success => self.rise,
            Some(_) => self.fall,
            None => 1,
        };
        self.streak += 1;
        let changes = self.streak >= enough;
        if changes {
            (self.is_up, self.streak) = (Some(success), 0);
        }
        changes
    }
}

/// A random fraction of a time; 0 if the system has no random numbers.
fn random_fraction(time: Duration) -> Duration {
    let fraction = getrandom::u32().map_or(0.0, |number| f64::from(number) / f64::from(u32::MAX));
    time.mul_f64(fraction)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn rise_fall(rise: u32, fall: u32) -> RiseFall {
        RiseFall { is_up: None, streak: 0, rise, fall }
    }

    #[test]
    fn first_result_decides_then_rise_and_fall_apply() {
        let mut state = rise_fall(2, 3);
        let results = "+ -- +--- -+- ++ -";
        let changes: String = results
            .chars()
            .map(|result| match result {
                ' ' => ' ',
                result if state.record(result == '+') => result,
                _ => '.',
            })
            .collect();
        assert_eq!(changes, "+ .. ...- ... .+ .");
    }

    fn health_check(probe: Probe, timeout: Duration) -> HealthCheck {
        let check = HealthCheckConfig { probe, interval: Duration::from_secs(1), timeout, rise: 1, fall: 1 };
        let backend = backend();
        HealthCheck {
            backend,
            service: "web".into(),
            address: [127, 0, 0, 1].into(),
            port: 1,
            config: check,
            rise_fall: rise_fall(1, 1),
        }
    }

    fn backend() -> BackendId {
        use keepstate_engine::{Engine, Secret, Sysctls};
        use keepstate_router::service::{BackendConfig, ServiceConfig, Transport};
        let engine = Engine::new(Sysctls::default(), Secret([1; 16]));
        let mut router = Router::new(engine, Default::default(), Default::default(), (1, 2));
        let service = ServiceConfig::new("web", ([127, 0, 0, 2].into(), 80..=80), Transport::Tcp);
        router.replace_services(
            vec![service.with_backend(BackendConfig { address: [127, 0, 0, 1].into(), port: Some(1), weight: 1 })],
            Instant(0),
        );
        router.services().backends().next().unwrap().0
    }

    #[test]
    fn tcp_probe_checks_that_the_port_listens() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = Some(listener.local_addr().unwrap().port());
        let probe = |port, source: Option<&str>| {
            let source = source.map(|source| source.parse().unwrap());
            health_check(Probe::Connect { port, source }, Duration::from_secs(5)).probe()
        };
        assert_eq!(probe(port, None), Ok(()));
        assert_eq!(probe(port, Some("127.0.0.9")), Ok(()));
        let from = [(); 2].map(|()| listener.accept().unwrap().1.ip().to_string());
        assert_eq!(from, ["127.0.0.1", "127.0.0.9"]);
        assert!(probe(port, Some("192.0.2.1")).is_err(), "not an address of this host");
        // Held, so that nobody else listens there.
        let silent = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        silent.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        let port = silent.local_addr().unwrap().as_socket().map(|address| address.port());
        assert!(probe(port, None).unwrap_err().contains("refused"));
        // What such a probe may be given is its own port.
        silent.connect(&silent.local_addr().unwrap()).unwrap();
        assert!(refuse_itself(&silent).is_err());
    }

    #[test]
    fn command_probe_checks_exit_code_and_timeout() {
        let probe = |words: &[&str], timeout| {
            let words = words.iter().map(|word| (*word).to_owned()).collect();
            health_check(Probe::Command(words), Duration::from_millis(timeout)).probe()
        };
        assert_eq!(
            probe(&["sh", "-c", "test $KEEPSTATE_SERVICE/$KEEPSTATE_ADDRESS/$KEEPSTATE_PORT = web/127.0.0.1/1"], 9000),
            Ok(())
        );
        assert!(probe(&["sh", "-c", "exit 3"], 9000).unwrap_err().contains("3"));
        assert!(probe(&["/nonexistent/check"], 9000).unwrap_err().contains("No such file"));
        let started = Clock::now();
        assert!(probe(&["sh", "-c", "sleep 30; true"], 100).unwrap_err().contains("no answer within 100ms"));
        assert!(started.elapsed() < Duration::from_secs(20));
    }
}
