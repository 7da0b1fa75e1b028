//! mistral.rs's SDK with HeadKV in its attention: what is particular are the hook and the scope.

use headkv_plugin::{Compression, HeadKv};
use mistralrs::{TextMessageRole, TextMessages, TextModelBuilder};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let scores = headkv_embedded::score_file("tiny_retrieval.json")?; // or a path of yours
    let hook = HeadKv::new(Compression::headkv(32).with_scores(scores))?;

    let model = headkv_embedded::model()?; // or a folder, or a name on the hub
    let builder = TextModelBuilder::new(model.display())
        .with_force_cpu()
        .with_prefix_cache_n(None);
    let model = hook.scope_async(builder.build()).await?;

    let question = TextMessages::new().add_message(TextMessageRole::User, "Who are you?");
    let answer = model.send_chat_request(question).await?;
    let text = answer.choices[0].message.content.as_deref();
    println!("{}", text.unwrap_or_default());
    Ok(())
}
