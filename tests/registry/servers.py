"""The servers of the registry tests: Debian's docker-registry and a token service, each on a
loopback port of its own, in a directory of its own, ended by its pid.
"""

import base64
import http.server
import json
import socket
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from pathlib import Path

# Starting takes a fraction of a second; a loaded machine gets more.
START_S = 30


def free_port():
    """A port that nobody has now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def openssl(*arguments, text=None):
    """Runs openssl; returns what it printed."""
    command = ["openssl", *map(str, arguments)]
    return subprocess.run(command, input=text, check=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE).stdout


class Authority:
    """A certificate authority, and what it signs."""

    def __init__(self, directory, name="aos test authority"):
        self.directory = Path(directory)
        self.directory.mkdir(parents=True)
        self.key, self.certificate = self.directory / "ca.key", self.directory / "ca.crt"
        openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
                "-subj", f"/CN={name}", "-keyout", self.key, "-out", self.certificate)

    def sign(self, name, usage):
        """A key and a certificate for a host or a client."""
        key, request, certificate = (self.directory / f"{name}.{end}" for end in ("key", "csr", "crt"))
        extensions = self.directory / f"{name}.ext"
        extensions.write_text(f"subjectAltName=DNS:{name}\nextendedKeyUsage={usage}\n")
        openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={name}",
                "-keyout", key, "-out", request)
        openssl("x509", "-req", "-in", request, "-CA", self.certificate, "-CAkey", self.key, "-CAcreateserial",
                "-days", "2", "-extfile", extensions, "-out", certificate)
        return key, certificate


class Registry:
    """A docker-registry; `http` and `auth` are sections of its configuration, in JSON (which is YAML)."""

    def __init__(self, directory, http=None, auth=None):
        self.directory = Path(directory)
        self.directory.mkdir(parents=True)
        self.port = free_port()
        self.host = f"localhost:{self.port}"
        self.data, self.log = self.directory / "data", self.directory / "log"
        self.tls = "tls" in (http or {})
        settings = {
            "version": "0.1",
            "log": {"level": "error"},
            "storage": {"filesystem": {"rootdirectory": str(self.data)}, "delete": {"enabled": True}},
            "http": {"addr": f"127.0.0.1:{self.port}", **(http or {})},
        }
        if auth:
            settings["auth"] = auth
        self.settings = self.directory / "config.yml"
        self.settings.write_text(json.dumps(settings))
        self.process = None

    def start(self):
        """Starts it, and waits until it listens."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(["docker-registry", "serve", str(self.settings)], stdout=log, stderr=log,
                                            stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise RuntimeError(f"docker-registry ended:\n{self.log.read_text()}")
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return self
            time.sleep(0.02)
        raise RuntimeError("docker-registry does not listen")

    def kill(self):
        """Ends it at once."""
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.kill()

    def requests(self):
        """The lines of its access log."""
        return [line for line in self.log.read_text().splitlines() if '"' in line and "HTTP/1.1" in line]

    def blob(self, digest):
        """The file of a blob."""
        hexadecimal = digest.removeprefix("sha256:")
        return self.data / "docker/registry/v2/blobs/sha256" / hexadecimal[:2] / hexadecimal / "data"

    def put_manifest(self, repository, name, media_type, document):
        """Writes a manifest as it is."""
        url = f"http://127.0.0.1:{self.port}/v2/{repository}/manifests/{name}"
        request = urllib.request.Request(url, json.dumps(document).encode(), {"Content-Type": media_type}, method="PUT")
        urllib.request.urlopen(request, timeout=10).close()


def encoded(data):
    """Base64 as JSON web tokens have it."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class TokenService:
    """Gives tokens for docker-registry to whom it knows; remembers what it was asked."""

    ISSUER, SERVICE, USER, PASSWORD, REFRESH = "aos-test", "aos-registry", "alice", "tok3n pass", "refresh-me"

    def __init__(self, directory):
        self.directory = Path(directory)
        self.directory.mkdir(parents=True)
        self.key, self.certificate = self.directory / "token.key", self.directory / "token.crt"
        openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=token",
                "-keyout", self.key, "-out", self.certificate)
        self.asked = []
        service = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
                wanted = base64.b64encode(f"{service.USER}:{service.PASSWORD}".encode()).decode()
                self.reply(query, self.headers.get("Authorization") == f"Basic {wanted}")

            def do_POST(self):
                form = urllib.parse.parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
                good = form.get("grant_type") == ["refresh_token"] and form.get("refresh_token") == [service.REFRESH]
                form["scope"] = form.get("scope", [""])[0].split(" ")
                self.reply(form, good)

            def reply(self, query, known):
                service.asked.append((self.command, query, known))
                if not known:
                    self.send_response(401)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                body = json.dumps({"token": service.token(query.get("scope", [])), "expires_in": 300}).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.realm = f"http://localhost:{self.server.server_address[1]}/token"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def token(self, scopes):
        """A token for what is asked, signed as docker-registry checks it (RS256, the chain inside)."""
        der = openssl("x509", "-in", self.certificate, "-outform", "DER")
        header = {"typ": "JWT", "alg": "RS256", "x5c": [base64.b64encode(der).decode()]}
        access = []
        for scope in scopes:
            kind, name, actions = scope.rsplit(":", 2) if scope.count(":") >= 2 else ("", "", "")
            access.append({"type": kind, "name": name, "actions": actions.split(",")})
        now = int(time.time())
        claims = {"iss": self.ISSUER, "sub": self.USER, "aud": self.SERVICE, "exp": now + 300, "nbf": now - 10,
                  "iat": now, "jti": str(time.monotonic_ns()), "access": access}
        signed = f"{encoded(json.dumps(header).encode())}.{encoded(json.dumps(claims).encode())}"
        signature = openssl("dgst", "-sha256", "-sign", self.key, text=signed.encode())
        return f"{signed}.{encoded(signature)}"

    def auth(self):
        """The section of docker-registry's configuration."""
        return {"token": {"realm": self.realm, "service": self.SERVICE, "issuer": self.ISSUER,
                          "rootcertbundle": str(self.certificate)}}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()
