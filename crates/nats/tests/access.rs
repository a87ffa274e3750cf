//! Who is let in: users, rights, accounts without JetStream, TLS. What is refused is told in words that say what to do.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]
mod common;
use common::End;
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
