//! Who is let in: users, rights, accounts without JetStream, TLS. What is refused is told in words that say what to do.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]
mod common;
use common::End;
use keepstate_cluster::{Epoch, FrameKind, LeaseAction, LeaseRequest, StateTransport, TransportEvent};
use keepstate_test_support::{NatsServers, make_certificates, report_skipped};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;

fn user_file(servers: &NatsServers, name: &str, password: &str) -> PathBuf {
    let path = servers.folder().join(format!("{name}-{password}.user"));
    std::fs::write(&path, format!("{name}\n{password}\n")).unwrap();
    path
}

fn end_of(servers: &NatsServers, name: &str, password: &str) -> End {
    let file = user_file(servers, name, password);
    End::with(name, &servers.urls(), |nats| nats.user_file = Some(file))
}

#[test]
fn a_wrong_password_and_missing_rights_are_told() {
    const USERS: &str = r#"
accounts {
  GATEWAYS {
    jetstream: enabled
    users: [
      { user: right, password: secret }
      { user: blind, password: secret, permissions: { publish: "nothing", subscribe: ">" } }
    ]
  }
  OTHERS { users: [ { user: plain, password: secret } ] }
}
"#;
    let Some(servers) = NatsServers::start(1, USERS) else { return };
    let mut right = end_of(&servers, "right", "secret");
    right.publish_changes(1, 1..=10);
    right.wait_acknowledged(1, 10);
    let reason = end_of(&servers, "right", "wrong").wait_disconnected();
    assert!(reason.contains("authorization violation") && reason.contains("user and password"), "{reason}");
    let reason = End::new(&servers, "nobody").wait_disconnected();
    assert!(reason.contains("authorization violation"), "{reason}");
    let mut blind = end_of(&servers, "blind", "secret");
    blind.publish_changes(1, 1..=1);
    let reason = blind.wait_disconnected();
    assert!(reason.contains("ermissions") && reason.contains("subjects"), "{reason}");
    let mut plain = end_of(&servers, "plain", "secret");
    plain.publish_changes(1, 1..=1);
    let reason = plain.wait_disconnected();
    assert!(reason.contains("this account"), "{reason}");
}

/// What is said of a lease that cannot be asked for.
fn lease_failure(end: &mut End) -> String {
    let (shard, action) = (common::shard(), LeaseAction::Acquire);
    end.transport.request_lease(LeaseRequest { shard, action, epoch: Epoch(1), number: 1 });
    end.wait("why the lease is not had", |event| match event {
        TransportEvent::LeaseFailed { reason, .. } => Some(reason.clone()),
        _ => None,
    })
}

#[test]
fn a_lease_that_cannot_be_had_is_told_with_the_reason() {
    const USERS: &str = r#"
accounts {
  FULL {
    jetstream: { max_mem: 1GB, max_file: 1GB, max_streams: 1 }
    users: [ { user: full, password: secret } ]
  }
  GATEWAYS {
    jetstream: enabled
    users: [
      { user: poor, password: secret, permissions: { publish: ["$JS.API.>", "keepstate-cluster.>", "_INBOX.>"], subscribe: ">" } }
    ]
  }
}
"#;
    let Some(servers) = NatsServers::start(1, USERS) else { return };
    let mut full = end_of(&servers, "full", "secret");
    full.publish_changes(1, 1..=1);
    full.wait_acknowledged(1, 1);
    let reason = lease_failure(&mut full);
    assert!(
        reason.contains("maximum number of streams reached") && reason.contains("a stream a shard, two buckets"),
        "{reason}"
    );
    let mut poor = end_of(&servers, "poor", "secret");
    poor.wait_connected();
    let reason = lease_failure(&mut poor);
    assert!(reason.contains("$KV.keepstate_test_epochs.north") && reason.contains("Two gateways"), "{reason}");
}

/// The server says it once, and no request fails: heartbeats would just not come, or not go.
#[test]
fn missing_rights_to_what_is_told_are_said() {
    const USERS: &str = r#"
accounts {
  GATEWAYS {
    jetstream: enabled
    users: [
      { user: deaf, password: secret, permissions: { publish: ">", subscribe: "_INBOX.>" } }
      { user: mute, password: secret, permissions: { publish: ["$JS.API.>", "$KV.>", "*.*.*.stored", "_INBOX.>"], subscribe: ">" } }
    ]
  }
}
"#;
    let Some(servers) = NatsServers::start(1, USERS) else { return };
    let reason = end_of(&servers, "deaf", "secret").wait_disconnected();
    assert!(reason.contains("Subscription to \"keepstate-cluster.test.north.told\""), "{reason}");
    let mut mute = end_of(&servers, "mute", "secret");
    mute.wait_connected();
    mute.publish(&common::frame("mute", 1, 0, FrameKind::Heartbeat));
    let reason = mute.wait_disconnected();
    assert!(reason.contains("Publish to \"keepstate-cluster.test.north.told\""), "{reason}");
    assert!(reason.contains("Give this user the subjects"), "{reason}");
}

#[test]
fn limits_of_a_server_that_are_too_small_are_told_with_what_is_needed() {
    const SMALL_MEMORY: &str = "jetstream { store_dir: \"STORE\", max_memory_store: 1000000 }";
    const SMALL_MESSAGES: &str = "jetstream { store_dir: \"STORE\" }\nmax_payload: 1024";
    for (keys, words) in [(SMALL_MEMORY, "max_memory_store (512MB a shard)"), (SMALL_MESSAGES, "Raise max_payload")] {
        let Some(servers) = NatsServers::start_with(1, keys) else { return };
        let mut end = End::new(&servers, "a");
        end.publish_changes(1, 1..=1);
        let reason = end.wait_disconnected();
        assert!(reason.contains(words), "{reason}");
    }
}

/// Three servers that are no cluster of NATS cannot keep anything on three.
#[test]
fn servers_that_are_no_cluster_are_told() {
    let Some(servers) = NatsServers::start(1, "") else { return };
    let urls = vec![servers.url(); 3];
    let mut end = End::with("a", &urls, |_| {});
    end.publish_changes(1, 1..=1);
    let reason = end.wait_disconnected();
    assert!(reason.contains("make them one cluster of NATS"), "{reason}");
}

#[test]
fn a_server_without_jetstream_is_told() {
    let Some(servers) = NatsServers::start_with(1, "") else { return };
    let mut end = End::new(&servers, "a");
    end.publish_changes(1, 1..=1);
    let reason = end.wait_disconnected();
    assert!(reason.contains("jetstream {}"), "{reason}");
}

#[test]
fn nobody_there_is_told_and_tried_again() {
    let Some(mut servers) = NatsServers::start(1, "") else { return };
    servers.kill(0);
    let mut end = End::new(&servers, "a");
    let reason = end.wait_disconnected();
    assert!(reason.contains("4222"), "{reason}");
    end.publish_changes(1, 1..=10);
    servers.restart(0);
    end.wait_connected();
    end.wait_acknowledged(1, 10);
}

#[test]
fn tls_with_certificates_of_both_sides() {
    let folder = tempfile::tempdir().unwrap();
    if make_certificates(folder.path()).is_none() {
        return report_skipped("openssl is missing");
    }
    let file = |name: &str| folder.path().join(name);
    let tls = format!(
        "tls {{ cert_file: \"{}\", key_file: \"{}\", ca_file: \"{}\", verify: true }}",
        file("server.pem").display(),
        file("server.key").display(),
        file("ca.pem").display()
    );
    let Some(servers) = NatsServers::start(1, &tls) else { return };
    let mut end = End::with("a", &servers.urls(), |nats| {
        nats.ca_file = Some(file("ca.pem"));
        nats.certificate = Some(file("client.pem"));
        nats.key = Some(file("client.key"));
    });
    end.publish_changes(1, 1..=10);
    end.wait_acknowledged(1, 10);
    let mut without = End::with("b", &servers.urls(), |nats| nats.ca_file = Some(file("ca.pem")));
    let reason = without.wait_disconnected();
    assert!(reason.contains("ertificate"), "{reason}");
    // A certificate of another authority.
    let other = tempfile::tempdir().unwrap();
    make_certificates(other.path()).unwrap();
    let mut wrong = End::with("c", &servers.urls(), |nats| nats.ca_file = Some(other.path().join("ca.pem")));
    let reason = wrong.wait_disconnected();
    assert!(reason.contains("Check the CA file"), "{reason}");
}

/// Makes a stream by the protocol itself, as some other program does.
fn make_stream(servers: &NatsServers, name: &str, keys: &str) {
    let url = servers.url();
    let mut stream = TcpStream::connect(url.trim_start_matches("nats://")).unwrap();
    stream.set_read_timeout(Some(common::PATIENCE)).unwrap();
    let body = format!("{{\"name\":\"{name}\",{keys}}}");
    let text = format!(
        "CONNECT {{\"verbose\":false}}\r\nSUB answer 1\r\nPUB $JS.API.STREAM.CREATE.{name} answer {}\r\n{body}\r\n",
        body.len()
    );
    stream.write_all(text.as_bytes()).unwrap();
    let (mut answer, mut bytes) = (String::new(), [0; 4096]);
    while !answer.contains("stream_create_response") {
        let length = stream.read(&mut bytes).unwrap();
        assert!(length > 0, "{answer}");
        answer.push_str(&String::from_utf8_lossy(&bytes[..length]));
    }
    assert!(!answer.contains("\"error\""), "{answer}");
}

#[test]
fn a_stream_of_our_name_that_is_somebody_elses_is_told() {
    let subject = "\"subjects\":[\"keepstate-cluster.test.north.stored\"]";
    for (keys, words) in [
        (
            "\"subjects\":[\"other.>\"]".to_owned(),
            "it has the subjects other.>, not keepstate-cluster.test.north.stored",
        ),
        (format!("{subject},\"retention\":\"workqueue\""), "its retention is WorkQueue, not Limits"),
        (format!("{subject},\"max_msgs\":10"), "it keeps 10 messages alone"),
    ] {
        let Some(servers) = NatsServers::start(1, "") else { return };
        make_stream(&servers, "KEEPSTATE_test_north", &keys);
        let mut end = End::new(&servers, "a");
        end.publish_changes(1, 1..=1);
        let reason = end.wait_disconnected();
        assert!(
            reason.contains("KEEPSTATE_test_north was not made by keepstate") && reason.contains(words),
            "{reason}"
        );
    }
}
