//! A text buffer: numbers and addresses are appended without allocation.
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Text to be written. It is filled, written and cleared over and over, and keeps its capacity.
#[derive(Default)]
pub(super) struct TextBuf(Vec<u8>);

impl TextBuf {
    pub(super) fn push(&mut self, text: &str) -> &mut Self {
        self.0.extend_from_slice(text.as_bytes());
        self
    }

    pub(super) fn number(&mut self, number: impl itoa::Integer) -> &mut Self {
        self.push(itoa::Buffer::new().format(number))
    }

    /// At least `width` digits, with zeros in front.
    pub(super) fn zero_padded(&mut self, number: u64, width: usize) -> &mut Self {
        let mut digits = itoa::Buffer::new();
        let digits = digits.format(number);
        for _ in digits.len()..width {
            self.push("0");
        }
        self.push(digits)
    }

    /// Lower-case hexadecimal, without leading zeros.
    pub(super) fn hex(&mut self, number: u16) -> &mut Self {
        let digits = (u16::BITS - number.leading_zeros()).div_ceil(4).max(1);
        for digit in (0..digits).rev() {
            let digit = (number >> (digit * 4)) & 0xf;
            self.push(char::from_digit(digit.into(), 16).unwrap_or('0').encode_utf8(&mut [0; 4]));
        }
        self
    }

    /// `name=number ` as lines have it.
    pub(super) fn field(&mut self, name: &str, number: impl itoa::Integer) -> &mut Self {
        self.push(name).push("=").number(number).push(" ")
    }

    pub(super) fn address(&mut self, address: IpAddr) -> &mut Self {
        match address {
            IpAddr::V4(address) => self.ipv4(address),
            IpAddr::V6(address) => self.ipv6(address),
        }
    }

    /// An address, if it is set.
    pub(super) fn address_opt(&mut self, address: Option<IpAddr>) -> &mut Self {
        match address {
            Some(address) => self.address(address),
            None => self,
        }
    }

    fn ipv4(&mut self, address: Ipv4Addr) -> &mut Self {
        let [a, b, c, d] = address.octets();
        self.number(a).push(".").number(b).push(".").number(c).push(".").number(d)
    }

    /// As the C library's inet_ntop writes it, which `conntrack` uses: RFC 5952, but `::10.0.0.2` and `::ffff:10.0.0.2` for the two
    /// kinds of address that hold an IPv4 address. (Rust's own Display does so for the second only.)
    fn ipv6(&mut self, address: Ipv6Addr) -> &mut Self {
        let words = address.segments();
        let (start, length) = longest_zero_run(&words);
        let holds_ipv4 = start == 0 && (length == 6 || (length == 5 && words[5] == 0xffff));
        for (at, word) in words.into_iter().enumerate() {
            if at == start {
                self.push("::");
            }
            if (start..start + length).contains(&at) {
                continue;
            }
            if at != 0 && at != start + length {
                self.push(":");
            }
            if at == 6 && holds_ipv4 {
                let [.., a, b, c, d] = address.octets();
                return self.ipv4(Ipv4Addr::new(a, b, c, d));
            }
            self.hex(word);
        }
        self
    }

    /// Text of others: control characters are left out, and what XML or JSON would take for its own is replaced.
    pub(super) fn push_escaped(&mut self, text: &str, escape: fn(char) -> Option<&'static str>) -> &mut Self {
        for character in text.chars().filter(|character| !character.is_control()) {
            match escape(character) {
                Some(replacement) => self.push(replacement),
                None => self.push(character.encode_utf8(&mut [0; 4])),
            };
        }
        self
    }

    /// Sees to it that one space stands behind what was written last.
    pub(super) fn ensure_space(&mut self) -> &mut Self {
        if self.0.last() == Some(&b' ') { self } else { self.push(" ") }
    }

    /// Ends a line; the space that stands after every field is taken from its last one.
    pub(super) fn end_line(&mut self) {
        if self.0.last() == Some(&b' ') {
            self.0.pop();
        }
        self.push("\n");
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

/// For what writes itself, such as a time; it cannot fail.
impl fmt::Write for TextBuf {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.push(text);
        Ok(())
    }
}

/// No replacement: for lines.
pub(super) fn no_escape(_: char) -> Option<&'static str> {
    None
}

/// For a word of a command line: what would end the word or quote it is replaced.
pub(super) fn word_escape(character: char) -> Option<&'static str> {
    (character.is_whitespace() || character == '"').then_some("?")
}

/// Where the longest run of at least two zero words begins, the first of equals, and its length; `(8, 0)` if there is none.
fn longest_zero_run(words: &[u16; 8]) -> (usize, usize) {
    let mut best = (8, 0);
    let mut length = 0;
    for (at, word) in words.iter().enumerate() {
        length = if *word == 0 { length + 1 } else { 0 };
        if length >= 2 && length > best.1 {
            best = (at + 1 - length, length);
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render_address(address: &str) -> String {
        let mut text = TextBuf::default();
        text.address(address.parse().unwrap());
        String::from_utf8(text.as_bytes().to_vec()).unwrap()
    }

    /// Each of these was printed by conntrack as it stands here.
    #[test]
    fn addresses_match_inet_ntop() {
        for address in [
            "10.0.0.1",
            "255.255.255.255",
            "0.0.0.0",
            "2001:db8::1",
            "::ffff:10.0.0.1",
            "::10.0.0.2",
            "::0.1.2.3",
            "1:0:0:2::1",
            "::1",
            "::",
            "1::",
            "::123",
            "1:0:2:3:4:5:6:7",
        ] {
            assert_eq!(render_address(address), address);
        }
    }

    #[test]
    fn other_ipv6_addresses_match_rust_display() {
        for seed in 0..1u128 << 16 {
            // Sixteen bits choose which of the eight words are zero and which are small.
            let words = (0..8).fold(0, |sum: u128, at| {
                let word = if (seed >> at) & 1 == 0 { 0 } else { 0xf << (((seed >> (8 + at)) & 1) * 12) };
                sum << 16 | word
            });
            let address = Ipv6Addr::from(words);
            if words >> 48 != 0 {
                assert_eq!(render_address(&address.to_string()), address.to_string());
            }
        }
    }
}
