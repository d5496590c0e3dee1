"""A web server on this machine, which fails as told to."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        server.n_requests += 1
        failure = server.failures.pop(0) if server.failures else None
        content = server.content
        if failure == "unavailable":
            self.send_error(503)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if failure == "corrupted":
            content = content[:-1] + bytes([content[-1] ^ 1])
        elif failure == "interrupted":
            content = content[: len(content) // 2]
        self.wfile.write(content)

    def log_message(self, *args):
        pass


class _Server(ThreadingHTTPServer):
    def handle_error(self, *args):
        """Say nothing of a client that was killed."""


@pytest.fixture
def server(monkeypatch):
    """Serve ``content`` under every path, after the ``failures`` listed, one per request."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with _Server(("127.0.0.1", 0), _Handler) as server:
        server.content = b""
        server.failures = []
        server.n_requests = 0
        server.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()
