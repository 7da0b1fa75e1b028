//! What chat and completion requests have in common: bodies, and parameters that are checked before anything runs.
//!
//! Like `messages` and `compression`, it knows no runtime: `fuzz/` compiles the three without it.

use crate::error::ApiError;
use axum::body::{Body, HttpBody};
use futures::StreamExt;
use serde_json::{Map, Value};
use std::time::Duration;

/// A request's fields.
pub type Fields = Map<String, Value>;

/// How long a body may take to come.
const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes of a body over the limit that are read and forgotten, so that the client gets to read why.
const READ_ON: usize = 256 << 20;

/// Numbers that have a range: name, least, most, whether the least itself is out.
const RANGES: [(&str, f64, f64, bool); 9] = [
    ("temperature", 0.0, 2.0, false),
    ("top_p", 0.0, 1.0, true),
    ("min_p", 0.0, 1.0, false),
    ("presence_penalty", -2.0, 2.0, false),
    ("frequency_penalty", -2.0, 2.0, false),
    ("repetition_penalty", 0.0, 10.0, true),
    ("dry_multiplier", 0.0, 100.0, false),
    ("dry_base", 0.0, 100.0, false),
    ("top_k", 1.0, u32::MAX as f64, false),
];

/// Parameters that both kinds of requests have, taken out of their fields.
#[derive(Clone, Debug, PartialEq)]
pub struct Common {
    /// Whether the answer comes piece by piece.
    pub stream: bool,
    /// Whether a stream ends with the usage.
    pub include_usage: bool,
    /// Answers to each prompt.
    pub n: usize,
    /// Texts that end an answer.
    pub stops: Vec<String>,
    /// The most tokens of an answer.
    pub max_tokens: Option<usize>,
    /// What its random numbers begin with.
    pub seed: Option<u64>,
    /// The request's own compression.
    pub headkv: Option<Value>,
    /// Whether what comes before the last message is compressed without knowing that.
    pub question_apart: bool,
}

/// Reads a body up to a limit.
///
/// # Errors
/// 413 over the limit; 400 if the client stops in between.
pub async fn read(body: Body, limit: usize) -> Result<Vec<u8>, ApiError> {
    match tokio::time::timeout(PATIENCE, read_all(body, limit)).await {
        Ok(read) => read,
        Err(_) => Err(ApiError::slow(PATIENCE.as_secs())),
    }
}

async fn read_all(body: Body, limit: usize) -> Result<Vec<u8>, ApiError> {
    let expected = body.size_hint().lower();
    let (mut read, mut seen) = (Vec::new(), 0);
    let mut over = expected > limit as u64;
    let mut pieces = body.into_data_stream();
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|_| ApiError::request("the body ended before its end"))?;
        seen += piece.len();
        over |= seen > limit;
        if !over {
            read.extend_from_slice(&piece);
        } else if seen > READ_ON {
            break;
        }
    }
    if over {
        return Err(ApiError::too_large(limit));
    }
    Ok(read)
}

/// Reads a body, and takes the common parameters out; what is left is for the runtime's own request type.
///
/// # Errors
/// As [`read`], [`fields`] and [`Common::take`].
pub async fn begin(body: Body, limit: usize, model: &str) -> Result<(Fields, Common), ApiError> {
    let mut fields = fields(&read(body, limit).await?)?;
    let common = Common::take(&mut fields, model)?;
    Ok((fields, common))
}

/// The fields of a body; those that are null count as left out.
///
/// # Errors
/// 400 if it is not a JSON object.
pub fn fields(body: &[u8]) -> Result<Fields, ApiError> {
    let value: Value = serde_json::from_slice(body)
        .map_err(|e| ApiError::request(format!("the body is not valid JSON: {e}")))?;
    let Value::Object(mut fields) = value else {
        return Err(ApiError::request("the body is not a JSON object"));
    };
    fields.retain(|_, value| !value.is_null());
    Ok(fields)
}

impl Common {
    /// Takes the common parameters out and checks them; what is left is for the runtime's own request type.
    ///
    /// # Errors
    /// 404 for another model; 400 for a parameter out of range.
    pub fn take(fields: &mut Fields, model: &str) -> Result<Self, ApiError> {
        let asked = fields.remove("model");
        match &asked {
            None => {}
            Some(Value::String(asked)) if asked == model || asked == "default" => {}
            Some(Value::String(asked)) => return Err(ApiError::model(asked, model)),
            Some(_) => return Err(ApiError::parameter("model", "model must be a string")),
        }
        for (name, least, most, open) in RANGES {
            number(fields, name, least, most, open)?;
        }
        bias(fields)?;
        for unknown in [
            "web_search_options",
            "suffix",
            "audio",
            "functions",
            "function_call",
        ] {
            if fields.contains_key(unknown) {
                let why = format!("{unknown} is not offered by this server; leave it out");
                return Err(ApiError::parameter(unknown, why));
            }
        }
        // The prompt is checked against the context, and never cut.
        fields.remove("truncate_sequence");
        let stream = flag(fields, "stream")?;
        let include_usage = match fields.remove("stream_options") {
            None => false,
            Some(Value::Object(mut options)) => flag(&mut options, "include_usage")?,
            Some(_) => {
                return Err(ApiError::parameter(
                    "stream_options",
                    "stream_options must be an object",
                ));
            }
        };
        let mut headkv = fields.remove("headkv");
        let mut question_apart = false;
        if let Some(Value::Object(own)) = &mut headkv {
            question_apart = flag(own, "question_apart")?;
            if own.is_empty() {
                headkv = None;
            }
        }
        let newer = count(fields, "max_completion_tokens", 1)?;
        let older = count(fields, "max_tokens", 1)?;
        Ok(Self {
            stream,
            include_usage,
            n: count(fields, "n", 1)?.unwrap_or(1),
            stops: stops(fields)?,
            max_tokens: newer.or(older),
            seed: seed(fields)?,
            headkv,
            question_apart,
        })
    }
}

fn number(fields: &Fields, name: &str, least: f64, most: f64, open: bool) -> Result<(), ApiError> {
    let Some(value) = fields.get(name) else {
        return Ok(());
    };
    let inside = |x: f64| x <= most && if open { x > least } else { x >= least };
    match value.as_f64() {
        Some(x) if inside(x) => Ok(()),
        Some(x) => {
            let than = if open { "above" } else { "at least" };
            let why = format!("{name} is {x}; it must be {than} {least} and at most {most}");
            Err(ApiError::parameter(name, why))
        }
        None => Err(ApiError::parameter(
            name,
            format!("{name} must be a number"),
        )),
    }
}

/// The runtime reads biases and applies none: better said than passed over.
fn bias(fields: &mut Fields) -> Result<(), ApiError> {
    match fields.remove("logit_bias") {
        Some(Value::Object(biases)) if !biases.is_empty() => Err(ApiError::parameter(
            "logit_bias",
            "logit_bias has no effect in this runtime; leave it out",
        )),
        None | Some(Value::Object(_)) => Ok(()),
        Some(_) => Err(ApiError::parameter(
            "logit_bias",
            "logit_bias must be an object of token ids",
        )),
    }
}

/// Takes a field out that is true or false, or left out for false.
///
/// # Errors
/// 400 for anything else.
pub fn flag(fields: &mut Fields, name: &str) -> Result<bool, ApiError> {
    match fields.remove(name) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(value)) => Ok(value),
        Some(_) => Err(ApiError::parameter(
            name,
            format!("{name} must be true or false"),
        )),
    }
}

/// Takes out a whole number.
///
/// # Errors
/// 400 if it is another value, or below `least`.
pub fn count(fields: &mut Fields, name: &str, least: u64) -> Result<Option<usize>, ApiError> {
    let Some(value) = fields.remove(name) else {
        return Ok(None);
    };
    match value.as_u64() {
        // The cap keeps sums of such numbers far from an overflow.
        Some(n) if n >= least => Ok(Some(n.min(1 << 40) as usize)),
        _ => {
            let why = format!("{name} is {value}; it must be a whole number of at least {least}");
            Err(ApiError::parameter(name, why))
        }
    }
}

/// A seed is any whole number; negative ones count from the end.
fn seed(fields: &mut Fields) -> Result<Option<u64>, ApiError> {
    let Some(value) = fields.remove("seed") else {
        return Ok(None);
    };
    let negative = value.as_i64().map(i64::cast_unsigned);
    let seed = value.as_u64().or(negative).ok_or_else(|| {
        let why = format!("seed is {value}; it must be a whole number of up to 64 bits");
        ApiError::parameter("seed", why)
    })?;
    Ok(Some(seed))
}

fn stops(fields: &mut Fields) -> Result<Vec<String>, ApiError> {
    let wrong = || ApiError::parameter("stop", "stop must be a string, or up to 16 of them");
    match fields.remove("stop") {
        None => Ok(Vec::new()),
        Some(Value::String(stop)) => Ok(vec![stop]),
        Some(Value::Array(stops)) if stops.len() <= 16 => stops
            .into_iter()
            .map(|stop| match stop {
                Value::String(stop) => Ok(stop),
                _ => Err(wrong()),
            })
            .collect(),
        Some(_) => Err(wrong()),
    }
}

/// The runtime's own request type, of what is left of the fields.
///
/// # Errors
/// 400 with the first field that has another type.
pub fn typed<T: serde::de::DeserializeOwned>(fields: Fields) -> Result<T, ApiError> {
    serde_json::from_value(Value::Object(fields)).map_err(|e| ApiError::request(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn take(value: Value) -> Result<Common, ApiError> {
        let mut fields = fields(value.to_string().as_bytes())?;
        Common::take(&mut fields, "tiny")
    }

    #[test]
    fn parameters_are_taken_with_their_defaults() {
        let common = take(json!({"model": "tiny", "n": null, "stop": "x", "unknown": 1})).unwrap();
        assert_eq!((common.n, common.stream), (1, false));
        assert_eq!(common.stops, ["x"]);
        let both = take(json!({"max_tokens": 5, "max_completion_tokens": 7})).unwrap();
        assert_eq!((both.max_tokens, both.seed), (Some(7), None));
        let seed = |value: Value| take(json!({"seed": value})).unwrap().seed;
        assert_eq!(seed(json!(u64::MAX)), seed(json!(-1)));
        assert_eq!(seed(json!(3)), Some(3));
        let own = |value: Value| {
            let common = take(json!({"headkv": value})).unwrap();
            (common.headkv, common.question_apart)
        };
        let apart = own(json!({"question_apart": true, "capacity": 64}));
        assert_eq!(apart, (Some(json!({"capacity": 64})), true));
        assert_eq!(own(json!({"question_apart": true})), (None, true));
    }

    #[test]
    fn what_is_out_of_range_is_named() {
        let cases = [
            (json!({"temperature": 3}), "temperature"),
            (json!({"temperature": "hot"}), "temperature"),
            (json!({"top_p": 0}), "top_p"),
            (json!({"n": 0}), "n"),
            (json!({"n": 1.5}), "n"),
            (json!({"max_tokens": -1}), "max_tokens"),
            (json!({"max_tokens": 0}), "max_tokens"),
            (json!({"stop": [1]}), "stop"),
            (json!({"seed": 1.5}), "seed"),
            (json!({"seed": "x"}), "seed"),
            (json!({"headkv": {"question_apart": 1}}), "question_apart"),
            (json!({"stream": "yes"}), "stream"),
            (json!({"stream_options": 1}), "stream_options"),
            (json!({"logit_bias": {"1": 10}}), "logit_bias"),
            (json!({"logit_bias": 3}), "logit_bias"),
            (json!({"model": 1}), "model"),
            (json!({"web_search_options": {}}), "web_search_options"),
        ];
        for (request, param) in cases {
            let error = take(request.clone()).unwrap_err();
            assert_eq!(error.status, 400, "{request}");
            assert_eq!(error.param.as_deref(), Some(param), "{request}");
        }
        assert_eq!(take(json!({"model": "gpt-4"})).unwrap_err().status, 404);
    }

    #[tokio::test]
    async fn bodies_over_the_limit_are_refused() {
        let body = || Body::from(vec![b'x'; 100]);
        assert_eq!(read(body(), 100).await.unwrap().len(), 100);
        assert_eq!(read(body(), 99).await.unwrap_err().status, 413);
    }
}
