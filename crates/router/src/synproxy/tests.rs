use super::*;

const RULE: Synproxy = Synproxy { mss: Some(1460), wscale: Some(7), timestamp: true, sack: true };

/// A segment from port 4000 of one host to port 80 of another.
fn segment(seq: u32, ack: u32, flags: u8, options: &Options) -> Vec<u8> {
    let (from, to) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
    let sending = Sending { from: (from, 4000), to: (to, 80), seq, ack, flags, window: 1000, options: *options };
    crate::answer::segment(from, to, sending.octets()).unwrap()
}

fn read<T>(bytes: &[u8], what: impl FnOnce(&Packet<'_>, &Segment<'_>) -> T) -> T {
    let packet = Packet::parse(bytes).unwrap();
    let segment = Segment::parse(packet.transport(), packet.transport_len()).unwrap();
    what(&packet, &segment)
}

/// What the client is promised, and the SYN that comes of it when he acknowledges `more` later.
fn shaken(asked: &Options, rule: &Synproxy, more: u32, later: u64) -> (Sending, Option<Sending>) {
    let mut promiser = Promiser::new((1, 2));
    let now = Instant::from_secs(1_000_000);
    let promised = read(&segment(77, 0, Flags::SYN, asked), |packet, syn| promiser.answer(packet, syn, rule, now));
    let clocks = promised.options.clocks.map(|(value, _)| (5, value));
    let options = Options { clocks, ..Options::default() };
    let ack = segment(78, promised.seq.wrapping_add(1 + more), Flags::ACK, &options);
    let then = Instant::from_secs(1_000_000 + later);
    let syn = read(&ack, |packet, ack| promiser.believe(packet, ack, ack.seq.wrapping_sub(1), then));
    (promised, syn.map(|(syn, _)| syn))
}

#[test]
fn what_a_client_has_asked_for_comes_back_with_his_acknowledgement() {
    for (mss, size) in [(None, 536), (Some(500), 536), (Some(1400), 1300), (Some(1460), 1460), (Some(9000), 1460)] {
        for (scale, sack) in [(None, false), (Some(0), true), (Some(14), false), (Some(7), true)] {
            let asked = Options { mss, scale, sack, clocks: Some((99, 0)) };
            let (promised, syn) = shaken(&asked, &RULE, 0, 0);
            assert_eq!(promised.options.scale, scale.map(|_| 7));
            assert_eq!((promised.options.sack, promised.options.mss), (sack, mss.map(|_| 1460)));
            let syn = syn.unwrap();
            assert_eq!((syn.options.mss, syn.options.scale, syn.options.sack), (Some(size), scale, sack));
            assert_eq!((syn.seq, syn.flags, syn.window), (77, Flags::SYN, 1000));
        }
    }
}

#[test]
fn nothing_is_promised_that_could_not_be_kept() {
    let asked = Options { mss: Some(1460), scale: Some(7), sack: true, clocks: None };
    let (promised, syn) = shaken(&asked, &RULE, 0, 0);
    assert_eq!(promised.options, Options { mss: Some(1460), ..Options::default() });
    assert_eq!(syn.unwrap().options, Options { mss: Some(1460), ..Options::default() });
    let asked = Options { clocks: Some((1, 0)), ..asked };
    let (promised, _) = shaken(&asked, &Synproxy::default(), 0, 0);
    assert_eq!(promised.options, Options::default());
}

#[test]
fn only_what_was_promised_and_only_for_a_while_is_believed() {
    let asked = Options { mss: Some(1460), ..Options::default() };
    for seconds in [0, 63, 64, 128] {
        assert!(shaken(&asked, &RULE, 0, seconds).1.is_some(), "{seconds} s");
    }
    assert!(shaken(&asked, &RULE, 0, 200).1.is_none());
    let believed = (1..20_000).filter(|more| shaken(&asked, &RULE, *more, 0).1.is_some()).count();
    assert_eq!(believed, 0);
}

#[test]
fn options_are_written_as_they_are_read() {
    for number in 0..32_u8 {
        let options = Options {
            mss: (number & 1 != 0).then_some(1300),
            scale: (number & 2 != 0).then_some(9),
            sack: number & 4 != 0,
            clocks: (number & 8 != 0).then_some((7, 8)),
        };
        let octets = segment(1, 2, Flags::SYN, &options);
        assert_eq!(read(&octets, |_, segment| Options::of(segment)), options);
        assert!(Packet::parse(&octets).unwrap().transport_checksum_ok());
    }
}
