//! An expectation in one form, from the kernel or from the engine.
use super::divergence::Divergence;
use keepstate_engine::{ExpectationEntry, Tuple};
use std::fmt;
use std::net::IpAddr;

/// One expectation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpectationRow {
    pub tuple: Tuple,
    /// Masks of the source address and key.
    pub mask: (IpAddr, u16),
    pub master: Tuple,
    pub helper: String,
    pub class: u8,
    pub timeout: u32,
}

/// Seconds by which two remaining times may differ: both are rounded down, a moment apart.
const TIMEOUT_TOLERANCE: u32 = 1;

impl From<&ExpectationEntry> for ExpectationRow {
    fn from(one: &ExpectationEntry) -> ExpectationRow {
        ExpectationRow {
            tuple: one.tuple,
            mask: (one.source_mask, one.source_key_mask),
            master: one.master,
            helper: one.helper.map_or_else(String::new, |helper| helper.name().to_owned()),
            class: one.class,
            timeout: one.timeout,
        }
    }
}

impl fmt::Display for ExpectationRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ExpectationRow { tuple, mask, master, helper, class, timeout } = self;
        write!(f, "{}/{}:{}/{:#x}", tuple.source, mask.0, tuple.source_key, mask.1)?;
        write!(f, " → {}:{} protocol {}", tuple.destination, tuple.destination_key, tuple.protocol)?;
        write!(f, " master port {} helper {helper} class {class} timeout {timeout}", master.source_key)
    }
}

/// The differences of two lists, regardless of order.
pub fn difference(mut kernel: Vec<ExpectationRow>, mut engine: Vec<ExpectationRow>, at: usize) -> Option<Divergence> {
    kernel.sort_by_key(|one| (one.tuple, one.master));
    engine.sort_by_key(|one| (one.tuple, one.master));
    let same = |one: &ExpectationRow, other: &ExpectationRow| {
        one.timeout.abs_diff(other.timeout) <= TIMEOUT_TOLERANCE
            && ExpectationRow { timeout: other.timeout, ..one.clone() } == *other
    };
    if kernel.len() == engine.len() && kernel.iter().zip(&engine).all(|(one, other)| same(one, other)) {
        return None;
    }
    let only = |these: &[ExpectationRow], those: &[ExpectationRow]| {
        let missing = these.iter().filter(|one| !those.iter().any(|other| same(one, other)));
        missing.map(ExpectationRow::to_string).collect::<Vec<_>>().join(", ")
    };
    let (kernel, engine) = (only(&kernel, &engine), only(&engine, &kernel));
    Some(Divergence { step_index: at, flow: None, kind: "expectations".to_owned(), kernel, engine })
}
