"""Headless Chromium before a page of the server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from tests.waiting import PATIENCE

CHROMIUM, DRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")
FLAGS = (
    "--headless=new",
    "--no-sandbox",  # CI runs as root
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--force-color-profile=srgb",
)


class Playground:
    """The page in a browser, by what a person sees of it."""

    def __init__(self, driver: Chrome, url: str) -> None:
        self.driver = driver
        driver.get(url)

    def element(self, name: str) -> WebElement:
        """The element with this id."""
        return self.driver.find_element(By.ID, name)

    def elements(self, selector: str) -> list[WebElement]:
        """The elements that a CSS selector finds."""
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def texts(self, selector: str) -> list[str]:
        """Their texts, leading and trailing white space left out."""
        # At once: a page that is at work may replace an element between two questions.
        script = "return [...document.querySelectorAll(arguments[0])].map((one) => one.innerText.trim())"
        found: list[str] = self.driver.execute_script(script, selector)
        return found

    def content(self, name: str) -> str:
        """The text of the element with this id, to the character."""
        return str(
            self.driver.execute_script("return document.getElementById(arguments[0]).textContent", name)
        )

    def check(self, text: str) -> None:
        """Types the text in place of what is there, checks it and waits for the result."""
        script = "const box = document.getElementById('text'); box.value = arguments[0]; box.focus()"
        self.driver.execute_script(script, text)
        self.element("submit").click()
        self.wait_for_result()

    def wait_for_result(self) -> None:
        """Waits until nothing is being checked and a result or a problem is there."""
        wait: WebDriverWait[Chrome] = WebDriverWait(self.driver, PATIENCE)
        wait.until(lambda _: self.element("submit").text == "Check")
        wait.until(lambda _: self.content("status") or self.content("problem"))


@contextmanager
def chromium(profile: Path, *, width: int = 1180, height: int = 1000) -> Iterator[Chrome]:
    """A browser with an empty profile. Fails where Chromium is not installed, naming what to install."""
    for program in (CHROMIUM, DRIVER):
        assert program.is_file(), f"{program} is missing: apt-get install chromium chromium-driver"
    options = ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in (*FLAGS, f"--user-data-dir={profile}", f"--window-size={width},{height}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = Chrome(options=options, service=Service(str(DRIVER)))
    try:
        yield driver
    finally:
        driver.quit()


CONTRASTS = """
const channel = (c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4);
const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
const colour = (text) => text.match(/[\\d.]+/g).map(Number);
const ground = (element) => {
  const [r, g, b, a = 1] = colour(getComputedStyle(element).backgroundColor);
  return a === 0 && element.parentElement ? ground(element.parentElement) : [r, g, b];
};
const found = [];
for (const element of document.querySelectorAll("body *")) {
  const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
  if (!own || !element.checkVisibility() || element.closest(".visually-hidden, noscript")) continue;
  const [one, other] = [light(colour(getComputedStyle(element).color)), light(ground(element))];
  const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
  found.push([element.tagName + "." + element.className, Math.round(ratio * 100) / 100]);
}
return found;
"""
"""How far the colour of each text on a page differs from its ground, as [place, ratio] pairs."""
