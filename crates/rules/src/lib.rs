//! The nftables language: text in, a checked ruleset out, and what it says of a packet.
//!
//! [`parse`] reads what people have in `/etc/nftables.conf` into a [`tree`]. What is not supported is refused with file, line and column,
//! and with what to write instead; nothing is ever silently left out. There is no IO, no clock and no randomness in this crate.
pub mod ast;
pub mod datatype;
mod diagnostic;
mod fib;
mod lexer;
mod parse;
mod program;
mod source;

pub use diagnostic::{Diagnostic, RulesetError};
pub use fib::{AddressType, Fib, InterfaceInfo};
pub use parse::{parse, parse_with};
pub use program::{EvalCtx, HeaderRewrite, PacketMeta, Program, Verdict, compile};
pub use source::{IncludeResolver, NoIncludes, Position, Sources, Span};
