"""The playground in headless Chromium: what it shows, what it never runs, and that no mouse is needed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver import Chrome, Keys
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.support.ui import WebDriverWait

from guardrail import Policy
from guardrail.audit.database import Database
from guardrail.integrations.audit.routes import audit_routes
from guardrail.integrations.openai_server import Keys as ServerKeys
from guardrail.integrations.openai_server import create_app
from guardrail.integrations.web.auth import Reviewers
from tests.fakes import WordRewriter
from tests.integrations.server.browser import CONTRASTS, Playground, chromium
from tests.integrations.server.running import CLEAN, MENDED, PROXY_KEY, TOXIC, fake_guard, proxy, serving
from tests.waiting import PATIENCE

pytestmark = pytest.mark.browser

XSS = (
    "<script>window.hit = 1</script><img src=x onerror='window.hit = 1'>"
    '"><svg onload=window.hit=1> ${window.hit = 1} javascript:window.hit=1'
)
CONTRAST = 4.5


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    with chromium(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_PROXY", "127.0.0.1,localhost")
        with proxy() as url:
            yield url


def complaints(driver: Chrome) -> list[str]:
    """What the browser has complained of since it was last asked."""
    entries: Any = driver.get_log("browser")  # type: ignore[no-untyped-call]
    return [entry["message"] for entry in entries if entry["level"] == "SEVERE"]


@pytest.fixture
def page(driver: Chrome, address: str) -> Iterator[Playground]:
    complaints(driver)  # of an earlier test
    yield Playground(driver, address)
    assert complaints(driver) == []


def test_the_diff_shows_what_was_taken_out_and_what_stands_instead(page: Playground) -> None:
    page.check(f"{CLEAN} {TOXIC} 😀 {CLEAN}")
    assert page.content("before") == f"{CLEAN} {TOXIC} 😀 {CLEAN}"
    assert page.content("after") == f"{CLEAN} {MENDED} 😀 {CLEAN}"
    assert page.texts("#before del") == ["idiot."]
    assert page.texts("#after ins") == ["person."]
    assert page.element("status").text == "Changed 1 of 3 sentences: 1 rewritten."


def test_every_sentence_has_its_score_and_what_was_done(page: Playground) -> None:
    page.check(f"{CLEAN} {TOXIC}")
    assert page.texts(".sentence") == [CLEAN, TOXIC]
    assert page.texts("#sentences .badge") == ["passed", "rewritten"]
    assert page.texts("summary .number") == ["0.01", "0.90"]
    meters = [float(meter.get_attribute("value") or 0) for meter in page.elements("meter")]
    assert meters == [0.01, 0.9]
    why = "A rewrite was refused because it still reads as toxic"
    assert page.texts(".why p")[0].startswith(why)
    assert page.texts(".why p")[-1] == "A rewrite passed every check."
    page.elements(".why summary")[0].click()
    assert page.texts(".attempts .taken q") == [MENDED]
    assert page.texts(".why summary") == ["2 texts were tried"]


def test_clean_text_is_said_to_be_clean(page: Playground) -> None:
    page.check(CLEAN)
    assert page.content("after") == CLEAN
    assert page.elements("ins, del") == []
    assert "Nothing to change" in page.element("status").text


def test_the_policy_can_be_switched_and_is_applied_at_once(page: Playground) -> None:
    page.check(f"{TOXIC} {CLEAN}")
    radio = page.elements("input[name=ladder][value='mask,block']")[0]
    page.driver.execute_script("arguments[0].click()", radio)
    page.wait_for_result()
    assert page.texts("#after ins.masked") == ["i****."]
    radio = page.elements("input[name=ladder][value='block']")[0]
    page.driver.execute_script("arguments[0].click()", radio)
    page.wait_for_result()
    assert page.content("after").startswith("[withheld")
    assert page.texts("#before del") == [f"{TOXIC} {CLEAN}"]
    assert "Nothing behind the block is shown" in page.element("status").text
    assert page.texts("#sentences .badge") == ["blocked", "withheld"]


def test_the_threshold_can_be_moved_by_keys(page: Playground) -> None:
    page.check(TOXIC)
    assert not page.element("threshold").is_enabled()
    page.element("own-threshold").send_keys(Keys.SPACE)
    page.wait_for_result()
    page.element("threshold").send_keys(Keys.END)
    page.wait_for_result()
    assert page.element("threshold-value").text == "1.00"
    assert "Nothing to change" in page.element("status").text


def test_text_that_looks_like_markup_is_shown_and_never_run(page: Playground) -> None:
    page.check(f"{XSS} said the idiot. {XSS}")
    assert page.content("before").startswith(XSS)
    assert page.driver.execute_script("return window.hit") is None
    assert page.elements("main script, main svg, main img") == []


def test_the_policy_of_the_page_would_stop_a_script_that_got_in(page: Playground) -> None:
    script = """
        const made = document.createElement("div");
        try { made.innerHTML = "<img src=x onerror='window.hit = 1'>"; } catch (error) { return error.name; }
        document.body.append(made);
        return "set";
    """
    assert page.driver.execute_script(script) == "TypeError"
    wait: WebDriverWait[Chrome] = WebDriverWait(page.driver, PATIENCE)
    wait.until(lambda driver: "TrustedHTML" in "".join(complaints(driver)))


def test_everything_works_without_a_mouse_in_the_order_of_reading(page: Playground) -> None:
    def tab() -> str:
        ActionChains(page.driver).send_keys(Keys.TAB).perform()
        focused = page.driver.switch_to.active_element
        return focused.get_attribute("id") or focused.get_attribute("data-example") or focused.text

    assert [tab() for _ in range(2)] == ["Skip to the text", "text"]
    ActionChains(page.driver).send_keys(f"{CLEAN} {TOXIC}").perform()
    assert [tab() for _ in range(4)] == ["review", "reply", "quotation", ""]
    ActionChains(page.driver).send_keys(Keys.ARROW_RIGHT).perform()
    assert [tab() for _ in range(3)] == ["own-threshold", "paced", "submit"]
    ActionChains(page.driver).send_keys(Keys.ENTER).perform()
    page.wait_for_result()
    assert page.texts("#after ins.masked") == ["i****."]
    assert [tab() for _ in range(2)] == ["before", "after"]


def test_control_and_enter_check_the_text(page: Playground) -> None:
    page.element("text").send_keys(TOXIC)
    ActionChains(page.driver).key_down(Keys.CONTROL).send_keys(Keys.ENTER).key_up(Keys.CONTROL).perform()
    page.wait_for_result()
    assert page.content("after") == MENDED


def test_examples_are_checked_when_they_are_chosen(page: Playground) -> None:
    page.elements("[data-example=review]")[0].click()
    page.wait_for_result()
    assert "different person at the desk" in page.content("after")


def test_everything_has_a_name_and_what_changes_is_announced(page: Playground) -> None:
    page.check(f"{CLEAN} {TOXIC}")
    nodes: Any = page.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    shown = [node for node in nodes if not node.get("ignored")]

    def value(node: Any, field: str) -> str:
        return str(node.get(field, {}).get("value", ""))

    operable = ("button", "checkbox", "radio", "slider", "textbox", "meter", "DisclosureTriangle")
    names = {(value(node, "role"), value(node, "name")) for node in shown if value(node, "role") in operable}
    assert all(name for _, name in names), names
    assert ("textbox", "Text") in names
    assert ("slider", "Score from which a sentence is toxic") in names
    assert ("meter", "toxicity score") in names
    roles = {value(node, "role") for node in shown}
    assert {"status", "alert", "main", "deletion", "insertion", "list"} <= roles
    headings = [value(node, "name") for node in shown if value(node, "role") == "heading"]
    panels = ["Original", "Shown instead", "Sentences"]
    assert sorted(headings) == sorted(["guardrail playground", "Result", *panels, "The same from your code"])


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_stands_out_from_its_ground(page: Playground, scheme: str) -> None:
    feature = {"name": "prefers-color-scheme", "value": scheme}
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    page.check(f"{CLEAN} {TOXIC}")
    found: Any = page.driver.execute_script(CONTRASTS)
    assert len(found) > 20
    assert [pair for pair in found if pair[1] < CONTRAST] == []


def test_a_narrow_window_needs_no_sideways_scrolling(page: Playground) -> None:
    metrics = {"width": 320, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    page.check(f"{'x' * 200} {TOXIC}")
    width = page.driver.execute_script("return document.documentElement.scrollWidth")
    page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert width <= 320


def test_a_locked_server_asks_for_its_key(driver: Chrome) -> None:
    with proxy(keys=ServerKeys((PROXY_KEY,))) as url:
        page = Playground(driver, url)
        page.check(TOXIC)
        assert "This server is locked" in page.element("problem").text
        assert page.driver.switch_to.active_element.get_attribute("id") == "key"
        ActionChains(driver).send_keys(PROXY_KEY, Keys.ENTER).perform()
        page.wait_for_result()
        assert page.content("after") == MENDED
        assert page.driver.execute_script("return localStorage.length + document.cookie.length") == 0


def test_a_server_that_is_gone_is_told_and_no_old_result_stays(driver: Chrome) -> None:
    with proxy() as url:
        page = Playground(driver, url)
        page.check(TOXIC)
    page.check(CLEAN)
    assert page.element("problem").text == "The server does not answer."
    assert not page.element("result").is_displayed()


class SlowRewriter:
    """Rewrites once it is let to."""

    def __init__(self) -> None:
        self.may_go = threading.Semaphore(0)

    def rewrite(self, segments: Sequence[str], n: int) -> list[list[str]]:
        assert self.may_go.acquire(timeout=PATIENCE)
        return WordRewriter().rewrite(segments, n)


def test_sentences_are_shown_as_they_are_done_and_the_rest_can_be_cancelled(driver: Chrome) -> None:
    rewriter = SlowRewriter()
    guard = fake_guard(Policy(rewrite_timeout=PATIENCE), rewriter=rewriter)
    with proxy(guard=guard) as url:
        page = Playground(driver, url)
        driver.execute_script(
            "document.getElementById('text').value = arguments[0]", f"{TOXIC} {TOXIC} {CLEAN}"
        )
        page.element("submit").click()
        wait: WebDriverWait[Chrome] = WebDriverWait(driver, PATIENCE)
        wait.until(lambda _: page.element("progress-text").text.startswith("Sentence 1 of 3"))
        assert page.texts("#sentences .badge") == ["waiting"] * 3
        assert page.content("after") == ""
        rewriter.may_go.release()
        wait.until(lambda _: page.texts("#sentences .badge") == ["rewritten", "waiting", "waiting"])
        assert page.content("after") == MENDED
        assert page.element("bar").get_attribute("value") == "1"
        page.element("cancel").click()
        page.wait_for_result()
        assert page.element("status").text == "Cancelled after 1 of 3 sentences."
        assert page.texts("#sentences .badge") == ["rewritten", "not read", "not read"]
        assert not page.element("progress").is_displayed()
        rewriter.may_go.release(8)
        page.check(TOXIC)
        assert page.content("after") == MENDED, "it can be checked again"


def test_escape_cancels(driver: Chrome) -> None:
    rewriter = SlowRewriter()
    with proxy(guard=fake_guard(Policy(rewrite_timeout=PATIENCE), rewriter=rewriter)) as url:
        page = Playground(driver, url)
        page.element("text").send_keys(TOXIC)
        page.element("submit").click()
        wait: WebDriverWait[Chrome] = WebDriverWait(driver, PATIENCE)
        wait.until(lambda _: page.element("progress-text").text.startswith("Sentence 1 of 1"))
        ActionChains(driver).send_keys(Keys.ESCAPE).perform()
        page.wait_for_result()
        rewriter.may_go.release(8)
        assert page.element("status").text == "Cancelled after 0 of 1 sentences."


def test_the_demo_shows_a_text_as_a_model_writes_it_and_ends_as_ever(page: Playground) -> None:
    page.element("paced").click()
    page.driver.execute_script("document.getElementById('text').value = arguments[0]", f"{CLEAN} {TOXIC}")
    page.element("submit").click()
    wait: WebDriverWait[Chrome] = WebDriverWait(page.driver, PATIENCE)
    wait.until(lambda _: page.element("before-heading").text == "As it is written")
    lengths = {len(page.content("before"))}
    wait.until(lambda _: lengths.add(len(page.content("before"))) or page.element("submit").text == "Check")
    assert len(lengths) > 2
    page.wait_for_result()
    assert (page.content("before"), page.content("after")) == (f"{CLEAN} {TOXIC}", f"{CLEAN} {MENDED}")


QUOTES = f'{CLEAN} It\'s "fine" \\ $HOME `x` 😀\n{TOXIC}'


def test_the_code_for_curl_and_python_runs_as_it_is_copied(page: Playground, address: str) -> None:
    script = "const box = document.getElementById('text'); box.value = arguments[0];"
    page.driver.execute_script(f"{script} box.dispatchEvent(new Event('input', {{bubbles: true}}))", QUOTES)
    curl = page.content("snippet").replace("curl ", "curl --silent --noproxy '*' ", 1)
    done = subprocess.run(["bash", "-c", curl], capture_output=True, text=True, check=True, timeout=PATIENCE)
    (row,) = json.loads(done.stdout)["outcomes"]
    assert row["text"] == QUOTES.replace(TOXIC, MENDED)
    radio = page.elements("input[name=ladder][value='mask,block']")[0]
    page.driver.execute_script("arguments[0].click()", radio)
    page.driver.execute_script("document.querySelector('input[name=snippet][value=python]').click()")
    code = page.content("snippet")
    assert 'Policy(ladder=("mask", "block"))' in code
    environment = os.environ | {"PYTHONIOENCODING": "utf-8"}
    ran = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        encoding="utf-8",
        check=True,
        timeout=PATIENCE,
        env=environment,
    )
    assert ran.stdout.startswith(QUOTES.partition("\n")[0])
    assert "1 masked" in ran.stdout


def test_code_is_copied_or_at_least_selected(page: Playground) -> None:
    page.element("copy").click()
    wait: WebDriverWait[Chrome] = WebDriverWait(page.driver, PATIENCE)
    wait.until(lambda _: page.element("copied").text)
    told = page.element("copied").text
    assert told in ("Copied.", "Selected: press Ctrl+C.")
    if told.startswith("Selected"):
        assert page.driver.execute_script("return getSelection().toString()").startswith("curl ")


def test_the_audit_is_linked_where_there_is_one(driver: Chrome, page: Playground, tmp_path: Path) -> None:
    assert not page.element("audit").is_displayed()
    routes = audit_routes(Database(tmp_path / "audit.db"), Reviewers({}))
    with serving(create_app(fake_guard(), keys=ServerKeys(), routers=[routes])) as url:
        other = Playground(driver, url)
        wait: WebDriverWait[Chrome] = WebDriverWait(driver, PATIENCE)
        wait.until(lambda _: other.element("audit").is_displayed())
        other.element("audit").click()
        wait.until(lambda _: driver.title == "guardrail audit")


def test_nothing_is_checked_where_there_is_no_text(page: Playground) -> None:
    page.element("submit").click()
    assert page.element("problem").text == "There is no text yet."
    assert page.driver.switch_to.active_element.get_attribute("id") == "text"
