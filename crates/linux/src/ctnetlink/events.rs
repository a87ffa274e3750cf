//! Events of the connection table.
//!
//! A [`CtEventSocket`] receives events from its creation until it is dropped. When the receive buffer is full, events are lost:
//! that is reported (`ENOBUFS`), never ignored; the caller then lists the table again.
use super::consts::{group, message};
use super::{CtExpectation, CtFlow, EventKind, decode};
use crate::netlink::message::flag;
use crate::netlink::{MalformedNetlink, NetlinkError, NetlinkSocket, NlMessage};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

/// The object of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::large_enum_variant, reason = "nearly all are the large ones, and each lives for one line")]
pub enum CtObject {
    /// A connection.
    Connection(CtFlow),
    /// An expectation.
    Expectation(CtExpectation),
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CtEvent {
    /// The type of event.
    pub event_type: EventKind,
    /// The object.
    pub object: CtObject,
    /// The netlink port id of the program that caused it; 0 for packets and timeouts.
    pub nlmsg_pid: u32,
}

/// Types of events, to be selected.
#[derive(Debug)]
pub struct CtEventSocket {
    socket: NetlinkSocket,
}

impl CtEvent {
    /// The event in a message; `None` for another message type.
    ///
    /// # Errors
    /// An attribute is too short.
    pub fn decode(message: &NlMessage<'_>) -> Result<Option<CtEvent>, MalformedNetlink> {
        let happening = match message.kind {
            message::CT_DELETE | message::EXP_DELETE => EventKind::Destroy,
            message::CT_NEW | message::EXP_NEW if message.flags & (flag::CREATE | flag::EXCLUSIVE) != 0 => {
                EventKind::New
            }
            message::CT_NEW | message::EXP_NEW => EventKind::Update,
            _ => return Ok(None),
        };
        let subject = match message.kind {
            message::CT_NEW | message::CT_DELETE => decode::flow(message)?.map(CtObject::Connection),
            _ => CtExpectation::decode(message)?.map(CtObject::Expectation),
        };
        Ok(subject.map(|subject| CtEvent { event_type: happening, object: subject, nlmsg_pid: message.port }))
    }
}

impl CtEventSocket {
    /// Subscribes to these types of connection events.
    ///
    /// # Errors
    /// The system's error.
    pub fn subscribe_connections(
        socket: NetlinkSocket,
        wanted: impl IntoIterator<Item = EventKind>,
    ) -> io::Result<CtEventSocket> {
        Self::subscribe_groups(
            socket,
            wanted.into_iter().map(|happening| match happening {
                EventKind::New => group::CT_NEW,
                EventKind::Update => group::CT_UPDATE,
                EventKind::Destroy => group::CT_DESTROY,
            }),
        )
    }

    /// Subscribes to these types of expectation events.
    ///
    /// # Errors
    /// The system's error.
    pub fn subscribe_expectations(
        socket: NetlinkSocket,
        wanted: impl IntoIterator<Item = EventKind>,
    ) -> io::Result<CtEventSocket> {
        Self::subscribe_groups(
            socket,
            wanted.into_iter().map(|happening| match happening {
                EventKind::New => group::EXP_NEW,
                EventKind::Update => group::EXP_UPDATE,
                EventKind::Destroy => group::EXP_DESTROY,
            }),
        )
    }

    fn subscribe_groups(mut socket: NetlinkSocket, groups: impl Iterator<Item = u32>) -> io::Result<CtEventSocket> {
        socket.join_groups(&groups.collect::<Vec<_>>())?;
        Ok(CtEventSocket { socket })
    }

    /// The next bytes, if any come within `timeout`: one or more messages, for [`NlMessages`](crate::netlink::NlMessages) and [`CtEvent::decode`].
    ///
    /// # Errors
    /// `ENOBUFS` if events were lost; otherwise the system's error.
    pub fn receive(&mut self, timeout: Duration) -> Result<Option<&[u8]>, NetlinkError> {
        if !self.socket.wait_readable(timeout)? {
            return Ok(None);
        }
        Ok(Some(self.socket.receive()?))
    }

    /// The underlying socket, for its buffer size.
    pub fn socket(&mut self) -> &mut NetlinkSocket {
        &mut self.socket
    }
}

impl AsFd for CtEventSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
