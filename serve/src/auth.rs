//! API keys, compared in constant time.

use crate::{error::ApiError, state::App};
use anyhow::{Context, Result, bail};
use axum::{
    extract::{Request, State},
    http::{HeaderMap, header::AUTHORIZATION},
    middleware::Next,
    response::{IntoResponse, Response},
};
use std::{fs, path::Path, sync::Arc};
use subtle::ConstantTimeEq;

/// The keys that may ask; without any, everybody may.
#[derive(Default)]
pub struct Keys(Vec<String>);

impl Keys {
    /// Reads a file of keys, one a line; empty lines and those that begin with `#` are none.
    ///
    /// # Errors
    /// A file that cannot be read or has no key.
    pub fn read(file: &Path) -> Result<Self> {
        let text = fs::read_to_string(file)
            .with_context(|| format!("cannot read --api-key-file {}", file.display()))?;
        let lines = text.lines().map(str::trim);
        let keys: Vec<String> = lines
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .map(String::from)
            .collect();
        if keys.is_empty() {
            bail!("{} has no key; write one a line", file.display());
        }
        Ok(Self(keys))
    }

    /// Whether nobody is asked for a key.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a request has one of the keys.
    pub fn admit(&self, headers: &HeaderMap) -> bool {
        if self.is_empty() {
            return true;
        }
        let value = headers.get(AUTHORIZATION).and_then(|v| v.to_str().ok());
        let Some((scheme, key)) = value.and_then(|v| v.split_once(' ')) else {
            return false;
        };
        let key = key.trim();
        // All of them are compared, so that the time tells nothing but their number.
        let known = self.0.iter().fold(0, |known, own| {
            known | own.as_bytes().ct_eq(key.as_bytes()).unwrap_u8()
        });
        scheme.eq_ignore_ascii_case("bearer") && known == 1
    }
}

/// Refuses requests without a key.
pub async fn check(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    if app.keys.admit(request.headers()) {
        next.run(request).await
    } else {
        ApiError::key().into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_key_is_one() {
        let keys = Keys(vec!["first".into(), "second".into()]);
        let admit = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, value.parse().unwrap());
            keys.admit(&headers)
        };
        assert!(admit("Bearer first") && admit("bearer second"));
        for wrong in [
            "Bearer",
            "Bearer ",
            "Bearer firs",
            "Bearer firstx",
            "Basic first",
            "first",
        ] {
            assert!(!admit(wrong), "{wrong}");
        }
        assert!(!keys.admit(&HeaderMap::new()));
        assert!(Keys::default().admit(&HeaderMap::new()));
    }
}
