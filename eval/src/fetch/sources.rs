//! Where the files come from: addresses, the secret of one of them, and digests that are known beforehand.

use super::location;
use crate::Error;
use std::{env, fs, path::PathBuf, time::Duration};

/// The environment variable that names another place for GitHub's raw files.
pub const GITHUB_VARIABLE: &str = "HEADKV_GITHUB_RAW";

const HUB: &str = "https://huggingface.co";
const GITHUB: &str = "https://raw.githubusercontent.com";

/// The commits that files are taken of: those that the digests below belong to.
pub(super) mod commits {
    /// github.com/THUDM/LongBench, 2025-01-15.
    pub const LONGBENCH: &str = "2e00731f8d0bff23dc4325161044d0ed8af94c1e";
    /// github.com/booydar/babilong, 2026-06-01.
    pub const BABILONG_SOURCE: &str = "7a6efee29f5cac03c3c410e6799c80fd2ffe3610";
    /// The hub's data set RMT-team/babilong.
    pub const BABILONG_DATA: &str = "ee0d588794c7ac098062ee0d247c733d62e94fe2";
    /// github.com/FYYFU/HeadKV, 2025-03-10.
    pub const HEADKV: &str = "0862a0955fe82e9ff611d59541918e02c5def625";
}

/// SHA-256 of files at these commits, by the end of their paths.
const KNOWN: [(&str, &str); 7] = [
    (
        "LongBench/config/dataset2prompt.json",
        "56d22ad4f382169c2b8a11ff4c982a4a1bea096c8152b0f0b85b64686b157c30",
    ),
    (
        "LongBench/config/dataset2maxlen.json",
        "72966b3c0933e214591637fb085798c5e687ebff4ddaab5d99bbc31120532022",
    ),
    (
        "babilong/prompts.py",
        "be08d7e466170177e38fddb997e3dd9ffb281d5a830edd240933e069a9c5c2ee",
    ),
    (
        "Meta-Llama-3-8B-Instruct_retrieval_heads.json",
        "94c9a256e1e0d5753b1714428cd61d8157ce2a0b70366c264f3cdc910bb4ec06",
    ),
    (
        "Meta-Llama-3-8B-Instruct_retrieval_reasoning_heads.json",
        "4d23c9fb9026d9f08bf9d3399cb25bcf55dac42510b2a472dbe2fa92168bc924",
    ),
    (
        "Mistral-7B-Instruct-v0.2_retrieval_heads.json",
        "73a58163c51df53b2b9e5495295f3ee80e17ea43d6691f201241b449a8d095bd",
    ),
    (
        "Mistral-7B-Instruct-v0.2_retrieval_reasoning_heads.json",
        "21813dee6fd77abf65d5fee85b3649e445f34ec8d6009facea791362cc774b2f",
    ),
];

/// Who publishes a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    Hub,
    GitHub,
}

/// Where files come from.
#[derive(Clone)]
pub struct Sources {
    hub: String,
    github: String,
    token: Option<String>,
    /// Nothing may be asked for over the network.
    pub offline: bool,
    /// Digests that are known beforehand, by the ends of the files' paths: a file with another one is refused.
    pub known: &'static [(&'static str, &'static str)],
    /// The wait before a request that failed is sent again; it doubles each time.
    pub pause: Duration,
}

impl Sources {
    /// Other places: a hub, and one of GitHub's raw files. No digests are known there, and no token is sent.
    ///
    /// # Errors
    /// [`Error::Option`] for an address that is not HTTP, or that holds more than a place.
    pub fn new(hub: &str, github: &str) -> Result<Self, Error> {
        Ok(Self {
            hub: location::base("HF_ENDPOINT", hub)?,
            github: location::base(GITHUB_VARIABLE, github)?,
            token: None,
            offline: false,
            known: &[],
            pause: Duration::from_millis(500),
        })
    }

    /// The places that the environment names, or the public ones: `HF_ENDPOINT`, `HEADKV_GITHUB_RAW`, with `HF_TOKEN` or
    /// the file that a login left, unless `HF_HUB_OFFLINE=1`.
    ///
    /// # Errors
    /// [`Error::Option`] for an address that is none, or a token that no header can carry.
    pub fn from_env() -> Result<Self, Error> {
        let hub = set("HF_ENDPOINT").unwrap_or_else(|| HUB.into());
        let github = set(GITHUB_VARIABLE).unwrap_or_else(|| GITHUB.into());
        let token = set("HF_TOKEN").or_else(|| set("HUGGING_FACE_HUB_TOKEN"));
        let sources = Self {
            offline: set("HF_HUB_OFFLINE").is_some_and(|value| value != "0"),
            known: &KNOWN,
            ..Self::new(&hub, &github)?
        };
        match token.or_else(login) {
            Some(token) => sources.with_token(&token),
            None => Ok(sources),
        }
    }

    /// The same places, and the hub's secret.
    ///
    /// # Errors
    /// [`Error::Option`] for a token that no header can carry.
    pub fn with_token(self, token: &str) -> Result<Self, Error> {
        let token = token.trim();
        if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Error::Option(
                "the token in HF_TOKEN has characters that are not visible ASCII; set it again"
                    .into(),
            ));
        }
        Ok(Self {
            token: Some(token.into()),
            ..self
        })
    }

    pub(super) fn url(&self, origin: Origin, path: &str) -> String {
        let base = match origin {
            Origin::Hub => &self.hub,
            Origin::GitHub => &self.github,
        };
        format!("{base}/{path}")
    }

    /// The secret that is sent to an origin.
    pub(super) fn token(&self, origin: Origin) -> Option<&str> {
        match origin {
            Origin::Hub => self.token.as_deref(),
            Origin::GitHub => None,
        }
    }

    /// The variable that names another address.
    pub(super) fn variable(origin: Origin) -> &'static str {
        match origin {
            Origin::Hub => "HF_ENDPOINT",
            Origin::GitHub => GITHUB_VARIABLE,
        }
    }

    /// The digest that the file at that path has to have, if it is known.
    pub(super) fn digest(&self, path: &str) -> Option<&'static str> {
        let known = self.known.iter().find(|(end, _)| {
            path.strip_suffix(end)
                .is_some_and(|before| before.is_empty() || before.ends_with('/'))
        });
        known.map(|(_, digest)| *digest)
    }
}

fn set(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// The token that the hub's own program left at a login.
fn login() -> Option<String> {
    let home = set("HF_HOME").map(PathBuf::from).or_else(|| {
        let home = env::home_dir()?;
        Some(home.join(".cache").join("huggingface"))
    })?;
    let token = fs::read_to_string(home.join("token")).ok()?;
    Some(token.trim().to_string()).filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fetch::{Options, What, wanted};

    #[test]
    fn every_pinned_file_has_its_digest() {
        let mut sources = Sources::new(HUB, GITHUB).unwrap();
        sources.known = &KNOWN;
        let mut found = 0;
        for what in [What::Longbench, What::Babilong, What::Scores] {
            let options = Options {
                what,
                to: "data".into(),
                tasks: Vec::new(),
                lengths: Vec::new(),
            };
            for file in wanted::list(&options).unwrap() {
                let digest = sources.digest(&file.path);
                assert_eq!(digest.is_some(), file.origin == Origin::GitHub, "{file:?}");
                found += usize::from(digest.is_some());
            }
        }
        assert_eq!(found, KNOWN.len());
        assert_eq!(sources.digest("a/not-babilong/prompts.py"), None);
    }

    #[test]
    fn a_token_goes_to_the_hub_alone_and_is_checked() {
        let sources = Sources::new(HUB, GITHUB).unwrap();
        assert!(sources.clone().with_token("a\r\nb").is_err());
        let sources = sources.with_token("hf_x\n").unwrap();
        assert_eq!(sources.token(Origin::Hub), Some("hf_x"));
        assert_eq!(sources.token(Origin::GitHub), None);
    }
}
