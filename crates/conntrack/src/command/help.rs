//! `-h`: what there is to type.
use super::error::ConntrackError;
use super::grammar::protocol_options;
use super::stdout_file;
use std::io::Write;

/// Prints the help; with the options of a protocol, if one was named.
pub(super) fn print_help(protocol: Option<u8>) -> Result<(), ConntrackError> {
    let mut text = HELP_TEXT.to_owned();
    if let Some(number) = protocol {
        text.push_str(&format!("\nOptions of protocol {number}, behind its -p:\n"));
        for spec in protocol_options(number) {
            let names: Vec<String> = spec.long.iter().map(|name| format!("--{name}")).collect();
            text.push_str(&format!("  {}\n", names.join(", ")));
        }
    }
    Ok(stdout_file()?.write_all(text.as_bytes())?)
}

/// What `-h` prints, without the options of a protocol.
pub const HELP_TEXT: &str = "\
Linux's connection table: list, count, watch, add, change, delete. The command line is conntrack's.
Usage: conntrack COMMAND [TABLE] [OPTIONS]

Commands:
  -L, --dump [TABLE]      list connections, or expectations
  -G, --get [TABLE]       show the one that is named by addresses and ports
  -D, --delete [TABLE]    delete those that fit, and show them
  -I, --create [TABLE]    make one; it may not be there yet
  -A, --add               make one, if it is not there yet
  -U, --update            change those that fit, and show them
  -E, --event [TABLE]     show what happens, until Ctrl-C
  -F, --flush [TABLE]     delete all
  -C, --count [TABLE]     how many there are
  -S, --stats             what each processor counted
  -R, --load-file FILE    carry out the commands of a file (- is standard input)
  -V, --version  -h, --help

Tables: conntrack (the default), expect, dying, unconfirmed

Which connections:
  -s, --src, --orig-src IP[/LEN]    from this source        -r, --reply-src IP   answered from there
  -d, --dst, --orig-dst IP[/LEN]    to this destination     -q, --reply-dst IP   answered to there
      --mask-src IP, --mask-dst IP  masks of those addresses
  -p, --protonum PROTO              tcp, udp, udplite, sctp, icmp, icmpv6, gre, a number; then also
      --sport, --dport PORT, --reply-port-src, --reply-port-dst PORT, --state STATE,
      --icmp-type N, ...
      (conntrack -h -p PROTO lists them)
  -f, --family ipv4|ipv6            of this family
  -u, --status LIST                 ASSURED, SEEN_REPLY, FIXED_TIMEOUT, EXPECTED, OFFLOAD, UNSET;
                                    UNREPLIED to filter
  -m, --mark MARK[/MASK]            with this mark
  -l, --label LABEL[,...]           with these labels, as /etc/xtables/connlabel.conf names them
  -w, --zone N, --orig-zone N, --reply-zone N
  -n, --src-nat [IP[:PORT]]         whose source is translated
  -g, --dst-nat [IP[:PORT]]         whose destination is translated
  -j, --any-nat [IP[:PORT]]         either
  -i, --id ID                       with this id (-D, -U)

What to set (-I, -A, -U): -t, --timeout SECONDS  -m MARK[/MASK]  -u LIST  --state STATE
  --label-add LABEL  --label-del [LABEL] (-U)

Output:
  -o, --output LIST       extended, id, timestamp, ktimestamp, labels, userspace; xml, save or json
  -e, --event-mask LIST   ALL, NEW, UPDATES, DESTROY
  -z, --zero              zero the counters of what is listed
  -b, --buffer-size N     of the event socket, in octets; otherwise it grows by itself

Whose table:
  --gateway[=PATH]        a keepstate gateway's, by its socket; or KEEPSTATE_GATEWAY=PATH

Expectations (-I expect): --tuple-src IP --tuple-dst IP --mask-src IP --mask-dst IP, with
  --tuple-port-src, --tuple-port-dst, --mask-port-src, --mask-port-dst

Examples:
  conntrack -L -p tcp --dport 1883 --state ESTABLISHED
  conntrack -D -s 192.0.2.7
  conntrack -E -e NEW,DESTROY -o timestamp,id
  conntrack -L -o json | jq '.[].original.source'
  conntrack -L -w 11 -o save | sed 's/-w 11/-w 12/' | conntrack -R -

Exit codes: 0 done, 1 failed (or nothing to delete or update), 2 wrongly asked
";
