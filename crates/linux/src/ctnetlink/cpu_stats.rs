//! The kernel's conntrack statistics, per CPU.
use super::consts::{stats, stats_exp};
use crate::netlink::message::NlBody;
use crate::netlink::{MalformedNetlink, NlMessage};

macro_rules! counters {
    ($(#[doc = $doc:literal])* $name:ident { $($(#[doc = $field_doc:literal])* $field:ident = $attribute:expr, $text:literal;)* }) => {
        $(#[doc = $doc])*
        /// Counters that this kernel does not have are `None`.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $name {
            /// The CPU number.
            pub cpu: u16,
            $($(#[doc = $field_doc])* pub $field: Option<u32>,)*
        }

        impl $name {
            /// The counters in a message; `None` for another message type.
            ///
            /// # Errors
            /// An attribute is too short.
            pub fn decode(message: &NlMessage<'_>) -> Result<Option<$name>, MalformedNetlink> {
                let NlBody::Data { resource, .. } = message.body else { return Ok(None) };
                let mut decoded = $name { cpu: resource, ..$name::default() };
                for attribute in message.attributes() {
                    let attribute = attribute?;
                    $(if attribute.kind == $attribute { decoded.$field = Some(attribute.be32($text)?); })*
                }
                Ok(Some(decoded))
            }

            /// The counters by name, in the order `conntrack -S` has them; only those that this kernel counts.
            pub fn named(&self) -> impl Iterator<Item = (&'static str, u32)> {
                [$(($text, self.$field),)*].into_iter().filter_map(|(name, value)| Some((name, value?)))
            }
        }
    };
}

counters! {
    /// Counters of connections on one processor.
    CtCpuStats {
        /// Old kernels: entries looked at.
        searched = stats::SEARCHED, "searched";
        /// Entries found.
        found = stats::FOUND, "found";
        /// Old kernels: connections begun.
        new = stats::NEW, "new";
        /// Packets that belong to no connection and begin none.
        invalid = stats::INVALID, "invalid";
        /// Old kernels: packets passed over.
        ignore = stats::IGNORE, "ignore";
        /// Old kernels: connections ended.
        delete = stats::DELETE, "delete";
        /// Old kernels: connections put on the list of the dying.
        delete_list = stats::DELETE_LIST, "delete_list";
        /// Entries that a program put in.
        insert = stats::INSERT, "insert";
        /// Connections that could not be confirmed.
        insert_failed = stats::INSERT_FAILED, "insert_failed";
        /// Packets dropped: the table was full, or a confirmation failed.
        drop = stats::DROP, "drop";
        /// Connections removed early for a new one.
        early_drop = stats::EARLY_DROP, "early_drop";
        /// Packets refused by a protocol's tracker.
        error = stats::ERROR, "error";
        /// Searches begun anew because the table was resized.
        search_restart = stats::SEARCH_RESTART, "search_restart";
        /// Races of the same connection that were settled.
        clash_resolve = stats::CLASH_RESOLVE, "clash_resolve";
        /// Connections refused because a list was too long.
        chain_toolong = stats::CHAIN_TOOLONG, "chaintoolong";
    }
}

counters! {
    /// Counters of expectations on one processor.
    CtExpectCpuStats {
        /// Expected connections that came.
        new = stats_exp::NEW, "expect_new";
        /// Expectations made.
        create = stats_exp::CREATE, "expect_create";
        /// Expectations ended.
        delete = stats_exp::DELETE, "expect_delete";
    }
}
