"""Why a rewrite was refused, a step did not hold, or a text got no full pass, in plain words."""

from __future__ import annotations

__all__ = ["PLACES", "REASONS", "in_words"]

REASONS = {
    # Checks of a candidate, in the order of guardrail.text.checks.
    "empty": "it says nothing",
    "toxic": "it still reads as toxic",
    "lexicon": "it has a word of the list of toxic words",
    "meaning": "its meaning is too far from the original's",
    "length": "it is much shorter or longer than the original",
    "negation": "it lost or gained a 'not'",
    "opposite": "it turns what was said into its opposite",
    "content": "it leaves out too much of what was said",
    "invention": "it says something that the original does not",
    "condition": "it drops an 'if'",
    "person": "it gives something to another person, such as 'your' for 'our'",
    "stand_in": "it only puts another judgement of the person in the insult's place",
    "hole": "a word is missing in it",
    "disguise": "a word in it is still in disguise",
    "number": "a number was lost, changed or added",
    "url": "a URL was lost, changed or added",
    "address": "an address was lost, changed or added",
    "code": "code was lost, changed or added",
    "placeholder": "a placeholder was lost, changed or added",
    "mention": "a mention was lost, changed or added",
    "quotation": "a quotation was lost, changed or added",
    "markup": "emphasis or HTML tags were lost or added",
    "layout": "its lines begin with other list, quote or heading markers",
    "copy": "it is the original again",
    "name": "it has a name that the original does not have",
    "likelihood": "it reads less naturally than the policy allows",
    "acceptable": "the verifier doubts that a reader would accept it",
    # Why a step did not hold.
    "rewrite:code": "code is not rewritten",
    "rewrite:harm": "threats and contempt for groups are not rewritten",
    "rewrite:unsupported": "the rewriter does not know the script or language",
    "rewrite:protected": "what is toxic is in code, a URL or a quotation, which are not rewritten",
    "rewrite:budget": "the text has more flagged sentences than may be rewritten",
    "rewrite:none": "the rewriter proposed nothing",
    "mask:toxic": "with its toxic words masked it is still toxic",
    "mask:too_much": "a mask would hide most of it",
    # Why a text got no full pass.
    "rewrite_budget": "the text has more flagged sentences than may be rewritten",
    "rewriter_missing": "the rewriter's model is not on this machine",
    "unfinished": "the text ended early",
    "pending": "in monitor mode a stream's verdict follows behind",
    "monitor_overload": "too many texts waited for a verdict in monitor mode, so it was not judged",
    "unsupported_text": "the detector does not know the script or language",
}
"""A clause for each name in ``Edit.failed_checks`` and ``Outcome.degraded``, failures of plug-ins apart."""

PLACES = ("detector", "lexicon", "rewriter", "embedder", "verifier")
"""The parts that a plug-in can play; with one of the endings of ``_FAILURES`` they name its failure."""

_FAILURES = {
    "error": "failed",
    "invalid": "returned what it may not",
    "deadline": "was late",
    "circuit_open": "was not asked, as it was late too often",
}


def in_words(reason: str) -> str:
    """A clause that says what a reason means; the reason itself if it is not one of this package's."""
    if reason in REASONS:
        return REASONS[reason]
    place, _, failure = reason.partition("_")
    if place in PLACES and failure in _FAILURES:
        return f"the {place} {_FAILURES[failure]}"
    return reason
