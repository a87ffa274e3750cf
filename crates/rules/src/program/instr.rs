//! The compiled form of rules: names are indices into the program's arrays.
use crate::ast::{
    AssignTarget, BitOperator, CtTimeoutPolicy, DynsetOp, Hook, Log, Reject, Selector, StatefulSpec, SynproxyInfo,
    TableFamily,
};
use crate::datatype::DataType;
use crate::source::Span;
use keepstate_engine::{ExpectationPolicy, Helper, Manip, PortSelection};
use std::net::IpAddr;

#[derive(Clone, Debug)]
pub(super) struct CompiledRule {
    /// Place in the text.
    pub(super) span: Span,
    pub(super) instrs: Vec<Instr>,
}

/// Hook, priority and policy of a base chain.
#[derive(Clone, Copy, Debug)]
pub(super) struct BaseChain {
    pub(super) hook: Hook,
    pub(super) family: TableFamily,
    pub(super) nat: bool,
    pub(super) reroutes: bool,
    pub(super) priority: i32,
    /// Of chains with the same priority, the highest runs first.
    pub(super) registration: u64,
    pub(super) policy_drop: bool,
    pub(super) chain: usize,
    /// The index of its devices, at hook ingress.
    pub(super) devices: Option<usize>,
}

/// One instruction of a rule; numbers are indices into the program's arrays.
#[derive(Clone, Debug)]
pub(super) enum Instr {
    Match {
        left: Vec<CompiledExpr>,
        not: bool,
        right: CompiledRhs,
    },
    Counter(usize),
    /// The counter, limit or quota is looked up in a map.
    CounterMap(Vec<CompiledExpr>, usize),
    Stateful(usize),
    StatefulMap(Vec<CompiledExpr>, usize),
    /// What to do is looked up in a map: its values are places among the choices.
    ObjectMap {
        key: Vec<CompiledExpr>,
        map: usize,
        choices: Vec<Instr>,
    },
    /// Nothing to do.
    Nop,
    Tproxy(Box<CompiledTproxy>),
    /// Goes on if the packet's connection may take the fast path.
    FlowOffload,
    Log(Log),
    Notrack,
    Assign(AssignTarget, CompiledExpr, DataType),
    CtHelper(Helper),
    CtTimeout(CtTimeoutPolicy),
    CtExpectation(ExpectationPolicy),
    Nat(Box<CompiledNat>),
    Reject(Reject),
    Synproxy(SynproxyInfo),
    Vmap(Vec<CompiledExpr>, usize),
    Dynset {
        op: DynsetOp,
        set: usize,
        key: Vec<CompiledExpr>,
        timeout: Option<u64>,
        stateful: Vec<StatefulSpec>,
        data: Vec<CompiledExpr>,
    },
    TcpOptStrip(u8),
    /// A copy to this address, through the interface of this name.
    Dup {
        to: CompiledExpr,
        v6: bool,
        device: Option<u128>,
    },
    Verdict(CompiledVerdict),
}

impl Instr {
    /// May it answer handshakes for a server?
    pub(super) fn has_synproxy(&self) -> bool {
        match self {
            Instr::Synproxy(_) => true,
            Instr::ObjectMap { choices, .. } => choices.iter().any(Instr::has_synproxy),
            _ => false,
        }
    }
}

#[derive(Clone, Debug)]
pub(super) enum CompiledRhs {
    Ranges(Vec<(u128, u128)>),
    AnyBit(u128),
    Set(usize),
}

#[derive(Clone, Debug)]
pub(super) enum CompiledExpr {
    Select(Selector),
    Constant(u128),
    Bitwise(Box<CompiledExpr>, u128, u128),
    Combine(BitOperator, Box<CompiledExpr>, Box<CompiledExpr>),
    Shift(Box<CompiledExpr>, i8, u128),
    Map(Vec<CompiledExpr>, usize),
    Numgen { slot: Option<usize>, modulus: u32, offset: u32 },
    Hash { of: Vec<(CompiledExpr, DataType)>, modulus: u32, seed: u32, offset: u32 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CompiledVerdict {
    Accept,
    Drop,
    Continue,
    Return,
    Jump(usize),
    Goto(usize),
}

#[derive(Clone, Debug)]
pub(super) struct CompiledNat {
    pub(super) manip: Manip,
    /// Only for packets of this family: is it IPv6?
    pub(super) v6: Option<bool>,
    pub(super) target: NatAddress,
    pub(super) ports: Option<NatPortSource>,
    pub(super) port_selection: PortSelection,
    pub(super) persistent: bool,
    pub(super) netmap: bool,
}

#[derive(Clone, Debug)]
pub(super) enum NatAddress {
    Unchanged,
    Range(IpAddr, IpAddr),
    /// A map whose values are addresses, possibly with ports.
    Map(Vec<CompiledExpr>, usize),
    Value(CompiledExpr, DataType),
    Masquerade,
    Redirect,
}

/// Where a transparent proxy listens; what is not there the packet says.
#[derive(Clone, Debug)]
pub(super) struct CompiledTproxy {
    /// Only for packets of this family: is it IPv6?
    pub(super) v6: Option<bool>,
    pub(super) address: Option<CompiledExpr>,
    pub(super) port: Option<CompiledExpr>,
}

#[derive(Clone, Debug)]
pub(super) enum NatPortSource {
    Range(u16, u16),
    Value(CompiledExpr),
}
