//! File system semantics, one file per operation family.

pub mod ext;
