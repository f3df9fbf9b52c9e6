"""The page about runs: complete, self-contained, and fit to be looked at."""

import json
import os
import re
import shutil
import subprocess

import cv2
import pytest

from report import page

CHROMIUM = shutil.which("chromium")
# Title, width, height, whether the system asks for dark pages.
SCREENS = [("desktop", 1280, 1600, False), ("phone", 500, 1600, False), ("dark", 1280, 1600, True)]


@pytest.fixture(scope="module")
def run(command, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("report") / "a <b>run</b>"
    assert command("train.py", "--epochs=2", f"--run_dir={run_dir}").returncode == 0
    assert command("test.py", run_dir).returncode == 0
    done = command("-m", "report", run_dir)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"page: {run_dir}/report.html\n"
    return run_dir


def test_it_holds_everything_and_needs_nothing(run):
    html = (run / "report.html").read_text()
    assert "<b>run</b>" not in html  # names are text
    assert not re.search(r'(src|href)="(?!data:|#)', html) and "http" not in html
    tested = json.loads((run / "test.json").read_text())
    assert f"<b>{100 * tested['top1_accuracy']:.2f} %</b>" in html
    for title in ("Curves", "Confusion matrix", "Calibration", "First-layer filters"):
        assert f"<h2>{title}</h2>" in html
    for title in ("Most confused", "The worst mistakes", "Classes", "Again", "Settings"):
        assert f"<h2>{title}</h2>" in html
    listed = json.loads((run / "test" / "mistakes" / "mistakes.json").read_text())
    assert html.count("data:image/jpeg;base64,") == len(listed) > 0
    assert "python train.py --epochs=2" in html and "learning_rate" in html


def test_a_run_that_was_not_tested_has_a_page_too(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "test")
    (tmp_path / "run" / "test.json").unlink()
    html = page.page([tmp_path / "run"])
    assert "best validation top-1" in html and "top-1 accuracy<b>" not in html
    assert "worst mistakes" not in html and "<h2>Confusion matrix</h2>" in html


def test_names_that_are_no_text_have_escapes(run, command, tmp_path):
    """As those of a folder, or of classes before a class name was always text."""
    other = shutil.copytree(run, tmp_path / os.fsdecode(b"caf\xe9"))
    listed = json.loads((other / "test" / "mistakes" / "mistakes.json").read_text())
    rows = [{**row, "label": "\u732b \udce9"} for row in listed]
    (other / "test" / "mistakes" / "mistakes.json").write_text(json.dumps(rows))
    for module, page_file in (("report", "one.html"), ("report.compare", "both.html")):
        words = [other, run] if module == "report.compare" else [other]
        done = command("-m", module, *words, f"--output={tmp_path / page_file}")
        assert done.returncode == 0 and done.stderr == "", done.stderr
        assert "caf\\udce9" in (tmp_path / page_file).read_text(encoding="utf-8")
    assert "\u732b \\udce9" in (tmp_path / "one.html").read_text(encoding="utf-8")


def test_several_runs_are_compared_on_top(run, command, tmp_path):
    other = tmp_path / "other"
    assert command("train.py", "--epochs=1", f"--run_dir={other}", "--seed=1").returncode == 0
    html = page.page([run, other])
    assert "2 runs compared" in html and html.count("<article") == 2
    assert "validation top-1 accuracy" in html


def test_what_is_no_run_is_refused(run, command, tmp_path):
    done = command("-m", "report", tmp_path)
    assert done.returncode == 2 and done.stderr.startswith("error: no run.json in ")
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / "test.json").write_text('{"top1_accuracy": 1}')
    done = command("-m", "report", tmp_path / "run")
    assert done.returncode == 2 and "test.py writes it anew" in done.stderr


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed")
@pytest.mark.parametrize("name, width, height, dark", SCREENS, ids=[row[0] for row in SCREENS])
def test_it_is_shown(run, tmp_path, name, width, height, dark):
    """The page is not wider than the screen, and follows the system's colours."""
    picture = tmp_path / f"{name}.png"
    words = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    words += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    words += [f"--user-data-dir={tmp_path}/browser", f"--window-size={width},{height}"]
    words += ["--blink-settings=preferredColorScheme=0"] * dark
    words += [f"--screenshot={picture}", f"file://{run}/report.html"]
    subprocess.run([CHROMIUM, *words], check=True, capture_output=True, timeout=60)
    shown = cv2.imread(str(picture))
    assert shown.shape[:2] == (height, width)
    corner = shown[2, 2].mean()
    assert corner < 60 if dark else corner > 250
    assert shown[:400].std() > 5
