//! Follows the kernel's links, addresses, routes and neighbours.
//!
//! Its life: opened in a namespace; [`everything`](Watcher::everything) is read; from then on [`news`](Watcher::news) says what has changed. It joins before it reads, so that nothing falls
//! between the two; when the kernel's buffer ran over, everything is to be read again.
use super::message::{self, DUMPS, Told};
use crate::netlink::{Failure, Messages, Socket};
use std::io;
use std::net::IpAddr;
use std::ops::ControlFlow;
use std::time::Duration;

/// Groups: links, neighbours, addresses and routes of IPv4 and IPv6.
const GROUPS: [u32; 6] = [1, 3, 5, 7, 9, 11];
/// The kernel's buffer for news, in octets.
const BUFFER: usize = 1 << 20;
/// Reads of news at a time, so that who asks is not held up.
const READS: usize = 64;

/// What has changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct News {
    /// Links, addresses or routes: read [everything](Watcher::everything) again.
    pub map: bool,
    /// Neighbours, one by one.
    pub neighbours: Vec<message::Neighbour>,
}

/// A pair of sockets: one that asks, one that listens.
#[derive(Debug)]
pub struct Watcher {
    asks: Socket,
    listens: Socket,
}

impl Watcher {
    /// Opens both in the network namespace of this thread.
    ///
    /// # Errors
    /// What the system says.
    pub fn open() -> io::Result<Watcher> {
        let mut listens = Socket::open_routes()?;
        listens.set_buffer_size(BUFFER)?;
        listens.join(&GROUPS)?;
        Ok(Watcher { asks: Socket::open_routes()?, listens })
    }

    /// Every link, address, route and neighbour, as the kernel has them now.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn everything(&mut self) -> Result<Vec<Told>, Failure> {
        let mut all = Vec::new();
        for (kind, rest) in DUMPS {
            let mut malformed = None;
            self.asks.dump(&mut message::dump(kind, rest), |message| match message::read(&message) {
                Ok(Told::Other | Told::Gone) => ControlFlow::Continue(()),
                Ok(told) => {
                    all.push(told);
                    ControlFlow::Continue(())
                }
                // The rest of the dump is read nevertheless, so that the socket stays good.
                Err(error) => {
                    malformed = Some(error);
                    ControlFlow::Continue(())
                }
            })?;
            if let Some(error) = malformed {
                return Err(error.into());
            }
        }
        Ok(all)
    }

    /// What has changed since this was last asked; does not wait.
    ///
    /// # Errors
    /// What the system says.
    pub fn news(&mut self) -> Result<News, Failure> {
        let mut news = News::default();
        for _ in 0..READS {
            if !self.listens.wait(Duration::ZERO)? {
                break;
            }
            let piece = match self.listens.receive() {
                Ok(piece) => piece,
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    news.map = true;
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            for message in Messages::new(piece) {
                match message::read(&message?)? {
                    Told::Link(_) | Told::Address(_) | Told::Route(_) | Told::Gone => news.map = true,
                    Told::Neighbour(neighbour) => news.neighbours.push(neighbour),
                    Told::Other => (),
                }
            }
        }
        Ok(news)
    }

    /// Asks the kernel to find a neighbour, or to see whether it is still there; the answer comes as news.
    ///
    /// # Errors
    /// What the kernel says: the device is gone, or has no neighbours.
    pub fn find(&mut self, device: u32, address: IpAddr) -> Result<(), Failure> {
        self.asks.request(&mut message::find(device, address))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
    use super::*;
    use std::net::Ipv4Addr;

    /// Every namespace has a loopback device; nobody needs to be root to read of it.
    #[test]
    fn the_loopback_device_has_its_address() {
        let mut watcher = Watcher::open().unwrap();
        let all = watcher.everything().unwrap();
        let lo = all.iter().find_map(|told| match told {
            Told::Link(link) if link.name == "lo" => Some(link.clone()),
            _ => None,
        });
        let lo = lo.unwrap();
        assert!(lo.index >= 1 && lo.mtu >= 1280, "{lo:?}");
        let is_ours = |told: &Told| match told {
            Told::Address(address) => address.device == lo.index && address.address == Ipv4Addr::LOCALHOST,
            _ => false,
        };
        assert!(!lo.up || all.iter().any(is_ours), "{all:?}");
    }

    /// What is cut short is said to be, and nothing panics.
    #[test]
    fn short_messages_are_refused() {
        use crate::netlink::{Request, message::flag};
        for (kind, rest) in [(16, 12), (20, 4), (24, 8), (28, 8)] {
            for length in 0..rest {
                let mut request = Request::new(kind, flag::DUMP, 2);
                request.append(&vec![0; length]);
                let octets = request.octets(1).to_vec();
                let message = Messages::new(&octets).next().unwrap().unwrap();
                assert!(message::read(&message).is_err(), "{kind} with {length}");
            }
        }
    }
}
