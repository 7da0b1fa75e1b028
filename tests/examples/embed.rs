//! The README's second way in: an answer as it comes, in an asynchronous program, from any folder.
//!
//! cargo run --release --locked --workspace --example embed

use headkv_engine::{Attention, Engine, LoadOptions, Piece, Request};
use headkv_plugin::Compression;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    // README
    let scores = headkv_embedded::score_file("tiny_retrieval.json")?; // or a path of yours
    let options = LoadOptions::new(headkv_embedded::model()?); // or a folder, a .gguf file, org/name
    let compression = Compression::headkv(32).with_scores(scores);
    let engine = Engine::load_async(options, Attention::Compressed(compression)).await?;
    let prompt = engine.encode("Once upon a time")?;
    let mut answer = engine.stream(&Request::new(prompt, 64)).await?;
    while let Some(piece) = answer.next().await {
        if let Piece::Text(text) = piece? {
            print!("{text}");
        }
    }
    // README
    println!();
    Ok(())
}
