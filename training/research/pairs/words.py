"""Words of English that rules on pairs need: grammar words, opposites, spellings."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = [
    "AMERICAN",
    "ANTONYMS",
    "CONTRACTIONS",
    "FUNCTION_WORDS",
    "NEGATIONS",
    "PERSONS",
    "SLANG",
    "Word",
    "stem",
    "words",
]

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_STEM = 4


def _listed(text: str) -> frozenset[str]:
    return frozenset(text.split())


FUNCTION_WORDS = _listed(
    """
    a an the this that these those some any each every all both either such same other another i me my
    mine myself you your yours yourself yourselves he him his himself she her hers herself it its itself
    we us our ours ourselves they them their theirs themselves one ones who whom whose which what when
    where why how there here then than am is are was were be been being do does did doing done have has
    had having will would shall should can could may might must ought and or but nor so yet if because
    although though while until unless as since whether of to in on at by for from with about into onto
    over under after before between through during against up down out off away back again just only
    even really very too also quite rather so still already almost actually literally simply please well
    oh ok okay yes yeah like man guys lol ah aha wow hey huh um uh haha hahaha omg lmao lmfao rofl gosh
    holy god jesus christ dude bro smh get gets got getting go goes going went make makes made making
    let lets
    """
)
"""Words that carry grammar or tone, so that a rewrite may lose or add them."""

NEGATIONS = _listed(
    """
    not no never none nobody nothing nowhere neither nor without cannot hardly barely ain't aren't can't
    couldn't didn't doesn't don't hadn't hasn't haven't isn't mightn't mustn't needn't shan't shouldn't
    wasn't weren't won't wouldn't
    """
)

CONTRACTIONS: Mapping[str, str] = {
    "aint": "ain't", "arent": "aren't", "cant": "can't", "couldnt": "couldn't", "didnt": "didn't",
    "doesnt": "doesn't", "dont": "don't", "hadnt": "hadn't", "hasnt": "hasn't", "havent": "haven't",
    "isnt": "isn't", "shouldnt": "shouldn't", "wasnt": "wasn't", "werent": "weren't",
    "wouldnt": "wouldn't", "im": "I'm", "ive": "I've", "youre": "you're", "theyre": "they're",
    "thats": "that's", "whats": "what's", "youve": "you've", "theres": "there's", "hes": "he's",
    "shes": "she's",
}  # fmt: skip
"""Contractions written without apostrophe that are no other word."""

SLANG: Mapping[str, str] = {
    "u": "you", "ur": "your", "r": "are", "ya": "you", "yo": "your", "em": "them", "wanna": "want",
    "gonna": "going", "gotta": "got", "tryna": "trying", "n": "and", "nd": "and", "da": "the",
    "tho": "though",
    "cuz": "because", "coz": "because", "cause": "because", "bc": "because", "ppl": "people", "pls": "please",
    "plz": "please", "yall": "you", "y'all": "you", "dat": "that", "dis": "this", "wit": "with", "w": "with",
    "thru": "through",
}  # fmt: skip
"""Words of chats with the word that they stand for."""

_OPPOSITES = """
    good bad; better worse; best worst; love hate; loves hates; loved hated; like dislike; always never;
    right wrong; true false; more less; most least; many few; everyone nobody; everybody nobody;
    everything nothing; all none; win lose; wins loses; won lost; start stop; starts stops;
    started stopped; before after; above below; up down; in out; open close; opened closed;
    agree disagree; agreed disagreed; accept refuse; accepted refused; allow forbid; allowed forbidden;
    remember forget; remembered forgot; buy sell; bought sold; easy difficult; easy hard; easily hardly;
    fast slow; early late; earlier later; hot cold; rich poor; cheap expensive; safe dangerous;
    happy sad; happy unhappy; clean dirty; strong weak; smart stupid; clever stupid; honest dishonest;
    fair unfair; legal illegal; possible impossible; likely unlikely; useful useless; helpful unhelpful;
    kind unkind; able unable; competent incompetent; responsible irresponsible; reliable unreliable;
    careful careless; increase decrease; increased decreased; rise fall; rises falls; raise lower;
    raised lowered; support oppose; supports opposes; supported opposed; believe doubt;
    praise criticise; praised criticised; friend enemy; friends enemies; get recover; live die;
    lives dies; lived died; alive dead; help harm; helps harms; helped harmed; pass fail; passes fails;
    passed failed; success failure; succeed fail; succeeded failed; with without; yes no;
    enough insufficient; keep lose; kept lost; stay leave; stayed left; hope fear; give take; gave took;
    gives takes; send receive; sent received; ask answer; asked answered; first last; old new;
    young old; high low; higher lower; long short; longer shorter; big small; bigger smaller;
    full empty; cool warm; public private; guilty innocent; heaven hell; inside outside; together alone;
    near far; improve worsen; improved worsened; beautiful ugly; important unimportant; proud ashamed;
    perfect terrible; great terrible; excellent terrible; interesting boring; deserve lack
"""


def _opposites() -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for pair in _OPPOSITES.split(";"):
        first, second = pair.split()
        found[first] = (*found.get(first, ()), second)
        found[second] = (*found.get(second, ()), first)
    return found


ANTONYMS: Mapping[str, tuple[str, ...]] = _opposites()

PERSONS: Mapping[str, str] = {
    **dict.fromkeys(("i", "i'm", "i've", "i'll", "i'd", "me", "my", "mine", "myself"), "first"),
    **dict.fromkeys(("we", "we're", "we've", "we'll", "us", "our", "ours", "ourselves"), "first plural"),
    **dict.fromkeys(("you", "you're", "you've", "you'll", "you'd", "your", "yours", "yourself"), "second"),
    **dict.fromkeys(("he", "he's", "he'll", "he'd", "him", "his", "himself"), "he"),
    **dict.fromkeys(("she", "she's", "she'll", "she'd", "her", "hers", "herself"), "she"),
    **dict.fromkeys(("they", "they're", "they've", "they'll", "them", "their", "theirs"), "they"),
}
"""Whom a pronoun speaks of."""

AMERICAN: Mapping[str, str] = {
    "colour": "color", "colours": "colors", "favourite": "favorite", "favourites": "favorites",
    "behaviour": "behavior", "neighbour": "neighbor", "neighbours": "neighbors", "honour": "honor",
    "humour": "humor", "labour": "labor", "rumour": "rumor", "rumours": "rumors", "flavour": "flavor",
    "harbour": "harbor", "centre": "center", "centres": "centers", "theatre": "theater", "metre": "meter",
    "metres": "meters", "litre": "liter", "litres": "liters", "organise": "organize",
    "organised": "organized", "organising": "organizing", "realise": "realize", "realised": "realized",
    "recognise": "recognize", "recognised": "recognized", "apologise": "apologize",
    "apologised": "apologized", "criticise": "criticize", "criticised": "criticized",
    "summarise": "summarize", "summarised": "summarized", "analyse": "analyze", "analysed": "analyzed",
    "defence": "defense", "offence": "offense", "licence": "license", "travelled": "traveled",
    "travelling": "traveling", "cancelled": "canceled", "cancelling": "canceling", "labelled": "labeled",
    "modelling": "modeling", "grey": "gray", "catalogue": "catalog", "dialogue": "dialog",
    "programme": "program", "jewellery": "jewelry", "pyjamas": "pajamas", "tyre": "tire", "tyres": "tires",
    "mould": "mold", "sceptical": "skeptical", "ageing": "aging", "enrol": "enroll", "fulfil": "fulfill",
    "skilful": "skillful", "learnt": "learned", "burnt": "burned", "spelt": "spelled", "mum": "mom",
    "mums": "moms", "aluminium": "aluminum", "cheque": "check", "cheques": "checks", "kerb": "curb",
    "storey": "story", "whilst": "while", "apologising": "apologizing", "realising": "realizing",
}  # fmt: skip
"""British spellings with their American ones; words that mean another thing elsewhere are left out."""


@dataclass(frozen=True, slots=True)
class Word:
    """A word of a text: as it is written, where, and without case, in one spelling (``dont``: ``don't``)."""

    text: str
    start: int
    end: int
    key: str

    @property
    def is_content(self) -> bool:
        """Whether it carries meaning of its own."""
        return self.key not in FUNCTION_WORDS and self.key not in NEGATIONS and "'" not in self.key


def words(text: str) -> list[Word]:
    """The words of a text in order."""
    return [Word(match.group(), *match.span(), _key(match.group())) for match in _WORD.finditer(text)]


def _key(word: str) -> str:
    folded = word.replace("’", "'").casefold()
    return SLANG.get(folded, CONTRACTIONS.get(folded, folded).casefold())


def stem(key: str) -> str:
    """What inflections of a word share, roughly: its first letters."""
    return key.removesuffix("'s").removesuffix("s")[:_STEM]
