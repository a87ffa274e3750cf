//! Announcements as Linux rewrites them for NAT (`nf_nat_ftp`): only the text for the bytes of [`DataEndpoint::match_range`](super::DataEndpoint::match_range).
use super::FtpType;
use alloc::format;
use alloc::string::String;
use core::net::IpAddr;

/// The text that announces `address` and `port`.
pub(crate) fn format_cmd(kind: FtpType, address: IpAddr, port: u16) -> String {
    let [high, low] = port.to_be_bytes();
    match (kind, address) {
        (FtpType::Port | FtpType::Pasv, IpAddr::V4(address)) => {
            let [a, b, c, d] = address.octets();
            format!("{a},{b},{c},{d},{high},{low}")
        }
        (FtpType::Eprt, IpAddr::V4(address)) => format!("|1|{address}|{port}|"),
        // All eight groups with all leading zeros.
        (FtpType::Eprt, IpAddr::V6(address)) => {
            let groups: [String; 8] = address.segments().map(|group| format!("{group:04x}"));
            format!("|2|{}|{port}|", groups.join(":"))
        }
        // EPSV has no address; PORT and PASV are never matched over IPv6.
        (FtpType::Epsv | FtpType::Port | FtpType::Pasv, _) => format!("|||{port}|"),
    }
}
