//! What the scheduler runs together.

use std::time::Duration;

use super::{ended, of};
use crate::sequence::Sequence;

/// How a model's prompts share the engine with the sequences that decode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PromptPolicy {
    /// Prompt tokens of one pass. A pass of 16,384 keeps every core busy; more only costs memory, because all activations
    /// of a pass are held at once.
    pub tokens: usize,
    /// Whether running sequences get a token between two such passes; a prompt of more tokens is then read in pieces.
    /// Off, prompts run first and whole: the batch that then decodes is as large as it can be, which is fastest where
    /// nobody watches the answers come, and no prompt's keys and values are held in all layers at once.
    pub interleave: bool,
}

impl Default for PromptPolicy {
    fn default() -> Self {
        Self {
            tokens: 16_384,
            interleave: false,
        }
    }
}

/// Of a hooked model's sequences that could run, those that run now; `wait` takes the others until the next step. `Err`
/// gives an unhooked model's sequences back.
///
/// Sequences decode together whatever their lengths; prompts of one length that have come equally far run together, the
/// oldest first.
pub(crate) fn bucket(
    mut running: Vec<Sequence>,
    wait: impl FnMut(Sequence),
) -> Result<Vec<Sequence>, Vec<Sequence>> {
    let Some(policy) = running
        .first_mut()
        .and_then(of)
        .map(|seq| seq.hook.prompts())
    else {
        return Err(running);
    };
    running.sort_by_key(|seq| *seq.id());
    let (mut prompts, mut decoding): (Vec<_>, Vec<_>) =
        running.into_iter().partition(Sequence::is_prompt);
    let first = prompts.first_mut().map_or((0, 0), progress);
    // Raw logits are those of the whole prompt.
    let whole = !policy.interleave || prompts.first().is_some_and(|seq| seq.return_raw_logits);
    let most = if whole {
        usize::MAX
    } else {
        policy.tokens.max(1)
    };
    let length = first.1.min(most);
    let mut room = (policy.tokens / length.max(1)).max(1);
    let (mut now, mut later) = (Vec::new(), Vec::new());
    for mut seq in prompts {
        if room > 0 && progress(&mut seq) == first {
            room -= 1;
            take(&mut seq, length);
            now.push(seq);
        } else {
            later.push(seq);
        }
    }
    if now.is_empty() || policy.interleave {
        now.append(&mut decoding);
    }
    later.append(&mut decoding);
    later.into_iter().for_each(wait);
    Ok(now)
}

/// Tokens of a prompt that have run, and that are still to run.
fn progress(seq: &mut Sequence) -> (usize, usize) {
    let len = seq.len();
    of(seq).map_or((0, len), |state| {
        let remaining = state.remaining();
        (state.seen(0), remaining)
    })
}

/// Makes the next `length` tokens of a prompt what its next pass runs.
fn take(seq: &mut Sequence, length: usize) {
    let Some(state) = of(seq).cloned() else {
        return;
    };
    let (seen, prompt) = (state.seen(0), &state.info().prompt);
    if seen > 0 || length < prompt.len() {
        let end = (seen + length).min(prompt.len());
        seq.set_prefill_toks(prompt[seen..end].to_vec());
        seq.token_offset = seen;
    }
}

/// Whether the pass that has just run was not the last piece of its prompts, so that nothing is sampled.
pub(crate) fn unfinished(seqs: &mut [&mut Sequence]) -> bool {
    let mut unfinished = seqs.iter_mut().map(|seq| {
        let going = seq.is_prompt() && !ended(seq);
        let state = of(seq).filter(|state| going && state.failure().is_none());
        state.is_some_and(|state| state.seen(0) < state.info().prompt.len())
    });
    unfinished.any(|unfinished| unfinished)
}

/// The time that a prompt has taken, all of its pieces together, after one that took `piece`.
pub(crate) fn prompt_time(seq: &mut Sequence, piece: Duration) -> Duration {
    of(seq).map_or(piece, |state| state.add_prompt_time(piece))
}
