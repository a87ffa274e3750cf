use crate::{SctpState, Status, TcpState, UnknownName};
extern crate std;
use std::string::ToString;

#[test]
fn states_are_found_by_number_and_by_name() {
    for (number, state) in TcpState::ALL.iter().enumerate() {
        assert_eq!(usize::from(state.number()), number);
        assert_eq!(TcpState::from_number(state.number()), Some(*state));
        assert_eq!(state.to_string().parse(), Ok(*state));
    }
    for (number, state) in SctpState::ALL.iter().enumerate() {
        assert_eq!(usize::from(state.number()), number);
        assert_eq!(SctpState::from_number(state.number()), Some(*state));
        assert_eq!(state.to_string().parse(), Ok(*state));
    }
    assert_eq!((TcpState::from_number(10), SctpState::from_number(9)), (None, None));
    assert_eq!("LISTEN".parse::<TcpState>(), Err(UnknownName));
}

#[test]
fn status_bits_have_the_kernels_numbers() {
    let expected = [
        ("EXPECTED", 0),
        ("SEEN_REPLY", 1),
        ("ASSURED", 2),
        ("CONFIRMED", 3),
        ("SRC_NAT", 4),
        ("DST_NAT", 5),
        ("SEQ_ADJUST", 6),
        ("SRC_NAT_DONE", 7),
        ("DST_NAT_DONE", 8),
        ("DYING", 9),
        ("FIXED_TIMEOUT", 10),
        ("TEMPLATE", 11),
        ("NAT_CLASH", 12),
        ("HELPER", 13),
        ("OFFLOAD", 14),
        ("HW_OFFLOAD", 15),
    ];
    let named = Status::all().iter_names().map(|(name, bit)| (name, bit.bits().trailing_zeros()));
    assert!(named.eq(expected));
}

#[test]
fn status_is_shown_and_parsed_by_name() {
    let status = Status::SEEN_REPLY | Status::ASSURED;
    assert_eq!((status.to_string().as_str(), "SEEN_REPLY|ASSURED".parse()), ("SEEN_REPLY|ASSURED", Ok(status)));
    assert_eq!((Status::empty().to_string().as_str(), "-".parse()), ("-", Ok(Status::empty())));
    assert_eq!(Status::from_bits_retain(0x1_0008).to_string(), "CONFIRMED|0x10000");
    assert_eq!("CONFIRMED|NEVER".parse::<Status>(), Err(UnknownName));
}
