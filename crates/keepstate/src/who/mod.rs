//! `keepstate who`: who had an outside address and port at a time.
//!
//! A question goes to flow logs, to a running gateway, to the arithmetic of deterministic NAT, or to several of them; the answer is everyone whom one of them names, and what makes it
//! uncertain. Only reads.
mod gateway_table;
mod log_files;
mod report;

use anyhow::{Context, Result};
use clap::Args;
use keepstate_flowlog::{LogTime, PortHolder, SocketAddress, WhoQuestion, protocol_number};
use keepstate_gateway::control_protocol::DEFAULT_SOCKET;
use keepstate_gateway::gateway_file::GatewayFile;
use report::{NamedHolder, WhoReport};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

/// Who had an outside address and port at a time: by flow logs, a running gateway, or arithmetic
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct WhoArgs {
    /// The outside address and port: 192.0.2.1:40000, [2001:db8::1]:40000
    #[arg(value_name = "ADDRESS:PORT", value_parser = crate::unit_args::parse_address_port)]
    outside: SocketAddr,
    /// When: a date with its time zone (2026-11-29T16:45:00Z), seconds since 1970, or now
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    at: LogTime,
    /// Only this protocol: tcp, udp, a number
    #[arg(long, value_name = "PROTOCOL", value_parser = parse_protocol)]
    protocol: Option<u8>,
    /// Only who talked to this peer: NAT gives one port to several, towards different peers
    #[arg(long, value_name = "ADDRESS[:PORT]", value_parser = parse_peer)]
    peer: Option<(IpAddr, Option<u16>)>,
    /// Ask a running gateway, by its control socket: it knows the connections that live
    #[arg(long, value_name = "PATH", num_args = 0..=1, require_equals = true, default_missing_value = DEFAULT_SOCKET)]
    gateway: Option<PathBuf>,
    /// Compute it from the deterministic NAT of this gateway.toml
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Flow logs, of all gateways of a cluster: JSON lines, plain or compressed by gzip or zstd; hourly Parquet files, if this keepstate was built with them; - for standard input
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  # who had this port yesterday? all files that logrotate has left
  keepstate who 192.0.2.1:40000 --at 2026-11-28T09:15:00Z /var/log/keepstate/flows.jsonl*
  # the same, of one protocol and towards one server
  keepstate who 192.0.2.1:40000 --at 2026-11-28T09:15:00+01:00 --protocol tcp --peer 198.51.100.7:443 flows.jsonl
  # who has it now?
  keepstate who 192.0.2.1:40000 --at now --gateway
  # deterministic NAT needs no log
  keepstate who 192.0.2.1:40000 --at 2026-11-28T09:15:00Z --config /etc/keepstate/gateway.toml

The answer says what makes it uncertain: records missing from the log, a log that begins later.
Exit codes: 0 somebody had it, 1 nobody, 2 usage error or something could not be read";

/// The exit code for what could not be read.
const UNREADABLE: u8 = 2;

impl WhoArgs {
    /// Do the options fit together?
    ///
    /// # Errors
    /// A sentence for the user: what does not fit, and what to do.
    pub fn check(&self) -> Result<(), String> {
        if self.files.is_empty() && self.gateway.is_none() && self.config.is_none() {
            return Err("where to look? give flow logs, --gateway, or --config for deterministic NAT".into());
        }
        Ok(())
    }

    /// Asks, and prints the answer.
    ///
    /// # Errors
    /// Standard output cannot be written.
    pub fn run(&self) -> Result<ExitCode> {
        let report = match self.ask() {
            Ok(report) => report,
            Err(error) => {
                tracing::error!("{error:#}");
                return Ok(ExitCode::from(UNREADABLE));
            }
        };
        let mut out = anstream::stdout().lock();
        if self.json { report.write_json(&mut out) } else { report.write_text(&mut out) }?;
        Ok(if report.holders.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }

    fn question(&self) -> WhoQuestion {
        let outside = SocketAddress { address: self.outside.ip(), port: self.outside.port() };
        WhoQuestion { outside, protocol: self.protocol, at: self.at, peer: self.peer }
    }

    fn ask(&self) -> Result<WhoReport> {
        let question = self.question();
        let mut report = WhoReport::new(question);
        if !self.files.is_empty() {
            let answer = log_files::ask(&self.files, question)?;
            report.add("log", answer.holders);
            report.uncertain.extend(answer.doubts.iter().map(report::doubt_text));
        }
        if let Some(socket) = &self.gateway {
            let answer = gateway_table::ask(socket, question, now())?;
            report.add("gateway", answer.holders);
            report.uncertain.extend(answer.uncertain);
        }
        if let Some(path) = &self.config {
            let file = GatewayFile::read(path)?;
            if !file.faults.is_empty() {
                anyhow::bail!("{} has errors\n{}", path.display(), file.error(file.faults.clone()));
            }
            self.compute(&file, &mut report).with_context(|| format!("{}: no deterministic NAT", path.display()))?;
        }
        Ok(report)
    }

    /// By arithmetic (RFC 7422).
    fn compute(&self, file: &GatewayFile, report: &mut WhoReport) -> Result<()> {
        let given = file.settings.nat.deterministic.as_ref();
        let given =
            given.context("add deterministic = [\"100.64.0.0/16=192.0.2.0/28\"] to [nat], or give the flow logs")?;
        let IpAddr::V4(address) = self.outside.ip() else {
            anyhow::bail!("it is for IPv4, and {} is not", self.outside.ip());
        };
        let found = given.value.iter().find_map(|text| {
            let mapping = &text.value.0;
            let inside = mapping.inside(address, self.outside.port())?;
            Some((inside, mapping.outside(inside)?.1))
        });
        if let Some((inside, ports)) = found {
            let holder = PortHolder {
                inside: Some(IpAddr::V4(inside)),
                inside_port: None,
                protocol: None,
                peer: None,
                block: Some((*ports.start(), *ports.end())),
                from: None,
                until: None,
            };
            report.holders.push(NamedHolder { source: "deterministic", holder });
        }
        report.uncertain.push(format!("computed: right if {} was in force at that time", file.path.display()));
        Ok(())
    }
}

fn now() -> LogTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    LogTime(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

fn parse_time(text: &str) -> Result<LogTime, String> {
    if text == "now" {
        return Ok(now());
    }
    if let Ok(seconds) = text.parse::<u32>() {
        return Ok(LogTime(u64::from(seconds) * 1_000_000_000));
    }
    text.parse().map_err(|_| {
        "write a date with its time zone (2026-11-29T16:45:00Z, 2026-11-29T17:45:00+01:00), seconds since 1970, or now".to_owned()
    })
}

fn parse_protocol(text: &str) -> Result<u8, String> {
    protocol_number(text)
        .ok_or_else(|| "write tcp, udp, icmp, icmpv6, sctp, dccp, gre, or a number up to 255".to_owned())
}

fn parse_peer(text: &str) -> Result<(IpAddr, Option<u16>), String> {
    let with_port = text.parse::<SocketAddr>().map(|peer| (peer.ip(), Some(peer.port())));
    with_port
        .or_else(|_| text.parse().map(|address| (address, None)))
        .map_err(|_| "write an address, with or without a port: 198.51.100.7:443, [2001:db8::7]:443".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_peers_are_parsed() {
        assert_eq!(parse_time("1790000000"), parse_time("2026-09-21T16:13:20+02:00"));
        assert!(parse_time("12:00").unwrap_err().contains("time zone"));
        assert!(parse_time("now").unwrap() > parse_time("1").unwrap());
        let address: IpAddr = "2001:db8::7".parse().unwrap();
        assert_eq!(parse_peer("[2001:db8::7]:443"), Ok((address, Some(443))));
        assert_eq!(parse_peer("2001:db8::7"), Ok((address, None)));
        assert!(parse_peer("example.net").is_err() && parse_protocol("qwer").is_err());
        assert_eq!((parse_protocol("udp"), parse_protocol("89")), (Ok(17), Ok(89)));
    }
}
