//! To be written.

pub mod check_config;
pub mod keygen;
