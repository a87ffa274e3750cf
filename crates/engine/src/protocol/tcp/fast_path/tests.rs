//! The fast path and the full path give the same result for every ordinary segment.
use super::*;
use crate::protocol::tcp::{OtherFields, Side, Windows};
use crate::protocol::{TrackCtx, TrackResult};
use crate::{Status, Sysctls};
use keepstate_wire::tcp::TcpFlags;
use proptest::prelude::*;

/// Numbers close to each other, so that every inequality is tested from both sides.
fn near_boundary() -> impl Strategy<Value = u32> {
    prop_oneof![Just(0u32), 1u32..3, 60_000u32..70_000, 0u32..2000, (0u32..3000).prop_map(u32::wrapping_neg)]
}

fn side(base: u32) -> impl Strategy<Value = Side> {
    (near_boundary(), near_boundary(), prop_oneof![Just(0u32), 1u32..100_000], near_boundary()).prop_map(
        move |(end, max_end, max_window, max_ack)| Side {
            end: Seq(base.wrapping_add(end)),
            max_end: Seq(base.wrapping_add(max_end)),
            max_window,
            max_ack: Seq(base.wrapping_add(max_ack)),
        },
    )
}

prop_compose! {
    fn connection(base: u32)(
        sides in [side(base), side(base)], last_end in near_boundary(), last_hash in any::<u32>(), state in 0u8..10, class in 0u8..6,
        flags in any::<[u8; 2]>(), scales in any::<u8>(), retrans in any::<u8>(),
    ) -> Tcp {
        let windows = Windows { sides, last_end: Seq(base.wrapping_add(last_end)), last_hash };
        Tcp { other_fields: OtherFields::default(), windows, state: state | class << 4, flags, scales, retrans }
    }
}

const OPTIONS: [&[u8]; 4] =
    [&[], &[1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2], &[1, 1, 5, 10, 0, 0, 1, 0, 0, 0, 2, 0], &[3, 3, 7, 0]];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]
    #[test]
    fn fast_path_equals_slow_path(
        before in connection(5_000), seq in near_boundary(), ack in near_boundary(), flags in any::<u8>(), window in any::<u16>(),
        data_len in 0usize..1500, options in 0usize..4, reply in any::<bool>(), liberal in 0u64..2, again in any::<bool>(),
        max_retrans in 0u64..3, timeouts in proptest::collection::vec(0u64..400, 3),
    ) {
        let mut sysctls = Sysctls::default();
        sysctls.set(Sysctl::TcpBeLiberal, liberal).unwrap();
        sysctls.set(Sysctl::TcpMaxRetrans, max_retrans).unwrap();
        let names = [Sysctl::TcpTimeoutEstablished, Sysctl::TcpTimeoutMaxRetrans, Sysctl::TcpTimeoutUnacknowledged];
        for (sysctl, value) in names.into_iter().zip(timeouts) {
            sysctls.set(sysctl, value).unwrap();
        }
        let direction = if reply { Direction::Reply } else { Direction::Original };
        let segment = TcpSegment {
            options_cut: false,
            source: 1, destination: 2, seq: 5_000u32.wrapping_add(seq), ack: 5_000u32.wrapping_add(ack), flags: TcpFlags(flags), window,
            data_len, options: OPTIONS[options], data: &[],
        };
        let context = TrackCtx {
            sysctls: &sysctls, status: Status::SEEN_REPLY | Status::ASSURED | Status::CONFIRMED, now: 0, remaining_ticks: 1_000_000, secret: (3, 5), ack_offset: 0,
        };
        let mut before = before;
        if again {
            before.windows.last_end = Seq(segment.seq).plus(data_len as u32);
            before.windows.last_hash = segment_hash(&segment, (3, 5));
            before.set_flag(ConnFlag::LastWasReply, reply);
        }
        let mut short = before;
        let taken = short.track_established(&segment, direction, (&FastPathTimeouts::from(&sysctls), &sysctls), (3, 5));
        let mut long = before;
        let result = long.track_packet(&segment, direction, &context, &mut None);
        match taken {
            Some(timeout) => {
                prop_assert_eq!(result, TrackResult::Pass { timeout, changed: false, assured: false });
                prop_assert_eq!(short, long);
            }
            None => prop_assert_eq!(short, before),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(5_000))]
    #[test]
    fn plain_syn_at_once_equals_first_packet_and_tracking(
        seq in near_boundary(), ack in near_boundary(), flags in any::<u8>(), window in prop_oneof![Just(0), Just(1), any::<u16>()],
        data_len in prop_oneof![Just(0), 0usize..65_000], options in 0usize..6, options_cut in any::<bool>(),
        timeouts in proptest::collection::vec(0u64..400, 4), max_retrans in 0u64..3,
    ) {
        const SYN_OPTIONS: [&[u8]; 2] = [&[2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7], &[4, 2, 3, 3, 15, 1, 1, 1]];
        let mut sysctls = Sysctls::default();
        let names = [Sysctl::TcpTimeoutSynSent, Sysctl::TcpTimeoutMaxRetrans, Sysctl::TcpTimeoutUnacknowledged, Sysctl::TcpTimeoutClose];
        for (sysctl, value) in names.into_iter().zip(timeouts) {
            sysctls.set(sysctl, value).unwrap();
        }
        sysctls.set(Sysctl::TcpMaxRetrans, max_retrans).unwrap();
        // One in two is a SYN.
        let flags = if flags & 1 != 0 { flags & !0x15 | TcpFlags::SYN } else { flags };
        let segment = TcpSegment {
            source: 1, destination: 2, seq, ack, flags: TcpFlags(flags), window, data_len,
            options: OPTIONS.iter().chain(&SYN_OPTIONS).nth(options).unwrap(), options_cut, data: &[],
        };
        let context = TrackCtx { sysctls: &sysctls, status: Status::default(), now: 0, remaining_ticks: 0, secret: (3, 5), ack_offset: 0 };
        if let Some((tcp, timeout)) = Tcp::from_plain_syn(&segment, &sysctls) {
            let mut full = Tcp::from_first_packet(&segment, &sysctls).unwrap();
            let result = full.track_packet(&segment, Direction::Original, &context, &mut None);
            prop_assert_eq!(result, TrackResult::Pass { timeout, changed: true, assured: false });
            prop_assert_eq!(tcp, full);
        } else {
            prop_assert_ne!(flags & 0x17, TcpFlags::SYN);
        }
    }
}

#[test]
fn plain_ack_takes_the_fast_path() {
    let side = Side { end: Seq(100), max_end: Seq(5000), max_window: 4000, max_ack: Seq(100) };
    let windows = Windows { sides: [side; 2], last_end: Seq(0), last_hash: 0 };
    let mut tcp = Tcp {
        other_fields: OtherFields::default(),
        windows,
        state: TcpState::Established as u8,
        flags: [0; 2],
        scales: 0,
        retrans: 0,
    };
    let segment = TcpSegment {
        source: 1,
        destination: 2,
        seq: 100,
        ack: 100,
        flags: TcpFlags(TcpFlags::ACK | TcpFlags::PSH),
        window: 500,
        data_len: 10,
        options: &[],

        options_cut: false,
        data: &[],
    };
    let sysctls = Sysctls::default();
    let timeout =
        tcp.track_established(&segment, Direction::Original, (&FastPathTimeouts::from(&sysctls), &sysctls), (3, 5));
    assert_eq!(timeout, Some(crate::protocol::seconds_to_ticks(300)));
}
