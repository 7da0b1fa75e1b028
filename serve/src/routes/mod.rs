//! The API's routes.

pub mod chat;
pub mod completions;
pub mod models;
pub mod status;
pub mod tokenize;
