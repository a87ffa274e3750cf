//! The story: connections come up, the table fills, it is enlarged while it runs; NAT, firewall and balancing at work.
use super::stage::{GATEWAY, RULESET, Side, Stage};
use anstyle::{AnsiColor, Style};
use anyhow::Result;
use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const GOOD: Style = AnsiColor::Green.on_default();
const BAD: Style = AnsiColor::Red.on_default().bold();
const BOLD: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();

/// How long a client waits: three of the kernel's first SYNs.
const PATIENCE: Duration = Duration::from_millis(1500);
/// Where the server listens: MQTT's port, though these sessions say no more than who they are.
const PORT: u16 = 1883;
/// Clients that are refused before the story goes on.
const REFUSED: usize = 5;
/// Places left when the table is made small.
const LEFT: u32 = 10;

/// Tells it; true if everything was as it should be.
pub(super) fn tell(stage: &mut Stage, clients: u32, ended: &Arc<AtomicBool>) -> Result<bool> {
    let mut teller = Teller { good: true };
    anstream::println!(
        "{BOLD}A gateway between two namespaces{BOLD:#}: clients 10.1.0.2 and 10.1.0.3 inside, a server 192.0.2.9 outside, and these rules:"
    );
    for line in RULESET.lines().filter(|line| !line.is_empty()) {
        anstream::println!("  {DIM}{line}{DIM:#}");
    }
    let seen = Arc::new(Mutex::new(Vec::new()));
    let server = serve(stage, seen.clone(), ended.clone())?;
    let mut held = Vec::new();

    teller.chapter("Connections come up");
    let begun = Instant::now();
    let opened = open(stage, clients as usize, usize::MAX)?;
    teller.check(
        opened.len() == clients as usize,
        &format!("{} of {clients} clients got in, in {} ms", opened.len(), begun.elapsed().as_millis()),
    );
    held.extend(opened);
    let count: u32 = stage.control(&["count"])?.trim().parse()?;
    teller.check(count >= clients, &format!("the table holds {count} connections; two of them:"));
    show(&stage.control(&["list", "-p", "tcp"])?, 2);
    let from: Vec<IpAddr> = seen.lock().map(|seen| seen.clone()).unwrap_or_default();
    teller.check(
        !from.is_empty() && from.iter().all(|from| *from == GATEWAY),
        &format!("the server has seen nobody but {GATEWAY}: their sources are translated"),
    );

    teller.chapter("The table is small, and fills");
    let limit = count + LEFT;
    anstream::println!("  $ keepstate control set nf_conntrack_max={limit}");
    stage.control(&["set", &format!("nf_conntrack_max={limit}")])?;
    let opened = open(stage, clients as usize, REFUSED)?;
    teller.check(
        opened.len() <= LEFT as usize,
        &format!("{} more got in, then {REFUSED} in a row waited in vain", opened.len()),
    );
    held.extend(opened);
    let line = stage.said().into_iter().rev().find(|line| line.contains("table full"));
    teller.check(line.is_some(), "the gateway says why:");
    show(&line.unwrap_or_default(), 1);
    let stats = stage.control(&["stats"])?;
    show(&stats.lines().filter(|line| line.contains("table_full")).collect::<Vec<_>>().join("\n"), 1);

    teller.chapter("It is enlarged while it runs, and the clients get in");
    anstream::println!("  $ keepstate control set nf_conntrack_max=100000");
    stage.control(&["set", "nf_conntrack_max=100000"])?;
    let opened = open(stage, REFUSED * 4, usize::MAX)?;
    teller.check(opened.len() == REFUSED * 4, &format!("{} of {} got in", opened.len(), REFUSED * 4));
    held.extend(opened);
    let alive = held.iter_mut().map(says_hello).filter(|alive| *alive).count();
    teller.check(alive == held.len(), &format!("{alive} of {} sessions answer: none was lost meanwhile", held.len()));

    firewall(stage, &mut teller)?;
    anstream::println!();
    if teller.good {
        anstream::println!("{GOOD}Everything was as it should be.{GOOD:#}");
    } else {
        anstream::println!("{BAD}Something was not as it should be: see above.{BAD:#}");
    }
    drop(held);
    ended_server(server, ended);
    Ok(teller.good)
}

/// What goes in only where it is published, and to whom.
fn firewall(stage: &Stage, teller: &mut Teller) -> Result<()> {
    teller.chapter("The firewall, and a published port balanced over two servers");
    let refused =
        stage.within(Side::Server, || TcpStream::connect_timeout(&(GATEWAY_INSIDE, 22).into(), PATIENCE).is_err())?;
    teller.check(refused, "from outside nobody gets in to 10.1.0.2 port 22");
    let listeners =
        stage.within(Side::Client, || [INSIDE[0], INSIDE[1]].map(|address| TcpListener::bind((address, 8080))))?;
    let servers: Vec<JoinHandle<()>> = listeners
        .into_iter()
        .zip(["10.1.0.2", "10.1.0.3"])
        .filter_map(|(listener, name)| {
            let listener = listener.ok()?;
            Some(std::thread::spawn(move || {
                for stream in listener.incoming().take(2).flatten() {
                    // Who asked may have gone.
                    let _ = (&stream).write_all(name.as_bytes());
                }
            }))
        })
        .collect();
    let answers = stage.within(Side::Server, || {
        (0..4)
            .map(|_| {
                let mut answer = String::new();
                let stream = TcpStream::connect_timeout(&(GATEWAY, 8080).into(), PATIENCE);
                let read = stream.and_then(|mut stream| {
                    stream.set_read_timeout(Some(PATIENCE))?;
                    stream.read_to_string(&mut answer)
                });
                read.map_or_else(|error| error.to_string(), |_| answer)
            })
            .collect::<Vec<String>>()
    })?;
    let both = answers == ["10.1.0.2", "10.1.0.3", "10.1.0.2", "10.1.0.3"];
    teller.check(both, &format!("{GATEWAY} port 8080 was answered by {}", answers.join(", ")));
    if both {
        for server in servers {
            let _ = server.join();
        }
    }
    Ok(())
}

const INSIDE: [IpAddr; 2] =
    [IpAddr::V4(std::net::Ipv4Addr::new(10, 1, 0, 2)), IpAddr::V4(std::net::Ipv4Addr::new(10, 1, 0, 3))];
const GATEWAY_INSIDE: IpAddr = INSIDE[0];

/// Prints, and remembers whether all was good.
struct Teller {
    good: bool,
}

impl Teller {
    fn chapter(&self, title: &str) {
        anstream::println!("\n{BOLD}{title}{BOLD:#}");
    }

    fn check(&mut self, holds: bool, what: &str) {
        self.good &= holds;
        if holds {
            anstream::println!("  {GOOD}✓{GOOD:#} {what}");
        } else {
            anstream::println!("  {BAD}✗ not so: {what}{BAD:#}");
        }
    }
}

/// Some lines of what somebody said.
fn show(text: &str, lines: usize) {
    for line in text.lines().take(lines) {
        anstream::println!("    {DIM}{line}{DIM:#}");
    }
}

/// Opens sessions from inside until there are `wanted`, or so many in a row were refused.
fn open(stage: &Stage, wanted: usize, refused_in_a_row: usize) -> Result<Vec<TcpStream>> {
    stage.within(Side::Client, move || {
        let mut open = Vec::new();
        let mut refused = 0;
        while open.len() < wanted && refused < refused_in_a_row.min(50) {
            match TcpStream::connect_timeout(&(IpAddr::from([192, 0, 2, 9]), PORT).into(), PATIENCE) {
                Ok(stream) => {
                    refused = 0;
                    open.push(stream);
                }
                Err(_) => refused += 1,
            }
        }
        open
    })
}

/// Is the session still one?
fn says_hello(stream: &mut TcpStream) -> bool {
    let mut answer = [0; 5];
    let asked = stream.set_read_timeout(Some(PATIENCE)).and_then(|()| stream.write_all(b"hello"));
    asked.and_then(|()| stream.read_exact(&mut answer)).is_ok() && &answer == b"hello"
}

/// A server that holds every session and says back what it is told.
fn serve(stage: &Stage, seen: Arc<Mutex<Vec<IpAddr>>>, ended: Arc<AtomicBool>) -> Result<JoinHandle<()>> {
    let listener = stage.within(Side::Server, || TcpListener::bind(("192.0.2.9", PORT)))??;
    listener.set_nonblocking(true)?;
    Ok(std::thread::spawn(move || {
        let mut sessions: Vec<TcpStream> = Vec::new();
        let mut buffer = [0; 512];
        while !ended.load(Ordering::Relaxed) {
            let mut idle = true;
            while let Ok((stream, from)) = listener.accept() {
                idle = false;
                if let Ok(mut seen) = seen.lock() {
                    seen.push(from.ip());
                }
                if stream.set_nonblocking(true).is_ok() {
                    sessions.push(stream);
                }
            }
            for stream in &mut sessions {
                if let Ok(length @ 1..) = stream.read(&mut buffer) {
                    idle = false;
                    // A session that is gone says nothing any more.
                    let _ = stream.write_all(buffer.get(..length).unwrap_or_default());
                }
            }
            if idle {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }))
}

/// The server's thread goes on while the stage is held; else it ends with the story.
fn ended_server(server: JoinHandle<()>, ended: &AtomicBool) {
    if ended.load(Ordering::Relaxed) {
        let _ = server.join();
    }
}
