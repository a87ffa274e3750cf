//! IPv4 options beside the kernel: which are refused and with what error, and what is filled in.
use crate::kernel::Kernel;
use crate::rule_counters::{address, in_own_thread};
use crate::traffic::{TrafficRng, insert_ipv4_options, ip_packet, udp};
use crate::{hex, now, router_of};
use keepstate_router::Egress;

/// Random options, most of them nearly right.
fn options(dice: &mut TrafficRng) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..dice.pick(&[1, 1, 1, 2, 3]) {
        let kind = dice.pick(&[0, 1, 1, 7, 7, 68, 68, 68, 130, 131, 134, 136, 137, 148, 148, 25]);
        if kind < 2 {
            bytes.push(kind);
            continue;
        }
        let length = dice.pick(&[0, 1, 2, 3, 4, 4, 5, 7, 8, 8, 11, 12, 12, 15, 16]);
        let mut option = vec![kind, length];
        option.push(dice.pick(&[0, 3, 4, 4, 5, 5, 5, 6, 8, 9, 12, 13, 17]));
        option.push(dice.pick(&[0, 0, 1, 1, 3, 3, 2, 4, 15, 0xf0, 0xf1, 0xf3, 0x10]));
        option.extend(dice.pick(&[[10, 1, 0, 1], [192, 0, 2, 1], [198, 51, 100, 1], [0, 0, 0, 0]]));
        while option.len() < usize::from(length) {
            option.push(0);
        }
        option.truncate(usize::from(length.max(2)));
        bytes.extend(option);
    }
    bytes.truncate(40);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// Of an ICMP error only what it says: Linux repeats options in it. Of a forwarded packet all but timestamps.
fn summary(packet: &[u8], sent: &[u8]) -> String {
    let header = usize::from(packet[0] & 15) * 4;
    if packet[9] == 1 {
        return format!("ICMP {:?} {:?}", &packet[header..header + 2], &packet[header + 4..header + 8]);
    }
    let mut bytes = packet.to_vec();
    // Clocks are a moment apart, and with them the header's checksum.
    bytes[10..12].fill(0);
    for at in 20..header {
        let is_time = bytes[at.saturating_sub(3).max(20)..at].len() == 3 && sent.get(at) != bytes.get(at);
        if is_time && TIMES.iter().any(|kind| sent[20..header].contains(kind)) {
            bytes[at] = 0;
        }
    }
    hex(&bytes)
}

/// The timestamp option.
const TIMES: [u8; 1] = [68];

fn compare(seed: u64, packets: usize) -> bool {
    let rules = "table inet t { chain c { type filter hook forward priority 0; ct state new,established accept; }; }";
    let Some(mut kernel) = Kernel::new(rules) else { return false };
    let mut router = router_of(rules);
    let mut dice = TrafficRng::new(seed);
    let (mut wrong, mut forwarded) = (Vec::new(), 0);
    for number in 0..packets {
        let options = options(&mut dice);
        let message = udp(2000 + number as u16, 53, 1);
        let mut packet = ip_packet(false, address("10.1.0.2"), address("198.51.100.9"), 64, &message);
        insert_ipv4_options(&mut packet, &options);
        let result = router.handle(&packet, 1, now());
        let mut ours = Vec::new();
        while let Some(out) = router.poll_output() {
            if let Egress::Forward { packet: out, .. } = out {
                ours.push(summary(&out, &packet));
            }
        }
        let theirs: Vec<String> =
            kernel.handle(&packet, 0, ours.len()).iter().map(|(_, out)| summary(out, &packet)).collect();
        forwarded += usize::from(result.is_ok());
        // Linux cannot repeat some recorded routes in its error, and then sends none.
        let is_silent =
            theirs.is_empty() && result.is_err() && options.iter().any(|kind| [7, 68, 131, 137].contains(kind));
        if ours != theirs && !is_silent {
            wrong.push(format!("{options:?} ({result:?}):\n  Linux {theirs:?}\n  ours  {ours:?}"));
        }
    }
    assert!(
        wrong.is_empty(),
        "seed {seed}: {} of {packets} differ:\n{}",
        wrong.len(),
        wrong[..wrong.len().min(12)].join("\n")
    );
    assert!(forwarded > packets / 10 && forwarded < packets, "{forwarded} of {packets} were forwarded");
    true
}

#[test]
fn ipv4_options_are_checked_and_filled_in_as_in_linux() {
    in_own_thread(|| compare(1, 1500));
}
