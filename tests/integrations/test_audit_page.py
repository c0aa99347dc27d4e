"""The audit page in headless Chromium: read, filter, page through, accept and correct, without a mouse."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver import Chrome, Keys
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import Select, WebDriverWait

from guardrail import Policy
from guardrail.audit.store import AuditStore
from guardrail.integrations.audit.records import record_of
from guardrail.integrations.audit.routes import audit_routes
from guardrail.integrations.openai_server import Keys as ServerKeys
from guardrail.integrations.openai_server import create_app
from guardrail.integrations.web.auth import Reviewers
from tests.integrations.server.browser import CONTRASTS, chromium
from tests.integrations.server.running import fake_guard, serving
from tests.waiting import PATIENCE

pytestmark = pytest.mark.browser

KEY = "alices-key-0123456789"
XSS = "<script>window.hit=1</script><img src=x onerror='window.hit=1'> you idiot"
CONTRAST = 4.5
MASKED = 2
"""Number of the masked intervention."""


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    with chromium(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture
def store(tmp_path: Path) -> Iterator[AuditStore]:
    """An audit with a rewrite of markup, a mask, and sixty rewrites more."""
    opened = AuditStore(tmp_path / "audit.db", include_text=True)
    guard = fake_guard(audit=opened)
    guard.check(XSS)
    guard.with_policy(Policy(ladder=("mask", "block"))).check("Shut up, you idiot.")
    guard.check_many([f"Person number {number} is an idiot." for number in range(60)])
    yield opened
    opened.close()


def complaints(driver: Chrome) -> list[str]:
    """What the browser has complained of since it was last asked."""
    entries: Any = driver.get_log("browser")  # type: ignore[no-untyped-call]
    return [entry["message"] for entry in entries if entry["level"] == "SEVERE"]


@pytest.fixture
def address(driver: Chrome, store: AuditStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server with the audit; nothing may be complained of in the browser's log."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    routes = audit_routes(store.database, Reviewers({"alice": KEY}), guard=fake_guard())
    with serving(create_app(fake_guard(), keys=ServerKeys(), routers=[routes])) as url:
        yield url
        assert complaints(driver) == []


@pytest.fixture
def page(driver: Chrome, address: str) -> Page:
    """The page with the audit open."""
    opened = Page(driver, address)
    opened.sign_in(KEY)
    opened.wait_for("62 interventions.")
    return opened


class Page:
    """The page by what a person sees of it."""

    def __init__(self, driver: Chrome, url: str) -> None:
        self.driver = driver
        driver.get(f"{url}/audit")

    def sign_in(self, key: str) -> None:
        """Types the key and presses Enter."""
        self.element("key").send_keys(key, Keys.ENTER)

    def element(self, name: str) -> WebElement:
        """The element with this id."""
        return self.driver.find_element(By.ID, name)

    def elements(self, selector: str) -> list[WebElement]:
        """The elements that a CSS selector finds."""
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def named(self, name: str) -> WebElement:
        """The button with this accessible name."""
        return self.driver.find_element(By.CSS_SELECTOR, f"button[aria-label='{name}']")

    def row(self, number: int) -> WebElement:
        """The row of an intervention."""
        return self.driver.find_element(By.CSS_SELECTOR, f"tr[data-id='{number}']")

    def numbers(self) -> list[int]:
        """The interventions that are shown."""
        script = (
            "return [...document.querySelectorAll('#list td.id')].map((cell) => Number(cell.textContent))"
        )
        found: list[int] = self.driver.execute_script(script)
        return found

    def press(self, *keys: str) -> None:
        """Presses keys wherever the focus is."""
        for key in keys:
            ActionChains(self.driver).send_keys(key).perform()

    def write(self, text: str) -> None:
        """Writes over what is in the field that has the focus."""
        self.focused.send_keys(Keys.CONTROL + "a")
        self.focused.send_keys(text)

    def wait_for(self, status: str) -> None:
        """Waits until the page says this."""
        self.wait_until(lambda: self.element("status").text == status)

    def wait_until(self, condition: Callable[[], object]) -> None:
        """Waits until something is so."""
        replaced = (StaleElementReferenceException,)  # between being found and being read
        wait: WebDriverWait[Chrome] = WebDriverWait(self.driver, PATIENCE, ignored_exceptions=replaced)
        wait.until(lambda _: condition())

    @property
    def focused(self) -> WebElement:
        """What the keyboard is at."""
        return self.driver.switch_to.active_element

    @property
    def at(self) -> int:
        """The row that the keyboard is at."""
        return int(self.driver.execute_script("return document.activeElement.dataset.id ?? 0"))


def test_a_wrong_key_opens_nothing_and_says_what_to_look_for(driver: Chrome, address: str) -> None:
    page = Page(driver, address)
    page.sign_in("wrong")
    page.wait_until(lambda: "Look for a missing or extra character" in page.element("entry-problem").text)
    assert not page.element("work").is_displayed()
    assert page.focused.get_attribute("id") == "key"
    assert "401" in complaints(driver)[0]
    page.element("key").clear()
    page.sign_in(f" {KEY} ")  # copied with its surroundings
    page.wait_for("62 interventions.")
    assert page.element("reviewer").text == "Signed in as alice"


def test_a_server_without_audit_keys_says_what_to_set(
    driver: Chrome, store: AuditStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    routes = audit_routes(store.database, Reviewers({}))
    with serving(create_app(fake_guard(), keys=ServerKeys(), routers=[routes])) as url:
        page = Page(driver, url)
        page.sign_in("any-key-0123456789")
        page.wait_until(lambda: "no audit keys yet" in page.element("entry-problem").text)
        page.elements(".entry summary")[0].click()
        assert "GUARDRAIL_AUDIT_KEYS=your-name=the-key" in page.elements(".entry details")[0].text
    assert len(complaints(driver)) == 1


def test_a_key_stays_in_the_tab_only_if_that_is_wanted(driver: Chrome, page: Page) -> None:
    assert driver.execute_script("return sessionStorage.length + localStorage.length") == 0
    driver.refresh()
    assert page.element("entry").is_displayed()
    page.element("keep").click()
    page.element("reveal").click()
    assert page.element("key").get_attribute("type") == "text"
    page.sign_in(KEY)
    page.wait_for("62 interventions.")
    driver.refresh()
    page.wait_for("62 interventions.")
    page.element("leave").click()
    assert page.element("entry").is_displayed()
    driver.refresh()
    assert page.element("entry").is_displayed()
    assert page.numbers() == []


def test_pages_are_turned_with_the_keyboard(page: Page) -> None:
    assert page.numbers() == list(range(62, 12, -1))
    assert page.element("range").text == "1–50 of 62"
    assert page.at == 62
    page.press("]")
    page.wait_until(lambda: page.numbers() == list(range(12, 0, -1)))
    assert page.element("range").text == "51–62 of 62"
    assert page.at == 12
    page.press("[")
    page.wait_until(lambda: page.at == 62)
    assert not page.element("newer").is_enabled()


def test_next_and_previous_go_on_over_the_end_of_a_page(page: Page) -> None:
    page.press("j", "j", "k", Keys.ENTER)
    assert page.at == 61
    assert page.row(61).get_attribute("aria-expanded") == "true"
    page.named("Next intervention").click()
    assert page.row(60).get_attribute("aria-expanded") == "true"
    page.row(13).click()
    page.press("j")
    page.wait_until(lambda: page.at == 12)
    assert page.row(12).get_attribute("aria-expanded") == "true"
    page.press("k")
    page.wait_until(lambda: page.at == 13)
    page.press(Keys.ESCAPE)
    assert page.elements("tr.detail") == []


def test_filters_apply_and_are_cleared(page: Page) -> None:
    Select(page.element("action")).select_by_value("masked")
    page.wait_for("1 intervention.")
    assert page.numbers() == [MASKED]
    page.elements("#filters button[type=reset]")[0].send_keys(Keys.ENTER)
    page.wait_for("62 interventions.")
    page.elements("#more summary")[0].click()
    Select(page.element("label")).select_by_visible_text("threat")
    page.elements("#filters button[type=submit]")[0].click()
    page.wait_for("No intervention fits.")


def test_words_and_numbers_are_searched_for_and_the_trend_follows(page: Page) -> None:
    page.wait_until(lambda: "62 in 30 days" in page.element("trend-heading").text)
    page.press("/")
    assert page.focused.get_attribute("id") == "text"
    page.press("number 5", Keys.ENTER)
    page.wait_for("11 interventions.")
    page.wait_until(lambda: "11 in 30 days, at most 11 on one" in page.element("trend-heading").text)
    picture = page.elements("#trend svg")[0]
    assert "11 interventions in 30 days; the most on" in (picture.get_attribute("aria-label") or "")
    assert len(page.elements("#trend rect.rewritten")) == 1
    page.element("text").clear()
    page.element("text").send_keys("#2", Keys.ENTER)
    page.wait_for("1 intervention.")
    assert page.numbers() == [MASKED]
    assert page.driver.execute_script("return location.href").endswith("/audit")


def test_a_row_marks_what_was_taken_out_and_put_in(page: Page) -> None:
    row = page.row(62)
    assert row.find_element(By.CSS_SELECTOR, ".preview").text == "Person number 59 is an idiot. person."
    assert [row.find_element(By.TAG_NAME, name).text for name in ("del", "ins")] == ["idiot.", "person."]


def test_a_rewrite_is_accepted_and_a_mask_corrected(page: Page, store: AuditStore) -> None:
    page.press("]")
    page.wait_until(lambda: page.at == 12)
    page.row(3).click()
    page.named("Accept the rewrite of number 3").send_keys(Keys.ENTER)
    page.wait_for("Number 3 is accepted.")
    assert page.at == MASKED, "the next one is at hand"
    page.press("c")
    assert page.focused.get_attribute("id") == f"correction-{MASKED}"
    page.write("Shut up, you person.")
    page.press(Keys.TAB, Keys.ENTER)
    page.wait_for(f"Number {MASKED} is corrected.")
    assert record_of(store.database, 3).decision == "accepted"
    record = record_of(store.database, MASKED)
    assert (record.decision, record.correction, record.reviewer) == (
        "corrected",
        "Shut up, you person.",
        "alice",
    )
    assert page.row(MASKED).find_element(By.CSS_SELECTOR, "ins.corrected").text == "person."


def test_rewrites_are_selected_and_accepted_together(page: Page, store: AuditStore) -> None:
    page.press("x", "j", "j", "x")
    assert page.element("accept").text == "Accept 2 selected"
    page.press("A")
    page.wait_for("2 accepted.")
    assert [number for number in (62, 61, 60) if record_of(store.database, number).decision] == [62, 60]
    page.element("all").click()
    assert page.element("accept").text == "Accept 48 selected", "what is decided is not selected again"
    page.element("accept").click()
    page.wait_for("48 accepted.")
    assert not page.element("accept").is_enabled()
    assert page.elements("#list td.pick input") == []


def test_a_single_key_accepts_and_goes_on(page: Page, store: AuditStore) -> None:
    page.press("a")
    page.wait_for("Number 62 is accepted.")
    page.press("a")
    page.wait_for("Number 61 is accepted.")
    assert page.at == 60
    assert record_of(store.database, 61).decision == "accepted"


def test_keys_are_listed_and_mean_nothing_while_somebody_writes(page: Page, store: AuditStore) -> None:
    page.press("?")
    assert page.element("help").is_displayed()
    page.press("c", "axj?")
    area = page.element("correction-62")
    assert (area.get_attribute("value") or "").endswith("axj?")
    assert page.element("help").is_displayed()
    page.press(Keys.ESCAPE)
    assert page.at == 62
    assert record_of(store.database, 62).decision is None


def test_a_correction_that_checks_refuse_is_saved_once_it_is_confirmed(page: Page, store: AuditStore) -> None:
    page.press("]")
    page.wait_until(lambda: page.at == 12)
    page.row(MASKED).click()
    page.press("c")
    page.write("You moron.")
    page.press(Keys.TAB, Keys.ENTER)
    page.wait_until(lambda: "toxic: it still reads as toxic" in page.focused.text)
    assert record_of(store.database, MASKED).decision is None
    page.element(f"correction-{MASKED}").send_keys("!")
    assert page.elements(".refusal") == [], "it was another correction"
    page.element(f"correction-{MASKED}").send_keys(Keys.TAB)
    page.press(Keys.ENTER)
    page.wait_until(lambda: "These checks refuse the correction" in page.focused.text)
    page.press(Keys.TAB, Keys.ENTER)
    page.wait_for(f"Number {MASKED} is corrected.")
    record = record_of(store.database, MASKED)
    assert (record.correction, record.reviewer) == ("You moron.!", "alice")
    assert record.confirmed is not None
    assert record.confirmed[:2] == ["toxic", "lexicon"]
    page.row(MASKED).click()
    assert "confirmed although refused: toxic, lexicon" in page.elements(".detail .verdict")[0].text
    assert ["409 (Conflict)" in message for message in complaints(page.driver)] == [True, True]


def test_recorded_markup_is_shown_as_text_and_never_runs(page: Page) -> None:
    page.press("]")
    page.wait_until(lambda: page.at == 12)
    page.row(1).click()
    assert page.elements(".detail .text")[0].text == XSS
    assert page.driver.execute_script("return window.hit === undefined")
    assert page.elements("#list img, #list script") == []


def test_reasons_are_told_in_plain_words(page: Page) -> None:
    page.press(Keys.ENTER)
    reasons = page.elements(".reasons li")
    assert reasons[0].text == "Not accepted on the way: it still reads as toxic (toxic)"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_stands_out_from_its_ground(page: Page, scheme: str) -> None:
    feature = {"name": "prefers-color-scheme", "value": scheme}
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    page.press("x", "a", "?", "c")
    page.wait_until(lambda: page.elements(".detail form"))
    found: Any = page.driver.execute_script(CONTRASTS)
    assert len(found) > 100
    assert [pair for pair in found if pair[1] < CONTRAST] == []


def test_a_narrow_window_needs_no_sideways_scrolling(page: Page) -> None:
    metrics = {"width": 320, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    page.press(Keys.ENTER)
    width = page.driver.execute_script("return document.documentElement.scrollWidth")
    page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert width <= 320


def test_everything_that_can_be_operated_has_a_name(page: Page) -> None:
    page.press("c")
    nodes: Any = page.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]

    def value(node: Any, field: str) -> str:
        return str(node.get(field, {}).get("value", ""))

    operable = (
        "button",
        "checkbox",
        "combobox",
        "textbox",
        "searchbox",
        "DisclosureTriangle",
        "image",
        "Date",
    )
    names = {
        (value(n, "role"), value(n, "name"))
        for n in nodes
        if value(n, "role") in operable and not n.get("ignored")
    }
    assert all(name for role, name in names if role != "image"), names
    roles = {value(node, "role") for node in nodes if not node.get("ignored")}
    assert {"table", "columnheader", "row", "deletion", "insertion", "status", "alert"} <= roles
