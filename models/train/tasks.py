"""All tasks of the training: the basic ones and those that need several facts at once.

A task is `(facts in order, [(question, answer)])`. `held_out=True` draws people, cities, entities,
words and templates from held_out.json, which training never sees; nor does it see a value of the default needle test.
"""
import json
import os
import re
import zlib

import base_tasks as base
import templates
from stories import Story

HELD = json.load(open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "held_out.json")))
CONSONANTS = "b c d f g h j k l m n p r s t v w z br ch cl dr gr kl sh st th tr".split()
NUMBERS = "zero one two three four five six seven eight nine".split()
UNKNOWN = "I do not know."
SAID = "All right."  # never learnt (`documents.learnt`)
GONE = templates.held_values()
NAMES = GONE.union(HELD["people"], HELD["cities"])
unseen = lambda xs: [x for x in xs if x not in GONE]


def split_words(words, held_out):
    gone = {w for v in GONE for w in v.split()}
    return [w for w in words if (zlib.crc32(w.encode()) % 10 == 0) == held_out and w not in gone]


class Tasks(base.Tasks):
    WEIGHTS = dict(best_thing=1.5, needle=9, several_keys=7, multi_value=3.5, variables=2, statement=2.5, quote=1.5,
                   magic=4, compare_near=1.5, compare_far=1.5, older=2, order=.5, friend=2, three_hops=2,
                   babi1=1.5, babi2=3, babi3=4.5, babi4=.7, babi5=.7, count=1.5, unknown=.25, chat=1.5)
    FAMILIES = list(WEIGHTS)

    def __init__(self, rng, words, sentences, pieces, held_out=False):
        """`pieces`: what words may begin with and go on with, of the whole vocabulary."""
        super().__init__(rng, split_words(words, held_out))
        self.begins, self.goes_on = pieces
        self.sentences, self.local = sentences, []
        self.held_out = held_out
        self.people = HELD["people"] if held_out else unseen(base.PEOPLE)
        self.cities = HELD["cities"] if held_out else unseen(base.CITIES)
        self.entities = HELD["entities"] if held_out else unseen(base.ENTS)
        self.attributes = HELD["attributes"] if held_out else unseen(base.ATTRS)

    def fresh(self, known, make, k=None):
        """One of the known ones now and then, else one that is made: a list is learnt by heart instead of copied."""
        if self.held_out:
            return self.pick(known, k)
        out = dict.fromkeys(self.pick(known) if self.r.random() < .25 else make() for _ in range(2 * (k or 1)))
        return self.pick(list(out), k) if len(out) >= (k or 1) else self.fresh(known, make, k)

    def name(self, k):
        return self.fresh(self.people, self.made_up, k)

    def city(self, k):
        return self.fresh(self.cities, lambda: self.made_up() + (" " + self.made_up() if self.r.random() < .15 else ""), k)

    def entity(self):
        return self.fresh(self.entities, lambda: "the " + self.rwords(1, 2))

    def attribute(self):
        return self.fresh(self.attributes, lambda: self.rwords(1, 2))

    def made_up(self):
        """A name of syllables or of pieces of the vocabulary."""
        while True:
            if self.r.random() < .5:
                n = "".join(self.pick(CONSONANTS) + self.pick("aeiou") for _ in range(self.between(1, 3))) + self.pick(["", "n", "r", "l", "s", "th"])
            else:
                n = self.assembled()
            n = n[0].upper() + n[1:]
            if n not in NAMES:
                return n

    def assembled(self):
        """A word of the vocabulary's pieces. Every token must be an answer now and then: what never is one is unlearnt, and the
        names and words that the tests ask for are such tokens. The words themselves are never made."""
        while True:
            w = self.pick(self.begins) + "".join(self.pick(self.goes_on) for _ in range(self.between(1, 2)))
            if w not in GONE:
                return w

    def near(self, text):
        """Words of this text are drawn as well from now on."""
        self.local = split_words(sorted(set(re.findall(r"\b[a-z]{3,10}\b", text))), False)

    def word(self):
        if self.local and self.r.random() < .6:
            return self.pick(self.local)
        u = self.r.random()
        if self.held_out or u < .5:
            return self.pick(self.words)
        return self.assembled() if u < .8 else self.made_up().lower()

    def rwords(self, lo, hi):
        return " ".join(self.word() for _ in range(self.between(lo, hi)))

    def opened(self, openings, text):
        """Half of the facts and questions begin with something that has nothing to do with them."""
        if self.held_out or self.r.random() < .5:
            return text
        rest = text[0].lower() + text[1:] if text.split()[0] in templates.COMMON else text
        return self.pick(openings).format(r=self.word(), R=self.upper(self.word())) + rest

    def between(self, lo, hi):
        return int(self.r.integers(lo, hi + 1))

    def sample(self, family):
        if family.startswith("compare"):
            return self.compare(family == "compare_far")
        return getattr(self, family)()

    def upper(self, s):
        return s[0].upper() + s[1:]

    def keyed(self, a, e):
        """A fact of the key `a` of `e`: its blanks are what `templates` says."""
        v = self.value()
        return dict(a=a, e=e, A=self.upper(a), E=self.upper(e), v=v, V=self.upper(v))

    def owner(self):
        return self.entity() if self.r.random() < .6 else self.name(1)[0]

    def keys(self, n):
        """-> [fact], [question and answer], wordings of questions"""
        what, who = self.attribute, self.owner
        if not self.held_out and self.r.random() < .6:  # neither half of a key decides alone
            things, owners = [what() for _ in range(self.between(1, 3))], [who() for _ in range(self.between(2, 4))]
            what, who = lambda: self.pick(things), lambda: self.pick(owners)
        rows = [self.keyed(*key) for key in dict.fromkeys((what(), who()) for _ in range(n))]
        if self.held_out:
            fact, ask = map(lambda x: [x], self.pick(HELD["templates"]["attribute"]))
        else:
            fact, ask = [templates.attribute(self.r, self.word) for _ in range(self.between(1, 2))], templates.ATTRIBUTE_ASKED
            if self.r.random() < .2:
                ask = [templates.asked(self.word)]
        return ([self.opened(templates.OPENINGS, self.pick(fact).format(**r)) for r in rows],
                [(self.asks(ask, r), r["v"] + ".") for r in rows], ask)

    def asks(self, ask, row):
        """A question, with a beginning and an end that have nothing to do with it."""
        q = self.pick(ask).format(**row)
        if not self.held_out and self.r.random() < .4:
            q = q[:-1] + self.pick(templates.ENDINGS).format(r=self.word()) + q[-1]
        return self.opened(templates.QUESTION_OPENINGS, q)

    def needle(self):
        return self.keys(1)[:2]

    def several_keys(self):
        facts, qa, _ = self.keys(self.between(3, 8))
        return facts, self.pick(qa, 4)

    def unknown(self):
        """Seldom, and of owners of whom nothing is in the text: a small model says so wherever a wording is new to it else."""
        facts, qa, ask = self.keys(self.between(2, 6))
        while (nobody := self.owner()) in " ".join(facts):
            pass
        return facts, [(self.asks(ask, self.keyed(self.attribute(), nobody)), UNKNOWN)] + qa[:2]

    def number(self):
        return templates.numbered(self.r, self.word) if not self.held_out and self.r.random() < .5 else self.pick(templates.MAGIC)

    def numbered(self, n):
        """At most n keys of numbers; half of the sets share their words, so that neither decides alone."""
        key = lambda: self.rwords(1, 2)
        if self.r.random() < .5:
            one, two = ([self.word() for _ in range(self.between(2, 4))] for _ in range(2))
            key = lambda: self.pick(one) + " " + self.pick(two)
        return list(dict.fromkeys(key() for _ in range(n)))

    def magic(self):
        facts, qa, fact = [], [], self.number()
        w = dict(w=self.rwords(1, 1), w2=self.rwords(1, 1))
        for k in self.numbered(self.between(1, 6)):
            v = self.digits(5, 7)
            facts.append(self.opened(templates.OPENINGS, fact.format(k=k, K=self.upper(k), v=v, **w)))
            qa.append((self.asks(templates.MAGIC_ASKED, dict(k=k, **w)), v + "."))
        return facts, self.pick(qa, 3)

    def multi_value(self):
        qa, order, fact = [], [], self.number()
        w = dict(w=self.rwords(1, 1), w2=self.rwords(1, 1))
        for k in self.numbered(self.between(1, 3)):
            order += [(k, self.digits(5, 7)) for _ in range(self.between(2, 4))]
            qa.append((self.asks(templates.VALUES_ASKED, dict(k=k, **w)), k))
        order = self.pick(order, len(order))
        facts = [fact.format(k=k, K=self.upper(k), v=v, **w) for k, v in order]
        return facts, [(q, ", ".join(v for k, v in order if k == key) + ".") for q, key in qa]

    def statement(self):
        """A long statement recalled from its subject, as in retrieval-head detection."""
        out, fact = [], self.pick(templates.STATEMENT)
        for _ in range(self.between(1, 3)):
            w = self.pick(templates.SPEAKER).format(p=self.name(1)[0], e=self.entity(), r=self.rwords(1, 2))
            u = self.r.random()
            v = self.rwords(4, 24) if u < .4 else self.jumbled() if u < .7 else base.synthetic_sentence(self.r)[1:-1].lower()
            out.append((fact.format(w=w, W=self.upper(w), v=v), (self.pick(templates.STATEMENT_ASKED).format(w=w), v + ".")))
        return [f for f, _ in out], [q for _, q in out]

    def jumbled(self):
        """The words of a sentence in another order: what follows which cannot be learnt by heart."""
        words = self.pick(self.sentences).split()[:self.between(4, 20)]
        return " ".join(self.pick(words, len(words))).strip(".").lower()

    def quote(self):
        """A sentence of the text goes on as it does there."""
        s = self.pick(self.sentences)
        words = s.split()
        k = self.between(3, min(6, len(words) - 2))
        ask = self.pick(['How does the sentence go on that begins with "{}"?', 'Complete the sentence from the text: "{}"', 'What follows after "{}" in the text?'])
        return [s], [(ask.format(" ".join(words[:k])), " ".join(words[k:]))]

    def variables(self):
        letter = lambda: "".join(chr(65 + self.between(0, 25)) for _ in range(self.between(3, 5)))
        chains, qa = [], []
        for _ in range(self.between(1, 2)):
            v, names = self.digits(5, 7), [letter() for _ in range(self.between(2, 5))]
            chains.append([f"VAR {names[0]} = {v}."] + [f"VAR {b} = VAR {a}." for a, b in zip(names, names[1:])])
            qa.append((self.asks([templates.variables_asked(self.r, v)], {}), ", ".join(names) + "."))
        facts = []
        while any(chains):
            facts.append(self.pick([c for c in chains if c]).pop(0))
        return facts, qa

    def relation(self):
        return self.rwords(1, 2) if self.r.random() < .3 else self.pick(templates.RELATION)

    def friend(self):
        """Two hops, and one: who, and where that one is."""
        n = self.between(2, 4)
        p, places, rel, (fact, ask) = self.name(2 * n), self.city(n), self.relation(), self.pick(templates.PLACE)
        if rel == "best friend" and fact == "lives in":  # these two together are the default needle test's
            return self.friend()
        if self.held_out:
            rel, fact, ask = "best friend", "lives in", "does {x} live"
        facts, qa = [], []
        for i in range(n):
            a, b, end = p[2*i], p[2*i+1], f"{p[2*i+1]} {fact} {places[i]}."
            facts += [f"{a}'s {rel} is {b}.", end]
            x = self.pick([f"the {rel} of {a}", f"{a}'s {rel}"]) if self.held_out or self.r.random() < .8 else b
            qa.append((f"Where {ask.format(x=x)}?", end))
        return self.pick(facts, len(facts)), qa

    def three_hops(self):
        n = self.between(2, 3)
        p, places, one, two, (fact, ask) = self.name(3 * n), self.city(n), self.relation(), self.relation(), self.pick(templates.PLACE)
        facts, qa = [], []
        for i in range(n):
            a, b, c = p[3*i:3*i+3]
            facts += [f"{a}'s {one} is {b}.", f"{b}'s {two} is {c}.", f"{c} {fact} {places[i]}."]
            x = f"the {two} of the {one} of {a}"
            qa.append((f"Where {ask.format(x=x)}?", f"{b}'s {two} is {c}. {c} {fact} {places[i]}."))
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
        """Counted by naming: the number follows from a list that the model has just written."""
        n = self.between(1, 3)
        seen, qa = [], []
        for p in self.name(n):
            seen += [(p, c) for c in self.city(self.between(1, 5))]
        seen = self.pick(seen, len(seen))
        for p in dict.fromkeys(p for p, _ in seen):
            mine = [c for q, c in seen if q == p]
            qa.append((f"How many cities did {p} visit?", ", ".join(mine) + f": {NUMBERS[len(mine)]}."))
        return [f"{p} visited {c}." for p, c in seen], qa

    def story(self, steps, *kinds):
        """Questions of the first kind, then of the others: the more that is asked of one story, the sooner it is learnt."""
        s = Story(self, self.between(*steps))
        qa = [self.pick(getattr(s, kind)(), 3) for kind in kinds]
        return (s.facts, sum(qa, [])) if qa[0] else self.story(steps, *kinds)

    def babi1(self):
        return self.story((2, 10), "where_people")

    def babi2(self):
        return self.story((4, self.pick([14, 28, 50])), "where_things", "where_people")

    def babi3(self):
        return self.story((8, self.pick([24, 40, 70])), "before", "people_before", "where_things")

    def chat(self):
        """Words that mean nothing, here to be asked for again (`Documents.recalled`)."""
        said = lambda: self.rwords(3, 14) if self.r.random() < .4 else self.jumbled()
        return [], [(self.upper(said()) + self.pick(["?", ".", ""]), SAID) for _ in range(self.between(1, 2))]

    def order(self):
        """Two numbers and no text: the comparison by itself."""
        qa = []
        for _ in range(self.between(2, 6)):
            a, b = (int(x) for x in self.r.permutation(95)[:2] + 3)
            word = self.pick(["more", "less"])
            qa.append((f"Which is {word}, {a} or {b}?", f"{max(a, b) if word == 'more' else min(a, b)}."))
        return [], qa
