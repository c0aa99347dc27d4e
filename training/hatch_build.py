"""Gives the training package the version of the runtime next to it, and pins the runtime to that version."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

RUNTIME = Path("..") / "guardrail" / "__init__.py"
VERSION = re.compile(r'^__version__ = "(.+)"$', re.MULTILINE)
LIBRARIES = [
    "accelerate>=1.0",
    "bitsandbytes>=0.45",
    "datasets>=3.0",
    "jinja2>=3.1",
    "matplotlib>=3.8",
    "peft>=0.17",
    "rouge-score>=0.1.2",
    "sacrebleu>=2.4",
    "scikit-learn>=1.4",
    "scipy>=1.11",
    "tensorboard>=2.16",
]


class VersionHook(MetadataHookInterface):
    """Read in the checkout alone: a source distribution carries what was found here in its PKG-INFO."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Sets version and dependencies."""
        found = VERSION.search((Path(self.root) / RUNTIME).read_text(encoding="utf-8"))
        if found is None:
            raise ValueError(f"{RUNTIME} names no __version__")
        metadata["version"] = found[1]
        metadata["dependencies"] = [f"detox-guardrail[torch]=={found[1]}", *LIBRARIES]
