//! Advice about a conntrack table: what is wrong with it, how large it should be, what to change, how it will fill.
//!
//! Everything here is a pure function: observations in; findings, sizes and plans out. It reads nothing, writes nothing and uses no
//! clock; `keepstate-linux` reads the machine, the program prints and acts.

pub mod doctor;
pub mod kernel_constants;
pub mod simulate;
pub mod size;
pub mod tune;
pub mod units;
