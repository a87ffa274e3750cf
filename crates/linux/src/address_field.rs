//! An address in a field of 16 bytes, as the kernel's structures and the programs' have it for both families.
use std::net::IpAddr;

/// In network order; of IPv4 the first four bytes, and zeros.
pub(crate) fn address_field(address: IpAddr) -> [u8; 16] {
    let mut field = [0; 16];
    match address {
        IpAddr::V4(address) => field[..4].copy_from_slice(&address.octets()),
        IpAddr::V6(address) => field = address.octets(),
    }
    field
}
