//! What a request will hold, known before it runs: the budget says what is kept of a prompt, `max_tokens` the tail.

use headkv_engine::Device;
use headkv_plugin::{Error, ModelShape, Policy, cache::TAIL_BLOCK};

/// Tokens of a GPU's first and largest tail block; each is as large as all before it within these.
const GPU_BLOCKS: (usize, usize) = (64, 1024);

/// A model's sizes.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// The model's attention shape.
    pub shape: ModelShape,
    /// Where it runs, which decides how tails grow.
    pub device: Device,
    /// Bytes of one element of a key.
    pub element_bytes: usize,
}

/// What one sequence holds at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Footprint {
    /// Tokens kept of the prompt by layer, all stored heads together.
    pub kept: Vec<usize>,
    /// Bytes of them and of the tail.
    pub bytes: usize,
}

impl Sizes {
    /// Bytes of one token in one head of one layer, key and value.
    pub fn entry_bytes(&self) -> usize {
        2 * self.shape.head_dim * self.element_bytes
    }

    /// Bytes that a token takes where nothing is dropped, over all layers.
    pub fn token_bytes(&self) -> usize {
        self.shape.layers * self.shape.kv_heads * self.entry_bytes()
    }

    /// What a sequence of `prompt` tokens holds after `answer` more. Exact on the CPU; methods whose rounding depends on
    /// the prompt may take up to one token per head less.
    ///
    /// # Errors
    /// As [`Policy::budget`].
    pub fn footprint(
        &self,
        policy: &Policy,
        prompt: usize,
        answer: usize,
    ) -> Result<Footprint, Error> {
        let layers = 0..self.shape.layers;
        let kept: Vec<usize> = layers
            .map(|layer| policy.kept(layer, prompt))
            .collect::<Result<_, _>>()?;
        // The last token is never attended to.
        let tail = self.tail_tokens(answer.saturating_sub(1)) * self.token_bytes();
        let bytes = kept.iter().sum::<usize>() * self.entry_bytes() + tail;
        Ok(Footprint { kept, bytes })
    }

    /// Tokens that a tail has room for when it holds so many.
    fn tail_tokens(&self, tokens: usize) -> usize {
        if self.device == Device::Cpu {
            return tokens.next_multiple_of(TAIL_BLOCK);
        }
        let mut room: usize = 0;
        while room < tokens {
            room += room.clamp(GPU_BLOCKS.0, GPU_BLOCKS.1);
        }
        room
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use headkv_plugin::Compression;

    const SIZES: Sizes = Sizes {
        shape: ModelShape {
            layers: 2,
            heads: 4,
            kv_heads: 2,
            head_dim: 8,
        },
        device: Device::Cpu,
        element_bytes: 4,
    };

    fn bytes(method: &str, prompt: usize, answer: usize) -> usize {
        let policy = Policy::new(&Compression::new(method, 32), SIZES.shape, None).unwrap();
        SIZES.footprint(&policy, prompt, answer).unwrap().bytes
    }

    #[test]
    fn a_budget_costs_what_it_says() {
        assert_eq!(SIZES.token_bytes(), 2 * 2 * 2 * 8 * 4);
        assert_eq!(bytes("full", 1000, 1), 1000 * SIZES.token_bytes());
        assert_eq!(bytes("snapkv", 1000, 1), 32 * SIZES.token_bytes());
        assert_eq!(bytes("snapkv", 20, 1), 20 * SIZES.token_bytes());
        assert_eq!(bytes("snapkv", 1000, 34), (32 + 64) * SIZES.token_bytes());
    }

    #[test]
    fn a_gpus_tail_doubles() {
        let gpu = Sizes {
            device: Device::Cuda(0),
            ..SIZES
        };
        let room = |tokens| gpu.tail_tokens(tokens);
        assert_eq!((room(0), room(1), room(65), room(129)), (0, 64, 128, 256));
        assert_eq!(room(5000), 5120);
    }
}
