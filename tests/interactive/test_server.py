"""Who may ask the server of the page for anything: the page itself."""

import asyncio
import threading

import pytest

pytest.importorskip("bokeh", reason="the page needs the extra `app` (Bokeh)")

from tornado.httpclient import AsyncHTTPClient, HTTPRequest
from tornado.websocket import websocket_connect

from fsis_jax.app.server import PageServer
from fsis_jax.app.uploads import UPLOAD, UploadHandler
from fsis_jax.errors import FsisError


@pytest.fixture(scope="module")
def server():
    """Serves empty documents, in a thread."""
    made = []
    ready = threading.Event()

    def serve():
        made.append(PageServer(lambda document: None))
        ready.set()
        made[0].run()

    thread = threading.Thread(target=serve)
    thread.start()
    assert ready.wait(60)
    yield made[0]
    made[0].stop()
    thread.join(60)
    assert not thread.is_alive()


def status(url, **headers):
    """Of a GET."""

    async def get():
        return (await AsyncHTTPClient().fetch(HTTPRequest(url, headers=headers), raise_error=False)).code

    return asyncio.run(get())


def test_the_page_and_its_code_are_served(server):
    assert server.url.startswith(f"http://127.0.0.1:{server.port}/")
    assert status(server.url) == 200
    assert status(f"{server.url}static/js/bokeh.min.js") == 200
    assert status(server.url.replace("127.0.0.1", "localhost")) == 200


@pytest.mark.parametrize("path", ["", "x/", "static/js/bokeh.min.js", "ws", "autoload.js", "favicon.ico"])
def test_without_the_token_there_is_nothing(server, path):
    assert status(f"http://127.0.0.1:{server.port}/{path}") == 403


@pytest.fixture
def uploads(session):
    """The address of a server that takes images for a session."""
    made, ready = [], threading.Event()

    def serve():
        handlers = [(UPLOAD, UploadHandler, {"session": session})]
        made.append(PageServer(lambda document: None, handlers=handlers))
        ready.set()
        made[0].run()

    thread = threading.Thread(target=serve)
    thread.start()
    assert ready.wait(60)
    yield f"{made[0].url}upload"
    made[0].stop()
    thread.join(60)


def post(url, name, body, **headers):
    """Status and text."""

    async def send():
        request = HTTPRequest(f"{url}?name={name}", method="POST", body=body, headers=headers)
        return await AsyncHTTPClient().fetch(request, raise_error=False)

    answer = asyncio.run(send())
    return answer.code, answer.body.decode()


@pytest.mark.usefixtures("quick_compile")
def test_images_are_taken(uploads, session, folder, monkeypatch):
    data = (folder / "a.png").read_bytes()
    assert post(uploads, "x.png", data) == (200, str(folder / "out/uploads/x.png"))
    assert (folder / "out/uploads/x.png").read_bytes() == data
    code, text = post(uploads, "broken.png", b"nothing")
    assert code == 400
    assert "broken.png: " in text
    assert post(uploads, "x.exe", data)[0] == 400
    assert post(uploads, "y.png", data, Origin="http://evil.example")[0] == 403
    assert post(uploads.replace("/upload", "x/upload"), "y.png", data)[0] == 403
    assert status(uploads) == 405
    monkeypatch.setattr("fsis_jax.app.uploads.MOST_BYTES", 10)
    code, text = post(uploads, "y.png", data)
    assert code == 400
    assert "y.png: larger than" in text
    assert [file.name for file in (folder / "out/uploads").iterdir()] == ["x.png"]


def test_each_address_has_a_token_of_its_own(server):
    token = server.url.rstrip("/").rpartition("/")[2]
    assert len(token) >= 32
    assert status(server.url.replace(token, token[:-1])) == 403
    assert status(server.url.replace(token, token.swapcase())) == 403


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "127.0.0.1:1"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
    ],
)
def test_another_host_or_origin_is_refused(server, headers):
    assert status(server.url, **headers) == 403
    assert status(f"{server.url}static/js/bokeh.min.js", **headers) == 403


def test_a_socket_is_opened_for_the_page_alone(server, monkeypatch):
    monkeypatch.setenv("BOKEH_ALLOW_WS_ORIGIN", "evil.example")  # which Bokeh alone would heed

    async def connect():
        url = f"{server.url}ws".replace("http:", "ws:")
        await websocket_connect(HTTPRequest(url, headers={"Origin": "http://evil.example"}))

    with pytest.raises(Exception, match="403"):
        asyncio.run(connect())


# Tornado leaves the socket that it cannot bind to the collector.
@pytest.mark.filterwarnings("ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning")
def test_an_address_in_use_is_told(server):
    with pytest.raises(FsisError, match="cannot listen there"):
        PageServer(lambda document: None, port=server.port)


@pytest.fixture
def serve():
    """Starts a server in a thread; its address."""
    made, threads = [], []

    def start(host, port=0):
        ready = threading.Event()

        def run():
            made.append(PageServer(lambda document: None, host, port))
            ready.set()
            made[-1].run()

        threads.append(threading.Thread(target=run))
        threads[-1].start()
        assert ready.wait(60)
        return made[-1]

    yield start
    for server, thread in zip(made, threads, strict=True):
        server.stop()
        thread.join(60)


@pytest.mark.parametrize(("host", "asked"), [("LOCALHOST", "LocalHost"), ("127.1", "127.0.0.1")])
def test_an_address_is_served_however_it_is_written(serve, host, asked):
    server = serve(host)
    assert server.is_local
    assert status(server.url) == 200
    assert status(server.url, Host=f"{asked}:{server.port}", Origin=f"http://{asked}:{server.port}") == 200
    assert status(server.url, Host=f"evil.example:{server.port}") == 403


def test_browsers_do_not_name_the_port_of_http(serve, monkeypatch):
    first = serve("127.0.0.1")
    assert status(first.url, Host="127.0.0.1") == 403
    first.stop()
    monkeypatch.setattr("fsis_jax.app.server._HTTP", first.port)
    again = serve("127.0.0.1", first.port)
    assert status(again.url, Host="127.0.0.1", Origin="http://127.0.0.1") == 200
    assert status(again.url, Host="evil.example") == 403


@pytest.mark.parametrize("host", ["0.0.0.0", "0", ""])
def test_an_address_that_stands_for_all_is_refused(host):
    with pytest.raises(FsisError, match="stands for all addresses of this machine"):
        PageServer(lambda document: None, host)
