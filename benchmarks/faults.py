"""Random faults against the real proxy under load, and an oracle that knows what each client must have seen.

Plug-ins raise, hang, run out of memory and return nonsense; the upstream cuts, stalls, garbles and floods;
clients leave; the audit's disk is full or its database gone; the wall clock jumps. Each request's sentences
carry its number, so a plug-in knows whom its failed call hit. A request that no fault hit must get its answer
to the letter; one that was hit may lose text, and may never show a toxic word or another request's number.

Not played: a plug-in that calls a toxic text clean (nothing can tell), and a process that is killed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import secrets
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

from benchmarks.fault_parts import BreakingAudit, BreakingPlugin, BreakingUpstream, clock_jump, markers_in
from benchmarks.measure import PACKAGES, Claim, report
from guardrail import Guard, Policy
from guardrail.config import ServerSettings
from guardrail.config.settings import Url
from guardrail.integrations.openai_server import Keys, create_app
from tests.fakes import BAD, BagEmbedder, WordDetector, WordRewriter
from tests.integrations.server.running import serving

__all__ = ["KINDS", "Campaign", "Request", "run"]

POLICY = Policy(detect_timeout=0.5, rewrite_timeout=0.5)
SETTINGS = {"timeout": 0.7, "max_seconds": 4.0, "max_answer": 20_000, "access_log": False}
CLIENTS = 4
HANG = 10.0
"""Seconds after which a client takes its answer to hang: max_seconds, the closing time and a busy machine."""
RECOVERY = 5.0
PATIENCE = 1.0
"""Seconds that a fault waits for somebody to hit."""
PARTS = ("detector", "rewriter", "embedder", "lexicon")
MODES = ("raises", "hangs", "nonsense", "memory")
UPSTREAM = ("cuts", "stalls", "garbles", "floods")
KINDS = (
    *(f"{part} {mode}" for part in PARTS for mode in MODES),
    *(f"upstream {mode}" for mode in UPSTREAM),
    *("client leaves", "audit full", "audit gone", "clock jumps"),
)
SENTENCES = (
    "Parcel {} leaves the northern depot this morning.",
    "The weather over harbour {} is mild and quiet today.",
    "Please keep ticket {} until the end of the journey.",
)
TOXIC = "The driver of that bus {} is an idiot."
BAD_WORD = re.compile(rf"\b(?:{'|'.join(BAD)})\b", re.IGNORECASE)


@dataclass(slots=True)
class Request:
    """One request and what its client saw."""

    number: int
    toxic: bool
    streamed: bool
    fault: str = ""
    started: float = 0.0
    ended: float = 0.0
    status: int = 0
    raw: bytes = field(default=b"", repr=False)
    text: str = field(default="", repr=False)
    done: bool = False
    hung: bool = False

    @property
    def sentences(self) -> list[str]:
        """What the upstream says."""
        first, second, third = (sentence.format(self.number) for sentence in SENTENCES)
        return [first, TOXIC.format(self.number) if self.toxic else second, third]

    @property
    def expected(self) -> str:
        """What the client must see if nothing fails."""
        return " ".join(self.sentences).replace("idiot", "person")

    @property
    def is_right(self) -> bool:
        """True if the client saw just that, to its end."""
        return self.done and self.text == self.expected

    @property
    def leaks(self) -> bool:
        """True if it saw a toxic word, or anything of another request."""
        seen = self.raw.decode("utf-8", "replace") + self.text
        return bool(BAD_WORD.search(seen)) or bool(markers_in(self.text) - {self.number})


@dataclass(slots=True)
class Fault:
    """One fault: when it began and was lifted, and whom it hit."""

    kind: str
    began: float
    lifted: float = 0.0
    numbers: set[int] = field(default_factory=set)
    hits_all: bool = False
    hits_toxic: bool = False
    recovery: float | None = None

    def hit(self, request: Request) -> bool:
        """True if it may have cost this request text."""
        if request.number in self.numbers:
            return True
        overlaps = request.started <= self.lifted and request.ended >= self.began
        return overlaps and (self.hits_all or (self.hits_toxic and request.toxic))


class Campaign:
    """Clients that ask without a pause, and faults one after the other."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.dice = random.Random(seed)
        self.upstream = BreakingUpstream(self.dice)
        self.audit = BreakingAudit(folder / "audit.db")
        works: dict[str, Callable[..., object]] = {
            "detector": WordDetector().detect,
            "rewriter": WordRewriter().rewrite,
            "embedder": BagEmbedder().embed,
            "lexicon": WordDetector().detect,
        }
        self.parts = {name: BreakingPlugin(call, self.dice) for name, call in works.items()}
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        self.found: dict[str, int] = {}
        self._wanted: list[str] = []
        self._taken: dict[str, Request] = {}
        self._over = False
        self._port = 0

    async def run(self, kinds: Sequence[str], *, seconds: float) -> None:
        """Plays the faults until they are over, or the time is."""
        until = perf_counter() + seconds
        server = await asyncio.start_server(self.upstream.serve, "127.0.0.1", 0)
        with ExitStack() as stack:
            guard = Guard(policy=POLICY, audit=self.audit, **self.parts)  # type: ignore[arg-type]  # its parts
            address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
            settings = ServerSettings(upstream=Url(address), **SETTINGS)  # type: ignore[arg-type]  # likewise
            url = await asyncio.to_thread(
                stack.enter_context, serving(create_app(guard, settings=settings, keys=Keys()))
            )
            self._port = int(url.rpartition(":")[2])
            clients = [asyncio.create_task(self._client()) for _ in range(CLIENTS)]
            try:
                await self._next_clean(perf_counter())
                for kind in kinds:
                    if perf_counter() > until:
                        break
                    await self._play(kind)
            finally:
                self._over = True
                await asyncio.gather(*clients)
                server.close()
                await asyncio.to_thread(stack.close)
                self.audit.close()

    async def _play(self, kind: str) -> None:
        fault = Fault(kind, perf_counter())
        subject, _, mode = kind.partition(" ")
        if subject in self.parts:
            await self._break_part(fault, self.parts[subject], mode)
        elif subject == "audit":
            await self._break_audit(fault, mode)
        elif subject == "clock":
            with clock_jump(self.dice.choice((-86400.0, -3600.0, 3600.0, 86400.0 * 366))):
                await self._next_clean(fault.began)
        else:
            await self._break_request(fault)
        fault.lifted = perf_counter()
        self.faults.append(fault)
        fault.recovery = await self._next_clean(fault.lifted)

    async def _break_part(self, fault: Fault, part: BreakingPlugin, mode: str) -> None:
        part.break_down(mode, self.dice.randint(1, 3))
        await _until(lambda: part.is_spent, PATIENCE)
        if mode == "hangs":
            await asyncio.sleep((POLICY.detect_timeout or 0) + 0.1)
        part.lift()
        await _until(lambda: not part.hanging, PATIENCE)
        fault.numbers = {number for _, numbers in part.hit for number in numbers}
        fault.hits_all = mode == "hangs" or any(not numbers for _, numbers in part.hit)

    async def _break_audit(self, fault: Fault, mode: str) -> None:
        fault.hits_toxic = True
        failed = self.audit.failed
        if mode == "full":
            self.audit.is_full = True
        else:
            await asyncio.to_thread(self.audit.leave)
        await _until(lambda: self.audit.failed > failed, PATIENCE)
        if mode == "full":
            self.audit.is_full = False
        else:
            await asyncio.to_thread(self.audit.come_back)

    async def _break_request(self, fault: Fault) -> None:
        self._wanted.append(fault.kind)
        await _until(lambda: fault.kind in self._taken, HANG)
        request = self._taken.pop(fault.kind)
        fault.numbers = {request.number}
        await _until(lambda: request.ended > 0, 2 * HANG)

    async def _next_clean(self, since: float) -> float | None:
        """Seconds until a request that started after ``since`` has its right answer; None if none does."""
        first = len(self.requests)

        def found() -> bool:
            return any(one.started >= since and one.is_right and one.ended for one in self.requests[first:])

        await _until(found, 2 * RECOVERY)
        return perf_counter() - since if found() else None

    async def _client(self) -> None:
        while not self._over:
            number = 100_000 + len(self.upstream.texts)
            request = Request(number, self.dice.random() < 0.4, self.dice.random() < 0.5)
            if self._wanted:
                request.fault = self._wanted.pop()
                self._taken[request.fault] = request
            self.upstream.texts[number] = request.sentences
            self.upstream.faults[number] = request.fault.removeprefix("upstream ")
            request.started = perf_counter()
            try:
                await asyncio.wait_for(self._ask(request), HANG)
            except asyncio.TimeoutError:
                request.hung = True
            except (ConnectionError, asyncio.IncompleteReadError):
                pass
            _read(request)
            request.ended = perf_counter()
            self.requests.append(request)

    async def _ask(self, request: Request) -> None:
        body = json.dumps(
            {
                "model": "small",
                "seed": request.number,
                "stream": request.streamed,
                "messages": [{"role": "user", "content": "hello"}],
            }
        ).encode()
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            writer.write(
                b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n"
                b"content-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body) + body
            )
            await writer.drain()
            if request.fault == "client leaves":
                with suppress(asyncio.TimeoutError):
                    request.raw = await asyncio.wait_for(reader.read(200), self.dice.choice((0.001, 0.2)))
                return
            while chunk := await reader.read(1 << 16):
                request.raw += chunk
        finally:
            writer.close()

    def counts(self) -> dict[str, int]:
        """What the oracle has found; all but "requests" and "hit" must be 0."""
        found: Counter[str] = Counter()
        for request in self.requests:
            hit = any(fault.hit(request) for fault in self.faults)
            found["requests"] += 1
            found["hit"] += hit
            found["leaks"] += request.leaks
            found["hangs"] += request.hung
            found["clean texts lost"] += not (hit or request.toxic or request.is_right)
            found["rewrites lost"] += request.toxic and not (hit or request.is_right)
        recorded = self._recorded()
        found["shown without a record"] = sum(
            "person" in one.text and one.number not in recorded for one in self.requests
        )
        return dict(found)

    def _recorded(self) -> set[int]:
        import sqlite3
        from contextlib import closing

        with closing(sqlite3.connect(self.audit.database.where.removeprefix("sqlite:///"))) as connection:
            rows = connection.execute("SELECT before FROM guardrail_interventions").fetchall()
        return {number for (text,) in rows for number in markers_in(text or "")}


async def _until(condition: Callable[[], bool], seconds: float) -> None:
    end = perf_counter() + seconds
    while not condition() and perf_counter() < end:
        await asyncio.sleep(0.005)


def _read(request: Request) -> None:
    """The text of an answer's bytes, and whether it is whole."""
    head, _, body = request.raw.partition(b"\r\n\r\n")
    request.status = int(head[9:12]) if head[9:12].isdigit() else 0
    if b"chunked" in head.lower():
        body = _joined(body)
    if request.streamed and b"event-stream" in head:
        for line in body.split(b"\n\n"):
            payload = line.removeprefix(b"data: ")
            if payload == b"[DONE]":
                request.done = True
            elif payload:
                with suppress(ValueError, LookupError):
                    request.text += json.loads(payload)["choices"][0]["delta"].get("content") or ""
    elif request.status == 200:
        with suppress(ValueError, LookupError):
            request.text = json.loads(body)["choices"][0]["message"]["content"]
            request.done = True


def _joined(body: bytes) -> bytes:
    """A body without the frames of its chunks."""
    found = b""
    while b"\r\n" in body:
        size, _, body = body.partition(b"\r\n")
        length = int(size or b"0", 16)
        found, body = found + body[:length], body[length + 2 :]
    return found


def run(seed: int, *, kinds: Sequence[str], seconds: float) -> Campaign:
    """The campaign, played."""
    with tempfile.TemporaryDirectory() as folder:
        campaign = Campaign(seed, Path(folder))
        asyncio.run(campaign.run(kinds, seconds=seconds))
        campaign.found = campaign.counts()
    return campaign


def main() -> int:
    """Prints what the oracle found, by kind of fault, and writes it; 1 if a promise does not hold."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--faults", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=None, help="a run's number; random if omitted")
    asked = parser.parse_args()
    seed = secrets.randbelow(1 << 31) if asked.seed is None else asked.seed
    print(f"seed {seed}", flush=True)
    dice = random.Random(seed)
    kinds = [dice.choice(KINDS) for _ in range(asked.faults)]
    campaign = run(seed, kinds=kinds, seconds=asked.seconds)
    found = campaign.found
    rows = []
    for kind in KINDS:
        played = [fault for fault in campaign.faults if fault.kind == kind]
        late = [RECOVERY * 2 if one.recovery is None else one.recovery for one in played]
        rows.append({"fault": kind, "played": len(played), "worst recovery, s": max(late, default=0.0)})
    slowest = max((float(str(row["worst recovery, s"])) for row in rows), default=0.0)
    names = ("leaks", "clean texts lost", "rewrites lost", "hangs", "shown without a record")
    claims = [Claim(f"no {name}", found[name], found[name] == 0) for name in names]
    claims.append(Claim("a right answer within 5 s of a fault's end", slowest, slowest <= RECOVERY))
    settings = {
        "seed": seed,
        "faults asked": asked.faults,
        "faults played": len(campaign.faults),
        "clients": CLIENTS,
        "requests": found["requests"],
        "requests hit": found["hit"],
    }
    packages = (*PACKAGES, "fastapi", "uvicorn", "httpx", "sqlalchemy")
    report("faults", rows, claims, packages=packages, settings=settings)
    print(settings)
    return 0 if all(claim.holds for claim in claims) else 1


if __name__ == "__main__":
    sys.exit(main())
