//! A FIB shown: interfaces, routes a page at a time, everything as lines.
use super::{FibTable, Interface, is_usable};
use crate::route_table::Route;

/// Where a page of routes begins: by family, prefix length (the longest first), and place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoutePage {
    v6: bool,
    length: u8,
    index: usize,
}

impl Default for RoutePage {
    fn default() -> RoutePage {
        RoutePage { v6: false, length: u8::MAX, index: 0 }
    }
}

impl FibTable {
    /// All interfaces, by index.
    pub fn interfaces(&self) -> impl Iterator<Item = &Interface> {
        self.interfaces.values()
    }

    /// Routes in use, those of addresses included: a page at a time, after a look at so many prefixes, with where the next one begins. What changes between two pages may be missed.
    pub fn routes(&self, page: RoutePage, most: usize) -> (Vec<Route>, Option<RoutePage>) {
        let RoutePage { v6, length, index } = page;
        let table = if v6 { &self.routes_v6 } else { &self.routes_v4 };
        let (found, next) = table.page((length, index), most, |known| is_usable(&self.devices, known));
        let next_family = (!v6).then(|| RoutePage { v6: true, ..RoutePage::default() });
        (found, next.map(|(length, index)| RoutePage { v6, length, index }).or(next_family))
    }

    /// A line for each interface, address and route in use, sorted: for comparison.
    pub fn describe(&self) -> Vec<String> {
        let routes = self.routes_v4.prefixes().chain(self.routes_v6.prefixes()).map(|routes| {
            let usable = routes.iter().filter(|known| !known.is_own && is_usable(&self.devices, known));
            let ways = usable.map(|known| format!("{} metric {}", known.route, known.route.metric));
            ways.collect::<Vec<_>>().join(", ")
        });
        let routes = routes.filter(|line| !line.is_empty());
        let interfaces = self.interfaces.values().map(|interface| format!("{interface:?}"));
        let sources = self.sources.values().flatten().map(|source| format!("{source:?}"));
        let owners = [("local", &self.local_addresses), ("broadcast", &self.broadcasts), ("anycast", &self.anycasts)];
        let owners = owners.into_iter().flat_map(|(what, map)| {
            map.iter().map(move |(address, owners)| {
                let mut owners = owners.clone();
                owners.sort_unstable();
                format!("{what} {address} {owners:?}")
            })
        });
        let mut lines: Vec<String> = routes.chain(interfaces).chain(owners).collect();
        lines.sort();
        // The order of sources decides between equal ones.
        lines.extend(sources);
        lines
    }
}
