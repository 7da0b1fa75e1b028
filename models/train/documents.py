"""Documents: facts of one or several tasks among filler text, then the questions as turns.

    prefix | filler with the facts at sentence ends | question, answer [, question, answer ...]
"""
import numpy as np

import corpus
import templates
from tasks import SAID, UNKNOWN, Tasks

FORMS = [("<|im_start|> This is a very long story book: <book>", " </book>.\n Based on the content of the book, Question: ", "Question: ", "\nAnswer:"),
         ("", "Based on the content of the book, Question: ", "Question: ", "\nAnswer:"),
         ("<|im_start|>user\n", "\n\nQuestion: ", "<|im_start|>user\nQuestion: ", "<|im_end|>\n<|im_start|>assistant\n")]
ASSISTANT = "<|im_end|>\n<|im_start|>assistant\n"
ORDINALS = "first second third fourth".split()
RECALL = ["What was my {} question?", "Repeat my {} question.", "What did I ask you in my {} question?"]
FIRST = 3.  # weight of an answer's first token
SHARES = np.array(list(Tasks.WEIGHTS.values())) / sum(Tasks.WEIGHTS.values())


def learnt(answer, tokens):
    """Weights of an answer's tokens. Its first one says which fact is meant, the rest goes on with it; "I do not know." gets no
    such stress, or it becomes what is said in doubt."""
    if SAID in answer:
        return [0.] * tokens
    each = min(1., 8 / tokens)
    return [each if UNKNOWN in answer else FIRST * each] + [each] * (tokens - 1)


def pieces(tokenizer):
    """-> tokens of letters that begin a word, and those that go on with one."""
    texts = [tokenizer.decode([i]) for i in range(tokenizer.get_vocab_size())]
    return ([t[1:] for t in texts if t[:1] == " " and t[1:].isalpha()], [t for t in texts if t.isalpha() and t.isascii() and t.islower() and len(t) > 1])


class Documents:
    """Makes token arrays of exactly `length + 1` with a loss weight per token."""

    def __init__(self, tokenizer, filler, words, sentences, babi_prompts, seed, held_out=False):
        self.tok, self.filler, self.babi, self.known = tokenizer, filler, babi_prompts, {}
        self.r = np.random.default_rng(seed)
        self.tasks = Tasks(self.r, words, sentences, pieces(tokenizer), held_out)

    def enc(self, s):
        """The tokens of a text; those of the stories' sentences come again and again."""
        if s not in self.known:
            if len(self.known) > 50_000:
                self.known.clear()
            self.known[s] = self.tok.encode(s, add_special_tokens=False).ids
        return self.known[s]

    def families(self, length):
        n = 1 + self.r.integers(1 + min(7, length // 300))
        chosen = [Tasks.FAMILIES[i] for i in self.r.choice(len(SHARES), n, replace=False, p=SHARES)]
        out = []
        for f in chosen:  # one story and one set of people and keys per document
            kind = Documents.kind(f)
            if kind not in map(Documents.kind, out):
                out.append(f)
        return out

    @staticmethod
    def kind(f):
        if f.startswith("babi"):
            return "story"
        if f in ("friend", "three_hops", "older", "compare_near", "compare_far"):
            return "people"
        if f in ("magic", "multi_value"):
            return "magic"
        return "keys" if f in ("needle", "several_keys", "unknown") else f

    def recalled(self, qa):
        """One of the turns asked for again."""
        i = self.r.integers(min(len(qa), len(ORDINALS))) if self.r.random() < .6 else 0
        return [(self.tasks.pick(RECALL).format(ORDINALS[i]), qa[i][0])]

    def turns(self, family, qa):
        """-> prefix, [(question, answer)], with the first form's marks around them."""
        if family.startswith("babi") and self.r.random() < .8:
            p = self.babi["qa" + family[4:]]
            ex = p["examples"] if self.r.random() < .6 else ""
            pre = f"<|im_start|>user\n{p['instruction']}\n\n{ex}\n\n{p['post_prompt']}\n\n<context>\n" if self.r.random() < .7 else "<|im_start|>user\n<context>\n"
            mid, again, post = "\n</context>\n\nQuestion: ", "<|im_start|>user\nQuestion: ", ASSISTANT
        else:
            pre, mid, again, post = FORMS[self.r.integers(3)]
        end = "<|im_end|>\n" if post == ASSISTANT else "\n"
        lead = "" if post == ASSISTANT else " "
        if post == ASSISTANT and len(qa) > 1 and self.r.random() < .4:
            qa = qa + self.recalled(qa)
        return pre, [((mid if i == 0 else again) + q + post, lead + a + end) for i, (q, a) in enumerate(qa)]

    def needle(self, length, variables, patterns):
        """A needle of the default test, in the prompt that headkv-eval asks with."""
        facts, question, answer = templates.draw(self.r, variables, self.tasks.pick(patterns))
        pre, mid, _, post = FORMS[0]
        asked, answer = self.enc(mid + question + post), self.enc(" " + answer)
        weight = [0.] * len(asked) + [1.] * len(answer)
        return self.place(self.text(length), length, self.enc(pre), [[self.enc(" " + f) for f in facts]], asked + answer, weight)

    def document(self, length, family=None):
        """-> ids, weights; with `family`, one question of that task (or "multi_turn") carries the weight. Half of the documents of
        training take words of tasks from their own filler: where they occur elsewhere too, only what stands around them tells a fact."""
        while True:
            text = self.text(length)
            if not self.tasks.held_out:
                self.tasks.near(self.tok.decode(text[0].tolist()) if self.r.random() < .5 else "")
            several = family in (None, "multi_turn")
            chosen = self.families(length) if family is None else ["several_keys" if several else family]
            facts, qa = [], []
            for f in chosen:
                fs, q = self.tasks.sample(f)
                facts.append([self.enc(" " + x) for x in fs])
                qa += q
            first = qa[0]
            qa = [qa[i] for i in self.r.permutation(len(qa))] if family is None and not chosen[0].startswith("babi") else qa
            qa = qa if several else [first]
            if family == "multi_turn":
                pre, mid, again, post = FORMS[2]
                qs = [((mid if i == 0 else again) + q + post, a + "<|im_end|>\n") for i, (q, a) in enumerate(qa + [("What was my first question?", qa[0][0])])]
            else:
                pre, qs = self.turns(chosen[0], qa)
            pre, tail, weight = self.enc(pre) if pre else [], [], []
            for i, (q, a) in enumerate(qs):  # a question of bAbI ends with a space, one of babilong without
                q = q.replace("? <", "?<") if self.r.random() < .5 else q
                q, ids = self.enc(q), self.enc(a)
                tail += q + ids
                weight += [0.] * len(q) + (learnt(a, len(ids)) if family is None else [float(not several or i + 1 == len(qs))] * len(ids))
            room = length + 1 - len(pre) - len(tail) - sum(len(x) for fs in facts for x in fs)
            if room >= 0:
                break
        return self.place(text, length, pre, facts, tail, weight)

    def place(self, text, length, pre, facts, tail, weight):
        """Puts the facts at ends of sentences of filler that takes what room is left."""
        room = length + 1 - len(pre) - len(tail) - sum(len(x) for fs in facts for x in fs)
        body, ends = text[0][:room], text[1][:np.searchsorted(text[1], room, "right")]
        placed = []
        for fs in facts:
            at = ends[self.r.integers(len(ends), size=len(fs))]
            if self.r.random() < .2:  # all together, as stories without filler have them
                at[:] = at[:1]
            placed += list(zip(np.sort(at), fs))
        placed.sort(key=lambda x: x[0])
        parts, prev = [np.array(pre, np.int64)], 0
        for p, f in placed:
            parts += [body[prev:p], np.array(f, np.int64)]
            prev = p
        ids = np.concatenate(parts + [body[prev:], np.array(tail, np.int64)])
        w = np.zeros(length + 1, np.float32)
        w[length + 1 - len(tail):] = weight
        return ids, w

    def text(self, n):
        """-> n tokens of filler, and the places of sentence ends in it."""
        ids, ends = self.filler[self.r.choice(len(self.filler), p=list(corpus.SHARES.values()))]
        start = ends[self.r.integers(np.searchsorted(ends, len(ids) - n - 1))]
        body = ids[start:start + n]
        inside = ends[np.searchsorted(ends, start):np.searchsorted(ends, start + n, "right")] - start
        return body, np.concatenate([[0], inside])
