//! Measures how much each attention head retrieves, for any model that mistral.rs loads.
//!
//! A model answers questions about needles in long contexts ([`example`]) while an [`observer`] in its attention notes,
//! for every head and generated token, where the head looked. An [`estimator`] turns that into one score per head and
//! example, and a [`ScoreFile`] keeps them in the original project's format.
//!
//! The scores are those of Wu et al. 2024 (Retrieval Head, arXiv 2404.15574) and of Fu et al. 2024 (HeadKV, arXiv
//! 2410.19258, section 3.2).
#![deny(missing_docs)]

pub mod cli;
pub mod compare;
mod error;
pub mod estimator;
pub mod example;
pub mod file;
pub mod heatmap;
pub mod meta;
pub mod observer;
pub mod run;
pub mod session;
pub mod show;

pub use error::Error;
pub use file::ScoreFile;
pub use headkv_plugin::scores::Kind;
pub use meta::{Meta, Settings};
pub use run::Scorer;
