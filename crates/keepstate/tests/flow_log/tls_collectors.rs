//! Syslog and IPFIX over TLS, where openssl is the collector, which asks for a certificate.
use crate::common::{keepstate, report_skipped};
use crate::log_testbed::{FIRST_PORT, LogTestbed, SESSIONS, wait_until};
use keepstate_test_support::{NatsServers, make_certificates};
use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};

const SYSLOG_PORT: u16 = 9811;
const IPFIX_PORT: u16 = 9812;
const STRANGER_PORT: u16 = 9813;

/// The certificates are for an address that these collectors do not have: its name is said.
fn logs() -> String {
    let name = NatsServers::address();
    let log = |port: u16, more: &str| {
        format!(
            "[[flow-log]]\nto = \"tls://127.0.0.1:{port}\"\npeers = true\nserver-name = \"{name}\"\nca-file = \"ca.pem\"\n\
             certificate = \"client.pem\"\nkey = \"client.key\"\n{more}"
        )
    };
    format!(
        "\n[sysctl]\nnf_conntrack_udp_timeout = 1\n{}{}[[flow-log]]\nto = \"tls://127.0.0.1:{STRANGER_PORT}\"\nca-file = \"ca.pem\"\n",
        log(SYSLOG_PORT, "format = \"syslog\"\n"),
        log(IPFIX_PORT, "")
    )
}

/// openssl s_server, which writes what it gets to a file.
struct TlsCollector(Child);

impl TlsCollector {
    fn start(lab: &LogTestbed, port: u16, output: &Path) -> TlsCollector {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &lab.gateway_netns(), "openssl", "s_server", "-quiet", "-accept"]);
        command.arg(format!("127.0.0.1:{port}"));
        command.args(["-cert", "server.pem", "-key", "server.key", "-CAfile", "ca.pem", "-Verify", "1"]);
        command.args(["-verify_return_error"]).current_dir(lab.folder());
        // It ends with its standard input.
        command.stdin(Stdio::piped()).stdout(File::create(output).unwrap()).stderr(Stdio::null());
        TlsCollector(command.spawn().unwrap())
    }
}

impl Drop for TlsCollector {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn syslog_and_ipfix_arrive_over_tls_and_a_stranger_gets_nothing() {
    let Some(mut lab) = LogTestbed::new("tls", &logs()) else { return };
    if make_certificates(lab.folder()).is_none() {
        return report_skipped("flow logs over TLS: apt-get install openssl");
    }
    let checked = keepstate(&["check", "--environment", &lab.text_path("gateway.toml")], b"");
    assert!(!checked.out.contains(".pem"), "{}{}", checked.out, checked.err);
    let [syslog, ipfix, stranger] = ["syslog", "ipfix", "stranger"].map(|name| lab.path(name));
    let collectors = [(SYSLOG_PORT, &syslog), (IPFIX_PORT, &ipfix), (STRANGER_PORT, &stranger)];
    let _collectors = collectors.map(|(port, output)| TlsCollector::start(&lab, port, output));
    lab.start();
    lab.send_packets();
    let wanted = u64::from(SESSIONS) * 2;
    wait_until("every record is written", || {
        let stats = lab.stats();
        stats["entries"] == 0 && stats["flow_log_records"].as_u64() >= Some(wanted * 2 + 1)
    });
    let stats = lab.stats();
    assert_eq!((&stats["flow_log_lost"], &stats["flow_logs_failing"]), (&0.into(), &1.into()), "{stats}");
    lab.stop();
    let ports = FIRST_PORT..FIRST_PORT + SESSIONS;

    // RFC 5425: each message with its length in front.
    let mut text = fs::read_to_string(&syslog).unwrap();
    let mut messages = Vec::new();
    while let Some((length, rest)) = text.split_once(' ') {
        let (message, rest) = rest.split_at(length.parse().unwrap());
        messages.push(message.to_owned());
        text = rest.to_owned();
    }
    assert!(messages[0].contains("log-start") && messages[messages.len() - 1].contains("log-end"), "{messages:#?}");
    for port in ports.clone() {
        let wanted = format!(" src_port=\"{port}\"");
        assert!(messages.iter().filter(|message| message.contains(&wanted)).count() >= 2, "{port}: {messages:#?}");
    }

    // IPFIX messages one after the other, each with its length; the source port stands behind the source address.
    let bytes = fs::read(&ipfix).unwrap();
    let mut rest = bytes.as_slice();
    let mut found = Vec::new();
    while let [0, 10, high, low, ..] = rest {
        let (message, behind) = rest.split_at(usize::from(u16::from_be_bytes([*high, *low])));
        found.extend(
            message.windows(6).filter(|six| six[..4] == [10, 1, 0, 2]).map(|six| u16::from_be_bytes([six[4], six[5]])),
        );
        rest = behind;
    }
    assert_eq!(rest, b"", "nothing but messages");
    for port in ports {
        assert!(found.iter().filter(|found| **found == port).count() >= 2, "{port}: {found:?}");
    }
    assert_eq!(fs::read(&stranger).unwrap(), b"", "its certificate is for another address");
}
