"""docs/images/report.png, the top of the page of `make demo`: `python -m weft.tests.report_picture out/demo`."""

from __future__ import annotations

import base64
import sys
import tempfile
from pathlib import Path

from weft.analysis.report.folder import read_folder
from weft.analysis.report.page import page_title, report_page
from weft.workloads.files import write_atomically

from .analysis.browser import Browser
from .study_page import ROOT

PICTURE = ROOT / "docs" / "images" / "report.png"
WIDTH, LAST = 1100, ".plot[data-kind=promise]"
"""Pixels, and the chart that the picture ends with."""


def top_of(page: Path, profile: Path) -> bytes:
    """The page as far as the first waterfall, as a PNG."""
    browser = Browser(profile)
    try:
        browser.open(page, width=WIDTH)
        browser.drawn()
        browser.run("scrollTo(0, 0)")
        end = browser.run("return document.querySelector(arguments[0]).getBoundingClientRect().bottom + scrollY", LAST)
        clip = {"x": 0, "y": 0, "width": WIDTH, "height": end + 12, "scale": 1}
        asked = {"format": "png", "captureBeyondViewport": True, "clip": clip}
        return base64.b64decode(browser.driver.execute_cdp_cmd("Page.captureScreenshot", asked)["data"])
    finally:
        browser.driver.quit()


def main(folder: Path) -> None:
    contents = read_folder(folder)
    with tempfile.TemporaryDirectory() as place:
        page = Path(place) / "report.html"
        page.write_text(report_page(contents, page_title(contents, "")), encoding="utf-8")
        write_atomically(PICTURE, top_of(page, Path(place) / "profile"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
