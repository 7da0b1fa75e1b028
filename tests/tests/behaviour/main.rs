//! What the project does, one file per behaviour. They are one program, because each program of tests links the whole runtime:
//! `cargo test --release --workspace --test behaviour families::` runs one of them. Tests that count what is allocated have a
//! program of their own, and so has the load on the server.

// Parts of the runtime's build script.
#[path = "../../../runtime/build/assemble.rs"]
mod assemble;
#[path = "../../../runtime/build/source.rs"]
mod source;

mod async_engine;
mod babilong;
mod batches;
mod capacity;
mod chat_protocol;
mod command_lines;
mod compressed_generation;
mod continued;
mod conversations;
mod endpoint;
mod families;
mod gguf;
mod head_scoring;
mod hostile_models;
mod hub;
mod import_order;
mod isolation;
mod licences;
mod links;
mod longbench;
mod metrics;
mod model_identity;
mod needle_quality;
mod one_pool;
mod own_method;
mod own_scores;
mod parity;
mod pieces;
mod prefixes;
mod pristine_runtime;
mod question_apart;
mod refused_features;
mod refused_models;
mod report;
mod resume;
mod rotary_factors;
mod same_as_upstream;
mod sampling;
mod score_files;
mod score_reference;
mod server;
mod server_connections;
mod server_damage;
mod server_faults;
mod states;
mod turns;
mod two_models;
mod upstream_dry_run;
mod watched;
