//! Names of connection labels.

/// The names of the 128 label bits, from `/etc/xtables/connlabel.conf`.
///
/// With a file, labels are shown as `conntrack` shows them: by name, and those without a name not at all. Without a file (where
/// `conntrack` refuses to show labels) they are shown by number.
#[derive(Clone, Debug, Default)]
pub struct LabelNames(Option<Vec<(u8, String)>>);

impl LabelNames {
    /// Parses a file's text: a bit and its name per line. Other lines are ignored, as `conntrack` does.
    ///
    /// ```
    /// let names = keepstate_conntrack::format::LabelNames::parse("# ours\n0 seen\n3 billed\n");
    /// ```
    pub fn parse(text: &str) -> LabelNames {
        let mut names = Vec::new();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            if let (Some(bit), Some(name)) = (words.next().and_then(|bit| bit.parse().ok()), words.next())
                && bit < 128
                && !names.iter().any(|(known, _)| *known == bit)
            {
                names.push((bit, name.to_owned()));
            }
        }
        LabelNames(Some(names))
    }

    /// The bit with this name.
    pub fn bit(&self, name: &str) -> Option<u8> {
        self.0.as_ref()?.iter().find(|(_, known)| known == name).map(|(bit, _)| *bit)
    }

    /// The labels to show: each name or number, lowest bit first.
    pub(super) fn visible(&self, labels: [u8; 16]) -> impl Iterator<Item = Label<'_>> {
        set_bits(labels).filter_map(|bit| match &self.0 {
            None => Some(Label::Number(bit)),
            Some(names) => names.iter().find(|(named, _)| *named == bit).map(|(_, name)| Label::Name(name)),
        })
    }
}

/// The label bits that are set, lowest first.
pub(super) fn set_bits(labels: [u8; 16]) -> impl Iterator<Item = u8> {
    (0..128u8).filter(move |bit| u128::from_le_bytes(labels) >> bit & 1 == 1)
}

/// One label.
#[derive(Debug, PartialEq)]
pub(super) enum Label<'a> {
    Name(&'a str),
    Number(u8),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unnamed_labels_are_shown_only_without_connlabel_conf() {
        let mut labels = [0; 16];
        labels[0] = 0b10_1001;
        labels[8] = 1;
        let named = LabelNames::parse("0 zero\n# 5 not this\n3 three more words\n3 again\n200 no\nx y\n64 sixtyfour\n");
        assert_eq!(
            named.visible(labels).collect::<Vec<_>>(),
            [Label::Name("zero"), Label::Name("three"), Label::Name("sixtyfour")]
        );
        assert_eq!(
            LabelNames::default().visible(labels).collect::<Vec<_>>(),
            [Label::Number(0), Label::Number(3), Label::Number(5), Label::Number(64)]
        );
        assert_eq!(LabelNames::parse("").visible(labels).count(), 0);
    }
}
