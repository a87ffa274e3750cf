//! Target `ctnetlink`: any bytes as netlink messages of the kernel.

use keepstate_linux::ctnetlink::consts::message;
use keepstate_linux::ctnetlink::{CtCpuStats, CtEvent, CtExpectCpuStats, CtExpectation, CtFamily, decode, encode};
use keepstate_linux::netlink::{NlMessages, NlRequest};

/// Parses `data` as messages of every kind; a parsed connection must survive encoding and parsing.
pub fn ctnetlink(data: &[u8]) {
    for message in NlMessages::new(data) {
        let Ok(message) = message else { return };
        let _ = CtEvent::decode(&message);
        let _ = CtCpuStats::decode(&message);
        let _ = CtExpectCpuStats::decode(&message);
        if let Ok(Some(expectation)) = CtExpectation::decode(&message) {
            let mut request = NlRequest::new(message::EXP_NEW, 0, expectation.family.map_or(0, CtFamily::number));
            expectation.encode(&mut request);
            let again = decode_first(request.finish(1), CtExpectation::decode);
            assert_eq!(again.map(|again| again.master), Some(expectation.master), "an expectation's master");
        }
        if let Ok(Some(flow)) = decode::flow(&message) {
            let mut request = NlRequest::new(message::CT_NEW, 0, flow.family.map_or(0, CtFamily::number));
            encode::flow(&mut request, &flow);
            assert_eq!(
                decode_first(request.finish(1), decode::flow).as_ref(),
                Some(&flow),
                "what was read is written and read again"
            );
        }
    }
}

fn decode_first<T, E: std::fmt::Debug>(
    bytes: &[u8],
    decode: impl Fn(&keepstate_linux::netlink::NlMessage<'_>) -> Result<Option<T>, E>,
) -> Option<T> {
    let message = NlMessages::new(bytes).next().expect("a message").expect("a whole one");
    decode(&message).expect("what we wrote can be read")
}
