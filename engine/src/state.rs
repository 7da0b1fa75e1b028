//! What a prompt leaves in a model, as a file that another process reads instead of the prompt.

mod file;

pub use file::{parse, write};

use crate::{Engine, Error, Request};
use headkv_files::read;
use headkv_plugin::prefix::{BLOCK, State};
use std::{fs, io, path::Path};

impl Engine {
    /// Saves what a prompt's beginning leaves, in whole blocks of tokens; it is read if it is not remembered. Returns the
    /// number of tokens.
    ///
    /// # Errors
    /// [`Error::State`] for a model whose prompts are read from their beginning, a prompt that is shorter than a block, one that is not remembered
    /// because it is larger than `prefix_bytes`, or a file that cannot be written; those of [`Engine::generate`].
    pub fn save_state(&self, prompt: &[u32], file: &Path) -> Result<usize, Error> {
        let wrong = |why: String| state_error(file, why);
        let model = self.compressed()?;
        self.has_states(file)?;
        let wanted = prompt.len() / BLOCK * BLOCK;
        if wanted == 0 {
            let count = prompt.len();
            return Err(wrong(format!(
                "nothing to save of {count} tokens; at least {BLOCK} are saved"
            )));
        }
        let prompt = &prompt[..wanted];
        let state = |e: candle_core::Error| wrong(e.to_string());
        let known = |state: &State| state.tokens.len() == wanted;
        let mut found = model.prefixes().state(prompt).map_err(state)?;
        if !found.as_ref().is_some_and(known) {
            self.generate(&[Request::new(prompt.to_vec(), 1)])?;
            found = model.prefixes().state(prompt).map_err(state)?;
        }
        let Some(found) = found.filter(known) else {
            let limit = model.prefixes().limit();
            return Err(wrong(format!(
                "{wanted} tokens do not fit the {limit} bytes for prompts that were read; raise --prefix-bytes"
            )));
        };
        write(&found, self.identity()?, file).map_err(|e| wrong(e.to_string()))?;
        Ok(wanted)
    }

    /// Remembers what a file has, for as long as the model is loaded. Returns the number of tokens.
    ///
    /// # Errors
    /// [`Error::State`] for a file that is cut, changed, of another version or model, or larger than what `prefix_bytes`
    /// leaves.
    pub fn load_state(&self, file: &Path) -> Result<usize, Error> {
        let wrong = |why: String| state_error(file, why);
        let model = self.compressed()?;
        self.has_states(file)?;
        let state = parse(&bytes(file)?, self.identity()?).map_err(wrong)?;
        let shape = self.shape();
        if let Some(why) = state.misfit(shape.layers, shape.kv_heads, shape.head_dim) {
            return Err(wrong(why));
        }
        let element = state.layers.first().map(|[k, _]| k.dtype().size_in_bytes());
        if element != Some(self.element_bytes()) {
            return Err(wrong(
                "was saved on another kind of device, in other elements; save it again on this one"
                    .into(),
            ));
        }
        let vocabulary = self.tokenizer().get_vocab_size(true);
        if let Some(id) = state.tokens.iter().find(|id| **id as usize >= vocabulary) {
            return Err(wrong(format!(
                "has token {id}, and the model {vocabulary} tokens"
            )));
        }
        let tokens = state.tokens.len();
        model.prefixes().pin(state).map_err(|(needed, free)| {
            wrong(format!(
                "needs {needed} bytes, of which {free} are free; raise --prefix-bytes"
            ))
        })?;
        Ok(tokens)
    }

    fn has_states(&self, file: &Path) -> Result<(), Error> {
        if let Some(why) = self.compressed()?.starts_anew() {
            let why = format!("every prompt is read from its beginning: {why}");
            return Err(state_error(file, why));
        }
        Ok(())
    }
}

fn state_error(file: &Path, why: String) -> Error {
    Error::State {
        path: file.into(),
        why,
    }
}

fn bytes(file: &Path) -> Result<Vec<u8>, Error> {
    let wrong = |e: io::Error| state_error(file, format!("cannot be read ({e})"));
    read::regular(file).map_err(wrong)?;
    fs::read(file).map_err(wrong)
}
