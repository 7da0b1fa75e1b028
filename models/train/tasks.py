"""All tasks of the training: the basic ones and those that need several facts at once.

A task is `(facts in order, [(question, answer)])`. `held_out=True` draws people, cities, entities,
words and templates from held_out.json, which training never sees.
"""
import json
import os
import zlib

import base_tasks as base

HELD = json.load(open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "held_out.json")))
TEMPLATES = [("The {a} of {e} is {v}.", "What is the {a} of {e}?"),
             ("The {a} that belongs to {e} is {v}.", "What is the {a} that belongs to {e}?"),
             ("Remember that {e} has the {a} {v}.", "Which {a} does {e} have?"),
             ("For {e} the {a} is: {v}.", "What is the {a} for {e}?"),
             ("People say the {a} of {e} is {v}.", "Tell me the {a} of {e}.")]
CONSONANTS = "b c d f g h j k l m n p r s t v w z br ch cl dr gr kl sh st th tr".split()
NUMBERS = "zero one two three four five six seven eight nine".split()
UNKNOWN = "I do not know."


def split_words(words, held_out):
    return [w for w in words if (zlib.crc32(w.encode()) % 10 == 0) == held_out]


class Tasks(base.Tasks):
    WEIGHTS = dict(best_thing=1.5, needle=2, several_keys=2, multi_value=3, variables=3, statement=1.5,
                   magic=1, compare_near=1.5, compare_far=1.5, older=5, friend=1.5, three_hops=2.5,
                   babi1=1.5, babi2=3, babi3=4, babi4=.7, babi5=.7, count=1.5, unknown=1)
    FAMILIES = list(WEIGHTS)

    def __init__(self, rng, words, held_out=False):
        super().__init__(rng, split_words(words, held_out))
        self.held_out = held_out
        self.people = HELD["people"] if held_out else base.PEOPLE
        self.cities = HELD["cities"] if held_out else base.CITIES + [self.made_up() for _ in range(400)]
        self.entities = HELD["entities"] if held_out else base.ENTS + self.new("the {} {}", HELD["entities"])
        self.attributes = HELD["attributes"] if held_out else base.ATTRS + self.new("{} {}", HELD["attributes"])
        self.templates = HELD["templates"]["attribute"] if held_out else TEMPLATES

    def name(self, k):
        if self.held_out or self.r.random() < .2:
            return self.pick(self.people, k)
        out = set()
        while len(out) < k:
            out.add(self.made_up())
        return self.pick(list(sorted(out)), k)

    def made_up(self):
        """A name of syllables: a fixed list of names would be learnt by heart instead of copied."""
        while True:
            n = "".join(self.pick(CONSONANTS) + self.pick("aeiou") for _ in range(self.between(1, 3))) + self.pick(["", "n", "r", "l", "s", "th"])
            if n.capitalize() not in HELD["people"] + HELD["cities"]:
                return n.capitalize()

    def new(self, form, held, n=400):
        made = [form.format(self.rwords(1, 1), self.rwords(1, 1)) for _ in range(n)]
        return [x for x in made if x not in held]

    def between(self, lo, hi):
        return int(self.r.integers(lo, hi + 1))

    def sample(self, family):
        if family.startswith("compare"):
            return self.compare(family == "compare_far")
        return getattr(self, family)()

    def _keys(self, n):
        who = lambda: self.pick(self.entities) if self.r.random() < .6 else self.pick(self.people)
        pairs = list(dict.fromkeys((self.pick(self.attributes), who()) for _ in range(n)))
        fact, ask = self.pick(self.templates)
        rows = [(a, e, self.value()) for a, e in pairs]
        return [fact.format(a=a, e=e, v=v) for a, e, v in rows], [(ask.format(a=a, e=e), v + ".") for a, e, v in rows]

    def needle(self):
        return self._keys(1)

    def several_keys(self):
        facts, qa = self._keys(self.between(3, 8))
        return facts, self.pick(qa, 4)

    def unknown(self):
        facts, qa = self._keys(self.between(2, 6))
        hide = self.between(0, len(facts) - 1)
        gone = qa.pop(hide)
        del facts[hide]
        return facts, [(gone[0], UNKNOWN)] + qa[:1]

    def multi_value(self):
        facts, qa, order = [], [], []
        for key in dict.fromkeys(self.rwords(1, 2) for _ in range(self.between(1, 3))):
            vals = [self.digits(5, 7) for _ in range(self.between(2, 4))]
            order += [(key, v) for v in vals]
            ask = self.pick(["What are all the special magic numbers for {} mentioned in the provided text?",
                             "List every special magic number for {}."])
            qa.append([ask, key, None])
        order = self.pick(order, len(order))
        facts = [f"One of the special magic numbers for {k} is: {v}." for k, v in order]
        return facts, [(ask.format(key), ", ".join(v for k, v in order if k == key) + ".") for ask, key, _ in qa]

    def variables(self):
        letter = lambda: "".join(chr(65 + self.between(0, 25)) for _ in range(self.between(3, 5)))
        chains, qa = [], []
        for _ in range(self.between(1, 2)):
            v, names = self.digits(5, 5), [letter() for _ in range(self.between(2, 5))]
            chains.append([f"VAR {names[0]} = {v}."] + [f"VAR {b} = VAR {a}." for a, b in zip(names, names[1:])])
            ask = self.pick(["Find all variables that are assigned the value {} in the text above.",
                             "Which variables have the value {}?"])
            qa.append((ask.format(v), ", ".join(names) + "."))
        facts = []
        while any(chains):
            facts.append(self.pick([c for c in chains if c]).pop(0))
        return facts, qa

    def friend(self):
        n = self.between(2, 4)
        p, places = self.name(2 * n), self.pick(self.cities, n)
        facts = []
        for i in range(n):
            facts += [f"{p[2*i]}'s best friend is {p[2*i+1]}.", f"{p[2*i+1]} lives in {places[i]}."]
        return self.pick(facts, len(facts)), [(f"Where does the best friend of {p[2*i]} live?", f"{p[2*i+1]} lives in {places[i]}.") for i in range(n)]

    def three_hops(self):
        n = self.between(2, 3)
        p, places = self.name(3 * n), self.pick(self.cities, n)
        facts, qa = [], []
        for i in range(n):
            a, b, c = p[3*i:3*i+3]
            facts += [f"{a}'s teacher is {b}.", f"{b}'s best friend is {c}.", f"{c} lives in {places[i]}."]
            qa.append((f"Where does the best friend of the teacher of {a} live?", f"{b}'s best friend is {c}. {c} lives in {places[i]}."))
        return self.pick(facts, len(facts)), qa

    def older(self):
        """Many pairs of few people: the dense signal that a small model needs to learn to compare."""
        who = self.name(self.between(2, 6))
        ages = [int(x) for x in self.r.permutation(90)[:len(who)] + 5]
        qa = []
        for _ in range(self.between(2, 6)):
            i, j = self.r.permutation(len(who))[:2]
            word = self.pick(["older", "younger"])
            win = i if (ages[i] > ages[j]) == (word == "older") else j
            qa.append((f"Who is {word}, {who[i]} or {who[j]}?", f"{who[i]} is {ages[i]}, {who[j]} is {ages[j]}. {who[win]} is {word}."))
        return [f"{w} is {a} years old." for w, a in zip(who, ages)], list(dict.fromkeys(qa))

    def count(self):
        n = self.between(1, 3)
        facts, qa = [], []
        for p in self.name(n):
            k = self.between(1, 5)
            facts += [f"{p} visited {c}." for c in self.pick(self.cities, k)]
            qa.append((f"How many cities did {p} visit?", NUMBERS[k] + "."))
        return self.pick(facts, len(facts)), qa

    def babi3(self):
        """qa3: where an object was before a place."""
        facts, at, holds, seen = [], {}, {}, {o: [] for o in base.OBJS}
        for _ in range(self.between(8, 32)):
            p, u = self.pick(base.BABI_PEOPLE), self.r.random()
            if u < .55 or p not in at:
                at[p] = self.pick([l for l in base.LOCS if l != at.get(p)])
                facts.append(f"{p} {self.pick(base.MOVES)} {at[p]}.")
                for o, h in holds.items():
                    if h == p:
                        seen[o].append(at[p])
            elif u < .85:
                free = [o for o in base.OBJS if o not in holds]
                if free:
                    o = self.pick(free)
                    holds[o] = p
                    if not seen[o] or seen[o][-1] != at[p]:
                        seen[o].append(at[p])
                    facts.append(f"{p} {self.pick(base.GRABS).format(o)}.")
            else:
                mine = [o for o, h in holds.items() if h == p]
                if mine:
                    o = self.pick(mine)
                    del holds[o]
                    facts.append(f"{p} {self.pick(base.DROPS).format(o)}.")
        qa = []
        for o, way in seen.items():
            if len(way) > 1:
                i = max(k for k, l in enumerate(way) if l == way[-1])
                qa.append((f"Where was the {o} before the {way[i]}? ", f"Before the {way[i]} the {o} was in the {way[i-1]}."))
        return (facts, self.pick(qa, len(qa))) if qa else self.babi3()
