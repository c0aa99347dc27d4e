"""Signs in a text that it is not fit to learn from: empty words, broken English, remains of markup."""

from __future__ import annotations

import re

__all__ = ["CAPITAL_INSIDE", "DETERMINERS", "NOISE", "STAND_IN", "UNGRAMMATICAL"]

_NOUNS = (
    "person|people|persons|man|men|woman|women|guy|guys|girl|girls|boy|boys|lady|individual|individuals|human"
    "|humans|human being|one|ones|thing|things|stuff|group|place|idea|state|president|leader|citizens?"
)
STAND_IN = re.compile(
    r"\b(?:"
    r"(?:bad|wrong|mean|not so|unpleasant|undesirable|foolish|negative|naughty|evil|terrible|unkind|awful"
    rf"|rude) (?:{_NOUNS})"
    r"|(?:not|n't|isn't|aren't|not an?|not so|not very|not a very|isn't a|aren't a|isn't very)"
    r" (?:so |very |that |too |a |an |really )?"
    r"(?:good|nice|wise|smart|intelligent|clever|bright|great|kind|pleasant|competent|sensible|knowledgeable"
    r"|thinking)"
    r"|(?:good|nice|some|certain|other|such|these|those|specific) (?:person|persons|individuals?)"
    r"|un(?:wise|intelligent|smart|kind|clever|pleasant|desirable|educated|informed|suitable)\w*"
    r"|inappropriate\w*|not wise|lacks? (?:intelligence|wisdom)|low intelligence|less (?:intelligent|smart)"
    r"|bad (?:at it|in bed|words?|language|behaviou?rs?|deeds?|actions?)"
    r"|(?:is|are|was|were|be|'s|'re) bad"
    r"|(?:this|that|the|tough|these|those) (?:thing|stuff)|bad or|very bad|so bad|wrongdoers?|someone bad"
    r"|private parts?|back ?sides?|genitals|bottoms?|behinds?|excrement|feces|faeces|poop|rear end|buttocks"
    r"|mentally challenged|disabled|promiscuous"
    r")\b",
    re.IGNORECASE,
)
"""What stands for a toxic word and says nothing, or says it more politely."""
DETERMINERS = "a|an|the|my|your|his|her|its|their|our|these|those"
_NOT_AFTER_DETERMINER = (
    "is|are|was|were|am|be|been|and|or|of|to|in|on|for|by|with|at|from|the|a|an|he|she|they|i|you|it|who|that"
    "|because|but|so|if|will|would|can|could|has|have|had|do|does|did|not|my|your|their|our|his|as|than"
)
_NOT_LAST = (
    "a|an|the|of|to|and|or|but|is|are|was|were|very|such|as|with|from|my|your|their|our|than|into|because|if|too"
    "|really|being|be|by"
)
UNGRAMMATICAL = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"\b(?!had\b|that\b|very\b|so\b|no\b|really\b|ha\b|bye\b|blah\b|long\b)(\w+)\s+\1\b",
        rf"\b(?:{DETERMINERS}) (?:{_NOT_AFTER_DETERMINER})\b(?<!her a)(?<!her the)(?<!her to)(?<!his is)",
        r"\b(?:is|are|was|were|am) (?:is|are|was|were|am|be|have|has|do|does|go|come|don't|doesn't|did)\b",
        r"\b(?:a|an|another|every|each) (?:\w+ )?(?:people|men|women|guys|children|things|ones)\b",
        r"\b(?:these|those|many|several|few|some of the) (?:\w+ )?(?:person|man|woman|guy|thing)\b",
        r"\b(?:people|they|we|you|guys|men|women) (?:is|was|has|does|doesn't|isn't|wasn't)\b",
        r"\b(?:he|she|it) (?:are|were|have|do|don't|aren't)\b(?<!if he were)(?<!if it were)",
        r"\b(?:i) (?:is|are|has|does)\b",
        rf"\b(?:{_NOT_LAST})[.!?]*$",
        r"\b(?:to|will|would|can|could|should|must|don't|doesn't) (?:is|are|was|were|am|being|been|has)\b",
        r"\b(?:more|most) (?:better|worse|best|worst|\w+est)\b",
        r"\b(?:and|or|but|of|to|with|for|from|by),? (?:and|or|but|of|by|is|are)\b",
        r"[,;:]\s*[.!?,;:]|[.!?]\s*[,;]|^[^\w\"'@#$(<`]+|\s[.,!?]",
        r"\b(?:such|what) (?:a|an)[.!?]",
        r"\b(?:i|you|we|they|he|she) (?:already |just )?(?:known|done|seen|gone|been|taken|given|written)\b",
        r"\b(?:buy|do|say|have|see|about|of|with|these|those|many|talking|and|all|more|get|like) thing\b",
        r"\b(?:is|are|was|were|be|get|gets|getting|so|very|more) worst\b",
        r"(?<!is )(?<!was )(?<!are )(?<!make )(?<!made )\b(?:it|he|she|they) (?:good|bad|wrong|nice)\b",
        r"\bmess(?:ed|ing|es)? (?!up|with|around|about|it up|that up|this up|everything up|things up)\w+",
    )
)
"""Signs that a text is not well formed."""
CAPITAL_INSIDE = re.compile(
    r"(?<=[a-z,] )(?:A|An|Am|Is|Are|Was|Were|The|This|That|And|But|Or|To|Of|In|On|For|It|He|She|We|You|They"
    r"|Do|Does|Did|Not|So|If|Have|Has|Be)\b"
)
"""A small word with a capital inside a sentence."""
NOISE = re.compile(
    r"([^\W\d_])\1\1|(?<![\w'])[b-hj-mo-qstvwyz](?!['.\w])|[_@#*^|~=<>{}\\\"&]|\brt\b"
    r"|[^\x00-\u024f\u2010-\u203a€]|(?:^|\s)[-']+(?:\s|$)",
    re.IGNORECASE,
)
"""Remains of markup and emoticons, letters repeated, single letters."""
