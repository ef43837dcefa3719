"""The page in a real browser: headless Chromium of the system, opened from disk."""

import shutil
from collections.abc import Iterator

import pytest

from saelab.report import write_report
from unit.report.fixture import HOSTILE, write_folder

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--window-size=1280,900",
)
LOADED = "return performance.getEntriesByType('resource').map(entry => entry.name)"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator:
    """Chromium with the fixture's report open."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    driver = shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip(
            "no chromium and chromedriver on this machine: the report was not tested in a browser"
        )
    from selenium.webdriver import Chrome, ChromeOptions
    from selenium.webdriver.chrome.service import Service

    options = ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    # a given path: selenium looks for no other
    chrome = Chrome(options=options, service=Service(executable_path=driver))
    try:
        chrome.get(write_report(write_folder(tmp_path_factory.mktemp("report") / "demo")).as_uri())
        yield chrome
    finally:
        chrome.quit()


def shown(browser, selector: str) -> list:
    return [
        element
        for element in browser.find_elements("css selector", selector)
        if element.is_displayed()
    ]


def test_no_console_error_and_no_request(browser) -> None:
    assert browser.get_log("browser") == []
    assert browser.execute_script(LOADED) == []
    assert browser.title == "saelab report: demo"


def test_tables_and_figures_are_on_the_page(browser) -> None:
    assert {table.get_attribute("id") for table in shown(browser, "table[id]")} == {
        "summary-table",
        "contrast-table",
        "facts-table",
    }
    assert len(shown(browser, "figure svg")) == 3
    assert all(
        figure.size["width"] > 800 and figure.size["height"] > 200
        for figure in shown(browser, "figure svg")
    )
    assert "Unhealthy run all_zero" in shown(browser, ".alarm")[0].text
    assert browser.execute_script(
        "return document.documentElement.scrollWidth <= window.innerWidth"
    )


def test_seeds_open_and_close(browser) -> None:
    button = browser.find_element("css selector", "button.toggle[data-seeds='1']")
    # the unhealthy variant stands open
    assert not shown(browser, "#seeds-1") and shown(browser, "#seeds-3")
    browser.execute_script("arguments[0].click()", button)
    assert (
        len(shown(browser, "#seeds-1 tr")) == 2 and button.get_attribute("aria-expanded") == "true"
    )
    browser.execute_script("arguments[0].click()", button)
    assert not shown(browser, "#seeds-1")


def test_latent_selector(browser) -> None:
    from selenium.webdriver.support.ui import Select

    def title() -> str:
        (card,) = shown(browser, ".latent")
        return card.find_element("css selector", "header").text.replace("\n", " ")

    assert title().startswith("Latent #5 standard, seed 0")
    Select(browser.find_element("id", "run-select")).select_by_index(3)
    assert title().startswith("Latent #5 topk, seed 1")
    for button, latent in (("latent-next", 36), ("latent-previous", 5), ("latent-previous", 470)):
        browser.execute_script("arguments[0].click()", browser.find_element("id", button))
        assert title().startswith(f"Latent #{latent} topk, seed 1")
    browser.execute_script("arguments[0].click()", shown(browser, ".chip")[2])
    assert title().startswith("Latent #67")


def test_hostile_token_is_text_and_colour_follows_activation(browser) -> None:
    browser.execute_script("arguments[0].click()", shown(browser, ".chip")[0])
    (card,) = shown(browser, ".latent")
    assert HOSTILE in card.text and not browser.find_elements("css selector", "img")
    marks = card.find_elements("css selector", "mark")
    strongest = max(marks, key=lambda mark: float(mark.get_attribute("title")))
    alpha = [
        float(mark.value_of_css_property("background-color").split(",")[-1].strip(" )"))
        for mark in marks
    ]
    assert strongest.get_attribute("title") == "7.000"
    assert alpha[marks.index(strongest)] == max(alpha) and min(alpha) < 0.5
