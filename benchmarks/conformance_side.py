"""Runs one peer of ``benchmarks.conformance`` in the environment that has it: ``python -m ... PEER OUT``."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

from guardrail.testing import LAWS, NotApplicable
from guardrail.testing.harness import LawBrokenError


def main() -> None:
    """Writes the findings after each law, so that a peer that is stopped leaves what was found by then."""
    peer, out = sys.argv[1], Path(sys.argv[2])
    harness = importlib.import_module(f"benchmarks.peers.{peer}").Peer()
    findings = []
    for name, check in LAWS.items():
        finding = {"law": name, "result": "holds", "reason": ""}
        try:
            check(harness)
        except LawBrokenError as broken:
            finding |= {"result": "broken", "reason": str(broken)}
        except NotApplicable as skipped:
            finding |= {"result": "not applicable", "reason": str(skipped)}
        findings.append(finding)
        out.write_text(json.dumps(findings), encoding="utf-8")
        print(name, finding["result"], file=sys.stderr)


if __name__ == "__main__":
    main()
