//! Where lines begin in one direction of a control channel.

/// Up to two sequence numbers that follow a line's end. Never more: an old segment sent again must not become a command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LineStarts {
    starts: [u32; 2],
    count: u8,
}

impl LineStarts {
    /// Does a line begin here?
    pub(super) fn is_line_start(&self, seq: u32) -> bool {
        self.starts.iter().take(usize::from(self.count)).any(|begin| *begin == seq)
    }

    /// A line ended before `seq`. Of three, the oldest is forgotten.
    pub(super) fn record_line_end(&mut self, seq: u32) {
        if self.is_line_start(seq) {
            return;
        }
        match (self.count, self.starts) {
            (0, _) => self.starts = [seq, 0],
            (1, [first, _]) => self.starts = [first, seq],
            (_, [first, second]) => {
                let (older, newer) = if seq_after(first, second) { (second, first) } else { (first, second) };
                if seq_after(seq, older) {
                    self.starts = [newer, seq];
                }
                return;
            }
        }
        self.count += 1;
    }
}

/// Is `a` after `b`, modulo 2³²?
const fn seq_after(a: u32, b: u32) -> bool {
    let ahead = a.wrapping_sub(b);
    ahead != 0 && ahead < 1 << 31
}

impl LineStarts {
    /// As it is kept outside a table.
    pub(super) fn to_bytes(&self) -> [u8; 9] {
        let [[a, b, c, d], [e, f, g, h]] = self.starts.map(u32::to_be_bytes);
        [self.count, a, b, c, d, e, f, g, h]
    }

    /// `None` if it knows of more than there can be.
    pub(super) fn from_bytes(&[known, a, b, c, d, e, f, g, h]: &[u8; 9]) -> Option<LineStarts> {
        let begins = [u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h])];
        (usize::from(known) <= begins.len()).then_some(LineStarts { starts: begins, count: known })
    }
}
