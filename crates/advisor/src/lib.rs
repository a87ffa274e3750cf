//! Judgement about a connection table: what is wrong with it, how large it should be, what to change, how it will fill.
//!
//! Everything here is a function of what it is given: observations in, findings, sizes, plans out. It reads nothing, writes nothing
//! and asks no clock; `keepstate-linux` observes, the program shows and does.

pub mod doctor;
pub mod kernel_constants;
pub mod simulate;
pub mod size;
pub mod tune;
pub mod units;
