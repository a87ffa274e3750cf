//! From words to a [`Request`]: what conntrack would understand, or would refuse, in conntrack's order.
use super::error::ConntrackError;
use super::flow_filter::{FlowFilter, MaskedAddr};
use super::getopt::Getopt;
use super::grammar::{
    Applicability, COMMANDS, Command, OPTIONS, OptId, OptSpec, Table, applicability, protocol_options,
};
use super::parsed_opts::ParsedOpts;
use super::request::{ConntrackRequest, FlowChange};
use super::target::Target;
use crate::format::OutputFormat;
use keepstate_linux::ctnetlink::{
    CtExpectation, CtFamily, CtFlow, CtNatRange, CtProtoInfo, CtSctpInfo, CtTcpInfo, CtTuple, EventKind, Status,
};
use std::net::IpAddr;

/// Reads a command line.
///
/// # Errors
/// The first thing that is wrong with it, in conntrack's words.
pub(super) fn parse(words: &[String]) -> Result<ConntrackRequest, ConntrackError> {
    let mut told = ParsedOpts::default();
    let mut command = None;
    let mut table = Table::default();
    let mut words = Getopt::new(words);
    while let Some(given) = words.next_option(told.protocol)? {
        if let OptId::Command(wanted) = given.spec.id {
            if command.replace(wanted).is_some() {
                return Err(ConntrackError::usage("Invalid commands combination"));
            }
            if let Some(name) = words.next_operand() {
                table = Table::from_name(name)
                    .ok_or_else(|| ConntrackError::usage(format!("unknown type `{}'", name.escape_debug())))?;
            }
        }
        told.set(given.spec, given.value)?;
    }
    let command = match command {
        Some(command) => command,
        None if told.given_opts.is_empty() => Command::Help,
        // Without a command nothing may be given.
        None => Command::Version,
    };
    check_all(command, table, &told)?;
    Ok(build_request(command, table, told))
}

/// Does everything fit together?
fn check_all(command: Command, table: Table, told: &ParsedOpts) -> Result<(), ConntrackError> {
    check_table(command, table)?;
    for spec in OPTIONS {
        check_option(command, table, told, spec)?;
    }
    let names = table == Table::Connections && matches!(command, Command::Create | Command::Add | Command::Get);
    if names {
        check_addresses_given(told)?;
    }
    check_protocol(command, table, told)?;
    if names {
        check_ports_given(told)?;
    }
    if told.is_given(OptId::LabelAdd) && told.is_given(OptId::LabelDel) {
        return Err(ConntrackError::Failed("cannot use --label-add and --label-del at the same time".into()));
    }
    let picks = |(meaning, _): &(OptId, &str)| {
        !matches!(meaning, OptId::Command(_) | OptId::Zero | OptId::Output | OptId::Family)
    };
    if told.zero && told.given_opts.iter().any(picks) {
        return Err(ConntrackError::usage("Can't use -z with filtering parameters"));
    }
    if told.any_nat.is_some() && (told.source_nat.is_some() || told.destination_nat.is_some()) {
        return Err(ConntrackError::usage("cannot specify `--src-nat' or `--dst-nat' with `--any-nat'"));
    }
    if table == Table::Connections {
        for (mask, of, name) in
            [(OptId::MaskSource, OptId::Source, "src"), (OptId::MaskDestination, OptId::Destination, "dst")]
        {
            if told.is_given(mask) && !told.is_given(of) {
                return Err(ConntrackError::usage(format!("Can't use --mask-{name} without --{name}")));
            }
        }
    }
    let output = told.output;
    let more = output.extended || output.id || output.timestamp || output.ktimestamp || output.labels;
    if told.formats.contains(&OutputFormat::Save) && (told.formats.len() > 1 || more) {
        return Err(ConntrackError::Failed(
            "cannot combine save output with any other output type, use -o save only".into(),
        ));
    }
    if told.formats.len() > 1 {
        return Err(ConntrackError::usage("`xml' and `json' exclude each other: choose one"));
    }
    Ok(())
}

fn check_table(command: Command, table: Table) -> Result<(), ConntrackError> {
    match (command, table) {
        (Command::Update, Table::Expectations) => Err(ConntrackError::usage("Can't do --update on expectations")),
        (Command::Add, Table::Expectations) => Err(ConntrackError::usage("Can't do --add on expectations")),
        (Command::List | Command::Help | Command::Version, _) | (_, Table::Connections | Table::Expectations) => Ok(()),
        (_, Table::Dying | Table::Unconfirmed) => {
            Err(ConntrackError::usage("Can't do that command with tables `dying' and `unconfirmed'"))
        }
    }
}

fn check_option(command: Command, table: Table, told: &ParsedOpts, spec: &OptSpec) -> Result<(), ConntrackError> {
    let name = spec.long.first().copied().unwrap_or_default();
    // Our own: counters as JSON.
    let counters = matches!(command, Command::Count | Command::Statistics)
        && spec.id == OptId::Output
        && told.output.format == OutputFormat::Json;
    match (applicability(command, table, spec.id, told.protocol), told.is_given(spec.id)) {
        (Applicability::Required, false) => {
            Err(ConntrackError::usage(format!("You need to supply the `--{name}' option for this command")))
        }
        (Applicability::Illegal, true) if !counters => {
            Err(ConntrackError::usage(format!("Illegal option `--{name}' with this command")))
        }
        _ => Ok(()),
    }
}

/// The options of the protocol, and none of another.
fn check_protocol(command: Command, table: Table, told: &ParsedOpts) -> Result<(), ConntrackError> {
    let of_this: Vec<&OptSpec> = told.protocol.into_iter().flat_map(protocol_options).collect();
    for spec in &of_this {
        check_option(command, table, told, spec)?;
    }
    let known = |meaning: OptId| {
        let options = COMMANDS.iter().chain(OPTIONS).chain(of_this.iter().copied());
        options.into_iter().any(|spec| spec.id == meaning)
    };
    match told.given_opts.iter().find(|(meaning, _)| !known(*meaning)) {
        // It was given behind the -p of a protocol that a later -p replaced.
        Some((_, name)) => Err(ConntrackError::usage(format!("Illegal option `--{name}' with this command"))),
        None => Ok(()),
    }
}

/// What names a connection: both addresses of one direction.
fn check_addresses_given(told: &ParsedOpts) -> Result<(), ConntrackError> {
    let reply = [told.reply.source, told.reply.destination].map(|address| address.is_some());
    let original = [told.source, told.destination].map(|network| network.is_some());
    check_pair_given(original, reply, [["src", "dst"], ["reply-src", "reply-dst"]])
}

/// And both ports.
fn check_ports_given(told: &ParsedOpts) -> Result<(), ConntrackError> {
    let names = match told.protocol {
        Some(6 | 17 | 33 | 132 | 136) => [["sport", "dport"], ["reply-port-src", "reply-port-dst"]],
        Some(47) => [["srckey", "dstkey"], ["reply-key-src", "reply-key-dst"]],
        _ => return Ok(()),
    };
    let ports = |tuple: &CtTuple| [tuple.source_port, tuple.destination_port].map(|port| port.is_some());
    check_pair_given(ports(&told.original), ports(&told.reply), names)
}

/// One of two pairs must be whole; which one is missed depends on what was begun.
fn check_pair_given(original: [bool; 2], reply: [bool; 2], names: [[&str; 2]; 2]) -> Result<(), ConntrackError> {
    if original == [true; 2] || reply == [true; 2] {
        return Ok(());
    }
    let begun = original == [false; 2] && reply != [false; 2];
    let [one, other] = names[usize::from(begun)];
    Err(ConntrackError::usage(format!("you have to specify `--{one}' and `--{other}'")))
}

fn build_request(command: Command, table: Table, told: ParsedOpts) -> ConntrackRequest {
    let updates = command == Command::Update;
    let pick = FlowFilter {
        family: told.family,
        original: CtTuple { protocol: told.protocol, source: None, destination: None, ..told.original },
        reply: told.reply,
        source: told.source.map(|network| apply_mask(network, told.mask.source)),
        destination: told.destination.map(|network| apply_mask(network, told.mask.destination)),
        mark: told.mark.filter(|_| !updates),
        // Of no bit at all the kernel is asked in a listing only, which it refuses.
        status: told.status.filter(|bits| !updates && (*bits != [Status::empty(); 2] || command == Command::List)),
        tcp_state: told.tcp_state.filter(|_| !updates),
        sctp_state: told.sctp_state.filter(|_| !updates),
        vtags: told.vtags,
        zone: told.zone,
        labels: told.labels,
        id: told.id,
        source_nat: told.source_nat,
        destination_nat: told.destination_nat,
        any_nat: told.any_nat,
    };
    let change = FlowChange {
        timeout: told.timeout,
        mark: told.mark,
        status: told.status.map(|[set, _]| set),
        tcp_state: told.tcp_state,
        sctp_state: told.sctp_state,
        add_labels: told.add_labels,
        remove_labels: told.remove_labels,
    };
    let mut output = told.output;
    // Who asks for labels sees them.
    let labelled = told.labels.is_some() || told.is_given(OptId::LabelAdd) || told.is_given(OptId::LabelDel);
    output.labels |= labelled && command != Command::Delete;
    ConntrackRequest {
        target: Target::Kernel,
        command,
        table,
        family: told.family,
        flow: build_flow(&told),
        expectation: build_expectation(command, &told),
        filter: pick,
        change,
        output,
        zero: told.zero,
        events: if told.events.is_empty() {
            vec![EventKind::New, EventKind::Update, EventKind::Destroy]
        } else {
            told.events
        },
        buffer_size: told.buffer_size,
        protocol: told.protocol,
        label_names: told.label_names.unwrap_or_default(),
    }
}

/// A mask given for itself counts before the one behind the address.
fn apply_mask(network: MaskedAddr, mask: Option<IpAddr>) -> MaskedAddr {
    MaskedAddr { mask: mask.or(network.mask), ..network }
}

/// The connection as it is to be made or looked for.
fn build_flow(told: &ParsedOpts) -> CtFlow {
    let icmp = matches!(told.protocol, Some(1 | 58));
    let original = CtTuple {
        icmp_id: told.original.icmp_id.or(icmp.then_some(0)),
        source: told.source.map(|network| network.address),
        destination: told.destination.map(|network| network.address),
        protocol: told.protocol,
        ..told.original
    };
    let protocol = match told.protocol {
        Some(6) => CtProtoInfo::Tcp(CtTcpInfo { state: told.tcp_state, ..CtTcpInfo::default() }),
        Some(132) => CtProtoInfo::Sctp(CtSctpInfo { state: told.sctp_state, vtags: told.vtags }),
        _ => CtProtoInfo::Empty,
    };
    let translation = |endpoint: Option<super::flow_filter::NatEndpoint>| {
        let endpoint = endpoint?;
        // The id of ICMP is no port.
        let port = endpoint.port.filter(|_| !icmp);
        Some(CtNatRange { address: endpoint.address?, ports: port.map(|port| [port, port]) })
    };
    CtFlow {
        family: told.family,
        original,
        reply: build_reply_tuple(told, &original),
        status: Some(told.status.map_or(Status::empty(), |[set, _]| set) | Status::CONFIRMED),
        timeout: told.timeout,
        mark: told.mark.map(|[mark, _]| mark),
        zone: told.zone,
        id: told.id,
        protoinfo: protocol,
        labels: Some(told.add_labels).filter(|labels| *labels != [0; 16]),
        source_nat: translation(told.source_nat),
        destination_nat: translation(told.destination_nat),
        ..CtFlow::default()
    }
}

/// The reply direction: what was not told of it is the original direction turned round.
fn build_reply_tuple(told: &ParsedOpts, original: &CtTuple) -> CtTuple {
    CtTuple {
        source: told.reply.source.or(original.destination),
        destination: told.reply.destination.or(original.source),
        protocol: original.protocol,
        source_port: told.reply.source_port.or(original.destination_port),
        destination_port: told.reply.destination_port.or(original.source_port),
        icmp_type: original.icmp_type.map(|kind| icmp_reply_type(told.family, kind)),
        zone: told.reply.zone,
        ..*original
    }
}

/// The type that answers an ICMP type; the type itself where nothing does, which the kernel then refuses.
fn icmp_reply_type(family: Option<CtFamily>, kind: u8) -> u8 {
    match (family, kind) {
        (Some(CtFamily::V6), 128) => 129,
        (Some(CtFamily::V6), 129) => 128,
        (Some(CtFamily::V6), 139) => 140,
        (Some(CtFamily::V6), 140) => 139,
        (_, 0) => 8,
        (_, 8) => 0,
        (_, kind @ (13 | 15 | 17)) => kind + 1,
        (_, kind @ (14 | 16 | 18)) => kind - 1,
        (_, kind) => kind,
    }
}

/// The expectation as it is to be made or looked for.
fn build_expectation(command: Command, told: &ParsedOpts) -> CtExpectation {
    let named = build_flow(told).original;
    let protocol = told.protocol;
    // What is looked for is named by its own tuple; what is made, by that of its master.
    let (master, expected, mask) = match command {
        Command::Create => (named, CtTuple { protocol, ..told.expect_tuple }, CtTuple { protocol, ..told.mask }),
        _ => (CtTuple::default(), named, CtTuple::default()),
    };
    CtExpectation {
        family: told.family,
        master,
        expected,
        mask,
        timeout: told.timeout,
        zone: told.zone,
        flags: told.status.map(|_| 0),
        ..CtExpectation::default()
    }
}

#[cfg(test)]
mod tests {
    use super::parse;
    use crate::command::grammar::{COMMANDS, OPTIONS, protocol_options};
    use proptest::prelude::*;

    /// Words as people type them, and nonsense.
    fn arbitrary_word() -> impl Strategy<Value = String> {
        let protocols = [1_u8, 6, 17, 33, 47, 58, 132, 136];
        let options: Vec<String> = COMMANDS
            .iter()
            .chain(OPTIONS)
            .chain(protocols.into_iter().flat_map(protocol_options))
            .flat_map(|spec| {
                let short = spec.short.map(|letter| format!("-{letter}"));
                short.into_iter().chain(spec.long.iter().map(|name| format!("--{name}")))
            })
            .collect();
        let values = [
            "10.0.0.1",
            "10.0.0.0/8",
            "::1",
            "::/0",
            "tcp",
            "sctp",
            "gre",
            "icmpv6",
            "expect",
            "dying",
            "5",
            "0x5/0xff",
            "ESTABLISHED",
            "ASSURED",
            "xml",
            "save",
            "json",
            "ipv6",
            "NEW",
            "1.2.3.4:5",
            "[::1]:7",
            "-",
            "--",
            "",
        ];
        prop_oneof![
            4 => prop::sample::select(options),
            3 => prop::sample::select(values.map(str::to_owned).to_vec()),
            1 => "\\PC{0,8}",
        ]
    }

    proptest! {
        #[test]
        fn parse_never_panics(words in prop::collection::vec(arbitrary_word(), 0..10)) {
            // A label option may read a file; nothing else is touched, and nothing panics.
            let _ = parse(&words);
        }
    }
}
