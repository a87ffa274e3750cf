//! Programs and scripts that write conntrack sysctls after sysctl.d, found by their files and processes.
mod cloud_init;
mod kube_proxy;
mod scripts;
mod tuned;
mod writer;

use super::overlay::Overlay;
pub use writer::OtherWriter;

/// All of them.
pub(super) fn find_other_writers(tree: &Overlay<'_>) -> Vec<OtherWriter> {
    let mut writers = kube_proxy::find_kube_proxy(tree);
    writers.extend(tuned::find_tuned(tree));
    writers.extend(cloud_init::find_cloud_init(tree));
    writers.extend(scripts::find_scripts(tree));
    writers
}
