"""Is it alive, can it work, what has it done: for orchestrators and Prometheus."""

from __future__ import annotations

import logging

import anyio
from fastapi import APIRouter
from starlette.responses import Response

from guardrail.errors import GuardrailError
from guardrail.guard import Guard
from guardrail.integrations.openai_server.metrics import CONTENT_TYPE, Metrics
from guardrail.integrations.web.errors import JsonReply

__all__ = ["Readiness", "health_routes"]

logger = logging.getLogger("guardrail.server")
PARTS = ("detector", "lexicon", "rewriter", "verifier")


class Readiness:
    """Whether the models are loaded.

    ``state`` is ``loading``, ``ready`` or ``failed``; ``degraded`` says which models will not work although
    texts can be moderated without them, such as a rewriter whose base is missing. ``parts`` says of each
    model the state, or in place of ``ready`` the reason.
    """

    @property
    def parts(self) -> dict[str, str]:
        """The parts of the guard by name."""
        reasons = {reason.partition("_")[0]: reason for reason in self.degraded}
        if self.state == "loading" or self.error is not None:
            return dict.fromkeys(PARTS, self.error or self.state)
        return {name: reasons.get(name, "ready") for name in PARTS}

    def __init__(self, guard: Guard) -> None:
        self.state = "loading"
        self.error: str | None = None
        self.degraded: tuple[str, ...] = ()
        self._guard = guard

    async def prepare(self) -> None:
        """Loads the models, off the event loop."""
        try:
            self.degraded = await anyio.to_thread.run_sync(self._guard.load, abandon_on_cancel=True)
        except GuardrailError as error:
            self.state, self.error = "failed", type(error).__name__
            logger.error("the guard cannot work: %s", error)
        else:
            blind = any(reason.startswith("detector") for reason in self.degraded)
            self.state = "failed" if blind else "ready"


def health_routes(readiness: Readiness, metrics: Metrics) -> APIRouter:
    """/healthz, /readyz and /metrics."""
    router = APIRouter()

    @router.get("/healthz")
    async def alive() -> Response:
        return JsonReply({"status": "ok"})

    @router.get("/readyz")
    async def ready() -> Response:
        answer = {"status": readiness.state, "degraded": list(readiness.degraded), "parts": readiness.parts}
        return JsonReply(answer, status_code=200 if readiness.state == "ready" else 503)

    @router.get("/metrics")
    async def counted() -> Response:
        return Response(metrics.exposition(), headers={"content-type": CONTENT_TYPE})

    return router
