//! What happens in the table, as it happens.
//!
//! [`Events`] listens from the moment it is made to the moment it is dropped. Where the kernel's buffer runs over, events are lost for ever:
//! that is told (`ENOBUFS`), never passed over, and who needs the whole must list the table anew.
use super::consts::{group, message};
use super::{CtExpectation, CtFlow, EventKind, decode};
use crate::netlink::message::flag;
use crate::netlink::{MalformedNetlink, NetlinkError, NetlinkSocket, NlMessage};
use std::io;
use std::time::Duration;

/// What it happened to.
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
    /// What happened.
    pub event_type: EventKind,
    /// To what.
    pub object: CtObject,
    /// The netlink port of the program that caused it; 0 where packets or time did.
    pub nlmsg_pid: u32,
}

/// Which events are wanted.
#[derive(Debug)]
pub struct CtEventSocket {
    socket: NetlinkSocket,
}

impl CtEvent {
    /// The event that a message tells of; `None` where it tells of something else.
    ///
    /// # Errors
    /// Where a part is shorter than it must be.
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
    /// Listens to what happens to connections, as far as it is wanted.
    ///
    /// # Errors
    /// What the system says.
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

    /// Listens to what happens to expectations, as far as it is wanted.
    ///
    /// # Errors
    /// What the system says.
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

    /// What came within `patience`, if something did: one or more messages, for [`Messages`](crate::netlink::Messages) and [`Event::decode`].
    ///
    /// # Errors
    /// `ENOBUFS` where events were lost; otherwise what the system says.
    pub fn receive(&mut self, patience: Duration) -> Result<Option<&[u8]>, NetlinkError> {
        if !self.socket.wait_readable(patience)? {
            return Ok(None);
        }
        Ok(Some(self.socket.receive()?))
    }

    /// The socket beneath, for its buffer's size.
    pub fn socket(&mut self) -> &mut NetlinkSocket {
        &mut self.socket
    }
}
