"""Basic tasks: facts to hide in filler text, and questions about them."""
import numpy as np

import stories

PEOPLE = ("Mary John Sandra Daniel Bill Fred Jeff Julie Alice Robert Emma Lucas Olivia Noah Sophia Liam Grace Henry "
          "Clara Oscar Nina Peter Laura Simon Ruth Victor Helen Martin Diana Frank Irene George Karen Leo Monica Paul "
          "Rachel Steve Tina Walter Yvonne Adam Bella Carl Dora Edgar Fiona Gavin Hannah Ivan Jane Kevin Lydia Miguel "
          "Nora Otto Paula Quentin Rosa Samuel Teresa Ursula Vincent Wendy Xavier Zoe Ahmed Bianca Chen Divya Elif Farid "
          "Gustav Hana Igor Jamal Keiko Lars Mei Nadia Omar Priya Rafael Sana Tomas Uma Viktor Wei Yara Zane").split()
CITIES = ("San Francisco,Paris,London,Tokyo,New York,Berlin,Madrid,Rome,Beijing,Chicago,Boston,Seattle,Toronto,Sydney,"
          "Dublin,Vienna,Prague,Warsaw,Lisbon,Athens,Cairo,Delhi,Mumbai,Seoul,Bangkok,Lima,Bogota,Havana,Oslo,Helsinki,"
          "Copenhagen,Stockholm,Zurich,Geneva,Milan,Naples,Venice,Florence,Munich,Hamburg,Cologne,Brussels,Amsterdam,"
          "Budapest,Belgrade,Sofia,Bucharest,Kiev,Moscow,Istanbul,Ankara,Jerusalem,Dubai,Karachi,Lahore,Dhaka,Hanoi,"
          "Manila,Jakarta,Singapore,Perth,Auckland,Honolulu,Denver,Austin,Dallas,Houston,Phoenix,Portland,Detroit,Miami,"
          "Atlanta,Memphis,Nashville,Montreal,Vancouver,Quebec,Salvador,Santiago,Quito,Caracas,Nairobi,Lagos,Accra,Tunis"
          ).split(",")
PARKS = "Dolores Park,Chaoyang Park,Hyde Park,Central Park,the old harbor,the city garden,the river bank,the main square,the north beach,the stone bridge,the quiet lake,the castle hill,the fish market,the wooden pier,the rose garden".split(",")
ACTS = ("eat a sandwich,take a walk,drink a cup of tea,have a cup of Espresso,read a novel,watch the boats,feed the birds,"
        "play chess,listen to jazz,paint the sunset,ride a bicycle,buy fresh bread,fly a kite,climb the tower,visit the museum,"
        "taste the local cheese,collect old stamps,swim in the cold water,photograph the towers,play basketball,enjoy a smoothie,"
        "sing with friends,bake an apple pie,plant some tulips,row a small boat,learn to dance,count the stars,write a letter").split(",")
WHEN = "on a sunny day,in the evening,before breakfast,at the local gym,in early spring,on a rainy morning,after work,at midnight,during the winter,on Sunday,with old friends,in the afternoon".split(",")
ATTRS = "secret code,favorite color,password,phone number,birthplace,magic number,motto,nickname,license plate,locker number,home town,profession,room number,pet,favorite dish,hidden treasure,final answer,middle name,account number,project name".split(",")
ENTS = "the blue house,the night train,the old library,the captain,the green valley,the school,the silver ship,the baker,the mayor,the tall tower,the research team,the orchestra,the garden club,the east wing,the lighthouse,the red bicycle,the museum,the hotel,the committee,the football team".split(",")
GIVERS = "Bill Fred Jeff Mary".split()

F_SUBJ = "The old harbor,A small boat,The morning train,The gardener,My neighbor,The library,A grey cat,The village,The long road,An engineer,The river,A young painter,The market,The winter storm,The committee,A distant bell,The teacher,The forest,The sailor,A letter,The clock,The council,The bakery,A quiet street,The machine,The farmer".split(",")
F_VERB = "was near,waited for,looked toward,changed after,stood behind,moved along,remembered,ignored,followed,belonged to,crossed,described,faced,rested beside,avoided,reached,opened onto,repaired,borrowed,watched".split(",")
F_OBJ = "the empty station,a row of trees,the stone wall,the evening light,an unfinished plan,the wide field,the narrow path,a broken window,the first snow,the new bridge,a pile of books,the crowded hall,the sleeping dog,a simple idea,the far shore,the tall chimney,the summer festival,a glass of water,the wooden door,the early fog".split(",")
F_TAIL = ["", " without a word", " for many years", " in the afternoon", " as usual", " once again", " until nightfall", " with great care", " and nobody noticed", " because of the rain", " before the meeting", " in complete silence"]


def synthetic_sentence(r):
    return f" {r.choice(F_SUBJ)} {r.choice(F_VERB)} {r.choice(F_OBJ)}{r.choice(F_TAIL)}."


class Tasks:
    """`tasks.Tasks` adds where names, cities and words come from: `name`, `city`, `rwords`."""

    def __init__(self, rng, words):
        self.r = rng
        self.words = words

    def pick(self, xs, k=None):
        if k is None:
            return xs[self.r.integers(len(xs))]
        return [xs[i] for i in self.r.permutation(len(xs))[:k]]

    def digits(self, lo, hi):
        return "".join(str(self.r.integers(10)) for _ in range(self.r.integers(lo, hi + 1)))

    def activity(self):
        u = self.r.random()
        if u < 0.4:
            return f"{self.pick(ACTS)} and sit in {self.pick(PARKS)} {self.pick(WHEN)}"
        if u < 0.7:
            a, b = self.pick(ACTS, 2)
            return f"{a} in {self.pick(PARKS)} and {b} {self.pick(WHEN)}"
        return f"{self.pick(ACTS).split()[0]} {self.rwords(3, 9)}"

    def value(self):
        return self.digits(4, 7) if self.r.random() < 0.4 else self.rwords(1, 6)

    # each task: (facts in order, [(question, answer)])
    def best_thing(self):
        n = self.r.integers(1, 6)
        places = self.city(n)
        acts = [self.activity() for _ in places]
        facts = [f"The best thing to do in {p} is {a}." for p, a in zip(places, acts)]
        qa = []
        for i in self.r.permutation(n)[:3]:
            q = f"What is the best thing to do in {places[i]}?" if self.r.random() < 0.6 else f"The best thing to do in {places[i]} is: "
            qa.append((q, acts[i] + "."))
        return facts, qa

    def compare(self, hops_apart):
        a, b = self.name(2)
        fa, fb = self.activity(), self.activity()
        kind = self.r.integers(3)
        lo, hi = sorted(self.r.permutation(np.arange(5, 80))[:2])
        if self.r.random() < 0.5:
            lo = int(lo); hi = lo + int(self.r.integers(1, 4))
        va, vb = (hi, lo) if self.r.random() < 0.5 else (lo, hi)
        unit, more, less = [("years old", "older", "younger"), ("inches tall", "taller", "shorter"), ("coins rich", "richer", "poorer")][kind]
        s1 = [f"{a}'s favorite thing is to {fa}.", f"{b}'s favorite thing is to {fb}."]
        s2 = [f"{b} is {vb} {unit}.", f"{a} is {va} {unit}."]
        if self.r.random() < 0.5: s1.reverse()
        if self.r.random() < 0.5: s2.reverse()
        facts = s1 + s2
        if not hops_apart:
            facts = [" ".join(facts)]
        qa = []
        for word in self.pick([more, less], 2)[: self.r.integers(1, 3)]:
            first = va > vb if word == more else va < vb
            who, f = (a, fa) if first else (b, fb)
            x, y = self.pick([a, b], 2)
            vx, vy = (va if z == a else vb for z in (x, y))
            qa.append((f"What is the favorite thing of the {word} one between {x} and {y}?",
                       f"{x} is {vx}, {y} is {vy}. {who} is {word}. {who}'s favorite thing is to {f}."))
        if self.r.random() < 0.5:
            x, v = (a, va) if self.r.random() < .5 else (b, vb)
            qa.append((f"How many {unit} is {x}?", f"{v}."))
        if self.r.random() < 0.5:
            x, f = (a, fa) if self.r.random() < .5 else (b, fb)
            qa.append((f"What is the favorite thing of {x}?", f"{x}'s favorite thing is to {f}."))
        return facts, qa

    def babi4(self):
        a, b, c = self.pick(stories.LOCS, 3)
        d = self.pick(["north", "south", "east", "west"]); e = self.pick([x for x in ["north", "south", "east", "west"] if x != d])
        facts = [f"The {a} is {d} of the {b}.", f"The {b} is {e} of the {c}."]
        facts = self.pick(facts, 2)
        q = [(f"What is {d} of the {b}? ", f"{a}."), (f"What is the {b} {e} of? ", f"{c}."), (f"What is {e} of the {c}? ", f"{b}.")]
        return facts, self.pick(q, 2)

    def babi5(self):
        facts, last = [], None
        for _ in range(self.r.integers(1, 6)):
            x, y = self.pick(GIVERS, 2); o = self.pick(stories.OBJS)
            facts.append(f"{x} {self.pick(['gave', 'handed', 'passed'])} the {o} to {y}."); last = (x, o, y)
        x, o, y = last
        q = [(f"Who gave the {o} to {y}? ", f"{x}."), (f"What did {x} give to {y}? ", f"{o}."), (f"Who received the {o}? ", f"{y}.")]
        return facts, self.pick(q, 1)
