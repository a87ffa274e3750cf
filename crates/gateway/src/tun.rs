//! The driver between TUN devices, which it makes: what the machine routes into one is read here, what leaves is written to another.
use super::core::Shared;
use super::devices::Named;
use super::run::Driver;
use super::train::{self, LONGEST};
use anyhow::{Context, Result};
use keepstate_engine::Instant;
use keepstate_linux::tun::{self, Tun};
use keepstate_router::{Out, Router};
use keepstate_wire::edit;
use keepstate_wire::segment::Train;
use std::os::fd::AsFd;

/// Datagrams taken from one device before the next has its turn.
const TURN: usize = 64;

/// The devices, numbered from 1 on as the map has them; they are gone when this is dropped.
pub(super) struct Tuns {
    devices: Vec<Tun>,
    /// Room for the longest datagram.
    buffer: Vec<u8>,
    /// Others as large, not in use.
    rooms: Vec<Vec<u8>>,
    out: Vec<Out>,
}

impl Tuns {
    /// Makes the devices.
    ///
    /// # Errors
    /// One may not be made, or its name is taken.
    pub(super) fn new(names: &[Named]) -> Result<Tuns> {
        let mut devices = Vec::new();
        for device in names {
            let made = Tun::with_offloads(&device.name).with_context(|| {
                format!(
                    "TUN device {}: making it needs /dev/net/tun and root (CAP_NET_ADMIN), and a name that is not taken",
                    device.name
                )
            })?;
            devices.push(made);
        }
        Ok(Tuns { devices, buffer: vec![0; LONGEST], rooms: Vec::new(), out: Vec::new() })
    }

    /// What waits in one device, as far as its turn goes.
    fn device(&mut self, at: usize, router: &mut Router, now: Instant) -> Result<usize> {
        for count in 0..TURN {
            let Some(tun) = self.devices.get_mut(at) else { return Ok(count) };
            let read = tun.read(&mut self.buffer).context("a device is gone")?;
            let Some((length, offload)) = read else { return Ok(count) };
            let index = u32::try_from(at + 1).unwrap_or(u32::MAX);
            let Some(datagram) = self.buffer.get_mut(..length) else { continue };
            let train = offload.segment.and_then(|size| Train::of(datagram, size));
            // A loss is counted, and told to whom it must be.
            match (&train, offload.checksum) {
                (Some(train), Some(_)) => {
                    self.buffer.truncate(length);
                    train::route(router, train, &mut self.buffer, index, now, &mut self.out);
                    self.make_room();
                }
                (_, open) => {
                    if let Some((from, at)) = open {
                        edit::close(datagram, from.into(), at.into());
                    }
                    let _ = router.handle(datagram, index, now, &mut self.out);
                }
            }
            self.send(train.as_ref(), router)?;
        }
        Ok(TURN)
    }

    /// There is room for the longest datagram again.
    fn make_room(&mut self) {
        if self.buffer.capacity() < LONGEST {
            self.buffer = self.rooms.pop().unwrap_or_default();
        }
        self.buffer.resize(LONGEST, 0);
    }

    /// Sends what has left, cut again as it came.
    fn send(&mut self, train: Option<&Train>, router: &mut Router) -> Result<()> {
        for left in self.out.drain(..) {
            let Out::Device(index, _, mut bytes) = left else { continue };
            if let Some(tun) = (index as usize).checked_sub(1).and_then(|at| self.devices.get_mut(at)) {
                let offload = train::offload(train, &mut bytes);
                tun.write(&bytes, offload).context("a device is gone")?;
            }
            if bytes.capacity() < LONGEST {
                router.recycle(bytes);
            } else if self.rooms.len() < TURN {
                self.rooms.push(bytes);
            }
        }
        Ok(())
    }
}

impl Driver for Tuns {
    fn wait(&mut self, milliseconds: i32) -> Result<()> {
        tun::wait(self.devices.iter().map(AsFd::as_fd), milliseconds).context("waiting for datagrams")
    }

    fn turn(&mut self, core: &Shared, now: Instant) -> Result<usize> {
        let router = &mut core.lock().router;
        let mut count = 0;
        for at in 0..self.devices.len() {
            count += self.device(at, router, now)?;
        }
        Ok(count)
    }
}
