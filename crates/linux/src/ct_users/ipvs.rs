//! Virtual servers of IPVS, of a text like `/proc/net/ip_vs`.

/// One virtual server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IpvsService {
    /// `TCP`, `UDP`, `SCTP`, `FWM`.
    pub protocol: String,
    /// Address and port, in hexadecimal as the kernel prints them; or a mark.
    pub address: String,
    /// How packets reach its real servers: `Masq`, `Route`, `Tunnel`; each once.
    pub forwarding: Vec<String>,
}

/// The virtual servers.
pub fn parse(text: &str) -> Vec<IpvsService> {
    let mut servers: Vec<IpvsService> = Vec::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            [protocol @ ("TCP" | "UDP" | "SCTP" | "FWM"), address, ..] => servers.push(IpvsService {
                protocol: protocol.to_string(),
                address: address.to_string(),
                forwarding: Vec::new(),
            }),
            ["->", address, way, ..] if !address.starts_with("RemoteAddress") => {
                let Some(server) = servers.last_mut() else { continue };
                if !server.forwarding.iter().any(|known| known == way) {
                    server.forwarding.push(way.to_string());
                }
            }
            _ => (),
        }
    }
    servers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_services_and_forwarding_methods() {
        let text = "\
IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port Forward Weight ActiveConn InActConn
TCP  0A600001:01BB rr
  -> C0A80105:192B      Masq    1      0          0
  -> C0A80106:192B      Masq    1      0          0
FWM  00000005 wlc
";
        let servers = parse(text);
        assert_eq!(servers.len(), 2);
        assert_eq!(
            (servers[0].address.as_str(), servers[0].forwarding.as_slice()),
            ("0A600001:01BB", &["Masq".to_owned()][..])
        );
        assert_eq!((servers[1].protocol.as_str(), servers[1].forwarding.len()), ("FWM", 0));
    }
}
