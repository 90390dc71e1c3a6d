"""The server of the page: one address, one token, and nobody else.

What a request must have is looked at before anything else: a Host that names this server, so that another site cannot
send a browser here under its own name; an Origin, where there is one, that is this page; and the token, with which each
path begins. Bokeh exchanges JSON with the page; nothing that comes in is unpickled.
"""

import asyncio
import hmac
import ipaddress
import secrets
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

from bokeh.document import Document
from bokeh.server.server import BaseServer
from bokeh.server.tornado import BokehTornado
from bokeh.server.util import bind_sockets
from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPServerRequest
from tornado.ioloop import IOLoop
from tornado.web import ErrorHandler

from fsis_jax.errors import FsisError

LOCAL = "127.0.0.1"
_HTTP = 80
"""The port that browsers do not name."""
_PATIENCE = 120_000
"""Milliseconds for a slow browser, until the document that was made for it is thrown away."""


class PageServer:
    """Listens, and serves from `run` on.

    Args:
        make: fills the document of each tab that is opened.
        host: address to listen on.
        port: 0: any that is free.
        handlers: Tornado's patterns, handlers and their arguments for other requests below the token.

    Raises:
        FsisError: the address cannot be used, or stands for several.
    """

    def __init__(
        self,
        make: Callable[[Document], object],
        host: str = LOCAL,
        port: int = 0,
        handlers: Sequence[tuple[Any, ...]] = (),
    ) -> None:
        token = secrets.token_urlsafe(24)
        try:
            sockets, self.port = bind_sockets(host, port)
        except OSError as error:
            reason = error.strerror or error
            raise FsisError(
                f"{host}:{port}: cannot listen there ({reason}): choose another --port or --host"
            ) from error
        addresses = [ipaddress.ip_address(each.getsockname()[0]) for each in sockets]
        if any(address.is_unspecified for address in addresses):
            for each in sockets:
                each.close()
            raise FsisError(
                f"--host {host}: stands for all addresses of this machine: give the one that browsers are to ask for"
            )
        self.is_local = all(address.is_loopback for address in addresses)
        """Whether only programs of this machine reach it."""
        name = _in_url(host.lower())
        names = {name, *(_in_url(str(address)) for address in addresses)} | ({"localhost"} if self.is_local else set())
        self.url = f"http://{name}:{self.port}/{token}/"
        hosts = {f"{each}:{self.port}" for each in names} | (names if self.port == _HTTP else set())
        asyncio.set_event_loop(asyncio.new_event_loop())
        application = _Guarded(make, token, hosts, handlers)
        http = HTTPServer(application)
        http.add_sockets(sockets)
        self._server = BaseServer(IOLoop.current(), application, http)

    def run(self) -> None:
        """Serve until `stop`, or Ctrl-C."""
        self._server.start()
        try:
            self._server.io_loop.start()
        finally:
            self._server.stop()
            self._server.io_loop.close(all_fds=True)

    def stop(self) -> None:
        """From any thread."""
        self._server.io_loop.add_callback(self._server.io_loop.stop)


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


class _Guarded(BokehTornado):
    """Refuses what does not come from the page itself."""

    def __init__(
        self, make: Callable[[Document], object], token: str, hosts: set[str], handlers: Sequence[tuple[Any, ...]]
    ) -> None:
        self._token, self._hosts = token, hosts
        super().__init__(
            make,
            prefix=token,
            extra_websocket_origins=sorted(hosts),
            use_index=False,
            extra_patterns=list(handlers),
            unused_session_lifetime_milliseconds=_PATIENCE,
        )

    def find_handler(self, request: HTTPServerRequest, **kwargs: Any) -> Any:
        """The handler of a request, or one that refuses it."""
        origin = request.headers.get("Origin")
        known = request.host.lower() in self._hosts and (
            origin is None or urlsplit(origin).netloc.lower() in self._hosts
        )
        first = request.path.lstrip("/").partition("/")[0]
        if known and hmac.compare_digest(first.encode(), self._token.encode()):
            return super().find_handler(request, **kwargs)
        return self.get_handler_delegate(request, ErrorHandler, {"status_code": 403})
