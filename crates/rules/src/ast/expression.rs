//! Expressions: values read from the packet or computed.
use super::selector::Selector;
use super::set::SetRef;
use crate::datatype::DataType;

/// A value.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Expression {
    /// Read from the packet, its connection or its metadata.
    Select(Selector),
    /// A constant.
    Constant(u128, DataType),
    /// `(of & and) ^ xor`.
    Bitwise(Box<Expression>, u128, u128),
    /// Two values combined bit by bit.
    Combine(BitOperator, Box<Expression>, Box<Expression>),
    /// Shifted; positive numbers shift to the left.
    Shift(Box<Expression>, i8),
    /// Taken as a value of a wider type.
    Cast(Box<Expression>, DataType),
    /// Looked up in a map.
    Map(Vec<Expression>, SetRef),
    /// Incremental or random, below a modulus.
    Numgen {
        /// Random, else incremental.
        random: bool,
        /// Results are below this.
        modulus: u32,
        /// Added to the result.
        offset: u32,
    },
    /// A hash below a modulus.
    Hash {
        /// Of these; of the connection's tuple (`symhash`) if empty.
        of: Vec<Expression>,
        /// Results are below this.
        modulus: u32,
        /// The seed.
        seed: u32,
        /// Added to the result.
        offset: u32,
    },
}

/// How two values are combined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the words of the language")]
pub enum BitOperator {
    And,
    Or,
    Xor,
}

impl Expression {
    /// The type of its value.
    pub fn data_type(&self) -> DataType {
        match self {
            Expression::Select(selector) => selector.data_type(),
            Expression::Constant(_, kind) | Expression::Cast(_, kind) => *kind,
            Expression::Bitwise(of, ..) | Expression::Shift(of, _) | Expression::Combine(_, of, _) => of.data_type(),
            Expression::Map(_, SetRef::Anonymous(map)) => {
                map.data.as_ref().and_then(|data| data.first()).copied().unwrap_or(DataType::Number(32))
            }
            Expression::Map(..) | Expression::Numgen { .. } | Expression::Hash { .. } => DataType::Number(32),
        }
    }
}
