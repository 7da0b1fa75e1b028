"""The Llama architecture in plain PyTorch, and its load and export as a Hugging Face folder."""
import hashlib
import json
import os

import torch
import torch.nn as nn
import torch.nn.functional as F

CFG = dict(vocab=4096, dim=256, layers=8, heads=8, kv=4, hd=32, ffn=704, theta=500000.0, eps=1e-5, ctx=16384)
TEMPLATE = ("{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
            "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")


def rope(x, cos, sin):
    a, b = x.chunk(2, -1)
    return (x * cos + torch.cat((-b, a), -1) * sin).to(x.dtype)


class Block(nn.Module):
    def __init__(self, c):
        super().__init__()
        d, h, k, e = c["dim"], c["heads"], c["kv"], c["hd"]
        self.c, self.ln1, self.ln2 = c, nn.Parameter(torch.ones(d)), nn.Parameter(torch.ones(d))
        lin = lambda i, o: nn.Linear(i, o, bias=False)
        self.q, self.k, self.v, self.o = lin(d, h * e), lin(d, k * e), lin(d, k * e), lin(h * e, d)
        self.gate, self.up, self.down = lin(d, c["ffn"]), lin(d, c["ffn"]), lin(c["ffn"], d)

    def forward(self, x, cos, sin):
        B, T, d = x.shape
        c = self.c
        y = F.rms_norm(x, (d,), self.ln1, c["eps"])
        heads = lambda z: z.view(B, T, -1, c["hd"]).transpose(1, 2)
        q, k, v = rope(heads(self.q(y)), cos, sin), rope(heads(self.k(y)), cos, sin), heads(self.v(y))
        g = c["heads"] // c["kv"]
        a = F.scaled_dot_product_attention(q, k.repeat_interleave(g, 1), v.repeat_interleave(g, 1), is_causal=True)
        x = x + self.o(a.transpose(1, 2).reshape(B, T, -1))
        y = F.rms_norm(x, (d,), self.ln2, c["eps"])
        return x + self.down(F.silu(self.gate(y)) * self.up(y))


class LM(nn.Module):
    """`forward` gives the final hidden states; the logits are `states @ emb.weight.T`."""

    def __init__(self, c=CFG):
        super().__init__()
        self.c, self.emb = c, nn.Embedding(c["vocab"], c["dim"])
        self.blocks = nn.ModuleList(Block(c) for _ in range(c["layers"]))
        self.norm = nn.Parameter(torch.ones(c["dim"]))
        for p in self.parameters():
            if p.dim() > 1:
                nn.init.normal_(p, std=.02 if p is self.emb.weight else .8 * p.shape[1] ** -.5)
        for b in self.blocks:
            b.o.weight.data.mul_((2 * c["layers"]) ** -.5)
            b.down.weight.data.mul_((2 * c["layers"]) ** -.5)

    def forward(self, ids, at=None):
        """`at`: the tokens' positions, 0, 1, 2 ... unless given."""
        c = self.c
        at = torch.arange(ids.shape[1], device=ids.device) if at is None else at
        f = c["theta"] ** (-torch.arange(0, c["hd"], 2, device=ids.device).float() / c["hd"])
        t = at.float()[:, None] * f[None]
        cos, sin = (torch.cat((u, u), -1) for u in (t.cos(), t.sin()))
        x = self.emb(ids)
        for b in self.blocks:
            x = b(x, cos, sin)
        return F.rms_norm(x, (c["dim"],), self.norm, c["eps"])


def names(model):
    """-> {name in the exported file: parameter}"""
    out = {"model.embed_tokens.weight": model.emb.weight, "model.norm.weight": model.norm}
    for i, b in enumerate(model.blocks):
        p = f"model.layers.{i}."
        out |= {p + "input_layernorm.weight": b.ln1, p + "post_attention_layernorm.weight": b.ln2}
        out |= {p + f"self_attn.{n}_proj.weight": getattr(b, n).weight for n in "qkvo"}
        out |= {p + f"mlp.{n}_proj.weight": getattr(b, n).weight for n in ("gate", "up", "down")}
    return out


def load(model, folder):
    from safetensors.torch import load_file
    saved = load_file(f"{folder}/model.safetensors")
    with torch.no_grad():
        for k, p in names(model).items():
            p.copy_(saved[k])


def export(model, tok, folder, flat=""):
    """Writes the folder and returns the sha256 of the weights."""
    from safetensors.torch import save_file
    os.makedirs(folder, exist_ok=True)
    c = model.c
    path = f"{folder}/model.safetensors"
    save_file({k: v.detach().to(torch.bfloat16).contiguous().cpu() for k, v in names(model).items()}, path, metadata={"format": "pt"})
    write = lambda name, d: open(f"{folder}/{name}", "w").write(json.dumps(d, indent=2) + "\n")
    write("config.json", dict(
        architectures=["LlamaForCausalLM"], model_type="llama", attention_bias=False, attention_dropout=0.0, bos_token_id=0, eos_token_id=2,
        pad_token_id=0, hidden_act="silu", hidden_size=c["dim"], initializer_range=.02, intermediate_size=c["ffn"],
        max_position_embeddings=c["ctx"], mlp_bias=False, num_attention_heads=c["heads"], num_hidden_layers=c["layers"],
        num_key_value_heads=c["kv"], head_dim=c["hd"], rms_norm_eps=c["eps"], rope_theta=c["theta"], rope_scaling=None,
        tie_word_embeddings=True, torch_dtype="bfloat16", use_cache=True, vocab_size=c["vocab"]))
    tok.save(f"{folder}/tokenizer.json")
    write("tokenizer_config.json", dict(
        tokenizer_class="PreTrainedTokenizerFast", eos_token="<|im_end|>", pad_token="<|endoftext|>", bos_token="<|endoftext|>",
        add_bos_token=False, clean_up_tokenization_spaces=False, model_max_length=c["ctx"], chat_template=TEMPLATE))
    write("generation_config.json", dict(bos_token_id=0, eos_token_id=2, pad_token_id=0))
    return hashlib.sha256(open(path, "rb").read()).hexdigest()
