//! x
use clap::Args;
/// w
#[derive(Args, Debug)]
pub struct Watch {}
impl Watch {
    /// r
    pub fn run(&self) -> anyhow::Result<()> {
        Ok(())
    }
}
