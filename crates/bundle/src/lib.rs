//! Support bundles: one machine's files about connection tracking, collected there and examined elsewhere.
//!
//! [`create`] writes a bundle of this machine, [`Bundle::open`] reads one. A bundle is a directory or a `.tar.gz` with a
//! [`Manifest`] that lists what is in it and what is missing. Collecting changes nothing on the machine but the bundle itself.
mod bundle;
mod collected_paths;
mod collector;
mod create;
mod manifest;
mod redact;
mod secrets;
mod unpack;

pub use bundle::{Bundle, BundleNamespace};
pub use create::{BundleOptions, create};
pub use manifest::{BundleFile, FILE_NAME, Manifest, NamespaceDirectory, SCHEMA};
pub use redact::Redactor;
