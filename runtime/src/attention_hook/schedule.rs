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

/// What a pass is to run of a prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NextPass {
    /// Its next tokens, so many at most.
    Prompt(usize),
    /// These tokens instead, at the positions of its next ones. They are no part of the sequence: what they leave is the
    /// hook's to use, and the prompt then goes on from where it was. The prompt's last token must still be to run.
    Aside(Vec<u32>),
}

/// A prompt's next pass.
struct Work {
    /// Tokens of the prompt that have run.
    seen: usize,
    /// Its tokens that are still to run, in this pass and in later ones.
    remaining: usize,
    next: NextPass,
}

impl Work {
    fn of(seq: &mut Sequence) -> Self {
        let len = seq.len();
        let Some(state) = of(seq) else {
            let next = NextPass::Prompt(usize::MAX);
            return Self {
                seen: 0,
                remaining: len,
                next,
            };
        };
        // What is known from elsewhere has to be asked first.
        let remaining = state.remaining();
        Self {
            seen: state.seen(0),
            remaining,
            next: state.next_pass(),
        }
    }

    fn tokens(&self) -> usize {
        match &self.next {
            NextPass::Prompt(most) => self.remaining.min(*most),
            NextPass::Aside(tokens) => tokens.len(),
        }
    }

    /// Whether two prompts run in one batch.
    fn runs_with(&self, other: &Self) -> bool {
        let of = |work: &Self| {
            let aside = matches!(work.next, NextPass::Aside(_));
            (work.seen, work.remaining, work.tokens(), aside)
        };
        of(self) == of(other)
    }

    /// Makes the first `length` tokens of it what the prompt's next pass runs.
    fn take(self, seq: &mut Sequence, length: usize) {
        let Some(state) = of(seq).cloned() else {
            return;
        };
        let prompt = &state.info().prompt;
        state.set_aside(matches!(self.next, NextPass::Aside(_)));
        let tokens = match self.next {
            NextPass::Prompt(_) if self.seen == 0 && length >= prompt.len() => return,
            NextPass::Prompt(_) => {
                let end = (self.seen + length).min(prompt.len());
                prompt[self.seen..end].to_vec()
            }
            NextPass::Aside(tokens) => tokens,
        };
        seq.set_prefill_toks(tokens);
        seq.token_offset = self.seen;
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
    // Raw logits are those of the whole prompt.
    let whole = !policy.interleave
        || prompts.first_mut().is_some_and(|seq| {
            seq.return_raw_logits || of(seq).is_some_and(|state| state.is_whole())
        });
    let most = if whole {
        usize::MAX
    } else {
        policy.tokens.max(1)
    };
    let (mut now, mut later) = (Vec::new(), Vec::new());
    if let Some(first) = prompts.first_mut().map(Work::of) {
        // Tokens that stand aside come at once: a hook looks at them together.
        let length = match first.next {
            NextPass::Prompt(_) => first.tokens().min(most),
            NextPass::Aside(_) => first.tokens(),
        };
        let mut room = (policy.tokens / length.max(1)).max(1);
        for mut seq in prompts {
            let work = Work::of(&mut seq);
            if room > 0 && work.runs_with(&first) {
                room -= 1;
                work.take(&mut seq, length);
                now.push(seq);
            } else {
                later.push(seq);
            }
        }
    }
    if now.is_empty() || policy.interleave {
        now.append(&mut decoding);
    }
    later.append(&mut decoding);
    later.into_iter().for_each(wait);
    Ok(now)
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
