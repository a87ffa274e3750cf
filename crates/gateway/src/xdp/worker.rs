//! One worker: a queue of every device, from its sockets through the router and out.
//!
//! Frames are copied and coupled, and sent, without the router; only in between it is held, over a batch. So workers do side by side what costs most.
use super::around::Around;
use super::intake::{Arrival, Intake};
use super::port::{HEADER, Port, probe};
use crate::core::Shared;
use crate::run::Driver;
use crate::train;
use anyhow::{Context, Result};
use keepstate_engine::Instant;
use keepstate_linux::tun;
use keepstate_linux::xdp::{Burst, Diversion};
use keepstate_router::Out;
use keepstate_wire::segment::Train;
use std::os::fd::AsFd;
use std::sync::Arc;

/// Frames taken from one queue before the next has its turn.
const TURN: u32 = 64;
/// Fewer frames than this are not worth the price of a burst.
const FEW: usize = 8;

/// One worker.
pub(super) struct Worker {
    pub(super) ports: Vec<Port>,
    /// Sends many frames with one call, for ports whose sockets copy; and the program that does it.
    pub(super) burst: Option<Burst>,
    pub(super) diversion: Option<Diversion>,
    around: Arc<Around>,
    intake: Intake,
    out: Vec<Out>,
    leaving: Vec<Leaving>,
    /// It sees to those who wait for a neighbour.
    is_first: bool,
}

/// What the router has given out.
struct Leaving {
    out: Out,
    /// What it came as, if it stands for many.
    train: Option<Train>,
}

impl Worker {
    /// One without ports.
    pub(super) fn new(around: Arc<Around>, is_first: bool) -> Worker {
        Worker {
            ports: Vec::new(),
            burst: None,
            diversion: None,
            around,
            intake: Intake::default(),
            out: Vec::new(),
            leaving: Vec::new(),
            is_first,
        }
    }

    /// Gathers what has come; how many frames that were.
    fn receive(&mut self) -> u32 {
        let mut count = 0;
        for port in &mut self.ports {
            for socket in &mut port.sockets {
                let take = |frame: &[u8]| self.intake.take(frame.get(HEADER..).unwrap_or_default(), port.index);
                count += socket.receive(TURN, take);
                self.intake.end(port.index);
            }
        }
        count
    }

    /// Has all of it routed.
    fn route(&mut self, core: &Shared, now: Instant) {
        let failed = if self.is_first { self.around.lock().neighbours.failed() } else { Vec::new() };
        self.around.losses.no_neighbour(failed.len() as u64);
        if self.intake.arrived().is_empty() && failed.is_empty() {
            return;
        }
        let router = &mut core.lock().router;
        let mut arrived = std::mem::take(self.intake.arrived());
        for Arrival { mut bytes, train, device } in arrived.drain(..) {
            // A loss is counted, and told to whom it must be.
            match &train {
                Some(train) => train::route(router, train, &mut bytes, device, now, &mut self.out),
                None => drop(router.handle_owned(&mut bytes, device, now, &mut self.out)),
            }
            // Empty and without room, if it has left.
            self.intake.recycle(bytes);
            self.leaving.extend(self.out.drain(..).map(|out| Leaving { out, train }));
        }
        *self.intake.arrived() = arrived;
        for bytes in failed {
            router.unreachable(&bytes, now, &mut self.out);
        }
        self.leaving.extend(self.out.drain(..).map(|out| Leaving { out, train: None }));
    }

    /// Sends what the router has given out.
    fn send(&mut self, now: Instant) -> Result<()> {
        let mut leaving = std::mem::take(&mut self.leaving);
        for Leaving { out, train } in leaving.drain(..) {
            let bytes = match out {
                Out::Host(mut bytes) => {
                    self.around.hand_over(&mut bytes, train.as_ref())?;
                    bytes
                }
                Out::Device(device, to, mut bytes) => {
                    match self.ports.iter().position(|port| port.index == device) {
                        Some(at) => {
                            if let Some(mac) = self.around.find((device, to), &bytes, train.as_ref(), now) {
                                self.leave(at, mac, &mut bytes, train.as_ref())?;
                            }
                        }
                        None => self.around.hand_over(&mut bytes, train.as_ref())?,
                    }
                    bytes
                }
            };
            self.intake.recycle(bytes);
        }
        self.leaving = leaving;
        Ok(())
    }

    /// Sends a datagram by one of the ports.
    fn leave(&mut self, at: usize, mac: [u8; 6], bytes: &mut [u8], train: Option<&Train>) -> Result<()> {
        let left = train::offload(train, bytes);
        // What stands for many segments must not overtake what was to leave before.
        if match left.segment {
            Some(_) => self.ports.get(at).is_some_and(|port| port.waits),
            None => self.burst.as_ref().is_some_and(Burst::is_full),
        } {
            self.flush()?;
        }
        let Some(port) = self.ports.get_mut(at) else { return Ok(()) };
        let sent = match left.segment {
            Some(_) => port.send_train(mac, bytes, left).context("a device is gone")?,
            None => port.send(mac, bytes, &mut self.burst),
        };
        self.around.losses.no_room(u64::from(!sent));
        Ok(())
    }

    /// What has waited for a neighbour that is known now.
    fn release(&mut self) {
        let released = self.around.lock().neighbours.released();
        for (device, mac, bytes) in released {
            if let Some(port) = self.ports.iter_mut().find(|port| port.index == device) {
                self.around.losses.no_room(u64::from(!port.send(mac, &bytes, &mut self.burst)));
            }
        }
    }

    fn flush(&mut self) -> Result<()> {
        self.ports.iter_mut().for_each(|port| port.waits = false);
        if let (Some(burst), Some(diversion)) = (&mut self.burst, &self.diversion) {
            if burst.waiting() >= FEW {
                let lost = burst.go(diversion).context("a burst cannot be sent any more")?;
                self.around.losses.no_room(lost);
                // Perhaps a device has changed its mind: then its sockets send from now on.
                if lost > 0 {
                    probe(&mut self.ports, burst, diversion);
                }
            } else {
                for (device, frame) in burst.frames() {
                    let port = self.ports.iter_mut().find(|port| port.index == device);
                    self.around.losses.no_room(u64::from(!port.is_some_and(|port| port.send_frame(frame))));
                }
            }
        }
        for socket in self.ports.iter_mut().flat_map(|port| &mut port.sockets) {
            socket.flush().context("a device is gone")?;
        }
        Ok(())
    }
}

impl Driver for Worker {
    fn wait(&mut self, milliseconds: i32) -> Result<()> {
        let sockets = self.ports.iter().flat_map(|port| &port.sockets).map(AsFd::as_fd);
        tun::wait(sockets, milliseconds).context("waiting for datagrams")
    }

    fn turn(&mut self, core: &Shared, now: Instant) -> Result<usize> {
        let count = self.receive();
        self.route(core, now);
        self.send(now)?;
        if self.is_first {
            self.release();
        }
        self.flush()?;
        Ok(count as usize)
    }
}
