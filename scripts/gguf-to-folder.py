#!/usr/bin/env python3
"""Widens a GGUF file to a model folder (config.json, tokenizer.json, safetensors in bfloat16).

    scripts/gguf-to-folder.py FILE.gguf FOLDER

What a folder has and a GGUF file does not: rankings that need the rotary embedding or W_O, every GPU, and models whose GGUF
the runtime does not read (Gemma 3). Needs the PyPI packages torch, transformers and gguf; without them it says so, exit code 2.
"""
import os
import pathlib
import sys


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
        from transformers import AutoModelForCausalLM, AutoTokenizer
        import gguf  # noqa: F401  transformers asks for it
    except ImportError as missing:
        print(f"{missing}; install torch, transformers and gguf with pip", file=sys.stderr)
        return 2
    draft = folder.with_name(folder.name + ".draft")
    where = dict(pretrained_model_name_or_path=str(file.parent), gguf_file=file.name)
    AutoModelForCausalLM.from_pretrained(**where, dtype=torch.bfloat16).save_pretrained(draft)
    AutoTokenizer.from_pretrained(**where).save_pretrained(draft)
    draft.rename(folder)
    print(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
