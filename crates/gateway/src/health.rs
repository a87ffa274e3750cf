//! Whether backends are up: each is asked on a thread of its own, by a TCP connection or a command, and only changes come back to the loop.
//!
//! The threads live from one load of the services to the next; those of an older load end by themselves, and what they still say is not heard. The first answer after
//! the start decides alone, later ones only in a row ([`Pulse`]). No packet ever waits for a check.
use crate::notes;
use keepstate_engine::Instant;
use keepstate_linux::signal;
use keepstate_router::Router;
use keepstate_router::service::{BackendId, Check, Probe};
use socket2::{Domain, Socket, Type};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant as Moment};

/// Octets of stack: a check needs little, and there may be thousands.
const STACK: usize = 128 * 1024;
/// How often a command is looked at whether it has ended.
const LOOK: Duration = Duration::from_millis(10);

/// All checks of a gateway.
#[derive(Default)]
pub(super) struct Health {
    /// The load of services that the threads were made for.
    loads: u64,
    heard: Option<Receiver<Heard>>,
    /// Its end is the end of the threads.
    stops: Vec<Sender<()>>,
}

/// Something changed.
struct Heard {
    backend: BackendId,
    /// Or why not.
    well: Result<(), String>,
}

/// One backend to ask.
struct Patient {
    backend: BackendId,
    service: String,
    address: IpAddr,
    /// The backend's, or the service's first.
    port: u16,
    check: Check,
    pulse: Pulse,
}

/// What the answers so far come to.
struct Pulse {
    is_up: Option<bool>,
    /// Answers in a row that say the contrary.
    against: u32,
    rise: u32,
    fall: u32,
}

impl Health {
    /// Tells the router what has been heard; makes the checks anew if the services were loaded again. Never waits.
    pub(super) fn turn(&mut self, router: &mut Router, now: Instant) {
        router.tend_services(now);
        let loads = router.services().loads();
        if loads != self.loads {
            self.loads = loads;
            self.begin(router);
        }
        while let Some(Heard { backend, well }) = self.heard.as_ref().and_then(|heard| heard.try_recv().ok()) {
            if router.judge(backend, well.is_ok(), now) {
                tell(router, backend, well);
            }
        }
    }

    fn begin(&mut self, router: &mut Router) {
        self.stops.clear();
        let (say, heard) = channel();
        self.heard = Some(heard);
        let patients = router.services().backends().filter_map(|(backend, running, member)| {
            let service = running.service();
            let check = service.check.clone()?;
            let pulse = Pulse { is_up: member.is_up(), against: 0, rise: check.rise, fall: check.fall };
            let port = member.backend().port.unwrap_or(*service.ports.start());
            let (service, address) = (service.name.clone(), member.backend().address);
            Some(Patient { backend, service, address, port, check, pulse })
        });
        for patient in patients.collect::<Vec<_>>() {
            let (stop, stopped) = channel();
            let say = say.clone();
            let thread = thread::Builder::new().name("health".into()).stack_size(STACK);
            match thread.spawn(move || patient.watch(&say, &stopped)) {
                Ok(_) => self.stops.push(stop),
                Err(error) => {
                    notes::note(format!("a backend cannot be checked, and counts as it did: no thread: {error}"))
                }
            }
        }
    }
}

fn tell(router: &mut Router, backend: BackendId, well: Result<(), String>) {
    let named = router.services().backends().find(|(id, ..)| *id == backend);
    if let Some((_, running, member)) = named {
        let (name, backend) = (&running.service().name, member.backend());
        match well {
            Ok(()) => notes::note(format!("{name}: {backend} is up")),
            Err(why) => notes::note(format!("{name}: {backend} is down: {why}")),
        }
    }
}

impl Patient {
    /// Asks until nobody wants to know any more.
    fn watch(mut self, say: &Sender<Heard>, stopped: &Receiver<()>) {
        // Checks of one load do not begin all at once …
        let mut wait = share(self.check.interval.min(Duration::from_secs(1)) / 2);
        while stopped.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
            let well = self.ask();
            if self.pulse.changes(well.is_ok()) && say.send(Heard { backend: self.backend, well }).is_err() {
                return;
            }
            // … and do not find to the same step later.
            wait = share(self.check.interval / 5) + self.check.interval * 9 / 10;
        }
    }

    fn ask(&self) -> Result<(), String> {
        match &self.check.probe {
            Probe::Connect { port, source } => {
                let to = SocketAddr::new(self.address, port.unwrap_or(self.port));
                connect(to, *source, self.check.timeout).map_err(|error| format!("{to}: {error}"))
            }
            Probe::Command(words) => self.run(words),
        }
    }

    fn run(&self, words: &[String]) -> Result<(), String> {
        let Some((program, arguments)) = words.split_first() else { return Err("no command".into()) };
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        command.env("KEEPSTATE_SERVICE", &self.service).env("KEEPSTATE_ADDRESS", self.address.to_string());
        command.env("KEEPSTATE_PORT", self.port.to_string());
        let mut child = command.spawn().map_err(|error| format!("{program}: {error}"))?;
        let begun = Moment::now();
        loop {
            match child.try_wait() {
                Ok(Some(status)) if status.success() => return Ok(()),
                Ok(Some(status)) => return Err(format!("{program}: {status}")),
                Ok(None) if begun.elapsed() < self.check.timeout => thread::sleep(LOOK),
                slow => {
                    // With whatever it has started.
                    signal::kill_group(child.id());
                    let _ = child.wait();
                    return Err(match slow {
                        Err(error) => format!("{program}: {error}"),
                        Ok(_) => format!("{program}: no answer within {:?}", self.check.timeout),
                    });
                }
            }
        }
    }
}

fn connect(to: SocketAddr, source: Option<IpAddr>, timeout: Duration) -> std::io::Result<()> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
    if let Some(source) = source {
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    // Closed by a reset: no check leaves a connection that waits for its end.
    socket.set_linger(Some(Duration::ZERO))?;
    socket.connect_timeout(&to.into(), timeout)
}

impl Pulse {
    /// Takes an answer. True if it changes what they come to.
    fn changes(&mut self, well: bool) -> bool {
        let enough = match self.is_up {
            Some(is_up) if is_up == well => {
                self.against = 0;
                return false;
            }
            Some(_) if well => self.rise,
            Some(_) => self.fall,
            None => 1,
        };
        self.against += 1;
        let changes = self.against >= enough;
        if changes {
            (self.is_up, self.against) = (Some(well), 0);
        }
        changes
    }
}

/// A random share of a time; none of it where the system has no random numbers.
fn share(time: Duration) -> Duration {
    let drawn = getrandom::u32().map_or(0.0, |drawn| f64::from(drawn) / f64::from(u32::MAX));
    time.mul_f64(drawn)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn pulse(rise: u32, fall: u32) -> Pulse {
        Pulse { is_up: None, against: 0, rise, fall }
    }

    #[test]
    fn the_first_answer_decides_and_then_only_several_in_a_row() {
        let mut pulse = pulse(2, 3);
        let answers = "+ -- +--- -+- ++ -";
        let changes: String = answers
            .chars()
            .map(|answer| match answer {
                ' ' => ' ',
                answer if pulse.changes(answer == '+') => answer,
                _ => '.',
            })
            .collect();
        assert_eq!(changes, "+ .. ...- ... .+ .");
    }

    fn patient(probe: Probe, timeout: Duration) -> Patient {
        let check = Check { probe, interval: Duration::from_secs(1), timeout, rise: 1, fall: 1 };
        let backend = backend();
        Patient { backend, service: "web".into(), address: [127, 0, 0, 1].into(), port: 1, check, pulse: pulse(1, 1) }
    }

    fn backend() -> BackendId {
        use keepstate_engine::{Engine, Knobs, Secret};
        use keepstate_router::service::{Backend, Service, Transport};
        let engine = Engine::new(Knobs::default(), Secret([1; 16]), Instant(0));
        let mut router = Router::new(engine, Default::default(), Default::default(), (1, 2));
        let service = Service::new("web", ([127, 0, 0, 2].into(), 80..=80), Transport::Tcp);
        router.serve(
            vec![service.with(Backend { address: [127, 0, 0, 1].into(), port: Some(1), weight: 1 })],
            Instant(0),
        );
        router.services().backends().next().unwrap().0
    }

    #[test]
    fn a_port_that_listens_is_well_and_one_that_does_not_is_not() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = Some(listener.local_addr().unwrap().port());
        let ask = |port, source: Option<&str>| {
            let source = source.map(|source| source.parse().unwrap());
            patient(Probe::Connect { port, source }, Duration::from_secs(5)).ask()
        };
        assert_eq!(ask(port, None), Ok(()));
        assert_eq!(ask(port, Some("127.0.0.9")), Ok(()));
        let from = [(); 2].map(|()| listener.accept().unwrap().1.ip().to_string());
        assert_eq!(from, ["127.0.0.1", "127.0.0.9"]);
        assert!(ask(port, Some("192.0.2.1")).is_err(), "no address of ours");
        drop(listener);
        assert!(ask(port, None).unwrap_err().contains("refused"));
    }

    #[test]
    fn a_command_is_well_if_it_ends_with_0_in_time() {
        let ask = |words: &[&str], timeout| {
            let words = words.iter().map(|word| (*word).to_owned()).collect();
            patient(Probe::Command(words), Duration::from_millis(timeout)).ask()
        };
        assert_eq!(
            ask(&["sh", "-c", "test $KEEPSTATE_SERVICE/$KEEPSTATE_ADDRESS/$KEEPSTATE_PORT = web/127.0.0.1/1"], 9000),
            Ok(())
        );
        assert!(ask(&["sh", "-c", "exit 3"], 9000).unwrap_err().contains("3"));
        assert!(ask(&["/nonexistent/check"], 9000).unwrap_err().contains("No such file"));
        let begun = Moment::now();
        assert!(ask(&["sh", "-c", "sleep 30; true"], 100).unwrap_err().contains("no answer within 100ms"));
        assert!(begun.elapsed() < Duration::from_secs(20));
    }
}
