"""The page to try a network: its endpoint, what it refuses, and the page in a real browser."""

import base64
import io
import json
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request

import cv2
import numpy as np
import pytest
from conftest import PIPES, ROOT, photograph

from runtime import console

with console.quiet_import():
    from inference import classifier, loading, serve

WEIGHTS = ROOT / "weights" / "lenet5_digits.safetensors"
THREE = ROOT / "data" / "samples" / "digit_3.png"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
DRIVER = shutil.which("chromedriver")


@pytest.fixture(scope="module")
def client():
    """The page without a server."""
    network = loading.open_network(None, loading.Weights(checkpoint=str(WEIGHTS)))
    with classifier.Classifier(network, processes=1, explains=True) as image_classifier:
        yield serve.Page(image_classifier, host="127.0.0.1", max_megabytes=1).app().test_client()


def posted(client, *files, headers=None, **fields):
    images = [(io.BytesIO(data), name) for name, data in files]
    return client.post("/classify", data={"image": images, **fields}, headers=headers)


def picture(address):
    """The picture in a data: address."""
    data = base64.b64decode(address.removeprefix("data:image/png;base64,"))
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)


def test_a_picture_gets_classes_and_a_bad_file_a_reason(client):
    reply = posted(client, ("three.png", THREE.read_bytes()), ("no.jpg", b"no image"))
    assert reply.status_code == 200
    three, bad = reply.json["results"]
    assert set(three) == {"image", "predictions"} and three["image"] == "three.png"
    assert three["predictions"][0]["class"] == "3" and len(three["predictions"]) == 5
    assert set(bad) == {"image", "error"} and "not an image" in bad["error"]


def test_what_speaks_for_the_class_comes_when_asked_for(client):
    (three,) = posted(client, ("three.png", THREE.read_bytes()), explain="1").json["results"]
    assert three["explained"]["class"] == "3"
    shapes = {picture(address).shape for address in (three["view"], three["explained"]["picture"])}
    assert shapes == {(224, 224, 3)}


def test_an_upload_without_a_picture_is_an_error(client):
    reply = client.post("/classify")
    assert reply.status_code == 400 and "image" in reply.json["error"]


def test_an_upload_has_so_many_bytes(client):
    reply = posted(client, ("large.png", bytes(2 << 20)))
    assert reply.status_code == 413 and reply.json == {"error": "more than 1 MB at once"}


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "[", ""])
def test_a_foreign_name_for_this_machine_is_refused(client, host):
    assert client.get("/", headers={"Host": host}).status_code in (400, 403)


@pytest.mark.parametrize("host", ["localhost:8000", "127.0.0.1", "[::1]:8000"])
def test_own_addresses_are_answered(client, host):
    reply = client.get("/", headers={"Host": host})
    assert reply.status_code == 200
    assert "default-src 'none'" in reply.headers["Content-Security-Policy"]
    assert "Access-Control-Allow-Origin" not in reply.headers


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "https://localhost"])
def test_other_pages_may_not_use_it(client, origin):
    reply = posted(client, ("three.png", THREE.read_bytes()), headers={"Origin": origin})
    assert reply.status_code == 403 and origin in reply.json["error"]


@pytest.fixture(scope="module")
def address():
    """The page on a free port: its address; stopped by Ctrl-C, with one line."""
    words = ["--serve", "--port=0", "--max_megabytes=1", f"--checkpoint={WEIGHTS}"]
    words += ["--threshold=0.8"]
    # Who starts the tests in the background has SIGINT ignored.
    code = "import signal, runpy, sys; signal.signal(2, signal.default_int_handler); "
    code += "sys.argv = sys.argv[1:]; runpy.run_path('classify.py', run_name='__main__')"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "classify.py", *words], cwd=ROOT, **PIPES
    )
    line = process.stdout.readline()
    assert line.startswith("http://127.0.0.1:"), process.communicate()
    yield line.split()[0]
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert (process.returncode, errors) == (130, "error: interrupted\n")


def test_the_server_refuses_more_than_it_reads(address):
    request = urllib.request.Request(f"{address}/classify", data=bytes(5 << 20))
    with pytest.raises(OSError) as raised:  # or the connection is reset before the answer is read
        urllib.request.urlopen(request, timeout=20)
    assert getattr(raised.value, "code", 413) == 413
    with urllib.request.urlopen(address, timeout=20) as page:  # it is still there
        assert b"What is in this picture?" in page.read()


def test_a_port_in_use_is_one_error_line(command):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = command("classify.py", "--serve", f"--port={port}", f"--checkpoint={WEIGHTS}")
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == f"error: cannot listen on 127.0.0.1 port {port}: Address already in use\n"


def test_without_its_packages_it_says_how_to_install_them(command, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import importlib.util, sys\nimport classify\nfrom runtime import console\n"
        "importlib.util.find_spec = lambda name: None\n"
        "sys.modules.update(flask=None, waitress=None, werkzeug=None)\n"
        "console.run(classify.main)"
    )
    done = command(script, "--serve", f"--checkpoint={WEIGHTS}")
    assert (done.returncode, done.stdout) == (2, "")
    missing = "--serve needs flask, waitress, werkzeug, not installed here"
    assert done.stderr == f"error: {missing}: pip install -r requirements-serve.txt\n"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Chromium, without a window."""
    if not (CHROMIUM and DRIVER):
        pytest.skip("no chromium and chromedriver on this machine")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    profile = tmp_path_factory.mktemp("profile")
    for word in ("headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run"):
        options.add_argument(f"--{word}")
    for word in ("disable-background-networking", "disable-component-update", "disable-sync"):
        options.add_argument(f"--{word}")
    options.add_argument("--disable-dev-shm-usage")
    options.add_argument(f"--user-data-dir={profile}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


def looks(browser, width, height, scheme="light"):
    """Makes the browser a screen of so many pixels in a colour scheme."""
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def cards(browser, count):
    """The results, the newest first, when there are so many and all are there."""
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    def done(browser):
        found = browser.find_elements(By.CSS_SELECTOR, "#results > .card")
        return found if len(found) == count and not any("..." in c.text for c in found) else None

    return WebDriverWait(browser, 30).until(done)


PASTE = """
const bytes = Uint8Array.from(atob(arguments[0]), (each) => each.charCodeAt(0));
const transfer = new DataTransfer();
transfer.items.add(new File([bytes], arguments[1], {type: "image/png"}));
document.dispatchEvent(arguments[2] == "paste"
  ? new ClipboardEvent("paste", {clipboardData: transfer, bubbles: true})
  : new DragEvent("drop", {dataTransfer: transfer, bubbles: true, cancelable: true}));
"""
LOADED = "return [...document.images].every((image) => image.complete && image.naturalWidth > 0)"


def test_the_page_in_a_browser(address, browser, tmp_path):
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "huge.bmp").write_bytes(bytes(2 << 20))
    noise = cv2.imencode(".tiff", photograph(4))[1].tobytes()  # of no kind that Chromium shows
    (tmp_path / "noise.tiff").write_bytes(noise)
    looks(browser, 1200, 900)
    browser.get(address)
    browser.save_screenshot(str(tmp_path / "empty.png"))
    choose = browser.find_element("css selector", "#drop input")
    choose.send_keys("\n".join(str(tmp_path / name) for name in ("notes.txt", "huge.bmp")))
    huge, notes = cards(browser, 2)
    assert "larger than 1 MB" in huge.text and "not an image of a known format" in notes.text
    choose.send_keys(str(tmp_path / "noise.tiff"))
    choose.send_keys(str(THREE))
    three, noise = cards(browser, 4)[:2]
    first = three.find_element("css selector", "li")
    assert first.text.splitlines()[:2] == ["3", "99.97 %"] and "digit_3.png" in three.text
    assert "evidence for 3" in three.text and "unsure" not in three.text
    assert "unsure" in noise.text and "noise.tiff" in noise.text
    for event, count in (("paste", 5), ("drop", 6)):
        encoded = base64.b64encode(THREE.with_name("digit_7.png").read_bytes()).decode()
        browser.execute_script(PASTE, encoded, f"{event}.png", event)
        newest = cards(browser, count)[0]
        assert f"{event}.png" in newest.text and "evidence for 7" in newest.text
    assert browser.execute_script(LOADED)
    for name, *screen in (
        ("desktop", 1200, 1500),
        ("dark", 1200, 1500, "dark"),
        ("phone", 390, 1800),
    ):
        looks(browser, *screen)
        wide = "return document.documentElement.scrollWidth <= window.innerWidth"
        assert browser.execute_script(wide)
        browser.save_screenshot(str(tmp_path / f"{name}.png"))
    complaints = [entry["message"] for entry in browser.get_log("browser")]
    assert complaints == []


def test_the_example_of_the_readme_is_json(address):
    boundary = "x1"
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="3.png"\r\n\r\n'
    body = head.encode() + THREE.read_bytes() + f"\r\n--{boundary}--\r\n".encode()
    kind = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    request = urllib.request.Request(f"{address}/classify", data=body, headers=kind)
    with urllib.request.urlopen(request, timeout=20) as reply:
        (result,) = json.load(reply)["results"]
    assert result["predictions"][0]["class"] == "3" and result["unsure"] is False
