"""Tokenizers read without transformers encode and decode as transformers does."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardrail.errors import ModelFileError
from guardrail.models.tokenizer import Tokenizer, read_tokenizer
from tests.models import gguf_files

transformers = pytest.importorskip("transformers")

TEXTS = st.lists(
    st.one_of(
        st.text(max_size=12), st.sampled_from(["<|im_end|>", "<|endoftext|>", "the ", " 12", "\n", "'s"])
    )
).map("".join)


@pytest.fixture(scope="module")
def gguf(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return gguf_files.write_gguf(tiny_base, tmp_path_factory.mktemp("gguf") / "tiny.gguf").parent


@pytest.fixture(scope="module")
def theirs(tiny_base: Path) -> Any:
    return transformers.AutoTokenizer.from_pretrained(tiny_base)


@given(text=TEXTS, split=st.booleans(), source=st.sampled_from(["json", "gguf"]))
def test_ids_and_texts_are_those_of_transformers(tiny_base, gguf, theirs, text, split, source):
    ours = read_tokenizer(tiny_base if source == "json" else gguf)
    flags = {"add_special_tokens": False, "split_special_tokens": split}
    ids = ours.encode(text, **flags)
    assert ids == theirs.encode(text, **flags)
    assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True)
    assert ours.decode(ids, skip_special_tokens=False) == theirs.decode(ids)


def test_a_text_that_is_split_brings_no_control_token(tiny_base, gguf):
    for folder in (tiny_base, gguf):
        tokenizer = read_tokenizer(folder)
        assert tokenizer.control == {0, 1, 2}
        ids = tokenizer.encode("<|im_end|>", add_special_tokens=False, split_special_tokens=True)
        assert not tokenizer.control & set(ids)
        assert tokenizer.decode(ids) == "<|im_end|>"


def test_a_token_that_only_the_configuration_calls_special_is_a_control_token(tiny_base, tmp_path):
    folder = tmp_path / "own"
    shutil.copytree(tiny_base, folder)
    content = json.loads((folder / "tokenizer.json").read_text())
    for token in content["added_tokens"]:
        token["special"] = False
    (folder / "tokenizer.json").write_text(json.dumps(content))
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config["additional_special_tokens"] = ["the", {"content": "<|im_start|>"}]
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = read_tokenizer(folder)
    the = tokenizer.encode("the", add_special_tokens=False, split_special_tokens=True)
    assert tokenizer.control >= {0, 1, 2}
    assert len(the) != 1 or tokenizer.control == {0, 1, 2, *the}


def test_threads_that_split_and_do_not_split_do_not_disturb_each_other(tiny_base):
    tokenizer = read_tokenizer(tiny_base)
    expected = {split: encode(tokenizer, split=split) for split in (True, False)}
    wrong: list[bool] = []

    def work(split: bool) -> None:
        if any(encode(tokenizer, split=split) != expected[split] for _ in range(200)):
            wrong.append(split)

    threads = [threading.Thread(target=work, args=(split,)) for split in (True, False) * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert expected[True] != expected[False]
    assert wrong == []


def encode(tokenizer: Tokenizer, *, split: bool) -> list[int]:
    return tokenizer.encode("a <|im_end|> b" * 20, add_special_tokens=False, split_special_tokens=split)


# ---- what is refused


def test_a_folder_without_a_tokenizer_is_a_clear_error(tmp_path):
    with pytest.raises(ModelFileError, match=r"has no tokenizer\.json"):
        read_tokenizer(tmp_path)


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"model": {"type": "None"}}', "\x00"])
def test_a_file_that_is_no_tokenizer_is_a_clear_error(tmp_path, content):
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(ModelFileError, match="is not a tokenizer"):
        read_tokenizer(tmp_path)


@pytest.mark.parametrize("content", ["", "[]", "{", "\x00"])
def test_a_configuration_that_is_no_json_object_is_a_clear_error(tiny_base, tmp_path, content):
    shutil.copyfile(tiny_base / "tokenizer.json", tmp_path / "tokenizer.json")
    (tmp_path / "tokenizer_config.json").write_text(content)
    with pytest.raises(ModelFileError, match=r"tokenizer_config\.json is not"):
        read_tokenizer(tmp_path)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"tokenizer.ggml.model": "llama"}, "kind 'llama'.*put the model's tokenizer.json"),
        ({"tokenizer.ggml.pre": "llama-bpe"}, "splits like 'llama-bpe'"),
        ({"tokenizer.ggml.merges": ["a"]}, "no usable tokenizer"),
        ({"tokenizer.ggml.merges": ["q zzz"]}, "no usable tokenizer"),
        ({"tokenizer.ggml.token_type": [1]}, "no usable tokenizer"),
        ({"tokenizer.ggml.tokens": 3}, "no usable tokenizer"),
    ],
)
def test_a_gguf_tokenizer_of_another_kind_is_refused_by_name(tiny_base, tmp_path, entries, message):
    content = gguf_files.gguf_bytes(gguf_files.metadata_of(tiny_base) | entries, {})
    (tmp_path / "m.gguf").write_bytes(content)
    with pytest.raises(ModelFileError, match=message):
        read_tokenizer(tmp_path)


def test_a_tokenizer_beside_a_gguf_file_goes_before_what_that_file_says(tiny_base, gguf, tmp_path):
    metadata = gguf_files.metadata_of(tiny_base) | {"tokenizer.ggml.model": "llama"}
    (tmp_path / "m.gguf").write_bytes(gguf_files.gguf_bytes(metadata, {}))
    shutil.copyfile(tiny_base / "tokenizer.json", tmp_path / "tokenizer.json")
    flags = {"add_special_tokens": False, "split_special_tokens": True}
    assert read_tokenizer(tmp_path).encode("rude", **flags) == read_tokenizer(gguf).encode("rude", **flags)
