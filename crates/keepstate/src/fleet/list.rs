//! `keepstate conntrack --fleet -L …`: the connections of all nodes, each line with its node's name. Only lists: nothing is changed from afar.
use super::{AskedFleet, DEFAULT_FLEET_FILE, answers::ListedFlows, plain};
use anyhow::{Result, bail};
use keepstate_conntrack::FlowSelection;
use keepstate_nats::fleet::FleetQuestion;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// Connections of each node.
const LIMIT: usize = 1_000;
/// A large table takes a node some seconds.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Takes `--fleet` or `--fleet=FILE` out of conntrack's command line: the file and the other words.
pub(crate) fn take_fleet(args: &[String]) -> Option<(PathBuf, Vec<String>)> {
    let mut file = None;
    let mut rest = Vec::with_capacity(args.len());
    for word in args {
        match word.strip_prefix("--fleet") {
            Some("") => file = Some(PathBuf::from(DEFAULT_FLEET_FILE)),
            Some(path) if path.starts_with('=') => file = Some(PathBuf::from(path.trim_start_matches('='))),
            _ => rest.push(word.clone()),
        }
    }
    Some((file?, rest))
}

/// Lists; exit code 1 if a node did not answer.
pub(crate) fn run(file: &Path, args: &[String]) -> ExitCode {
    match list(file, args) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("conntrack: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn list(file: &Path, args: &[String]) -> Result<ExitCode> {
    let filter = match args.split_first() {
        Some((command, filter)) if command == "-L" || command == "--dump" => filter.join(" "),
        _ => bail!(
            "--fleet only lists: keepstate conntrack --fleet -L and options that select. Anything else is done at a node itself"
        ),
    };
    if let Err(error) = FlowSelection::parse(&filter) {
        bail!("with --fleet -L: {error}");
    }
    let fleet = AskedFleet::open(file)?;
    let nodes = fleet.nodes()?;
    if nodes.is_empty() {
        bail!("no node of this fleet is registered: keepstate serve --fleet at each one registers it");
    }
    let answers = fleet.client.ask(&nodes, &FleetQuestion::List { filter, limit: LIMIT }, TIMEOUT);
    let mut out = BufWriter::new(std::io::stdout().lock());
    let (mut shown, mut silent) = (0, 0);
    for (node, answer) in nodes.iter().zip(answers) {
        let listed =
            answer.and_then(|text| serde_json::from_str::<ListedFlows>(&text).map_err(|error| error.to_string()));
        match listed {
            Ok(listed) => {
                for line in listed.lines.lines() {
                    writeln!(out, "{}: {}", node.name, plain(line))?;
                }
                shown += listed.shown;
                if listed.is_cut {
                    eprintln!(
                        "{}: only the first {} are shown; narrow the filter, or list there",
                        node.name, listed.shown
                    );
                }
            }
            Err(error) => {
                silent += 1;
                eprintln!("{}: {}", node.name, plain(&error));
            }
        }
    }
    out.flush()?;
    let not_shown = if silent == 0 { String::new() } else { format!("; {silent} did not answer") };
    eprintln!("{shown} flow entries of {} nodes have been shown{not_shown}.", nodes.len() - silent);
    Ok(if silent > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_option_is_taken_out_wherever_it_stands() {
        let take = |line: &str| take_fleet(&line.split(' ').map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(take("-L -p tcp"), None);
        let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(take("-L --fleet -p tcp"), Some((DEFAULT_FLEET_FILE.into(), words("-L -p tcp"))));
        assert_eq!(take("--fleet=/a -L"), Some(("/a".into(), words("-L"))));
        assert_eq!(take("--fleets -L"), None);
    }
}
