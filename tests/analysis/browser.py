"""Chromium without a network, for tests of pages; rules of accessibility for them."""

from __future__ import annotations

import json
import shutil
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

CHROMIUM = next((p for name in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(name))), None)
CHROMEDRIVER = shutil.which("chromedriver")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
    "--host-resolver-rules=MAP * ~NOTFOUND",
)
NEEDED = pytest.mark.skipif(
    CHROMIUM is None or CHROMEDRIVER is None,
    reason="needs Chromium and its driver; on Debian or Ubuntu: apt-get install -y chromium chromium-driver",
)


class Browser:
    """Chromium on one page."""

    def __init__(self, profile: Path) -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = str(CHROMIUM)
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=Service(str(CHROMEDRIVER)))
        # Away from the browser's own first page, which goes on loading parts of itself.
        self.driver.get("about:blank")

    def open(self, page: Path, *, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Load ``page`` afresh and wait until it can draw."""
        screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        self.prefer(dark=dark)
        self.driver.get(page.as_uri())
        self.wait("!!window.Plotly || !document.querySelector('script:not([type])')")

    def prefer(self, *, dark: bool) -> None:
        """What the system's colours are."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def wait(self, condition: str) -> None:
        WebDriverWait(self.driver, 20, 0.05).until(lambda _: self.run(f"return {condition}"))

    def find(self, selector: str) -> list[WebElement]:
        return [found for found in self.driver.find_elements(By.CSS_SELECTOR, selector) if found.is_displayed()]

    def drawn(self) -> list[str]:
        """Kinds of the charts in sight of somebody who scrolls through the page, once all are drawn."""
        plots = self.find(".plot")
        for plot in plots:
            self.draw(plot)
        return [str(plot.get_attribute("data-kind")) for plot in plots]

    def draw(self, plot: WebElement) -> None:
        """Bring a chart into sight and wait until something is drawn in it."""
        self.run("arguments[0].scrollIntoView()", plot)
        inside = "return !!arguments[0].querySelector('.main-svg .trace, .slice')"
        WebDriverWait(self.driver, 20, 0.02).until(lambda _: self.run(inside, plot))

    def tab_to(self, element: WebElement, most: int = 60) -> None:
        """Reach an element by the keyboard alone."""
        for _ in range(most):
            if self.driver.switch_to.active_element == element:
                return
            self.driver.switch_to.active_element.send_keys(Keys.TAB)
        raise AssertionError(f"{element.tag_name} {element.text!r} is not reached in {most} steps")

    def requests(self) -> set[str]:
        """Everything asked for since the last call, but by pages of the browser's own (chrome:, chrome-untrusted:) and
        what pages hold themselves: bins are pictures that a script makes, of the page before perhaps."""
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        asked = [m["params"] for m in messages if m["method"] == "Network.requestWillBeSent"]
        urls = {one["request"]["url"] for one in asked if not one["documentURL"].startswith("chrome")}
        return {url for url in urls if not url.startswith("data:")}

    def complaints(self) -> list[Any]:
        return list(self.driver.get_log("browser"))

    def broken_rules(self) -> list[Any]:
        """What axe finds against accessibility; what is inside a chart is one picture to a screen reader."""
        self.run((resources.files("axe_core_python") / "axe.min.js").read_text(encoding="utf-8"))
        found = self.driver.execute_async_script(
            "const done = arguments[0];"
            "axe.run({exclude: ['.plot > *']}, {resultTypes: ['violations']})"
            ".then(done, e => done({error: String(e)}));"
        )
        return [
            (rule["id"], rule["help"], [node["target"] for node in rule["nodes"]][:3]) for rule in found["violations"]
        ]
