//! The nftables language: parse a ruleset, compile it, evaluate packets against it.
//!
//! [`parse_with`] reads the text of a ruleset (such as `/etc/nftables.conf`) into a syntax tree ([`ast`]). [`compile()`] resolves names and gives a [`Program`];
//! [`Program::eval_filter_chains`] and [`Program::eval_nat_chains`] evaluate one packet at one hook. What is not supported is an error with file, line and
//! column and a hint what to write instead; nothing is silently ignored. This crate does no IO, reads no clock and has no source of randomness.
#![warn(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod ast;
mod check;
pub mod datatype;
mod diagnostic;
mod fib;
#[cfg(feature = "json")]
mod json;
mod lexer;
mod parse;
mod program;
mod socket_lookup;
mod source;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}

pub use check::{refuse_masquerade, refuse_unassigned_sources};
pub use diagnostic::{Diagnostic, RulesetError};
pub use fib::{AddressType, Fib, InterfaceInfo, is_link_scoped};
#[cfg(feature = "json")]
pub use json::{JsonScriptError, json_to_script};
pub use parse::{find_includes, parse, parse_skipping_unsupported, parse_with};
pub use program::{
    AppliedUpdate, EvalCtx, EvalTrace, HoldReasons, ListOptions, ListedCounts, LookupRange, LookupScope, MovedCounters,
    PacketCopy, PacketMeta, Program, RuleCounters, RuleDrops, RuleTrace, RulesetSnapshot, RulesetUpdate,
    RulesetUpdateError, RunningRuleset, SetLookup, Verdict, compile,
};
pub use socket_lookup::{ProxySocket, SocketEnds, SocketInfo, SocketLookup, SocketState};
pub use source::{IncludeResolver, NoIncludes, Position, Sources, Span};
