//! Times of day, as people read them.
use super::text_buf::TextBuf;
use jiff::Timestamp;
use jiff::Zoned;
use jiff::tz::TimeZone;
use keepstate_engine::UnixTime;
use std::fmt::Write;

const DAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// The time zone times are shown in.
pub(super) struct DateFormat(pub(super) TimeZone);

impl DateFormat {
    /// A time in this zone.
    fn local(&self, instant: UnixTime) -> Zoned {
        timestamp(instant).to_zoned(self.0.clone())
    }

    /// `Mon Nov 23 14:00:00 2026`, as the C library's ctime writes it.
    pub(super) fn push_ctime(&self, instant: UnixTime, text: &mut TextBuf) {
        let local = self.local(instant);
        let day = usize::try_from(local.weekday().to_sunday_zero_offset()).unwrap_or(0);
        let month = usize::try_from(local.month()).unwrap_or(1);
        text.push(DAYS.get(day).unwrap_or(&"")).push(" ");
        text.push(MONTHS.get(month.wrapping_sub(1)).unwrap_or(&""));
        text.push(if local.day() < 10 { "  " } else { " " }).number(local.day()).push(" ");
        let two = |text: &mut TextBuf, number: i8| {
            text.zero_padded(u64::try_from(number).unwrap_or(0), 2);
        };
        two(text, local.hour());
        text.push(":");
        two(text, local.minute());
        text.push(":");
        two(text, local.second());
        text.push(" ").number(local.year());
    }

    /// The `<when>` of an event in XML; the week begins with Sunday, 1.
    pub(super) fn push_xml_when(&self, instant: UnixTime, text: &mut TextBuf) {
        let local = self.local(instant);
        let two = |number: i8| u64::try_from(number).unwrap_or(0);
        text.push("<when><hour>").number(local.hour()).push("</hour><min>").zero_padded(two(local.minute()), 2);
        text.push("</min><sec>").zero_padded(two(local.second()), 2).push("</sec><wday>");
        text.number(local.weekday().to_sunday_one_offset()).push("</wday><day>").number(local.day());
        text.push("</day><month>").number(local.month()).push("</month><year>").number(local.year());
        text.push("</year></when>");
    }

    /// RFC 3339, in UTC, to the nanosecond: `2026-11-23T14:00:00.000000001Z`.
    pub(super) fn push_rfc3339(instant: UnixTime, text: &mut TextBuf) {
        // A Text takes everything.
        let _ = write!(text, "{}", timestamp(instant));
    }
}

/// All 64 bits of nanoseconds (to the year 2554) are within what a timestamp holds.
fn timestamp(instant: UnixTime) -> Timestamp {
    Timestamp::from_nanosecond(instant.0.into()).unwrap_or(Timestamp::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn date(zone: &str, instant: UnixTime) -> String {
        let mut text = TextBuf::default();
        DateFormat(TimeZone::posix(zone).unwrap()).push_ctime(instant, &mut text);
        String::from_utf8(text.as_bytes().to_vec()).unwrap()
    }

    #[test]
    fn dates_match_ctime() {
        // `TZ=... date -d @1793671445 +%c` in the C locale says the same.
        assert_eq!(date("UTC0", UnixTime::from_secs(1_793_671_445)), "Tue Nov  3 02:04:05 2026");
        assert_eq!(date("CET-1CEST,M3.5.0,M10.5.0/3", UnixTime::from_secs(1_793_671_445)), "Tue Nov  3 03:04:05 2026");
        assert_eq!(date("EST5EDT,M3.2.0,M11.1.0", UnixTime::from_secs(1_793_671_445)), "Mon Nov  2 21:04:05 2026");
        assert_eq!(date("UTC0", UnixTime(0)), "Thu Jan  1 00:00:00 1970");
        assert_eq!(date("UTC0", UnixTime(u64::MAX)), "Sun Jul 21 23:34:33 2554");
    }
}
