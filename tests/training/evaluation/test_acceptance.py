from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardrail import Guard
from guardrail.errors import ConfigError, UsageError
from guardrail.outcome import Action, Span, Verdict
from guardrail_training.evaluation.acceptance.answers import SystemAnswers, guarded
from guardrail_training.evaluation.acceptance.figures import differences_of, figures_of
from guardrail_training.evaluation.acceptance.ratings import (
    ReaderRatings,
    agreement_of,
    read_ratings,
    settle,
)
from guardrail_training.evaluation.acceptance.run import run
from guardrail_training.evaluation.acceptance.sentences import HostileSentence, draw
from guardrail_training.evaluation.acceptance.settings import AcceptanceSettings
from guardrail_training.evaluation.acceptance.sheet import RATINGS, Key, SheetItem, items_of, write_items
from guardrail_training.evaluation.generation.samples import Sample, SampledResponse, write_samples

REGISTERS = {"daily": 6, "social": 3}
PASSED, REWRITTEN, MASKED = Action.PASSED, Action.REWRITTEN, Action.MASKED


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Dev sets of nine and of five sentences."""
    folder = tmp_path / "data"
    everyday = [
        {
            "register": register,
            "toxic": f"This {register} bus {n} is rotten.",
            "neutral": [f"Bus {n} is late."],
            "lossy": n == 0,
        }
        for register, count in REGISTERS.items()
        for n in range(count)
    ]
    paradetox = [{"toxic": f"the rotten train {n}", "neutral": [f"the train {n}"]} for n in range(5)]
    for name, rows in (("everyday", everyday), ("paradetox", paradetox)):
        (folder / name).mkdir(parents=True)
        lines = [json.dumps(row) + "\n" for row in rows]
        (folder / name / "dev.jsonl").write_text("".join(lines), encoding="utf-8")
    return folder


def outputs(path: Path, sources: Sequence[str], say: str = "{} is late", **actions: str) -> Path:
    rows = [{"source": text, "output": say.format(text), **actions} for text in sources]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def every_source(data: Path) -> list[str]:
    return [
        json.loads(line)["toxic"]
        for name in ("everyday", "paradetox")
        for line in (data / name / "dev.jsonl").read_text(encoding="utf-8").splitlines()
    ]


def fill(
    sheet: Path, target: Path, ratings: Mapping[str, str] | None = None, *, delimiter: str = ","
) -> Path:
    """A copy in which every row is accepted but those whose output is named."""
    with sheet.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    with target.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter)
        for row in rows:
            if len(row) == 5 and row[0] != "id":
                row[3] = (ratings or {}).get(row[2], "accept")
            writer.writerow(row)
    return target


class Strict:
    def detect(self, texts: Sequence[str]) -> list[Verdict]:
        return [self._judged(text) for text in texts]

    def _judged(self, text: str) -> Verdict:
        place = text.find("rotten")
        spans = () if place < 0 else (Span(place, place + 6),)
        return Verdict(scores={"toxicity": float(place >= 0)}, flagged=place >= 0, spans=spans)


class Softener:
    def rewrite(self, segments: Sequence[str], n: int) -> list[list[str]]:
        return [[segment.replace("rotten", "late")] for segment in segments]


class Alike:
    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        return [[1.0, 0.0] for _ in texts]


def small_guard() -> Guard:
    return Guard(detector=Strict(), lexicon=Strict(), rewriter=Softener(), embedder=Alike())


def test_a_real_guard_answers_with_its_outputs_and_actions() -> None:
    found = guarded("ours", small_guard(), ["The bus is rotten.", "The bus is here."], made_of={})
    assert found.outputs == ("The bus is late.", "The bus is here.")
    assert found.actions == (REWRITTEN, PASSED)


def test_a_guard_whose_models_fail_gives_no_figures() -> None:
    def broken(segments: Sequence[str], n: int) -> list[list[str]]:
        raise RuntimeError("no")

    guard = Guard(detector=Strict(), lexicon=Strict(), rewriter=broken, embedder=Alike())
    with pytest.raises(UsageError, match="did not run with all its models"):
        guarded("ours", guard, ["The bus is rotten."], made_of={})


def test_sets_have_the_sizes_asked_for_and_each_sentence_comes_once(data: Path) -> None:
    found = draw(data, AcceptanceSettings(systems=("a=",), everyday=4, paradetox=2, register=5))
    texts = [sentence.text for sentence in found]
    assert len(set(texts)) == len(texts)
    sizes = {
        name: sum(name in each.sets for each in found)
        for name in ("everyday", "paradetox", "register: daily", "register: social")
    }
    assert sizes == {"everyday": 4, "paradetox": 2, "register: daily": 5, "register: social": 3}


def test_the_same_seed_draws_the_same_sentences(data: Path) -> None:
    settings = AcceptanceSettings(systems=("a=",), everyday=4, paradetox=2, register=0)
    assert draw(data, settings) == draw(data, settings)


TEXTS = st.text(min_size=1, max_size=12)
ANSWERS = st.lists(st.tuples(TEXTS, st.sampled_from(Action)), min_size=3, max_size=3)


@given(
    systems=st.lists(ANSWERS, min_size=1, max_size=4),
    names=st.permutations(["x", "yy", "zzz", "q"]),
    data=st.data(),
)
def test_no_byte_of_a_sheet_depends_on_which_system_said_what(
    systems: list[list[tuple[str, Action]]],
    names: list[str],
    data: st.DataObject,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    sentences = [HostileSentence(text, ("everyday",)) for text in ("a b", "c d", "e f")]
    folder = tmp_path_factory.mktemp("sheets")

    def sheet(order: Sequence[int], called: Sequence[str], suffix: str) -> bytes:
        answers = [
            SystemAnswers(called[place], *(tuple(side) for side in zip(*systems[place], strict=True)), {})
            for place in order
        ]
        items, _ = items_of(sentences, answers, seed=5)
        write_items(folder / f"sheet{suffix}", items)
        return (folder / f"sheet{suffix}").read_bytes()

    order = data.draw(st.permutations(range(len(systems))))
    for suffix in (".csv", ".jsonl"):
        plain = sheet(range(len(systems)), ["a", "b", "c", "d"], suffix)
        assert sheet(order, names, suffix) == plain


@given(systems=st.lists(ANSWERS, min_size=1, max_size=4))
def test_every_rewrite_is_in_the_sheet_once_and_nothing_else(systems: list[list[tuple[str, Action]]]) -> None:
    sentences = [HostileSentence(text, ("everyday",)) for text in ("a b", "c d", "e f")]
    answers = [
        SystemAnswers(str(place), *(tuple(side) for side in zip(*said, strict=True)), {})
        for place, said in enumerate(systems)
    ]
    items, releases = items_of(sentences, answers, seed=5)
    rewritten = {
        (sentences[n].text, text)
        for said in systems
        for n, (text, action) in enumerate(said)
        if action is REWRITTEN
    }
    assert {(item.source, item.output) for item in items} == rewritten
    assert len(items) == len(rewritten)
    assert {each.id for each in releases} - {None} == {item.id for item in items}


def test_a_sheet_opens_with_the_rule_and_names_no_system(data: Path, tmp_path: Path) -> None:
    ready = outputs(tmp_path / "ready.jsonl", every_source(data))
    sheet = run(AcceptanceSettings(systems=(f"secret={ready}",), data=str(data), out=str(tmp_path / "out")))
    text = sheet.read_text(encoding="utf-8")
    assert text.startswith('"# A rewrite is accepted if')
    assert "secret" not in text
    assert "ready" not in text


def test_a_formula_in_an_output_does_not_run_in_a_spreadsheet(tmp_path: Path) -> None:
    write_items(tmp_path / "sheet.csv", [SheetItem("1", "=A1", "@b")])
    assert "1,'=A1,'@b,," in (tmp_path / "sheet.csv").read_text(encoding="utf-8")


def written(data: Path, tmp_path: Path, *, sheet: str = "acceptance.csv") -> Path:
    """A sheet of two systems: one releases everything, the other masks all sentences of the paradetox set."""
    sources = every_source(data)
    first = outputs(tmp_path / "first.jsonl", sources)
    rows = [
        {
            "source": text,
            "output": f"{text} runs late",
            "action": "masked" if "train" in text else "rewritten",
        }
        for text in sources
    ]
    (tmp_path / "second.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    systems = (f"one={first}", f"two={tmp_path / 'second.jsonl'}")
    return run(AcceptanceSettings(systems=systems, data=str(data), out=str(tmp_path / "out"), sheet=sheet))


def test_ratings_come_back_as_shares_of_each_system_and_set(data: Path, tmp_path: Path) -> None:
    sheet = written(data, tmp_path)
    bad = {"the rotten train 0 is late": "turned", "the rotten train 1 is late": "hostile"}
    ratings = tuple(str(fill(sheet, tmp_path / name, bad)) for name in ("anna.csv", "ben.csv"))
    path = run(AcceptanceSettings(ratings=ratings, out=str(tmp_path / "out")))
    result = json.loads(path.read_text(encoding="utf-8"))
    by_set = {(each["system"], each["name"]): each for each in result["figures"]}
    trains = by_set["one", "paradetox"]
    assert trains["accepted"]["value"] == pytest.approx(3 / 5)
    assert trains["wrong"]["value"] == pytest.approx(2 / 5)
    assert trains["turned"]["value"] == trains["hostile"]["value"] == pytest.approx(1 / 5)
    assert by_set["two", "paradetox"]["actions"]["masked"]["value"] == 1
    assert by_set["one", "everyday"]["lossy"]["n"] == 2
    assert by_set["one", "everyday"]["rewritable"]["n"] == 7
    assert result["agreement"]["verdict"] == 1
    assert set(result["files"]) == {"anna.csv", "ben.csv", "acceptance.key.json"}
    assert result["sheet"]["settings"]["seed"] == 13
    table = path.with_suffix(".md").read_text(encoding="utf-8")
    assert "| one | paradetox | 5 | 100.0 [56.6, 100.0] |" in table


def test_a_difference_is_paired_over_the_sentences_of_a_set() -> None:
    sentences = [HostileSentence(str(n), ("everyday",)) for n in range(4)]
    answers = [
        SystemAnswers("one", ("a", "b", "c", "d"), (REWRITTEN,) * 4, {}),
        SystemAnswers("two", ("a", "x", "y", "z"), (REWRITTEN, REWRITTEN, MASKED, PASSED), {}),
    ]
    items, releases = items_of(sentences, answers, seed=1)
    ratings = {item.id: "form" if item.output == "x" else "accept" for item in items}
    (found,) = differences_of(Key(sentences, releases, {}), ratings, seed=1)
    assert found.accepted.value == pytest.approx(3 / 4)
    assert found.wrong.value == pytest.approx(-1 / 4)


def test_what_is_not_flagged_is_missed_and_in_no_share_of_the_flagged() -> None:
    sentences = [HostileSentence(str(n), ("everyday",)) for n in range(4)]
    answers = [SystemAnswers("one", ("a", "b", "c", "d"), (REWRITTEN, PASSED, PASSED, MASKED), {})]
    items, releases = items_of(sentences, answers, seed=1)
    (found,) = figures_of(Key(sentences, releases, {}), {item.id: "accept" for item in items})
    assert (found.flagged.value, found.missed.value) == (0.5, 0.5)
    assert found.accepted is not None
    assert (found.accepted.value, found.accepted.n) == (0.5, 2)


def test_readers_who_differ_leave_a_sheet_for_a_third_who_settles(data: Path, tmp_path: Path) -> None:
    sheet = written(data, tmp_path)
    out = str(tmp_path / "out")
    disputed = "the rotten train 0 is late"
    first = str(fill(sheet, tmp_path / "anna.csv", {disputed: "form"}))
    second = str(fill(sheet, tmp_path / "ben.csv", {disputed: "turned"}))
    result = json.loads(run(AcceptanceSettings(ratings=(first, second), out=out)).read_text(encoding="utf-8"))
    assert len(result["open"]) == 1
    open_figures = next(each for each in result["figures"] if each["name"] == "paradetox")
    assert open_figures["turned"]["value"] == pytest.approx(1 / 5)

    third = fill(tmp_path / "out" / "settle.csv", tmp_path / "cleo.csv", {disputed: "accept"})
    settings = AcceptanceSettings(ratings=(first, second), settled=str(third), out=out)
    result = json.loads(run(settings).read_text(encoding="utf-8"))
    assert result["open"] == []
    settled = next(each for each in result["figures"] if each["name"] == "paradetox")
    assert settled["accepted"]["value"] == 1


def test_agreement_beyond_chance_is_cohens_kappa() -> None:
    first = ReaderRatings(dict(zip("abcd", ["accept", "accept", "form", "form"], strict=True)), {})
    second = ReaderRatings(dict(zip("abcd", ["accept", "form", "form", "form"], strict=True)), {})
    found = agreement_of(first, second)
    assert found.verdict == found.rating == 0.75
    assert found.rating_kappa == pytest.approx((0.75 - 0.5) / (1 - 0.5))


def test_agreement_of_readers_who_say_one_thing_throughout_has_no_kappa() -> None:
    reading = ReaderRatings({"a": "accept", "b": "accept"}, {})
    assert agreement_of(reading, reading).rating_kappa is None


def test_a_sheet_without_a_release_is_read_without_agreement(data: Path, tmp_path: Path) -> None:
    ready = outputs(tmp_path / "masked.jsonl", every_source(data), action="masked")
    out = str(tmp_path / "out")
    sheet = run(AcceptanceSettings(systems=(f"one={ready}",), data=str(data), out=out))
    filled = str(fill(sheet, tmp_path / "anna.csv"))
    result = json.loads(
        run(AcceptanceSettings(ratings=(filled, filled), out=out)).read_text(encoding="utf-8")
    )
    assert result["agreement"]["verdict"] is None
    assert result["figures"][0]["accepted"]["value"] == 0


@pytest.mark.parametrize("order", [1, -1])
def test_without_a_third_the_worse_rating_counts(order: int) -> None:
    said = ["accept", "dropped"][::order]
    found = settle(ReaderRatings({"a": said[0]}, {}), ReaderRatings({"a": said[1]}, {}), None)
    assert found.ratings == {"a": "dropped"}
    assert found.open == ("a",)


def test_a_sheet_in_json_lines_is_read_back(data: Path, tmp_path: Path) -> None:
    sheet = written(data, tmp_path, sheet="acceptance.jsonl")
    rows = [json.loads(line) for line in sheet.read_text(encoding="utf-8").splitlines()]
    filled = tmp_path / "anna.jsonl"
    lines = [json.dumps(row if "#" in row else {**row, "rating": "accept"}) for row in rows]
    filled.write_text("\n".join(lines), encoding="utf-8")
    key = Key.load(tmp_path / "out" / "acceptance.key.json")
    assert set(read_ratings(filled, key).ratings) == key.ids


def test_a_sheet_that_a_spreadsheet_saved_with_semicolons_is_read_back(data: Path, tmp_path: Path) -> None:
    sheet = written(data, tmp_path)
    key = Key.load(tmp_path / "out" / "acceptance.key.json")
    assert set(read_ratings(fill(sheet, tmp_path / "anna.csv", delimiter=";"), key).ratings) == key.ids


def broken(sheet: Path, target: Path, old: str, new: str) -> Path:
    target.write_text(sheet.read_text(encoding="utf-8").replace(old, new, 1), encoding="utf-8")
    return target


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("accept,", "fine,", "rating is 'fine'; it must be one of accept, hostile"),
        ("accept,", ",", "rating is empty"),
        (",rating,", ",grade,", "missing columns rating"),
    ],
)
def test_a_sheet_that_is_filled_wrongly_says_where_and_what_to_do(
    data: Path, tmp_path: Path, old: str, new: str, message: str
) -> None:
    filled = fill(written(data, tmp_path), tmp_path / "anna.csv")
    key = Key.load(tmp_path / "out" / "acceptance.key.json")
    with pytest.raises(UsageError, match=message):
        read_ratings(broken(filled, tmp_path / "broken.csv", old, new), key)


def test_a_sheet_that_lacks_a_row_is_an_error_that_names_it(data: Path, tmp_path: Path) -> None:
    filled = fill(written(data, tmp_path), tmp_path / "anna.csv")
    lines = filled.read_text(encoding="utf-8").splitlines(keepends=True)
    filled.write_text("".join(lines[:-1]), encoding="utf-8")
    key = Key.load(tmp_path / "out" / "acceptance.key.json")
    with pytest.raises(UsageError, match=f"lacks 1 of .* {lines[-1].split(',')[0]}"):
        read_ratings(filled, key)


def test_a_row_that_is_there_twice_is_an_error(data: Path, tmp_path: Path) -> None:
    filled = fill(written(data, tmp_path), tmp_path / "anna.csv")
    text = filled.read_text(encoding="utf-8")
    filled.write_text(text + text.splitlines(keepends=True)[-1], encoding="utf-8")
    key = Key.load(tmp_path / "out" / "acceptance.key.json")
    with pytest.raises(UsageError, match="is there twice"):
        read_ratings(filled, key)


def test_the_key_of_another_sheet_is_an_error(data: Path, tmp_path: Path) -> None:
    filled = fill(written(data, tmp_path), tmp_path / "anna.csv")
    with pytest.raises(UsageError, match="the key of another sheet"):
        read_ratings(filled, Key((), (), {}))


def test_ready_outputs_that_lack_a_sentence_are_an_error(data: Path, tmp_path: Path) -> None:
    ready = outputs(tmp_path / "ready.jsonl", every_source(data)[1:])
    settings = AcceptanceSettings(systems=(f"one={ready}",), data=str(data), out=str(tmp_path))
    with pytest.raises(UsageError, match="lacks 1 of 14 sentences"):
        run(settings)


def test_an_unknown_action_of_ready_outputs_is_an_error(data: Path, tmp_path: Path) -> None:
    ready = outputs(tmp_path / "ready.jsonl", every_source(data), action="improved")
    settings = AcceptanceSettings(systems=(f"one={ready}",), data=str(data), out=str(tmp_path))
    with pytest.raises(UsageError, match="row 1: action must be one of passed, rewritten"):
        run(settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "needs one of systems"),
        ({"systems": ("a=",), "ratings": ("x", "y")}, "needs one of systems"),
        ({"ratings": ("x",)}, "two filled copies"),
        ({"systems": ("a",)}, "NAME=PLACE"),
        ({"systems": ("a=", "a=b")}, "same name"),
        ({"systems": ("a=",), "everyday": -1}, "0 or more"),
        ({"systems": ("a=",), "sheet": "sheet.xlsx"}, "must end with"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        AcceptanceSettings(**settings)  # type: ignore[arg-type]  # wrong on purpose


def test_every_rating_is_explained_on_the_sheet(tmp_path: Path) -> None:
    write_items(tmp_path / "sheet.csv", [])
    text = (tmp_path / "sheet.csv").read_text(encoding="utf-8")
    assert all(f"{word} (" in text for word in RATINGS)


def test_summaries_have_a_rule_of_their_own_and_come_from_generated_samples(tmp_path: Path) -> None:
    (tmp_path / "dialogsum").mkdir()
    dialogues = ["#A#: hi #B#: bye", "#A#: when? #B#: at 5"]
    rows = [json.dumps({"dialogue": text}) + "\n" for text in dialogues]
    (tmp_path / "dialogsum" / "dev.jsonl").write_text("".join(rows), encoding="utf-8")
    samples = [
        Sample(
            place + 1,
            text,
            (),
            {name: SampledResponse(f"{name} {place}", 3, True, 0.0, {}) for name in ("zero-shot", "trained")},
        )
        for place, text in enumerate(dialogues)
    ]
    write_samples(tmp_path / "samples.jsonl", samples)
    place, out = tmp_path / "samples.jsonl", str(tmp_path / "out")

    def settings(*systems: str) -> AcceptanceSettings:
        return AcceptanceSettings(
            systems=systems,
            task="summary",
            texts="dialogsum/dev.jsonl",
            field="dialogue",
            data=str(tmp_path),
            out=out,
        )

    sheet = run(settings(f"before={place}#zero-shot", f"after={place}#trained"))

    text = sheet.read_text(encoding="utf-8")
    assert text.startswith('"# A summary is accepted if')
    assert "trained 1" in text
    ratings = tuple(str(fill(sheet, tmp_path / name, {})) for name in ("anna.csv", "ben.csv"))
    result = json.loads(run(AcceptanceSettings(ratings=ratings, out=out)).read_text())
    assert result["rule"][0].startswith("A summary is accepted")
    assert {(each["system"], each["name"], each["sentences"]) for each in result["figures"]} == {
        ("before", "dialogsum", 2),
        ("after", "dialogsum", 2),
    }
    with pytest.raises(UsageError, match="lacks 2 of 2 sentences"):
        run(settings(f"before={place}#start"))
