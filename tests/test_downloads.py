"""Published weights are downloaded once, whole and checked, from servers that play theirs."""

import concurrent.futures
import hashlib
import http.server
import io
import random
import threading
import zipfile

import pytest

from models.tools import downloads, published

DATA = random.Random(0).randbytes(2_048_000)
SHA256, SHA1 = hashlib.sha256(DATA).hexdigest(), hashlib.sha1(DATA).hexdigest()


class Server(http.server.BaseHTTPRequestHandler):
    """Serves the class's `files`, as far as `broken` bytes, and notes what is asked for."""

    files, asked, broken, ranges = {}, [], None, True

    def do_HEAD(self):
        self.answer(send=False)

    def do_GET(self):
        self.answer(send=True)

    def answer(self, send):
        kind, path = type(self), self.path.partition("?")[0]
        kind.asked.append((self.command, path, self.headers.get("Range")))
        if path not in kind.files:
            return self.send_error(404)
        data, begin = kind.files[path], 0
        if kind.ranges and (asked := self.headers.get("Range")):
            begin = int(asked.removeprefix("bytes=").partition("-")[0])
            if begin >= len(data):
                return self.send_error(416)
        self.send_response(206 if begin else 200)
        self.send_header("Content-Length", str(len(data) - begin))
        self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        self.send_header("X-Repo-Commit", "0" * 40)
        self.end_headers()
        if send:
            self.wfile.write(data[begin : kind.broken])

    def log_message(self, *args):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setenv("CONVNETS_CACHE", str(tmp_path))
    kind = type("Handler", (Server,), {"files": {}, "asked": []})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), kind) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        kind.address = f"http://127.0.0.1:{running.server_port}"
        yield kind
        running.shutdown()


def fetched(server, name="a.pth", suffix="", checksum=None):
    return downloads.from_url(f"{server.address}/{name}{suffix}", name, checksum)


def test_a_file_is_downloaded_once(server, capsys):
    server.files["/a.pth"] = DATA
    checksum = downloads.Checksum("sha256", SHA256[:8])
    assert fetched(server, checksum=checksum).read_bytes() == DATA
    assert fetched(server, checksum=checksum) == downloads.folder() / "a.pth"
    assert server.asked == [("GET", "/a.pth", None)]
    assert capsys.readouterr().err == f"downloading {server.address}/a.pth, 2.0 MB\n"
    assert {path.name for path in downloads.folder().iterdir()} == {"a.pth", "a.pth.lock"}


@pytest.mark.parametrize("ranges", [True, False])
def test_a_broken_download_goes_on_where_it_broke_off(server, ranges):
    server.files["/a.pth"], server.ranges, server.broken = DATA, ranges, 500_000
    with pytest.raises(downloads.NotDownloaded, match="ended after 500,000 of 2,048,000 bytes"):
        fetched(server)
    assert not (downloads.folder() / "a.pth").exists()
    server.broken = None
    assert fetched(server).read_bytes() == DATA
    assert server.asked[1] == ("GET", "/a.pth", "bytes=500000-")


def test_a_rest_that_the_server_has_not_is_fetched_anew(server):
    server.files["/a.pth"] = DATA
    downloads.folder().mkdir()
    (downloads.folder() / "a.pth.part").write_bytes(DATA + b"more")
    assert fetched(server).read_bytes() == DATA


def test_a_wrong_checksum_is_refused_and_leaves_nothing(server):
    server.files["/a.pth"] = DATA[:-1]
    complaint = f"wrong sha256, expected {SHA256[:8]}..., received .*: put the file at .*a.pth$"
    with pytest.raises(downloads.NotDownloaded, match=complaint):
        fetched(server, checksum=downloads.Checksum("sha256", SHA256[:8]))
    assert [path.name for path in downloads.folder().iterdir()] == ["a.pth.lock"]


def test_what_is_not_there_is_said_in_one_line(server):
    with pytest.raises(downloads.NotDownloaded, match=r"cannot download http.*/a.pth \(Not Found"):
        fetched(server)
    with pytest.raises(
        downloads.NotDownloaded, match="refused.*: put the file at .*a.pth$"
    ) as error:
        downloads.from_url("http://127.0.0.1:9/a.pth", "a.pth")
    assert "\n" not in str(error.value)


def archive(**members):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members.items():
            file.writestr(name.replace("__", "/"), data)
    return stream.getvalue()


def test_a_file_in_an_archive_is_taken_out(server):
    server.files["/a.pth.zip"] = archive(**{"a.pth": DATA, "..__b.pth": b"evil"})
    checksum = downloads.Checksum("sha1", SHA1[:8])
    assert fetched(server, suffix=".zip", checksum=checksum).read_bytes() == DATA
    assert {path.name for path in downloads.folder().iterdir()} == {"a.pth", "a.pth.lock"}


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"no archive", id="no archive"),
        pytest.param(archive(**{"b.pth": DATA}), id="another file"),
        pytest.param(archive(**{"a.pth": DATA, "b__a.pth": DATA}), id="twice"),
        pytest.param(archive(**{"a.pth": bytes(10_000_000)}), id="bomb"),
    ],
)
def test_other_archives_are_refused(server, content):
    server.files["/a.pth.zip"] = content
    with pytest.raises(downloads.NotDownloaded, match="put the file at"):
        fetched(server, suffix=".zip")
    assert not (downloads.folder() / "a.pth").exists()


def test_two_at_once_download_once(server):
    server.files["/a.pth"] = DATA
    with concurrent.futures.ThreadPoolExecutor() as pool:  # a lock holds between threads too
        found = list(pool.map(lambda _: fetched(server).read_bytes(), range(4)))
    assert found == 4 * [DATA] and len(server.asked) == 1


def test_the_tables_files_are_where_the_sources_have_them(server, monkeypatch):
    monkeypatch.setattr(
        published, "_PLACES", dict.fromkeys(published._PLACES, server.address + "/")
    )
    row = published.find("resnet18", "torchvision").row
    server.files["/resnet18-f37072fd.pth"] = DATA
    with pytest.raises(downloads.NotDownloaded, match="wrong sha256, expected f37072fd"):
        published.fetch(row)
    row = published.find("resnet18", "pytorchcv").row
    server.files["/v0.0.478/resnet18-0896-77a56f15.pth.zip"] = archive(
        **{"resnet18-0896-77a56f15.pth": DATA}
    )
    with pytest.raises(downloads.NotDownloaded, match="wrong sha1, expected 77a56f15"):
        published.fetch(row)
    with pytest.raises(ValueError, match="weights of caffe are not downloaded, expected --init_fr"):
        published.fetch(published.find("alexnet", "caffe").row)


def test_the_hub_is_asked_for_timms_weights(server, monkeypatch, tmp_path):
    from huggingface_hub import constants

    tag = "mobilenetv1_100.ra4_e3600_r224_in1k"
    place = f"/timm/{tag}/resolve/main/model.safetensors"
    url = f"{server.address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "ENDPOINT", server.address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url)
    row = published.find("mobilenet_100", "timm").row
    with pytest.raises(downloads.NotDownloaded, match=f"{tag}/model.safetensors .*{tag}.safeten"):
        published.fetch(row)
    server.files[place] = DATA
    assert published.fetch(row).read_bytes() == DATA
    asked = len(server.asked)
    assert published.fetch(row).read_bytes() == DATA and len(server.asked) == asked
    own = downloads.folder() / f"{tag}.safetensors"
    own.write_bytes(b"put there by hand")
    assert published.fetch(row) == own
