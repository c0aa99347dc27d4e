"""What ``make demo`` shows: a dozen texts through the guard, then a decorated function."""

from __future__ import annotations

import inspect
from collections.abc import Mapping

from rich.console import Console
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from guardrail import Guard, Outcome, detox_guard

LONG_ANSWER = (
    "To change a tyre, park on level ground and loosen the nuts before you lift the car. "
    "Only a brain-dead idiot would forget the handbrake. "
    "Fit the spare, tighten the nuts crosswise, and check them again after 50 km."
)
MARKDOWN = (
    "## Install\n\n- Run `pip install example==1.2` first.\n- Read the docs, you lazy moron.\n\n"
    "```sh\nkill -9 1234  # stops the job\n```\n"
)
TEXTS = {
    "swearing": "What the fuck is wrong with this printer again?",
    "insult": "You are a pathetic loser and nobody likes you.",
    "implicit hate": "Those immigrants are like rats, they should never have been let into our town.",
    "threat": "I know where you live and I will break your legs tonight.",
    "obfuscated": "You are such an 1d10t, just sh*t up.",
    "clean": "The train leaves at 9:40 from platform 4, tickets are $12.50.",
    "identities": "My neighbours are a gay couple, one is a Muslim nurse and the other a Jewish baker.",
    "condemned quote": "Calling people “filthy animals” for their faith is wrong, and we do not accept it.",
    "technical": "Kill the child process, then drop the slave database and abort the transaction.",
    "facts to keep": "Your damn invoice of $120.50 is late, you stupid crook: see https://example.com/pay",
    "long answer": LONG_ANSWER,
    "Markdown": MARKDOWN,
}


@detox_guard
def assistant(prompt: str) -> str:
    """Answers rudely."""
    return f"{prompt} Figure it out yourself, you dumb idiot. The manual has 12 pages."


def row_of(kind: str, text: str, outcome: Outcome) -> list[Text]:
    """The cells of one line of the table."""
    best = sorted(outcome.verdict.scores.items(), key=lambda pair: pair[1], reverse=True)[:2]
    similar = [edit.similarity for edit in outcome.edits if edit.similarity is not None]
    return [
        Text.assemble((f"{kind}\n", "dim"), text.strip()),
        Text(str(outcome.action), style="yellow" if outcome.changed else "green"),
        Text(outcome.text.strip()) if outcome.changed else Text("as it was", style="dim"),
        Text("\n".join(f"{label} {score:.2f}" for label, score in best)),
        Text(f"{min(similar):.2f}" if similar else "-"),
        Text(f"{1000 * outcome.timings.total:.0f}"),
    ]


def show_table(console: Console, guard: Guard, texts: Mapping[str, str]) -> None:
    """Moderates the texts one by one and prints each with what became of it."""
    table = Table(title="guardrail", show_lines=True)
    for header in ("text", "action", "result", "top scores", "similarity", "ms"):
        table.add_column(header, ratio=3 if header in ("text", "result") else None)
    with console.status("loading the models"):
        guard.check(TEXTS["insult"])
    for kind, text in texts.items():
        with console.status(f"checking: {kind}"):
            table.add_row(*row_of(kind, text, guard.check(text)))
    console.print(table)


def show_decorator(console: Console) -> None:
    """Prints a decorated function and what it returns."""
    source = inspect.getsource(assistant)
    console.print(Syntax(source + "\nassistant('How do I reset it?')", "python", background_color="default"))
    with console.status("asking the assistant"):
        reply = assistant("How do I reset it?")
    console.print(Text(f"returns: {reply}", style="bold"))


def main() -> None:
    """Prints the table and the decorated function."""
    console = Console()
    show_table(console, Guard(), TEXTS)
    show_decorator(console)


if __name__ == "__main__":
    main()
