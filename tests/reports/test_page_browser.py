"""The page in a real browser: sorting, filtering, themes, figures, images, no error, and no request that leaves it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import made_up
import numpy as np
import plotly.graph_objects as plotly
import pytest
from selenium import webdriver
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait

from dtn_det.corruptions.cells import sweep_cells
from dtn_det.reports.page import write_page
from dtn_det.reports.samples import Answer, Box, Disagreement, Gallery, Picture, SampleImage, thumbnail

pytestmark = pytest.mark.browser

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
DRIVER = shutil.which("chromedriver")
MODELS = ("ln", "dtn", "<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "</script>", "last")
NONE = "\N{EN DASH}"
FIGURES = ("heat", "groups", "severities", "clean", "forest", "reliability")


@pytest.fixture(scope="module")
def driver():
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("needs Chromium and chromedriver (Debian: chromium, chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in (
        "--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1300,900", "--disable-gpu",
        "--force-prefers-reduced-motion",
        "--host-resolver-rules=MAP * ~NOTFOUND", "--disable-background-networking", "--no-first-run",
    ):  # fmt: skip
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    report = made_up.classification_report(MODELS, images=30, replicates=60, baseline="ln")
    path = tmp_path_factory.mktemp("page") / "report.html"
    write_page(path, report, gallery())
    return path


def gallery() -> Gallery:
    rng = np.random.default_rng(0)
    box = Box((2.0, 2.0, 20.0, 20.0), MODELS[2], 0.9, False, "Loc")
    images = []
    for key in ("one", MODELS[3]):
        pictures = []
        for cell in sweep_cells(("gaussian_noise", "fog")):
            webp, size = thumbnail(rng.integers(0, 255, (32, 32, 3), np.uint8), 224)
            answers = {name: Answer(f"{MODELS[2]} 50 %", name == "dtn", (box,)) for name in MODELS}
            pictures.append(Picture(cell, webp, answers))
        images.append(SampleImage(key, f"a {key}", size, tuple(pictures), (Box((1.0, 1.0, 9.0, 9.0), "cat"),)))
    alone = SampleImage("two", "cat", (32, 32), images[0].pictures[3:4])
    return Gallery(MODELS, tuple(images), (Disagreement("dtn", "ln", alone),), ("Drawn at random.",))


@pytest.fixture(scope="class")
def page(driver, path) -> webdriver.Chrome:
    """The page, opened once for a class of tests, which leave it as they found it."""
    driver.get(path.as_uri())
    return driver


def wait(driver: webdriver.Chrome, condition: Callable[[Any], Any], seconds: int = 60) -> Any:
    return WebDriverWait(driver, seconds).until(condition)


def table(driver: webdriver.Chrome, name: str):
    return driver.find_element(By.CSS_SELECTOR, f"#table-{name}")


def column(box, place: int) -> list[str]:
    """The own texts of the cells of a column that are shown."""
    return box.parent.execute_script(
        "return [...arguments[0].querySelectorAll('tbody tr')].filter((row) => !row.hidden)"
        ".map((row) => row.cells[arguments[1]].firstChild.textContent.trim())",
        box,
        place,
    )


def header(box, place: int):
    return box.find_element(By.CSS_SELECTOR, f"th[data-c='{place}']")


def draw(driver: webdriver.Chrome, name: str):
    """A figure, once it was scrolled to and drawn."""
    plot = driver.find_element(By.CSS_SELECTOR, f"[data-figure='{name}']")
    driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", plot)
    wait(driver, lambda _: plot.get_attribute("data-drawn"))
    return plot


def click(driver: webdriver.Chrome, element) -> None:
    driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
    element.click()


def press(driver: webdriver.Chrome, *keys: str) -> None:
    ActionChains(driver).send_keys(*keys).perform()


class TestTables:
    def test_a_click_sorts_numbers_as_numbers_and_what_is_missing_comes_last(self, page):
        box = table(page, "cells-top1")
        before = column(box, 3)
        button = header(box, 3).find_element(By.TAG_NAME, "button")
        missing = before.count(NONE)
        numbers = sorted(float(text) for text in before if text != NONE)
        assert missing == len(MODELS)
        assert header(box, 3).get_attribute("aria-sort") == "none"
        click(page, button)
        assert header(box, 3).get_attribute("aria-sort") == "ascending"
        assert [float(text) for text in column(box, 3)[:-missing]] == numbers
        assert column(box, 3)[-missing:] == [NONE] * missing
        click(page, button)
        assert header(box, 3).get_attribute("aria-sort") == "descending"
        assert [float(text) for text in column(box, 3)[:-missing]] == numbers[::-1]
        assert column(box, 3)[-missing:] == [NONE] * missing
        click(page, button)
        assert header(box, 3).get_attribute("aria-sort") == "none"
        assert column(box, 3) == before

    def test_keys_sort_too(self, page):
        box = table(page, "summary")
        page.execute_script("arguments[0].focus()", header(box, 0).find_element(By.TAG_NAME, "button"))
        press(page, Keys.ENTER)
        assert header(box, 0).get_attribute("aria-sort") == "ascending"
        assert sorted(column(box, 0)) == sorted(MODELS)
        assert column(box, 0)[-3:] == ["dtn", "last", "ln"]
        press(page, Keys.SPACE)
        assert header(box, 0).get_attribute("aria-sort") == "descending"
        assert column(box, 0)[:3] == ["ln", "last", "dtn"]
        press(page, Keys.SPACE)
        assert column(box, 0) == list(MODELS)

    def test_one_column_at_a_time(self, page):
        box = table(page, "summary")
        for place in (2, 3):
            click(page, header(box, place).find_element(By.TAG_NAME, "button"))
        marks = [header(box, place).get_attribute("aria-sort") for place in range(5)]
        assert marks == ["none", "none", "none", "ascending", "none"]

    def test_filters(self, page):
        box = table(page, "cells-top1")
        models, corruptions = box.find_elements(By.CSS_SELECTOR, "input[type=search]")
        total = len(column(box, 0))
        models.send_keys("LAST")
        assert set(column(box, 0)) == {"last"}
        corruptions.send_keys("noise")
        assert column(box, 2) == ["Gaussian noise", "Shot noise", "Impulse noise"]
        assert box.find_element(By.CSS_SELECTOR, "[role=status]").text == f"3 of {total} rows"
        models.clear()
        models.send_keys("<script>")
        assert set(column(box, 0)) == {MODELS[2]}
        for one in (models, corruptions):
            one.send_keys(Keys.CONTROL, "a")
            one.send_keys(Keys.DELETE)
        assert len(column(box, 0)) == total
        assert box.find_element(By.CSS_SELECTOR, "[role=status]").text == ""

    def test_filters_of_columns(self, page):
        box = table(page, "corruptions")
        models, corruptions = box.find_elements(By.CSS_SELECTOR, "input[type=search]")
        heads = [one.text for one in box.find_elements(By.CSS_SELECTOR, "thead th") if one.is_displayed()]
        models.send_keys("dtn")
        shown = [one.text for one in box.find_elements(By.CSS_SELECTOR, "thead th") if one.is_displayed()]
        assert len(heads) - len(shown) == len(MODELS) - 1
        assert any("dtn" in text for text in shown)
        assert not any("last" in text for text in shown)
        rows = len(column(box, 1))
        corruptions.send_keys("blur")
        assert {text.rpartition(" ")[2] for text in column(box, 1)} <= {"blur", "mean"}
        assert 0 < len(column(box, 1)) < rows
        for one in (models, corruptions):
            one.send_keys(Keys.CONTROL, "a")
            one.send_keys(Keys.DELETE)
        assert [one.text for one in box.find_elements(By.CSS_SELECTOR, "thead th") if one.is_displayed()] == heads

    def test_arrows_walk_through_the_cells_and_show_intervals(self, page):
        box = table(page, "corruptions")
        stops = box.find_elements(By.CSS_SELECTOR, "tbody [tabindex='0']")
        assert len(stops) == 1
        page.execute_script("arguments[0].focus()", stops[0])
        press(page, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_DOWN)
        focused = page.switch_to.active_element
        tip = page.find_element(By.ID, "tip")
        assert focused.get_attribute("data-v")
        interval = focused.find_element(By.CLASS_NAME, "ci").get_attribute("textContent").strip()
        row = focused.find_element(By.XPATH, "..").find_elements(By.CSS_SELECTOR, "td, th")
        assert tip.text.splitlines() == [f"{row[1].text} · dtn", f"{focused.text.split()[0]} {interval}"]
        press(page, Keys.ESCAPE)
        assert not tip.is_displayed()
        assert len(box.find_elements(By.CSS_SELECTOR, "tbody [tabindex='0']")) == 1

    def test_the_pointer_shows_intervals(self, page):
        cell = table(page, "summary").find_elements(By.CSS_SELECTOR, "tbody td:has(.ci)")[0]
        page.execute_async_script(
            "arguments[0].scrollIntoView({block: 'center'});"
            "requestAnimationFrame(() => requestAnimationFrame(arguments[1]))",
            cell,
        )
        # The pointer may be there already, and would not move.
        ActionChains(page).move_by_offset(1, 1).move_to_element(cell).perform()
        assert "[" in page.find_element(By.ID, "tip").text

    def test_intervals_can_be_shown_everywhere(self, page):
        button = page.find_element(By.ID, "intervals")
        interval = page.find_element(By.CLASS_NAME, "ci")
        hidden = interval.size["height"]
        button.click()
        assert button.get_attribute("aria-pressed") == "true"
        assert interval.size["height"] > max(hidden, 5)
        button.click()
        assert interval.size["height"] == hidden


class TestThemes:
    def ground(self, driver) -> str:
        return driver.execute_script("return getComputedStyle(document.body).backgroundColor")

    def test_the_toggle_works_by_keys_and_figures_follow(self, page):
        plot = draw(page, "severities")
        ink = "return getComputedStyle(arguments[0].querySelector('.xtick text')).fill"
        light = (self.ground(page), page.execute_script(ink, plot))
        button = page.find_element(By.ID, "theme")
        assert button.get_attribute("aria-pressed") == "false"
        page.execute_script("arguments[0].focus()", button)
        press(page, Keys.SPACE)
        assert button.get_attribute("aria-pressed") == "true"
        dark = (self.ground(page), page.execute_script(ink, plot))
        assert light[0] != dark[0]
        assert light[1] != dark[1]
        press(page, Keys.ENTER)
        assert (self.ground(page), page.execute_script(ink, plot)) == light

    def test_the_system_s_theme_is_the_first_one(self, page):
        page.execute_script("document.documentElement.dataset.theme = 'auto'")
        light = self.ground(page)
        feature = {"name": "prefers-color-scheme", "value": "dark"}
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
        try:
            assert self.ground(page) != light
            wait(page, lambda _: page.find_element(By.ID, "theme").get_attribute("aria-pressed") == "true")
        finally:
            page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


class TestFigures:
    @pytest.mark.parametrize("name", FIGURES)
    def test_each_is_drawn_as_plotly_wants_it(self, page, name):
        plot = draw(page, name)
        drawn = json.loads(
            page.execute_script("return JSON.stringify({data: arguments[0].data, layout: arguments[0].layout})", plot)
        )
        # Raises at what plotly does not know.
        plotly.Figure(drawn["data"], drawn["layout"])
        assert page.execute_script("return arguments[0].data.length", plot) >= 1
        texts = page.execute_script(
            "return [...arguments[0].querySelectorAll('text')].map((one) => one.textContent)", plot
        )
        if name != "forest":
            assert MODELS[2] in texts
            assert MODELS[3] in texts
        assert not page.find_elements(By.CSS_SELECTOR, "img[src='x']")

    @pytest.mark.parametrize("name", FIGURES)
    def test_arrow_keys_walk_through_the_points(self, page, name):
        plot = draw(page, name)
        status = plot.find_element(By.XPATH, "../p[@role='status']")
        page.execute_script("arguments[0].focus()", plot)
        told = []
        for key in (Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_DOWN):
            press(page, key)
            told.append(status.get_attribute("textContent"))
        assert all(told)
        assert told[0] != told[1]
        assert plot.find_elements(By.CSS_SELECTOR, ".hovertext")

    def test_choices_change_the_figure(self, page):
        plot = draw(page, "heat")
        measure, severity = plot.find_elements(By.XPATH, "../div[@class='tools']//select")
        values = "return JSON.stringify(arguments[0].data[0].z)"
        first = page.execute_script(values, plot)
        Select(severity).select_by_visible_text("severity 5")
        second = page.execute_script(values, plot)
        Select(measure).select_by_visible_text("NLL, nats")
        assert len({first, second, page.execute_script(values, plot)}) == 3

    def test_models_can_be_left_out(self, page):
        plot = draw(page, "groups")
        details = plot.find_element(By.XPATH, "../div[@class='tools']/details")
        page.execute_script("arguments[0].open = true", details)
        box = details.find_elements(By.CSS_SELECTOR, "input")[1]
        names = "return arguments[0].data.map((one) => one.name)"
        assert "dtn" in page.execute_script(names, plot)
        page.execute_script("arguments[0].focus()", box)
        press(page, Keys.SPACE)
        assert "dtn" not in page.execute_script(names, plot)
        assert details.find_element(By.TAG_NAME, "summary").text == "Models: 5 of 6"
        press(page, Keys.SPACE)
        assert "dtn" in page.execute_script(names, plot)
        page.execute_script("arguments[0].open = false", details)


class TestImages:
    def built(self, driver):
        place = driver.find_element(By.ID, "gallery")
        driver.execute_script("arguments[0].scrollIntoView()", place)
        wait(driver, lambda _: place.find_elements(By.CSS_SELECTOR, "tbody img"))
        return place

    def test_pictures_and_answers(self, page):
        place = self.built(page)
        pictures = place.find_elements(By.CSS_SELECTOR, "tbody img")
        assert len(pictures) == 10
        assert pictures[0].get_attribute("alt") == "a one. Gaussian noise, severity 1"
        wait(page, lambda _: pictures[0].get_property("naturalWidth") == 32)
        answers = place.find_element(By.CSS_SELECTOR, "tbody .answers").get_attribute("textContent")
        assert f"ln {MODELS[2]} 50 %✗ wrong" in answers
        assert f"dtn {MODELS[2]} 50 %✓ right" in answers
        assert "Where dtn is better than ln" in place.text

    def test_models_and_objects_are_toggled(self, page):
        place = self.built(page)
        labels = place.find_elements(By.CSS_SELECTOR, ".checks label")
        assert [label.text for label in labels] == [*MODELS, "Objects", "Colour wrong boxes by error type"]
        # The compared ones are shown at first.
        checked = [label.find_element(By.TAG_NAME, "input").is_selected() for label in labels]
        assert checked == [True, True, False, False, False, False, True, False]
        for place_of, css in ((0, "tbody li.of-0"), (0, "tbody rect.of-0"), (6, "tbody rect.truth")):
            box = labels[place_of].find_element(By.TAG_NAME, "input")
            target = place.find_element(By.CSS_SELECTOR, css)
            shown = "return getComputedStyle(arguments[0]).display"
            assert page.execute_script(shown, target) != "none"
            page.execute_script("arguments[0].click()", box)
            assert page.execute_script(shown, target) == "none"
            page.execute_script("arguments[0].click()", box)
        wrong = place.find_element(By.CSS_SELECTOR, "tbody rect.of-0")
        page.execute_script("arguments[0].click()", labels[7].find_element(By.TAG_NAME, "input"))
        assert page.execute_script("return getComputedStyle(arguments[0]).stroke", wrong) == "rgb(213, 94, 0)"
        assert wrong.get_attribute("textContent").endswith("0.9, Loc")

    def test_another_image(self, page):
        place = self.built(page)
        select = Select(place.find_element(By.CSS_SELECTOR, ".tools select"))
        select.select_by_index(1)
        assert MODELS[3] in place.find_element(By.CSS_SELECTOR, "tbody img").get_attribute("alt")
        select.select_by_index(0)

    def test_a_picture_is_enlarged_and_closed_by_keys(self, page):
        place = self.built(page)
        button = place.find_element(By.CSS_SELECTOR, "tbody button.picture")
        page.execute_script("arguments[0].focus()", button)
        press(page, Keys.ENTER)
        dialog = place.find_element(By.CSS_SELECTOR, "dialog")
        assert "Gaussian noise, severity 1" in dialog.text
        press(page, Keys.ESCAPE)
        assert not dialog.is_displayed()
        assert page.switch_to.active_element == button


def test_nothing_fails_and_nothing_leaves_the_file(driver, path):
    driver.get_log("browser")
    driver.get_log("performance")
    driver.get(path.as_uri())
    for name in FIGURES:
        draw(driver, name)
    TestImages().built(driver)
    driver.execute_cdp_cmd("Page.printToPDF", {"preferCSSPageSize": True})
    with pytest.raises(WebDriverException):
        driver.switch_to.alert.dismiss()
    assert [entry["message"] for entry in driver.get_log("browser") if entry["level"] != "INFO"] == []
    events = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    asked = {one["params"]["request"]["url"] for one in events if one["method"] == "Network.requestWillBeSent"}
    assert path.as_uri() in asked
    assert {url.partition(":")[0] for url in asked} <= {"file", "data", "blob"}
    assert {url for url in asked if url.startswith("file:")} == {path.as_uri()}


def test_printing_opens_everything_in_light(driver, path):
    driver.get(path.as_uri())
    driver.execute_script("document.getElementById('theme').click()")
    wait(driver, lambda _: driver.execute_script("return Boolean(window.Plotly)"))
    driver.execute_script("dispatchEvent(new Event('beforeprint'))")
    drawn = "return [...document.querySelectorAll('.plot')].filter((one) => one.dataset.drawn).length"
    assert driver.execute_script(drawn) == len(FIGURES)
    assert driver.execute_script("return document.documentElement.dataset.theme") == "light"
    assert driver.find_elements(By.CSS_SELECTOR, "#gallery tbody img")
    assert not driver.find_elements(By.CSS_SELECTOR, "details:not([open])")
    driver.execute_script("dispatchEvent(new Event('afterprint'))")
    assert driver.execute_script("return document.documentElement.dataset.theme") == "dark"
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        for css in ("nav", ".tools", ".modebar"):
            assert not [one for one in driver.find_elements(By.CSS_SELECTOR, css) if one.is_displayed()], css
    finally:
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_a_narrow_screen_does_not_scroll_sideways(driver, path):
    driver.set_window_size(500, 900)
    try:
        driver.get(path.as_uri())
        for name in FIGURES:
            draw(driver, name)
        TestImages().built(driver)
        widths = "return [document.documentElement.scrollWidth, document.documentElement.clientWidth]"
        whole, shown = driver.execute_script(widths)
        assert whole <= shown
    finally:
        driver.set_window_size(1300, 900)


def test_opening_time(driver, tmp_path, capsys):
    names = [f"model-{number:02}" for number in range(20)]
    report = made_up.classification_report(names, images=12, corruptions=made_up.ALL, baseline=names[0], replicates=20)
    write_page(tmp_path / "report.html", report)
    driver.get((tmp_path / "report.html").as_uri())
    timing = driver.execute_script(
        "return [performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? 0,"
        " performance.getEntriesByType('navigation')[0].loadEventEnd]"
    )
    with capsys.disabled():
        print(f"\n20 models x 95 cells: first paint after {timing[0]:.0f} ms, loaded after {timing[1]:.0f} ms")
    assert len(column(table(driver, "cells-top1"), 0)) == 20 * 20
    assert 0 < timing[1] < 10_000
