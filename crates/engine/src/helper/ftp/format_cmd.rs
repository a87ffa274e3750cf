//! Announcements as Linux writes them anew (`nf_nat_ftp`): the numbers alone, for the bytes that [`DataEndpoint::match_range`](super::DataEndpoint::match_range) names.
use super::FtpType;
use alloc::format;
use alloc::string::String;
use core::net::IpAddr;

/// The same announcement of another end.
pub(crate) fn format_cmd(kind: FtpType, address: IpAddr, port: u16) -> String {
    let [high, low] = port.to_be_bytes();
    match (kind, address) {
        (FtpType::Port | FtpType::Pasv, IpAddr::V4(address)) => {
            let [a, b, c, d] = address.octets();
            format!("{a},{b},{c},{d},{high},{low}")
        }
        (FtpType::Eprt, IpAddr::V4(address)) => format!("|1|{address}|{port}|"),
        // All eight groups with all their zeros.
        (FtpType::Eprt, IpAddr::V6(address)) => {
            let groups: [String; 8] = address.segments().map(|group| format!("{group:04x}"));
            format!("|2|{}|{port}|", groups.join(":"))
        }
        // There is no IPv6 in the others: they are never heard there.
        (FtpType::Epsv | FtpType::Port | FtpType::Pasv, _) => format!("|||{port}|"),
    }
}
