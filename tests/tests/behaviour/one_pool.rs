//! What is kept is decided for all layers together: in one pool of their heads, or when the prompt was said again.

use headkv_engine::{Engine, Generation, Request};
use headkv_plugin::Compression;
use headkv_tests::tiny_engine;
use mistralrs_core::attention_hook::PromptPolicy;

fn pooled(method: &str, capacity: usize) -> Compression {
    let scores = headkv_tests::root().join("head_scores/tiny_retrieval.json");
    Compression::new(method, capacity).with_scores(scores)
}

fn text(engine: &Engine, seed: u64, characters: usize) -> Vec<u32> {
    engine
        .encode(&headkv_haystack::text::generate(seed, characters))
        .unwrap()
}

fn ask(engine: &Engine, requests: &[Request]) -> Vec<Generation> {
    engine.generate(requests).unwrap()
}

#[test]
fn all_layers_together_keep_the_budget() {
    let engine = tiny_engine(|_| ());
    let shape = engine.shape();
    let token = 2 * shape.layers * shape.kv_heads * shape.head_dim * engine.element_bytes();
    let context = text(&engine, 3, 1_500);
    let question = engine.encode("\nWho was there?").unwrap();
    for (method, ranking) in [
        ("headkv-pool", None),
        ("kvzip", None),
        ("snapkv", Some("kvzip")),
    ] {
        for then in [&[][..], &question] {
            let compression = Compression {
                ranking: ranking.map(Into::into),
                ..pooled(method, 40)
            };
            let request = Request {
                then: then.to_vec(),
                ..Request::new(context.clone(), 10).compressed(compression)
            };
            let answer = ask(&engine, &[request]).remove(0);
            let about = format!("{method}, then {}", then.len());
            assert_eq!(answer.kept_bytes, 40 * token, "{about}");
            assert_eq!(answer.prompt_tokens, context.len() + then.len(), "{about}");
            assert_eq!(answer.tokens.len(), 10, "{about}");
        }
    }
}

#[test]
fn what_is_kept_whole_answers_like_full() {
    let engine = tiny_engine(|_| ());
    let context = text(&engine, 4, 1_000);
    let full = ask(&engine, &[Request::new(context.clone(), 10)]).remove(0);
    for method in ["headkv-pool", "kvzip"] {
        let all = pooled(method, context.len());
        let answer = ask(
            &engine,
            &[Request::new(context.clone(), 10).compressed(all)],
        )
        .remove(0);
        assert_eq!(answer.tokens, full.tokens, "{method}");
    }
}

#[test]
fn batches_and_pieces_answer_as_a_prompt_alone() {
    let alone = tiny_engine(|_| ());
    let pieces = tiny_engine(|options| {
        options.prompts = PromptPolicy {
            tokens: 150,
            interleave: true,
        }
    });
    let contexts: Vec<_> = (0..3).map(|seed| text(&alone, seed, 1_500)).collect();
    for method in ["headkv-pool", "kvzip"] {
        let request =
            |context: &Vec<u32>| Request::new(context.clone(), 6).compressed(pooled(method, 64));
        let requests: Vec<_> = contexts.iter().map(request).collect();
        let together = ask(&alone, &requests);
        for (request, together) in requests.iter().zip(together) {
            let expected = ask(&alone, std::slice::from_ref(request)).remove(0);
            assert_eq!(together.tokens, expected.tokens, "{method}");
            assert_eq!(together.kept_bytes, expected.kept_bytes, "{method}");
            let in_pieces = ask(&pieces, std::slice::from_ref(request)).remove(0);
            assert_eq!(in_pieces.kept_bytes, expected.kept_bytes, "{method}");
            // Rounding may rank two tokens otherwise; the first token is far from undecided.
            assert_eq!(in_pieces.tokens[0], expected.tokens[0], "{method}");
        }
    }
}

#[test]
fn a_prompt_that_leaves_no_room_to_say_it_again_ends_alone() {
    let engine = tiny_engine(|_| ());
    let long: Vec<u32> = text(&engine, 5, 80_000);
    let long = long[..engine.context() - 12].to_vec();
    let short = text(&engine, 6, 1_000);
    let answers = engine.generate_each(&[
        Request::new(long, 4).compressed(pooled("kvzip", 32)),
        Request::new(short, 4).compressed(pooled("kvzip", 32)),
    ]);
    let message = answers[0].as_ref().unwrap_err().to_string();
    assert!(
        message.contains("of the context to say it again"),
        "{message}"
    );
    assert_eq!(answers[1].as_ref().unwrap().tokens.len(), 4);
}
