//! The program's parts, as modules: what `main` puts together.

pub mod filter;
pub mod format;

#[cfg(test)]
mod sample;
