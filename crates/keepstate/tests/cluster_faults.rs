//! What goes wrong while two real gateways run: NATS stops under load and comes back, a lease is lost, two believe to be active.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

#[path = "common/cluster_pair.rs"]
mod cluster_pair;
mod common;
#[path = "common/peers.rs"]
mod peers;

use cluster_pair::{CONNECTIONS, Cluster, RULES, use_all};
use peers::spawn_in_netns;
use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// How long a client waits that must not get through.
const REFUSED_AFTER: Duration = Duration::from_millis(1_500);

/// For so long NATS is away: `KEEPSTATE_NATS_OUTAGE_SECS=60` for longer.
fn outage() -> Duration {
    let seconds = std::env::var("KEEPSTATE_NATS_OUTAGE_SECS").ok().and_then(|seconds| seconds.parse().ok());
    Duration::from_secs(seconds.unwrap_or(3))
}

fn server() -> SocketAddr {
    "192.0.2.9:7000".parse().unwrap()
}

/// Clients that come and go, one after the other, until it is dropped.
struct Load {
    stop: Arc<AtomicBool>,
    opened: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Load {
    fn start(cluster: &Cluster) -> Load {
        let (stop, opened) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopping, count) = (Arc::clone(&stop), Arc::clone(&opened));
        let thread = spawn_in_netns(&cluster.netns("c"), move || {
            while !stopping.load(Ordering::Relaxed) {
                if TcpStream::connect_timeout(&server(), REFUSED_AFTER).is_ok() {
                    count.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        Load { stop, opened, thread: Some(thread) }
    }

    fn opened(&self) -> u64 {
        self.opened.load(Ordering::Relaxed)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A client of a gateway that creates nothing gets no answer.
fn connects(cluster: &Cluster) -> bool {
    let connect = || TcpStream::connect_timeout(&server(), REFUSED_AFTER).is_ok();
    spawn_in_netns(&cluster.netns("c"), connect).join().unwrap()
}

/// Outside ports of the connections in a table.
fn outside_ports(table: &[String]) -> BTreeSet<u16> {
    let port =
        |line: &String| line.rsplit_once("dst=192.0.2.77 ")?.1.split_once("dport=")?.1.split(' ').next()?.parse().ok();
    table.iter().filter_map(port).collect()
}

#[test]
fn nats_stopped_under_load_and_started_again_converges_entry_by_entry() {
    let Some(mut cluster) = Cluster::new("o") else { return };
    cluster.start(0, "manual", RULES);
    cluster.start(1, "manual", RULES);
    assert_eq!(cluster.control(0, &["promote"]).0, Some(0), "{}", cluster.logs());
    cluster.use_gateway(0);
    cluster.serve_echo();
    let mut connections = cluster.open(CONNECTIONS);
    cluster.wait_in_step(0, 1);

    let load = Load::start(&cluster);
    cluster.wait("load", |_| load.opened() > 20);
    cluster.kill_nats();
    let (begun, before) = (std::time::Instant::now(), load.opened());
    cluster.wait("a warning", |cluster| cluster.json(0, &["cluster", "--json"])["connected"] == false);
    // By hand nobody else can have become active: new connections go on, and some of the old ones end.
    connections.extend(cluster.open(CONNECTIONS / 4));
    connections.drain(..CONNECTIONS / 4);
    cluster.wait("load without NATS", |_| load.opened() > before + 50 && begun.elapsed() >= outage());
    let age = cluster.json(0, &["cluster", "--json"])["age_ms"].as_u64().unwrap();
    assert!(u128::from(age) + 1_000 >= outage().as_millis(), "the age grows: {age}");
    cluster.restart_nats();
    cluster.wait("both at NATS again", |cluster| {
        [0, 1].iter().all(|index| cluster.json(*index, &["cluster", "--json"])["connected"] == true)
    });
    drop(load);
    cluster.wait("the same table on both", |cluster| {
        let tables = [cluster.table(0), cluster.table(1)];
        tables[0] == tables[1] && tables[0].len() >= CONNECTIONS
    });
    cluster.wait_in_step(0, 1);
    // What began meanwhile lives on at the other one.
    assert_eq!(cluster.control(0, &["demote"]).0, Some(0), "{}", cluster.logs());
    assert_eq!(cluster.control(1, &["promote"]).0, Some(0), "{}", cluster.logs());
    cluster.use_gateway(1);
    use_all(&mut connections, || cluster.logs());
}

#[test]
fn a_gateway_whose_lease_ends_creates_nothing_and_forwards_what_it_knows() {
    let Some(mut cluster) = Cluster::new("l") else { return };
    cluster.start(0, "2s", RULES);
    cluster.wait("an active gateway", |cluster| cluster.role(0) == "active");
    cluster.use_gateway(0);
    cluster.serve_echo();
    let mut connections = cluster.open(CONNECTIONS);
    let known = outside_ports(&cluster.table(0));
    // NATS is there and answers nothing, as one on a machine that hangs.
    cluster.nats().pause(0);
    cluster.wait("the end of the lease", |cluster| cluster.role(0) == "fenced");
    assert!(!connects(&cluster), "a new connection got through without a lease");
    use_all(&mut connections, || cluster.logs());
    assert_eq!(outside_ports(&cluster.table(0)), known, "no port was given");
    assert!(cluster.json(0, &["stats", "--json"])["cluster_dropped_fenced"].as_u64() > Some(0));
    cluster.nats().resume(0);
    cluster.wait("the lease again", |cluster| cluster.role(0) == "active");
    use_all(&mut cluster.open(5), || cluster.logs());
    use_all(&mut connections, || cluster.logs());
}

#[test]
fn of_two_believers_the_higher_epoch_goes_on_and_no_port_is_given_by_both() {
    let Some(mut cluster) = Cluster::new("b") else { return };
    cluster.start(0, "manual", RULES);
    cluster.start(1, "manual", RULES);
    assert_eq!(cluster.control(0, &["promote"]).0, Some(0), "{}", cluster.logs());
    cluster.use_gateway(0);
    cluster.serve_echo();
    let mut connections = cluster.open(CONNECTIONS / 2);
    cluster.wait_in_step(0, 1);
    let shared = outside_ports(&cluster.table(1));

    // The two no longer hear of each other, and somebody promotes the other one.
    cluster.kill_nats();
    cluster.wait("no NATS", |cluster| cluster.json(1, &["cluster", "--json"])["connected"] == false);
    assert_eq!(cluster.control(1, &["promote"]).0, Some(0), "{}", cluster.logs());
    assert_eq!([cluster.role(0), cluster.role(1)], ["active", "active"]);
    let lost = cluster.open(CONNECTIONS / 2);
    cluster.use_gateway(1);
    connections.extend(cluster.open(CONNECTIONS / 2));
    use_all(&mut connections, || cluster.logs());
    let given = [0, 1].map(|index| &outside_ports(&cluster.table(index)) - &shared);
    assert!(given.iter().all(|ports| ports.len() == CONNECTIONS / 2), "{given:?}");
    assert!(given[0].is_disjoint(&given[1]), "{given:?}");

    cluster.restart_nats();
    cluster.wait("one that decides", |cluster| cluster.role(0) == "standby" && cluster.role(1) == "active");
    cluster.wait_in_step(1, 0);
    cluster.wait("the table of the higher epoch on both", |cluster| cluster.table(0) == cluster.table(1));
    assert_eq!(cluster.json(0, &["cluster", "--json"])["epoch"], 2);
    use_all(&mut connections, || cluster.logs());
    drop(lost);
}

/// Both count on from the same epoch that they know. Without lists of nodes both would take the next one, and its ports.
#[test]
fn two_that_are_promoted_without_hearing_of_each_other_have_their_own_epochs_and_ports() {
    const KEYS: &str = "lease = \"manual\"\nnodes = [\"gw1\", \"gw0\"]\naddress = [\"192.0.2.77/32\"]\n";
    let Some(mut cluster) = Cluster::new("t") else { return };
    cluster.start_as(0, KEYS, RULES);
    cluster.start_as(1, KEYS, RULES);
    cluster.serve_echo();
    cluster.kill_nats();
    cluster.wait("no NATS", |cluster| {
        [0, 1].iter().all(|index| cluster.json(*index, &["cluster", "--json"])["connected"] == false)
    });
    let mut connections = Vec::new();
    for index in [0, 1] {
        assert_eq!(cluster.control(index, &["promote"]).0, Some(0), "{}", cluster.logs());
        cluster.use_gateway(index);
        connections.push(cluster.open(CONNECTIONS));
    }
    let epochs = [0, 1].map(|index| cluster.json(index, &["cluster", "--json"])["epoch"].as_u64().unwrap());
    let given = [0, 1].map(|index| outside_ports(&cluster.table(index)));
    assert!(given.iter().all(|ports| ports.len() == CONNECTIONS), "{given:?}");
    assert!(given[0].is_disjoint(&given[1]), "{given:?} in epochs {epochs:?}");
    assert_ne!(epochs[0], epochs[1]);

    cluster.restart_nats();
    let higher = usize::from(epochs[1] > epochs[0]);
    cluster.wait("the lower one stands down", |cluster| {
        cluster.role(1 - higher) == "standby" && cluster.role(higher) == "active"
    });
    cluster.wait("the table of the higher epoch on both", |cluster| cluster.table(0) == cluster.table(1));
    assert!(cluster.logs().contains("another node decides"), "{}", cluster.logs());
    cluster.use_gateway(higher);
    use_all(&mut connections[higher], || cluster.logs());
}

/// One configuration on two machines: without it being said, each would take the lease from the other one several times a second.
#[test]
fn a_gateway_with_the_name_of_an_active_one_says_so_and_lets_it_work() {
    let Some(mut cluster) = Cluster::new("n") else { return };
    let keys = "node = \"copied\"\nlease = \"1s\"\naddress = [\"192.0.2.77\"]\n";
    cluster.start_as(0, keys, RULES);
    cluster.wait("the first one", |cluster| cluster.role(0) == "active");
    let epoch = cluster.json(0, &["cluster", "--json"])["epoch"].clone();
    cluster.start_as(1, keys, RULES);
    cluster.wait("its name", |cluster| cluster.json(1, &["cluster", "--json"])["name_taken"] == true);
    let (code, said) = cluster.control(1, &["promote"]);
    assert!(code == Some(1) && said.contains("calls itself copied too"), "{said}");
    assert!(cluster.control(1, &["cluster"]).1.contains("calls itself copied too"));
    // For two lease times and more it has had the chance to take it.
    cluster.use_gateway(0);
    cluster.serve_echo();
    for _ in 0..5 {
        use_all(&mut cluster.open(CONNECTIONS / 4), || cluster.logs());
        std::thread::sleep(Duration::from_millis(500));
    }
    let now = cluster.json(0, &["cluster", "--json"]);
    assert_eq!((&now["role"], &now["epoch"]), (&"active".into(), &epoch), "{}", cluster.logs());
}

/// A standby whose table is smaller cannot take over what does not fit: said while there is time.
#[test]
fn a_standby_with_a_lower_limit_says_what_it_cannot_hold() {
    let Some(mut cluster) = Cluster::new("f") else { return };
    cluster.start(0, "manual", RULES);
    assert_eq!(cluster.control(0, &["promote"]).0, Some(0), "{}", cluster.logs());
    cluster.use_gateway(0);
    cluster.serve_echo();
    let mut connections = cluster.open(CONNECTIONS);
    use_all(&mut connections, || cluster.logs());
    let keys = "lease = \"manual\"\naddress = [\"192.0.2.77\"]\n[sysctl]\nnf_conntrack_max = 20\n";
    cluster.start_as(1, keys, RULES);
    cluster.wait("what is refused", |cluster| {
        cluster.json(1, &["cluster", "--json"])["refused"].as_u64().is_some_and(|refused| refused >= 50)
    });
    let said = cluster.control(1, &["cluster"]).1;
    assert!(said.contains("could not be entered"), "{said}");
    cluster.wait("the difference", |cluster| cluster.control(1, &["cluster"]).1.contains("its sysctls differ"));
}
