#!/usr/bin/env python3
"""Widens a GGUF file to a model folder (config.json, tokenizer.json, safetensors in bfloat16).

    scripts/gguf-to-folder.py FILE.gguf FOLDER

What a folder has and a GGUF file does not: rankings that need the rotary embedding or W_O, every GPU, and models whose GGUF
the runtime does not read (Gemma 3). Needs the PyPI packages torch, transformers and gguf; without them it says so, exit code 2.
"""
import json
import os
import pathlib
import sys


def old_names(file):
    """Adds the rotary settings under the names that they had before transformers 5, which mistral.rs reads."""
    config = json.loads(file.read_text())
    rope = config.get("rope_parameters") or {}
    # Gemma 3's layers that slide have a base of their own.
    local, rope = rope.get("sliding_attention"), rope.get("full_attention", rope)
    if local:
        config["rope_local_base_freq"] = local["rope_theta"]
        config["sliding_window_pattern"] = config.get("_sliding_window_pattern", 6)
    if "rope_theta" in rope:
        config["rope_theta"] = rope["rope_theta"]
        config["rope_scaling"] = rope if rope.get("rope_type", "default") != "default" else None
    file.write_text(json.dumps(config, indent=2))


def from_scores(fields):
    """The tokenizer of a file that has scores and no merges (SentencePiece), in the only form that mistral.rs reads: what makes
    a token is merged the earlier, the higher the token's score."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    value = lambda name: fields[f"tokenizer.ggml.{name}"].contents()
    tokens, scores, kinds = value("tokens"), value("scores"), value("token_type")
    ids = {token: at for at, token in enumerate(tokens)}
    merges = []
    for token, score, kind in zip(tokens, scores, kinds):
        if kind != 1:
            continue
        parts = ((token[:cut], token[cut:]) for cut in range(1, len(token)))
        known = sorted((pair for pair in parts if pair[0] in ids and pair[1] in ids), key=lambda pair: [ids[x] for x in pair])
        merges += [(-score, pair) for pair in known]
    merges.sort(key=lambda merge: merge[0])
    unknown = tokens[value("unknown_token_id")]
    made = Tokenizer(models.BPE(ids, [pair for _, pair in merges], unk_token=unknown, fuse_unk=True, byte_fallback=True))
    made.normalizer = normalizers.Replace(" ", "▁")
    made.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    for kind, special in ((3, True), (4, False)):
        added = [AddedToken(t, special=special, normalized=False) for t, k in zip(tokens, kinds) if k == kind]
        (made.add_special_tokens if special else made.add_tokens)(added)
    named = {name: tokens[value(f"{of}_token_id")] for name, of in
             (("bos_token", "bos"), ("eos_token", "eos"), ("pad_token", "padding")) if f"tokenizer.ggml.{of}_token_id" in fields}
    if value("add_bos_token"):
        first = named["bos_token"]
        made.post_processor = processors.TemplateProcessing(
            f"{first} $A", f"{first} $A {first} $B", [(first, ids[first])])
    return PreTrainedTokenizerFast(tokenizer_object=made, unk_token=unknown, **named)


def main():
    if len(sys.argv) != 3 or sys.argv[1].startswith("-"):
        print(__doc__, file=sys.stderr)
        return 2 if len(sys.argv) != 2 or sys.argv[1] not in ("-h", "--help") else 0
    file, folder = map(pathlib.Path, sys.argv[1:])
    if not file.is_file():
        print(f"{file} is not there; name a .gguf file", file=sys.stderr)
        return 2
    # A file beside it is all that is read.
    os.environ["HF_HUB_OFFLINE"] = "1"
    try:
        import torch
        from tokenizers import decoders
        from transformers import AutoModelForCausalLM, AutoTokenizer
        import gguf
    except ImportError as missing:
        print(f"{missing}; install torch, transformers and gguf with pip", file=sys.stderr)
        return 2
    draft = folder.with_name(folder.name + ".draft")
    where = dict(pretrained_model_name_or_path=str(file.parent), gguf_file=file.name)
    model = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.bfloat16)
    # Its weights are no longer quantized, which transformers does not know of itself.
    model.hf_quantizer = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(draft)
    fields = gguf.GGUFReader(file).fields
    if "tokenizer.ggml.merges" not in fields:
        tokenizer = from_scores(fields)
    else:
        tokenizer = AutoTokenizer.from_pretrained(**where)
        # The file says which token ends an answer; transformers does not always read it.
        tokenizer.eos_token = tokenizer.convert_ids_to_tokens(model.config.eos_token_id)
        # Nor does it always know that tokens are bytes.
        if any(token.startswith("Ġ") for token in tokenizer.get_vocab()):
            tokenizer.backend_tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save_pretrained(draft)
    old_names(draft / "config.json")
    draft.rename(folder)
    print(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
