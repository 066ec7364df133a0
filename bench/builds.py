"""Real images, built and served on a lab of one node: `python -m bench.builds`. Needs root, apt, node and npm; about a minute.

The base images that the examples name (node:10, nginx:1.17, httpd:2.4) are built here first, with `shoal build`, of this
machine's own node and of Debian packages: what they are called is what the examples expect, not what they hold. `npm install`
goes to the registry that this machine's npm is set to, by a forwarder on the lab's own bridge: a lab's node has no way out.

Rules: every step must succeed and is checked; times and sizes are printed. The lab goes, whatever happens.
"""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from deploy.images.debs import closure, deb_entries, download
from lab.cluster import Lab
from lab.images import CACHE

ROOT: Final = Path(__file__).resolve().parents[1]
EXAMPLE: Final = ROOT / "deploy" / "examples" / "build"
PAGE: Final = "<h1>first test</h1>\n"
LEFT_OUT: Final = ("debconf", "iproute2", "init-system-helpers", "lsb-base", "perl", "perl-base", "dpkg", "tar")
"""Needed to install packages, not to serve pages."""
NGINX: Final = """user www-data;
error_log /dev/stderr;
pid /run/nginx.pid;
events {}
http { access_log off; server { listen 80; root /usr/share/nginx/html; } }
"""
HTTPD: Final = """ServerName localhost
ServerRoot /usr/local/apache2
PidFile /run/httpd.pid
Listen 80
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule dir_module /usr/lib/apache2/modules/mod_dir.so
User www-data
Group www-data
DocumentRoot /usr/local/apache2/htdocs
ErrorLog /dev/stderr
"""


class Proof:
    """One lab and the command line on it."""

    def __init__(self, config: Path) -> None:
        self.name = f"builds-{secrets.token_hex(3)}"
        self.env = {**os.environ, "SHOAL_CONFIG_DIR": str(config), "SHOAL_CONTEXT": self.name}

    def __call__(self, *words: str, code: int = 0, env: Mapping[str, str] | None = None) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "shoal", *words], cwd=ROOT, env={**self.env, **(env or {})}, capture_output=True, text=True,
            timeout=600, check=False,
        )  # fmt: skip
        if done.returncode != code:
            raise SystemExit(f"shoal {' '.join(words)} -> {done.returncode}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}")
        return done.stdout

    def image(self, name: str) -> Any:
        return json.loads(self("image", "inspect", name))[0]

    def steps(self, name: str) -> list[Any]:
        found: list[Any] = json.loads(self("history", name, "--no-trunc", "-o", "json"))
        return found


def main() -> int:
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="shoal-builds-") as folder, contextlib.ExitStack() as stack:
        top = Path(folder)
        (top / "config").mkdir()
        shoal = Proof(top / "config")
        stack.callback(lambda: shoal("lab", "down", "--name", shoal.name))
        shoal("lab", "up", "--name", shoal.name, "--nodes", "1")
        record = Lab(shoal.name).record()
        node = record.address(record.nodes()[0])
        for name, make in (("node:10", node_context), ("nginx:1.17", nginx_context), ("httpd:2.4", httpd_context)):
            timed(f"base image {name}", lambda name=name, make=make: base(shoal, name, make, top))  # type: ignore[misc]
        registry = stack.enter_context(forwarder(record.gateway))
        site(shoal, node, registry)
        apache(shoal, node, top)
    print(f"all of it: {time.monotonic() - begin:.1f} s")
    return 0


def timed(what: str, work: Callable[[], object]) -> None:
    begin = time.monotonic()
    work()
    print(f"{what}: {time.monotonic() - begin:.1f} s", flush=True)


# what the examples build on


def base(shoal: Proof, name: str, make: Callable[[Path], str], top: Path) -> None:
    context = top / name.partition(":")[0]
    (context / "files").mkdir(parents=True)
    (context / "Dockerfile").write_text(make(context / "files"))
    shoal("build", "-q", "-t", name, str(context))
    print(f"  {name}: {shoal.image(name)['Size'] / 1e6:.1f} MB")


def node_context(files: Path) -> str:
    program = shutil.which("node")
    npm = Path(os.path.realpath(shutil.which("npm") or "")).parents[1]
    if program is None or not (npm / "package.json").exists():
        raise SystemExit("this needs node and npm on this machine")
    (files / "usr/bin").mkdir(parents=True)
    shutil.copy2(os.path.realpath(program), files / "usr/bin/node")
    for word in subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout.split():
        if word.startswith("/"):
            target = files / "usr/lib" / word.partition("/lib")[2].lstrip("/") if word.startswith("/lib/") else files / word[1:]
            target = files / "usr" / word[1:] if word.startswith("/lib") else target
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(os.path.realpath(word), target)
    shutil.copytree(npm, files / "usr/lib/node_modules/npm", symlinks=True)
    (files / "usr/bin/npm").symlink_to("../lib/node_modules/npm/bin/npm-cli.js")
    return 'FROM busybox\nCOPY files/usr /usr\nENV NODE_VERSION=10\nCMD ["node"]\n'


def debian(packages: tuple[str, ...], files: Path) -> None:
    """Files of Debian packages, and of what they depend on."""
    links: list[tuple[Path, str]] = []
    for deb in download(closure(packages, LEFT_OUT), CACHE / "debs"):
        for entry in deb_entries(deb):
            target = files / entry.path
            target.parent.mkdir(parents=True, exist_ok=True)
            if entry.kind == "dir":
                target.mkdir(exist_ok=True)
            elif entry.kind == "file":
                target.write_bytes(entry.data)
                target.chmod(entry.mode)
            elif entry.kind == "link" and not target.is_symlink():
                target.symlink_to(entry.link)
            elif entry.kind == "hardlink":
                links.append((target, entry.link))
    for target, source in links:
        shutil.copy2(files / source, target)


def nginx_context(files: Path) -> str:
    debian(("nginx",), files)
    (files / "etc/nginx/nginx.conf").write_text(NGINX)
    return "FROM busybox\nCOPY files /\nRUN mkdir -p /usr/share/nginx/html /var/lib/nginx /var/log/nginx\nEXPOSE 80\n"


def httpd_context(files: Path) -> str:
    debian(("apache2-bin",), files)
    (files / "usr/local/apache2/conf").mkdir(parents=True)
    (files / "usr/local/apache2/htdocs").mkdir(parents=True)
    (files / "usr/local/apache2/conf/httpd.conf").write_text(HTTPD)
    command = json.dumps(["apache2", "-DFOREGROUND", "-f", "/usr/local/apache2/conf/httpd.conf"])
    return f"FROM busybox\nCOPY files /\nEXPOSE 80\nSTOPSIGNAL SIGWINCH\nCMD {command}\n"


@contextlib.contextmanager
def forwarder(address: str) -> Iterator[str]:
    """The npm registry that this machine is set to, at an address that the lab's nodes reach."""
    done = subprocess.run(["npm", "config", "get", "registry"], capture_output=True, text=True, check=True, cwd="/")
    origin = done.stdout.strip().rstrip("/")

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = {"Accept": self.headers.get("Accept", "*/*"), "User-Agent": self.headers.get("User-Agent", "npm")}
            try:
                with urllib.request.urlopen(urllib.request.Request(origin + self.path, headers=wanted), timeout=60) as answer:
                    self._answer(answer.status, answer.headers.get("Content-Type", ""), answer.read())
            except urllib.error.HTTPError as error:
                self._answer(error.code, "text/plain", error.read())

        def _answer(self, status: int, kind: str, data: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            """Nothing: the registry's paths are nobody's business."""

    server = http.server.ThreadingHTTPServer((address, 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://{address}:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()


# the proofs


def site(shoal: Proof, node: str, registry: str) -> None:
    """Two stages; the image has nothing of the first but what was copied out of it."""
    settings = {"NPM_CONFIG_REGISTRY": registry, "NPM_CONFIG_REPLACE_REGISTRY_HOST": "always"}
    file = str(EXAMPLE / "compose.yaml")
    timed("apply: both built and running", lambda: shoal("apply", "-f", file, env=settings))
    check("the site", fetched(f"http://{node}:8080/"), "<h1>made by &lt;node&gt;, served by &lt;nginx&gt;</h1>\n")
    built, first = shoal.image("build-site"), shoal.image("node:10")
    print(f"  build-site: {built['Size'] / 1e6:.1f} MB, its first stage began with {first['Size'] / 1e6:.1f} MB")
    steps = [row["CreatedBy"] for row in shoal.steps("build-site")]
    check("no step of the first stage", [step for step in steps if "npm" in step or "WORKDIR" in step], [])
    check("the exec form", built["Config"]["Cmd"], ["nginx", "-g", "daemon off;"])
    check("lighter than the first stage", built["Size"] < first["Size"] / 2, True)
    check("only the result", shoal("exec", "build_site.1", "ls", "/usr/share/nginx/html").split()[0:1] != [], True)
    shoal("exec", "build_site.1", "test", "-e", "/usr/src/app", code=1)
    shoal("exec", "build_site.1", "sh", "-c", "find / -xdev -name node_modules | grep .", code=1)
    timed("apply again: nothing to build", lambda: shoal("apply", "-f", file, env=settings))
    timed("apply --build: all from the cache", lambda: shoal("apply", "--build", "-f", file, env=settings))


def apache(shoal: Proof, node: str, top: Path) -> None:
    """Rows 1, 12 to 15 and 84 to 92 of the tutorials."""
    steps = shoal.steps("linuxtips/apache:1.0")
    words = [row["CreatedBy"].removeprefix("/bin/sh -c ").removeprefix("#(nop) ").split()[0] for row in steps[:6]]
    check("a row for each instruction", words, ["EXPOSE", "VOLUME", "LABEL", "echo", "ENV", "ENV"])
    check("only the RUN has a size", [row["Size"] > 0 for row in steps[:6]], [False, False, False, True, False, False])
    check("the image's own row", [row["Id"] == "<missing>" for row in steps][:2], [False, True])
    last = shoal.image("linuxtips/apache:1.0")["ContainerConfig"]["Cmd"][-1]
    check("the last step", last, "#(nop) EXPOSE 80")
    check("the image's page", fetched(f"http://{node}:8081/"), "<h1>It works</h1>\n")
    page = top / "meu-site"
    page.mkdir()
    (page / "primeiro-teste.html").write_text(PAGE)
    volume = f"{page}/:/usr/local/apache2/htdocs/"
    shoal("run", "-d", "--name", "site-trybe2", "-p", "8881:80", "-v", volume, "httpd:2.4")
    url = f"http://{node}:8881/primeiro-teste.html"
    check("the folder's page", fetched(url), PAGE)
    (page / "primeiro-teste.html").write_text("changed")
    check("changed while it is served", fetched(url, "changed"), "changed")
    (mount,) = json.loads(shoal("inspect", "site-trybe2"))[0]["container"]["Mounts"]
    wanted = {"Type": "bind", "Source": str(page), "Destination": "/usr/local/apache2/htdocs", "Mode": "", "RW": True,
              "Propagation": "rprivate"}  # fmt: skip
    check("its mount", mount, wanted)
    shoal("stop", "site-trybe2")
    shoal("rm", "site-trybe2")
    check("the folder stays", (page / "primeiro-teste.html").read_text(), "changed")


def fetched(url: str, wanted: str = "") -> str:
    """What is served; what is not there yet, or not yet as wanted, is asked for again for 20 s."""
    end, text = time.monotonic() + 20, ""
    while time.monotonic() < end and (not text or (wanted and text != wanted)):
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5) as answer:
            text = answer.read().decode()
    return text


def check(what: str, found: object, wanted: object) -> None:
    if found != wanted:
        raise SystemExit(f"{what}: found {found!r}, expected {wanted!r}")
    print(f"  {what}: as it should be", flush=True)


if __name__ == "__main__":
    sys.exit(main())
