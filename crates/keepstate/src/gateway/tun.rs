//! The driver between TUN devices, which it makes: what the machine routes into one is read here, what leaves is written to another.
use super::devices::Named;
use super::run::Driver;
use anyhow::{Context, Result};
use keepstate_engine::Instant;
use keepstate_gateway::{Out, Router};
use keepstate_linux::tun::{self, Tun};
use std::os::fd::AsFd;

/// Datagrams taken from one device before the next has its turn.
const TURN: usize = 64;

/// The devices, numbered from 1 on as the map has them; they are gone when this is dropped.
pub(super) struct Tuns {
    devices: Vec<Tun>,
    buffer: Vec<u8>,
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
            let made = Tun::create(&device.name).with_context(|| {
                format!(
                    "TUN device {}: making it needs /dev/net/tun and root (CAP_NET_ADMIN), and a name that is not taken",
                    device.name
                )
            })?;
            devices.push(made);
        }
        Ok(Tuns { devices, buffer: vec![0; 65_536], out: Vec::new() })
    }

    /// What waits in one device, as far as its turn goes.
    fn device(&mut self, at: usize, router: &mut Router, now: Instant) -> Result<usize> {
        for count in 0..TURN {
            let Some(tun) = self.devices.get_mut(at) else { return Ok(count) };
            let Some(length) = tun.read(&mut self.buffer).context("a device is gone")? else { return Ok(count) };
            let index = u32::try_from(at + 1).unwrap_or(u32::MAX);
            // A loss is counted, and told to whom it must be.
            let _ = router.handle(self.buffer.get(..length).unwrap_or_default(), index, now, &mut self.out);
            for left in self.out.drain(..) {
                if let Out::Device(index, _, bytes) = left {
                    if let Some(tun) = (index as usize).checked_sub(1).and_then(|at| self.devices.get_mut(at)) {
                        tun.write(&bytes).context("a device is gone")?;
                    }
                    router.recycle(bytes);
                }
            }
        }
        Ok(TURN)
    }
}

impl Driver for Tuns {
    fn wait(&mut self, milliseconds: i32) -> Result<()> {
        tun::wait(self.devices.iter().map(AsFd::as_fd), milliseconds).context("waiting for datagrams")
    }

    fn turn(&mut self, router: &mut Router, now: Instant) -> Result<usize> {
        let mut count = 0;
        for at in 0..self.devices.len() {
            count += self.device(at, router, now)?;
        }
        Ok(count)
    }
}
