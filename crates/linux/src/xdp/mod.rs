//! XDP: the program that redirects an interface's packets to user space, and the AF_XDP sockets where they arrive and leave.
//!
//! An [`XdpRedirect`] is the program on one interface. While it lives, unicast IP packets of each queue that has an [`XskSocket`] go to that socket instead of the kernel.
//! Everything else (ARP, neighbour discovery, multicast, VLANs) passes to the kernel. Dropping the redirect, or the end of the process for whatever reason, gives the
//! interface back to the kernel.
mod live_frames;
mod ring;
mod socket;
mod xdp_program;

pub use live_frames::LiveFrames;
pub use socket::{QUEUE_MEMORY, XskMode, XskSocket};
pub use xdp_program::{XdpError, XdpRedirect};
