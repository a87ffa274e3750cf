//! From words to a [`Request`]: what conntrack would understand, or would refuse, in conntrack's order.
use super::fault::Fault;
use super::grammar::{COMMANDS, Command, Fit, Meaning, OPTIONS, Spec, Table, fit, of_protocol};
use super::pick::{Network, Pick};
use super::place::Place;
use super::request::{Change, Request};
use super::told::Told;
use super::words::Words;
use crate::format::Kind;
use keepstate_linux::ctnetlink::{
    Expectation, Family, Flow, Happening, Protocol, SctpInfo, TcpInfo, Translation, Tuple, status,
};
use std::net::IpAddr;

/// Reads a command line.
///
/// # Errors
/// The first thing that is wrong with it, in conntrack's words.
pub(super) fn parse(words: &[String]) -> Result<Request, Fault> {
    let mut told = Told::default();
    let mut command = None;
    let mut table = Table::default();
    let mut words = Words::new(words);
    while let Some(given) = words.next(told.protocol)? {
        if let Meaning::Do(wanted) = given.spec.meaning {
            if command.replace(wanted).is_some() {
                return Err(Fault::usage("Invalid commands combination"));
            }
            if let Some(name) = words.plain() {
                table = Table::named(name)
                    .ok_or_else(|| Fault::usage(format!("unknown type `{}'", name.escape_debug())))?;
            }
        }
        told.take(given.spec, given.value)?;
    }
    let command = match command {
        Some(command) => command,
        None if told.given.is_empty() => Command::Help,
        // Without a command nothing may be given.
        None => Command::Version,
    };
    check(command, table, &told)?;
    Ok(request(command, table, told))
}

/// Does everything fit together?
fn check(command: Command, table: Table, told: &Told) -> Result<(), Fault> {
    check_table(command, table)?;
    for spec in OPTIONS {
        check_option(command, table, told, spec)?;
    }
    let names = table == Table::Connections && matches!(command, Command::Create | Command::Add | Command::Get);
    if names {
        check_addresses(told)?;
    }
    check_protocol(command, table, told)?;
    if names {
        check_ports(told)?;
    }
    if told.has(Meaning::LabelAdd) && told.has(Meaning::LabelDel) {
        return Err(Fault::Failed("cannot use --label-add and --label-del at the same time".into()));
    }
    let picks = |(meaning, _): &(Meaning, &str)| {
        !matches!(meaning, Meaning::Do(_) | Meaning::Zero | Meaning::Output | Meaning::Family)
    };
    if told.zero && told.given.iter().any(picks) {
        return Err(Fault::usage("Can't use -z with filtering parameters"));
    }
    if told.any_nat.is_some() && (told.source_nat.is_some() || told.destination_nat.is_some()) {
        return Err(Fault::usage("cannot specify `--src-nat' or `--dst-nat' with `--any-nat'"));
    }
    if table == Table::Connections {
        for (mask, of, name) in
            [(Meaning::MaskSource, Meaning::Source, "src"), (Meaning::MaskDestination, Meaning::Destination, "dst")]
        {
            if told.has(mask) && !told.has(of) {
                return Err(Fault::usage(format!("Can't use --mask-{name} without --{name}")));
            }
        }
    }
    let output = told.output;
    let more = output.extended || output.id || output.timestamp || output.ktimestamp || output.labels;
    if told.kinds.contains(&Kind::Save) && (told.kinds.len() > 1 || more) {
        return Err(Fault::Failed("cannot combine save output with any other output type, use -o save only".into()));
    }
    if told.kinds.len() > 1 {
        return Err(Fault::usage("`xml' and `json' exclude each other: choose one"));
    }
    Ok(())
}

fn check_table(command: Command, table: Table) -> Result<(), Fault> {
    match (command, table) {
        (Command::Update, Table::Expectations) => Err(Fault::usage("Can't do --update on expectations")),
        (Command::Add, Table::Expectations) => Err(Fault::usage("Can't do --add on expectations")),
        (Command::List | Command::Help | Command::Version, _) | (_, Table::Connections | Table::Expectations) => Ok(()),
        (_, Table::Dying | Table::Unconfirmed) => {
            Err(Fault::usage("Can't do that command with tables `dying' and `unconfirmed'"))
        }
    }
}

fn check_option(command: Command, table: Table, told: &Told, spec: &Spec) -> Result<(), Fault> {
    let name = spec.long.first().copied().unwrap_or_default();
    // Our own: counters as JSON.
    let counters = matches!(command, Command::Count | Command::Statistics)
        && spec.meaning == Meaning::Output
        && told.output.kind == Kind::Json;
    match (fit(command, table, spec.meaning, told.protocol), told.has(spec.meaning)) {
        (Fit::Must, false) => Err(Fault::usage(format!("You need to supply the `--{name}' option for this command"))),
        (Fit::Not, true) if !counters => Err(Fault::usage(format!("Illegal option `--{name}' with this command"))),
        _ => Ok(()),
    }
}

/// The options of the protocol, and none of another.
fn check_protocol(command: Command, table: Table, told: &Told) -> Result<(), Fault> {
    let of_this: Vec<&Spec> = told.protocol.into_iter().flat_map(of_protocol).collect();
    for spec in &of_this {
        check_option(command, table, told, spec)?;
    }
    let known = |meaning: Meaning| {
        let options = COMMANDS.iter().chain(OPTIONS).chain(of_this.iter().copied());
        options.into_iter().any(|spec| spec.meaning == meaning)
    };
    match told.given.iter().find(|(meaning, _)| !known(*meaning)) {
        // It was given behind the -p of a protocol that a later -p replaced.
        Some((_, name)) => Err(Fault::usage(format!("Illegal option `--{name}' with this command"))),
        None => Ok(()),
    }
}

/// What names a connection: both addresses of one direction.
fn check_addresses(told: &Told) -> Result<(), Fault> {
    let reply = [told.reply.source, told.reply.destination].map(|address| address.is_some());
    let original = [told.source, told.destination].map(|network| network.is_some());
    check_pair(original, reply, [["src", "dst"], ["reply-src", "reply-dst"]])
}

/// And both ports.
fn check_ports(told: &Told) -> Result<(), Fault> {
    let names = match told.protocol {
        Some(6 | 17 | 33 | 132 | 136) => [["sport", "dport"], ["reply-port-src", "reply-port-dst"]],
        Some(47) => [["srckey", "dstkey"], ["reply-key-src", "reply-key-dst"]],
        _ => return Ok(()),
    };
    let ports = |tuple: &Tuple| [tuple.source_port, tuple.destination_port].map(|port| port.is_some());
    check_pair(ports(&told.original), ports(&told.reply), names)
}

/// One of two pairs must be whole; which one is missed depends on what was begun.
fn check_pair(original: [bool; 2], reply: [bool; 2], names: [[&str; 2]; 2]) -> Result<(), Fault> {
    if original == [true; 2] || reply == [true; 2] {
        return Ok(());
    }
    let begun = original == [false; 2] && reply != [false; 2];
    let [one, other] = names[usize::from(begun)];
    Err(Fault::usage(format!("you have to specify `--{one}' and `--{other}'")))
}

fn request(command: Command, table: Table, told: Told) -> Request {
    let updates = command == Command::Update;
    let pick = Pick {
        family: told.family,
        original: Tuple { protocol: told.protocol, source: None, destination: None, ..told.original },
        reply: told.reply,
        source: told.source.map(|network| masked(network, told.mask.source)),
        destination: told.destination.map(|network| masked(network, told.mask.destination)),
        mark: told.mark.filter(|_| !updates),
        // Of no bit at all the kernel is asked in a listing only, which it refuses.
        status: told.status.filter(|bits| !updates && (*bits != [0, 0] || command == Command::List)),
        tcp_state: told.tcp_state.filter(|_| !updates),
        sctp_state: told.sctp_state.filter(|_| !updates),
        tags: told.tags,
        zone: told.zone,
        labels: told.labels,
        id: told.id,
        source_nat: told.source_nat,
        destination_nat: told.destination_nat,
        any_nat: told.any_nat,
    };
    let change = Change {
        timeout: told.timeout,
        mark: told.mark,
        status: told.status.map(|[set, _]| set),
        state: told.tcp_state,
        sctp_state: told.sctp_state,
        add: told.add,
        remove: told.remove,
    };
    let mut output = told.output;
    // Who asks for labels sees them.
    let labelled = told.labels.is_some() || told.has(Meaning::LabelAdd) || told.has(Meaning::LabelDel);
    output.labels |= labelled && command != Command::Delete;
    Request {
        place: Place::Kernel,
        command,
        table,
        family: told.family,
        flow: flow(&told),
        expectation: expectation(command, &told),
        pick,
        change,
        output,
        zero: told.zero,
        events: if told.events.is_empty() {
            vec![Happening::New, Happening::Update, Happening::Destroy]
        } else {
            told.events
        },
        buffer: told.buffer,
        protocol: told.protocol,
        labels: told.names.unwrap_or_default(),
    }
}

/// A mask given for itself counts before the one behind the address.
fn masked(network: Network, mask: Option<IpAddr>) -> Network {
    Network { mask: mask.or(network.mask), ..network }
}

/// The connection as it is to be made or looked for.
fn flow(told: &Told) -> Flow {
    let icmp = matches!(told.protocol, Some(1 | 58));
    let original = Tuple {
        icmp_id: told.original.icmp_id.or(icmp.then_some(0)),
        source: told.source.map(|network| network.address),
        destination: told.destination.map(|network| network.address),
        protocol: told.protocol,
        ..told.original
    };
    let protocol = match told.protocol {
        Some(6) => Protocol::Tcp(TcpInfo { state: told.tcp_state, ..TcpInfo::default() }),
        Some(132) => Protocol::Sctp(SctpInfo { state: told.sctp_state, tags: told.tags }),
        _ => Protocol::Nothing,
    };
    let translation = |endpoint: Option<super::pick::Endpoint>| {
        let endpoint = endpoint?;
        // The id of ICMP is no port.
        let port = endpoint.port.filter(|_| !icmp);
        Some(Translation { address: endpoint.address?, ports: port.map(|port| [port, port]) })
    };
    Flow {
        family: told.family,
        original,
        reply: reply(told, &original),
        status: Some(told.status.map_or(0, |[set, _]| set) | status::CONFIRMED),
        timeout: told.timeout,
        mark: told.mark.map(|[mark, _]| mark),
        zone: told.zone,
        id: told.id,
        protocol,
        labels: Some(told.add).filter(|labels| *labels != [0; 16]),
        source_nat: translation(told.source_nat),
        destination_nat: translation(told.destination_nat),
        ..Flow::default()
    }
}

/// The reply direction: what was not told of it is the original direction turned round.
fn reply(told: &Told, original: &Tuple) -> Tuple {
    Tuple {
        source: told.reply.source.or(original.destination),
        destination: told.reply.destination.or(original.source),
        protocol: original.protocol,
        source_port: told.reply.source_port.or(original.destination_port),
        destination_port: told.reply.destination_port.or(original.source_port),
        icmp_type: original.icmp_type.map(|kind| icmp_answer(told.family, kind)),
        zone: told.reply.zone,
        ..*original
    }
}

/// The type that answers an ICMP type; the type itself where nothing does, which the kernel then refuses.
fn icmp_answer(family: Option<Family>, kind: u8) -> u8 {
    match (family, kind) {
        (Some(Family::V6), 128) => 129,
        (Some(Family::V6), 129) => 128,
        (Some(Family::V6), 139) => 140,
        (Some(Family::V6), 140) => 139,
        (_, 0) => 8,
        (_, 8) => 0,
        (_, kind @ (13 | 15 | 17)) => kind + 1,
        (_, kind @ (14 | 16 | 18)) => kind - 1,
        (_, kind) => kind,
    }
}

/// The expectation as it is to be made or looked for.
fn expectation(command: Command, told: &Told) -> Expectation {
    let named = flow(told).original;
    let protocol = told.protocol;
    // What is looked for is named by its own tuple; what is made, by that of its master.
    let (master, expected, mask) = match command {
        Command::Create => (named, Tuple { protocol, ..told.tuple }, Tuple { protocol, ..told.mask }),
        _ => (Tuple::default(), named, Tuple::default()),
    };
    Expectation {
        family: told.family,
        master,
        expected,
        mask,
        timeout: told.timeout,
        zone: told.zone,
        flags: told.status.map(|_| 0),
        ..Expectation::default()
    }
}

#[cfg(test)]
mod tests {
    use super::parse;
    use crate::command::grammar::{COMMANDS, OPTIONS, of_protocol};
    use proptest::prelude::*;

    /// Words as people type them, and nonsense.
    fn word() -> impl Strategy<Value = String> {
        let protocols = [1_u8, 6, 17, 33, 47, 58, 132, 136];
        let options: Vec<String> = COMMANDS
            .iter()
            .chain(OPTIONS)
            .chain(protocols.into_iter().flat_map(of_protocol))
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
        fn any_words_are_understood_or_refused(words in prop::collection::vec(word(), 0..10)) {
            // A label option may read a file; nothing else is touched, and nothing panics.
            let _ = parse(&words);
        }
    }
}
