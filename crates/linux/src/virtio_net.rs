//! Offloads of a packet (partial checksum, GSO): the virtio header that precedes packets of TUN interfaces and packet sockets.

/// Bytes of the header.
pub(crate) const VNET_HDR_LEN: usize = 10;
/// Flag: partial checksum.
const F_NEEDS_CSUM: u8 = 1;
/// GSO types: TCP over IPv4 and IPv6.
const GSO_TCP_TYPES: [u8; 2] = [1, 4];

/// The offloads of a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VirtioNetHdr {
    /// The checksum is partial: the offset where it starts, and the offset of its field from there.
    pub needs_csum: Option<(u16, u16)>,
    /// The packet is many TCP segments with this many bytes of payload each.
    pub gso_size: Option<u16>,
}

impl VirtioNetHdr {
    /// The header for this packet, with `link` bytes of link-layer header between the two.
    pub(crate) fn encode(&self, datagram: &[u8], link: u16) -> [u8; VNET_HDR_LEN] {
        let Some((from, at)) = self.needs_csum else { return [0; VNET_HDR_LEN] };
        let [kind, length, size] = match self.gso_size {
            None => [[0; 2]; 3],
            Some(size) => {
                let v6 = datagram.first().is_some_and(|first| first >> 4 == 6);
                let headers = link + headers_len(datagram, from);
                [[GSO_TCP_TYPES[usize::from(v6)], 0], headers.to_ne_bytes(), size.to_ne_bytes()]
            }
        };
        let (from, at) = ((link + from).to_ne_bytes(), at.to_ne_bytes());
        [F_NEEDS_CSUM, kind[0], length[0], length[1], size[0], size[1], from[0], from[1], at[0], at[1]]
    }

    /// `None` for an offload that was not offered.
    pub(crate) fn decode(header: [u8; VNET_HDR_LEN]) -> Option<VirtioNetHdr> {
        let [flags, kind, _, _, size @ .., from, from_too, at, at_too] = header;
        let checksum = (flags & F_NEEDS_CSUM != 0)
            .then(|| (u16::from_ne_bytes([from, from_too]), u16::from_ne_bytes([at, at_too])));
        match kind {
            0 => Some(VirtioNetHdr { needs_csum: checksum, gso_size: None }),
            kind if GSO_TCP_TYPES.contains(&kind) => {
                Some(VirtioNetHdr { needs_csum: checksum, gso_size: Some(u16::from_ne_bytes(size)) })
            }
            _ => None,
        }
    }
}

/// The length of all headers up to the data of a TCP segment.
fn headers_len(datagram: &[u8], from: u16) -> u16 {
    from + datagram.get(usize::from(from) + 12).map_or(0, |offset| u16::from(offset >> 4) * 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn virtio_net_hdr_round_trips() {
        let mut datagram = vec![0; 60];
        (datagram[0], datagram[32]) = (0x45, 0x80);
        for offload in [
            VirtioNetHdr::default(),
            VirtioNetHdr { needs_csum: Some((20, 16)), gso_size: None },
            VirtioNetHdr { needs_csum: Some((20, 16)), gso_size: Some(1448) },
        ] {
            let header = offload.encode(&datagram, 0);
            assert_eq!(VirtioNetHdr::decode(header), Some(offload));
            if offload.gso_size.is_some() {
                assert_eq!((header[1], u16::from_ne_bytes([header[2], header[3]])), (1, 52));
                let header = offload.encode(&datagram, 14);
                assert_eq!(u16::from_ne_bytes([header[2], header[3]]), 66);
                assert_eq!(VirtioNetHdr::decode(header).unwrap().needs_csum, Some((34, 16)));
            }
        }
        assert_eq!(VirtioNetHdr::decode([0, 5, 0, 0, 0, 0, 0, 0, 0, 0]), None, "datagrams of UDP were not offered");
    }
}
