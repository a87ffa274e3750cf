//! `-h`: the usage text.
use super::error::ConntrackError;
use super::grammar::protocol_options;
use super::output::stdout_file;
use std::io::Write;

/// Prints the help, and the options of a protocol if one was given.
pub(super) fn print_help(protocol: Option<u8>) -> Result<(), ConntrackError> {
    let mut text = HELP_TEXT.to_owned();
    if let Some(number) = protocol {
        text.push_str(&format!("\nOptions of protocol {number}, after its -p:\n"));
        for spec in protocol_options(number) {
            let names: Vec<String> = spec.long.iter().map(|name| format!("--{name}")).collect();
            text.push_str(&format!("  {}\n", names.join(", ")));
        }
    }
    Ok(stdout_file()?.write_all(text.as_bytes())?)
}

/// What `-h` prints, without the options of a protocol.
pub const HELP_TEXT: &str = "\
Linux's connection table: list, count, watch, add, change, delete. Same command line as conntrack.
Usage: conntrack COMMAND [TABLE] [OPTIONS]

Commands:
  -L, --dump [TABLE]      list connections, or expectations
  -G, --get [TABLE]       show the one with these addresses and ports
  -D, --delete [TABLE]    delete those that match, and show them
  -I, --create [TABLE]    create one; an error if it exists
  -A, --add               create one, unless it exists
  -U, --update            change those that match, and show them
  -E, --event [TABLE]     show events until Ctrl-C
  -F, --flush [TABLE]     delete all
  -C, --count [TABLE]     number of entries
  -S, --stats             counters of each CPU
  -R, --load-file FILE    execute the commands in a file (- is standard input)
  -V, --version  -h, --help

Tables: conntrack (the default), expect, dying, unconfirmed

Filters:
  -s, --src, --orig-src IP[/LEN]    source                  -r, --reply-src IP   source of the reply
  -d, --dst, --orig-dst IP[/LEN]    destination             -q, --reply-dst IP   its destination
      --mask-src IP, --mask-dst IP  masks for --src and --dst
  -p, --protonum PROTO              tcp, udp, udplite, sctp, icmp, icmpv6, gre or a number; then:
      --sport, --dport PORT, --reply-port-src, --reply-port-dst PORT, --state STATE,
      --icmp-type N, ...
      (conntrack -h -p PROTO lists them)
  -f, --family ipv4|ipv6            address family
  -u, --status LIST                 ASSURED, SEEN_REPLY, FIXED_TIMEOUT, EXPECTED, OFFLOAD, UNSET;
                                    UNREPLIED (filter only)
  -m, --mark MARK[/MASK]            mark
  -l, --label LABEL[,...]           labels, by their names in /etc/xtables/connlabel.conf
  -w, --zone N, --orig-zone N, --reply-zone N
  -n, --src-nat [IP[:PORT]]         source NAT
  -g, --dst-nat [IP[:PORT]]         destination NAT
  -j, --any-nat [IP[:PORT]]         source or destination NAT
  -i, --id ID                       id (-D, -U)

Values to set (-I, -A, -U): -t, --timeout SECONDS  -m MARK[/MASK]  -u LIST  --state STATE
  --label-add LABEL  --label-del [LABEL] (-U)

Output:
  -o, --output LIST       extended, id, timestamp, ktimestamp, labels, userspace; xml, save or json
  -e, --event-mask LIST   ALL, NEW, UPDATES, DESTROY
  -z, --zero              zero the counters of the listed entries
  -b, --buffer-size N     event socket buffer in bytes; default: grows as needed

Other tables:
  --gateway[=PATH]        a keepstate gateway's, by its control socket; or KEEPSTATE_GATEWAY=PATH
  --fleet[=FILE]          with -L: those of all nodes of a fleet; FILE: /etc/keepstate/fleet.toml

Expectations (-I expect): --tuple-src IP --tuple-dst IP --mask-src IP --mask-dst IP, with
  --tuple-port-src, --tuple-port-dst, --mask-port-src, --mask-port-dst

Examples:
  conntrack -L -p tcp --dport 1883 --state ESTABLISHED
  conntrack -D -s 192.0.2.7
  conntrack -E -e NEW,DESTROY -o timestamp,id
  conntrack -L -o json | jq '.[].original.source'
  conntrack -L -w 11 -o save | sed 's/-w 11/-w 12/' | conntrack -R -

Exit codes: 0 done, 1 failed (or nothing to delete or update), 2 usage error
";
