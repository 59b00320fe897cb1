"""A server of byte ranges that fails at times: python flaky_server.py FOLDER prints its port and serves until it is stopped.

Every third request for pixels is answered with an error, and every tenth only after a second. A process of its own, since
GDAL opens files while it holds the interpreter.
"""

from __future__ import annotations

import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class Flaky(BaseHTTPRequestHandler):
    asked = 0

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        Flaky.asked += 1
        if Flaky.asked % 10 == 0:
            time.sleep(1)
        if Flaky.asked % 3 == 0:
            self.send_error(503)
            return
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        path = Path(sys.argv[1]) / self.path.lstrip("/")
        if not path.is_file():
            self.send_error(404)
            return
        data, span = path.read_bytes(), self.headers.get("Range")
        first, last = 0, len(data) - 1
        if span:
            start, _, end = span.removeprefix("bytes=").partition("-")
            first, last = int(start), min(int(end or last), last)
        self.send_response(206 if span else 200)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(last + 1 - first))
        if span:
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
        self.end_headers()
        if body:
            self.wfile.write(data[first : last + 1])

    def log_message(self, format: str, *args: Any) -> None: ...


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), Flaky)
    print(server.server_port, flush=True)  # noqa: T201
    server.serve_forever()
