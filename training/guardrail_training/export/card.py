"""The model card of an exported model: what it is, what it was made of, what was measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from guardrail.manifest import Manifest
from guardrail_training.evaluation.tables import rewriter_tables, table

__all__ = ["model_card"]

BLOCK = "<!-- results:rewriter -->\n{content}\n<!-- /results:rewriter -->"
UNMEASURED = (
    "Not measured yet. `python -m research evaluate rewriter` writes the tables, `guardrail-train export "
    "--results` puts them here."
)
LIMITS = """\
- It proposes; it does not decide. `guardrail` shows a proposal only after detector, word list, meaning and
  the other checks have passed it.
- It learned from the data above: other domains, languages and longer texts are rewritten less well.
- Figures hold for the base that is named above."""


def model_card(manifest: Manifest, *, results: Mapping[str, Any] | None) -> str:
    """The card in Markdown, with the front matter that hubs read; ``results`` as ``evaluate rewriter`` writes
    them, or None."""
    is_adapter = manifest.kind == "adapter"
    what = "A LoRA adapter" if is_adapter else "A language model"
    merged = manifest.settings.get("merged")
    if merged:
        what += " with a LoRA adapter merged into its weights"
    library = "peft" if is_adapter else "transformers"
    pieces = [
        f"---\nlicense: {_licence(manifest.licence)}\nlibrary_name: {library}\n---",
        f"# {manifest.name} {manifest.version}",
        f"{what}, trained by `guardrail-train`. Licence: {manifest.licence}.",
        f"## What it is made of\n\n{_origin(manifest, merged)}",
        f"The prompt it was trained with, `{{text}}` being the text:\n\n```text\n{manifest.template}\n```",
        f"## Figures\n\n{_training_figures(manifest)}",
        BLOCK.format(content=rewriter_tables(results).strip() if results else UNMEASURED),
        f"## How to use it\n\n{_use(manifest)}",
        f"## Known limits\n\n{LIMITS}",
        f"## Settings\n\n{_settings(manifest)}",
    ]
    return "\n\n".join(piece.strip() for piece in pieces) + "\n"


def _licence(name: str) -> str:
    # Hubs know short lower-case names; what is not one of them is "other" to them.
    return name.lower() if name.lower() in {"apache-2.0", "mit", "cc0-1.0", "cc-by-4.0"} else "other"


def _origin(manifest: Manifest, merged: Mapping[str, Any] | None) -> str:
    base = merged["base_sha256"] if merged else manifest.trained_on
    rows: list[list[object]] = [
        ["base weights" if merged or manifest.kind == "adapter" else "weights", f"sha256 {base}"]
    ]
    if merged:
        rows.append(["adapter", f"sha256 {merged['adapter_sha256']}"])
    quantisation = manifest.settings.get("quantisation", "none")
    if quantisation != "none":
        rows.append(["base while training", quantisation])
    rows += [[f"data {each.get('name')}", _source(each)] for each in manifest.data]
    if start := manifest.settings.get("started_from"):
        rows.append(["continued from", _start(start)])
    rows += [["seed", manifest.seed], ["commit", manifest.git]]
    rows += [[package, number] for package, number in manifest.versions.items()]
    return table(["what", "which"], rows)


def _source(each: Mapping[str, Any]) -> str:
    licence = f", licence {each['licence']}" if "licence" in each else ""
    return f"{each.get('rows')} rows, sha256 {each.get('sha256')}{licence}"


def _start(start: Mapping[str, Any]) -> str:
    """The starting adapter; earlier manifests hold its files alone."""
    files = start.get("files", start)
    name = f"{start['name']} {start['version']}, licence {start['licence']}, " if "name" in start else ""
    return name + ", ".join(f"{file} sha256 {sha256}" for file, sha256 in files.items())


def _training_figures(manifest: Manifest) -> str:
    return table(["while training", "value"], [[name, value] for name, value in manifest.metrics.items()])


def _use(manifest: Manifest) -> str:
    if manifest.kind == "adapter":
        return '```python\nfrom guardrail import Guard\n\nguard = Guard().with_adapter("FOLDER")\n```'
    return (
        "The folder is a base as `transformers` reads it, and `guardrail-train` can continue from it. Encode "
        "the text apart from the prompt, with control tokens split, as `guardrail.manifest.Template` does."
    )


def _settings(manifest: Manifest) -> str:
    values = {
        key: value
        for key, value in manifest.settings.items()
        if key not in ("merged", "started_from", "template")
    }
    return table(["setting", "value"], [[key, str(value)] for key, value in values.items()])
