"""The page of explored machines in a real browser: drawn, chosen from by hand and keyboard, accessible."""

from __future__ import annotations

from pathlib import Path

import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

from weft.analysis.explore.page.cuts import cut
from weft.analysis.explore.page.folder import read_results
from weft.analysis.explore.page.page import explore_page

from ..browser import NEEDED, Browser
from .explored import AXES, small, write

pytestmark = [NEEDED, pytest.mark.usefixtures("quiet")]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write(tmp_path_factory.mktemp("explored") / "all", small())
    results = read_results(folder)
    path = folder / "explore.html"
    path.write_text(explore_page(results, cut(results.points, results.summary), "Explored"), encoding="utf-8")
    return path


def test_every_chart_is_drawn_of_few_marks_and_nothing_is_loaded(browser: Browser, page: Path) -> None:
    browser.requests()
    browser.open(page)

    assert browser.drawn() == ["front", "parallel", "importances", *["slice"] * len(AXES), "statuses", "refused"]
    assert browser.requests() == {page.as_uri()}
    assert browser.run("return document.querySelectorAll('.plot path').length") < 5000


def test_a_point_is_chosen_by_a_click_and_from_the_table(browser: Browser, page: Path) -> None:
    browser.open(page)
    (plot,) = browser.find(".plot[data-kind=front]")
    browser.draw(plot)
    # The fastest machine is chosen at first; the mark of the one with the fewest PEs is the lowest.
    assert browser.find("#point h3")[0].text == f"Point {small()[1].sort_values('cycles')['point'].iloc[0]}"
    marks = browser.run(
        "return [...document.querySelectorAll('.plot[data-kind=front] .points path')]"
        ".map(p => p.getBoundingClientRect()).map(r => [r.x + r.width / 2, r.y + r.height / 2])"
    )
    x, y = min(marks, key=lambda mark: (-round(mark[1]), mark[0]))
    actions = ActionChains(browser.driver)
    actions.w3c_actions.pointer_action.move_to_location(round(x), round(y)).click()
    actions.perform()
    browser.wait("document.querySelector('#point dl').textContent.includes('array.rows4')")
    front = small()[1]
    fewest = front[front["pes"] == front["pes"].min()]["point"].tolist()
    assert browser.find("#point h3")[0].text in {f"Point {n}" for n in fewest}
    assert "weft explore report" in browser.find("#point code")[0].text

    button = browser.find("#front-rows tbody th button")[3]
    browser.tab_to(button)
    button.send_keys(Keys.ENTER)
    assert browser.find("#point h3")[0].text == f"Point {button.text}"
    assert [row.find_element("css selector", "th").text for row in browser.find("tr.chosen")] == [button.text]


def test_menus_choose_two_different_objectives(browser: Browser, page: Path) -> None:
    browser.open(page)
    (plot,) = browser.find(".plot[data-kind=front]")
    browser.draw(plot)

    def titles() -> list[str]:
        found: list[str] = browser.run(
            "return ['xtitle', 'ytitle'].map(c => document.querySelector(`.plot[data-kind=front] .${c}`).textContent)"
        )
        return found

    assert titles() == ["cycles", "PEs"]
    Select(browser.find("#across")[0]).select_by_visible_text("PEs")
    assert titles() == ["PEs", "cycles"]
    Select(browser.find("#up")[0]).select_by_visible_text("samples per second")
    assert titles() == ["PEs", "samples per second, 1/s"]


@pytest.mark.parametrize(
    ("width", "height", "dark"), [(360, 740, False), pytest.param(1280, 900, True, marks=pytest.mark.slow)]
)
def test_it_fits_the_screen_and_breaks_no_rule_of_accessibility(
    browser: Browser, page: Path, width: int, height: int, dark: bool
) -> None:
    browser.open(page, width=width, height=height, dark=dark)
    browser.drawn()
    browser.run("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    assert browser.run("return document.documentElement.scrollWidth") <= width
    assert not browser.broken_rules()
