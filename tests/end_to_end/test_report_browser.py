"""The page in a real browser: headless Chromium of the system, opened from disk."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

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
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
LOADED = "return performance.getEntriesByType('resource').map(entry => entry.name)"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator:
    """Chromium with the fixture's report open."""
    chromium = CHROMIUM
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


def picture(tmp_path: Path, chromium: str | None) -> subprocess.CompletedProcess:
    """`make picture` of the results in a folder, with this interpreter."""
    root = Path(__file__).parents[2]
    told = {"CHROMIUM": chromium or "", "BIN": str(Path(sys.executable).parent)}
    told |= {"RESULTS": str(tmp_path), "PICTURE": str(tmp_path / "report.png")}
    command = ["make", "picture", *(f"{name}={value}" for name, value in told.items())]
    env = {**os.environ, "PYTHONPATH": str(root / "src")}
    return subprocess.run(command, cwd=root, env=env, capture_output=True, text=True, check=False)


@pytest.mark.skipif(not shutil.which("make"), reason="no make on this machine")
def test_make_picture_says_what_it_lacks(tmp_path) -> None:
    done = picture(tmp_path, None)
    assert done.returncode and "no chromium in PATH: install it, or give" in done.stdout
    done = picture(tmp_path, "/nowhere/chromium")
    assert done.returncode and "no chromium at /nowhere/chromium: install it" in done.stdout
    done = picture(tmp_path, sys.executable)
    assert done.returncode and f"{tmp_path} has no results: give make demo first" in done.stdout


@pytest.mark.skipif(not (shutil.which("make") and CHROMIUM), reason="no make or no chromium")
def test_make_picture_is_the_light_page_at_the_width_of_a_screen(tmp_path) -> None:
    from PIL import Image

    write_folder(tmp_path, seeds=1, contexts=1)
    done = picture(tmp_path, CHROMIUM)
    assert done.returncode == 0, done.stdout + done.stderr
    with Image.open(tmp_path / "report.png") as image:
        assert image.size == (1280, 1760) and image.mode == "P"
        colours = image.convert("RGB").getcolors(256)
    assert colours is not None and max(colours)[1] == (255, 255, 255)
