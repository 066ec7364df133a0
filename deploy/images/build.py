"""Builds the demo images as OCI layouts, from Debian packages alone: `python3 deploy/images/build.py CACHE_DIR`.

    busybox:latest, busybox:1.35        Debian's busybox-static with a link for each of its commands
    shoal/web:1.0, :2.0, :latest        the same, with Debian's Python and the small web service in web/app.py
    registry:2, :latest                 the same, with Debian's docker-registry; see registry.py

Rules: standard library, apt and dpkg-deb only; no root, no network but apt's. Equal packages and sources give equal
images. What is in the cache directory is used as it is: a second run takes milliseconds; `--refresh` asks apt again.
Prints one JSON object: image name -> layout directory.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from deploy.images.bytecode import bytecode
from deploy.images.debs import BuildError, FileEntry, closure, deb_entries, download
from deploy.images.layout import make_layer, write_layout
from deploy.images.registry import PACKAGES as REGISTRY_PACKAGES
from deploy.images.registry import TAGS as REGISTRY_TAGS
from deploy.images.registry import registry_config, registry_entries

_HERE = Path(__file__).resolve().parent
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "ppc64le": "ppc64le", "s390x": "s390x"}
_BUSYBOX_TAGS = ("latest", "1.35")
_WEB_VERSIONS = {"1.0": "1.0", "latest": "1.0", "2.0": "2.0"}
_PYTHON_PACKAGES = ("python3-minimal", "libpython3-stdlib")
_LEFT_OUT = (
    # needed to install packages, not to run Python
    "dpkg", "tar", "install-info", "mailcap", "mime-support",
    # for the modules dbm, nis, readline, curses and sqlite3, which the demo service does not import
    "libdb5.3", "libdb5.3t64", "libgdbm6", "libgdbm6t64", "libgdbm-compat4", "libnsl2", "libtirpc3", "libtirpc3t64",
    "libreadline8", "libreadline8t64", "readline-common", "libncursesw6", "libtinfo6", "libsqlite3-0",
)  # fmt: skip
_PYTHON_UNUSED = ("ensurepip/", "idlelib/", "lib2to3/", "pydoc_data/", "distutils/", "unittest/", "turtledemo/", "tkinter/")
_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_ACCOUNTS = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/usr/sbin:/bin/false\n"
    "www-data:x:33:33:www-data:/var/www:/bin/false\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n",
    "etc/group": "root:x:0:\ndaemon:x:1:\ntty:x:5:\nwww-data:x:33:\nnogroup:x:65534:\n",
    "etc/shadow": "root:*:19676:0:99999:7:::\nnobody:*:19676:0:99999:7:::\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}


def build_demo_images(cache: Path, *, refresh: bool = False) -> dict[str, Path]:
    """Layout directory of every demo image by name (`shoal/web:1.0`), built when the cache has none for these sources.

    Raises BuildError.
    """
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        home = cache / _sources_key()
        if refresh:
            shutil.rmtree(home, ignore_errors=True)
            shutil.rmtree(cache / "debs", ignore_errors=True)
        done = home / "images.json"
        if not done.exists():
            names = _build(home, cache / "debs")
            done.write_text(json.dumps(names))
        return {name: home / directory for name, directory in json.loads(done.read_text()).items()}


def _build(home: Path, debs: Path) -> dict[str, str]:
    architecture = _ARCHITECTURES.get(platform.machine(), platform.machine())
    python_packages = closure(_PYTHON_PACKAGES, _LEFT_OUT)
    files = download(["busybox-static", *python_packages], debs)
    base = make_layer(_base_entries(files[0]), "busybox-static and its commands")
    python = make_layer(_python_entries(files[1:]), f"Debian packages {' '.join(file.stem for file in files[1:])}")
    names: dict[str, str] = {}
    for tag in _BUSYBOX_TAGS:
        names[f"busybox:{tag}"] = f"busybox-{tag}"
        write_layout(home / f"busybox-{tag}", f"busybox:{tag}", [base], {"Env": [_PATH], "Cmd": ["sh"]}, architecture)
    for tag, version in _WEB_VERSIONS.items():
        app = make_layer(_app_entries(version), f"the demo web service, version {version}")
        names[f"shoal/web:{tag}"] = f"web-{tag}"
        write_layout(home / f"web-{tag}", f"shoal/web:{tag}", [base, python, app], _web_config(version), architecture)
    packages = download(REGISTRY_PACKAGES, debs)
    registry = make_layer(registry_entries(packages), f"Debian packages {' '.join(file.stem for file in packages)}")
    for tag in REGISTRY_TAGS:
        names[f"registry:{tag}"] = f"registry-{tag}"
        write_layout(home / f"registry-{tag}", f"registry:{tag}", [base, registry], registry_config(_PATH), architecture)
    return names


def _web_config(version: str) -> dict[str, Any]:
    return {
        "Env": [_PATH, "PYTHONUNBUFFERED=1", "PYTHONDONTWRITEBYTECODE=1"],
        "Entrypoint": ["python3", "-I", "-S", "/app/app.py"],
        "WorkingDir": "/app",
        "User": "www-data",
        "ExposedPorts": {"8080/tcp": {}},
        "StopSignal": "SIGTERM",
        "Labels": {"org.opencontainers.image.title": "shoal/web", "org.opencontainers.image.version": version},
    }


def _base_entries(busybox_deb: Path) -> Iterator[FileEntry]:
    for top in ("bin", "sbin", "lib", "lib64"):
        yield FileEntry(top, "link", 0o777, link=f"usr/{top}")
        yield FileEntry(f"usr/{top}", "dir", 0o755)
    for path, mode in (("tmp", 0o1777), ("var/tmp", 0o1777), ("root", 0o700), ("run", 0o755), ("home", 0o755)):
        yield FileEntry(path, "dir", mode)
    for path in ("proc", "sys", "dev", "var/log", "var/www", "usr/local/bin"):
        yield FileEntry(path, "dir", 0o755)
    yield FileEntry("var/run", "link", 0o777, link="/run")
    for path, text in _ACCOUNTS.items():
        yield FileEntry(path, "file", 0o640 if path.endswith("shadow") else 0o644, data=text.encode())
    for entry in deb_entries(busybox_deb):
        if entry.path == "usr/bin/busybox":
            yield entry
            yield from _applets(entry.data)
        elif entry.path.endswith("/copyright"):
            yield entry


def _applets(binary: bytes) -> Iterator[FileEntry]:
    with tempfile.NamedTemporaryFile(prefix="busybox-", delete=False) as file:
        file.write(binary)
    program = Path(file.name)
    try:
        program.chmod(0o700)
        listed = subprocess.run([program, "--list-full"], capture_output=True, text=True, check=True).stdout
    finally:
        program.unlink()
    for line in listed.split():
        directory = "usr/sbin" if "sbin/" in line else "usr/bin"
        name = line.rpartition("/")[2]
        if name != "busybox":
            yield FileEntry(f"{directory}/{name}", "link", 0o777, link="busybox" if "/bin" in directory else "../bin/busybox")


def _python_entries(debs: Sequence[Path]) -> list[FileEntry]:
    """Everything of the packages but unused modules, with bytecode."""
    entries: list[FileEntry] = []
    for deb in debs:
        for entry in deb_entries(deb):
            module = entry.path.partition("/python3.")[2].partition("/")[2]
            if not module.startswith(_PYTHON_UNUSED) and "/gconv/" not in entry.path:
                entries.append(entry)
    return entries + bytecode(entries)


def _app_entries(version: str) -> Iterator[FileEntry]:
    yield FileEntry("app/app.py", "file", 0o644, data=(_HERE / "web" / "app.py").read_bytes())
    yield FileEntry("app/VERSION", "file", 0o644, data=f"{version}\n".encode())


def _sources_key() -> str:
    digest = hashlib.sha256(platform.machine().encode())
    for file in sorted([*_HERE.glob("*.py"), *(_HERE / "web").glob("*.py"), Path("/etc/debian_version")]):
        digest.update(file.read_bytes() if file.exists() else b"-")
    return digest.hexdigest()[:16]


def main() -> int:
    parser = argparse.ArgumentParser(description="Build the demo images as OCI layouts.")
    parser.add_argument("cache", type=Path, help="where packages and images are kept")
    parser.add_argument("--refresh", action="store_true", help="ask apt for newer packages")
    arguments = parser.parse_args()
    try:
        images = build_demo_images(arguments.cache, refresh=arguments.refresh)
    except BuildError as error:
        print(f"demo images: {error}", file=sys.stderr)
        return 1
    print(json.dumps({name: str(path) for name, path in images.items()}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
