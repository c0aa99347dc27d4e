"""All candidates of many segments in shared passes: one tree of tokens for each segment.

A node is a token behind its ancestors. Candidates that agree share nodes; what candidates need next, drafts
of what they may need after that, and given texts whose likelihood is asked for go into the same pass. A
candidate takes a token only from what the model says behind its own tokens, so drafts and companions change
nothing but the number of passes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from guardrail.rewriters.runtime.draft import draft
from guardrail.rewriters.runtime.session import MASKED, MIN_SLOTS, Factors, PassResult, Runtime, Slots
from guardrail.rewriters.sampling import Decoding, Prompt, choose, noise_key

__all__ = ["Reader", "SearchRequest", "SearchResult", "search"]

GREEDY_DRAFT = 4
SAMPLE_DRAFT = 2
MAX_SEGMENTS = 4
"""Segments in one pass: a token's attention looks at all their slots, seen or not, which costs more than a
pass over fewer tokens.
"""

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """What is asked about one segment: ``n`` candidates, and how likely each of the given ``texts`` is."""

    prompt: Prompt
    source: tuple[int, ...]
    n: int
    texts: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class SearchResult:
    """Candidates in order, each without its stop token, the greedy one first; those cut off are left out.

    ``scores`` has for each given text the log-probability of each of its tokens, and of its end.
    """

    candidates: list[list[int]]
    scores: list[Floats]


class Reader:
    """A runtime under one adapter. What every prompt begins with is read once and kept."""

    def __init__(self, runtime: Runtime, factors: Factors, head: Sequence[int]) -> None:
        self.runtime = runtime
        self.head = tuple(head)
        self.factors = factors
        self._head_slots: Slots | None = None

    def begin(self, count: int) -> Slots:
        """So many slots that hold the head, and nothing else."""
        if self._head_slots is None and self.head:
            length = len(self.head)
            slots = Slots(self.runtime.shape, length)
            seen = np.where(np.tri(length, dtype=bool), np.float32(0), MASKED)
            self.read(slots, self.head, positions=range(length), bias=seen, picked=[length - 1], likeliest=1)
            self._head_slots = slots
        slots = self.runtime.slots(max(count, len(self.head)))
        if self._head_slots is not None:
            slots.copy_from(self._head_slots)
        return slots

    def read(
        self,
        slots: Slots,
        ids: Sequence[int],
        *,
        positions: Sequence[int],
        bias: Floats,
        picked: Sequence[int],
        likeliest: int,
    ) -> PassResult:
        """One pass; see ``Runtime.read``."""
        return self.runtime.read(
            self.factors, slots, ids, positions=positions, bias=bias, picked=picked, likeliest=likeliest
        )


class _Node:
    """One token behind its ancestors; read once it has a slot."""

    __slots__ = (
        "children", "end", "followers", "parent", "position", "slot", "token", "top_ids", "top_logits",
    )  # fmt: skip

    def __init__(self, token: int, parent: _Node | None, position: int) -> None:
        self.token = token
        self.parent = parent
        self.position = position
        self.children: dict[int, _Node] = {}
        self.slot: int | None = None
        self.top_ids: npt.NDArray[np.int64] | None = None
        self.top_logits: Floats | None = None
        self.followers: dict[int, float] = {}
        self.end = -np.inf

    def child(self, token: int) -> _Node:
        """The node of this token behind this one."""
        if token not in self.children:
            self.children[token] = _Node(token, self, self.position + 1)
        return self.children[token]

    def keep_logprobs(self, logits: Floats, *, stop: frozenset[int]) -> None:
        """Keeps, of what may follow, the log-probability of each child and of the text's end."""
        exact = logits.astype(np.float64)
        highest = exact.max()
        total = highest + np.log(np.exp(exact - highest).sum())
        ends = exact[sorted(stop)]
        self.end = float(ends.max() + np.log(np.exp(ends - ends.max()).sum()) - total)
        self.followers = {token: float(exact[token] - total) for token in self.children}

    def path(self) -> Iterator[_Node]:
        """This node and its ancestors, behind the head."""
        node: _Node | None = self
        while node is not None:
            yield node
            node = node.parent


@dataclass(slots=True, eq=False)
class _Candidate:
    number: int
    key: np.uint64
    node: _Node
    tokens: list[int] = field(default_factory=list)
    state: str = "open"  # then "stopped", or "cut" if it reached its limit


class _Segment:
    """One question on its way to its answer."""

    def __init__(
        self, question: SearchRequest, *, head: int, stop: frozenset[int], decoding: Decoding
    ) -> None:
        self.question = question
        self._stop = stop
        self._decoding = decoding
        first, *rest = question.prompt.ids[head:]
        node = _Node(first, None, head)
        self.prompt = [node]
        for token in rest:
            node = node.child(token)
            self.prompt.append(node)
        self.root = node
        self.open = [
            _Candidate(number, noise_key(question.prompt.seed, number), node) for number in range(question.n)
        ]
        self._stopped: list[_Candidate] = []
        self._chains = [self._chain(text) for text in question.texts]
        self._scored = False

    @property
    def done(self) -> bool:
        """Whether nothing has to be read for it any more."""
        return not self.open and (self._scored or not self._chains)

    def answer(self) -> SearchResult:
        """What was asked for."""
        ordered = sorted(self._stopped, key=lambda candidate: candidate.number)
        return SearchResult(
            [candidate.tokens for candidate in ordered], [self._score(chain) for chain in self._chains]
        )

    def wanted(self) -> Iterator[_Node]:
        """Nodes to read in the next pass, ancestors first: what is needed, then drafts. Some come twice."""
        if self.root.slot is None:
            yield from self.prompt
            for chain in self._chains:
                yield from chain
        for candidate in self.open:
            node = candidate.node
            if node is not self.root:
                yield node
            # Behind its last token nothing is read: a candidate of that length is cut.
            count = SAMPLE_DRAFT if candidate.number else GREEDY_DRAFT
            count = min(count, self.question.prompt.limit - len(candidate.tokens) - 1)
            for token in draft(self.question.source, candidate.tokens, count=count):
                node = node.child(token)
                yield node

    def scored_nodes(self) -> set[int]:
        """By identity, the nodes whose whole distribution is needed."""
        if self._scored or not self._chains:
            return set()
        return {id(node) for chain in self._chains for node in chain} | {id(self.root)}

    def advance(self) -> None:
        """Takes every candidate as far as what was read carries it."""
        self._scored = True
        waiting = self.open
        while waiting:
            tokens = self._next_tokens(waiting)
            moved = []
            for candidate, token in zip(waiting, tokens, strict=True):
                if token in self._stop:
                    candidate.state = "stopped"
                    self._stopped.append(candidate)
                    continue
                candidate.tokens.append(token)
                candidate.node = candidate.node.child(token)
                if len(candidate.tokens) >= self.question.prompt.limit:
                    candidate.state = "cut"
                elif candidate.node.top_ids is not None:
                    moved.append(candidate)
            waiting = moved
        self.open = [candidate for candidate in self.open if candidate.state == "open"]

    def _next_tokens(self, candidates: Sequence[_Candidate]) -> list[int]:
        logits = np.stack([_known(candidate.node.top_logits) for candidate in candidates])
        tokens = choose(
            logits,
            np.stack([_known(candidate.node.top_ids) for candidate in candidates]),
            keys=np.array([candidate.key for candidate in candidates], dtype=np.uint64),
            steps=np.array([len(candidate.tokens) for candidate in candidates], dtype=np.uint64),
            greedy=np.array([candidate.number == 0 for candidate in candidates]),
            decoding=self._decoding,
        )
        return [int(token) for token in tokens]

    def _chain(self, text: Sequence[int]) -> list[_Node]:
        nodes, node = [], self.root
        for token in text:
            node = node.child(token)
            nodes.append(node)
        return nodes

    def _score(self, chain: Sequence[_Node]) -> Floats:
        befores = [self.root, *chain]
        own = [before.followers[node.token] for before, node in zip(befores, chain, strict=False)]
        return np.asarray([*own, befores[-1].end], dtype=np.float32)


def _known(array: npt.NDArray[np.generic] | None) -> npt.NDArray[np.generic]:
    assert array is not None  # for the type checker: it was read
    return array


def search(
    reader: Reader, questions: Sequence[SearchRequest], *, stop: frozenset[int], decoding: Decoding
) -> list[SearchResult]:
    """The answer to each question; how many are read together changes none of them."""
    count = MIN_SLOTS * min(len(questions), 2)
    return _Search(reader, stop=stop, decoding=decoding, count=count).run(questions)


class _Search:
    """Segments that share passes, and the slots they are in."""

    def __init__(self, reader: Reader, *, stop: frozenset[int], decoding: Decoding, count: int) -> None:
        self._reader = reader
        self._stop = stop
        self._decoding = decoding
        self._slots = reader.begin(count)

    def run(self, questions: Sequence[SearchRequest]) -> list[SearchResult]:
        head = len(self._reader.head)
        waiting = [(index, question) for index, question in enumerate(questions)][::-1]
        active: list[tuple[int, _Segment]] = []
        answers: dict[int, SearchResult] = {}
        while waiting or active:
            while waiting and self._has_room([segment for _, segment in active], waiting[-1][1]):
                index, question = waiting.pop()
                segment = _Segment(question, head=head, stop=self._stop, decoding=self._decoding)
                active.append((index, segment))
            self._pass([segment for _, segment in active])
            for index, segment in active:
                segment.advance()
                if segment.done:
                    answers[index] = segment.answer()
            active = [(index, segment) for index, segment in active if not segment.done]
        return [answers[index] for index in range(len(questions))]

    def _has_room(self, active: Sequence[_Segment], question: SearchRequest) -> bool:
        if not active:
            return True
        questions = [question, *(segment.question for segment in active)]
        rows = sum(q.n + len(q.texts) for q in questions)
        tokens = sum(len(q.prompt.ids) + q.n * q.prompt.limit for q in questions)
        return (
            len(questions) <= MAX_SEGMENTS
            and rows <= self._decoding.rows
            and tokens <= self._decoding.batch_tokens
        )

    def _pass(self, segments: Sequence[_Segment]) -> None:
        """Reads what all segments want next."""
        wanted = [node for segment in segments for node in segment.wanted() if node.slot is None]
        nodes = list(dict.fromkeys(wanted))
        self._make_room(len(nodes), segments)
        first, head = self._slots.used, len(self._reader.head)
        for offset, node in enumerate(nodes):
            node.slot = first + offset
        bias = np.full((len(nodes), first + len(nodes)), MASKED, dtype=np.float32)
        bias[:, :head] = 0
        for seen, node in zip(bias, nodes, strict=True):
            seen[[before.slot or 0 for before in node.path()]] = 0
        unpicked = {id(node) for segment in segments for node in segment.prompt[:-1]}
        picked = [offset for offset, node in enumerate(nodes) if id(node) not in unpicked]
        predictions = self._reader.read(
            self._slots,
            [node.token for node in nodes],
            positions=[node.position for node in nodes],
            bias=bias,
            picked=picked,
            likeliest=self._decoding.top_k,
        )
        scored = {identity for segment in segments for identity in segment.scored_nodes()}
        for row, offset in enumerate(picked):
            node = nodes[offset]
            node.top_ids, node.top_logits = predictions.top_ids[row], predictions.top_logits[row]
            if id(node) in scored:
                node.keep_logprobs(predictions.logits[row], stop=self._stop)

    def _make_room(self, count: int, segments: Iterable[_Segment]) -> None:
        """Drops the slots that no open candidate stands behind, and makes more if these are not enough."""
        if self._slots.used + count <= self._slots.count:
            return
        live = {
            id(node): node
            for segment in segments
            for candidate in segment.open
            for node in candidate.node.path()
            if node.slot is not None
        }
        ordered = sorted(live.values(), key=lambda node: node.slot or 0)
        head = len(self._reader.head)
        slots = [*range(head), *(node.slot or 0 for node in ordered)]
        self._slots.keep(np.array(slots, dtype=np.intp))
        for slot, node in enumerate(ordered, start=head):
            node.slot = slot
        if len(slots) + count > self._slots.count:
            larger = Slots(self._reader.runtime.shape, 2 * (len(slots) + count))
            larger.copy_from(self._slots)
            self._slots = larger
