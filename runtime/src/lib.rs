//! mistralrs-core 0.8.1 as `build/` assembled it.
#![allow(warnings, macro_expanded_macro_exports_accessed_by_absolute_paths)]
include!(concat!(env!("OUT_DIR"), "/src/lib.rs"));
