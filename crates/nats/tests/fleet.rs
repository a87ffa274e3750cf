//! A fleet over a real NATS server: who is there, who answers what, who is gone.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]
use keepstate_nats::NatsOptions;
use keepstate_nats::fleet::{FleetAnswers, FleetClient, FleetNode, FleetQuestion, NodeKind, NodeRecord};
use keepstate_test_support::NatsServers;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(120);

/// Answers with its name and what it was asked; a list waits until it is let go.
struct Echo {
    name: &'static str,
    gate: Mutex<Receiver<()>>,
}

impl FleetAnswers for Echo {
    fn answer(&self, question: &FleetQuestion) -> Result<String, String> {
        match question {
            FleetQuestion::Doctor => Err(format!("{} has no doctor", self.name)),
            FleetQuestion::List { limit: 0, .. } => {
                let _ = self.gate.lock().unwrap().recv();
                Ok(String::new())
            }
            FleetQuestion::List { limit, .. } => Ok("x".repeat(*limit)),
            FleetQuestion::Stats => Ok(format!("{} answers", self.name)),
        }
    }
}

fn nats(servers: &NatsServers) -> NatsOptions {
    NatsOptions { servers: servers.urls(), client_name: "test".into(), ..NatsOptions::default() }
}

fn node(servers: &NatsServers, name: &'static str, kind: NodeKind) -> (FleetNode, Sender<()>) {
    let record = NodeRecord { name: name.into(), kind, version: "1.2.3".into(), started: 7, heard: None };
    let (open, gate) = channel();
    let answers = Arc::new(Echo { name, gate: Mutex::new(gate) });
    (FleetNode::start(nats(servers), "site".parse().unwrap(), record, answers).unwrap(), open)
}

fn wait_nodes(client: &FleetClient, wanted: &[&str]) -> Vec<NodeRecord> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let nodes = client.nodes().unwrap();
        if nodes.iter().map(|node| &node.name).eq(wanted) {
            return nodes;
        }
        assert!(Instant::now() < deadline, "{nodes:?}");
    }
}

#[test]
fn nodes_are_listed_while_they_live_and_answer() {
    let Some(servers) = NatsServers::start(1, "") else { return };
    let client = FleetClient::connect(&nats(&servers), "site".parse().unwrap()).unwrap();
    assert_eq!(client.nodes().unwrap(), [], "nobody has registered yet");
    let first = node(&servers, "gw1", NodeKind::Gateway);
    let second = node(&servers, "broker", NodeKind::Serve);
    let nodes = wait_nodes(&client, &["broker", "gw1"]);
    assert_eq!((nodes[1].kind, nodes[1].version.as_str(), nodes[1].started), (NodeKind::Gateway, "1.2.3", 7));
    let ask = |question| client.ask(&nodes, &question, PATIENCE);
    assert_eq!(ask(FleetQuestion::Stats), [Ok("broker answers".into()), Ok("gw1 answers".into())]);
    assert_eq!(ask(FleetQuestion::Doctor), [Err("broker has no doctor".into()), Err("gw1 has no doctor".into())]);
    let long = ask(FleetQuestion::List { filter: String::new(), limit: 2_000_000 });
    assert!(long.iter().all(|answer| answer.as_ref().is_err_and(|error| error.contains("too long"))));
    // One that ends is gone at once; asked nevertheless, it is said that it does not answer.
    drop(second);
    wait_nodes(&client, &["gw1"]);
    let answers = ask(FleetQuestion::Stats);
    assert!(answers[0].as_ref().is_err_and(|error| error.contains("does not answer")), "{answers:?}");
    assert_eq!(answers[1], Ok("gw1 answers".into()));
    drop(first);
    wait_nodes(&client, &[]);
}

/// What the server does not take is said, instead of a question that is answered by nothing.
#[test]
fn an_answer_longer_than_the_server_takes_says_so() {
    let Some(servers) = NatsServers::start(1, "max_payload: 20000") else { return };
    let client = FleetClient::connect(&nats(&servers), "site".parse().unwrap()).unwrap();
    let _node = node(&servers, "gw1", NodeKind::Gateway);
    let nodes = wait_nodes(&client, &["gw1"]);
    let ask = |limit| client.ask(&nodes, &FleetQuestion::List { filter: String::new(), limit }, PATIENCE).remove(0);
    assert_eq!(ask(100), Ok("x".repeat(100)));
    let error = ask(30_000).unwrap_err();
    assert!(error.contains("NATS takes 20000") && error.contains("max_payload"), "{error}");
}

#[test]
fn a_node_answers_some_questions_at_a_time_and_refuses_more() {
    let Some(servers) = NatsServers::start(1, "") else { return };
    let (_node, open) = node(&servers, "gw1", NodeKind::Gateway);
    let client = FleetClient::connect(&nats(&servers), "site".parse().unwrap()).unwrap();
    let nodes = wait_nodes(&client, &["gw1"]);
    let seven: Vec<NodeRecord> = std::iter::repeat_n(nodes[0].clone(), 7).collect();
    let asked = std::thread::spawn(move || {
        let question = FleetQuestion::List { filter: String::new(), limit: 0 };
        let answers = client.ask(&seven, &question, Duration::from_secs(10));
        (client, answers)
    });
    // The first four wait for the gate until the time is over; the others hear at once that it is busy.
    let (client, answers) = asked.join().unwrap();
    let busy = answers.iter().filter(|answer| answer.as_ref().is_err_and(|error| error.contains("busy"))).count();
    let silent =
        answers.iter().filter(|answer| answer.as_ref().is_err_and(|error| error.contains("no answer within"))).count();
    assert_eq!((busy, silent), (3, 4), "{answers:?}");
    (0..4).for_each(|_| open.send(()).unwrap());
    let deadline = Instant::now() + PATIENCE;
    while client.ask(&nodes, &FleetQuestion::Stats, PATIENCE) != [Ok("gw1 answers".into())] {
        assert!(Instant::now() < deadline);
    }
}

#[test]
fn who_may_not_ask_is_told_and_a_node_comes_back_with_its_server() {
    const USERS: &str = r#"
accounts { A { jetstream: enabled, users: [
  { user: node, password: secret }
  { user: guest, password: secret, permissions: { publish: ["$JS.API.>"], subscribe: "_INBOX.>" } }
] } }
no_auth_user: node
"#;
    let Some(mut servers) = NatsServers::start(1, USERS) else { return };
    let (_node, _open) = node(&servers, "gw1", NodeKind::Gateway);
    let client = FleetClient::connect(&nats(&servers), "site".parse().unwrap()).unwrap();
    let nodes = wait_nodes(&client, &["gw1"]);
    let file = servers.folder().join("guest");
    std::fs::write(&file, "guest\nsecret\n").unwrap();
    let guest = NatsOptions { user_file: Some(file), ..nats(&servers) };
    let guest = FleetClient::connect(&guest, "site".parse().unwrap()).unwrap();
    let answers = guest.ask(&nodes, &FleetQuestion::Stats, Duration::from_secs(2));
    assert!(
        answers[0].as_ref().is_err_and(|error| error.to_lowercase().contains("permissions violation")),
        "{answers:?}"
    );
    servers.restart(0);
    let again = FleetClient::connect(&nats(&servers), "site".parse().unwrap()).unwrap();
    let nodes = wait_nodes(&again, &["gw1"]);
    let deadline = Instant::now() + PATIENCE;
    while again.ask(&nodes, &FleetQuestion::Stats, PATIENCE) != [Ok("gw1 answers".into())] {
        assert!(Instant::now() < deadline);
    }
}
