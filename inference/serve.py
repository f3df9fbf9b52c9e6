"""Serves a local web page that classifies uploaded images and shows Grad-CAM heat maps."""

import base64
import http
import io
import ipaddress
import logging
import secrets
import socket
import threading
from pathlib import Path
from urllib.parse import urlsplit

import flask
import waitress
import werkzeug.exceptions

from data.sources import sources
from inference import classifier, loading
from report import overlay

_PAGE = "serve.html"
_THREADS = 8  # one predicts, the others serve the page or wait for their turn
_QUEUE_TIMEOUT = 30  # seconds that a request waits for its turn
_MAX_FILES = 100
_CONNECTIONS = 20
_BODY_MARGIN = 1 << 20  # bytes that the server accepts above the limit, so that Flask refuses them
_POLICY = (  # Content-Security-Policy of the page
    "default-src 'none'; script-src {own}; style-src {own}; img-src blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class _Request(flask.Request):
    """A request that keeps uploads in memory, never in temporary files."""

    def _get_file_stream(self, *description: object, **more: object) -> io.BytesIO:
        return io.BytesIO()


class _App(flask.Flask):
    request_class = _Request


def serve(network: loading.Trained, *, host: str, port: int, max_megabytes: int, **options) -> None:
    """Serves the page until the process is interrupted.

    Args:
        network: Trained network.
        host: Address to listen on.
        port: Port to listen on; 0 for any free port.
        max_megabytes: Largest request in MiB.
        **options: Options of `classifier.Classifier`.

    Raises:
        OSError: If the address or port is not available.
    """
    listener = _listen(host, port)
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # it warns of every queued request
    with classifier.Classifier(network, explains=True, **options) as image_classifier:
        app = Page(image_classifier, host=host, max_megabytes=max_megabytes).app()
        max_bytes = (max_megabytes << 20) + _BODY_MARGIN
        server = waitress.create_server(
            app,
            sockets=[listener],
            threads=_THREADS,
            connection_limit=_CONNECTIONS,
            max_request_body_size=max_bytes,
            inbuf_overflow=max_bytes + _BODY_MARGIN,  # larger bodies would spill to disk
            ident=None,
        )
        server_thread = threading.Thread(target=server.run, daemon=True)
        server_thread.start()
        shown_host = f"[{host}]" if ":" in host else host
        print(f"http://{shown_host}:{listener.getsockname()[1]}  (Ctrl-C ends it)", flush=True)
        server_thread.join()  # Ctrl-C interrupts the main thread here


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        reason = (error.strerror or str(error)).partition(" (while")[0]
        raise OSError(f"cannot listen on {host} port {port}: {reason}") from error


class Page:
    """The web page and its requests."""

    def __init__(
        self, image_classifier: classifier.Classifier, *, host: str, max_megabytes: int
    ) -> None:
        """Sets the classifier, which answers one request at a time.

        Args:
            image_classifier: Classifier with `explains`.
            host: Host name that requests may use besides IP addresses and "localhost".
            max_megabytes: Largest request in MiB.
        """
        self._classifier = image_classifier
        self._host, self._max_megabytes = host, max_megabytes
        self._request_lock = threading.Lock()

    def app(self) -> flask.Flask:
        """Returns the page as a WSGI application."""
        app = _App(__name__, template_folder=Path(__file__).parent, static_folder=None)
        app.config["MAX_CONTENT_LENGTH"] = self._max_megabytes << 20
        app.json.sort_keys = False
        app.before_request(self._refuse_foreign_requests)
        app.add_url_rule("/", view_func=self._page)
        app.add_url_rule("/classify", view_func=self._classify, methods=["POST"])
        app.register_error_handler(werkzeug.exceptions.HTTPException, self._refused)
        app.after_request(_add_security_headers)
        return app

    def _refuse_foreign_requests(self) -> None:
        """Refuses requests of foreign pages: DNS rebinding by Host, cross-site by Origin."""
        if not _is_ours(flask.request.host, self._host):
            flask.abort(403, "open the page by its address in digits, or as localhost")
        origin = flask.request.headers.get("Origin")
        if origin and origin != flask.request.host_url.rstrip("/"):
            flask.abort(403, f"pages of {origin} may not use this page")

    def _page(self) -> flask.Response:
        nonce = secrets.token_urlsafe(16)
        network = self._classifier.network
        text = flask.render_template(
            _PAGE,
            nonce=nonce,
            network=network.name,
            classes=len(network.class_names),
            max_megabytes=self._max_megabytes,
        )
        response = flask.make_response(text)
        response.headers["Content-Security-Policy"] = _POLICY.format(own=f"'nonce-{nonce}'")
        return response

    def _classify(self) -> dict:
        files = flask.request.files.getlist("image")
        if not files:
            flask.abort(400, "expected one picture or more in the form's field image")
        if len(files) > _MAX_FILES:
            flask.abort(400, f"expected {_MAX_FILES} pictures at most, received {len(files)}")
        uploads = [sources.Upload(file.filename or "picture", file.read()) for file in files]
        explains = flask.request.form.get("explain") == "1"
        if not self._request_lock.acquire(timeout=_QUEUE_TIMEOUT):
            flask.abort(503, "busy with other pictures: try again")
        try:
            answers = list(self._classifier.answers(uploads))
        finally:
            self._request_lock.release()
        return {"results": [_result(self._classifier, answer, explains) for answer in answers]}

    def _refused(self, error: werkzeug.exceptions.HTTPException) -> tuple[dict, int]:
        if error.code == http.HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            return {"error": f"more than {self._max_megabytes} MB at once"}, error.code
        return {"error": error.description}, error.code


def _add_security_headers(response: flask.Response) -> flask.Response:
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Cross-Origin-Resource-Policy"] = "same-origin"
    response.headers["Referrer-Policy"] = "no-referrer"
    response.headers["Cache-Control"] = "no-store"
    return response


def _is_ours(address: str, host: str) -> bool:
    """Whether a request's Host header names this server, as a guard against DNS rebinding."""
    try:
        name = urlsplit(f"//{address}").hostname or ""
        if name in ("localhost", host.lower()):
            return True
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _result(
    image_classifier: classifier.Classifier, answer: classifier.Answer, explains: bool
) -> dict:
    """Returns an answer as `classify.py --json` does, with "view" and heat map as data URLs."""
    result = image_classifier.described(answer)
    if explains and not answer.error:
        result["view"] = _data_url(overlay.png(overlay.enlarged(answer.view)))
        result["explained"] = {
            "class": image_classifier.name_of(answer.label),
            "picture": _data_url(classifier.explanation(answer)),
        }
    return result


def _data_url(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
