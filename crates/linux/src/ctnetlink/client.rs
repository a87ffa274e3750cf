//! Requests to the connection table: list, get, create, update, delete.
//!
//! A [`CtClient`] is opened in the calling thread's network namespace and bound to it. Each call is one exchange with the
//! kernel; it caches nothing.
use super::consts::{cta, message, stats_global};
use super::{CtCpuStats, CtExpectCpuStats, CtExpectation, CtFlow, CtProtoInfo, CtTcpInfo, DumpFilter, decode, encode};
use crate::netlink::message::flag;
use crate::netlink::{MalformedNetlink, NetlinkError, NetlinkSocket, NlAttrs, NlMessage, NlMessages, NlRequest};
use std::io;
use std::ops::ControlFlow;

/// A client of the connection table.
#[derive(Debug)]
pub struct CtClient {
    socket: NetlinkSocket,
}

/// Which connections are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CtDumpKind {
    /// Those in the table.
    Confirmed,
    /// Those in the table, and their counters are zeroed.
    ConfirmedAndZero,
    /// Those that have ended but are still referenced.
    Dying,
    /// Those that are not in the table yet.
    Unconfirmed,
}

impl CtDumpKind {
    fn message(self) -> u16 {
        match self {
            CtDumpKind::Confirmed => message::CT_GET,
            CtDumpKind::ConfirmedAndZero => message::CT_GET_CTRZERO,
            CtDumpKind::Dying => message::CT_GET_DYING,
            CtDumpKind::Unconfirmed => message::CT_GET_UNCONFIRMED,
        }
    }
}

impl CtClient {
    /// Opens the table of this thread's network namespace.
    ///
    /// # Errors
    /// The system's error: "protocol not supported" without ctnetlink.
    pub fn open() -> io::Result<CtClient> {
        Ok(CtClient { socket: NetlinkSocket::open_netfilter()? })
    }

    /// A client over this socket: of a running gateway.
    pub fn from_socket(socket: NetlinkSocket) -> CtClient {
        CtClient { socket }
    }

    /// Passes every matching connection to `each`, until it breaks; then the client must not be used again.
    ///
    /// # Errors
    /// The kernel's error: EPERM without CAP_NET_ADMIN.
    pub fn dump(
        &mut self,
        listing: CtDumpKind,
        restriction: &DumpFilter,
        mut each: impl FnMut(&CtFlow) -> ControlFlow<()>,
    ) -> Result<(), NetlinkError> {
        let mut flow = CtFlow::default();
        self.dump_chunks(listing, restriction, |piece| for_each_flow(piece, &mut flow, &mut each))
    }

    /// As [`dump`](Self::dump), but passes the undecoded bytes of each read: [`for_each_flow`] decodes them, possibly on another thread.
    ///
    /// # Errors
    /// As [`dump`](Self::dump).
    pub fn dump_chunks(
        &mut self,
        listing: CtDumpKind,
        restriction: &DumpFilter,
        each: impl FnMut(&[u8]) -> Result<ControlFlow<()>, NetlinkError>,
    ) -> Result<(), NetlinkError> {
        let mut request = NlRequest::new(listing.message(), flag::DUMP, restriction.family_number());
        restriction.encode(&mut request);
        self.socket.dump_chunks(&mut request, each)
    }

    /// The connection with these tuples.
    ///
    /// # Errors
    /// The kernel's error: ENOENT if there is none.
    pub fn get(&mut self, flow: &CtFlow) -> Result<Option<CtFlow>, NetlinkError> {
        let mut request = NlRequest::new(message::CT_GET, flag::ACK, family(flow));
        encode::tuples(&mut request, flow);
        let mut found = None;
        let mut malformed = Ok(());
        self.socket.dump(&mut request, |message| {
            match decode::flow(&message) {
                Ok(Some(flow)) => found = Some(flow),
                Ok(None) => (),
                Err(error) => malformed = Err(error),
            }
            ControlFlow::Continue(())
        })?;
        malformed?;
        Ok(found)
    }

    /// Creates a connection.
    ///
    /// The kernel takes a window scale only where both directions have the flag for it. Where they have not (one side's SYN was seen),
    /// the connection is created with the flags, which are taken from it again.
    ///
    /// # Errors
    /// The kernel's error: EEXIST if it exists.
    pub fn create(&mut self, flow: &CtFlow) -> Result<(), NetlinkError> {
        let Some(both) = with_both_scales(&flow.protoinfo) else {
            return self.send_flow(message::CT_NEW, flag::CREATE | flag::EXCLUSIVE, flow);
        };
        let scaled = CtFlow { protoinfo: both, ..flow.clone() };
        self.send_flow(message::CT_NEW, flag::CREATE | flag::EXCLUSIVE, &scaled)?;
        let CtFlow { family, original, reply, zone, protoinfo, .. } = *flow;
        self.update(&CtFlow {
            family,
            original,
            reply,
            zone,
            protoinfo: without_scales(protoinfo),
            ..CtFlow::default()
        })
    }

    /// Updates a connection with the fields that are set.
    ///
    /// # Errors
    /// The kernel's error: ENOENT if there is none.
    pub fn update(&mut self, flow: &CtFlow) -> Result<(), NetlinkError> {
        self.send_flow(message::CT_NEW, 0, flow)
    }

    /// Creates a connection, or updates it if it exists.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn create_or_update(&mut self, flow: &CtFlow) -> Result<(), NetlinkError> {
        self.send_flow(message::CT_NEW, flag::CREATE, flow)
    }

    /// Deletes the connection with these tuples, and with this id if it is set.
    ///
    /// # Errors
    /// The kernel's error: ENOENT if there is none.
    pub fn delete(&mut self, flow: &CtFlow) -> Result<(), NetlinkError> {
        self.socket.request(&mut delete_request(flow))
    }

    /// Deletes many connections; passes the index and the result (0 or an errno) of each.
    ///
    /// # Errors
    /// The socket's error.
    pub fn delete_batch(&mut self, flows: &[CtFlow], each: impl FnMut(usize, i32)) -> Result<(), NetlinkError> {
        let mut requests: Vec<NlRequest> = flows.iter().map(delete_request).collect();
        self.socket.request_batch(&mut requests, each)
    }

    /// Deletes every matching connection.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn flush(&mut self, restriction: &DumpFilter) -> Result<(), NetlinkError> {
        let mut request = NlRequest::new(message::CT_DELETE, flag::ACK, restriction.family_number()).version(1);
        restriction.encode(&mut request);
        self.socket.request(&mut request)
    }

    /// The number of connections, confirmed or not; and the limit, from Linux 5.11 on.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn count(&mut self) -> Result<(u32, Option<u32>), NetlinkError> {
        let mut request = NlRequest::new(message::CT_GET_STATS, flag::ACK, 0);
        let mut decoded: Result<(u32, Option<u32>), MalformedNetlink> = Ok((0, None));
        self.socket.dump(&mut request, |message| {
            if let Err(error) = decode_count(&message, &mut decoded) {
                decoded = Err(error);
            }
            ControlFlow::Continue(())
        })?;
        Ok(decoded?)
    }

    /// The statistics of each CPU.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn cpu_stats(&mut self) -> Result<Vec<CtCpuStats>, NetlinkError> {
        self.dump_all(message::CT_GET_STATS_CPU, 0, CtCpuStats::decode)
    }

    /// The expectation statistics of each CPU.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn expect_cpu_stats(&mut self) -> Result<Vec<CtExpectCpuStats>, NetlinkError> {
        self.dump_all(message::EXP_GET_STATS_CPU, 0, CtExpectCpuStats::decode)
    }

    /// Every expectation of a family (0: of any).
    ///
    /// # Errors
    /// The kernel's error.
    pub fn dump_expectations(&mut self, family: u8) -> Result<Vec<CtExpectation>, NetlinkError> {
        self.dump_all(message::EXP_GET, family, CtExpectation::decode)
    }

    /// The expectation of this tuple.
    ///
    /// # Errors
    /// The kernel's error: ENOENT if there is none.
    pub fn get_expectation(&mut self, wanted: &CtExpectation) -> Result<Vec<CtExpectation>, NetlinkError> {
        let mut request = NlRequest::new(message::EXP_GET, flag::ACK, expectation_family(wanted));
        wanted.encode(&mut request);
        self.collect_replies(&mut request, CtExpectation::decode)
    }

    /// Creates an expectation.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn create_expectation(&mut self, expectation: &CtExpectation) -> Result<(), NetlinkError> {
        let flags = flag::ACK | flag::CREATE | flag::EXCLUSIVE;
        let mut request = NlRequest::new(message::EXP_NEW, flags, expectation_family(expectation));
        expectation.encode(&mut request);
        self.socket.request(&mut request)
    }

    /// Deletes an expectation.
    ///
    /// # Errors
    /// The kernel's error: ENOENT if there is none.
    pub fn delete_expectation(&mut self, expectation: &CtExpectation) -> Result<(), NetlinkError> {
        let mut request = NlRequest::new(message::EXP_DELETE, flag::ACK, expectation_family(expectation));
        expectation.encode(&mut request);
        self.socket.request(&mut request)
    }

    /// Deletes every expectation.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn flush_expectations(&mut self, family: u8) -> Result<(), NetlinkError> {
        self.socket.request(&mut NlRequest::new(message::EXP_DELETE, flag::ACK, family))
    }

    /// The underlying socket.
    pub fn socket(&mut self) -> &mut NetlinkSocket {
        &mut self.socket
    }

    fn send_flow(&mut self, kind: u16, flags: u16, flow: &CtFlow) -> Result<(), NetlinkError> {
        let mut request = NlRequest::new(kind, flags | flag::ACK, family(flow));
        encode::flow(&mut request, flow);
        self.socket.request(&mut request)
    }

    fn dump_all<T>(
        &mut self,
        kind: u16,
        family: u8,
        decode: impl Fn(&NlMessage<'_>) -> Result<Option<T>, MalformedNetlink>,
    ) -> Result<Vec<T>, NetlinkError> {
        self.collect_replies(&mut NlRequest::new(kind, flag::DUMP, family), decode)
    }

    fn collect_replies<T>(
        &mut self,
        request: &mut NlRequest,
        decode: impl Fn(&NlMessage<'_>) -> Result<Option<T>, MalformedNetlink>,
    ) -> Result<Vec<T>, NetlinkError> {
        let mut decoded = Vec::new();
        let mut malformed = Ok(());
        self.socket.dump(request, |message| {
            match decode(&message) {
                Ok(one) => decoded.extend(one),
                Err(error) => malformed = Err(error),
            }
            ControlFlow::Continue(())
        })?;
        malformed?;
        Ok(decoded)
    }
}

/// Passes each connection in the bytes of one read to `each`; `flow` is the buffer they are decoded into.
///
/// # Errors
/// A malformed message.
pub fn for_each_flow(
    piece: &[u8],
    flow: &mut CtFlow,
    each: &mut impl FnMut(&CtFlow) -> ControlFlow<()>,
) -> Result<ControlFlow<()>, NetlinkError> {
    for message in NlMessages::new(piece) {
        if decode::flow_into(&message?, flow)? && each(flow).is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
}

/// `IP_CT_TCP_FLAG_WINDOW_SCALE`: this side's SYN had a window scale.
const WINDOW_SCALE: u8 = 0x01;

/// TCP's state with the flag for the window scale in both directions, if one has a scale and both have not the flag.
fn with_both_scales(protocol: &CtProtoInfo) -> Option<CtProtoInfo> {
    let CtProtoInfo::Tcp(info) = protocol else { return None };
    let is_set = |flags: &Option<[u8; 2]>| flags.is_some_and(|[value, mask]| value & mask & WINDOW_SCALE != 0);
    let is_scaled = info.wscale.iter().all(Option::is_some) && info.wscale != [Some(0); 2];
    (is_scaled && !info.flags.iter().all(is_set)).then(|| {
        let flags = info.flags.map(|flags| {
            let [value, mask] = flags.unwrap_or_default();
            Some([value | WINDOW_SCALE, mask | WINDOW_SCALE])
        });
        CtProtoInfo::Tcp(CtTcpInfo { flags, ..*info })
    })
}

/// TCP's state as it was told, and the flags for the window scale taken away where they were not.
fn without_scales(protocol: CtProtoInfo) -> CtProtoInfo {
    let CtProtoInfo::Tcp(info) = protocol else { return protocol };
    let flags = info.flags.map(|flags| {
        let [value, mask] = flags.unwrap_or_default();
        Some([value & mask, mask | WINDOW_SCALE])
    });
    CtProtoInfo::Tcp(CtTcpInfo { flags, wscale: [None; 2], ..info })
}

fn family(flow: &CtFlow) -> u8 {
    flow.family.map_or(0, super::CtFamily::number)
}

fn expectation_family(expectation: &CtExpectation) -> u8 {
    expectation.family.map_or(0, super::CtFamily::number)
}

/// The request that deletes a connection.
fn delete_request(flow: &CtFlow) -> NlRequest {
    let mut request = NlRequest::new(message::CT_DELETE, flag::ACK, family(flow));
    encode::tuples(&mut request, flow);
    if let Some(id) = flow.id {
        request.push(cta::ID, &id.to_be_bytes());
    }
    request
}

fn decode_count(
    message: &NlMessage<'_>,
    decoded: &mut Result<(u32, Option<u32>), MalformedNetlink>,
) -> Result<(), MalformedNetlink> {
    let Ok((entries, limit)) = decoded else { return Ok(()) };
    let attributes: NlAttrs<'_> = message.attributes();
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            stats_global::ENTRIES => *entries = attribute.be32("CTA_STATS_GLOBAL_ENTRIES")?,
            stats_global::MAX_ENTRIES => *limit = Some(attribute.be32("CTA_STATS_GLOBAL_MAX_ENTRIES")?),
            _ => (),
        }
    }
    Ok(())
}
