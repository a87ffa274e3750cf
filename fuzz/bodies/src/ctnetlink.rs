//! Target `ctnetlink`: any octets as what the kernel told over netlink.

use keepstate_linux::ctnetlink::number::message;
use keepstate_linux::ctnetlink::{Event, Expectation, ExpectationStatistics, Family, Statistics, decode, encode};
use keepstate_linux::netlink::{Messages, Request};

/// Reads `data` as messages of every kind; a connection that was read can be written and is read the same again.
pub fn ctnetlink(data: &[u8]) {
    for message in Messages::new(data) {
        let Ok(message) = message else { return };
        let _ = Event::decode(&message);
        let _ = Statistics::decode(&message);
        let _ = ExpectationStatistics::decode(&message);
        if let Ok(Some(told)) = Expectation::decode(&message) {
            let mut request = Request::new(message::EXP_NEW, 0, told.family.map_or(0, Family::number));
            told.encode(&mut request);
            let again = first(request.octets(1), Expectation::decode);
            assert_eq!(again.map(|again| again.master), Some(told.master), "an expectation's master");
        }
        if let Ok(Some(flow)) = decode::flow(&message) {
            let mut request = Request::new(message::CT_NEW, 0, flow.family.map_or(0, Family::number));
            encode::flow(&mut request, &flow);
            assert_eq!(
                first(request.octets(1), decode::flow).as_ref(),
                Some(&flow),
                "what was read is written and read again"
            );
        }
    }
}

fn first<T, E: std::fmt::Debug>(
    octets: &[u8],
    decode: impl Fn(&keepstate_linux::netlink::Message<'_>) -> Result<Option<T>, E>,
) -> Option<T> {
    let message = Messages::new(octets).next().expect("a message").expect("a whole one");
    decode(&message).expect("what we wrote can be read")
}
