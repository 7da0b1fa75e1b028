//! What has to hold for whatever is sent as a request: `fuzz/` tries it too.

use crate::{
    compression, messages,
    request::{self, Common},
};
use headkv_plugin::Compression;
use serde_json::Value;

/// A body, as far as the runtime's own parser: what passes has texts only and numbers in their ranges; what does not is the
/// client's mistake, told in one line.
pub fn body(bytes: &[u8]) {
    let read = || {
        let mut fields = request::fields(bytes)?;
        let common = Common::take(&mut fields, "tiny")?;
        messages::plain(&mut fields)?;
        let server = Compression::new("snapkv", 1024);
        let compression = common.headkv.as_ref();
        let own = compression.map(|own| compression::of(own, &server));
        Ok((fields, common, own.transpose()?))
    };
    match read() {
        Ok((fields, common, own)) => {
            assert!(common.n >= 1 && common.stops.len() <= 16);
            assert!(common.max_tokens.is_none_or(|most| most >= 1));
            let temperature = fields.get("temperature").and_then(Value::as_f64);
            assert!(temperature.is_none_or(|t| (0.0..=2.0).contains(&t)));
            let text = |message: &Value| match &message["content"] {
                Value::Null => message.get("tool_calls").is_some(),
                content => content.is_string(),
            };
            let messages = fields["messages"].as_array();
            assert!(messages.is_some_and(|all| !all.is_empty() && all.iter().all(text)));
            if let Some(own) = own {
                own.check().expect("what passes can be run");
                assert_eq!(own.scores, None, "files are the server's");
            }
        }
        Err(error) => {
            let error: crate::error::ApiError = error;
            assert!(error.status.is_client_error(), "{error:?}");
            assert!(!error.message.contains(char::is_control), "{error:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BODY: &str = include_str!("../../fuzz/seeds/request_body/whole.json");

    #[test]
    fn the_fuzzers_first_bodies() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/seeds/request_body");
        let seeds: Vec<_> = std::fs::read_dir(folder).unwrap().flatten().collect();
        assert!(seeds.len() > 3);
        for seed in seeds {
            body(&std::fs::read(seed.path()).unwrap());
        }
    }

    #[test]
    fn the_whole_body_passes() {
        let mut fields = request::fields(BODY.as_bytes()).unwrap();
        let common = Common::take(&mut fields, "tiny").unwrap();
        messages::plain(&mut fields).unwrap();
        assert_eq!((common.n, common.max_tokens), (2, Some(9)));
        body(BODY.as_bytes());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn damaged_bodies_are_the_clients_mistake_or_whole(
            damages in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
            cut in prop::option::of(any::<prop::sample::Index>()),
        ) {
            let mut bytes = BODY.as_bytes().to_vec();
            for (at, byte) in damages {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            bytes.truncate(cut.map_or(bytes.len(), |cut| cut.index(bytes.len())));
            body(&bytes);
        }

        /// Numbers and types that no client sends on purpose.
        #[test]
        fn fields_of_any_value(
            field in prop::sample::select(vec![
                "model", "messages", "temperature", "top_p", "min_p", "n", "max_tokens", "max_completion_tokens", "stop",
                "stream", "stream_options", "response_format", "tool_choice", "headkv", "logit_bias", "top_k",
            ]),
            value in prop::sample::select(vec![
                "null",
                "true",
                "-1",
                "0",
                "1e308",
                "18446744073709551615",
                "0.5",
                r#""""#,
                r#""\u0000\n""#,
                "[]",
                "[[]]",
                "{}",
                "[{}]",
                r#"{"type": 3}"#,
                r#"[{"role": "user", "content": [3]}]"#,
                r#"{"capacity": 18446744073709551615}"#,
                r#"{"capacity": 16, "window": 18446744073709551615}"#,
                r#"{"beta": -1e308, "method": "headkv"}"#,
                r#"{"kernel": 0}"#,
                r#"{"scores": "/etc/passwd"}"#,
            ]),
        ) {
            let mut fields: Value = serde_json::from_str(BODY).unwrap();
            fields[field] = serde_json::from_str(value).unwrap();
            body(fields.to_string().as_bytes());
        }
    }
}
