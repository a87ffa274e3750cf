//! Types of what a statement writes, and comparisons that cannot hold.
use super::refusal::Refusal;
use crate::ast::{AssignTarget, Expression, Match, MatchRhs, Order, SetRef, Statement, Table};
use crate::datatype::DataType;

/// Checks the types of a statement.
pub(super) fn check_types(table: &Table, statement: &Statement) -> Result<(), Refusal> {
    match statement {
        Statement::Assign(target, value) => check_assignment(table, *target, value),
        Statement::Match(one) => check_match(one),
        _ => Ok(()),
    }
}

/// A value has to be of the type that is written; a plain number fits everywhere, and a mark takes the bits of any field (as nft since 1.0.8).
fn check_assignment(table: &Table, target: AssignTarget, value: &Expression) -> Result<(), Refusal> {
    let wanted = match target {
        AssignTarget::MetaMark | AssignTarget::CtMark => DataType::Mark,
        AssignTarget::MetaPriority => DataType::ClassId,
        AssignTarget::CtZone(_) => DataType::Number(16),
        AssignTarget::CtLabel => DataType::CtLabel,
        AssignTarget::CtEvents => DataType::CtEvent,
        AssignTarget::Dscp { .. } => DataType::Dscp,
        AssignTarget::Ttl { .. } => DataType::Number(8),
        AssignTarget::Address { v6: false, .. } => DataType::Address4,
        AssignTarget::Address { v6: true, .. } => DataType::Address6,
        AssignTarget::Port { .. } => DataType::Port,
        AssignTarget::TcpMss => DataType::Number(16),
        _ => return Ok(()),
    };
    let found = match value {
        Expression::Map(_, SetRef::Named(name, _)) => {
            let map = table.sets.iter().find(|set| set.name == *name);
            match map.and_then(|map| map.data.as_deref()) {
                Some([only]) => *only,
                _ => return Ok(()),
            }
        }
        other => other.data_type(),
    };
    let is_mark = wanted == DataType::Mark && found.bit_width() <= DataType::Mark.bit_width();
    if found == wanted || matches!(found, DataType::Number(_)) || is_mark {
        return Ok(());
    }
    Err(Refusal::new(
        format!("this needs {}, but the value is {}", wanted.description(), found.description()),
        "use a map from one to the other: `… set ip saddr map { … : … }`",
    ))
}

fn check_match(one: &Match) -> Result<(), Refusal> {
    one.left.iter().try_for_each(check_shift)?;
    check_generated(one)?;
    let MatchRhs::Ranges(ranges) = &one.right else { return Ok(()) };
    if let ([_, _, ..], false) = (one.left.as_slice(), ranges.is_empty()) {
        return Err(Refusal::new(
            "several fields together can only be looked up in a set",
            "write the values in braces: `ip saddr . tcp dport { 10.0.0.1 . 80 }`",
        ));
    }
    Ok(())
}

/// What `numgen` or a hash is compared with is below its modulus.
fn check_generated(one: &Match) -> Result<(), Refusal> {
    let [Expression::Numgen { modulus, offset, .. } | Expression::Hash { modulus, offset, .. }] = one.left.as_slice()
    else {
        return Ok(());
    };
    let end = u128::from(*offset) + u128::from(*modulus);
    let greatest = match &one.right {
        // The bound as it is written.
        MatchRhs::Ranges(ranges) => ranges.first().map(|(first, last)| match one.order {
            Some(Order::Less) => last.saturating_add(1),
            _ => *first,
        }),
        MatchRhs::Set(SetRef::Anonymous(set)) => {
            set.elements.iter().filter_map(|element| element.key.as_deref()?.first().map(|(first, _)| *first)).max()
        }
        _ => None,
    };
    match greatest {
        Some(value) if value >= end => {
            Err(Refusal::new(format!("the result is always below {end}"), "compare with a smaller number"))
        }
        _ => Ok(()),
    }
}

/// A shift by the width of the value or more leaves nothing of it.
fn check_shift(value: &Expression) -> Result<(), Refusal> {
    match value {
        Expression::Shift(of, by) => {
            let width = of.data_type().bit_width();
            if by.unsigned_abs() >= width {
                return Err(Refusal::new(
                    format!("a shift by {} bits leaves nothing of a value of {width} bits", by.unsigned_abs()),
                    format!("shift by at most {} bits", width - 1),
                ));
            }
            check_shift(of)
        }
        Expression::Bitwise(of, ..) => check_shift(of),
        Expression::Combine(_, left, right) => check_shift(left).and_then(|()| check_shift(right)),
        _ => Ok(()),
    }
}
