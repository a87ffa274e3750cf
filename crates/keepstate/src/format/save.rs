//! The arguments of `conntrack` that would make an entry again, as `conntrack -o save` prints them.
use super::text::Text;
use super::view::View;
use super::{Keys, protocol};
use keepstate_engine::{EventKind, ProtocolInfo, Status, Tuple, ZoneDirection};

/// The states one can give an entry, in the order they are printed.
const SETTABLE: &[(Status, &str)] = &[
    (Status::EXPECTED, "EXPECTED"),
    (Status::SEEN_REPLY, "SEEN_REPLY"),
    (Status::ASSURED, "ASSURED"),
    (Status::FIXED_TIMEOUT, "FIXED_TIMEOUT"),
    (Status::OFFLOAD, "OFFLOAD"),
    (Status::HW_OFFLOAD, "HW_OFFLOAD"),
];

/// Appends the line of an entry or event. The mark is not in it: conntrack leaves it out.
pub(super) fn push(text: &mut Text, view: &View<'_>) {
    let entry = view.entry;
    text.push(match view.kind() {
        None | Some(EventKind::New) => "-A ",
        Some(EventKind::Update) => "-U ",
        Some(EventKind::Destroy) => "-D ",
    });
    if let Some(timeout) = view.timeout() {
        option(text, "-t", timeout);
    }
    status(text, view);
    if entry.zone.id != 0 {
        let name = match entry.zone.direction {
            ZoneDirection::Both => "-w",
            ZoneDirection::Original => "--orig-zone",
            ZoneDirection::Reply => "--reply-zone",
        };
        option(text, name, entry.zone.id);
    }
    addresses(text, &entry.original, &entry.reply);
    let number = entry.original.protocol;
    match protocol(number).0 {
        Some(name) => text.push("-p ").push(name).push(" "),
        None => text.push("-p ").number(number).push(" "),
    };
    keys(text, &entry.original, &entry.reply);
    match entry.protocol {
        ProtocolInfo::Tcp { state, .. } => {
            text.push("--state ").push(state.name()).push(" ");
        }
        ProtocolInfo::Sctp { state, tags: [original, reply] } => {
            text.push("--state ").push(state.name()).push(" ");
            option(text, "--orig-vtag", original);
            option(text, "--reply-vtag", reply);
        }
        ProtocolInfo::Stateless => {}
    }
    text.end_line();
}

fn option(text: &mut Text, name: &str, value: impl itoa::Integer) {
    text.push(name).push(" ").number(value).push(" ");
}

fn status(text: &mut Text, view: &View<'_>) {
    let mut lead = "-u ";
    for (_, name) in SETTABLE.iter().filter(|(status, _)| view.has(*status)) {
        text.push(lead).push(name);
        lead = ",";
    }
    text.push(if lead == "," { " " } else { "-u UNSET " });
}

/// Where the answer's addresses are not the original's, the connection is translated, and the option says which way.
fn addresses(text: &mut Text, original: &Tuple, reply: &Tuple) {
    text.push("-s ").address(original.source).push(" -d ").address(original.destination);
    text.push(if reply.source == original.destination { " -r " } else { " -g " }).address(reply.source);
    text.push(if reply.destination == original.source { " -q " } else { " -n " }).address(reply.destination).push(" ");
}

fn keys(text: &mut Text, original: &Tuple, reply: &Tuple) {
    const DCCP: u8 = 33;
    match protocol(original.protocol).1 {
        // The kernel knows no ports of DCCP any more.
        _ if original.protocol == DCCP => {}
        Keys::Ports => {
            option(text, "--sport", original.source_key);
            option(text, "--dport", original.destination_key);
            option(text, "--reply-port-src", reply.source_key);
            option(text, "--reply-port-dst", reply.destination_key);
        }
        Keys::Gre => {
            option(text, "--srckey", original.source_key);
            option(text, "--dstkey", original.destination_key);
            option(text, "--reply-key-src", reply.source_key);
            option(text, "--reply-key-dst", reply.destination_key);
        }
        Keys::Icmp => {
            let [kind, code, id] = if original.protocol == 1 {
                ["--icmp-type", "--icmp-code", "--icmp-id"]
            } else {
                ["--icmpv6-type", "--icmpv6-code", "--icmpv6-id"]
            };
            option(text, kind, original.icmp_type());
            option(text, code, original.icmp_code());
            option(text, id, original.source_key);
        }
        Keys::None => {}
    }
}
