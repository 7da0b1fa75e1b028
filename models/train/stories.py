"""Stories of people who walk about and carry things, as bAbI's tasks 1 to 3 (Weston et al., 2015) tell them, and every question
that can be asked about one.

An answer names the person on the way to the place, in one sentence, because babilong's metric reads the first sentence and
counts places only: a model of this size follows two steps when it may write down the first.
"""
LOCS = "bathroom bedroom garden hallway kitchen office".split()
OBJS = "apple football milk".split()
PEOPLE = "Mary John Sandra Daniel".split()
MOVES = ["moved to the", "went to the", "journeyed to the", "travelled to the", "went back to the"]
GRABS = [f"{v} the {{}}{there}" for v in ("got", "grabbed", "picked up", "took") for there in ("", " there")]
DROPS = [f"{v} the {{}}{there}" for v in ("dropped", "put down", "left", "discarded") for there in ("", " there")]


class Story:
    """`way[object]` is a list of (place, who brought it there), `last[object]` who had it last; `walk[person]` the person's places."""

    def __init__(self, tasks, steps):
        self.t, self.facts, self.walk, self.way, self.holder, self.last = tasks, [], {}, {}, {}, {}
        for _ in range(steps):
            self.step()

    def step(self):
        p, u = self.t.pick(PEOPLE), self.t.r.random()
        if p not in self.walk or u < .55:
            return self.move(p)
        here = self.walk[p][-1]
        lying = [o for o in OBJS if self.holder.get(o) is None and (o not in self.way or self.way[o][-1][0] == here)]
        mine = [o for o, h in self.holder.items() if h == p]
        if u < .85 and lying:
            o = self.t.pick(lying)
            self.holder[o] = self.last[o] = p
            self.way.setdefault(o, [(here, p)])
            self.facts.append(f"{p} {self.t.pick(GRABS).format(o)}.")
        elif u >= .85 and mine:
            o = self.t.pick(mine)
            self.holder[o] = None
            self.facts.append(f"{p} {self.t.pick(DROPS).format(o)}.")
        else:
            self.move(p)

    def move(self, p):
        l = self.t.pick([l for l in LOCS if l != self.walk.get(p, [None])[-1]])
        self.walk.setdefault(p, []).append(l)
        self.facts.append(f"{p} {self.t.pick(MOVES)} {l}.")
        for o, h in self.holder.items():
            if h == p:
                self.way[o].append((l, p))

    def where_people(self):
        return [(f"Where is {p}? ", f"The most recent location of {p} is {w[-1]}.") for p, w in self.walk.items()]

    def where_things(self):
        return [(f"Where is the {o}? ", f"The {o} that {self.last[o]} {'has' if self.holder[o] else 'left'} is in the {w[-1][0]}.") for o, w in self.way.items()]

    def before(self):
        """About the last time a thing came to a place that it came to from elsewhere."""
        out = []
        for o, w in self.way.items():
            for l in self.t.pick(sorted({l for l, _ in w[1:]}), 2):
                i = max(k for k, (x, _) in enumerate(w) if x == l)
                out.append((f"Where was the {o} before the {l}? ", f"Before the {l} the {o} that {w[i][1]} had was in the {w[i-1][0]}."))
        return out

    def people_before(self):
        """A step of the question above, asked by itself."""
        walks = [(p, w[-2:]) for p, w in self.walk.items() if len(w) > 1]
        return [(f"Where was {p} before the {here}? ", f"Before the {here} {p} was in the {there}.") for p, (there, here) in walks]
