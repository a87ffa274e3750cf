//! Where lines begin in one direction of a control channel.

/// Up to two sequence numbers that follow a line's end. Never more: an old segment sent again must not become a command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Lines {
    begins: [u32; 2],
    known: u8,
}

impl Lines {
    /// Does a line begin here?
    pub(super) fn begins_at(&self, seq: u32) -> bool {
        self.begins.iter().take(usize::from(self.known)).any(|begin| *begin == seq)
    }

    /// A line ended before `seq`. Of three, the oldest is forgotten.
    pub(super) fn ended_at(&mut self, seq: u32) {
        if self.begins_at(seq) {
            return;
        }
        match (self.known, self.begins) {
            (0, _) => self.begins = [seq, 0],
            (1, [first, _]) => self.begins = [first, seq],
            (_, [first, second]) => {
                let (older, newer) = if after(first, second) { (second, first) } else { (first, second) };
                if after(seq, older) {
                    self.begins = [newer, seq];
                }
                return;
            }
        }
        self.known += 1;
    }
}

/// Is `a` after `b`, modulo 2³²?
const fn after(a: u32, b: u32) -> bool {
    let ahead = a.wrapping_sub(b);
    ahead != 0 && ahead < 1 << 31
}

impl Lines {
    /// As it is kept outside a table.
    pub(super) fn octets(&self) -> [u8; 9] {
        let [[a, b, c, d], [e, f, g, h]] = self.begins.map(u32::to_be_bytes);
        [self.known, a, b, c, d, e, f, g, h]
    }

    /// `None` if it knows of more than there can be.
    pub(super) fn from_octets(&[known, a, b, c, d, e, f, g, h]: &[u8; 9]) -> Option<Lines> {
        let begins = [u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h])];
        (usize::from(known) <= begins.len()).then_some(Lines { begins, known })
    }
}
