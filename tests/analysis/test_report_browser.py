"""The report in a real browser without a network: drawn, operable by keyboard, as wide as the screen, accessible."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

from weft.analysis.op_groups import op_groups
from weft.analysis.report.page import report_page

from .browser import NEEDED, Browser
from .results import contents

SCREENS = ((360, 740, False), (1280, 900, True))

pytestmark = [NEEDED, pytest.mark.usefixtures("quiet")]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("browser") / "report.html"
    path.write_text(report_page(contents(), "A report"), encoding="utf-8")
    return path


def test_every_chart_of_every_run_is_drawn_and_nothing_is_loaded(browser: Browser, page: Path) -> None:
    browser.requests()
    browser.open(page)
    each, over_time = ["passes", "layers", "roofline", "energy", "bandwidth"], ["engines", "buffers"]
    chooser = Select(browser.find("#run")[0])
    for option in [option.text for option in chooser.options]:
        chooser.select_by_visible_text(option)
        shown = [*each, *(over_time if "system" in option else ())]
        assert browser.drawn() == ["overview", "promise", "overview", *shown, "accuracy"]
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
    assert sorted(row[0] for row in rows()) == sorted(["many.11.relu", *(f"many.11{i}.relu" for i in range(10))])
    kinds = len(op_groups(contents().runs[0].result))
    assert kinds > 140 and f"11 of {kinds} kinds of ops" in place.text and not more.is_displayed()

    cycles, layer = every.index("cycles"), every.index("layers")
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
    assert len(rows()) == kinds and browser.driver.switch_to.active_element == search


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

    assert not browser.broken_rules()


def test_without_scripts_every_table_is_there(browser: Browser, page: Path, tmp_path: Path) -> None:
    text = page.read_text(encoding="utf-8")
    bare = tmp_path / "bare.html"
    bare.write_text(re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL), encoding="utf-8")
    browser.open(bare)

    assert len(browser.find("article.run")) == 3 and not browser.find(".script-only")
    assert not browser.find(".plot")
    assert sum(
        len(table.find_elements(By.CSS_SELECTOR, "tbody tr")) for table in browser.find("table.long")
    ) == 3 * len(op_groups(contents().runs[0].result))
