"""The sentences of the tasks that training sees. Those of the default needle test (haystack/patterns/held_out) are not among
them: `check` says so at every start.

Facts are crossed with questions, so that no question belongs to one wording of a fact.
"""
import glob
import json
import os
import re

import numpy as np

PATTERNS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../haystack/patterns/held_out")

# A fact of a thing: who has what, then how that is said. "the {a} of {e} is {v}" by itself belongs to the tests.
VERBS = "is|is|is|was|is now|remains|became|reads|is said to be|turned out to be|is still|has always been|will be|equals|is simply|seems to be|is none other than".split("|")
TESTS = "The {a} of {e} is {v}."  # the most usual wording of all; its parts stand in others, or the model learns that it never is a fact
SUBJECTS = "the {a} of {e}|{e}'s {a}|the {a} that belongs to {e}|the {a} used by {e}|the {a} given to {e}|the only {a} of {e}|the current {a} for {e}|the {a} assigned to {e}|the {a} {e} chose".split("|")
SUBJECTS += [f"{one} {{a}} of {{e}}" for one in "this|that|our|their|his|her|its|my|a|one|some|every|each|another|no other|either".split("|")]
# What may follow a fact's value.
AFTER = ", they say| and nothing else|, as {r} said|, if I am right|, by the way| again|, says {r}| with {r}|, not {r}| because of {r}|, after all| near {r}|, or so".split("|")
ATTRIBUTE = ("Remember that {e} has the {a} {v}.|For {e} the {a} is: {v}.|{E} has {v} as {a}.|As the {a} of {e} they chose {v}."
             "|They changed the {a} of {e} to {v}.|In the register {e} is listed with the {a} {v}.|When asked for the {a}, {e} answers {v}."
             "|A note says that the {a} of {e} is {v}.|It was decided that {e} gets the {a} {v}.|My notes on {e}: the {a} is {v}.|One {a} of {e} is: {v}."
             "|We found the {a} of {e}, and it is {v}.|Nobody but {e} uses the {a} {v}.|Here is the {a} of {e}: {v}.|{A} of {e}: {v}.|{E}, {a}: {v}."
             "|For {e} they wrote {v} as the {a}.|{E} got the {a} {v}.|{V} is the {a} of {e}.|{V} became the {a} that {e} uses.|The {a} is {v} for {e}."
             "|There is one {a} for {e}, namely {v}.|{E} keeps its {a}, {v}.|If you need the {a} of {e}, take {v}.|{E} goes with the {a} {v}.").split("|")
ATTRIBUTE_ASKED = ("What is the {a} that belongs to {e}?|Which {a} does {e} have?|What is the {a} for {e}?|Tell me the {a} of {e}.|What is {e}'s {a}?"
                   "|Name the {a} of {e}.|What did the text say about the {a} of {e}?|Give the {a} of {e}.|Do you remember the {a} of {e}?"
                   "|Which {a} of {e} is mentioned in the text?|Look up the {a} of {e}.").split("|")
# What may stand before a fact or a question; {r} is a word that means nothing.
OPENINGS = ("Note that |Remember: |It is said that |By the way, |As far as we know, |{R}: |{R} {r}: |{R}, |Everybody agreed that |After {r}, |"
            "In the year of {r} it was written that |{R} and {r} say that |Important: |Nobody doubts that |The {r} book says that |Number {r}: ").split("|")
QUESTION_OPENINGS = "Please, |I forgot: |{R}, |{R} {r}, |Now, |One more question: |Quickly: |About {r} and {r}: |My friend {R} wants to know: ".split("|")
# What may end a question, before its mark.
ENDINGS = (" in the text above| that the text mentions| as it was written down|, one way or another|, please| according to what you read| in this {r}|"
           ", in whatever order|, near the {r} or elsewhere| among the {r}s| of all that is said").split("|")
COMMON = set("The Remember For People As They In When A It My One We Nobody Here What Which Tell Name Give Do Look There If Find List Who Of This That Our Their His Her Its Some Every Each Another No Either Among".split())
MAGIC = ("A lucky number of {k} is {v}.|The number that goes with {k} is: {v}.|Among the numbers of {k} is {v}.|{K} got the number {v}."
         "|One of the numbers written on {k} is: {v}.|Of all {w} {w2} numbers, {k} has {v}.|A {w} number of {k} was {v}.|The {w} {w2} number for {k} is: {v}.|One {w} number for {k} is {v}.").split("|")
NUMBER_SUBJECTS = "one of their {w} {w2} numbers|one of these {w} {w2} numbers|some of the {w} {w2} numbers|this of the {w} {w2} numbers|the first of the {w} {w2} numbers|one number|a {w} number|a {w} {w2} number|one {w} {w2} number|one of the {w} numbers|one of all {w} {w2} numbers|the next {w} number|another number".split("|")
NUMBER_OWNERS = "for|of|that belongs to|given to|which goes with|near|written on".split("|")
MAGIC_ASKED = ("Which number of {k} does the text mention?|What number goes with {k}?|What is the number for {k}?|Tell me the number of {k} that stands in the text."
               "|Which {w} {w2} number does {k} have?|Which {w} number goes with {k}?|What {w} {w2} number was given to {k}?").split("|")
MAGIC_ASKED += [f"{head} {what} {owner} {{k}}{'?' if head.split()[0] in ('What', 'Which', 'Do') else '.'}" for head in "What is|Tell me|Name|Give me|Which is|Do you know".split("|")
                for what in "the {w} number|the {w} {w2} number|that {w} {w2} number|one {w} {w2} number".split("|") for owner in "of|for|that belongs to|given to|with".split("|")]
VALUES_ASKED = "What are all the {w} {w2} numbers for {k}?|What are all the {w} numbers of {k} that stand in the text?|Which are the {w} {w2} numbers of {k}?|Which {w} {w2} numbers does {k} have?|Give me every {w} number of {k}.|What are the {w} {w2} numbers that belong to {k}?|List every number of {k}.|Which numbers of {k} are mentioned in the text?|What are all the numbers for {k}?|Name all numbers that go with {k}.".split("|")
VARIABLES_ASKED = ("{which} variables {hold} {v}{end}|{which} variables {hold} the value {v}{end}|{which} variables {hold} the value {v}{end}|Find all variables that are assigned the value {v}.|Which variables have the value {v}?|Name every variable whose value is {v}, itself or through others."
                   "|What variables were given {v}?|List the variables that hold {v}.|Which variables come to {v} in the end?|Who holds {v}, among the variables?").split("|")
# Blanks of the questions above; the ending of RULER's own question is none of these.
WHICH = "Which|What|Name all|Find the|List which|Tell me which|Say what".split("|")
HOLD = "are assigned|have|hold|get|are given|come to|end up with|take|equal|contain".split("|")
THROUGH = "| in the text| in this text| that stands in the text| in the end|, directly or through others|, by themselves or not|, also through other variables|, in whatever way| in some way".split("|")
STATEMENT = ("{W} says that {v}.|{W} proves that {v}.|In {w} one reads that {v}.|According to {w}, {v}.|{W} claims that {v}.|It stands in {w} that {v}."
             "|{W} tells us that {v}.|{W} shows that {v}.|{W} showed this: {v}.|{W} reports that {v}.").split("|")
STATEMENT_ASKED = "What does {w} say?|What is written in {w}?|What do we learn from {w}?|What did {w} tell us?|Repeat what {w} says.|What does {w} show?|What does {w} report?".split("|")
SPEAKER = "the {r} by {e}|the diary of {p}|the note from {e}|a message by {p}|the speech of {p}|the second report of {e}|{p}'s book|a sign at {e}|the {r} report|the newest study of {e}".split("|")
RELATION = "neighbor teacher cousin doctor uncle boss sister roommate partner trainer rival grandfather student tailor".split() + [
    "old classmate", "business partner", "best friend", "favorite singer", "first wife", "worst enemy", "closest friend"]
# (fact of a person and a place, how it is asked)
PLACE = [("lives in", "does {x} live"), ("works in", "does {x} work"), ("studies in", "does {x} study"), ("sleeps in", "does {x} sleep"), ("has a house in", "does {x} have a house"),
         ("spends the winter in", "does {x} spend the winter"), ("grew up in", "did {x} grow up"), ("was born in", "was {x} born"), ("stays in", "does {x} stay"),
         ("teaches in", "does {x} teach"), ("moved to", "did {x} move"), ("opened a shop in", "did {x} open a shop"), ("was seen in", "was {x} seen")]


def attribute(rng, word):
    """A wording of a fact of a thing; a third of them are held together by words that mean nothing, since in the end only the
    places of key and value count."""
    u = rng.random()
    if u < .35:
        key = ["the {a} of {e}", "{e}'s {a}", "{a} {w} {e}", "{e} {w} {a}", "the {a} {w} {e}"][rng.integers(5)]
        form = ["{key} {w} {v}.", "{w} {key} {w2} {v}.", "{w}, {key}, {w2}: {v}.", "{key} {w} {w2} {v}."][rng.integers(4)]
        return begun(form.replace("{key}", key).replace("{w}", word()).replace("{w2}", word()))
    if u < .65:
        return ATTRIBUTE[rng.integers(len(ATTRIBUTE))]
    subject, verb = SUBJECTS[rng.integers(len(SUBJECTS))], VERBS[rng.integers(len(VERBS))]
    text = TESTS if rng.random() < .1 else begun(f"{subject} {verb} {{v}}.")
    return followed(rng, word, text) if text == TESTS or rng.random() < .1 else text


def followed(rng, word, text):
    """The fact with something after its value that has nothing to do with it."""
    return text[:-1] + AFTER[rng.integers(len(AFTER))].format(r=word()) + "."


def begun(text):
    """The text as a sentence begins; blanks have their capital form."""
    return text[:2].upper() + text[2:] if text.startswith("{") else text[0].upper() + text[1:]


def variables_asked(rng, value):
    """A question for all variables that have a value."""
    one = lambda texts: texts[rng.integers(len(texts))]
    which = one(WHICH)
    return one(VARIABLES_ASKED).format(which=which, hold=one(HOLD), v=value, end=one(THROUGH) + ("?" if which in ("Which", "What") else "."))


def numbered(rng, word):
    """A wording of a number of a key, of parts."""
    one = lambda texts: texts[rng.integers(len(texts))]
    text = begun(f"{one(NUMBER_SUBJECTS)} {one(NUMBER_OWNERS)} {{k}} {one(VERBS)}{one(['', ':'])} {{v}}.")
    return followed(rng, word, text) if rng.random() < .1 else text


def asked(word):
    """A question of words that mean nothing around the key."""
    return f"{word().capitalize()} {word()} the {{a}} {word()} {{e}}?"


def held_out():
    """-> [(family, variables, patterns)] of the default needle test."""
    out = []
    for path in sorted(glob.glob(PATTERNS + "/*.jsonl")):
        first, *rest = [json.loads(line) for line in open(path, encoding="utf8") if line.strip()]
        out.append((os.path.basename(path)[:-6], first["variables"], rest))
    assert out, f"no patterns in {PATTERNS}"
    return out


def held_values():
    """All words, names, places and things of the default needle test."""
    return {v for _, variables, _ in held_out() for vs in variables.values() if isinstance(vs, list) for v in vs}


WORD, WORDS = r"\S+", r"\S+(?: \S+){0,2}"
BLANKS = {"{w}": WORD, "{w2}": WORD, "{v}": ".+", "{V}": ".+"}  # the others have three words at most


def made(text, endings=()):
    """All that a wording may become; one of `endings` may stand before its mark. What follows a value (`AFTER`) is in {v}."""
    def able(text):
        return "".join(BLANKS.get(part, WORDS) if part.startswith("{") else re.escape(part) for part in re.split(r"(\{[^}]*\})", text))
    return re.compile(able(text[:-1]) + f"(?:{'|'.join(map(able, endings))})?" + able(text[-1]), re.IGNORECASE)


def check():
    """No fact and no question of the default needle test can be one of training's, but for what fills the blanks. Sentences of words
    that mean nothing (`attribute`, `asked`) have none of the tests' verbs. Of two hops single facts are in training, and the tests' two
    together are not (`tasks.friend`)."""
    spoken = [t.replace("{W}", who).replace("{w}", who) for t in STATEMENT + STATEMENT_ASKED for who in SPEAKER]
    keyed = [t for s in SUBJECTS for v in VERBS if (t := begun(f"{s} {v} {{v}}.")) != TESTS]
    numbers = [f"{s} {o} {{k}} {v}{colon} {{v}}." for s in NUMBER_SUBJECTS for o in NUMBER_OWNERS for v in VERBS for colon in ("", ":")]
    questions = ATTRIBUTE_ASKED + MAGIC_ASKED + VALUES_ASKED
    seen = [(t, made(t)) for t in spoken + keyed + numbers + ATTRIBUTE + MAGIC] + [(t, made(t, ENDINGS)) for t in questions]
    rng = np.random.default_rng(1)
    for family, variables, patterns in held_out():
        for pattern in patterns if family != "two-hops" else []:
            facts, question, _ = draw(rng, variables, pattern)
            for t, able in seen:
                for text in facts + [question]:
                    assert not able.fullmatch(text), f"{family}: training's {t!r} makes {text!r}"


def draw(rng, variables, pattern):
    """One needle of the default test: facts, question, answer."""
    used = {}
    def value(m):
        if m.group(1) not in used:
            name, vs = m.group(1).split(".")[0], None
            vs = variables[name]
            while True:
                got = str(rng.integers(vs["from"], vs["to"] + 1)) if isinstance(vs, dict) else vs[rng.integers(len(vs))]
                if got not in [u for k, u in used.items() if k.split(".")[0] == name]:
                    break
            used[m.group(1)] = got
        return used[m.group(1)]
    fill = lambda s: re.sub(r"\{([^}]*)\}", value, s)
    facts = [fill(s) for s in (pattern["needle"] if isinstance(pattern["needle"], list) else [pattern["needle"]])]
    return facts, fill(pattern["question"]), fill(pattern["real_needle"])
