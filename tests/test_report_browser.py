"""The report in a real Chromium: what pointer, keyboard and colours do."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from report_pages import inspection_of, nasty_report, written

from attnc.analysis import Analysis

CHROMIUM, DRIVER = "/usr/bin/chromium", "/usr/bin/chromedriver"
_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1400,1000",
)


def missing() -> str:
    """What is not here of what these tests need, or nothing."""
    try:
        import selenium  # noqa: F401
    except ModuleNotFoundError:
        return "selenium is not installed"
    absent = [path for path in (CHROMIUM, DRIVER) if not Path(path).exists()]
    return f"{' and '.join(absent)} missing: apt-get install chromium chromium-driver" * bool(
        absent
    )


def test_ci_has_a_browser() -> None:
    """Where CI says that it is one, nothing here is skipped."""
    assert not os.environ.get("CI") or not missing(), missing()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A Chromium of its own, offline, whose console is recorded."""
    if reason := missing():
        pytest.skip(reason)
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    profile = tmp_path_factory.mktemp("profile")
    for flag in (*_FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    driver.execute_cdp_cmd("Network.enable", {})
    driver.execute_cdp_cmd(
        "Network.emulateNetworkConditions",
        {"offline": True, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1},
    )
    yield driver
    driver.quit()
    shutil.rmtree(profile, ignore_errors=True)


class Opened:
    """A page in the browser, with what tests ask of it."""

    def __init__(self, browser: Any, path: Path) -> None:
        from selenium.webdriver.support.ui import WebDriverWait

        self.browser = browser
        browser.get_log("browser")
        browser.get_log("performance")
        browser.get(path.as_uri())
        wait = WebDriverWait(browser, 60)
        wait.until(lambda b: b.execute_script("return document.documentElement.dataset.ready"))

    def run(self, script: str, *arguments: Any) -> Any:
        return self.browser.execute_script(f"return {script}", *arguments)

    def text(self, css: str) -> str:
        return str(self.run("document.querySelector(arguments[0]).textContent", css))

    def data(self, css: str, name: str) -> str:
        return str(
            self.run("document.querySelector(arguments[0]).dataset[arguments[1]]", css, name)
        )

    def colour(self, css: str, name: str) -> tuple[float, ...]:
        found = self.run(
            "getComputedStyle(document.querySelector(arguments[0]))[arguments[1]]", css, name
        )
        return tuple(float(part) for part in found[found.index("(") + 1 : -1].split(",")[:3])

    def press(self, *keys: str) -> None:
        from selenium.webdriver.common.action_chains import ActionChains

        actions = ActionChains(self.browser, duration=0)
        for key in keys:
            actions.send_keys(key)
        actions.perform()

    def point_at(self, x: float, y: float) -> None:
        """Moves the pointer to pixels of the canvas."""
        from selenium.webdriver.common.action_chains import ActionChains
        from selenium.webdriver.common.by import By

        canvas = self.browser.find_element(By.ID, "canvas")
        self.run("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", canvas)
        size = canvas.size
        actions = ActionChains(self.browser, duration=0)
        across, down = round(x - size["width"] / 2), round(y - size["height"] / 2)
        actions.move_to_element_with_offset(canvas, across, down).perform()

    def point_at_tile(self, analysis: Analysis, row: int, column: int) -> None:
        left, top, scale_x, scale_y, x, y = json.loads(self.data("#canvas", "view"))
        table = analysis.table
        at_x = (column * table.block_n + min((column + 1) * table.block_n, table.n_keys)) / 2
        at_y = (row * table.block_m + min((row + 1) * table.block_m, table.n_queries)) / 2
        self.point_at(left + (at_x - x) * scale_x, top + (at_y - y) * scale_y)

    def told(self) -> list[str]:
        """Lines about the tile, without the spaces between the parts of a line."""
        return [
            "".join(line.split())
            for line in self.run(
                "[...document.querySelectorAll('#tile .why > li')].map(e => e.textContent)"
            )
        ]

    def pixels(self) -> str:
        return str(self.run("document.getElementById('canvas').toDataURL()"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pages")


@pytest.fixture(scope="module")
def documents_path(folder: Path) -> Path:
    return written("documents", folder)


@pytest.fixture
def page(browser: Any, documents_path: Path) -> Opened:
    return Opened(browser, documents_path)


@pytest.fixture(scope="module")
def analysis() -> Analysis:
    inspection = inspection_of("documents")
    cost = inspection.costs(measure=False)["forward"]
    return inspection.analysis((cost.block_m, cost.block_n))


def assert_tells(page: Opened, analysis: Analysis, row: int, column: int) -> None:
    """The panel has the tile's class and every line of its reason."""
    assert page.data("#tile", "tile") == f"{row},{column}"
    assert page.text("#tile .badge") == analysis.kind(row, column).name
    reason = str(analysis.why(row, column)).split("\n")[1:]
    assert page.told() == ["".join(line.split()) for line in reason]


def test_it_opens_from_disk_without_errors_and_without_a_network(page: Opened) -> None:
    """Nothing is asked for but the file; the console is empty."""
    events = [json.loads(e["message"])["message"] for e in page.browser.get_log("performance")]
    asked = [
        e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"
    ]

    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    assert page.browser.get_log("browser") == []
    assert page.run("fetch('http://127.0.0.1:9/').then(() => 'let', () => 'refused')") == "refused"


def test_the_pointer_tells_a_tile_its_class_and_why(page: Opened, analysis: Analysis) -> None:
    """Random tiles: what the panel says is what ``Analysis`` says."""
    drawn = random.Random(7)
    table = analysis.table
    for _ in range(6):
        row, column = drawn.randrange(table.n_q_blocks), drawn.randrange(table.n_kv_blocks)
        page.point_at_tile(analysis, row, column)
        assert_tells(page, analysis, row, column)


def test_the_keyboard_does_what_the_pointer_does(page: Opened, analysis: Analysis) -> None:
    """Arrows move the cursor, End goes to the end of the row, Shift by ten; the tile is read out."""
    from selenium.webdriver.common.keys import Keys

    page.run("document.getElementById('canvas').focus()")
    page.press(Keys.ARROW_DOWN, Keys.ARROW_DOWN, Keys.ARROW_RIGHT)
    assert_tells(page, analysis, 2, 1)
    page.press(Keys.END)
    assert_tells(page, analysis, 2, analysis.table.n_kv_blocks - 1)
    page.press(Keys.HOME, Keys.ARROW_UP, Keys.ARROW_LEFT)
    assert_tells(page, analysis, 1, 0)
    assert page.text("#live").startswith("Tile 1, 0: ")
    assert analysis.kind(1, 0).name.lower() in page.text("#live")


def test_all_controls_are_reached_by_tab_and_show_it(page: Opened) -> None:
    """Each has a name, none is out of the order, and the focus is drawn."""
    from selenium.webdriver.common.keys import Keys

    page.run("document.body.focus()")
    seen = []
    for _ in range(40):
        page.press(Keys.TAB)
        seen.append(page.run("document.activeElement.id"))
        if seen[-1] == "right-text":
            break
        has_outline = page.run("getComputedStyle(document.activeElement).outlineStyle !== 'none'")
        assert has_outline, seen
    wanted = ["theme", "zoom-in", "zoom-out", "zoom-fit", "canvas", "left", "right"]
    assert [name for name in seen if name in wanted] == wanted
    unnamed = page.run(
        "[...document.querySelectorAll('button, select, canvas')].filter(e => !e.hidden && "
        "!(e.getAttribute('aria-label') || e.textContent.trim() || e.labels?.length)).length"
    )
    assert unnamed == 0


def test_zooming_changes_what_is_drawn_and_what_a_point_means(
    page: Opened, analysis: Analysis
) -> None:
    """Keys and buttons zoom, tiles are told rightly after it, and 0 shows all again."""
    whole = page.pixels()
    page.run("document.getElementById('canvas').focus()")
    page.press("+", "+")
    assert page.pixels() != whole
    assert "zoom 4" in page.text("#zoom")
    page.point_at_tile(analysis, 3, 2)
    assert_tells(page, analysis, 3, 2)
    page.press("0")
    page.point_at(2, 2)
    assert page.pixels() == whole
    page.run("document.getElementById('zoom-in').click()")
    assert page.pixels() != whole


def test_dark_and_light_are_both_readable(page: Opened) -> None:
    """The reader's setting and the button change the colours; text keeps a contrast of 4.5."""
    grounds = []
    for scheme in ("light", "dark"):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        grounds.append(page.colour("body", "backgroundColor"))
        assert_readable(page)
    assert grounds[0] != grounds[1]
    drawn = page.pixels()
    page.run("document.getElementById('theme').click()")
    assert page.colour("body", "backgroundColor") == grounds[0]
    assert page.run("document.getElementById('theme').getAttribute('aria-pressed')") == "false"
    assert page.pixels() != drawn
    assert_readable(page)


def assert_readable(page: Opened) -> None:
    """WCAG 2.2, success criterion 1.4.3, for text, notes, syntax colours and badges."""
    card = page.colour(".card", "backgroundColor")
    for css in ("h1", ".faint", ".said", ".facts span", ".numbers small"):
        assert contrast(page.colour(css, "color"), page.colour("body", "backgroundColor")) >= 4.5
    for css in ("pre code", ".place", ".why", ".why .at", *(f"pre .{name}" for name in "ckmsfb")):
        if page.run("document.querySelector(arguments[0]) !== null", css):
            assert contrast(page.colour(css, "color"), card) >= 4.5, css
    for kind in ("empty", "partial", "full"):
        page.run(
            "(document.querySelector('#tile .badge').className = 'badge ' + arguments[0])", kind
        )
        badge = "#tile .badge"
        assert contrast(page.colour(badge, "color"), page.colour(badge, "backgroundColor")) >= 4.5


def contrast(first: tuple[float, ...], second: tuple[float, ...]) -> float:
    """Of two colours, from 1 to 21. Source: WCAG 2.2, definition of contrast ratio."""
    dark, light = sorted(map(luminance, (first, second)))
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: tuple[float, ...]) -> float:
    parts = [part / 255 for part in colour]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_two_stages_are_shown_side_by_side(page: Opened) -> None:
    """Each side shows the stage that is chosen; a narrow window puts one below the other."""
    inspection = inspection_of("documents")
    assert page.text("#left-text") == inspection.ir()
    select = (
        "(() => {const s = document.getElementById(arguments[0]); s.value = [...s.options].find("
        "o => o.textContent.startsWith(arguments[1])).value; s.dispatchEvent(new Event('change'));})()"
    )
    page.run(select, "left", "math")
    page.run(select, "right", "traced")
    assert page.text("#left-text") == inspection.math()
    assert page.text("#right-text") == inspection.traced()
    places = "['left', 'right'].map(i => document.getElementById(i).getBoundingClientRect().top)"
    left, right = page.run(places)
    assert left == right
    metrics = {"width": 500, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    page.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    left, right = page.run(places)
    width = page.run("document.documentElement.scrollWidth")
    page.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert left < right
    assert width <= 500


def test_heads_are_chosen(browser: Any, folder: Path) -> None:
    """The picture and the reasons are those of the head."""
    page = Opened(browser, written("heads", folder))
    analysis = inspection_of("heads").analysis(64)
    first = page.pixels()
    page.browser.execute_async_script(
        "const done = arguments[0], s = document.getElementById('head'); s.value = '1';"
        "s.dispatchEvent(new Event('change')); setTimeout(done, 300);"
    )

    assert page.pixels() != first
    page.point_at_tile(analysis, 2, 5)
    assert page.text("#tile .badge") == analysis.kind(2, 5, 0, 1).name
    assert page.told()[0] == "".join(str(analysis.why(2, 5, 0, 1)).split("\n")[1].split())


def test_what_a_user_wrote_does_not_run(browser: Any, folder: Path) -> None:
    """No dialog, no image, no error: the name is text."""
    from selenium.common.exceptions import NoAlertPresentException

    page = Opened(browser, nasty_report(folder))

    with pytest.raises(NoAlertPresentException):
        _ = browser.switch_to.alert.text
    assert page.run("document.images.length") == 0
    assert "onerror=alert(1)" in page.text("h1")
    assert page.browser.get_log("browser") == []


def test_it_is_readable_without_scripts(browser: Any, documents_path: Path) -> None:
    """The picture is an SVG, and stages unfold."""
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    browser.get(documents_path.as_uri())
    try:
        shown = [
            e.is_displayed() for e in browser.find_elements("css selector", ".picture, summary")
        ]
        controls = browser.find_elements("css selector", ".scripted")
        assert len(shown) > 5
        assert all(shown)
        assert not any(e.is_displayed() for e in controls)
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
