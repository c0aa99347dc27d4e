from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from guardrail.errors import UsageError
from research.cli import app
from research.pairs.mixture import MixtureSettings, build

PLACES = ("north", "south", "west", "east", "old", "new", "upper", "lower", "outer", "inner")


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def item(toxic: str, neutral: str, *, lossy: bool = False) -> dict[str, Any]:
    lookalike = f"Nothing is wrong with {len(toxic)} of the pink lamps beside the {toxic.split()[1]} pond."
    return {
        "toxic": toxic,
        "neutral": [neutral, f"Well, {neutral}"],
        "kind": "insult",
        "lossy": lossy,
        "lookalike": lookalike,
    }


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Small sets, a few rows of each kind."""
    folder = tmp_path / "data"
    everyday = [
        item(f"The {p} bus was late again, you moron.", f"The {p} bus was late again.") for p in PLACES
    ]
    everyday.append(item("Only grim wolves shall dine on you tonight.", "I am angry.", lossy=True))
    everyday.append(item("The central tram was so crowded, YOU moron!", "The central tram was so crowded!"))
    write(folder / "everyday" / "train.jsonl", everyday)
    write(
        folder / "everyday" / "dev.jsonl",
        [item("The central tram was so crowded, you moron.", "The central tram was so crowded.")],
    )
    paradetox = [
        {
            "toxic": f"the fucking {p} train did n't stop in the village again .",
            "neutral": [f"the {p} train did n't stop in the village again .", f"the {p} train did stop."],
        }
        for p in PLACES
    ]
    write(folder / "paradetox" / "train.jsonl", paradetox)
    write(
        folder / "paradetox" / "dev.jsonl",
        [{"toxic": "nobody drew this", "neutral": ["nobody drew this here"]}],
    )
    cannot = [
        {"text": "they are all vermin .", "reasons": ["toxic_content"]},
        {"text": "who is that ?", "reasons": ["unclear"]},
    ]
    write(folder / "paradetox_cannot_rewrite" / "train.jsonl", cannot)
    return folder


def test_a_mixture_has_rows_of_every_origin_and_none_close_to_a_dev_row(data: Path) -> None:
    mixture = build(MixtureSettings(data=str(data), clean=0.2))
    assert {row.origin for row in mixture.rows} == {"everyday", "paradetox", "clean"}
    assert not any("central" in text.lower() for row in mixture.rows for text in row.texts)
    assert mixture.near_dev == 2  # a row and its look-alike


def test_paradetox_is_written_again_and_its_bad_references_are_counted(data: Path) -> None:
    mixture = build(MixtureSettings(data=str(data), clean=0))
    rows = [row for row in mixture.rows if row.origin == "paradetox"]
    assert len(rows) == len(PLACES)
    assert all(len(row.references) == 1 for row in rows)
    assert not any(" n't" in text or " ." in text for row in rows for text in row.texts)
    assert mixture.counts()["references of ParaDetox"]["turned"] == len(PLACES)


def test_what_cannot_be_said_civilly_is_apart(data: Path) -> None:
    mixture = build(MixtureSettings(data=str(data)))
    assert {(row.origin, row.source) for row in mixture.refused} == {
        ("lossy", "Only grim wolves shall dine on you tonight."),
        ("cannot rewrite", "They are all vermin."),
    }
    assert not any("wolves" in row.source for row in mixture.rows)


def test_clean_rows_are_their_own_rewrite_and_have_their_share(data: Path) -> None:
    mixture = build(MixtureSettings(data=str(data), clean=0.25))
    clean = [row for row in mixture.rows if row.origin == "clean"]
    assert all(row.references == (row.source,) for row in clean)
    assert len(clean) / len(mixture.rows) == pytest.approx(0.25, abs=0.03)


def test_the_same_seed_gives_the_same_mixture_and_another_one_another_order(data: Path) -> None:
    first, again, other = (build(MixtureSettings(data=str(data), seed=seed)).rows for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_paradetox_can_be_limited(data: Path) -> None:
    mixture = build(MixtureSettings(data=str(data), paradetox=3))
    assert sum(row.origin == "paradetox" for row in mixture.rows) == 3


@pytest.mark.parametrize("settings", [{"clean": 1.0}, {"clean": -0.1}, {"paradetox": -1}])
def test_shares_that_make_no_sense_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="clean must be"):
        MixtureSettings(**settings)


def test_the_command_writes_both_files_and_prints_the_counts(data: Path, tmp_path: Path) -> None:
    own = write(tmp_path / "own.jsonl", [item("Our lift broke down, idiot.", "Our lift broke down.")])
    out = tmp_path / "mix.jsonl"
    result = CliRunner().invoke(app, ["rewriter-data", str(out), "--data", str(data), "--own", str(own)])
    assert result.exit_code == 0, result.output
    assert "references of ParaDetox: " in result.output
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert {"own", "everyday", "paradetox", "clean"} == {row["origin"] for row in rows}
    assert all(row["neutral"] for row in rows)
    assert (tmp_path / "mix.not.jsonl").is_file()
