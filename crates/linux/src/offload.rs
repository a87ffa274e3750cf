//! What is left to be done to a datagram by whoever sends it on: `virtio`'s header, which stands before datagrams of TUN devices and packet sockets that have agreed on it.

/// Octets of the header.
pub(crate) const HEADER: usize = 10;
/// Its flag for an open checksum.
const OPEN: u8 = 1;
/// Its numbers for many segments of TCP, over IPv4 and IPv6.
const SEGMENTS: [u8; 2] = [1, 4];

/// What is left to be done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offload {
    /// The checksum is open: where what it covers begins, and where it stands from there.
    pub checksum: Option<(u16, u16)>,
    /// The datagram stands for many segments of TCP, each with so many octets of data.
    pub segment: Option<u16>,
}

impl Offload {
    /// The header, as it stands before this datagram, or before the `link` octets of the link's header that stand before that.
    pub(crate) fn header(&self, datagram: &[u8], link: u16) -> [u8; HEADER] {
        let Some((from, at)) = self.checksum else { return [0; HEADER] };
        let [kind, length, size] = match self.segment {
            None => [[0; 2]; 3],
            Some(size) => {
                let v6 = datagram.first().is_some_and(|first| first >> 4 == 6);
                let headers = link + headers(datagram, from);
                [[SEGMENTS[usize::from(v6)], 0], headers.to_ne_bytes(), size.to_ne_bytes()]
            }
        };
        let (from, at) = ((link + from).to_ne_bytes(), at.to_ne_bytes());
        [OPEN, kind[0], length[0], length[1], size[0], size[1], from[0], from[1], at[0], at[1]]
    }

    /// `None` if something is wanted that was never offered.
    pub(crate) fn read(header: [u8; HEADER]) -> Option<Offload> {
        let [flags, kind, _, _, size @ .., from, from_too, at, at_too] = header;
        let checksum =
            (flags & OPEN != 0).then(|| (u16::from_ne_bytes([from, from_too]), u16::from_ne_bytes([at, at_too])));
        match kind {
            0 => Some(Offload { checksum, segment: None }),
            kind if SEGMENTS.contains(&kind) => Some(Offload { checksum, segment: Some(u16::from_ne_bytes(size)) }),
            _ => None,
        }
    }
}

/// The length of all headers up to the data of a TCP segment.
fn headers(datagram: &[u8], from: u16) -> u16 {
    from + datagram.get(usize::from(from) + 12).map_or(0, |offset| u16::from(offset >> 4) * 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_as_they_are_written() {
        let mut datagram = vec![0; 60];
        (datagram[0], datagram[32]) = (0x45, 0x80);
        for offload in [
            Offload::default(),
            Offload { checksum: Some((20, 16)), segment: None },
            Offload { checksum: Some((20, 16)), segment: Some(1448) },
        ] {
            let header = offload.header(&datagram, 0);
            assert_eq!(Offload::read(header), Some(offload));
            if offload.segment.is_some() {
                assert_eq!((header[1], u16::from_ne_bytes([header[2], header[3]])), (1, 52));
                let header = offload.header(&datagram, 14);
                assert_eq!(u16::from_ne_bytes([header[2], header[3]]), 66);
                assert_eq!(Offload::read(header).unwrap().checksum, Some((34, 16)));
            }
        }
        assert_eq!(Offload::read([0, 5, 0, 0, 0, 0, 0, 0, 0, 0]), None, "datagrams of UDP were not offered");
    }
}
