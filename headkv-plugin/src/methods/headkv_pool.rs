//! `headkv-pool`: as `headkv-plus`, with the heads of all layers in one competition.
//!
//! Nothing is decided before the last layer has ranked its positions: until then every layer holds the whole prompt, as much
//! as with no compression at all. That is what it costs; a layer-by-layer method holds one layer's.

use super::{Defaults, Entry, headkv_plus};

pub fn entry() -> Entry {
    let about =
        "as headkv-plus, in one pool over all layers; holds the whole prompt until its last layer";
    Entry::new("headkv-pool", |b| {
        Ok(Box::new(headkv_plus::plus(b)?.across_layers()))
    })
    .about(about)
    .needs_scores()
    .defaults(Defaults {
        // The studies' choice on other needles: a floor of half the budget.
        beta: 2.0,
        ..headkv_plus::defaults()
    })
}
