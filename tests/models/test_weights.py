"""Weights are read as transformers and ggml's own package read them; other models are refused."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardrail.errors import ModelFileError
from guardrail.models.blocks import Blocks, as_floats, decoded
from guardrail.models.gguf import Stored, parse_gguf
from guardrail.models.safetensors import parse_safetensors, write_safetensors
from guardrail.models.weights import LlamaShape, read_weights
from tests.models import gguf_files

torch = pytest.importorskip("torch")

SHAPE = LlamaShape(
    layers=2, width=32, mlp=48, heads=2, kv_heads=1, head_size=16, vocabulary=300,
    rope_theta=10000.0, epsilon=1e-6, tied=True,
)  # fmt: skip


def state_dict(base: Path) -> dict[str, np.ndarray[Any, Any]]:
    from safetensors.numpy import load_file

    return load_file(base / "model.safetensors")


@pytest.fixture(scope="module")
def gguf(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny base with 4-bit layers and an 8-bit embedding, as the published base has them."""
    return gguf_files.write_gguf(tiny_base, tmp_path_factory.mktemp("gguf") / "tiny.Q4_1.gguf")


# ---- what is read


def test_a_folder_of_safetensors_gives_the_state_dict(tiny_base):
    weights = read_weights(tiny_base)
    expected = state_dict(tiny_base)
    assert weights.shape == SHAPE
    assert set(weights.tensors) == set(expected)
    for name, tensor in weights.tensors.items():
        assert np.array_equal(as_floats(tensor), expected[name])


@pytest.mark.parametrize("kind", ["F32", "F16", "Q8_0", "Q4_1"])
def test_a_gguf_file_gives_the_state_dict_within_the_precision_of_its_form(tiny_base, tmp_path, kind):
    path = gguf_files.write_gguf(tiny_base, tmp_path / "m.gguf", kind=kind, embedding=kind)
    weights, expected = read_weights(path), state_dict(tiny_base)
    assert weights.shape.tied
    assert set(weights.tensors) == set(expected)
    tolerance = {"F32": 0.0, "F16": 1e-3, "Q8_0": 1e-2, "Q4_1": 0.15}[kind]
    for name, tensor in weights.tensors.items():
        assert np.abs(as_floats(tensor) - expected[name]).max() <= tolerance, name
    assert kind.startswith("F") or isinstance(weights.tensors["model.embed_tokens.weight"], Blocks)


@pytest.mark.skipif(not Path("/proc/self/smaps").is_file(), reason="needs Linux")
def test_of_the_file_that_was_read_nothing_stays_in_memory(gguf, tmp_path):
    path = tmp_path / "own.gguf"
    shutil.copy(gguf, path)
    weights = read_weights(path)
    assert kilobytes_in_memory(path) > 0, "the header was read just now"
    held = [weights.tensors[name] for name in weights.tensors]
    assert kilobytes_in_memory(path) == 0
    for tensor, name in zip(held, weights.tensors, strict=True):
        assert np.array_equal(as_floats(tensor), as_floats(weights.tensors[name]))


def kilobytes_in_memory(path: Path) -> int:
    """How much of a mapped file this process holds."""
    lines = Path("/proc/self/smaps").read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if line.endswith(str(path)))
    return next(int(line.split()[1]) for line in lines[start:] if line.startswith("Rss:"))


def test_a_quantised_file_says_what_ggmls_own_package_says_to_the_bit(gguf):
    reader = pytest.importorskip("gguf").GGUFReader(gguf)
    oracle = pytest.importorskip("gguf.quants")
    weights = read_weights(gguf)
    stored = {tensor.name: tensor for tensor in reader.tensors}
    for name, tensor in weights.tensors.items():
        kept = stored[gguf_files.ggml_name(name)]
        expected = oracle.dequantize(kept.data, kept.tensor_type)
        ours = as_floats(tensor)
        if ".q_proj" in name or ".k_proj" in name:
            ours = gguf_files.interleaved(ours, SHAPE.heads if ".q_proj" in name else SHAPE.kv_heads)
        assert np.array_equal(ours, expected.reshape(ours.shape)), name


@given(
    kind=st.sampled_from(["Q4_1", "Q5_0", "Q8_0", "Q4_K", "Q6_K"]),
    rows=st.integers(1, 5),
    wide=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_any_block_is_decoded_as_ggmls_own_package_decodes_it(kind, rows, wide, seed):
    ggml = pytest.importorskip("gguf")
    form = ggml.GGMLQuantizationType[kind]
    weights, size = ggml.GGML_QUANT_SIZES[form]
    random = np.random.default_rng(seed)
    content = random.integers(0, 256, (rows, 256 * wide // weights, size)).astype(np.uint8)
    halves = {"Q4_1": [0, 2], "Q4_K": [0, 2], "Q6_K": [208]}.get(kind, [0])
    for start in halves:  # random bits may be no number
        scale = random.uniform(-2, 2, content.shape[:2]).astype("<f2")
        content[:, :, start : start + 2] = scale[:, :, None].view(np.uint8)
    expected = ggml.quants.dequantize(content.reshape(rows, -1), form)
    found = decoded(Stored(kind, (rows, 256 * wide), content))
    assert np.array_equal(as_floats(found), expected)
    order = random.permutation(rows)
    assert np.array_equal(as_floats(found[order]), expected[order])


def test_transformers_computes_the_same_logits_from_the_same_file(gguf):
    from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

    from guardrail.models.convert import quiet_transformers

    with quiet_transformers():
        theirs = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    weights = read_weights(gguf)
    config = LlamaConfig(
        vocab_size=300, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, tie_word_embeddings=True, rms_norm_eps=weights.shape.epsilon,
    )  # fmt: skip
    ours = LlamaForCausalLM(config).eval()
    state = {name: torch.from_numpy(as_floats(tensor)) for name, tensor in weights.tensors.items()}
    ours.load_state_dict(state, strict=False)
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        assert torch.equal(ours(ids).logits, theirs.eval()(ids).logits)


def test_a_qwen2_is_read_from_a_folder_and_from_a_gguf_file(tiny_qwen2, tmp_path):
    expected = state_dict(tiny_qwen2)
    path = gguf_files.write_gguf(tiny_qwen2, tmp_path / "m.gguf", kind="F32", embedding="F32")
    for weights in (read_weights(tiny_qwen2), read_weights(path)):
        assert replace(weights.shape, epsilon=1e-6) == replace(SHAPE, biased=True)
        assert set(weights.tensors) == set(expected)
        for name, tensor in weights.tensors.items():
            assert np.array_equal(as_floats(tensor), expected[name]), name


def twice(base: Path, path: Path, *, output: np.ndarray[Any, Any] | None = None) -> Path:
    """A GGUF file with a coarse embedding and an output layer, by default of the same matrix."""
    state = state_dict(base)
    tensors = gguf_files.tensors_of(
        state, heads=2, kv_heads=1, kind="F32", embedding="Q4_1", interleave=False
    )
    weight = state["model.embed_tokens.weight"] if output is None else output
    tensors["output.weight"] = ("Q8_0", weight.shape, gguf_files.packed(weight, "Q8_0"))
    path.write_bytes(gguf_files.gguf_bytes(gguf_files.metadata_of(base), tensors))
    return path


def test_a_matrix_that_is_stored_twice_is_read_once_in_its_finer_form(tiny_qwen2, tmp_path):
    weights = read_weights(twice(tiny_qwen2, tmp_path / "m.gguf"))
    assert weights.shape.tied
    assert "lm_head.weight" not in weights.tensors
    exact = state_dict(tiny_qwen2)["model.embed_tokens.weight"]
    assert np.abs(as_floats(weights.tensors["model.embed_tokens.weight"]) - exact).max() <= 1e-2


def test_an_output_layer_of_its_own_stays_one(tiny_qwen2, tmp_path):
    other = state_dict(tiny_qwen2)["model.embed_tokens.weight"][::-1].copy()
    weights = read_weights(twice(tiny_qwen2, tmp_path / "m.gguf", output=other))
    assert not weights.shape.tied
    assert np.abs(as_floats(weights.tensors["lm_head.weight"]) - other).max() <= 1e-2


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_half_precision_safetensors_are_widened_exactly(tiny_base, tmp_path, kind):
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "half"
    shutil.copytree(tiny_base, folder)
    narrow = {n: t.to(getattr(torch, kind)) for n, t in load_file(folder / "model.safetensors").items()}
    save_file(narrow, folder / "model.safetensors")
    weights = read_weights(folder)
    for name, tensor in weights.tensors.items():
        assert np.array_equal(as_floats(tensor), narrow[name].to(torch.float32).numpy())


def test_a_model_in_several_files_and_with_an_output_layer_of_its_own_is_read_whole(tiny_base, tmp_path):
    from safetensors.numpy import save_file

    folder = untied(tiny_base, tmp_path / "parts")
    state = state_dict(folder)
    (folder / "model.safetensors").unlink()
    for i, names in enumerate((sorted(state)[::2], sorted(state)[1::2])):
        save_file({name: state[name] for name in names}, folder / f"model-0000{i}-of-2.safetensors")
    weights = read_weights(folder)
    assert not weights.shape.tied
    assert np.array_equal(as_floats(weights.tensors["lm_head.weight"]), state["lm_head.weight"])
    assert set(weights.tensors) == set(state)


def untied(base: Path, folder: Path) -> Path:
    from safetensors.numpy import save_file

    shutil.copytree(base, folder)
    state = state_dict(base)
    state["lm_head.weight"] = state["model.embed_tokens.weight"][::-1].copy()
    save_file(state, folder / "model.safetensors")
    change(folder / "config.json", tie_word_embeddings=False)
    return folder


def change(path: Path, **entries: Any) -> None:
    content = json.loads(path.read_text()) | entries
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not ...}))


def test_written_safetensors_are_the_bytes_that_the_safetensors_package_writes(tiny_base, tmp_path):
    from safetensors.numpy import save_file

    state = state_dict(tiny_base)
    save_file(state, tmp_path / "theirs", metadata={"format": "pt"})
    shapes = {name: array.shape for name, array in state.items()}
    write_safetensors(tmp_path / "ours", shapes, (state[name] for name in sorted(state)))
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()


# ---- what is refused


@given(share=st.floats(0, 1, exclude_max=True))
def test_a_file_that_was_cut_short_anywhere_is_one_clear_error(gguf, tiny_base, share):
    for path, parse in ((gguf, parse_gguf), (tiny_base / "model.safetensors", parse_safetensors)):
        content = path.read_bytes()
        with pytest.raises(ModelFileError, match=r"here.*fetch it again"):
            parse(memoryview(content[: int(share * len(content))]), where="here")


@given(data=st.data())
def test_a_header_with_altered_bytes_is_read_or_refused_but_nothing_else(
    gguf, tiny_base, tmp_path_factory, data
):
    folder = tmp_path_factory.mktemp("altered")
    shutil.copyfile(tiny_base / "config.json", folder / "config.json")
    for source, name, header in (
        (gguf, "m.gguf", 12_000),
        (tiny_base / "model.safetensors", "model.safetensors", 2000),
        (tiny_base / "config.json", "config.json", 900),
    ):
        content = bytearray(source.read_bytes())
        for _ in range(data.draw(st.integers(1, 4))):
            place = data.draw(st.integers(0, min(header, len(content)) - 1))
            content[place] = data.draw(st.integers(0, 255))
        (folder / name).write_bytes(content)
        with contextlib.suppress(ModelFileError):
            assert all(
                as_floats(tensor).dtype == np.float32 for tensor in read_weights(folder).tensors.values()
            )


@pytest.mark.parametrize("content", [b"", b"GGUF", b"{}", bytes(100_000), b"PK\x03\x04" + bytes(100)])
def test_a_file_that_is_something_else_is_one_clear_error(tmp_path, content):
    (tmp_path / "m.gguf").write_bytes(content)
    with pytest.raises(ModelFileError, match=r"m\.gguf"):
        read_weights(tmp_path / "m.gguf")


def test_a_missing_file_and_an_empty_folder_are_clear_errors(tmp_path):
    with pytest.raises(ModelFileError, match=r"absent\.gguf cannot be read.*fetch the model again"):
        read_weights(tmp_path / "absent.gguf")
    with pytest.raises(ModelFileError, match="expected one GGUF file"):
        read_weights(tmp_path)


def test_two_gguf_files_in_a_folder_are_a_clear_error(gguf, tmp_path):
    for name in ("a.gguf", "b.gguf"):
        shutil.copyfile(gguf, tmp_path / name)
    with pytest.raises(ModelFileError, match="has 2"):
        read_weights(tmp_path)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"model_type": "qwen3"}, "'qwen3', and only 'llama' and 'qwen2' run without torch.*extra 'torch'"),
        (
            {"model_type": "qwen2"},
            r"lacks the tensor model\.layers\.0\.self_attn\.q_proj\.bias of a plain Qwen2",
        ),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "layer_types"),
        ({"use_sliding_window": True}, "use_sliding_window"),
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"attention_bias": True}, "attention_bias"),
        ({"mlp_bias": True}, "mlp_bias"),
        ({"rope_parameters": {"rope_type": "llama3", "rope_theta": 1.0}}, "rope_scaling"),
        ({"rope_parameters": None, "rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_scaling"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantization_config"),
        ({"auto_map": {"AutoModelForCausalLM": "m.M"}}, "auto_map"),
        ({"num_hidden_layers": 3}, r"lacks the tensor model\.layers\.2"),
        ({"num_hidden_layers": 1 << 24}, r"lacks the tensor model\.layers\.2"),
        ({"num_hidden_layers": 1 << 62}, "layers of this model is"),
        ({"num_hidden_layers": 1}, r"holds tensors.*layers\.1"),
        ({"num_hidden_layers": "2"}, "layers of this model is '2'"),
        ({"num_attention_heads": 0}, "heads of this model is 0"),
        ({"num_key_value_heads": 3}, "cannot share 3 keys"),
        ({"head_dim": 7}, "of size 7"),
        ({"hidden_size": 64}, "expected"),
        ({"vocab_size": 301}, r"is \(300, 32\), expected \(301, 32\)"),
        ({"tie_word_embeddings": False}, r"lacks the tensor lm_head"),
        ({"rms_norm_eps": -1.0}, "epsilon"),
        ({"rms_norm_eps": ...}, "rms_norm_eps"),
    ],
)
def test_a_model_that_is_not_this_plain_llama_is_refused_by_name(tiny_base, tmp_path, entries, message):
    folder = tmp_path / "other"
    shutil.copytree(tiny_base, folder)
    change(folder / "config.json", **entries)
    with pytest.raises(ModelFileError, match=message):
        read_weights(folder)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"general.architecture": "gemma"}, "'gemma', and only 'llama' and 'qwen2' run without torch"),
        ({"llama.rope.scaling.type": "yarn"}, r"rope\.scaling\.type"),
        ({"llama.expert_count": 8}, "expert_count"),
        ({"llama.logit_scale": 2.0}, "logit_scale"),
        ({"llama.rope.dimension_count": 4}, r"rope\.dimension_count is 4"),
        ({"llama.attention.head_count": [4, 4]}, "heads of this model is"),
        ({"llama.attention.head_count_kv": [2, 2]}, "kv_heads"),
        ({"llama.block_count": 3}, r"lacks the tensor model\.layers\.2"),
        ({"llama.block_count": -1}, "layers of this model is -1"),
        ({"general.alignment": 0}, "not a GGUF file"),
    ],
)
def test_a_gguf_that_is_not_this_plain_llama_is_refused_by_name(tiny_base, tmp_path, entries, message):
    tensors = gguf_files.tensors_of(state_dict(tiny_base), heads=SHAPE.heads, kv_heads=SHAPE.kv_heads)
    metadata = gguf_files.metadata_of(tiny_base) | entries
    (tmp_path / "m.gguf").write_bytes(gguf_files.gguf_bytes(metadata, tensors))
    with pytest.raises(ModelFileError, match=message):
        read_weights(tmp_path / "m.gguf")


def test_what_is_switched_off_does_not_matter(tiny_base, tmp_path):
    tensors = gguf_files.tensors_of(state_dict(tiny_base), heads=SHAPE.heads, kv_heads=SHAPE.kv_heads)
    off: dict[str, Any] = {"llama.rope.scaling.type": "none", "llama.expert_count": 0}
    metadata = gguf_files.metadata_of(tiny_base) | off
    (tmp_path / "m.gguf").write_bytes(gguf_files.gguf_bytes(metadata, tensors, version=2))
    assert read_weights(tmp_path).shape.layers == 2


def without(name: str) -> Callable[[dict[str, Any]], object]:
    return lambda state: state.pop(name)


@pytest.mark.parametrize(
    ("alter", "message"),
    [
        (without("model.layers.1.mlp.up_proj.weight"), r"lacks the tensor model\.layers\.1\.mlp\.up_proj"),
        (lambda state: state.update(score=np.zeros((2, 32), np.float32)), "holds tensors.*score"),
        (lambda state: state.update({"model.norm.weight": np.zeros(31, np.float32)}), r"is \(31,\)"),
        (lambda state: state.update({"model.norm.weight": np.zeros(32, np.int8)}), "stored in I8"),
    ],
)
def test_a_tensor_that_is_missing_strange_or_of_another_shape_is_named(tiny_base, tmp_path, alter, message):
    from safetensors.numpy import save_file

    folder = tmp_path / "other"
    shutil.copytree(tiny_base, folder)
    state = state_dict(tiny_base)
    alter(state)
    save_file(state, folder / "model.safetensors")
    with pytest.raises(ModelFileError, match=message):
        read_weights(folder)


def test_a_form_of_storage_that_is_not_read_is_named_with_those_that_are(tiny_base, tmp_path, monkeypatch):
    monkeypatch.setitem(gguf_files.KINDS, "F16", 10)  # Q2_K
    path = gguf_files.write_gguf(tiny_base, tmp_path / "m.gguf", kind="F16")
    with pytest.raises(ModelFileError, match="stored in type 10 of ggml; expected one of F32, F16, Q4_1"):
        read_weights(path)


def test_numbers_of_a_type_that_numpy_lacks_are_named(tiny_base, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "narrow"
    shutil.copytree(tiny_base, folder)
    state = load_file(folder / "model.safetensors")
    state["model.norm.weight"] = state["model.norm.weight"].to(torch.float8_e4m3fn)
    save_file(state, folder / "model.safetensors")
    with pytest.raises(ModelFileError, match="F8_E4M3"):
        read_weights(folder)
