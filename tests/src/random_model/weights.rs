//! Names and shapes of each family's weights; vectors are norms, biases, or what a head has for itself.

use super::{
    EXPERT, EXPERTS, Family, HEAD_DIM, HEADS, HIDDEN, INNER, KV_HEADS, LAYERS, RANK, ROPE_DIM,
    VISION,
};

type Parts = Vec<(String, Vec<usize>)>;

/// All weights of a model with so many tokens.
pub fn of(family: Family, vocabulary: usize) -> Parts {
    let (model, head) = match family {
        Family::Gemma3Vision | Family::Mistral3 => ("language_model.model", "language_model."),
        Family::Qwen3Vl => ("model.language_model", ""),
        _ => ("model", ""),
    };
    let mut all = vec![(
        format!("{model}.embed_tokens.weight"),
        vec![vocabulary, HIDDEN],
    )];
    for at in 0..LAYERS {
        let parts = layer(family, at).into_iter();
        all.extend(parts.map(|(part, shape)| (format!("{model}.layers.{at}.{part}"), shape)));
    }
    all.push((format!("{model}.norm.weight"), vec![HIDDEN]));
    if family == Family::Starcoder2 {
        all.push((format!("{model}.norm.bias"), vec![HIDDEN]));
    }
    all.push((format!("{head}lm_head.weight"), vec![vocabulary, HIDDEN]));
    all.extend(vision(family));
    all
}

fn layer(family: Family, at: usize) -> Parts {
    let mut parts = Parts::new();
    match family {
        Family::Qwen3Next if !family.attends(at) => delta(&mut parts),
        Family::GraniteHybrid if !family.attends(at) => mamba(&mut parts),
        _ if family.latent() => latent(family, &mut parts),
        _ => attention(family, &mut parts),
    }
    feed_forward(family, at, &mut parts);
    let mut norms = vec!["input_layernorm", "post_attention_layernorm"];
    if matches!(
        family,
        Family::Gemma2 | Family::Gemma3 | Family::Gemma3Vision
    ) {
        norms.extend(["pre_feedforward_layernorm", "post_feedforward_layernorm"]);
    }
    for norm in norms {
        add(&mut parts, &format!("{norm}.weight"), &[HIDDEN]);
        if family == Family::Starcoder2 {
            add(&mut parts, &format!("{norm}.bias"), &[HIDDEN]);
        }
    }
    parts
}

fn add(parts: &mut Parts, name: &str, shape: &[usize]) {
    parts.push((name.into(), shape.to_vec()));
}

fn linear(parts: &mut Parts, name: &str, [out, inputs]: [usize; 2], bias: bool) {
    add(parts, &format!("{name}.weight"), &[out, inputs]);
    if bias {
        add(parts, &format!("{name}.bias"), &[out]);
    }
}

fn attention(family: Family, parts: &mut Parts) {
    let (q, kv) = (HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM);
    // Qwen 3 Next's queries bring a gate.
    let queries = if family == Family::Qwen3Next {
        2 * q
    } else {
        q
    };
    let biased = matches!(
        family,
        Family::Qwen2
            | Family::Qwen2Sliding
            | Family::Qwen25Vl
            | Family::Starcoder2
            | Family::GptOss
    );
    if family == Family::Phi3 {
        linear(parts, "self_attn.qkv_proj", [q + 2 * kv, HIDDEN], false);
    } else {
        for (part, out) in [("q", queries), ("k", kv), ("v", kv)] {
            linear(
                parts,
                &format!("self_attn.{part}_proj"),
                [out, HIDDEN],
                biased,
            );
        }
    }
    let biased = matches!(family, Family::Starcoder2 | Family::GptOss);
    linear(parts, "self_attn.o_proj", [HIDDEN, q], biased);
    if family.norms_of_heads() {
        add(parts, "self_attn.q_norm.weight", &[HEAD_DIM]);
        add(parts, "self_attn.k_norm.weight", &[HEAD_DIM]);
    }
    if family == Family::GptOss {
        add(parts, "self_attn.sinks", &[HEADS]);
    }
}

fn latent(family: Family, parts: &mut Parts) {
    let plain = match family {
        Family::Glm4MoeLite => HEAD_DIM - ROPE_DIM,
        _ => HEAD_DIM,
    };
    let q = HEADS * (plain + ROPE_DIM);
    if family == Family::DeepSeek2 {
        linear(parts, "self_attn.q_proj", [q, HIDDEN], false);
    } else {
        linear(parts, "self_attn.q_a_proj", [RANK, HIDDEN], false);
        add(parts, "self_attn.q_a_layernorm.weight", &[RANK]);
        linear(parts, "self_attn.q_b_proj", [q, RANK], false);
    }
    let joint = [RANK + ROPE_DIM, HIDDEN];
    linear(parts, "self_attn.kv_a_proj_with_mqa", joint, false);
    add(parts, "self_attn.kv_a_layernorm.weight", &[RANK]);
    let both = [HEADS * (plain + HEAD_DIM), RANK];
    linear(parts, "self_attn.kv_b_proj", both, false);
    linear(parts, "self_attn.o_proj", [HIDDEN, HEADS * HEAD_DIM], false);
}

/// A recurrent layer by the gated delta rule: 2 key heads, 4 value heads, convolutions of 4.
fn delta(parts: &mut Parts) {
    let (keys, values) = (2 * HEAD_DIM, 4 * HEAD_DIM);
    let all = 2 * keys + 2 * values;
    linear(parts, "linear_attn.in_proj_qkvz", [all, HIDDEN], false);
    linear(parts, "linear_attn.in_proj_ba", [8, HIDDEN], false);
    add(
        parts,
        "linear_attn.conv1d.weight",
        &[2 * keys + values, 1, 4],
    );
    add(parts, "linear_attn.dt_bias", &[4]);
    add(parts, "linear_attn.A_log", &[4]);
    add(parts, "linear_attn.norm.weight", &[HEAD_DIM]);
    linear(parts, "linear_attn.out_proj", [HIDDEN, values], false);
}

/// A Mamba 2 layer, twice as wide as the model, with a state of a head's size and convolutions of 4.
fn mamba(parts: &mut Parts) {
    let wide = 2 * HIDDEN;
    let convolved = wide + 2 * HEAD_DIM;
    let all = wide + convolved + HEADS;
    linear(parts, "mamba.in_proj", [all, HIDDEN], false);
    add(parts, "mamba.conv1d.weight", &[convolved, 1, 4]);
    add(parts, "mamba.conv1d.bias", &[convolved]);
    for of_heads in ["dt_bias", "A_log", "D"] {
        add(parts, &format!("mamba.{of_heads}"), &[HEADS]);
    }
    add(parts, "mamba.norm.weight", &[wide]);
    linear(parts, "mamba.out_proj", [HIDDEN, wide], false);
}

fn feed_forward(family: Family, at: usize, parts: &mut Parts) {
    let gated = |parts: &mut Parts, name: &str, inner: usize| {
        linear(parts, &format!("{name}.gate_proj"), [inner, HIDDEN], false);
        linear(parts, &format!("{name}.up_proj"), [inner, HIDDEN], false);
        linear(parts, &format!("{name}.down_proj"), [HIDDEN, inner], false);
    };
    match family {
        Family::Mixtral => {
            add(parts, "block_sparse_moe.gate.weight", &[EXPERTS, HIDDEN]);
            for expert in 0..EXPERTS {
                let of = |part: &str| format!("block_sparse_moe.experts.{expert}.{part}.weight");
                add(parts, &of("w1"), &[INNER, HIDDEN]);
                add(parts, &of("w2"), &[HIDDEN, INNER]);
                add(parts, &of("w3"), &[INNER, HIDDEN]);
            }
        }
        Family::Starcoder2 => {
            linear(parts, "mlp.c_fc", [INNER, HIDDEN], true);
            linear(parts, "mlp.c_proj", [HIDDEN, INNER], true);
        }
        Family::Phi3 => {
            linear(parts, "mlp.gate_up_proj", [2 * INNER, HIDDEN], false);
            linear(parts, "mlp.down_proj", [HIDDEN, INNER], false);
        }
        Family::GptOss => {
            linear(parts, "mlp.router", [EXPERTS, HIDDEN], true);
            for (name, out, inputs) in [
                ("gate_up_proj", 2 * INNER, HIDDEN),
                ("down_proj", HIDDEN, INNER),
            ] {
                let of = |part: &str| format!("mlp.experts.{name}_{part}");
                add(parts, &of("blocks"), &[EXPERTS, out, inputs / 32, 16]);
                add(parts, &of("scales"), &[EXPERTS, out, inputs / 32]);
                add(parts, &of("bias"), &[EXPERTS, out]);
            }
        }
        Family::GraniteHybrid => {
            linear(parts, "shared_mlp.input_linear", [2 * INNER, HIDDEN], false);
            linear(parts, "shared_mlp.output_linear", [HIDDEN, INNER], false);
        }
        Family::Qwen3Next => {
            add(parts, "mlp.gate.weight", &[EXPERTS, HIDDEN]);
            experts(parts);
            gated(parts, "mlp.shared_expert", EXPERT);
            add(parts, "mlp.shared_expert_gate.weight", &[1, HIDDEN]);
        }
        _ if family.latent() && at > 0 => {
            add(parts, "mlp.gate.weight", &[EXPERTS, HIDDEN]);
            if family != Family::DeepSeek2 {
                add(parts, "mlp.gate.e_score_correction_bias", &[EXPERTS]);
            }
            experts(parts);
            gated(parts, "mlp.shared_experts", EXPERT);
        }
        _ => gated(parts, "mlp", INNER),
    }
}

/// Experts in one tensor: on the CPU, upstream loads no others.
fn experts(parts: &mut Parts) {
    let stacked = [EXPERTS, HIDDEN, 2 * EXPERT];
    add(parts, "mlp.experts.gate_up_proj", &stacked);
    add(parts, "mlp.experts.down_proj", &[EXPERTS, EXPERT, HIDDEN]);
}

/// A vision tower without layers, and what joins it to the text model.
fn vision(family: Family) -> Parts {
    let mut parts = Parts::new();
    let merged = 4 * VISION;
    match family {
        Family::Gemma3Vision => {
            let tower = "vision_tower.vision_model";
            let patches = format!("{tower}.embeddings.patch_embedding");
            add(
                &mut parts,
                &format!("{patches}.weight"),
                &[VISION, 3, 16, 16],
            );
            add(&mut parts, &format!("{patches}.bias"), &[VISION]);
            let positions = format!("{tower}.embeddings.position_embedding.weight");
            add(&mut parts, &positions, &[4, VISION]);
            add(
                &mut parts,
                &format!("{tower}.post_layernorm.weight"),
                &[VISION],
            );
            add(
                &mut parts,
                &format!("{tower}.post_layernorm.bias"),
                &[VISION],
            );
            let joint = "multi_modal_projector";
            let projection = format!("{joint}.mm_input_projection_weight");
            add(&mut parts, &projection, &[VISION, HIDDEN]);
            let norm = format!("{joint}.mm_soft_emb_norm.weight");
            add(&mut parts, &norm, &[VISION]);
        }
        Family::Mistral3 => {
            add(
                &mut parts,
                "vision_tower.patch_conv.weight",
                &[VISION, 3, 16, 16],
            );
            add(&mut parts, "vision_tower.ln_pre.weight", &[VISION]);
            let joint = |part: &str| format!("multi_modal_projector.{part}");
            add(&mut parts, &joint("norm.weight"), &[VISION]);
            linear(&mut parts, &joint("linear_1"), [HIDDEN, VISION], false);
            linear(&mut parts, &joint("linear_2"), [HIDDEN, HIDDEN], false);
            let merger = joint("patch_merger.merging_layer");
            linear(&mut parts, &merger, [VISION, merged], false);
        }
        Family::Qwen25Vl => {
            let patches = "visual.patch_embed.proj.weight";
            add(&mut parts, patches, &[VISION, 3, 2, 16, 16]);
            add(&mut parts, "visual.merger.ln_q.weight", &[VISION]);
            linear(&mut parts, "visual.merger.mlp.0", [merged, merged], true);
            linear(&mut parts, "visual.merger.mlp.2", [HIDDEN, merged], true);
        }
        Family::Qwen3Vl => {
            let of = |part: &str| format!("model.visual.{part}");
            add(
                &mut parts,
                &of("patch_embed.proj.weight"),
                &[VISION, 3, 2, 16, 16],
            );
            add(&mut parts, &of("patch_embed.proj.bias"), &[VISION]);
            add(&mut parts, &of("pos_embed.weight"), &[4, VISION]);
            add(&mut parts, &of("merger.norm.weight"), &[VISION]);
            add(&mut parts, &of("merger.norm.bias"), &[VISION]);
            linear(&mut parts, &of("merger.linear_fc1"), [merged, merged], true);
            linear(&mut parts, &of("merger.linear_fc2"), [HIDDEN, merged], true);
        }
        _ => {}
    }
    parts
}
