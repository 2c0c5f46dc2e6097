//! From what was typed to a specification that cannot be invalid.
#![forbid(unsafe_code)]

pub mod instances;
pub mod name;
pub mod spec;
pub mod target;
