"""The page about a run: whole in itself, safe to open, complete, and clear where files are broken."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from guardrail.errors import UsageError
from guardrail_training.cli import app
from guardrail_training.metrics.statistics import Mean
from guardrail_training.report.charts import CHARTS, charts_of
from guardrail_training.report.drawing import DARK, LIGHT, bars, curves, histogram, smoothing_window
from guardrail_training.report.numbers import duration, number, percent, signed
from guardrail_training.report.page import page_of, template
from guardrail_training.report.run import Series, read_run
from guardrail_training.report.samples import sorted_by_difference, worst_cases
from guardrail_training.report.tables import Cell, table
from guardrail_training.report.write import write_report

VOID = frozenset({"meta", "link", "br", "img", "input", "hr", "source"})
IMAGE = "data:image/svg+xml;base64,"


def decoded(address: str | None) -> str:
    """The image that an address holds."""
    return base64.b64decode((address or "").removeprefix(IMAGE)).decode()


def texts(svg: str) -> list[str]:
    """What stands in an image."""
    return [node.text or "" for node in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


class Page(HTMLParser):
    """What a browser would find: tags with attributes, the text inside each kind of element."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.inside: list[str] = []
        self.texts: list[tuple[frozenset[str], str]] = []
        self.feed(content)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self.inside and self.inside.pop() != tag:
            pass

    def handle_data(self, text: str) -> None:
        self.texts.append((frozenset(self.inside), text))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    def text_in(self, tag: str) -> str:
        return "".join(text for inside, text in self.texts if tag in inside)

    def text_outside(self, tag: str) -> str:
        return "".join(text for inside, text in self.texts if tag not in inside and "style" not in inside)


@pytest.fixture(scope="module")
def found(content: bytes) -> Page:
    """The page, as a browser would read it."""
    return Page(content.decode())


def page(folder: Path) -> Page:
    return Page(page_of(read_run(folder), rows=100).decode())


def rewrite_samples(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = folder / "samples.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        change(row)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_the_page_loads_nothing_and_runs_nothing(found: Page) -> None:
    foreign = {"script", "link", "iframe", "object", "base", "form", "svg"}
    assert {tag for tag, _ in found.tags} & foreign == set()
    for _, attributes in found.tags:
        assert not {name for name in attributes if name.startswith("on") or name == "style"}
        assert (attributes.get("href") or "#").startswith("#")
        for name in ("src", "srcset"):
            assert (attributes.get(name) or IMAGE).startswith(IMAGE)


def test_the_policy_allows_the_pages_own_style_and_drawings_alone(found: Page) -> None:
    (policy,) = [each["content"] for each in found.all("meta") if "http-equiv" in each]
    digest = base64.b64encode(hashlib.sha256(found.text_in("style").encode()).digest()).decode()
    assert policy == (
        f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"
    )
    assert "url(" not in found.text_in("style")


def test_every_drawing_is_there_for_both_themes_and_says_what_it_shows(found: Page) -> None:
    ids = Counter(attributes["id"] for _, attributes in found.tags if "id" in attributes)
    assert max(ids.values()) == 1
    images, sources = found.all("img"), found.all("source")
    assert len(images) == len(sources) > 20
    for image, source in zip(images, sources, strict=True):
        light, dark = decoded(image["src"]), decoded(source["srcset"])
        assert source["media"] == "(prefers-color-scheme: dark)"
        assert LIGHT[0] in light
        assert LIGHT[0] not in dark
        assert DARK[0] in dark
        assert len(image["alt"] or "") > 10
    assert {(each["href"] or "").removeprefix("#") for each in found.all("a")} <= ids.keys()


def test_a_comparison_has_bars_of_its_means_and_histograms_by_judge_and_of_lengths(found: Page) -> None:
    titles = [(each["alt"] or "").partition(": ")[0] for each in found.all("img")]

    for title in (
        "Toxicity",
        "Closeness to the references",
        "Reward and its terms",
        "Toxicity by b-words",
        "Length of responses",
    ):
        assert title in titles


def test_no_axis_has_an_offset_or_a_factor(content: bytes) -> None:
    series = Series(steps=tuple(range(1, 9)), values=tuple(0.2 + 1e-5 * step for step in range(8)))
    tiny = Series(steps=series.steps, values=tuple(1.4e-5 * step for step in range(8)))

    for one, ticks in ((series, r"0\.[12]\d*"), (tiny, r"0|\d(\.\d+)?e-5|0\.0001")):
        words = texts(curves({"a": one}, unit="nats").light)
        numbers = [word for word in words if word not in ("step", "nats")]
        vertical = numbers[-sum(not word.isdecimal() for word in numbers) :]
        assert all(re.fullmatch(ticks, word) for word in vertical), words
        assert len(set(words)) == len(words)
        assert not any("+" in word or "\N{MULTIPLICATION SIGN}" in word for word in words)


def test_a_long_course_is_smoothed_and_says_over_how_many() -> None:
    series = Series(steps=tuple(range(200)), values=tuple(float(step % 7) for step in range(200)))

    assert smoothing_window(59) == 1
    assert smoothing_window(200) == 10
    assert "loss, mean of 10" in texts(curves({"loss": series}, unit="nats").light)


def test_every_table_has_a_caption_and_headers_of_rows_and_columns(content: bytes) -> None:
    for found in re.findall(r"<table>.*?</table>", content.decode(), flags=re.DOTALL):
        assert "<caption>" in found
        assert 'scope="col"' in found
        assert found.count('scope="row"') == found.split("<tbody>")[1].count("<tr>")


def test_known_charts_come_under_their_titles_and_every_figure_in_the_table(
    found: Page, finished_run: Path
) -> None:
    shown = found.text_in("h3")
    for title in (
        "Reward",
        "KL divergence",
        "Returns and values",
        "Length of responses",
        "Toxicity by b-words",
    ):
        assert title in shown
    for name in read_run(finished_run).series:
        assert name in found.text_in("table")


def test_texts_stand_behind_a_warning_and_are_folded_away(found: Page, finished_run: Path) -> None:
    samples = read_run(finished_run).generation.samples  # type: ignore[union-attr]  # the run has samples

    assert "Expect toxic" in found.text_outside("details")
    assert not any("open" in each for each in found.all("details"))
    folded, open_to_all = found.text_in("details"), found.text_outside("details")
    for sample in samples:
        assert sample.query in folded
        assert sample.query not in open_to_all
        assert all(output.response in folded for output in sample.outputs.values())


def test_samples_are_sorted_by_difference_and_the_worst_by_reward(finished_run: Path) -> None:
    generation = read_run(finished_run).generation
    assert generation is not None

    differences = [generation.difference(sample) for sample in sorted_by_difference(generation)]
    worst = [sample.outputs["trained"].reward for sample in worst_cases(generation)]
    assert differences == sorted(differences, reverse=True)
    assert worst == sorted(sample.outputs["trained"].reward for sample in generation.samples)[:10]


def test_the_table_of_samples_is_as_long_as_asked(finished_run: Path, tmp_path: Path) -> None:
    content = write_report(finished_run, out=tmp_path / "deep" / "page.html", rows=3).read_text()

    assert "Samples by difference in reward (3 of 12)" in content
    assert content.count('class="said"') == (3 + 10) * 4  # query, before, after, reference


def test_settings_versions_seeds_and_hashes_are_on_the_page(found: Page, finished_run: Path) -> None:
    run = read_run(finished_run)
    told = found.text_in("main")
    assert run.manifest is not None
    assert run.generation is not None

    hashes = [
        *run.manifest.files.values(),
        *run.generation.comparison.data.values(),
        run.manifest.data[0]["sha256"],
    ]
    for expected in (*hashes, run.manifest.trained_on, *run.versions.values(), *run.settings):
        assert str(expected) in told
    assert str(Path(run.settings["base"]).parent) not in told


def test_the_page_says_how_long_where_and_by_which_command(run_copy: Path) -> None:
    path = run_copy / "run.json"
    noted = json.loads(path.read_text())
    assert noted["seconds"] > 0
    noted |= {
        "seconds": 750.0,
        "command": "guardrail-train ppo --data 'a folder'",
        "processor": "2 x Model T",
    }
    path.write_text(json.dumps(noted))

    found = page(run_copy)

    assert "guardrail-train ppo --data 'a folder'" in found.text_in("pre")
    assert "12 min 30 s" in found.text_in("dl")
    assert "tokens per second" in found.text_in("dl")
    assert "2 x Model T" in found.text_in("header")


def test_what_readers_accepted_is_a_table_with_intervals(run_copy: Path) -> None:
    rate = {"value": 0.625, "low": 0.31, "high": 0.86, "n": 8}
    figures = [
        {
            "system": "ours",
            "name": "everyday",
            "sentences": 9,
            "accepted": rate,
            "wrong": None,
            "missed": rate,
        }
    ]
    content = {"figures": figures, "agreement": {"rows": 8, "verdict_kappa": 0.75}}
    (run_copy / "acceptance.json").write_text(json.dumps(content))

    tables = page(run_copy).text_in("table")

    assert "62.5 %[31.0 %, 86.0 %]" in tables
    assert "kappa 0.75 over 8 rows" in tables
    (run_copy / "acceptance.json").write_text("{}")
    with pytest.raises(UsageError, match=r"acceptance\.json holds no ratings"):
        read_run(run_copy)


def test_hostile_texts_and_names_stay_text(run_copy: Path) -> None:
    hostile = (
        "</style></details><script>alert(1)</script><img src=x onerror=alert(2)>\x00\x1b\ud800 \u202e&amp;"
    )

    def poison(row: dict[str, Any]) -> None:
        row["query"] = hostile
        row["references"] = [hostile]
        for output in row["outputs"].values():
            output["response"] = hostile

    rewrite_samples(run_copy, poison)
    settings = json.loads((run_copy / "run.json").read_text())
    settings["settings"]["name"] = hostile
    (run_copy / "run.json").write_text(json.dumps(settings))
    with (run_copy / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 5, hostile: 1.0, "$\\frac{": 2.0, "reward/<b>\x00": 0.5}) + "\n")

    found = page(run_copy)

    assert {"script", "b"} & {tag for tag, _ in found.tags} == set()
    assert all((each["src"] or "").startswith(IMAGE) for each in found.all("img"))
    assert "<script>alert(1)</script>" in found.text_in("details")


@given(text=st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_any_text_comes_out_of_the_page_as_it_went_in(text: str) -> None:
    row = [Cell(text, kind="said"), Cell("1", below=text), text]
    shown = table(["a", "b", "c"], [row], caption=text)

    found = Page(str(template("parts.html").module.show_table(shown)))

    assert found.text_in("span") == found.text_in("small") == found.text_in("caption") == text
    assert found.all("div")[0]["aria-label"] == text


def test_a_run_under_way_without_samples_says_how_to_take_them(run_copy: Path) -> None:
    for name in ("generation.json", "samples.jsonl"):
        (run_copy / name).unlink()
    for folder in run_copy.glob("step-*"):
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
    lines = (run_copy / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run_copy / "metrics.jsonl").write_text("".join(lines[:1]))

    told = page(run_copy).text_in("body")

    assert "step 1 of 4" in told
    assert "guardrail-train evaluate generation" in told
    assert "the run has not kept an adapter yet" in told


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("run.json", None, "run.json not found: a run's folder holds run.json and metrics.jsonl"),
        ("run.json", '{"settings": zebra', "run.json is not valid JSON at line 1 column 14"),
        ("run.json", "[]", "run.json must hold a JSON object, got list"),
        ("run.json", "{}", "run.json has no object 'settings'"),
        ("run.json", b"\xff\xfe", "run.json is not UTF-8"),
        ("metrics.jsonl", None, "metrics.jsonl not found"),
        ("metrics.jsonl", "", "metrics.jsonl holds no rows"),
        ("metrics.jsonl", '{"step": 1}\n', "metrics.jsonl holds no figures"),
        ("metrics.jsonl", '{"step": 1, "loss": 2}\n{"loss": "zebra', "metrics.jsonl row 2: not JSON"),
        ("metrics.jsonl", '{"loss": 1}\n', "metrics.jsonl row 1: missing field 'step'"),
        ("metrics.jsonl", '{"step": 1, "loss": "zebra"}\n', "metrics.jsonl row 1: 'loss' must be a number"),
        ("generation.json", None, "generation.json not found: run 'guardrail-train evaluate generation'"),
        ("generation.json", "{}", "generation.json holds no comparison of models"),
        ("generation.json", '{"zebra": ', "generation.json holds no comparison of models"),
        ("samples.jsonl", None, "samples.jsonl not found"),
        (
            "samples.jsonl",
            '{"row": 1, "query": "zebra"}\n',
            "samples.jsonl row 1: missing field 'references'",
        ),
        (
            "samples.jsonl",
            '{"row": 1, "query": "zebra", "references": [], "outputs": {"trained": {"response": 1}}}\n',
            "samples.jsonl row 1: an output has no 'response'",
        ),
        ("step-4/manifest.json", "zebra", "manifest.json"),
    ],
)
def test_a_broken_file_is_one_line_that_names_it_and_quotes_nothing(
    run_copy: Path, name: str, content: str | bytes | None, said: str
) -> None:
    path = run_copy / name
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())

    done = CliRunner().invoke(app, ["report", str(run_copy)])

    assert done.exit_code in (1, 2), done.output
    assert said in done.output
    assert "zebra" not in done.output
    assert done.output.count("\n") == 1
    assert not (run_copy / "report.html").exists()


def test_samples_of_another_comparison_are_refused(run_copy: Path) -> None:
    def rename(row: dict[str, Any]) -> None:
        row["outputs"] = {"other": row["outputs"]["trained"]}

    rewrite_samples(run_copy, rename)

    with pytest.raises(UsageError, match=r"samples.jsonl does not belong to generation.json"):
        read_run(run_copy)


def test_no_folder_and_no_rows_are_clear_errors(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="it is not a folder; give the folder that a trainer wrote"):
        write_report(tmp_path / "absent")
    with pytest.raises(UsageError, match="rows must be at least 1, got 0"):
        write_report(tmp_path, rows=0)


def test_the_command_writes_the_page_of_a_run_the_same_to_the_byte(
    finished_run: Path, content: bytes, tmp_path: Path
) -> None:
    out = tmp_path / "page.html"

    done = CliRunner().invoke(app, ["report", str(finished_run), "--out", str(out)])

    assert done.exit_code == 0, done.output
    assert done.output == f"written to {out}\n"
    assert content == out.read_bytes()


names = st.sampled_from(
    [name for chart in CHARTS for name in (*chart.names, *(spread for _, spread in chart.spreads))]
    + ["reward/a", "time/b", "other", "x/y"]
)


@given(logged=st.lists(names, unique=True))
def test_every_logged_figure_is_in_exactly_one_chart(logged: list[str]) -> None:
    known, others = charts_of(logged)

    shown = [name for chart in (*known, *others) for name in chart.names]
    spreads = [name for chart in known for of, name in chart.spreads if of in logged and name in logged]
    assert sorted([*shown, *spreads]) == sorted(logged)


@pytest.mark.parametrize(
    "values",
    [
        (1.0,),
        (float("nan"),),
        (1.0, float("nan"), float("inf"), 2.0),
        tuple(0.1 * step for step in range(200)),
        (0.0, 0.0),
    ],
)
def test_any_course_of_figures_can_be_drawn(values: tuple[float, ...]) -> None:
    series = Series(steps=tuple(range(1, len(values) + 1)), values=values)

    drawing = curves({"a": series, "b": series}, unit="nats", spreads={"a": series}, level=6.0)

    window = f", mean of {len(values) // 20}" if len(values) >= 60 else ""
    for image in (drawing.light, drawing.dark):
        assert {f"a{window}", f"b{window}", "target 6", "nats", "step"} <= set(texts(image))


def test_equal_values_and_means_at_an_interval_s_edge_can_be_drawn() -> None:
    flat = {"before": [0.5, 0.5], "after": [0.5, 0.5]}

    assert "tokens" in texts(histogram(flat, unit="tokens", bounds=(0.0, 1.0)).light)
    assert "x" in texts(bars({"one": {"x": Mean(value=0.5, low=0.6, high=0.4, n=2)}}).light)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "–"),
        (0.0, "0"),
        (-0.0, "0"),
        (12, "12"),
        (-0.12345, "−0.123"),
        (1.41e-5, "1.41e−05"),
        (12.188, "12.19"),
        (float("nan"), "nan"),
        (float("-inf"), "−inf"),
    ],
)
def test_numbers_are_short_and_legible(value: float | None, shown: str) -> None:
    assert number(value) == shown


@pytest.mark.parametrize(
    ("seconds", "said"), [(4.2, "4.2 s"), (59.96, "60.0 s"), (750, "12 min 30 s"), (3900.4, "1 h 05 min")]
)
def test_durations_are_said_as_people_say_them(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_changes_carry_their_sign() -> None:
    assert (percent(-0.247), percent(0.5), percent(None)) == ("−24.7 %", "+50.0 %", "–")
    assert signed(-0.5) == "−0.500"
