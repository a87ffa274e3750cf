//! The bytes that `jhash` and `symhash` hash, as nftables has them in its registers, so that they select the same server as Linux.
use super::context::EvalCtx;
use super::instr::CompiledExpr;
use crate::ast::{CtKey, MetaKey, Selector};
use crate::datatype::DataType;
use smallvec::SmallVec;

/// The bytes that are hashed. The five parts of a `symhash` fit without an allocation.
pub(super) type HashInput = SmallVec<[u8; 96]>;

/// Appends the bytes of a part as in an nftables register: packet fields in network order, numbers of the kernel's own in host order. Among several parts each is
/// padded to whole words; one alone is hashed as long as it is.
pub(super) fn push_register_bytes(
    part: &CompiledExpr,
    value: u128,
    kind: DataType,
    ctx: &EvalCtx<'_, '_>,
    is_one_of_several: bool,
    into: &mut HashInput,
) {
    // Interfaces are compared by name, and hashed by index.
    let index = match part {
        CompiledExpr::Select(Selector::Meta(MetaKey::Iif)) => ctx.meta.iif.map(|iif| iif.index),
        CompiledExpr::Select(Selector::Meta(MetaKey::Oif)) => ctx.meta.oif.map(|oif| oif.index),
        _ => None,
    };
    if let Some(index) = index {
        into.extend_from_slice(&index.to_ne_bytes());
        return;
    }
    let length = usize::from(kind.bit_width()).div_ceil(8);
    if is_kernels_own(part, kind) {
        into.extend_from_slice(value.to_le_bytes().get(..length).unwrap_or_default());
        if cfg!(target_endian = "big") {
            let start = into.len().saturating_sub(length);
            into.get_mut(start..).unwrap_or_default().reverse();
        }
    } else {
        into.extend_from_slice(value.to_be_bytes().get(16 - length..).unwrap_or_default());
    }
    if is_one_of_several {
        into.resize(into.len().next_multiple_of(4), 0);
    }
}

/// Is it a number of the kernel's own, not a part of the packet or a name?
fn is_kernels_own(part: &CompiledExpr, kind: DataType) -> bool {
    match part {
        CompiledExpr::Select(Selector::Meta(key)) => !matches!(
            key,
            MetaKey::Protocol | MetaKey::IifName | MetaKey::OifName | MetaKey::SdifName | MetaKey::Kind(_)
        ),
        CompiledExpr::Select(Selector::Ct(key)) => !matches!(key, CtKey::Helper | CtKey::Label),
        CompiledExpr::Select(Selector::CtCounter(..)) => true,
        _ => matches!(kind, DataType::Mark | DataType::CtState | DataType::CtStatus),
    }
}
