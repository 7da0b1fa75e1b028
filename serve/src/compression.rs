//! A request's own compression: `"headkv": {"method": "snapkv", "capacity": 256}`.

use crate::error::ApiError;
use headkv_plugin::Compression;
use serde_json::Value;

/// Keys that name things on the server.
const OURS: [&str; 1] = ["scores"];

/// The server's configuration with what the request changes.
///
/// A request that names a method which needs head scores gets those of the model.
///
/// # Errors
/// 400 for a key that does not exist or that requests may not set, or for values that contradict each other.
pub fn of(request: &Value, server: &Compression) -> Result<Compression, ApiError> {
    let wrong = |why: String| ApiError::parameter("headkv", why);
    let Value::Object(own) = request else {
        return Err(wrong(
            "headkv must be an object, such as {\"capacity\": 256}".into(),
        ));
    };
    if let Some(key) = OURS.iter().find(|key| own.contains_key(**key)) {
        return Err(wrong(format!("headkv.{key} is the server's; leave it out")));
    }
    let mut base = server.clone();
    if own.contains_key("method") || own.contains_key("head_choice") {
        base.scores = None;
    }
    let mut merged = serde_json::to_value(&base).map_err(|e| wrong(e.to_string()))?;
    if let Value::Object(merged) = &mut merged {
        merged.extend(own.clone());
    }
    let config: Compression = serde_json::from_value(merged).map_err(|e| wrong(e.to_string()))?;
    config.check().map_err(|e| wrong(e.to_string()))?;
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_request_changes_what_it_names() {
        let server = Compression {
            scores: Some("x.json".into()),
            ..Compression::new("headkv", 1024)
        };
        let smaller = of(&json!({"capacity": 64}), &server).unwrap();
        assert_eq!((smaller.capacity, &smaller.scores), (64, &server.scores));
        let other = of(&json!({"method": "snapkv", "window": 16}), &server).unwrap();
        assert_eq!((other.method.as_str(), other.window), ("snapkv", 16));
        assert_eq!(other.scores, None);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let cases = [
            (json!(3), "must be an object"),
            (json!({"scores": "/etc/passwd"}), "headkv.scores"),
            (json!({"capcity": 3}), "capcity"),
            (json!({"capacity": 3}), "capacity 3"),
            (json!({"capacity": -1}), "-1"),
        ];
        for (request, expected) in cases {
            let error = of(&request, &Compression::default()).unwrap_err();
            assert!(error.message.contains(expected), "{error}");
            assert_eq!(error.param.as_deref(), Some("headkv"));
        }
    }
}
