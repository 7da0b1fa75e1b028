#!/usr/bin/env python3
"""Runs NVIDIA's kvpress on the prompts of headkv-eval, scored and tabled by headkv-eval.

    pip install torch kvpress==0.5.5
    scripts/kvpress.py --press full,snapkv,adakv --kept 16,32 -- headkv-eval needle --draws 16 --out headkv-out/kvpress

Serves OpenAI's completions from a model of transformers under a press, and starts the command after `--` once for each
press and each number of tokens, asking there: `--model`, `--endpoint`, `--method kvpress-PRESS` and `--capacity` are added
to it. Prompts, limits of answers, scores, intervals and report are headkv-eval's, and rows of its own methods may lie in
the same --out folder. Prompts are compressed whole, question included; an endpoint has no --question-apart.

How bytes are made equal: kvpress is told which part of a prompt to drop. For a prompt of n tokens of which K are kept per
KV head (the observation window and sinks included, as in headkv-eval's --capacity) that is 1 - K / n, set anew for each
prompt. What a press then left is counted (pairs of key and value in the cache that are not masked), and a prompt fails
where that is not K per KV head on average. The first token of an answer comes from the whole prompt, in both programs.

Presses have kvpress's own parameters but for the window. It says SKIPPED where a package is missing, and ends with 0 then.
"""

import argparse
import http.server
import importlib.metadata
import importlib.util
import json
import logging
import pathlib
import subprocess
import sys
import threading

# This file's folder, in which `import kvpress` would find this file.
sys.path[:] = [at for at in sys.path if pathlib.Path(at).resolve() != pathlib.Path(__file__).resolve().parent]

PACKAGES = {"torch": "PyTorch", "transformers": "transformers", "kvpress": "kvpress"}

# What a name stands for, given kvpress, the part to drop and the window.
PRESSES = {
    "full": None,
    "snapkv": lambda k, part, window: k.SnapKVPress(part, window_size=window),
    "adakv": lambda k, part, window: k.AdaKVPress(k.SnapKVPress(part, window_size=window)),
    "criticaladakv": lambda k, part, window: k.CriticalAdaKVPress(k.SnapKVPress(part, window_size=window)),
    "pyramidkv": lambda k, part, window: k.PyramidKVPress(part, window_size=window),
    "keydiff": lambda k, part, _: k.KeyDiffPress(part),
    "tova": lambda k, part, _: k.TOVAPress(part),
    "expected": lambda k, part, _: k.ExpectedAttentionPress(part),
    "compactor": lambda k, part, _: k.CompactorPress(part),
    "kvzip": lambda k, part, _: k.KVzipPress(part),
}


class Model:
    """A model of transformers in f32 on the CPU, and the press that its prompts go through."""

    def __init__(self, path, window):
        import kvpress
        import torch
        import transformers

        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        logging.getLogger("kvpress").setLevel(logging.ERROR)  # KVzip says with each prompt that it takes longer.
        self.torch, self.kvpress, self.cache = torch, kvpress, transformers.DynamicCache
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(path)
        # Attention that is not eager: presses with budgets per head mask keys in it.
        load = transformers.AutoModelForCausalLM.from_pretrained
        self.model = load(path, dtype=torch.float32, attn_implementation="sdpa").eval()
        ends = self.model.generation_config.eos_token_id
        self.ends = set(ends if isinstance(ends, list) else [ends])
        self.window, self.press, self.kept = window, "full", None

    def read(self, ids):
        """Reads a prompt under the press, gives the logits behind it, and counts what is left of it."""
        tokens, cache = ids.shape[1], self.cache()
        self.torch.manual_seed(0)  # Compactor's sketch is drawn.
        if self.press == "full" or self.kept >= tokens:
            return self.model(input_ids=ids, past_key_values=cache, logits_to_keep=1).logits, cache
        # A trifle more than K: kvpress takes the whole part of n (1 - part), which is K - 1 where rounding goes down.
        press = PRESSES[self.press](self.kvpress, 1 - (self.kept + 1e-6) / tokens, self.window)
        with press(self.model):
            logits = self.model(input_ids=ids, past_key_values=cache, logits_to_keep=1).logits
        left = [self.left(layer, at) for at, layer in enumerate(cache.layers)]
        if abs(sum(left) / len(left) - self.kept) > 0.1:
            raise ValueError(f"{self.press} left {sum(left) / len(left):.2f} tokens a head where {self.kept} were asked for")
        return logits, cache

    def left(self, layer, at):
        """Tokens per KV head that a layer holds and does not mask."""
        heads, length = layer.keys.shape[1:3]
        masked = getattr(self.model.model.layers[at].self_attn, "masked_key_indices", None)
        return length - (len(masked[1]) / heads if masked else 0)

    def answer(self, prompt, special, most, stop):
        """The greedy answer up to a stop text, its tokens and the prompt's."""
        with self.torch.inference_mode():
            ids = self.tokenizer(prompt, add_special_tokens=special, return_tensors="pt").input_ids
            logits, cache = self.read(ids)
            tokens, answer, text = ids.shape[1], [], ""
            while len(answer) < most:
                token = logits[0, -1].argmax().item()
                if token in self.ends:
                    break
                answer.append(token)
                text = self.tokenizer.decode(answer, clean_up_tokenization_spaces=False)
                found = [text.find(end) for end in stop if end in text]
                if found:
                    text = text[: min(found)]
                    break
                # Its place in the text, not in the shorter cache.
                place = self.torch.tensor([[tokens + len(answer) - 1]])
                step = self.torch.tensor([[token]])
                logits = self.model(input_ids=step, position_ids=place, past_key_values=cache).logits
        return text, len(answer), tokens

    def complete(self, body):
        """The answer to a request of /v1/completions or, with messages, /v1/chat/completions."""
        chat = "messages" in body
        prompt = body.get("prompt")
        if chat:
            prompt = self.tokenizer.apply_chat_template(body["messages"], add_generation_prompt=True, tokenize=False)
        text, tokens, read = self.answer(prompt, not chat, body["max_tokens"], body.get("stop", []))
        choice = {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
        return {"choices": [choice], "usage": {"prompt_tokens": read, "completion_tokens": tokens}}


def serve(model, port):
    """Answers requests one after the other, on a thread of its own; the address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            try:
                status, said = 200, model.complete(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            except Exception as error:  # Whatever kvpress raises is this prompt's failure: a row says so.
                print(f"{model.press}@{model.kept}: {error}", file=sys.stderr)
                status, said = 400, {"error": {"message": str(error)}}
            said = json.dumps(said).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, *_):
            pass

    server = http.server.HTTPServer(("127.0.0.1", port), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}"


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    split = lambda text: text.split(",")
    parser.add_argument("--model", default="models/tiny", help="a folder in Hugging Face's format [default: %(default)s]")
    parser.add_argument("--press", type=split, default=["full", "snapkv"], help=f"of {', '.join(PRESSES)} [default: full,snapkv]")
    parser.add_argument("--kept", type=split, default=["16", "32"], help="tokens per KV head, window included [default: 16,32]")
    parser.add_argument("--window", type=int, default=8, help="as headkv-eval's; kvpress's own is 64 [default: %(default)s]")
    parser.add_argument("--port", type=int, default=8741, help="rows of one port are one table [default: %(default)s]")
    parser.add_argument("command", nargs="+", help="headkv-eval and a benchmark, after `--`")
    args = parser.parse_args()
    for press in args.press:
        if press not in PRESSES:
            parser.error(f"no press `{press}`; there are {', '.join(PRESSES)}")
    if not all(kept.isdecimal() and int(kept) > args.window > 0 for kept in args.kept):
        parser.error(f"--kept {','.join(args.kept)} has to be numbers larger than the window of {args.window}")
    if not (pathlib.Path(args.model) / "tokenizer.json").is_file():
        parser.error(f"{args.model} holds no tokenizer.json; name a model's folder with --model")
    return args


def main():
    args = arguments()
    for package, name in PACKAGES.items():
        if importlib.util.find_spec(package) is None:
            print(f"SKIPPED: {name} is not installed", file=sys.stderr)
            return 0
    print(", ".join(f"{package} {importlib.metadata.version(package)}" for package in PACKAGES), file=sys.stderr)
    model, worst = Model(args.model, args.window), 0
    try:
        asked = ["--model", args.model, "--endpoint", serve(model, args.port), "--concurrency", "1", "--retries", "0"]
        for press in args.press:
            for kept in args.kept if press != "full" else [None]:
                model.press, model.kept = press, kept and int(kept)
                # As `full`, from which headkv-eval takes the differences of that table.
                label = ["--method", f"kvpress-{press}", "--capacity", kept] if kept else ["--method", "full"]
                worst = max(worst, subprocess.run([*args.command, *asked, *label]).returncode)
    except OSError as error:
        print(f"error: {error}; check --port and the command after --", file=sys.stderr)
        return 2
    return worst


if __name__ == "__main__":
    sys.exit(main())
