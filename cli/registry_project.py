"""A registry of one's own as a Compose project: one service, its volume, its published port, who may use it.

Rules: pure. What an image of Docker's registry takes is all that is used, so any `registry:2` will do. A password is here only
as a line of htpasswd (bcrypt, the one kind registry:2 reads).
"""

from __future__ import annotations

import hashlib
from typing import Any, Final

from model.errors import BadInput

IMAGE: Final = "registry:2"
SERVICE: Final = "registry"
DATA: Final = "/var/lib/registry"
CONFIG: Final = "/etc/docker/registry/config.yml"
LOGINS: Final = "SHOAL_HTPASSWD"
"""The variable that has the htpasswd file: shoal acts on no `secrets` and `configs` yet."""
CERTIFICATE: Final = "SHOAL_TLS_CERTIFICATE"
"""The variable that has its certificate. Its key is handed to the container and stands in the volume."""
TLS_NAMES: Final = "SHOAL_TLS_NAMES"
"""Further names that its certificates are to have, with spaces between."""
KEYS: Final = f"{DATA}/tls"
PASSWORD_BYTES_MAX: Final = 72
"""What bcrypt looks at."""
_LOGINS_FILE: Final = "/tmp/htpasswd"
_CERTIFICATE_FILE: Final = "/tmp/certificate.pem"
_WITH_LOGINS: Final = f'printf "%s\\n" "${LOGINS}" >{_LOGINS_FILE}; '
_WITH_TLS: Final = (
    f'printf "%s\\n" "${CERTIFICATE}" >{_CERTIFICATE_FILE}; trap "exit 143" TERM; '
    'until [ -s "$REGISTRY_HTTP_TLS_KEY" ]; do sleep 0.2; done; trap - TERM; '
)
_START: Final = 'exec /entrypoint.sh "$@"'
_HEALTH_TLS: Final = "wget -q -O /dev/null http://127.0.0.1:5000/ 2>&1 | grep -q ' 400 '"
"""Over TLS it refuses plain http, and with that it answers; busybox's wget speaks no TLS everywhere."""
_HEALTH: Final = {
    # not /v2/, which is for those who are logged in
    "test": ["CMD", "wget", "-q", "-O", "/dev/null", "http://127.0.0.1:5000/"],
    "interval": "10s", "timeout": "5s", "retries": 3, "start_period": "10s", "start_interval": "500ms",
}  # fmt: skip


def key_file(certificate: str) -> str:
    """Where the key of a certificate is: another certificate has another key, and waits for it."""
    return f"{KEYS}/{hashlib.sha256(certificate.encode()).hexdigest()[:16]}.key"


def registry_project(
    name: str, port: int, volume: str = "", logins: str = "", certificate: str = "", tls_names: str = ""
) -> dict[str, Any]:
    """The resolved project `name`. `volume`: its name instead of `NAME_data`; `logins`: lines of htpasswd, empty: everybody;
    `certificate`: PEM, empty: plain http."""
    service: dict[str, Any] = {
        "image": IMAGE,
        "restart": "always",
        "environment": {"REGISTRY_STORAGE_DELETE_ENABLED": "true"},
        "healthcheck": dict(_HEALTH),
        "networks": {"default": None},
        "ports": [{"mode": "ingress", "protocol": "tcp", "published": str(port), "target": 5000}],
        "volumes": [{"type": "volume", "source": "data", "target": DATA, "volume": {}}],
    }
    if logins or certificate:
        script = (_WITH_LOGINS if logins else "") + (_WITH_TLS if certificate else "") + _START
        service["entrypoint"] = ["/bin/sh", "-ec", script, "entrypoint"]
        service["command"] = [CONFIG]
    if certificate:
        service["healthcheck"]["test"] = ["CMD-SHELL", _HEALTH_TLS]
        service["environment"] |= {
            "REGISTRY_HTTP_TLS_CERTIFICATE": _CERTIFICATE_FILE,
            "REGISTRY_HTTP_TLS_KEY": key_file(certificate),
            CERTIFICATE: certificate,
            TLS_NAMES: tls_names,
        }
    if logins:
        service["environment"] |= {
            "REGISTRY_AUTH": "htpasswd",
            "REGISTRY_AUTH_HTPASSWD_REALM": name,
            "REGISTRY_AUTH_HTPASSWD_PATH": _LOGINS_FILE,
            LOGINS: logins,
        }
    return {
        "name": name,
        "services": {SERVICE: service},
        "networks": {"default": {"name": f"{name}_default"}},
        "volumes": {"data": {"name": volume or f"{name}_data"}},
    }


def check_login(user: str, password: str) -> None:
    """Raises BadInput for what a line of htpasswd cannot hold."""
    if not user.isprintable() or ":" in user or user != user.strip() or not user:
        raise BadInput(f"user {user!r}: expected a name without ':' and without spaces around it")
    if not password:
        raise BadInput("Password: one is needed")
    if len(password.encode()) > PASSWORD_BYTES_MAX or "\0" in password:
        raise BadInput(f"Password: at most {PASSWORD_BYTES_MAX} bytes: bcrypt, which registries use, looks at no more")


def users(logins: str) -> list[str]:
    """The names in lines of htpasswd."""
    return [line.partition(":")[0] for line in logins.splitlines() if line]
