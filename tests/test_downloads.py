"""downloads: published weights come once, whole and checked, from a server or by hand."""

import concurrent.futures
import contextlib
import hashlib
import http.server
import io
import multiprocessing
import random
import re
import socket
import threading
import time
import zipfile

import pytest

from models.tools import downloads, transfer
from runtime import extras

CONTENT = random.Random(0).randbytes(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
SHA1 = hashlib.sha1(CONTENT).hexdigest()
NAME = "net-1234.pth"
BY_HAND = "or give --model=NAME --init_from=SOURCE:FILE"
REPOSITORY = "owner/net.tag"
HUB_FILE = f"/{REPOSITORY}/resolve/main/model.safetensors"
COMMIT = "c0ffee" + 34 * "0"


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers with `server.contents[path]`; notes which ranges of them were asked for."""

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        if self.path in self.server.contents:
            self.server.ranges.append(self.headers["Range"])
        self.server.pause.wait()
        self.answer(body=True)

    def answer(self, body):
        if self.path in self.server.moved:
            self.send_response(302)
            self.send_header("Location", self.server.moved[self.path])
            return self.end_headers()
        content = self.server.contents.get(self.path)
        if content is None:
            return self.send_error(404)
        first = self.first()
        if first >= len(content) > 0:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.send_header("Content-Length", "0")
            return self.end_headers()
        self.send_response(206 if first else 200)
        if first:
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        if self.server.says_length:
            self.send_header("Content-Length", str(len(content) - first))
        self.end_headers()
        if body:
            stop = self.server.stops.pop() if self.server.stops else len(content)
            self.wfile.write(content[first:stop])

    def first(self):
        """Where the answer begins: 0 if the server has no ranges, or the file has changed."""
        match = re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "")
        return int(match[1]) if match and self.server.has_ranges else 0

    def log_message(self, *values):
        pass


@contextlib.contextmanager
def serving():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.contents, server.ranges, server.headers = {f"/{NAME}": CONTENT}, [], {}
        server.has_ranges = server.says_length = True
        server.stops, server.moved = [], {}
        server.pause = threading.Event()
        server.pause.set()
        server.root = f"http://127.0.0.1:{server.server_port}"
        server.url = f"{server.root}/{NAME}"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.pause.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def server():
    with serving() as server:
        yield server


@pytest.fixture
def no_server():
    """Address of a port that nobody listens at."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


@pytest.fixture(autouse=True)
def weights(tmp_path, monkeypatch):
    monkeypatch.setenv("CONVNETS_CACHE", str(tmp_path))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return tmp_path / "weights"


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def zipped(*members, method=zipfile.ZIP_DEFLATED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return file.getvalue()


def refused(url, **options):
    """The reason in the one line of the error; the rest says where to put the file."""
    with pytest.raises(downloads.DownloadError) as caught:
        downloads.from_url(url, **options)
    line = str(caught.value)
    place = downloads.folder() / options.get("name", url.rpartition("/")[2].removesuffix(".zip"))
    pattern = rf"cannot download {re.escape(url)} \((.+)\): put the file at {re.escape(str(place))}"
    return re.fullmatch(f"{pattern}, {BY_HAND}", line)[1]


def test_a_file_is_downloaded_once(server, weights, capsys):
    path = downloads.from_url(server.url, hash_prefix=SHA256[:8].upper())
    assert path == weights / NAME == downloads.local(NAME)
    assert path.read_bytes() == CONTENT
    assert names(weights) == [NAME]
    assert capsys.readouterr().err == f"downloading {NAME} (0.3 MB)\n"
    assert downloads.from_url(server.url) == path
    assert server.ranges == [None]


def test_a_terminal_shows_a_bar(server, monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    downloads.from_url(server.url)
    shown = capsys.readouterr().err
    assert f"{NAME}: 100%" in shown and "300k/300k" in shown and "downloading" not in shown


def test_the_name_is_the_callers_or_the_last_part_of_the_address(server, weights):
    server.contents["/a/b%20c.pth?x=1/2"] = CONTENT
    assert downloads.from_url(server.root + "/a/b%20c.pth?x=1/2").name == "b c.pth"
    assert downloads.from_url(server.url, name="mine.pth") == weights / "mine.pth"


def test_a_file_that_was_put_there_needs_no_network(no_server, weights):
    assert downloads.local(NAME) is None
    weights.mkdir()
    (weights / NAME).write_bytes(b"by hand")
    assert downloads.from_url(f"{no_server}/{NAME}").read_bytes() == b"by hand"


@pytest.mark.parametrize("name", ["..", "a/b", "../a", "/a", "a\\b", ""])
def test_a_name_is_no_path(name):
    with pytest.raises(ValueError, match="expected the name of a file"):
        downloads.local(name)


@pytest.mark.parametrize("url", ["http://127.0.0.1/", "http://127.0.0.1/a/..%2Fb", "http://h/%2e."])
def test_an_address_makes_no_path(url):
    with pytest.raises(ValueError, match="expected the name of a file"):
        downloads.from_url(url)


@pytest.mark.parametrize("url", ["file:///etc/hostname", "ftp://127.0.0.1/a", "a.pth"])
def test_only_http_is_asked(url):
    with pytest.raises(ValueError, match="expected http"):
        downloads.from_url(url)


def test_a_broken_download_goes_on_where_it_ended(server, weights, capsys):
    server.stops = [100_000]
    assert refused(server.url, hash_prefix=SHA256) == "expected 300,000 bytes, received 100,000"
    assert names(weights) == [f"{NAME}.part"]
    path = downloads.from_url(server.url, hash_prefix=SHA256)
    assert server.ranges == [None, "bytes=100000-"]
    assert path.read_bytes() == CONTENT and names(weights) == [NAME]


def test_a_broken_download_of_a_file_that_is_elsewhere_goes_on(server):
    server.moved["/moved.pth"] = server.url
    server.stops = [100_000]
    refused(f"{server.root}/moved.pth", hash_prefix=SHA256)
    path = downloads.from_url(f"{server.root}/moved.pth", hash_prefix=SHA256)
    assert path.name == "moved.pth" and path.read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=100000-"]


def test_a_part_that_is_complete_is_not_downloaded_again(server, weights):
    weights.mkdir()
    (weights / f"{NAME}.part").write_bytes(CONTENT)
    assert downloads.from_url(server.url, hash_prefix=SHA256).read_bytes() == CONTENT
    assert server.ranges == [f"bytes={len(CONTENT)}-"]


@pytest.mark.parametrize("has_ranges", [True, False])
def test_a_part_that_is_longer_than_the_file_is_replaced(server, weights, has_ranges):
    weights.mkdir()
    (weights / f"{NAME}.part").write_bytes(CONTENT + b"more")
    server.has_ranges = has_ranges
    assert downloads.from_url(server.url).read_bytes() == CONTENT
    assert server.ranges == [f"bytes={len(CONTENT) + 4}-", *([None] if has_ranges else [])]


def test_a_server_without_ranges_sends_all_of_it_again(server, weights):
    weights.mkdir()
    (weights / f"{NAME}.part").write_bytes(b"begun")
    server.has_ranges = False
    assert downloads.from_url(server.url).read_bytes() == CONTENT
    assert server.ranges == ["bytes=5-"]


@pytest.mark.parametrize("status", [412, 416, 206])
def test_a_server_that_does_not_go_on_is_asked_for_all_of_it(server, weights, monkeypatch, status):
    """412: the file has changed; 206: of another place than was asked for."""
    conditions = []

    def answer(handler, body):
        if handler.headers["Range"]:
            conditions.append(handler.headers["If-Unmodified-Since"])
            handler.send_response(status)
            handler.send_header("Content-Range", "bytes 0-9/300000" if status == 206 else "")
            return handler.end_headers()
        whole(handler, body)

    whole = Handler.answer
    monkeypatch.setattr(Handler, "answer", answer)
    weights.mkdir()
    (weights / f"{NAME}.part").write_bytes(b"begun")
    assert downloads.from_url(server.url).read_bytes() == CONTENT
    assert server.ranges == ["bytes=5-", None]
    assert re.fullmatch(r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT", conditions[0])


def test_a_wrong_checksum_leaves_nothing(server, weights):
    expected = f"wrong checksum, expected sha256 00112233, received {SHA256[:8]}"
    assert refused(server.url, hash_prefix="00112233") == expected
    assert names(weights) == []
    assert downloads.from_url(server.url, hash_prefix=SHA1[:8], algorithm="sha1").exists()


def test_a_wrong_beginning_is_not_kept(server, weights):
    weights.mkdir()
    (weights / f"{NAME}.part").write_bytes(b"of another file")
    assert refused(server.url, hash_prefix=SHA256[:8]).startswith("wrong checksum")
    assert downloads.from_url(server.url, hash_prefix=SHA256[:8]).read_bytes() == CONTENT


def test_a_file_of_unknown_length_is_downloaded(server):
    server.says_length = False
    assert downloads.from_url(server.url).read_bytes() == CONTENT


def test_what_is_missing_is_named(server, weights):
    assert refused(f"{server.root}/none.pth") == "HTTP 404 Not Found"
    assert names(weights) == []


def test_no_network_is_one_line(no_server, weights):
    assert refused(f"{no_server}/{NAME}") == "Connection refused"
    assert names(weights) == []


def test_a_silent_server_is_not_waited_for(server, monkeypatch):
    monkeypatch.setattr(transfer, "TIMEOUT", 0.1)
    server.pause.clear()
    assert "timed out" in refused(server.url)


def test_one_member_of_an_archive_is_unpacked(server, weights):
    others = ("../escaped.pth", b"x"), ("/etc/escaped", b"x"), ("more.txt", b"x")
    server.contents[f"/{NAME}.zip"] = zipped(*others, (NAME, CONTENT))
    url = f"{server.url}.zip"
    path = downloads.from_url(url, hash_prefix=SHA1[:8], algorithm="sha1", zipped=True)
    assert path == weights / NAME and path.read_bytes() == CONTENT
    assert names(weights) == [NAME] and names(weights.parent) == ["weights"]
    assert downloads.from_url(url, zipped=True) == path
    assert len(server.ranges) == 1


def test_a_broken_download_of_an_archive_goes_on(server, weights):
    server.contents[f"/{NAME}.zip"] = zipped((NAME, CONTENT))
    server.stops = [100_000]
    refused(f"{server.url}.zip", zipped=True)
    assert names(weights) == [f"{NAME}.zip.part"]
    assert downloads.from_url(f"{server.url}.zip", zipped=True).read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=100000-"]


def damaged(archive):
    """An archive with one byte of its member changed."""
    return archive[:2000] + bytes([archive[2000] ^ 1]) + archive[2001:]


def claiming(archive, size):
    """An archive of one stored member whose directory claims another size."""
    return archive.replace(len(CONTENT).to_bytes(4, "little"), size.to_bytes(4, "little"))


STORED = zipped((NAME, CONTENT), method=zipfile.ZIP_STORED)


@pytest.mark.parametrize(
    "archive, reason",
    [
        (b"no archive", "wrong ZIP archive: File is not a zip file"),
        (zipped(), f"expected a ZIP archive of {NAME}, received an empty one"),
        (zipped((f"../{NAME}", b"x")), f"expected a ZIP archive of {NAME}, received ../{NAME}"),
        (zipped((f"/tmp/{NAME}", b"x")), f"expected a ZIP archive of {NAME}, received /tmp/{NAME}"),
        (damaged(STORED), f"wrong ZIP archive: Bad CRC-32 for file '{NAME}'"),
        (claiming(STORED, len(CONTENT) - 1), f"wrong ZIP archive: Bad CRC-32 for file '{NAME}'"),
        (claiming(STORED, len(CONTENT) + 9999), "wrong ZIP archive: EOFError"),
        (zipped((NAME, b"others")), f"wrong checksum, expected sha256 {SHA256[:8]}, received "),
    ],
)
def test_a_wrong_archive_leaves_nothing(server, weights, archive, reason):
    server.contents[f"/{NAME}.zip"] = archive
    assert refused(f"{server.url}.zip", hash_prefix=SHA256[:8], zipped=True).startswith(reason)
    assert names(weights) == [] and names(weights.parent) == ["weights"]


def test_an_archive_does_not_fill_the_disk(server, weights, monkeypatch):
    monkeypatch.setattr(downloads, "_UNPACKED_BYTES", 1_000_000)
    server.contents[f"/{NAME}.zip"] = zipped((NAME, bytes(1_000_001)))
    assert "1,000,001 bytes" in refused(f"{server.url}.zip", zipped=True)
    assert names(weights) == []


@pytest.mark.parametrize("kind", ["threads", "processes"])
@pytest.mark.parametrize("suffix", ["", ".zip"])
def test_a_file_that_two_ask_for_is_downloaded_once(server, weights, kind, suffix):
    server.contents[f"/{NAME}.zip"] = zipped((NAME, CONTENT))
    server.pause.clear()
    start = multiprocessing.get_context("fork").Process if kind == "processes" else threading.Thread
    options = {"hash_prefix": SHA256, "zipped": bool(suffix)}
    both = [
        start(target=downloads.from_url, args=(server.url + suffix,), kwargs=options) for _ in "12"
    ]
    for each in both:
        each.start()
    time.sleep(0.3)  # so that one waits for the other
    server.pause.set()
    for each in both:
        each.join()
    assert [getattr(each, "exitcode", 0) for each in both] == [0, 0]
    assert server.ranges == [None]
    assert names(weights) == [NAME] and (weights / NAME).read_bytes() == CONTENT


def test_who_waited_for_a_download_that_failed_downloads(server, weights, monkeypatch):
    lines, waits = [], threading.Event()
    monkeypatch.setattr(
        transfer, "say", lambda line: (lines.append(line), "waiting" in line and waits.set())
    )
    server.pause.clear()
    server.stops = [0]
    with concurrent.futures.ThreadPoolExecutor() as pool:
        both = [pool.submit(downloads.from_url, server.url) for _ in "12"]
        assert waits.wait(20)
        server.pause.set()
    assert {type(each.exception()) for each in both} == {downloads.DownloadError, type(None)}
    assert f"{NAME}: another process is downloading it, waiting for it" in lines
    assert names(weights) == [NAME] and (weights / NAME).read_bytes() == CONTENT


@pytest.fixture
def hub(server, monkeypatch):
    """A server that plays the hub, with one repository."""
    server.contents[HUB_FILE] = CONTENT
    server.headers |= {"ETag": f'"{SHA256}"', "X-Repo-Commit": COMMIT}
    use_hub(monkeypatch, server.root)
    return server


def use_hub(monkeypatch, root):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", root)
    template = f"{root}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)


def test_a_hubs_file_is_downloaded_once(hub, weights, monkeypatch, no_server, capsys):
    path = downloads.from_hub(REPOSITORY)
    assert path.read_bytes() == CONTENT and path.is_relative_to(weights / "hub")
    assert capsys.readouterr().err == f"downloading model.safetensors of {REPOSITORY}\n"
    use_hub(monkeypatch, no_server)
    assert downloads.from_hub(REPOSITORY) == downloads.from_hub(REPOSITORY, revision=COMMIT) == path
    assert len(hub.ranges) == 1
    assert capsys.readouterr().err == ""


def test_a_broken_download_from_a_hub_is_tried_again(hub):
    hub.stops = [100_000]
    assert downloads.from_hub(REPOSITORY).read_bytes() == CONTENT
    assert len(hub.ranges) == 2


def test_a_revision_is_another_file(hub):
    hub.contents[HUB_FILE.replace("main", "v2")] = CONTENT[:1000]
    hub.headers |= {"ETag": '"other"', "X-Repo-Commit": COMMIT[::-1]}
    assert downloads.from_hub(REPOSITORY, revision="v2").read_bytes() == CONTENT[:1000]


def test_a_hubs_file_that_was_put_there_needs_nothing(weights, monkeypatch):
    monkeypatch.setattr(extras, "require", None)
    weights.mkdir()
    (weights / "net.tag.safetensors").write_bytes(b"by hand")
    assert downloads.from_hub(REPOSITORY).read_bytes() == b"by hand"


def refused_by_hub(*words):
    with pytest.raises(downloads.DownloadError) as caught:
        downloads.from_hub(*words)
    place = downloads.folder() / "net.tag.safetensors"
    pattern = rf"cannot download (.+) of {REPOSITORY} \((.+)\): put the file at {place}, {BY_HAND}"
    return re.fullmatch(pattern, str(caught.value)).groups()


def test_no_hub_is_one_line(weights, monkeypatch, no_server, capsys):
    use_hub(monkeypatch, no_server)
    name, reason = refused_by_hub(REPOSITORY)
    assert name == "model.safetensors" and "refused" in reason
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_what_a_hub_does_not_have_is_one_line(hub):
    name, reason = refused_by_hub(REPOSITORY, "none.safetensors")
    assert name == "none.safetensors" and "404" in reason


def test_a_malformed_repository_is_the_users_mistake():
    with pytest.raises(ValueError, match="a/b/c"):
        downloads.from_hub("a/b/c")


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError) as caught:
        downloads.from_hub(REPOSITORY)
    assert str(caught.value) == (
        "download of owner/net.tag needs huggingface_hub, not installed here: "
        "pip install -r requirements-weights.txt"
    )
