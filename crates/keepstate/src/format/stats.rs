//! The counters of `conntrack -S`.
use keepstate_engine::Counters;

/// The line of `conntrack -S` for the first processor, without its newline. (The blanks at its end are conntrack's.)
pub fn stats(counters: &Counters) -> String {
    let Counters {
        found,
        invalid,
        insert,
        insert_failed,
        drop,
        early_drop,
        error,
        search_restart,
        clash_resolve,
        chaintoolong,
        // conntrack -S does not show those of expectations.
        expect_new: _,
        expect_create: _,
        expect_delete: _,
    } = counters;
    format!(
        "cpu=0   \tfound={found} invalid={invalid} insert={insert} insert_failed={insert_failed} drop={drop} early_drop={early_drop} \
         error={error} search_restart={search_restart} clash_resolve={clash_resolve} chaintoolong={chaintoolong} "
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_is_conntracks() {
        let counters = Counters { insert: 24, ..Counters::default() };
        assert_eq!(
            stats(&counters),
            "cpu=0   \tfound=0 invalid=0 insert=24 insert_failed=0 drop=0 early_drop=0 error=0 search_restart=0 clash_resolve=0 \
             chaintoolong=0 "
        );
    }
}
