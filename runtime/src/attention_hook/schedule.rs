//! What the scheduler runs together.

use super::of;
use crate::sequence::Sequence;

/// How a model's prompts share the engine with the sequences that decode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PromptPolicy {
    /// Prompt tokens of one pass, unless a single prompt has more. A pass of 16,384 keeps every core busy; more only
    /// costs memory, because all activations of a pass are held at once.
    pub tokens: usize,
    /// Whether running sequences get a token between two such passes. Off, prompts run first: the batch that then
    /// decodes is as large as it can be, which is fastest where nobody watches the answers come.
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
/// Sequences decode together whatever their lengths; prompts of one length run together, the oldest first.
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
    let (prompts, mut decoding): (Vec<_>, Vec<_>) =
        running.into_iter().partition(Sequence::is_prompt);
    let length = prompts.first().map_or(0, Sequence::len);
    let mut room = (policy.tokens / length.max(1)).max(1);
    let (mut now, mut later): (Vec<_>, Vec<_>) = prompts.into_iter().partition(|seq| {
        let fits = seq.len() == length && room > 0;
        room -= usize::from(fits);
        fits
    });
    if now.is_empty() || policy.interleave {
        now.append(&mut decoding);
    }
    later.append(&mut decoding);
    later.into_iter().for_each(wait);
    Ok(now)
}
