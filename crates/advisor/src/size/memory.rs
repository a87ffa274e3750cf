//! The memory of a table: kernel memory, never swapped, charged to no container.
use crate::kernel_constants::{BUCKET_BYTES, EXTENSION_BYTES};
use crate::size::load::TableLoad;
use crate::size::machine::{ObjectSizeSource, SizingMachine};
use crate::units::{Bytes, Count};
use serde::Serialize;

/// Bytes by use. Objects and extensions are those of a full table; otherwise only existing entries use memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MemoryCost {
    /// One connection.
    pub object: u64,
    /// How that is known.
    pub object_source: ObjectSizeSource,
    /// The extension of one connection; 0 if nothing needs it.
    pub extension: u64,
    /// All connections of a full table.
    pub objects: u64,
    /// Their extensions.
    pub extensions: u64,
    /// The buckets, allocated at once.
    pub buckets: u64,
    /// A full table: all three.
    pub full: u64,
    /// Under the normal load.
    pub steady: u64,
    /// How this was computed.
    pub why: String,
}

/// The memory of a table with this limit and buckets.
pub fn memory_cost(machine: &SizingMachine, extended: bool, load: &TableLoad, max: u64, buckets: u64) -> MemoryCost {
    let (object, object_source) = machine.object_size;
    let extension = if extended { EXTENSION_BYTES } else { 0 };
    let (objects, extensions) = (max.saturating_mul(object), max.saturating_mul(extension));
    let buckets = buckets.saturating_mul(BUCKET_BYTES);
    let steady = load.steady.saturating_mul(object.saturating_add(extension)).saturating_add(buckets);
    let measured = match object_source {
        ObjectSizeSource::Measured => "measured in this kernel's slab",
        ObjectSizeSource::Known => "usual for this kernel version; slabinfo was not read",
    };
    let beside = if extended {
        format!("{EXTENSION_BYTES} bytes more for NAT, accounting, events or timestamps")
    } else {
        format!("no extension ({EXTENSION_BYTES} bytes) without NAT, accounting, timestamps and event listeners")
    };
    let why = format!(
        "{} × {object} bytes ({measured}); {beside}; {BUCKET_BYTES} bytes per bucket, {} allocated at once",
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
