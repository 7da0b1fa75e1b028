//! An OpenAI-compatible server whose users get the memory that HeadKV frees.
//!
//! ```text
//! cli -> options -> server -> routes -> request, messages, compression (what is asked)
//!                                    -> generate -> footprint, admission (who may run)
//!                                                -> choice -> stream (what is said)
//! ```
//!
//! [`Server::start`] loads the model and listens; the runtime's own request types and parsers are used, its handlers are
//! not: they answer errors inside of a 200, and know no usage, admission or end.
#![deny(missing_docs)]

mod access_log;
pub mod admission;
mod auth;
mod choice;
pub mod cli;
mod compression;
mod connections;
#[cfg(test)]
mod damage;
mod error;
pub mod footprint;
mod generate;
mod health;
mod logprobs;
mod messages;
mod metrics;
mod options;
mod page;
mod request;
mod routes;
mod running;
mod scores;
mod seed;
mod served;
mod server;
mod shutdown;
mod state;
mod stream;

pub use options::{Log, Options};
pub use server::Server;
