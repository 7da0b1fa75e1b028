//! HeadKV in a mistral.rs program of one's own: load the model in the hook's scope, then use it as always.
//!
//! cargo run --release -p headkv-tests --example own_program
//!
//! Elsewhere, beside the README's lines of Cargo.toml: headkv-embedded from this repository, anyhow, candle-core, mistralrs-core, tokio.

use headkv_plugin::{Compression, HeadKv, hook::Model};
use mistralrs_core::{
    Constraint, DefaultSchedulerMethod, DeviceMapSetting, MistralRsBuilder, ModelDType,
    NormalLoaderBuilder, NormalRequest, NormalSpecificConfig, Request, RequestMessage, Response,
    SamplingParams, SchedulerConfig, TokenSource,
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    // What HeadKV adds: this, and its scope around the load.
    let scores = headkv_embedded::score_file("tiny_retrieval.json")?; // or a path of yours
    let hook = HeadKv::new(Compression::headkv(32).with_scores(scores))?;

    // What any program that uses mistral.rs does.
    let model = headkv_embedded::model()?.display().to_string(); // or a folder, or a name on the hub
    let config = NormalSpecificConfig::default();
    let loader =
        NormalLoaderBuilder::new(config, None, None, Some(model), false, None).build(None)?;
    let pipeline = hook.scope(|| {
        loader.load_model_from_hf(
            None,
            TokenSource::None,
            &ModelDType::F32,
            &candle_core::Device::Cpu,
            true,
            DeviceMapSetting::dummy(),
            None,
            None,
        )
    })?;
    let compressed = Model::of(&*pipeline.lock().await);
    let method = DefaultSchedulerMethod::Fixed(std::num::NonZeroUsize::MIN);
    let scheduler = SchedulerConfig::DefaultScheduler { method };
    let mistral = MistralRsBuilder::new(pipeline, scheduler, false, None)
        .build()
        .await;

    let story = headkv_haystack::text::generate(3, 9_000);
    let fact = "The best thing to do in Oslo is read a novel by the old harbor in the evening.";
    let text = format!(
        "{story} {fact} {story}Based on the content of the book, Question: The best thing to do in Oslo is: \nAnswer:"
    );
    let (sender, mut answers) = tokio::sync::mpsc::channel(1);
    let message = RequestMessage::Completion {
        text,
        echo_prompt: false,
        best_of: None,
    };
    let sampling = SamplingParams {
        max_len: Some(24),
        ..SamplingParams::deterministic()
    };
    let request = NormalRequest {
        constraint: Constraint::None,
        ..NormalRequest::new_simple(message, sampling, sender, 0, None, None)
    };
    mistral
        .get_sender(None)?
        .send(Request::Normal(Box::new(request)))
        .await?;
    match answers.recv().await {
        Some(Response::CompletionDone(done)) => {
            println!(
                "{} tokens of prompt, answer:{}",
                done.usage.prompt_tokens, done.choices[0].text
            );
            // A response's id is its sequence's number.
            if let Some(usage) = compressed.and_then(|model| model.usage(done.id.parse().ok()?)) {
                println!("{} bytes of KV cache kept", usage.kept_bytes);
            }
        }
        Some(Response::CompletionModelError(why, _)) => anyhow::bail!("{why}"),
        _ => anyhow::bail!("no answer"),
    }
    Ok(())
}
