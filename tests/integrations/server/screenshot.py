"""Takes the picture of the playground for the docs; run by ``make screenshot``."""

from __future__ import annotations

import io
import sys
import tempfile
from pathlib import Path

from PIL import Image

from guardrail import Guard
from guardrail.integrations.openai_server import Keys, create_app
from tests.integrations.server.browser import Playground, chromium
from tests.integrations.server.running import serving

WIDTH, HEIGHT = 1180, 1010
COLOURS = 128


def main(target: Path) -> None:
    """Checks an example on the shipped models and writes what the page shows then."""
    app = create_app(Guard(), keys=Keys())
    with (
        tempfile.TemporaryDirectory() as profile,
        serving(app) as url,
        chromium(Path(profile), width=WIDTH, height=HEIGHT) as driver,
    ):
        page = Playground(driver, url)
        page.elements("[data-example=review]")[0].click()
        page.wait_for_result()
        page.element("submit").click()  # the time shown is that of models that are loaded
        page.wait_for_result()
        height = driver.execute_script("return document.documentElement.scrollHeight")
        metrics = {"width": WIDTH, "height": height, "deviceScaleFactor": 1, "mobile": False}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        picture = Image.open(io.BytesIO(driver.get_screenshot_as_png()))
    # A page has few colours: a palette halves the file.
    picture.convert("RGB").quantize(COLOURS).save(target, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
