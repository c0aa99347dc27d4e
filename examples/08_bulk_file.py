"""Moderates a CSV file: one column changes, every other byte stays, and an interrupted job goes on.

In a shell: guardrail filter comments.csv moderated.csv --field comment
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from guardrail import Guard
from guardrail.integrations.rows.job import Job

COMMENTS = """\
id;comment;rating
1;Thanks for the quick answer, it worked at once.;5
2;"What a pathetic loser you are; go away.";1
3;no rating here
4;The second chapter is hard to follow.;3
"""


def main() -> None:
    """Prints the moderated file and what became of its rows."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "comments.csv").write_text(COMMENTS, encoding="utf-8")
        job = Job(source=folder / "comments.csv", target=folder / "moderated.csv", field="comment")
        summary = job.run(Guard(rewriter=None))
        print(job.target.read_text(encoding="utf-8"))
        print({action: number for action, number in summary.counts.actions.items() if number})
        print(f"set aside: {job.bad_rows.read_text(encoding='utf-8')}")


if __name__ == "__main__":
    main()
