//! From a parsed ruleset to a program, and from a packet to a verdict.
mod compile;
mod compiled;
mod context;
mod eval_expr;
mod eval_selector;
mod evaluate;
mod exthdr;
mod fib_expr;
mod header_bits;
mod instr;
mod jhash;
mod listing;
mod log;
mod named_set;
mod nat;
mod range_tree;
mod set;
mod state;

pub use compile::compile;
pub use compiled::Program;
pub use context::{EvalCtx, HeaderRewrite, PacketMeta, Verdict};
