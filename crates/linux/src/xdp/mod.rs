//! XDP: the program that diverts a device's datagrams to user space, and the sockets (AF_XDP) where they arrive and leave.
//!
//! A [`Diversion`] is a program on a device; while it lives, and for each queue that has a [`Socket`], datagrams for one host go to that socket instead of to the kernel.
//! Everything else (ARP, neighbour discovery, multicast, VLANs) passes to the kernel as ever. Dropping the diversion gives the device back to the kernel; so does the end of the process, whatever
//! its reason.
mod live_frames;
mod ring;
mod socket;
mod xdp_program;

pub use live_frames::LiveFrames;
pub use socket::{XskMode, XskSocket};
pub use xdp_program::{XdpError, XdpRedirect};
