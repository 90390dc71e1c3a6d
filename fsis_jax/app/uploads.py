"""Images that are dropped on the page: a request each, written to the disk as it comes in."""

from typing import Any

from tornado.httputil import HTTPServerRequest
from tornado.web import Application, RequestHandler, stream_request_body

from fsis_jax.errors import FsisError
from fsis_jax.interactive.receiving import MOST_BYTES, Received, too_large
from fsis_jax.interactive.session import Session

UPLOAD = "/upload"
"""Path of the request, after the token."""


@stream_request_body
class UploadHandler(RequestHandler):
    """POST of the bytes of a file, `?name=`; answers with its path, or with status 400 and what is wrong in a line."""

    def __init__(self, application: Application, request: HTTPServerRequest, **kwargs: Any) -> None:
        self._received: Received | None = None
        super().__init__(application, request, **kwargs)

    def initialize(self, session: Session) -> None:
        self._session = session

    def prepare(self) -> None:
        if self.request.method == "POST":
            self.request.connection.set_max_body_size(MOST_BYTES)
            name = self.get_query_argument("name", "")
            try:
                if int(self.request.headers.get("Content-Length", 0)) > MOST_BYTES:
                    raise too_large(name)
                self._received = Received(self._session.uploads, name)
            except FsisError as error:
                self._refuse(error)

    def data_received(self, chunk: bytes) -> None:
        if self._received is not None:
            try:
                self._received.add(chunk)
            except FsisError as error:
                self._refuse(error)

    def post(self) -> None:
        if self._received is not None:
            try:
                self.finish(self._received.keep(self._session.open))
            except FsisError as error:
                self._refuse(error)

    def on_finish(self) -> None:
        self._drop()

    def on_connection_close(self) -> None:
        self._drop()

    def _drop(self) -> None:
        if self._received is not None:
            self._received.drop()
            self._received = None

    def _refuse(self, error: FsisError) -> None:
        self._drop()
        if not self._finished:
            self.set_status(400)
            self.finish(str(error))
