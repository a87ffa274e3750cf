//! From a command line to a [`ConntrackRequest`]: accepted and rejected as conntrack does, checked in conntrack's order.
use super::error::ConntrackError;
use super::getopt::Getopt;
use super::grammar::{
    Applicability, COMMANDS, Command, OPTIONS, OptId, OptSpec, Table, applicability, protocol_options,
};
use super::parsed_opts::ParsedOpts;
use super::request::{ConntrackRequest, FlowChange};
use super::target::Target;
use super::tcp_info::liberal_tcp_info;
use crate::flow_filter::{FlowFilter, MaskedAddr, NatEndpoint};
use crate::format::OutputFormat;
use keepstate_linux::ctnetlink::{
    CtExpectation, CtFamily, CtFlow, CtNatRange, CtProtoInfo, CtSctpInfo, CtTcpInfo, CtTuple, EventKind, Status,
};
use std::net::IpAddr;

/// Parses a command line.
///
/// # Errors
/// The first error in it, in conntrack's words.
pub(super) fn parse(args: &[String]) -> Result<ConntrackRequest, ConntrackError> {
    parse_into(ParsedOpts::default(), args)
}

/// As [`parse`], a line of a file: what the kernel has of DCCP, a tuple without ports, is enough there.
///
/// # Errors
/// As [`parse`].
pub(super) fn parse_saved(args: &[String]) -> Result<ConntrackRequest, ConntrackError> {
    parse_into(ParsedOpts { bare_dccp: true, ..ParsedOpts::default() }, args)
}

fn parse_into(mut opts: ParsedOpts, args: &[String]) -> Result<ConntrackRequest, ConntrackError> {
    let mut command = None;
    let mut table = Table::default();
    let mut args = Getopt::new(args);
    while let Some(given) = args.next_option(opts.protocol)? {
        if let OptId::Command(wanted) = given.spec.id {
            if command.replace(wanted).is_some() {
                return Err(ConntrackError::usage("Invalid commands combination"));
            }
            // What is attached to a command is ignored, and then no table follows.
            if let Some(name) = args.next_operand().filter(|_| !given.is_attached) {
                table = Table::from_name(name)
                    .ok_or_else(|| ConntrackError::usage(format!("unknown type `{}'", name.escape_debug())))?;
            }
            // Before what follows is looked at.
            check_table(wanted, table)?;
        }
        opts.set(given.spec, given.value)?;
    }
    let command = match command {
        Some(command) => command,
        None if opts.given_opts.is_empty() => Command::Help,
        // Without a command no option is allowed: the checks below say so.
        None => Command::Version,
    };
    check_all(command, table, &opts)?;
    Ok(build_request(command, table, opts))
}

/// Checks that everything fits together.
fn check_all(command: Command, table: Table, opts: &ParsedOpts) -> Result<(), ConntrackError> {
    for spec in OPTIONS {
        check_option(command, table, opts, spec)?;
    }
    let names = table == Table::Connections && matches!(command, Command::Create | Command::Add | Command::Get);
    if names {
        check_addresses_given(opts)?;
    }
    check_protocol(command, table, opts)?;
    if names {
        check_ports_given(opts)?;
    }
    if opts.is_given(OptId::LabelAdd) && opts.is_given(OptId::LabelDel) {
        return Err(ConntrackError::Failed("cannot use --label-add and --label-del at the same time".into()));
    }
    let filters = |(meaning, _): &(OptId, &str)| {
        !matches!(meaning, OptId::Command(_) | OptId::Zero | OptId::Output | OptId::Family)
    };
    if table == Table::Connections && opts.zero && opts.given_opts.iter().any(filters) {
        return Err(ConntrackError::usage("Can't use -z with filtering parameters"));
    }
    if opts.any_nat.is_some() && (opts.source_nat.is_some() || opts.destination_nat.is_some()) {
        return Err(ConntrackError::usage("cannot specify `--src-nat' or `--dst-nat' with `--any-nat'"));
    }
    if table == Table::Connections {
        for (mask, of, name) in
            [(OptId::MaskSource, OptId::Source, "src"), (OptId::MaskDestination, OptId::Destination, "dst")]
        {
            if opts.is_given(mask) && !opts.is_given(of) {
                return Err(ConntrackError::usage(format!("Can't use --mask-{name} without --{name}")));
            }
        }
    }
    if opts.formats.len() > 1 {
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

fn check_option(command: Command, table: Table, opts: &ParsedOpts, spec: &OptSpec) -> Result<(), ConntrackError> {
    let name = spec.long.first().copied().unwrap_or_default();
    // Our extension: counters as JSON.
    let counters = matches!(command, Command::Count | Command::Statistics)
        && spec.id == OptId::Output
        && opts.output.format == OutputFormat::Json;
    match (applicability(command, table, spec.id, opts.protocol), opts.is_given(spec.id)) {
        (Applicability::Required, false) if !(opts.is_bare_dccp() && matches!(spec.id, OptId::State | OptId::Role)) => {
            Err(ConntrackError::usage(format!("You need to supply the `--{name}' option for this command")))
        }
        (Applicability::Illegal, true) if !counters => {
            Err(ConntrackError::usage(format!("Illegal option `--{name}' with this command")))
        }
        _ => Ok(()),
    }
}

/// Checks the options of the protocol; those of another are illegal.
fn check_protocol(command: Command, table: Table, opts: &ParsedOpts) -> Result<(), ConntrackError> {
    let of_this: Vec<&OptSpec> = opts.protocol.into_iter().flat_map(protocol_options).collect();
    for spec in &of_this {
        check_option(command, table, opts, spec)?;
    }
    let known = |meaning: OptId| {
        let options = COMMANDS.iter().chain(OPTIONS).chain(of_this.iter().copied());
        options.into_iter().any(|spec| spec.id == meaning)
    };
    match opts.given_opts.iter().find(|(meaning, _)| !known(*meaning)) {
        // It was given after the -p of a protocol that a later -p replaced.
        Some((_, name)) => Err(ConntrackError::usage(format!("Illegal option `--{name}' with this command"))),
        None => Ok(()),
    }
}

/// A connection is identified by both addresses of one direction,
fn check_addresses_given(opts: &ParsedOpts) -> Result<(), ConntrackError> {
    let reply = [opts.reply.source, opts.reply.destination].map(|address| address.is_some());
    let original = [opts.source, opts.destination].map(|network| network.is_some());
    check_pair_given(original, reply, [["src", "dst"], ["reply-src", "reply-dst"]])
}

/// and by both ports.
fn check_ports_given(opts: &ParsedOpts) -> Result<(), ConntrackError> {
    let names = match opts.protocol {
        _ if opts.is_bare_dccp() => return Ok(()),
        Some(6 | 17 | 33 | 132 | 136) => [["sport", "dport"], ["reply-port-src", "reply-port-dst"]],
        Some(47) => [["srckey", "dstkey"], ["reply-key-src", "reply-key-dst"]],
        _ => return Ok(()),
    };
    let ports = |tuple: &CtTuple| [tuple.source_port, tuple.destination_port].map(|port| port.is_some());
    check_pair_given(ports(&opts.original), ports(&opts.reply), names)
}

/// One of two pairs must be complete; the message names the pair that was begun.
fn check_pair_given(original: [bool; 2], reply: [bool; 2], names: [[&str; 2]; 2]) -> Result<(), ConntrackError> {
    if original == [true; 2] || reply == [true; 2] {
        return Ok(());
    }
    let begun = original == [false; 2] && reply != [false; 2];
    let [one, other] = names[usize::from(begun)];
    Err(ConntrackError::usage(format!("you have to specify `--{one}' and `--{other}'")))
}

fn build_request(command: Command, table: Table, opts: ParsedOpts) -> ConntrackRequest {
    let updates = command == Command::Update;
    let filter = FlowFilter {
        family: opts.family,
        original: CtTuple { protocol: opts.protocol, source: None, destination: None, ..opts.original },
        reply: opts.reply,
        source: opts.source.map(|network| apply_mask(network, opts.mask.source)),
        destination: opts.destination.map(|network| apply_mask(network, opts.mask.destination)),
        mark: opts.mark.filter(|_| !updates),
        // A status without any bit goes to the kernel only with -L of the table itself, which rejects it.
        status: opts.status.filter(|bits| {
            !updates && (*bits != [Status::empty(); 2] || command == Command::List && table == Table::Connections)
        }),
        tcp_state: opts.tcp_state.filter(|_| !updates),
        sctp_state: opts.sctp_state.filter(|_| !updates),
        vtags: opts.vtags,
        zone: opts.zone,
        labels: opts.labels,
        id: opts.id,
        // A saved line names what was left when it was saved.
        timeout: opts.timeout.filter(|_| command == Command::Delete && !opts.bare_dccp),
        source_nat: opts.source_nat,
        destination_nat: opts.destination_nat,
        any_nat: opts.any_nat,
    };
    let change = FlowChange {
        timeout: opts.timeout,
        mark: opts.mark,
        status: opts.status.map(|[set, _]| set),
        tcp_state: opts.tcp_state,
        sctp_state: opts.sctp_state,
        add_labels: opts.add_labels,
        remove_labels: opts.remove_labels,
    };
    let mut output = opts.output;
    // A command line with labels shows them.
    let labelled = opts.labels.is_some() || opts.is_given(OptId::LabelAdd) || opts.is_given(OptId::LabelDel);
    output.labels |= labelled && command != Command::Delete;
    ConntrackRequest {
        target: Target::Kernel,
        command,
        table,
        family: opts.family,
        flow: build_flow(&opts),
        expectation: build_expectation(command, &opts),
        filter,
        change,
        output,
        zero: opts.zero,
        events: if opts.events.is_empty() {
            vec![EventKind::New, EventKind::Update, EventKind::Destroy]
        } else {
            opts.events
        },
        buffer_size: opts.buffer_size,
        protocol: opts.protocol,
        reply_ports_given: opts.reply.source_port.is_some() && opts.reply.destination_port.is_some(),
        label_names: opts.label_names.unwrap_or_default(),
    }
}

/// An explicit mask wins over the prefix length of the address.
fn apply_mask(network: MaskedAddr, mask: Option<IpAddr>) -> MaskedAddr {
    MaskedAddr { mask: mask.or(network.mask), ..network }
}

/// The connection to create or to get.
fn build_flow(opts: &ParsedOpts) -> CtFlow {
    let icmp = matches!(opts.protocol, Some(1 | 58));
    let original = CtTuple {
        icmp_id: opts.original.icmp_id.or(icmp.then_some(0)),
        source: opts.source.map(|network| network.address),
        destination: opts.destination.map(|network| network.address),
        protocol: opts.protocol,
        ..opts.original
    };
    let protocol = match opts.protocol {
        Some(6) => CtProtoInfo::Tcp(opts.tcp_state.map_or_else(CtTcpInfo::default, liberal_tcp_info)),
        Some(132) => CtProtoInfo::Sctp(CtSctpInfo { state: opts.sctp_state, vtags: opts.vtags }),
        _ => CtProtoInfo::Empty,
    };
    let translation = |endpoint: Option<NatEndpoint>| {
        let endpoint = endpoint?;
        // ICMP's id is no port.
        let port = endpoint.port.filter(|_| !icmp);
        Some(CtNatRange { address: endpoint.address?, ports: port.map(|port| [port, port]) })
    };
    CtFlow {
        family: opts.family,
        original,
        reply: build_reply_tuple(opts, &original),
        status: Some(opts.status.map_or(Status::empty(), |[set, _]| set) | Status::CONFIRMED),
        timeout: opts.timeout,
        mark: opts.mark.map(|[mark, _]| mark),
        zone: opts.zone,
        id: opts.id,
        protoinfo: protocol,
        labels: Some(opts.add_labels).filter(|labels| *labels != [0; 16]),
        source_nat: translation(opts.source_nat),
        destination_nat: translation(opts.destination_nat),
        ..CtFlow::default()
    }
}

/// The reply direction: what was not given of it is the inverted original direction. A port that a translation names is left to it.
fn build_reply_tuple(opts: &ParsedOpts, original: &CtTuple) -> CtTuple {
    let before_nat = |port: Option<u16>, nat: Option<NatEndpoint>| {
        let translated = nat.and_then(|nat| nat.port);
        port.filter(|port| translated != Some(*port))
    };
    CtTuple {
        source: opts.reply.source.or(original.destination),
        destination: opts.reply.destination.or(original.source),
        protocol: original.protocol,
        source_port: before_nat(opts.reply.source_port, opts.destination_nat).or(original.destination_port),
        destination_port: before_nat(opts.reply.destination_port, opts.source_nat).or(original.source_port),
        icmp_type: original.icmp_type.map(|kind| icmp_reply_type(opts.family, kind)),
        zone: opts.reply.zone,
        ..*original
    }
}

/// The reply type of an ICMP type; the type itself if it has none, which the kernel then rejects.
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

/// The expectation to create or to get.
fn build_expectation(command: Command, opts: &ParsedOpts) -> CtExpectation {
    let named = build_flow(opts).original;
    let protocol = opts.protocol;
    // -G and -D name the expected tuple; -I names the tuple of the master.
    let (master, expected, mask) = match command {
        Command::Create => (named, CtTuple { protocol, ..opts.expect_tuple }, CtTuple { protocol, ..opts.mask }),
        _ => (CtTuple::default(), named, CtTuple::default()),
    };
    CtExpectation {
        family: opts.family,
        master,
        expected,
        mask,
        timeout: opts.timeout,
        zone: opts.zone,
        flags: opts.status.map(|_| 0),
        ..CtExpectation::default()
    }
}

#[cfg(test)]
mod tests {
    use super::parse;
    use crate::command::grammar::{COMMANDS, OPTIONS, protocol_options};
    use proptest::prelude::*;

    /// Words as people type them, and garbage.
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
