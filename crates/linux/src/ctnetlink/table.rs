//! The kernel's table: ask it, change it.
//!
//! A [`Table`] is opened in the network namespace of the thread that opens it and stays with that one. Each of its calls is one exchange with the
//! kernel; it keeps nothing of the table itself.
use super::number::{cta, message, stats_global};
use super::{Expectation, ExpectationStatistics, Flow, Restriction, Statistics, decode, encode};
use crate::netlink::message::flag;
use crate::netlink::{Attributes, Failure, Malformed, Message, Messages, Request, Socket};
use std::io;
use std::ops::ControlFlow;

/// A way to the kernel's table.
#[derive(Debug)]
pub struct Table {
    socket: Socket,
}

/// Which connections are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listing {
    /// Those in the table.
    Confirmed,
    /// Those in the table, and their counters are zeroed.
    Zeroing,
    /// Those that have ended but are still held by somebody.
    Dying,
    /// Those that are not in the table yet.
    Unconfirmed,
}

impl Listing {
    fn message(self) -> u16 {
        match self {
            Listing::Confirmed => message::CT_GET,
            Listing::Zeroing => message::CT_GET_CTRZERO,
            Listing::Dying => message::CT_GET_DYING,
            Listing::Unconfirmed => message::CT_GET_UNCONFIRMED,
        }
    }
}

impl Table {
    /// Opens the table of this thread's network namespace.
    ///
    /// # Errors
    /// What the system says: a kernel without ctnetlink says "protocol not supported".
    pub fn open() -> io::Result<Table> {
        Ok(Table { socket: Socket::open()? })
    }

    /// The table that a socket leads to: a gateway's.
    pub fn of(socket: Socket) -> Table {
        Table { socket }
    }

    /// Tells of every connection that fits, until `each` has enough; then the table must be opened anew.
    ///
    /// # Errors
    /// What the kernel says; without CAP_NET_ADMIN it says EPERM.
    pub fn list(
        &mut self,
        listing: Listing,
        restriction: &Restriction,
        mut each: impl FnMut(&Flow) -> ControlFlow<()>,
    ) -> Result<(), Failure> {
        let mut flow = Flow::default();
        self.list_pieces(listing, restriction, |piece| flows_in(piece, &mut flow, &mut each))
    }

    /// As [`list`](Self::list), but hands over what each read gave: [`flows_in`] takes it apart, perhaps on another thread.
    ///
    /// # Errors
    /// As [`list`](Self::list).
    pub fn list_pieces(
        &mut self,
        listing: Listing,
        restriction: &Restriction,
        each: impl FnMut(&[u8]) -> Result<ControlFlow<()>, Failure>,
    ) -> Result<(), Failure> {
        let mut request = Request::new(listing.message(), flag::DUMP, restriction.family_number());
        restriction.encode(&mut request);
        self.socket.dump_pieces(&mut request, each)
    }

    /// The connection with these tuples.
    ///
    /// # Errors
    /// What the kernel says; ENOENT where there is none.
    pub fn find(&mut self, flow: &Flow) -> Result<Option<Flow>, Failure> {
        let mut request = Request::new(message::CT_GET, flag::ACK, family(flow));
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

    /// Puts a connection into the table.
    ///
    /// # Errors
    /// What the kernel says; EEXIST where it is there already.
    pub fn create(&mut self, flow: &Flow) -> Result<(), Failure> {
        self.change(message::CT_NEW, flag::CREATE | flag::EXCLUSIVE, flow)
    }

    /// Changes what is told of a connection in the table.
    ///
    /// # Errors
    /// What the kernel says; ENOENT where it is not there.
    pub fn update(&mut self, flow: &Flow) -> Result<(), Failure> {
        self.change(message::CT_NEW, 0, flow)
    }

    /// Puts a connection into the table, or changes it if it is there.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn create_or_update(&mut self, flow: &Flow) -> Result<(), Failure> {
        self.change(message::CT_NEW, flag::CREATE, flow)
    }

    /// Takes a connection out of the table: the one with these tuples, and this id if it is told.
    ///
    /// # Errors
    /// What the kernel says; ENOENT where it is not there.
    pub fn delete(&mut self, flow: &Flow) -> Result<(), Failure> {
        self.socket.request(&mut deletion(flow))
    }

    /// Takes many connections out of the table; says of each how it went: 0, or errno(3).
    ///
    /// # Errors
    /// If the socket fails.
    pub fn delete_all(&mut self, flows: &[Flow], each: impl FnMut(usize, i32)) -> Result<(), Failure> {
        let mut requests: Vec<Request> = flows.iter().map(deletion).collect();
        self.socket.requests(&mut requests, each)
    }

    /// Takes every connection that fits out of the table.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn flush(&mut self, restriction: &Restriction) -> Result<(), Failure> {
        let mut request = Request::new(message::CT_DELETE, flag::ACK, restriction.family_number()).version(1);
        restriction.encode(&mut request);
        self.socket.request(&mut request)
    }

    /// How many connections there are, confirmed or not; and the limit, if the kernel tells it (5.11 and later).
    ///
    /// # Errors
    /// What the kernel says.
    pub fn count(&mut self) -> Result<(u32, Option<u32>), Failure> {
        let mut request = Request::new(message::CT_GET_STATS, flag::ACK, 0);
        let mut told: Result<(u32, Option<u32>), Malformed> = Ok((0, None));
        self.socket.dump(&mut request, |message| {
            if let Err(error) = count(&message, &mut told) {
                told = Err(error);
            }
            ControlFlow::Continue(())
        })?;
        Ok(told?)
    }

    /// The counters of each processor.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn statistics(&mut self) -> Result<Vec<Statistics>, Failure> {
        self.collect(message::CT_GET_STATS_CPU, 0, Statistics::decode)
    }

    /// The counters of expectations, of each processor.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn expectation_statistics(&mut self) -> Result<Vec<ExpectationStatistics>, Failure> {
        self.collect(message::EXP_GET_STATS_CPU, 0, ExpectationStatistics::decode)
    }

    /// Every expectation of a family (0: of any).
    ///
    /// # Errors
    /// What the kernel says.
    pub fn expectations(&mut self, family: u8) -> Result<Vec<Expectation>, Failure> {
        self.collect(message::EXP_GET, family, Expectation::decode)
    }

    /// The expectation of this tuple.
    ///
    /// # Errors
    /// What the kernel says; ENOENT where there is none.
    pub fn find_expectation(&mut self, wanted: &Expectation) -> Result<Vec<Expectation>, Failure> {
        let mut request = Request::new(message::EXP_GET, flag::ACK, expectation_family(wanted));
        wanted.encode(&mut request);
        self.answers(&mut request, Expectation::decode)
    }

    /// Announces a connection.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn create_expectation(&mut self, expectation: &Expectation) -> Result<(), Failure> {
        let flags = flag::ACK | flag::CREATE | flag::EXCLUSIVE;
        let mut request = Request::new(message::EXP_NEW, flags, expectation_family(expectation));
        expectation.encode(&mut request);
        self.socket.request(&mut request)
    }

    /// Takes an announcement back.
    ///
    /// # Errors
    /// What the kernel says; ENOENT where there is none.
    pub fn delete_expectation(&mut self, expectation: &Expectation) -> Result<(), Failure> {
        let mut request = Request::new(message::EXP_DELETE, flag::ACK, expectation_family(expectation));
        expectation.encode(&mut request);
        self.socket.request(&mut request)
    }

    /// Takes every announcement back.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn flush_expectations(&mut self, family: u8) -> Result<(), Failure> {
        self.socket.request(&mut Request::new(message::EXP_DELETE, flag::ACK, family))
    }

    /// The socket beneath.
    pub fn socket(&mut self) -> &mut Socket {
        &mut self.socket
    }

    fn change(&mut self, kind: u16, flags: u16, flow: &Flow) -> Result<(), Failure> {
        let mut request = Request::new(kind, flags | flag::ACK, family(flow));
        encode::flow(&mut request, flow);
        self.socket.request(&mut request)
    }

    fn collect<T>(
        &mut self,
        kind: u16,
        family: u8,
        decode: impl Fn(&Message<'_>) -> Result<Option<T>, Malformed>,
    ) -> Result<Vec<T>, Failure> {
        self.answers(&mut Request::new(kind, flag::DUMP, family), decode)
    }

    fn answers<T>(
        &mut self,
        request: &mut Request,
        decode: impl Fn(&Message<'_>) -> Result<Option<T>, Malformed>,
    ) -> Result<Vec<T>, Failure> {
        let mut told = Vec::new();
        let mut malformed = Ok(());
        self.socket.dump(request, |message| {
            match decode(&message) {
                Ok(one) => told.extend(one),
                Err(error) => malformed = Err(error),
            }
            ControlFlow::Continue(())
        })?;
        malformed?;
        Ok(told)
    }
}

/// Hands over each connection in a piece of a listing; `flow` is where they are decoded into.
///
/// # Errors
/// Where the piece is malformed.
pub fn flows_in(
    piece: &[u8],
    flow: &mut Flow,
    each: &mut impl FnMut(&Flow) -> ControlFlow<()>,
) -> Result<ControlFlow<()>, Failure> {
    for message in Messages::new(piece) {
        if decode::flow_into(&message?, flow)? && each(flow).is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
}

fn family(flow: &Flow) -> u8 {
    flow.family.map_or(0, super::Family::number)
}

fn expectation_family(expectation: &Expectation) -> u8 {
    expectation.family.map_or(0, super::Family::number)
}

/// What takes a connection out of the table.
fn deletion(flow: &Flow) -> Request {
    let mut request = Request::new(message::CT_DELETE, flag::ACK, family(flow));
    encode::tuples(&mut request, flow);
    if let Some(id) = flow.id {
        request.push(cta::ID, &id.to_be_bytes());
    }
    request
}

fn count(message: &Message<'_>, told: &mut Result<(u32, Option<u32>), Malformed>) -> Result<(), Malformed> {
    let Ok((entries, limit)) = told else { return Ok(()) };
    let attributes: Attributes<'_> = message.attributes();
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
