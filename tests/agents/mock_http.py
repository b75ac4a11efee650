"""The HTTP side of the mock model servers: one request and the ways to answer it."""

import json
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.agents.mock_script import MessageLog


class Exchange:
    """One request: `method`, `path` (without its query), `headers`, `body` (JSON), and the message log."""

    def __init__(self, handler: BaseHTTPRequestHandler, body: bytes, log: MessageLog) -> None:
        self._handler = handler
        self.method = handler.command
        self.path = urlsplit(handler.path).path
        self.query = urlsplit(handler.path).query
        self.headers = handler.headers
        self.raw = body
        self.body: dict[str, Any] = _as_object(body)
        self.log = log

    def send_json(self, value: object, status: int = 200, headers: dict[str, str] | None = None) -> None:
        """Answer with JSON."""
        content = json.dumps(value).encode()
        self._begin(status, "application/json", {"Content-Length": str(len(content)), **(headers or {})})
        if self.method != "HEAD":
            self._handler.wfile.write(content)

    def begin_events(self, headers: dict[str, str] | None = None) -> None:
        """Begin an answer of server-sent events; it ends with the connection."""
        self._handler.close_connection = True
        self._begin(200, "text/event-stream", {"Connection": "close", **(headers or {})})

    def event(self, data: dict[str, Any] | str, name: str = "") -> None:
        """Send one event; without a name it has its data line only."""
        text = data if isinstance(data, str) else json.dumps(data)
        head = f"event: {name}\n" if name else ""
        self._handler.wfile.write(f"{head}data: {text}\n\n".encode())
        self._handler.wfile.flush()

    def _begin(self, status: int, content_type: str, headers: dict[str, str]) -> None:
        self._handler.send_response(status)
        for name, value in {"Content-Type": content_type, **headers}.items():
            self._handler.send_header(name, value)
        self._handler.end_headers()


Answer = Callable[[Exchange], bool]
"""Answers the exchange and returns True, or returns False: the path belongs to another interface."""


def server(
    port: int, answers: list[Answer], log: MessageLog, requests: Path | None = None
) -> ThreadingHTTPServer:
    """Return a server on 127.0.0.1. `requests` is a file that gets every request, to study a program."""
    return ThreadingHTTPServer(("127.0.0.1", port), _handler(answers, log, requests))


def serve(port: int, answers: list[Answer], log: MessageLog, requests: Path | None = None) -> None:
    """Serve for ever."""
    server(port, answers, log, requests).serve_forever()


def _handler(answers: list[Answer], log: MessageLog, requests: Path | None) -> type[BaseHTTPRequestHandler]:
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            exchange = Exchange(self, body, log)
            self._note(exchange)
            try:
                if not any(answer(exchange) for answer in answers):
                    exchange.send_json({"error": {"type": "not_found_error", "message": self.path}}, 404)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True

        do_GET = do_POST = do_HEAD = _answer

        def _note(self, exchange: Exchange) -> None:
            if requests is None:
                return
            line = {"at": time.time(), "request": f"{self.command} {self.path}", "body": exchange.body}
            with lock, requests.open("a", encoding="utf-8") as file:
                file.write(json.dumps({**line, "headers": dict(self.headers)}, ensure_ascii=False) + "\n")

        def log_message(self, format: str, *args: Any) -> None:
            sys.stderr.write(f"{self.log_date_time_string()} {format % args}\n")

    return Handler


def _as_object(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body or b"{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
