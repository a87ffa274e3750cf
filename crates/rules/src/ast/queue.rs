//! The queue statement.
use super::expression::Expression;

/// A queue statement: no program listens here.
#[derive(Clone, Debug)]
pub struct QueueSpec {
    /// Which queue; 0 if nothing is written.
    pub number: Option<QueueNumber>,
    /// A packet that finds nobody listening passes; else it is dropped.
    pub bypass: bool,
    /// The queue is chosen by the processor.
    pub fanout: bool,
}

/// The number of a queue.
#[derive(Clone, Debug)]
pub enum QueueNumber {
    /// One of these.
    Range(u16, u16),
    /// A value.
    Value(Expression),
}
