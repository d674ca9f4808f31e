"""The report in a real browser without a network: drawn, operable by keyboard, as wide as the screen, accessible."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import Select, WebDriverWait

from weft.analysis.report.page import report_page

from .results import contents

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
SCREENS = ((360, 740, False), (1280, 900, True))

pytestmark = pytest.mark.skipif(
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
        """Everything asked for since the last call, but by pages of the browser's own (chrome:, chrome-untrusted:)."""
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        asked = [m["params"] for m in messages if m["method"] == "Network.requestWillBeSent"]
        return {one["request"]["url"] for one in asked if not one["documentURL"].startswith("chrome")}

    def complaints(self) -> list[Any]:
        return list(self.driver.get_log("browser"))


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("browser") / "report.html"
    path.write_text(report_page(contents(), "A report"), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    made = Browser(tmp_path_factory.mktemp("profile"))
    yield made
    made.driver.quit()


@pytest.fixture(autouse=True)
def quiet(browser: Browser) -> Iterator[None]:
    """No test may leave an error in the console."""
    browser.complaints()
    yield
    assert not browser.complaints()


def test_every_chart_of_every_run_is_drawn_and_nothing_is_loaded(browser: Browser, page: Path) -> None:
    browser.requests()
    browser.open(page)
    each, over_time = ["passes", "layers", "roofline", "energy"], ["engines", "bandwidth", "buffers"]
    chooser = Select(browser.find("#run")[0])
    for option in [option.text for option in chooser.options]:
        chooser.select_by_visible_text(option)
        shown = [*each, *(over_time if "system" in option else ())]
        assert browser.drawn() == ["overview", "overview", *shown, "accuracy"]
    assert browser.requests() == {page.as_uri()}
    # A name that is markup is text in a chart too.
    assert browser.run("return document.querySelectorAll('.plot script').length") == 0
    assert browser.run(
        "return [...document.querySelectorAll('.plot text')].some(t => t.textContent.includes('<script'))"
    )


@pytest.mark.slow
def test_the_theme_follows_the_system_until_it_is_chosen_and_is_remembered(browser: Browser, page: Path) -> None:
    def look() -> tuple[str, str]:
        browser.draw(browser.find(".plot[data-kind=passes]")[0])
        body = browser.run("return getComputedStyle(document.body).backgroundColor")
        bar = browser.run("return getComputedStyle(document.querySelector('.plot[data-kind=passes] .xtick text')).fill")
        return body, bar

    browser.open(page)
    light = look()
    browser.prefer(dark=True)
    assert all(one != other for one, other in zip(light, look(), strict=True))

    browser.tab_to(browser.find("#theme")[0])
    browser.driver.switch_to.active_element.send_keys(Keys.ENTER)
    assert look() == light
    browser.driver.refresh()
    browser.wait("!!window.Plotly")
    assert look() == light
    browser.run("localStorage.clear()")


def test_the_schedule_is_filtered_and_sorted_by_keyboard(browser: Browser, page: Path) -> None:
    browser.open(page)
    place = next(iter(browser.find("article.run .sortable")))

    def rows() -> list[list[str]]:
        script = (
            "return [...arguments[0].querySelectorAll('tbody tr:not(.out)')]"
            ".map(row => [...row.cells].map(cell => cell.textContent))"
        )
        found: list[list[str]] = browser.run(script, place)
        return found

    every = [head.text for head in place.find_elements(By.CSS_SELECTOR, "thead button")]
    assert len(rows()) == 100 and "100 shown" in place.text
    more = place.find_element(By.CSS_SELECTOR, ".more")
    search = place.find_element(By.CSS_SELECTOR, ".filter")
    search.send_keys("many.11 relu")
    assert [row[1] for row in rows()] == ["many.11.relu", *(f"many.11{i}.relu" for i in range(10))]
    assert "11 of 143 ops" in place.text and not more.is_displayed()

    cycles, layer = every.index("cycles"), every.index("layer")
    button = place.find_elements(By.CSS_SELECTOR, "thead button")[cycles]
    browser.tab_to(button)
    assert browser.run("return getComputedStyle(arguments[0]).outlineStyle", button) == "solid"
    for way in ("descending", "ascending"):
        button.send_keys(Keys.ENTER)
        numbers = [int(row[cycles].replace(",", "")) for row in rows()]
        assert numbers == sorted(numbers, reverse=way == "descending") and len(numbers) == 11
        assert place.find_elements(By.CSS_SELECTOR, "th[aria-sort]")[0].get_attribute("aria-sort") == way
    search.clear()
    search.send_keys(Keys.SPACE)
    browser.tab_to(place.find_elements(By.CSS_SELECTOR, "thead button")[layer])
    browser.driver.switch_to.active_element.send_keys(Keys.ENTER)
    browser.tab_to(more)
    more.send_keys(Keys.ENTER)
    assert len(rows()) == 143 and browser.driver.switch_to.active_element == search


@pytest.mark.slow
def test_a_layer_opens_into_its_work(browser: Browser, page: Path) -> None:
    browser.open(page)
    names = "return [...document.querySelectorAll('article:not([hidden]) .plot[data-kind=layers] .ytick text')]"
    browser.draw(browser.find(".plot[data-kind=layers]")[0])
    browser.tab_to(browser.find("select.open-layer")[0])
    Select(browser.find("select.open-layer")[0]).select_by_visible_text("head")
    browser.wait(f"({names[7:]}).length === 4")
    assert [text.split()[0] for text in browser.run(f"{names}.map(t => t.textContent)")] == ["FF", "BP", "WU", "OPT"]


def test_the_first_stop_of_the_keyboard_skips_to_the_verdict(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.find("body")[0].send_keys(Keys.TAB)
    first = browser.driver.switch_to.active_element

    assert first.text == "Skip to the verdict" and first.rect["x"] >= 0
    first.send_keys(Keys.ENTER)
    assert browser.driver.current_url.endswith("#verdict")


@pytest.mark.parametrize(
    ("width", "height", "dark"),
    [SCREENS[0], *(pytest.param(*screen, marks=pytest.mark.slow) for screen in SCREENS[1:])],
)
def test_it_fits_the_screen_and_breaks_no_rule_of_accessibility(
    browser: Browser, page: Path, width: int, height: int, dark: bool
) -> None:
    browser.open(page, width=width, height=height, dark=dark)
    browser.drawn()
    browser.run("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    browser.find(".filter")[0].send_keys("head")  # rows like these are enough of the long table
    assert browser.run("return document.documentElement.scrollWidth") <= width

    browser.run((resources.files("axe_core_python") / "axe.min.js").read_text(encoding="utf-8"))
    # What is inside a chart is one picture to a screen reader.
    found = browser.driver.execute_async_script(
        "const done = arguments[0];"
        "axe.run({exclude: ['.plot > *']}, {resultTypes: ['violations']}).then(done, e => done({error: String(e)}));"
    )
    broken = [
        (rule["id"], rule["help"], [node["target"] for node in rule["nodes"]][:3]) for rule in found["violations"]
    ]
    assert not broken


def test_without_scripts_every_table_is_there(browser: Browser, page: Path, tmp_path: Path) -> None:
    text = page.read_text(encoding="utf-8")
    bare = tmp_path / "bare.html"
    bare.write_text(re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL), encoding="utf-8")
    browser.open(bare)

    assert len(browser.find("article.run")) == 3 and not browser.find(".script-only")
    assert not browser.find(".plot")
    assert sum(len(table.find_elements(By.CSS_SELECTOR, "tbody tr")) for table in browser.find("table.long")) == 3 * 143
