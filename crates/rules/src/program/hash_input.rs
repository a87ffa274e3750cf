//! The bytes that `jhash` and `symhash` hash, as nftables has them in its registers, so that they select the same server as Linux.
use crate::datatype::DataType;
use smallvec::SmallVec;

/// The bytes that are hashed. The five parts of a `symhash` fit without an allocation.
pub(super) type HashInput = SmallVec<[u8; 96]>;

/// Appends the bytes of a value as in an nftables register: packet fields in network order, marks in host order, padded to whole words.
pub(super) fn push_register_bytes(value: u128, kind: DataType, into: &mut HashInput) {
    let length = usize::from(kind.bit_width()).div_ceil(8);
    let sent = value.to_be_bytes();
    let own = value.to_ne_bytes();
    match kind {
        DataType::Mark | DataType::InterfaceIndex | DataType::CtState | DataType::CtStatus => {
            into.extend_from_slice(own.get(..length).unwrap_or_default())
        }
        _ => into.extend_from_slice(sent.get(16 - length..).unwrap_or_default()),
    }
    into.resize(into.len().next_multiple_of(4), 0);
}
