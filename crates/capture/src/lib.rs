#![doc = include_str!("../README.md")]
mod capture_file;
pub mod capture_tracker;
pub mod checksums;
mod cut_fragments;
mod duplicates;
mod frame;
mod framing;
mod interface;
pub mod packet_mmap;
mod source;

pub use capture_file::{Capture, CorruptCapture};
pub use frame::{Frame, FrameChecksum};
pub use source::decompressed;
