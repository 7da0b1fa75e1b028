//! Messages of a conversation, made plain before the runtime's parser sees them: it would fetch the files and addresses
//! that a message names.

use crate::{error::ApiError, request::Fields};
use serde_json::{Value, json};

/// Texts of several parts become one, `developer` is `system`, `json_object` is the schema of any object; what is no text
/// is refused.
///
/// # Errors
/// 400 with the message that is wrong.
pub fn plain(fields: &mut Fields) -> Result<(), ApiError> {
    response_format(fields)?;
    tool_choice(fields)?;
    let wrong = |why: String| ApiError::parameter("messages", why);
    let Some(Value::Array(messages)) = fields.get_mut("messages") else {
        return Err(wrong("messages must be a list of messages".into()));
    };
    if messages.is_empty() {
        return Err(wrong("messages is empty; give at least one".into()));
    }
    for (at, message) in messages.iter_mut().enumerate() {
        let Value::Object(message) = message else {
            return Err(wrong(format!("messages[{at}] must be an object")));
        };
        match message.get("role") {
            Some(Value::String(role)) if role == "developer" => {
                message.insert("role".into(), "system".into());
            }
            Some(Value::String(_)) => {}
            _ => return Err(wrong(format!("messages[{at}].role must be a string"))),
        }
        let content = match message.get("content") {
            Some(Value::Array(parts)) => text(parts, at)?,
            Some(Value::String(_)) => continue,
            None | Some(Value::Null) if message.contains_key("tool_calls") => continue,
            _ => {
                return Err(wrong(format!(
                    "messages[{at}].content must be a string or a list of texts"
                )));
            }
        };
        message.insert("content".into(), content.into());
    }
    Ok(())
}

fn text(parts: &[Value], at: usize) -> Result<String, ApiError> {
    let texts = parts.iter().map(|part| {
        let kind = part.get("type").and_then(Value::as_str).unwrap_or("?");
        let text = part.get("text").and_then(Value::as_str);
        text.filter(|_| kind == "text").ok_or_else(|| {
            ApiError::parameter(
                "messages",
                format!(
                    "messages[{at}] has a part of type {kind}; this server's model reads text only"
                ),
            )
        })
    });
    Ok(texts.collect::<Result<Vec<_>, _>>()?.join("\n"))
}

/// The runtime knows texts and schemas.
fn response_format(fields: &mut Fields) -> Result<(), ApiError> {
    let wrong = |why: &str| Err(ApiError::parameter("response_format", why));
    let Some(format) = fields.get("response_format") else {
        return Ok(());
    };
    match format.get("type").and_then(Value::as_str) {
        Some("text") => {}
        Some("json_object") => {
            let schema = json!({"name": "object", "schema": {"type": "object"}});
            let format = json!({"type": "json_schema", "json_schema": schema});
            fields.insert("response_format".into(), format);
        }
        Some("json_schema") => {
            if !format["json_schema"]["schema"].is_object() {
                return wrong("response_format.json_schema.schema must be a JSON schema");
            }
            if !format["json_schema"]["name"].is_string() {
                return wrong("response_format.json_schema.name must be a string");
            }
        }
        _ => return wrong("response_format.type must be text, json_object or json_schema"),
    }
    Ok(())
}

fn tool_choice(fields: &mut Fields) -> Result<(), ApiError> {
    let choice = fields.get("tool_choice");
    match choice {
        None | Some(Value::Object(_)) => Ok(()),
        Some(Value::String(name)) if name == "auto" || name == "none" => Ok(()),
        Some(_) => Err(ApiError::parameter(
            "tool_choice",
            "tool_choice must be none, auto, or a function",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::fields;

    fn made(request: Value) -> Result<Fields, ApiError> {
        let mut fields = fields(request.to_string().as_bytes())?;
        plain(&mut fields).map(|()| fields)
    }

    #[test]
    fn parts_become_one_text() {
        let parts = json!([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]);
        let fields = made(json!({"messages": [{"role": "developer", "content": parts}]})).unwrap();
        let expected = json!([{"role": "system", "content": "a\nb"}]);
        assert_eq!(fields["messages"], expected);
    }

    #[test]
    fn nothing_is_fetched_and_what_is_wrong_is_named() {
        let image = json!([{"type": "image_url", "image_url": {"url": "/etc/passwd"}}]);
        let cases = [
            (json!({}), "messages must be"),
            (json!({"messages": []}), "empty"),
            (json!({"messages": "hi"}), "messages must be"),
            (json!({"messages": [1]}), "messages[0] must be"),
            (json!({"messages": [{"content": "x"}]}), "messages[0].role"),
            (
                json!({"messages": [{"role": "user"}]}),
                "messages[0].content",
            ),
            (
                json!({"messages": [{"role": "user", "content": image}]}),
                "text only",
            ),
            (
                json!({"messages": [], "response_format": {"type": "xml"}}),
                "response_format",
            ),
            (
                json!({"messages": [], "tool_choice": "required"}),
                "tool_choice",
            ),
        ];
        for (request, expected) in cases {
            let error = made(request.clone()).unwrap_err();
            assert!(error.message.contains(expected), "{request}: {error}");
        }
    }
}
