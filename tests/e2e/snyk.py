"""A stand-in for the part of Snyk's API that `snyk container test` asks: it knows of no vulnerability."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOKEN = "b2f1c0de-0000-4000-8000-000000000001"
GRAPH = {
    "schemaVersion": "1.2.0",
    "pkgManager": {"name": "deb", "repositories": [{"alias": "debian:12"}]},
    "pkgs": [{"id": "image@", "info": {"name": "image"}}],
    "graph": {"rootNodeId": "root", "nodes": [{"nodeId": "root", "pkgId": "image@", "deps": []}]},
}
META = {"isPrivate": True, "isLicensesEnabled": False, "org": "org", "policy": "", "ignoreSettings": None}
CLEAN = {"result": {"issues": [], "issuesData": {}, "depGraphData": GRAPH}, "meta": {**META, "licensesPolicy": None}}


class Snyk(ThreadingHTTPServer):
    """Answers on a port of its own until the program ends; `scanned` counts the images that it was asked about."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.scanned = 0
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def environment(self):
        return {
            "SNYK_API": f"http://127.0.0.1:{self.server_port}",
            "SNYK_TOKEN": TOKEN,
            "SNYK_HTTP_PROTOCOL_UPGRADE": "0",
            "SNYK_DISABLE_ANALYTICS": "1",
        }


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        # Feature flags: nothing special is switched on.
        self.answer({"ok": False})

    def do_POST(self):
        self.rfile.read(int(self.headers.get("content-length", 0)))
        if self.path.split("?")[0] == "/test-dependencies":
            self.server.scanned += 1
            self.answer(CLEAN)
        else:
            self.send_error(404)

    def answer(self, body):
        if self.headers.get("authorization") != f"token {TOKEN}":
            return self.send_error(401)
        text = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass
