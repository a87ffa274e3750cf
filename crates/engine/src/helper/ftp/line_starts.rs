//! The positions where lines begin in one direction of a control connection.

/// Up to two sequence numbers, each just after a line end. Never more: a retransmission of an old segment must not become a command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LineStarts {
    starts: [u32; 2],
    count: u8,
}

impl LineStarts {
    /// Does a line begin at `seq`?
    pub(super) fn is_line_start(&self, seq: u32) -> bool {
        self.starts.iter().take(usize::from(self.count)).any(|begin| *begin == seq)
    }

    /// Records that a line ended just before `seq`. Of three positions the oldest is dropped.
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
    /// The positions encoded for storage outside the table.
    pub(super) fn to_bytes(self) -> [u8; 9] {
        let [[a, b, c, d], [e, f, g, h]] = self.starts.map(u32::to_be_bytes);
        [self.count, a, b, c, d, e, f, g, h]
    }

    /// `None` if there are more positions than possible.
    pub(super) fn from_bytes(&[known, a, b, c, d, e, f, g, h]: &[u8; 9]) -> Option<LineStarts> {
        let begins = [u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h])];
        (usize::from(known) <= begins.len()).then_some(LineStarts { starts: begins, count: known })
    }
}
