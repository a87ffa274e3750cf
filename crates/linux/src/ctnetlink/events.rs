//! What happens in the table, as it happens.
//!
//! [`Events`] listens from the moment it is made to the moment it is dropped. Where the kernel's buffer runs over, events are lost for ever:
//! that is told (`ENOBUFS`), never passed over, and who needs the whole must list the table anew.
use super::number::{group, message};
use super::{Expectation, Flow, decode};
use crate::netlink::message::flag;
use crate::netlink::{Failure, Malformed, Message, Socket};
use std::io;
use std::time::Duration;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Happening {
    /// It began.
    New,
    /// It changed.
    Update,
    /// It ended.
    Destroy,
}

/// What it happened to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::large_enum_variant, reason = "nearly all are the large ones, and each lives for one line")]
pub enum Subject {
    /// A connection.
    Connection(Flow),
    /// An expectation.
    Expectation(Expectation),
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What happened.
    pub happening: Happening,
    /// To what.
    pub subject: Subject,
    /// The netlink port of the program that caused it; 0 where packets or time did.
    pub port: u32,
}

/// Which events are wanted.
#[derive(Debug)]
pub struct Events {
    socket: Socket,
}

impl Event {
    /// The event that a message tells of; `None` where it tells of something else.
    ///
    /// # Errors
    /// Where a part is shorter than it must be.
    pub fn decode(message: &Message<'_>) -> Result<Option<Event>, Malformed> {
        let happening = match message.kind {
            message::CT_DELETE | message::EXP_DELETE => Happening::Destroy,
            message::CT_NEW | message::EXP_NEW if message.flags & (flag::CREATE | flag::EXCLUSIVE) != 0 => {
                Happening::New
            }
            message::CT_NEW | message::EXP_NEW => Happening::Update,
            _ => return Ok(None),
        };
        let subject = match message.kind {
            message::CT_NEW | message::CT_DELETE => decode::flow(message)?.map(Subject::Connection),
            _ => Expectation::decode(message)?.map(Subject::Expectation),
        };
        Ok(subject.map(|subject| Event { happening, subject, port: message.port }))
    }
}

impl Events {
    /// Listens to what happens to connections, as far as it is wanted.
    ///
    /// # Errors
    /// What the system says.
    pub fn of_connections(socket: Socket, wanted: impl IntoIterator<Item = Happening>) -> io::Result<Events> {
        Self::of_groups(
            socket,
            wanted.into_iter().map(|happening| match happening {
                Happening::New => group::CT_NEW,
                Happening::Update => group::CT_UPDATE,
                Happening::Destroy => group::CT_DESTROY,
            }),
        )
    }

    /// Listens to what happens to expectations, as far as it is wanted.
    ///
    /// # Errors
    /// What the system says.
    pub fn of_expectations(socket: Socket, wanted: impl IntoIterator<Item = Happening>) -> io::Result<Events> {
        Self::of_groups(
            socket,
            wanted.into_iter().map(|happening| match happening {
                Happening::New => group::EXP_NEW,
                Happening::Update => group::EXP_UPDATE,
                Happening::Destroy => group::EXP_DESTROY,
            }),
        )
    }

    fn of_groups(mut socket: Socket, groups: impl Iterator<Item = u32>) -> io::Result<Events> {
        socket.join(&groups.collect::<Vec<_>>())?;
        Ok(Events { socket })
    }

    /// What came within `patience`, if something did: one or more messages, for [`Messages`](crate::netlink::Messages) and [`Event::decode`].
    ///
    /// # Errors
    /// `ENOBUFS` where events were lost; otherwise what the system says.
    pub fn read(&mut self, patience: Duration) -> Result<Option<&[u8]>, Failure> {
        if !self.socket.wait(patience)? {
            return Ok(None);
        }
        Ok(Some(self.socket.receive()?))
    }

    /// The socket beneath, for its buffer's size.
    pub fn socket(&mut self) -> &mut Socket {
        &mut self.socket
    }
}
