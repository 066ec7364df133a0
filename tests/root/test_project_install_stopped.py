"""deploy/install-stopped.sh against the real apt and dpkg, in a throw-away overlay of this machine's root.

A made-up package carries what debhelper generates for a service (System V script, systemd unit, maintainer script). The
overlay and its mounts live in a mount namespace of one child process, so they are gone with it, also when it is killed.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: mounts an overlay of /"),
    pytest.mark.skipif(shutil.which("apt-get") is None, reason="needs apt: this machine has none"),
]

DEPLOY = Path(__file__).parents[2] / "deploy"
NAME = "shoal-made-up"

CONTROL = """Package: NAME
Version: VERSION
Architecture: all
Maintainer: none <none@example.org>
Description: a made-up service
"""
POSTINST = """#!/bin/sh
set -e
update-rc.d NAME defaults >/dev/null
deb-systemd-helper unmask NAME.service >/dev/null || true
if deb-systemd-helper --quiet was-enabled NAME.service; then
    deb-systemd-helper enable NAME.service >/dev/null || true
else
    deb-systemd-helper update-state NAME.service >/dev/null || true
fi
invoke-rc.d --skip-systemd-native NAME start || true
systemctl --system daemon-reload >/dev/null || true
deb-systemd-invoke start NAME.service >/dev/null || true
"""
INIT_SCRIPT = """#!/bin/sh
### BEGIN INIT INFO
# Provides: NAME
# Required-Start:
# Required-Stop:
# Default-Start: 2 3 4 5
# Default-Stop: 0 1 6
### END INIT INFO
echo "init.d $1" >>/started
"""
UNIT = "[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n"
# As much of systemctl as the maintainer scripts use.
SYSTEMCTL = """#!/bin/sh
link=/etc/systemd/system/multi-user.target.wants/NAME.service
case "$*" in
*preset*) mkdir -p "${link%/*}" && ln -sf /lib/systemd/system/NAME.service "$link" ;;
*is-enabled*) if [ -h "$link" ]; then echo enabled; else echo disabled; exit 1; fi ;;
*is-active*) exit 3 ;;
*start*) echo "systemctl $*" >>/started ;;
esac
"""
# $1 scratch, $2 what to run inside, $3 the text of policy-rc.d or nothing, $4 the init seen inside: systemd or sysv.
OVERLAY = """
set -eu
mount -t tmpfs tmpfs "$1/room"
mkdir "$1/room/up" "$1/room/work" "$1/room/root"
mount -t overlay -o "lowerdir=/,upperdir=$1/room/up,workdir=$1/room/work" overlay "$1/room/root"
root=$1/room/root
mount --bind /proc "$root/proc"
mount --bind /dev "$root/dev"
mount -t tmpfs tmpfs "$root/run"
mount -t tmpfs tmpfs "$root/tmp"
rm -rf "$root"/var/lib/apt/lists/* # the package needs none of Debian's, and reading their lists takes seconds
mkdir -p "$root/bundle"
[ "$4" != systemd ] || mkdir -p "$root/run/systemd/system"
cp -r "$1"/bundle/* "$root/bundle/"
rm -f "$root/usr/sbin/policy-rc.d" "$root/sbin/runlevel"
[ -e "$root/sbin/init" ] || printf '#!/bin/sh\\n' >"$root/sbin/init"
printf '#!/bin/sh\\necho N 2\\n' >"$root/sbin/runlevel"
cp "$1/bundle/systemctl" "$root/usr/bin/systemctl"
chmod 755 "$root/sbin/runlevel" "$root/usr/bin/systemctl"
[ -z "$3" ] || { printf '%s' "$3" >"$root/usr/sbin/policy-rc.d"; chmod 755 "$root/usr/sbin/policy-rc.d"; }
status=0
chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin sh -c "$2" || status=$?
cp "$root/started" "$1/out/" 2>/dev/null || true
cp "$root/usr/sbin/policy-rc.d" "$1/out/" 2>/dev/null || true
find "$root/etc/systemd/system" -name 'NAME*' -printf 'unit %P\\n' >"$1/out/state"
find "$root"/etc/rc?.d -name '*NAME' -printf 'rc %f\\n' | sort -u >>"$1/out/state"
find "$root/var/lib/systemd/deb-systemd-helper-enabled" -name 'NAME*' -printf 'known %f\\n' >>"$1/out/state"
exit $status
"""


def build_package(folder: Path, version: str) -> None:
    """Write folder/bundle/VERSION.deb, a package whose service starts and enables itself as Debian's do."""
    tree = folder / f"tree-{version}"
    files = {
        "DEBIAN/control": CONTROL.replace("VERSION", version),
        "DEBIAN/postinst": POSTINST,
        "etc/init.d/NAME": INIT_SCRIPT,
        "lib/systemd/system/NAME.service": UNIT,
    }
    for name, text in files.items():
        path = tree / name.replace("NAME", NAME)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace("NAME", NAME))
        path.chmod(0o644 if name.endswith((".service", "control")) else 0o755)
    target = folder / "bundle" / f"{version}.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "-b", str(tree), str(target)], check=True, capture_output=True)


def run_inside(folder: Path, command: str, init: str = "systemd", policy: str = "") -> dict[str, str]:
    """Run a shell command in the overlay; returns the files it left in out/ by name, plus what it printed."""
    for name in ("bundle", "out", "room"):
        (folder / name).mkdir()
    for version in ("1", "2"):
        build_package(folder, version)
    (folder / "bundle" / "systemctl").write_text(SYSTEMCTL.replace("NAME", NAME))
    shutil.copy(DEPLOY / "install-stopped.sh", folder / "bundle")
    shutil.copytree(DEPLOY / "stopped", folder / "bundle" / "stopped")
    words = ["unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child"]
    script = OVERLAY.replace("NAME", NAME)
    words += ["sh", "-c", script, "sh", str(folder), command, policy, init]
    done = subprocess.run(words, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    left = {path.name: path.read_text() for path in (folder / "out").iterdir()}
    return {"printed": done.stdout + done.stderr, "started": "", **left}


INSTALL = "cd /bundle && sh install-stopped.sh ./1.deb"
INITS = pytest.mark.parametrize("init", ["systemd", "sysv"])


@INITS
def test_plain_dpkg_does_start_and_enable_it(tmp_path: Path, init: str) -> None:
    """The control: without our script this package's service would start now and at every boot."""
    seen = run_inside(tmp_path, "dpkg -i /bundle/1.deb", init)
    assert "start" in seen["started"], seen
    assert f"unit multi-user.target.wants/{NAME}.service" in seen["state"]
    assert f"rc S01{NAME}" in seen["state"]


@INITS
def test_a_new_service_stays_off_now_at_boot_and_after_an_upgrade(tmp_path: Path, init: str) -> None:
    seen = run_inside(tmp_path, f"{INSTALL} && dpkg -i /bundle/2.deb && dpkg -s {NAME}", init)
    assert "Version: 2" in seen["printed"]
    assert seen["started"] == ""
    assert "unit " not in seen["state"]
    assert "rc S" not in seen["state"]
    assert f"rc K01{NAME}" in seen["state"]
    assert f"known {NAME}.service.dsh-also" in seen["state"]


@INITS
def test_installing_starts_nothing_and_makes_no_policy(tmp_path: Path, init: str) -> None:
    seen = run_inside(tmp_path, INSTALL, init)
    assert seen["started"] == ""
    assert "policy-rc.d" not in seen


@INITS
def test_a_service_that_was_there_keeps_its_state_and_is_not_restarted(tmp_path: Path, init: str) -> None:
    seen = run_inside(tmp_path, "dpkg -i /bundle/1.deb && rm /started && cd /bundle && sh install-stopped.sh ./2.deb", init)
    assert seen["started"] == ""
    assert f"unit multi-user.target.wants/{NAME}.service" in seen["state"]
    assert f"rc S01{NAME}" in seen["state"]


def test_the_policy_of_the_machine_is_not_touched(tmp_path: Path) -> None:
    policy = "#!/bin/sh\n# mine\nexit 0\n"
    seen = run_inside(tmp_path, INSTALL, policy=policy)
    assert seen["policy-rc.d"] == policy
    assert seen["started"] == ""
