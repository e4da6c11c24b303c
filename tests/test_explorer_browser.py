"""The explorer in a real Chromium, run by `make test-browser`; skipped where there is none."""

import base64
import contextlib
import importlib.util
import io
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request

import cv2
import numpy as np
import pytest
from conftest import ROOT

import main

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
MISSING = [name for name in ("gradio", "playwright") if importlib.util.find_spec(name) is None]
MISSING += [] if CHROMIUM else ["chromium"]
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
]
# Chromium itself asks nobody for anything, so what leaves is the page's doing.
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
ARGUMENTS += ["--disable-background-networking", "--disable-component-update"]
PATIENCE = 120_000  # milliseconds: the machine may have other work


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A trained run of a semi-supervised model, and a copy of it beside it."""
    folder = tmp_path_factory.mktemp("explorer")
    words = ["--data", "digits", "--n_hidden", "16", "--n_epoch", "1", "--model", "semi_supervised"]
    words += ["--prior", "gaussian", "--n_z", "2", "--num_samples", "50"]
    with contextlib.redirect_stdout(io.StringIO()):
        assert main.main(["main.py", *words, "--run_dir", str(folder / "first")]) == 0
    shutil.copytree(folder / "first", folder / "second")
    return folder / "first"


@pytest.fixture(scope="module")
def model(run):
    from models import load_model

    return load_model(run)


def started(run, port):
    """The process of `main.py --explore`, once it says that the page is there."""
    command = [sys.executable, "main.py", "--explore", "--run_dir", str(run), "--explore_port", str(port)]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    line = process.stdout.readline()
    assert f"http://127.0.0.1:{port}" in line, line + process.stdout.read()
    return process


@pytest.fixture(scope="module")
def address(run):
    """Where the page of the run is served; at the end Ctrl-C closes it, and it has nothing to complain of."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = started(run, port)
    yield f"http://127.0.0.1:{port}"
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert output.strip() == "The page is closed."


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(params=[1280, 390], ids=["desktop", "phone"])
def page(request, browser, address):
    """The open page; at the end nothing has gone wrong in it, and nobody else was asked for anything."""
    page = browser.new_page(viewport={"width": request.param, "height": 844})
    page.set_default_timeout(PATIENCE)
    asked, wrong = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto(address)
    page.wait_for_selector("#decoded-image")
    yield page
    assert not sideways(page)
    page.close()
    assert not wrong
    elsewhere = [url for url in asked if not url.startswith((address, "data:", "blob:"))]
    assert not elsewhere
    assert len(asked) > 10


def sideways(page):
    """By how many pixels the page is wider than its window."""
    return page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")


def pixels(source):
    """The image of a data URL, uint8 (H, W)."""
    content = base64.b64decode(source.partition("base64,")[2])
    return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_GRAYSCALE)


def decoded(page):
    """The image that is shown, uint8 (H, W), and its code as the sliders say it, (2,)."""
    code = [page.locator("input[type=range]").nth(axis).input_value() for axis in (0, 1)]
    return pixels(page.get_attribute("#decoded-image", "src")), np.array(code, float)


def changed(page, selector, act, attribute="src"):
    """Acts, and waits until an element's attribute has another value."""
    old = page.get_attribute(selector, attribute) if page.locator(selector).count() else None
    act()
    page.wait_for_function(
        "([selector, attribute, old]) => {"
        " const found = document.querySelector(selector)?.getAttribute(attribute);"
        " return found && found !== old; }",
        arg=[selector, attribute, old],
    )


def agrees(model, image, code, label):
    """Whether an image is what the model decodes, but for the last digits of the code that is shown."""
    reference = 255 * model.decode(code[None].astype(np.float32), np.array([label]))[0, ..., 0]
    return np.abs(image.astype(float) - reference).max() <= 1.5


def open_tab(page, name):
    page.get_by_role("tab", name=name).click()


def draw_seven(page):
    box = page.locator("#pad").bounding_box()
    left, top, side = box["x"], box["y"], box["width"]
    page.mouse.move(left + 0.3 * side, top + 0.2 * side)
    page.mouse.down()
    page.mouse.move(left + 0.7 * side, top + 0.2 * side, steps=5)
    page.mouse.move(left + 0.45 * side, top + 0.8 * side, steps=8)
    page.mouse.up()


def test_walking_decodes_what_the_model_decodes(page, model):
    page.get_by_text("The code, axis by axis").click()
    page.wait_for_selector("input[type=range] >> nth=0")
    plane, seen = page.locator("#plane img"), []

    def press(left, top):
        side = plane.bounding_box()["width"]
        plane.click(position={"x": left * side, "y": top * side})

    for place in ((0.7, 0.4), (0.3, 0.6)):
        changed(page, "#decoded-image", lambda place=place: press(*place))
        page.wait_for_timeout(1000)  # until the sliders have followed
        image, code = decoded(page)
        assert agrees(model, image, code, label=0)
        seen.append(code)
    plane.scroll_into_view_if_needed()
    box = plane.bounding_box()
    page.mouse.move(box["x"] + 0.4 * box["width"], box["y"] + 0.5 * box["width"])
    page.mouse.down()
    page.mouse.move(box["x"] + 0.8 * box["width"], box["y"] + 0.5 * box["width"], steps=30)
    page.wait_for_timeout(3000)  # the drag rests, and the last of its points is decoded
    image, dragged = decoded(page)
    assert agrees(model, image, dragged, label=0)
    # The axes take 0.89 of the picture's width, from 0.09 on.
    limit = float(page.locator("input[type=range]").first.get_attribute("max"))
    assert dragged[0] == pytest.approx(limit * (2 * (0.8 - 0.09) / 0.89 - 1), abs=0.05)
    page.mouse.up()
    assert page.locator("#plane .aae-mark").is_visible()
    changed(page, "#decoded-image", lambda: press(0.3, 0.6))
    page.wait_for_timeout(1000)
    assert seen[0][0] > 0.2 > seen[1][0]
    assert seen[0][1] > seen[1][1]
    changed(page, "#decoded-image", lambda: page.get_by_label("5", exact=True).check())
    image, code = decoded(page)
    np.testing.assert_allclose(code, seen[1])
    assert agrees(model, image, code, label=5)
    assert not agrees(model, image, code, label=0)
    others = page.locator("#decoded .aae-row img")
    assert others.count() == 10
    assert agrees(model, pixels(others.nth(3).get_attribute("src")), code, label=3)
    changed(page, "#decoded-image", lambda: page.locator("#new-sample").click())
    slider = page.locator("input[type=range]").nth(1)
    changed(page, "#decoded-image", lambda: slider.fill("0.5"))
    image, code = decoded(page)
    assert code[1] == 0.5
    assert agrees(model, image, code, label=5)


def test_a_drawing_is_seen_rebuilt_and_moved_from(page, model):
    open_tab(page, "Your image")
    changed(page, "#seen", lambda: draw_seven(page))
    seen = pixels(page.get_attribute("#seen", "src"))
    assert np.ptp(np.nonzero(seen > 127)[0]) == 27  # as the digits, which fill their images
    again = 255 * model.reconstruct(seen[None, ..., None])[0, ..., 0]
    assert np.abs(pixels(page.get_attribute("#reconstruction", "src")) - again).max() <= 0.51
    label = int(model.classify(seen[None, ..., None])[0].argmax())
    text = page.locator("#your-result").inner_text()
    code = np.array([float(number) for number in re.search(r"\((.*?)\)", text)[1].split(",")])
    np.testing.assert_allclose(code, model.encode(seen[None, ..., None])[0], atol=0.006)
    changed(page, "#decoded-image", lambda: page.locator("#move").click())
    page.wait_for_selector("#plane img", state="visible")
    moved = pixels(page.get_attribute("#decoded-image", "src"))
    reference = model.decode(model.encode(seen[None, ..., None]), np.array([label]))[0, ..., 0]
    assert np.abs(moved - 255 * reference).max() <= 0.51


def test_wrong_files_are_told_of(page, tmp_path):
    open_tab(page, "Your image")
    (tmp_path / "text.png").write_text("only a text")
    with open(tmp_path / "huge.png", "wb") as huge:
        huge.truncate(11 * 2**20)
    chooser, alert = page.locator(".aae-pad input"), page.locator(".aae-pad [role=alert]")
    for name, message in (("text.png", "is no picture"), ("huge.png", "is larger than 10 MB")):
        chooser.set_input_files(tmp_path / name)
        alert.filter(has_text=message).wait_for()
    content = np.zeros((60, 90, 3), np.uint8)
    content[10:50, 40:50] = 255
    cv2.imwrite(str(tmp_path / "right.png"), content)
    changed(page, "#seen", lambda: chooser.set_input_files(tmp_path / "right.png"))


def test_the_way_between_two_images(page, model):
    open_tab(page, "Between")
    page.get_by_label("great circle").check()
    page.locator("#go-between").click()
    page.wait_for_selector("#between .aae-download")
    images = [pixels(image.get_attribute("src")) for image in page.locator("#between .aae-row img").all()]
    assert len(images) == 11
    again = 255 * model.reconstruct(np.array([images[0], images[-1]])[..., None])[..., 0]
    assert np.abs(images[1] - again[0]).max() <= 1
    assert np.abs(images[-2] - again[1]).max() <= 1
    links = page.locator("#between .aae-download")
    sheet, moving = (pixels(links.nth(index).get_attribute("href")) for index in (0, 1))
    assert sheet.shape == (224, 9 * 224)
    np.testing.assert_array_equal(sheet[::8, :224:8], images[1])
    assert moving.shape[1] == 224
    page.get_by_label("your image").first.check()
    page.locator("#go-between").click()
    page.get_by_text("There is no image of yours yet").first.wait_for()


def test_another_run_comes_beside_it(page):
    open_tab(page, "Run")
    page.wait_for_selector("#curves img", state="visible")
    assert "test_error_percent" in page.locator("#figures").inner_text()
    page.get_by_label("Another run beside it").click()
    changed(page, "#curves img", lambda: page.get_by_role("option", name="second").click())
    page.get_by_role("columnheader", name="second").wait_for()


def test_a_gigabyte_is_refused_unread(address):
    """By its length alone: the rest is never sent."""
    request = urllib.request.Request(f"{address}/gradio_api/upload", data=b"x", method="POST")
    request.add_unredirected_header("Content-Length", str(2**30))
    with pytest.raises(urllib.error.HTTPError, match="413") as refused:
        urllib.request.urlopen(request, timeout=60)
    assert "More than 16 MB cannot be sent here" in refused.value.read().decode()
    assert urllib.request.urlopen(address, timeout=60).status == 200


def test_a_port_in_use_is_one_line(run, address):
    port = address.rpartition(":")[2]
    command = [sys.executable, "main.py", "--explore", "--run_dir", str(run), "--explore_port", port]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1)
    assert "Choose another --explore_port" in ended.stderr
