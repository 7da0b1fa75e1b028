//! What the scheduler runs together.

use std::sync::atomic::Ordering;

use super::pass::HOOKED;
use crate::{kv_cache::KvCache, sequence::Sequence};

/// Prompt tokens of one pass, unless a single prompt has more.
///
/// A pass of that many keeps every core busy already; more only costs memory, because all activations of a pass are held
/// at once.
const PROMPT_TOKENS: usize = 16_384;

/// The length by which the scheduler buckets a sequence: hooked sequences decode together whatever their lengths.
pub(crate) fn bucket_len(seq: &mut Sequence) -> usize {
    let len = seq.len();
    let hooked = matches!(seq.normal_cache().first(), Some(Some(KvCache::Hooked(_))));
    if hooked && seq.is_completion() {
        usize::MAX
    } else {
        len
    }
}

/// Takes the prompts beyond what one pass holds out of `running`, those that came last, to wait for the next one.
pub(crate) fn limit_prompts(running: &mut Vec<Sequence>) -> Vec<Sequence> {
    if !HOOKED.load(Ordering::Relaxed) || !running.iter().all(Sequence::is_prompt) {
        return Vec::new();
    }
    running.sort_by_key(|seq| *seq.id());
    let mut tokens = 0;
    let fitting = running.iter().take_while(|seq| {
        tokens += seq.len();
        tokens <= PROMPT_TOKENS
    });
    let fitting = fitting.count().max(1);
    running.split_off(fitting.min(running.len()))
}

/// Whether prompts run before generated tokens: the batch that decodes is then as large as it can be.
///
/// Nobody waits forever: the scheduler admits no prompt beyond its largest batch.
pub(crate) fn prompts_first() -> bool {
    HOOKED.load(Ordering::Relaxed)
}
