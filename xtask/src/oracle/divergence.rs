//! A difference between the kernel and the engine.
use super::step::FlowHash;

/// One difference.
#[derive(Clone, Debug)]
pub struct Divergence {
    /// The step at which, or after which, it was found.
    pub step_index: usize,
    pub flow: Option<FlowHash>,
    /// What differs, without the numbers of this case: equal for divergences of the same kind.
    pub kind: String,
    pub kernel: String,
    pub engine: String,
}
