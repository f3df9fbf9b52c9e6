import errno
import os
import signal
import subprocess
import sys
import time
import tomllib

import pytest
from absl import flags
from conftest import ROOT

from runtime import console
from training import progress


@pytest.mark.parametrize(
    "error, code",
    [
        (ValueError("wrong,\nexpected one"), 2),
        (FileNotFoundError("no such file"), 2),
        (OSError(errno.ENOSPC, "No space left on device"), 1),
        (RuntimeError("too many"), 1),
        (KeyboardInterrupt(), 130),
    ],
)
def test_errors_are_one_line_and_a_code(error, code, capsys):
    with pytest.raises(SystemExit) as end, console.user_errors():
        raise error
    lines = capsys.readouterr().err.splitlines()
    assert end.value.code == code
    assert len(lines) == 1 and lines[0].startswith("error: ")


def test_a_strangers_names_do_not_move_the_cursor(capsys):
    assert console.printable("caf\u00e9 \x1b[2J\r\udcff") == "caf\u00e9 \\x1b[2J\\r\\udcff"
    with pytest.raises(SystemExit):
        console.fail("no class \x1b[31mred")
    assert capsys.readouterr().err == "error: no class \\x1b[31mred\n"


def test_a_name_is_one_line_of_utf8():
    assert console.one_line("\u732b\u3000$1\u00a0\U0001f468\u200d\u2069\t\\n") == (
        "\u732b\u3000$1\u00a0\U0001f468\u200d\u2069\t\\n"
    )
    breaks = "".join(chr(code) for code in range(0x10000) if len(f"{chr(code)}.".splitlines()) > 1)
    assert console.one_line(f"a\r\nb\n\nc{breaks}") == "a b  c" + " " * len(breaks)
    assert console.one_line("caf\udce9") == "caf\\udce9"


@pytest.fixture
def hangups():
    """SIGHUP is not ignored, and changes nothing."""
    before = signal.signal(signal.SIGHUP, lambda number, frame: None)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_unwinds_and_the_handler_comes_back(number, hangups):
    before, cleaned = signal.getsignal(number), []
    with pytest.raises(SystemExit) as end, console.user_errors():
        try:
            os.kill(os.getpid(), number)
            time.sleep(1)
        finally:
            os.kill(os.getpid(), signal.SIGHUP)  # of a terminal that closes there may be two
            cleaned.append(True)
    assert end.value.code == 128 + number and cleaned
    assert signal.getsignal(number) == before


def test_what_nohup_ignores_stays_ignored(hangups):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    assert signal.SIGHUP not in console.stop_signals()
    with console.user_errors():
        os.kill(os.getpid(), signal.SIGHUP)
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


WAITING = """import os, signal, sys
from runtime import console
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
interrupts = console.Interrupts("stopping\\n")
for number in map(int, sys.argv[1:]):
    os.kill(os.getpid(), number)
print(interrupts.received)
"""


@pytest.mark.parametrize(
    "numbers, code, line",
    [
        ([signal.SIGHUP], 0, "1"),
        ([signal.SIGHUP, signal.SIGHUP, signal.SIGHUP], 0, "1"),
        ([signal.SIGTERM, signal.SIGHUP], 0, "15"),  # systemd sends both
        ([signal.SIGHUP, signal.SIGTERM], 143, ""),
        ([signal.SIGINT, signal.SIGINT], 130, ""),
    ],
)
def test_a_second_signal_ends_at_once_but_a_second_hangup_does_not(numbers, code, line):
    command = [sys.executable, "-c", WAITING, *(str(int(number)) for number in numbers)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (code, line)
    assert done.stderr == "stopping\n"


WORKING = """import pathlib, sys
from runtime import console
def main(argv):
    for number in range(20_000):
        print(number)
        print(number, file=sys.stderr)
    pathlib.Path(argv[1]).write_text("done")
console.run(main, exit_on_closed_pipe=%s)
"""


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_work_goes_on_when_nobody_reads_of_it(stream, tmp_path):
    script, file = WORKING % False, tmp_path / "file"
    streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, stream: subprocess.PIPE}
    process = subprocess.Popen([sys.executable, "-c", script, file], cwd=ROOT, **streams)
    reader = getattr(process, stream)
    assert reader.readline() == b"0\n"
    reader.close()  # as `| head -n 1` does
    assert process.wait() == 0 and file.read_text() == "done"


def test_work_goes_on_when_its_terminal_is_gone(tmp_path):
    script, file = WORKING % False, tmp_path / "file"
    reading, terminal = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", script, file], cwd=ROOT, stdout=terminal, stderr=terminal
    )
    os.close(terminal)
    assert os.read(reading, 1) == b"0"
    os.close(reading)
    assert process.wait() == 0 and file.read_text() == "done"


def test_what_only_shows_something_ends_quietly_when_nobody_reads_it(tmp_path):
    script, file = WORKING % True, tmp_path / "file"
    with open(tmp_path / "errors", "w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-c", script, file], cwd=ROOT, stdout=subprocess.PIPE, stderr=errors
        )
    assert process.stdout.readline() == b"0\n"
    process.stdout.close()
    assert process.wait() == 128 + signal.SIGPIPE and not file.exists()
    assert (tmp_path / "errors").read_text().replace("\n", "").isdecimal()  # its own lines alone


@pytest.mark.slow
def test_tools_end_quietly_when_nobody_reads_them(tmp_path):
    tools = [
        ["classify.py", "--checkpoint=weights/lenet5_digits.safetensors", "data/samples"],
        ["-m", "data.doctor", "digits"],
    ]
    reading, writing = os.pipe()
    os.close(reading)
    streams = {"stdout": writing, "stderr": subprocess.PIPE}
    found = [subprocess.Popen([sys.executable, *words], cwd=ROOT, **streams) for words in tools]
    os.close(writing)
    for process in found:
        assert process.communicate()[1] == b""
        assert process.returncode == 128 + signal.SIGPIPE


@pytest.mark.parametrize("version", [(3, 10), (3, 14), (2, 7)])
def test_another_python_is_one_error_line(version):
    script = (
        f"import sys; sys.version_info = {(*version, 0)}\n"
        "try:\n    import train\n"
        "finally:\n    assert 'tensorflow' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    received = ".".join(map(str, version))
    assert done.returncode == 2
    assert done.stderr == f"error: expected Python 3.11 to 3.13, received {received}\n"


def test_the_pythons_are_those_of_the_project():
    about = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    first, end = (".".join(map(str, version)) for version in console.PYTHONS)
    assert about["requires-python"] == f">={first},<{end}"


@pytest.fixture
def flag_values():
    values = flags.FlagValues()
    flags.DEFINE_integer("number", 7, "", flag_values=values, lower_bound=1)
    return values


def test_flags_can_be_parsed_again(flag_values):
    assert console.parse(["x", "--number=3", "a", "b"], flag_values) == ["a", "b"]
    assert flag_values.number == 3
    assert console.parse(["x"], flag_values) == []
    assert flag_values.number == 7 and not flag_values["number"].present


def test_a_leading_tilde_is_the_home_folder(flag_values, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    flags.DEFINE_string("data", None, "", flag_values=flag_values)
    words = ["x", "--data=~/pictures", "~/a.jpg", "b~", "~"]
    assert console.parse(words, flag_values) == ["/home/me/a.jpg", "b~", "/home/me"]
    assert flag_values.data == "/home/me/pictures"
    parser = console.Parser()
    parser.add_argument("source")
    parser.add_argument("--count", type=int)
    arguments = parser.parse_args(["~/pictures", "--count=3"])
    assert (arguments.source, arguments.count) == ("/home/me/pictures", 3)


def test_a_built_in_word_that_is_a_path_here_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    console.refuse_ambiguous("digits", "digits", "--data=")  # there is nothing of that name
    (tmp_path / "digits").mkdir()
    for value in ("./digits", "others", None):
        console.refuse_ambiguous(value, "digits", "--data=")
    with pytest.raises(ValueError, match=r"--data=digits is built in.*expected --data=\./digits"):
        console.refuse_ambiguous("digits", "digits", "--data=")


@pytest.mark.parametrize("word", ["--number=0", "--number=x", "--nothing=1"])
def test_a_wrong_flag_is_a_user_error(word, flag_values, capsys):
    with pytest.raises(SystemExit) as end:
        console.parse(["x", word], flag_values)
    assert end.value.code == 2
    assert word.strip("-").partition("=")[0] in capsys.readouterr().err


def test_an_import_is_quiet_unless_it_fails(capfd):
    with console.quiet_import():
        os.write(2, b"noise\n")
    assert capfd.readouterr().err == ""
    with pytest.raises(ImportError), console.quiet_import():
        os.write(2, b"why\n")
        raise ImportError
    assert capfd.readouterr().err == "why\n"
    print("after", file=sys.stderr)
    assert capfd.readouterr().err == "after\n"


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_line_is_one_write(stream, unbuffered):
    """So that those of several processes in one log stay whole."""
    script = (
        "import sys, time\nfrom runtime import console\n"
        "def main(argv):\n"
        f"    print('one line', file=sys.{stream})\n"
        "    time.sleep(100)\n"
        "console.run(main)"
    )
    reading, writing = os.pipe2(os.O_DIRECT)  # what is read at once was written at once
    command, variables = [sys.executable, "-c", script], {"PYTHONUNBUFFERED": unbuffered}
    with subprocess.Popen(
        command, cwd=ROOT, env=os.environ | variables, **{stream: writing}
    ) as process:
        assert os.read(reading, 100) == b"one line\n"
        process.kill()
    os.close(reading)
    os.close(writing)


def test_the_meter_leaves_the_tracing_call_out():
    meter = progress.Meter()
    meter.add(10, 5.0, 1.0)
    assert (meter.images_per_second, meter.input_wait_fraction) == (2.0, 0.2)
    meter.add(10, 1.0, 0.5)
    meter.add(20, 2.0, 0.1)
    assert meter.images_per_second == 10.0
    assert meter.input_wait_fraction == pytest.approx(0.2)
    meter.reset()
    meter.add(8, 2.0, 0.0)
    assert meter.images_per_second == 4.0
