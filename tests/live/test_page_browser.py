"""The page of listen.py in headless Chromium: players, pictures and buttons, by mouse and keyboard, at two widths."""

import json
import time

import pytest
from helpers import wait_for
from live_page import Stage

from danger_safe.live.verdicts import read_verdicts

HOSTILE = "<img src=x onerror=alert(1)>"
LONG = "garage-behind-the-house-" + "x" * 36
LAYOUT = """() => {
  const count = (selector, wrong) => [...document.querySelectorAll(selector)].filter(wrong).length;
  return {
    scroll: document.documentElement.scrollWidth,
    out: count("main *", (element) => element.getBoundingClientRect().right > innerWidth + 0.5),
    small: count("main button", (element) => element.getBoundingClientRect().height < 40),
    unnamed: count("button, audio, img, a, [role=group]", (e) => !(e.ariaLabel || e.alt || e.textContent.trim())),
  };
}"""
PLAYS = "element => element.currentTime > 0 && !element.paused"


@pytest.fixture
def opened(browser, request):
    """Open the page in a new context; assert that there are no errors and no requests to other servers."""
    contexts, problems = [], []

    def open_page(stage, **settings):
        context = browser.new_context(**{"locale": "en-GB", "viewport": {"width": 1280, "height": 900}, **settings})
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: problems.append(message.text))
        page.on("dialog", lambda dialog: problems.append(dialog.message))
        address = f"http://127.0.0.1:{stage.port}/"
        page.on("request", lambda asked: asked.url.startswith(address) or problems.append(asked.url))
        page.goto(address)
        return page

    open_page.problems = problems
    yield open_page
    for context in contexts:
        context.close()


def until(page, expression, argument=None):
    """Wait until a condition is true; the page's security policy forbids Playwright's own way."""
    return wait_for(lambda: page.evaluate(expression, argument))


def reach(page, selector, key="Tab"):
    """Move the focus to an element with the keyboard."""
    for _ in range(80):
        page.keyboard.press(key)
        if page.evaluate("selector => document.activeElement.matches(selector)", selector):
            return
    raise AssertionError(f"the keyboard never reaches {selector}")


def test_players_pictures_and_verdicts_by_mouse_and_keyboard(tmp_path, opened):
    with Stage(tmp_path, ("front door", HOSTILE)) as stage:
        page = opened(stage)
        page.get_by_text("No events yet").wait_for()
        first = stage.plant("front door")
        card = page.locator(".event").first
        card.wait_for()
        assert page.locator("#no-events").is_hidden()
        card.locator(".picture").scroll_into_view_if_needed()
        until(page, "document.querySelector('.picture').naturalWidth > 0")
        assert "highest score 0.93" in card.locator(".picture").get_attribute("alt")

        reach(page, "audio")
        page.keyboard.press("Space")
        player = card.locator("audio").element_handle()
        until(page, PLAYS, player)
        stage.plant(HOSTILE, kind=2, sound=False)  # the sound keeps playing when a new event is added
        until(page, "document.querySelectorAll('.event').length === 2")
        until(page, "player => player.currentTime > 0 && (!player.paused || player.ended)", player)
        assert page.locator(".event .source-name").all_text_contents() == [HOSTILE, "front door"]
        assert page.locator("h3", has_text=HOSTILE).count() == 1 and page.locator("img[src=x]").count() == 0

        card = page.locator(".event").nth(1)
        card.locator("audio").focus()
        reach(page, "[data-verdict=right]")
        said = card.locator(".said")
        page.keyboard.press("Enter")
        said.get_by_text("Saved").wait_for()
        assert read_verdicts(tmp_path / "verdicts.jsonl")[first].verdict == "right"
        page.keyboard.press("Space")
        said.get_by_text("Taken back").wait_for()
        assert not read_verdicts(tmp_path / "verdicts.jsonl")
        card.get_by_role("button", name="False alarm").click()
        said.get_by_text("Saved").wait_for()
        assert read_verdicts(tmp_path / "verdicts.jsonl")[first].verdict == "false_alarm"
        page.reload()
        pressed = page.locator("button[aria-pressed=true]")
        pressed.wait_for()
        assert pressed.count() == 1 and "False alarm" in pressed.text_content()

        def listen_until(condition, score, **values):
            for _ in range(60):
                stage.hear("front door", [score], now=True, **values)
                if page.evaluate(condition):
                    return
                time.sleep(0.2)
            raise AssertionError(condition)

        listen_until("document.title.startsWith('⚠ DANGER: front door: siren')", 0.95)
        assert page.locator("#alarm.danger").get_attribute("role") == "status"
        assert page.locator(".source.danger .why").text_content().startswith("There is one: siren since")
        listen_until("document.title === 'Listening for danger'", 0.05)
        assert not opened.problems
    page.get_by_role("alert").get_by_text("does not respond").wait_for()


def test_widths_languages_and_colour_schemes(tmp_path, opened):
    with Stage(tmp_path, ("Phòng khách", LONG)) as stage:
        stage.plant(LONG)
        stage.plant("Phòng khách", kind=1, sound=False)
        stage.hear("Phòng khách", [0.1], now=True)
        stage.sources[LONG].status, stage.sources[LONG].problem = "offline", "x" * 200
        colours = set()
        for scheme, locale, false_alarm, number in (
            ("light", "en-GB", "False alarm", "0.93"), ("dark", "vi-VN", "Báo động nhầm", "0,93"),
        ):  # fmt: skip
            page = opened(stage, locale=locale, color_scheme=scheme)
            page.locator(".event").nth(1).wait_for()
            colours.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
            assert page.evaluate("document.documentElement.lang") == locale[:2]
            assert number in page.locator(".event .category").first.text_content()
            assert page.get_by_role("button", name=false_alarm).count() == 2
            for width in (390, 1280):
                page.set_viewport_size({"width": width, "height": 844})
                assert page.evaluate(LAYOUT) == {"scroll": width, "out": 0, "small": 0, "unnamed": 0}
        assert len(colours) == 2
        page.get_by_role("link", name="English").click()
        page.get_by_role("button", name="False alarm").first.wait_for()
        page.reload()  # the choice is remembered
        page.get_by_role("button", name="False alarm").first.wait_for()
        assert not opened.problems


def test_page_asks_for_the_password(tmp_path, opened):
    with Stage(tmp_path, password="correct horse") as stage:
        page = opened(stage)
        page.keyboard.type("wrong password")  # the field has the focus
        page.keyboard.press("Enter")
        page.get_by_role("alert").get_by_text("That is not the password").wait_for()
        page.get_by_label("Password").fill("correct horse")
        page.get_by_role("button", name="Log in").click()
        page.locator(".source .state").first.wait_for()
        (cookie,) = page.context.cookies()
        assert cookie["httpOnly"] and cookie["sameSite"] == "Strict" and page.evaluate("document.cookie") == ""
        event = stage.plant("front door")
        page.get_by_role("button", name="Right").click()
        page.get_by_text("Saved").wait_for()
        (line,) = (tmp_path / "verdicts.jsonl").read_text(encoding="utf-8").splitlines()
        assert json.loads(line)["event"] == event
        page.get_by_role("button", name="Log out").click()
        page.get_by_label("Password").wait_for()
        assert ["403 (Forbidden)" in problem for problem in opened.problems] == [True]
