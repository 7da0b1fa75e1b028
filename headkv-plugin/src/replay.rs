//! A prompt's text said again behind it, piece by piece, to see what that looks at (KVzip, arXiv 2505.23416, section 3.3).

use crate::ranking::Facts;
use candle_core::Result;
use std::collections::VecDeque;

/// Tokens of the prompt in one piece, as in the original.
const PIECE: usize = 2048;
/// Tokens of the piece before that say where the next one begins.
const OVERLAP: usize = 8;
const FIRST: &str = "\n\nRepeat the previous context exactly.\n";
const NEXT: &str = "\n\nRepeat the part of the previous context exactly, starting with: ";

/// The passes that say `prompt` again, of at most `room` tokens each: what the model's context leaves behind the prompt.
///
/// # Errors
/// A tokenizer that fails, and a context that the prompt fills.
pub fn passes(prompt: &[u32], room: usize, facts: &Facts) -> Result<VecDeque<Vec<u32>>> {
    let Some(encode) = &facts.encode else {
        candle_core::bail!("headkv: a repetition of the prompt needs the model's tokenizer");
    };
    let (first, next) = (encode(FIRST)?, encode(NEXT)?);
    let asking = first.len().max(next.len() + OVERLAP);
    if room <= asking {
        candle_core::bail!(
            "headkv: a prompt of {} tokens leaves {room} of the context to say it again; give a shorter one or another --ranking",
            prompt.len()
        );
    }
    let piece = PIECE.min(room - asking);
    let said = |start: usize| {
        let text = &prompt[start..(start + piece).min(prompt.len())];
        match start {
            0 => [&first, text].concat(),
            _ => [&next, &prompt[start.saturating_sub(OVERLAP)..start], text].concat(),
        }
    };
    Ok((0..prompt.len()).step_by(piece).map(said).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn every_token_is_said_once_within_the_room() {
        let facts = Facts {
            encode: Some(Arc::new(|text: &str| {
                Ok(vec![9_999; text.split_whitespace().count()])
            })),
            ..Facts::default()
        };
        let prompt: Vec<u32> = (0..5000).collect();
        let passes = passes(&prompt, 1000, &facts).unwrap();
        assert!(passes.iter().all(|pass| pass.len() <= 1000));
        let mut said: Vec<u32> = Vec::new();
        for pass in &passes {
            let text: Vec<u32> = pass.iter().copied().filter(|&t| t < 9_999).collect();
            let again = if said.is_empty() { 0 } else { OVERLAP };
            assert_eq!(text[..again], said[said.len() - again..]);
            said.extend(&text[again..]);
        }
        assert_eq!(said, prompt);
        let error = super::passes(&prompt, 10, &facts).unwrap_err().to_string();
        assert!(error.contains("leaves 10 of the context"), "{error}");
    }
}
