//! The families of models that are tried, and what of them is known without loading one.

use super::{HEAD_DIM, HEADS, KV_HEADS, LAYERS, ROPE_DIM};

/// A family of models, by one of its classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// No windows.
    Llama,
    /// A window in every layer.
    Mistral,
    /// A window in every layer, and experts.
    Mixtral,
    /// A window in every layer, layer norms and biases.
    Starcoder2,
    /// A window in every layer, fused projections.
    Phi3,
    /// A window in every other layer, soft caps.
    Gemma2,
    /// A window in every other layer, another rotary embedding there; a class of models that take images, without them.
    Gemma3,
    /// The same beside a vision tower.
    Gemma3Vision,
    /// A window in the configuration that its layers do not use.
    Qwen2,
    /// That window in every layer.
    Qwen2Sliding,
    /// A window in every layer, norms of queries and keys.
    Qwen3,
    /// A window in every other layer, attention sinks, experts in MXFP4.
    GptOss,
    /// Mistral beside a vision tower.
    Mistral3,
    /// Qwen 2 beside a vision tower, with positions in three directions.
    Qwen25Vl,
    /// Qwen 3 beside a vision tower, with positions in three directions.
    Qwen3Vl,
    /// Latent attention, values shorter than keys, experts.
    DeepSeek2,
    /// The same, queries by a low rank too.
    DeepSeek3,
    /// Latent attention, values as long as keys (GLM-4.7-Flash).
    Glm4MoeLite,
    /// Recurrent layers (gated delta rule) in every other place, experts.
    Qwen3Next,
    /// Recurrent layers (Mamba 2) in every other place.
    GraniteHybrid,
}

impl Family {
    /// Every family.
    pub const ALL: [Family; 20] = [
        Family::Llama,
        Family::Mistral,
        Family::Mixtral,
        Family::Starcoder2,
        Family::Phi3,
        Family::Gemma2,
        Family::Gemma3,
        Family::Gemma3Vision,
        Family::Qwen2,
        Family::Qwen2Sliding,
        Family::Qwen3,
        Family::GptOss,
        Family::Mistral3,
        Family::Qwen25Vl,
        Family::Qwen3Vl,
        Family::DeepSeek2,
        Family::DeepSeek3,
        Family::Glm4MoeLite,
        Family::Qwen3Next,
        Family::GraniteHybrid,
    ];

    /// The class that config.json names.
    pub fn class(self) -> &'static str {
        match self {
            Family::Llama => "LlamaForCausalLM",
            Family::Mistral => "MistralForCausalLM",
            Family::Mixtral => "MixtralForCausalLM",
            Family::Starcoder2 => "Starcoder2ForCausalLM",
            Family::Phi3 => "Phi3ForCausalLM",
            Family::Gemma2 => "Gemma2ForCausalLM",
            Family::Gemma3 => "Gemma3ForCausalLM",
            Family::Gemma3Vision => "Gemma3ForConditionalGeneration",
            Family::Qwen2 | Family::Qwen2Sliding => "Qwen2ForCausalLM",
            Family::Qwen3 => "Qwen3ForCausalLM",
            Family::GptOss => "GptOssForCausalLM",
            Family::Mistral3 => "Mistral3ForConditionalGeneration",
            Family::Qwen25Vl => "Qwen2_5_VLForConditionalGeneration",
            Family::Qwen3Vl => "Qwen3VLForConditionalGeneration",
            Family::DeepSeek2 => "DeepseekV2ForCausalLM",
            Family::DeepSeek3 => "DeepseekV3ForCausalLM",
            Family::Glm4MoeLite => "Glm4MoeLiteForCausalLM",
            Family::Qwen3Next => "Qwen3NextForCausalLM",
            Family::GraniteHybrid => "GraniteMoeHybridForCausalLM",
        }
    }

    /// Whether the layer has keys and values.
    pub fn attends(self, layer: usize) -> bool {
        let recurrent = matches!(self, Family::Qwen3Next | Family::GraniteHybrid);
        !recurrent || layer % 2 == 1
    }

    /// Whether the layer slides.
    pub fn slides(self, layer: usize) -> bool {
        match self {
            Family::Mistral
            | Family::Mixtral
            | Family::Starcoder2
            | Family::Phi3
            | Family::Qwen2Sliding
            | Family::Qwen3 => true,
            Family::Gemma2 | Family::Gemma3 | Family::Gemma3Vision | Family::GptOss => {
                layer.is_multiple_of(2)
            }
            _ => false,
        }
    }

    /// How many layers slide, and how many hold all that they are not made to drop.
    pub fn layers(self) -> [usize; 2] {
        let count =
            |which: fn(Self, usize) -> bool| (0..LAYERS).filter(|&at| which(self, at)).count();
        let sliding = count(Self::slides);
        [sliding, count(Self::attends) - sliding]
    }

    /// Elements of one token's key and value in one layer, as they are held.
    pub fn row(self) -> usize {
        match self {
            _ if self.short_values() => 2 * HEADS * (HEAD_DIM + ROPE_DIM),
            Family::Glm4MoeLite => 2 * HEADS * HEAD_DIM,
            _ => 2 * KV_HEADS * HEAD_DIM,
        }
    }

    /// Whether values have fewer elements than keys.
    pub fn short_values(self) -> bool {
        matches!(self, Family::DeepSeek2 | Family::DeepSeek3)
    }

    /// Whether norms add 1 to their weights.
    pub(super) fn norms_from_zero(self) -> bool {
        matches!(
            self,
            Family::Gemma2 | Family::Gemma3 | Family::Gemma3Vision | Family::Qwen3Next
        )
    }

    /// Whether queries and keys have norms.
    pub(super) fn norms_of_heads(self) -> bool {
        matches!(
            self,
            Family::Qwen3
                | Family::Qwen3Vl
                | Family::Qwen3Next
                | Family::Gemma3
                | Family::Gemma3Vision
        )
    }

    /// Whether attention is latent.
    pub(super) fn latent(self) -> bool {
        matches!(
            self,
            Family::DeepSeek2 | Family::DeepSeek3 | Family::Glm4MoeLite
        )
    }
}
