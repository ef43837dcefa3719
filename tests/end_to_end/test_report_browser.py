"""The page in a real browser: headless Chromium of the system, opened from disk."""

import re
import shutil
from collections.abc import Callable, Iterator

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
    assert [len(figure.find_elements("css selector", "svg")) for figure in shown(browser, "figure")] == [2, 4, 4]  # fmt: skip
    assert all(400 < svg.size["width"] < 500 for svg in shown(browser, "figure svg"))
    assert "Unhealthy run all_zero" in shown(browser, ".alarm")[0].text
    assert browser.execute_script(
        "return document.documentElement.scrollWidth <= window.innerWidth"
    )


@pytest.fixture
def screen(browser) -> Iterator[Callable[..., None]]:
    """Makes the screen a phone's or the page dark, for one test."""

    def set_(width: int = 1280, scheme: str = "light") -> None:
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        feature = {"name": "prefers-color-scheme", "value": scheme}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})

    yield set_
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_a_phone_shows_text_of_a_size_that_can_be_read(browser, screen) -> None:
    screen(390)
    # nothing but tables in their boxes is wider than the screen
    assert browser.execute_script("return document.documentElement.scrollWidth") == 390
    sizes = browser.execute_script(
        "return [...document.querySelectorAll('figure text')].map(text => "
        "parseFloat(getComputedStyle(text).fontSize) * text.getCTM().a || 0)"
    )
    upright = [size for size in sizes if size > 1]  # the others are turned
    assert len(upright) > 100 and min(upright) > 10
    # verdict and difference of every contrast are on the screen
    for row in browser.find_elements("css selector", "#contrast-table tr"):
        for cell in row.find_elements("css selector", "td:nth-child(-n+2)"):
            assert cell.rect["x"] >= 0 and cell.rect["x"] + cell.rect["width"] <= 390


def test_the_page_is_dark_where_the_reader_wants_it(browser, screen) -> None:
    def luminance(selector: str, key: str) -> float:
        value = browser.find_element("css selector", selector).value_of_css_property(key)
        return sum(float(part) for part in re.findall(r"[\d.]+", value)[:3]) / 765

    places = (("body", "color"), ("figure text", "fill"))
    screen(scheme="dark")
    assert luminance("body", "background-color") < 0.15
    assert all(luminance(*place) > 0.8 for place in places)
    screen(scheme="light")
    assert luminance("body", "background-color") == 1.0
    assert all(luminance(*place) < 0.25 for place in places)


def test_points_say_what_they_are(browser) -> None:
    from selenium.webdriver import ActionChains

    dot = browser.find_element("css selector", "#frontier figure g[clip-path] > use")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", dot)
    ActionChains(browser).move_to_element(dot).perform()
    (tip,) = shown(browser, ".tip")
    assert re.match(r"standard, seed 0: L0 .* 3\d\.\d+, Explained variance 0\.7\d+ \[", tip.text)
    ActionChains(browser).move_to_element(browser.find_element("id", "frontier")).perform()
    browser.execute_script("window.scrollTo(0, 0)")


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


def test_latents_are_found_by_number(browser) -> None:
    from selenium.webdriver.support.ui import Select

    Select(browser.find_element("id", "run-select")).select_by_index(3)
    search, answer = (browser.find_element("id", f"latent-{name}") for name in ("search", "answer"))
    search.send_keys("67")
    assert shown(browser, ".latent h4")[0].text == "Latent #67" and answer.text == ""
    search.send_keys("8")
    assert answer.text.startswith("Latent 678 of topk, seed 1")
    assert answer.text.endswith("is not on this page, which has the 16 latents below.")
    assert shown(browser, ".latent h4")[0].text == "Latent #67"
    browser.execute_script(
        "arguments[0].value = ''; arguments[0].dispatchEvent(new Event('input'))", search
    )
    assert answer.text == ""


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
