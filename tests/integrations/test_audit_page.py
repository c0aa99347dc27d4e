"""The audit page in headless Chromium: read, filter, page through, accept and correct, without a mouse."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver import Chrome, Keys
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
from tests.integrations.server.browser import chromium
from tests.integrations.server.running import fake_guard, serving
from tests.waiting import PATIENCE

pytestmark = pytest.mark.browser

KEY = "alices-key-0123456789"
XSS = "<script>window.hit=1</script><img src=x onerror='window.hit=1'> you idiot"
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


@pytest.fixture
def page(driver: Chrome, store: AuditStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[Page]:
    """The page with the audit open; nothing may be complained of in the browser's log."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    routes = audit_routes(store.database, Reviewers({"alice": KEY}), guard=fake_guard())
    with serving(create_app(fake_guard(), keys=ServerKeys(), routers=[routes])) as url:
        driver.get(f"{url}/audit")
        opened = Page(driver)
        opened.element("key").send_keys(KEY, Keys.ENTER)
        opened.wait_for("50 interventions shown, there are older ones.")
        yield opened
        log: Any = driver.get_log("browser")  # type: ignore[no-untyped-call]
        assert [entry["message"] for entry in log if entry["level"] == "SEVERE"] == []


class Page:
    """The page by what a person sees of it."""

    def __init__(self, driver: Chrome) -> None:
        self.driver = driver

    def element(self, name: str) -> WebElement:
        """The element with this id."""
        return self.driver.find_element(By.ID, name)

    def named(self, name: str) -> WebElement:
        """The button with this accessible name."""
        return self.driver.find_element(By.CSS_SELECTOR, f"button[aria-label='{name}']")

    def numbers(self) -> list[int]:
        """The interventions that are shown."""
        titles = self.driver.find_elements(By.CSS_SELECTOR, "#list h2")
        return [int(title.text.removeprefix("No. ")) for title in titles]

    def wait_for(self, status: str) -> None:
        """Waits until the page says this."""
        wait: WebDriverWait[Chrome] = WebDriverWait(self.driver, PATIENCE)
        wait.until(lambda _: self.element("status").text == status)

    @property
    def focused(self) -> WebElement:
        """What the keyboard is at."""
        return self.driver.switch_to.active_element


def test_a_wrong_key_opens_nothing(driver: Chrome, page: Page) -> None:
    driver.refresh()
    page.element("key").send_keys("wrong", Keys.ENTER)
    wait: WebDriverWait[Chrome] = WebDriverWait(driver, PATIENCE)
    wait.until(lambda _: "no valid audit key" in page.element("problem").text)
    assert page.numbers() == []
    assert page.focused.get_attribute("id") == "key"
    wait.until(lambda _: "401" in repr(driver.get_log("browser")))  # type: ignore[no-untyped-call]


def test_pages_are_turned_with_the_keyboard(page: Page) -> None:
    assert page.numbers() == list(range(62, 12, -1))
    page.element("older").send_keys(Keys.ENTER)
    page.wait_for("12 interventions shown.")
    assert page.numbers() == list(range(12, 0, -1))
    assert page.focused.get_attribute("id") == "records"
    page.element("newer").send_keys(Keys.ENTER)
    page.wait_for("50 interventions shown, there are older ones.")
    assert not page.element("newer").is_enabled()


def test_filters_apply_and_are_cleared(page: Page) -> None:
    Select(page.element("action")).select_by_value("masked")
    page.element("label").send_keys("toxicity", Keys.ENTER)
    page.wait_for("1 intervention shown.")
    assert page.numbers() == [MASKED]
    page.driver.find_element(By.CSS_SELECTOR, "#filters button[type=reset]").send_keys(Keys.ENTER)
    page.wait_for("50 interventions shown, there are older ones.")


def test_a_rewrite_is_accepted_and_a_mask_corrected(page: Page, store: AuditStore) -> None:
    page.element("older").send_keys(Keys.ENTER)
    page.wait_for("12 interventions shown.")
    page.named("Accept the rewrite of number 3").send_keys(Keys.ENTER)
    page.wait_for("Number 3 is accepted.")
    assert page.focused.text == "No. 3"
    page.named(f"Correct number {MASKED}").send_keys(Keys.ENTER)
    assert page.focused.get_attribute("id") == f"correction-{MASKED}"
    page.focused.send_keys(Keys.CONTROL + "a")
    page.focused.send_keys("Shut up, you person.", Keys.TAB)
    page.focused.send_keys(Keys.ENTER)
    page.wait_for(f"Number {MASKED} is corrected.")
    assert record_of(store.database, 3).decision == "accepted"
    record = record_of(store.database, MASKED)
    assert (record.decision, record.correction, record.reviewer) == (
        "corrected",
        "Shut up, you person.",
        "alice",
    )


def test_a_correction_that_checks_refuse_is_saved_once_it_is_confirmed(page: Page, store: AuditStore) -> None:
    page.element("older").send_keys(Keys.ENTER)
    page.wait_for("12 interventions shown.")
    page.named(f"Correct number {MASKED}").send_keys(Keys.ENTER)
    page.focused.send_keys(Keys.CONTROL + "a")
    page.focused.send_keys("You moron.", Keys.TAB)
    page.focused.send_keys(Keys.ENTER)
    wait: WebDriverWait[Chrome] = WebDriverWait(page.driver, PATIENCE)
    wait.until(lambda _: "toxic: the detector finds it toxic" in page.focused.text)
    assert record_of(store.database, MASKED).decision is None
    page.element(f"correction-{MASKED}").send_keys("!")
    assert page.driver.find_elements(By.CSS_SELECTOR, ".refusal") == [], "it was another correction"
    page.element(f"correction-{MASKED}").send_keys(Keys.TAB)
    page.focused.send_keys(Keys.ENTER)
    wait.until(lambda _: "These checks refuse the correction" in page.focused.text)
    page.focused.send_keys(Keys.TAB)
    page.focused.send_keys(Keys.ENTER)
    page.wait_for(f"Number {MASKED} is corrected.")
    record = record_of(store.database, MASKED)
    assert (record.correction, record.reviewer) == ("You moron.!", "alice")
    assert record.confirmed is not None
    assert record.confirmed[:2] == ["toxic", "lexicon"]
    shown = page.driver.find_element(By.CSS_SELECTOR, f"li[aria-labelledby=record-{MASKED}] .verdict").text
    assert "confirmed although refused: toxic, lexicon" in shown
    log: Any = page.driver.get_log("browser")  # type: ignore[no-untyped-call]
    assert ["409 (Conflict)" in entry["message"] for entry in log] == [True, True]


def test_recorded_markup_is_shown_as_text_and_never_runs(page: Page) -> None:
    page.element("older").send_keys(Keys.ENTER)
    page.wait_for("12 interventions shown.")
    shown = page.driver.find_element(By.CSS_SELECTOR, "#list li:last-child .text").text
    assert shown == XSS
    assert page.driver.execute_script("return window.hit === undefined")
    assert page.driver.find_elements(By.CSS_SELECTOR, "#list img, #list script") == []
