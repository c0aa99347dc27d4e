"""What each source's rows say of their texts: one reader for each source.

A source gives votes where it has them; they become soft labels. A label that a source cannot know is masked.
Sets of hate or of sexism answer another question than ours: what they call hate is toxic, what they do not
may still be rude, so their negatives leave ``incivility`` open, and they have labels of their own.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from statistics import fmean
from typing import Any

from guardrail.text.masking import GRAMMAR
from research.detection.labelled import CLEAN, Labelled, soft

__all__ = [
    "LICENCES",
    "SOURCES",
    "SentenceRatings",
    "readings",
    "removed_spans",
    "tightened",
    "wikitext_sentences",
]

Row = Mapping[str, Any]

SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
LICENCES = {
    "paradetox": "CC0-1.0",
    "davidson": "MIT",
    "stormfront": "CC-BY-SA-3.0",
    "toxigen_statements": "MIT / CDLA-Permissive-2.0",
    "toxigen_prompts": "MIT / CDLA-Permissive-2.0",
    "toxic_spans": "CC0-1.0",
    "wikitext2": "CC-BY-SA-3.0",
    "implicit_hate": "CC-BY-4.0",
    "gab_hate": "CC-BY-4.0",
    "dynahate": "CC-BY-4.0",
    "hatemoji_build": "CC-BY-4.0",
    "sbic": "CC-BY-4.0",
    "edos": "CC0-1.0",
    "online_misogyny": "MIT",
    "convabuse": "CC-BY-4.0",
    "diasafety": "Apache-2.0",
    "everyday": "Apache-2.0",
    "rewrites": "Apache-2.0",
}
SWEARING = re.compile(
    r"fuck|shit|bitch|cunt|\bass(?:hole|es)?\b|dick|pussy|bastard|whore|slut|damn|crap|\bhell\b|piss|"
    r"bollocks|wank|arse|twat|cock\b|idiot|moron|stupid|retard|fag|nigg",
    re.IGNORECASE,
)
"""Words with which a text that a set of hate calls harmless may still be toxic: its label is left open."""
MAX_MARK = 5  # words of a marked stretch; a longer one is hostile as a whole, and no word of it alone


def _paradetox(row: Row, key: str) -> Iterator[Labelled]:
    toxic = row["toxic"]
    references = [text for text in row["neutral"] if _bare(text) != _bare(toxic)]
    closest = max(
        references, key=lambda text: difflib.SequenceMatcher(None, toxic, text).ratio(), default=None
    )
    yield Labelled(
        toxic, soft(toxicity=1), "paradetox_toxic", key, removed_spans(toxic, closest) if closest else None
    )
    for text in references:
        yield Labelled(text, CLEAN, "paradetox_neutral", key, (), 1 / len(references))


def _bare(text: str) -> str:
    return "".join(character for character in text.lower() if character.isalnum())


def removed_spans(toxic: str, neutral: str) -> tuple[tuple[int, int], ...] | None:
    """The words of ``toxic`` that its neutral version dropped or replaced, as character ranges.

    A weak mark of what was toxic; None if the rewrite changed more than four words in ten or nothing at
    all.
    """
    words = list(re.finditer(r"[\w*@$#']*\w[\w*@$#']*", toxic))
    kept = re.findall(r"[\w*@$#']*\w[\w*@$#']*", neutral.lower())
    matcher = difflib.SequenceMatcher(None, [word.group().lower() for word in words], kept, autojunk=False)
    spans = [
        (words[start].start(), words[end - 1].end())
        for tag, start, end, _, _ in matcher.get_opcodes()
        if tag in ("delete", "replace")
    ]
    changed = sum(end - start for start, end in spans)
    return tuple(spans) if 0 < changed <= 0.4 * len(toxic) else None


def tightened(text: str, spans: tuple[tuple[int, int], ...] | None) -> tuple[tuple[int, int], ...] | None:
    """Spans without function words at their edges; None if one is so long that no word of it stands out."""
    tight = []
    for start, end in spans or ():
        words = list(re.finditer(r"\S+", text[start:end]))
        while words and _is_function_word(words[0].group()):
            words.pop(0)
        while words and _is_function_word(words[-1].group()):
            words.pop()
        if len(words) > MAX_MARK:
            return None
        if words:
            tight.append((start + words[0].start(), start + words[-1].end()))
    return tuple(tight) or None


def _is_function_word(word: str) -> bool:
    stem = re.split(r"['’]", word.lower().strip(',.;:!?"'))[0]  # "you're" is one, as "you" is
    return stem in GRAMMAR


def _davidson(row: Row, key: str) -> Iterator[Labelled]:
    votes = row["hate"] + row["offensive"] + row["neither"]
    hate, offensive = row["hate"] / votes, row["offensive"] / votes
    if hate + offensive == 0:
        yield Labelled(row["text"], CLEAN, "davidson_neither", key, ())
        return
    name = "davidson_neither" if hate + offensive < 0.5 else "davidson_toxic"
    yield Labelled(row["text"], soft(toxicity=hate + offensive, identity_attack=hate), name, key)


def _stormfront(row: Row, key: str) -> Iterator[Labelled]:
    if row["label"] not in ("hate", "noHate"):
        raise ValueError(f"label {row['label']!r}")
    hate = row["label"] == "hate"
    labels = (
        soft(toxicity=1, identity_attack=1, hate=1)
        if hate
        else soft(toxicity=0, identity_attack=0, sexual_explicit=0, hate=0)
    )
    yield Labelled(
        row["text"], labels, "stormfront_hate" if hate else "stormfront_nohate", key, None if hate else ()
    )


def _toxigen(row: Row, key: str) -> Iterator[Labelled]:
    """A statement, or the dash-separated statements of a prompt: all of one label."""
    if row["label"] not in ("hate", "neutral"):
        raise ValueError(f"label {row['label']!r}")
    hate = row["label"] == "hate"
    labels = soft(toxicity=1, identity_attack=1, hate=1) if hate else CLEAN
    lines = row["prompt"].split("\n") if "prompt" in row else [row["text"]]
    for text in (line.strip().removeprefix("-").strip() for line in lines):
        if text:
            name = "toxigen_hate" if hate else "toxigen_neutral"
            yield Labelled(text, labels, name, f"toxigen:{text}", None if hate else ())


def _toxic_spans(row: Row, key: str) -> Iterator[Labelled]:
    """The comment, and its sentences: those with a marked span, and (weakly clean) those without one."""
    text, spans = row["text"], tuple((start, end) for start, end in row["spans"])
    share = row["toxic_votes"] / row["annotators"]
    if share < 0.5:
        return
    votes = _type_shares(row["type_votes"], min(3, row["annotators"]))
    yield Labelled(text, soft(toxicity=share, **votes), "toxic_spans", key, spans or None)
    if not spans:
        return
    for start, end in _sentences(text):
        inside = tuple(
            (max(a, start) - start, min(b, end) - start) for a, b in spans if a < end and b > start
        )
        if inside:
            yield Labelled(text[start:end], soft(toxicity=share), "toxic_spans_sentence", key, inside, 0.7)
        elif end - start >= 25:
            yield Labelled(text[start:end], soft(toxicity=0.05), "toxic_spans_rest", key, (), 0.5)


def _type_shares(votes: Mapping[str, int], voters: int) -> dict[str, float]:
    """Shares of the kinds that people named. Three annotators were asked for it, and keys are cut short."""
    names = {"Insult": "insult", "Threat": "threat", "Identity": "identity_attack", "Profane": "obscene"}
    counts = dict.fromkeys(names.values(), 0)
    for kind, count in votes.items():
        for prefix, label in names.items():
            if kind.startswith(prefix[:4]):
                counts[label] += count
    return {label: min(1.0, count / voters) for label, count in counts.items()}


def _sentences(text: str) -> Iterator[tuple[int, int]]:
    start = 0
    for match in SENTENCE_END.finditer(text):
        yield start, match.start()
        start = match.end()
    if start < len(text):
        yield start, len(text)


def wikitext_sentences(paragraphs: Iterable[str]) -> list[str]:
    """The sentences of at least 20 characters of WikiText-2 paragraphs, headings left out.

    Its marks (``@-@``, ``<unk>``) are undone.
    """
    sentences: list[str] = []
    for paragraph in (line.strip() for line in paragraphs):
        if paragraph and not paragraph.startswith("="):
            plain = re.sub(r" @([-,.])@ ", r"\1", paragraph).replace("<unk>", "Unknown")
            sentences += [sentence for sentence in SENTENCE_END.split(plain) if len(sentence) >= 20]
    return sentences


def _wikitext2(row: Row, key: str) -> Iterator[Labelled]:
    for sentence in wikitext_sentences([row["text"]]):
        yield Labelled(sentence, CLEAN, "wikitext2", key, ())


def _implicit_hate(row: Row, key: str) -> Iterator[Labelled]:
    """Tweets; labels are noisy, and some tweets need a context that is missing."""
    text, label = row["text"], row["label"]
    if label == "explicit_hate":
        yield Labelled(text, soft(toxicity=1, identity_attack=0.95, hate=1), "implicit_hate_explicit", key)
    elif label == "implicit_hate":
        labels = soft(toxicity=0.9, identity_attack=0.9, hate=1)
        yield Labelled(text, labels, "implicit_hate_implicit", key, weight=0.8)
    elif label == "not_hate":
        labels = soft(toxicity=0.08, identity_attack=0.03, threat=0.02, hate=0)
        yield Labelled(text, labels, "implicit_hate_not", key, weight=0.7)


def _gab_hate(row: Row, key: str) -> Iterator[Labelled]:
    """Posts of a platform whose annotators were strict: a rude post has none of the three labels."""
    dignity, violence, vulgar = (float(row[name]) for name in ("hd", "cv", "vo"))
    if dignity or violence:
        labels = soft(toxicity=1, identity_attack=dignity or None, threat=violence, hate=dignity)
        yield Labelled(row["text"], labels, "gab_hate_attack", key)
    elif vulgar:
        labels = soft(toxicity=0.8, incivility=1, threat=0, hate=0)
        yield Labelled(row["text"], labels, "gab_hate_vulgar", key, weight=0.8)
    else:
        swears = SWEARING.search(row["text"])
        labels = soft(toxicity=None if swears else 0.1, identity_attack=0.08, threat=0, hate=0)
        yield Labelled(row["text"], labels, "gab_hate_none", key, weight=0.6)


def _hate(name: str, pair: Callable[[Row], str]) -> Callable[[Row, str], Iterator[Labelled]]:
    def read(row: Row, key: str) -> Iterator[Labelled]:
        text = row["text"]
        if row["hate"]:
            threat = 1.0 if row["type"].startswith("threat") else None
            labels = soft(toxicity=1, identity_attack=1, threat=threat, hate=1)
            yield Labelled(text, labels, f"{name}_hate", key, pair=pair(row))
        else:
            toxicity = None if SWEARING.search(text) else 0.05
            labels = soft(toxicity=toxicity, identity_attack=0, hate=0)
            yield Labelled(text, labels, f"{name}_not", key, weight=0.8, pair=pair(row))

    return read


def _twins(row: Row) -> str:
    """One name for both twins of a pair that names the other's text."""
    return "\n".join(sorted((row["text"], row["contrast"]))) if row.get("contrast") else ""


def _sbic(row: Row, key: str) -> Iterator[Labelled]:
    """Jokes and posts with social bias."""
    offensive, sexual = row["offensive"], row["sexual"]
    if offensive is not None:
        labels = soft(toxicity=offensive, incivility=offensive, sexual_explicit=sexual)
        name = "sbic_offensive" if offensive >= 0.5 else "sbic_not"
        yield Labelled(row["text"], labels, name, key, weight=0.8)


def _edos(row: Row, key: str) -> Iterator[Labelled]:
    if row["sexist"]:
        threat = 0.9 if row["category"].startswith("1") else None
        labels = soft(toxicity=0.9, identity_attack=0.85, threat=threat, sexism=1, hate=0.9)
        yield Labelled(row["text"], labels, "edos_sexist", key, weight=0.8)
    else:
        yield Labelled(row["text"], soft(sexism=0), "edos_not", key, weight=0.5)


def _misogyny(row: Row, key: str) -> Iterator[Labelled]:
    text = row["text"][:1000]
    if row["misogynistic"]:
        labels = soft(toxicity=0.85, identity_attack=0.8, sexism=1)
        yield Labelled(text, labels, "online_misogyny_yes", key, weight=0.8)
    else:
        yield Labelled(text, soft(sexism=0), "online_misogyny_not", key, weight=0.5)


def _convabuse(row: Row, key: str) -> Iterator[Labelled]:
    """What people say to a bot; the share of annotators who called it abusive."""
    share = sum(severity < 0 for severity in row["severities"]) / len(row["severities"])
    name = "convabuse_abuse" if share >= 0.5 else "convabuse_not"
    yield Labelled(row["text"], soft(toxicity=share, incivility=share), name, key)


def _diasafety(row: Row, key: str) -> Iterator[Labelled]:
    """A bot's answers. Agreement with something toxic is unsafe in its context alone, and is left out."""
    text, category, unsafe = row["text"], row["category"], row["unsafe"]
    if category == "Offending User":
        labels = soft(toxicity=0.75, incivility=0.95) if unsafe else soft(toxicity=0.05, incivility=0.1)
        yield Labelled(text, labels, "diasafety_rude" if unsafe else "diasafety_not", key)
    elif category == "Biased Opinion":
        labels = (
            soft(toxicity=0.7, identity_attack=0.8, hate=0.7) if unsafe else soft(toxicity=0.1, hate=0.05)
        )
        yield Labelled(text, labels, "diasafety_biased" if unsafe else "diasafety_not", key, weight=0.6)


def _everyday(row: Row, key: str) -> Iterator[Labelled]:
    """A hostile sentence as two people read it, two civil versions of it, and a harmless look-alike."""
    said = readings().get(row["toxic"])
    if said is not None:
        labels = soft(
            toxicity=said.toxicity,
            incivility=said.incivility,
            obscene=said.swear,
            insult=1.0 if row["kind"] == "insult" else None,
            threat=1.0 if row["kind"] == "threat" else 0.0,
        )
        closest = max(
            row["neutral"], key=lambda text: difflib.SequenceMatcher(None, row["toxic"], text).ratio()
        )
        is_marked = said.incivility >= 0.5 and row["kind"] in MARKED_KINDS
        spans = removed_spans(row["toxic"], closest) if is_marked else None
        yield Labelled(
            row["toxic"], labels, "everyday_hostile", key, tightened(row["toxic"], spans), pair=key
        )
    versions = {"n0": row["neutral"][0], "n1": row["neutral"][1], "l": row["lookalike"]}
    for name, text in versions.items():
        if said is None or name not in said.flags:
            source = "everyday_lookalike" if name == "l" else "everyday_neutral"
            yield Labelled(text, CLEAN, source, key, (), pair=key)


MARKED_KINDS = ("insult", "profanity", "obfuscated", "generalisation")


@dataclass(frozen=True, slots=True)
class SentenceRatings:
    """What readers said of one hostile sentence, as means over readers: severity 0..3, the others 0..1.

    ``flags`` names harmless versions (n0, n1, l) in which a reader still found something hostile.
    """

    severity: float
    toxicity: float
    incivility: float
    swear: float
    flags: frozenset[str]


@cache
def readings() -> Mapping[str, SentenceRatings]:
    """Two readers' ratings of the hostile sentences of ``everyday``, by sentence; DATA.md has the rule."""
    path = resources.files("research.detection").joinpath("sentences", "everyday_readings.jsonl")
    rows = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
    return {
        row["text"]: SentenceRatings(
            severity=fmean(row["severity"]),
            toxicity=fmean(row["toxicity"]),
            incivility=fmean(row["incivility"]),
            swear=fmean(row["swear"]),
            flags=frozenset(row["flags"]),
        )
        for row in rows
    }


def _own(row: Row, key: str) -> Iterator[Labelled]:
    """Sentences of this project, written by hand."""
    text = row["text"]
    spans = tuple((start, start + len(part)) for part in row["spans"] if (start := text.find(part)) >= 0)
    toxicity, incivility = float(row["toxicity"]), float(row["incivility"])
    if not incivility:
        yield Labelled(text, CLEAN, "own_harmless", key, (), pair=str(row["pair"] or ""))
        return
    labels = soft(
        toxicity=toxicity,
        incivility=incivility,
        threat=float(row["threat"]),
        identity_attack=float(row["identity_attack"]),
        insult=float(row["insult"]),
        hate=float(row["identity_attack"]),
    )
    name = "own_hostile" if toxicity else "own_uncivil"
    yield Labelled(text, labels, name, key, tightened(text, spans), pair=str(row["pair"] or ""))


def _rewrites(row: Row, key: str) -> Iterator[Labelled]:
    """A hostile sentence of this project, two civil versions of it, and a harmless look-alike.

    What a ``lossy`` rewrite still says of a group or wishes on somebody may be hostile: it is left out.
    """
    text, kind = row["toxic"], row["kind"]
    toxicity = row.get("toxicity")
    labels = soft(
        toxicity=toxicity if toxicity is None else float(toxicity),
        incivility=1.0,
        obscene=row.get("swear"),
        insult=1.0 if kind == "insult" else None,
        threat=1.0 if kind == "threat" else 0.0,
        identity_attack=1.0 if row.get("target") == "group" and row.get("severity") == 3 else None,
    )
    if "spans" in row:
        spans = tuple((start, start + len(part)) for part in row["spans"] if (start := text.find(part)) >= 0)
    else:
        closest = max(row["neutral"], key=lambda civil: difflib.SequenceMatcher(None, text, civil).ratio())
        spans = (removed_spans(text, closest) or ()) if kind in MARKED_KINDS else ()
    yield Labelled(text, labels, "rewrites_hostile", key, tightened(text, spans), pair=key)
    for civil in () if row["lossy"] else row["neutral"]:
        yield Labelled(civil, CLEAN, "rewrites_neutral", key, (), pair=key)
    yield Labelled(row["lookalike"], CLEAN, "rewrites_lookalike", key, (), pair=key)


SOURCES: dict[str, Callable[[Row, str], Iterator[Labelled]]] = {
    "own": _own,
    "everyday": _everyday,
    "rewrites": _rewrites,
    "paradetox": _paradetox,
    "toxic_spans": _toxic_spans,
    "convabuse": _convabuse,
    "diasafety": _diasafety,
    "stormfront": _stormfront,
    "toxigen_statements": _toxigen,
    "toxigen_prompts": _toxigen,
    "hatemoji_build": _hate("hatemoji", _twins),
    "dynahate": _hate("dynahate", lambda row: ""),
    "davidson": _davidson,
    "sbic": _sbic,
    "implicit_hate": _implicit_hate,
    "gab_hate": _gab_hate,
    "edos": _edos,
    "online_misogyny": _misogyny,
    "wikitext2": _wikitext2,
}
"""Readers by source; of texts that stand in two sources the first one's label counts."""
