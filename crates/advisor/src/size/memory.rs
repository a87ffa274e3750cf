//! What a table costs: kernel memory, never swapped, charged to nobody's container.
use crate::kernel_constants::{BUCKET_BYTES, EXTENSION_BYTES};
use crate::size::load::TableLoad;
use crate::size::machine::{ObjectSizeSource, SizingMachine};
use crate::units::{Bytes, Count};
use serde::Serialize;

/// Octets, by what takes them. Objects and extensions are those of a full table; the rest of the time they cost what is used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MemoryCost {
    /// One connection.
    pub object: u64,
    /// How that is known.
    pub object_source: ObjectSizeSource,
    /// The extension of one connection; 0 where nothing needs it.
    pub extension: u64,
    /// Every connection of a full table.
    pub objects: u64,
    /// Their extensions.
    pub extensions: u64,
    /// The buckets, taken at once and whole.
    pub buckets: u64,
    /// A full table: all three.
    pub full: u64,
    /// Under the ordinary load.
    pub steady: u64,
    /// Why these.
    pub why: String,
}

/// The cost of a table of `max` connections over `buckets` buckets.
pub fn memory_cost(machine: &SizingMachine, extended: bool, load: &TableLoad, max: u64, buckets: u64) -> MemoryCost {
    let (object, object_source) = machine.object_size;
    let extension = if extended { EXTENSION_BYTES } else { 0 };
    let (objects, extensions) = (max.saturating_mul(object), max.saturating_mul(extension));
    let buckets = buckets.saturating_mul(BUCKET_BYTES);
    let steady = load.steady.saturating_mul(object.saturating_add(extension)).saturating_add(buckets);
    let measured = match object_source {
        ObjectSizeSource::Measured => "this kernel's slab says so",
        ObjectSizeSource::Known => "known of this generation of kernels; slabinfo was not read",
    };
    let beside = if extended {
        format!("{EXTENSION_BYTES} octets beside it for NAT, accounting, events or timestamps")
    } else {
        format!(
            "no extension ({EXTENSION_BYTES} octets) while there is no NAT, accounting or timestamp and nobody follows events"
        )
    };
    let why = format!(
        "{} × {object} octets ({measured}); {beside}; {BUCKET_BYTES} octets a bucket, {} at once",
        Count(max),
        Bytes(buckets)
    );
    MemoryCost {
        object,
        object_source,
        extension,
        objects,
        extensions,
        buckets,
        full: objects.saturating_add(extensions).saturating_add(buckets),
        steady,
        why,
    }
}
