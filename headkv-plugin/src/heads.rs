//! Query heads that share a KV head under grouped-query attention: which of them is kept for, and how their scores become one.

use serde::{Deserialize, Serialize};

/// For which heads a set of positions is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Granularity {
    /// One set per query head, as in the original: under grouped-query attention it stores a copy per query head.
    QueryHead,
    /// One set per KV head, shared by its query heads: a capacity costs what it says.
    KvHead,
}

impl Granularity {
    /// Of a layer's query heads and KV heads, those for which a set of positions is kept.
    pub(crate) fn stored_heads(self, heads: usize, kv_heads: usize) -> usize {
        match self {
            Granularity::QueryHead => heads,
            Granularity::KvHead => kv_heads,
        }
    }
}

/// How scores of the query heads that share a KV head become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Reduce {
    /// Their mean.
    Mean,
    /// Their maximum.
    Max,
}
