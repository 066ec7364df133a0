"""The wheel, built for real and installed into a clean environment: it brings `shoal` and nothing else to the top level."""

import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
UV = str(Path(sys.executable).parent / "uv")
FOLDERS = ("protos", "model", "scheduler", "controller", "agent", "cli", "lab", "sim", "deploy")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of this checkout; needs no network: the build backend is in the locked environment."""
    folder = tmp_path_factory.mktemp("wheel")
    words = [UV, "build", "--wheel", "-q", "--offline", "--no-build-isolation", "--python", sys.executable]
    subprocess.run([*words, "-o", str(folder), str(ROOT)], check=True, timeout=100, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


def test_only_shoal_stands_at_the_top(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert tops == {"shoal"}


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a git checkout: no list of tracked files")
def test_every_tracked_file_of_the_folders_is_in_it(wheel: Path) -> None:
    git = ["git", "-c", "safe.directory=*", "ls-files", "-z", *FOLDERS]
    listed = subprocess.run(git, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")[:-1]
    names = set(zipfile.ZipFile(wheel).namelist())
    tracked = [name for name in listed if (ROOT / name).exists()]
    assert tracked
    assert [name for name in tracked if f"shoal/_app/{name}" not in names] == []


def test_no_tests_caches_or_bytecode_are_in_it(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert [name for name in names if "__pycache__" in name or "/tests/" in name or name.endswith(".pyc")] == []


def test_in_a_clean_environment_the_launcher_finds_the_wheels_folders(wheel: Path, tmp_path: Path) -> None:
    """Installed without its dependencies: what is asked here is where the folders come from."""
    home = tmp_path / "venv"
    venv.create(home, with_pip=False, symlinks=True)
    python = home / "bin" / "python"
    install = [UV, "pip", "install", "-q", "--offline", "--no-deps", "--python", str(python), str(wheel)]
    subprocess.run(install, check=True, timeout=60, capture_output=True)
    code = "import shoal.__main__ as s; s.use_app_root(); import model, model.version as v; print(v.__file__, v.VERSION)"
    done = subprocess.run([str(python), "-c", code], cwd=tmp_path, check=True, capture_output=True, text=True, timeout=60)
    file, version = done.stdout.split()
    assert file.endswith("site-packages/shoal/_app/model/version.py")
    assert wheel.name.startswith(f"shoal-{version}-")
    assert (home / "bin" / "shoal").exists()
