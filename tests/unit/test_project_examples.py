"""Every stack in deploy/examples loads without a warning, and is as it is described: nothing in it is left aside."""

from pathlib import Path

import pytest

from cli.compose_files import load_compose

EXAMPLES = sorted((Path(__file__).parents[2] / "deploy" / "examples").glob("*/compose.yaml"))


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.parent.name)
def test_an_example_is_whole(file: Path) -> None:
    assert file.read_text().startswith("# "), "its first line says what it shows"
    loaded = load_compose((str(file),), strict=True)
    assert loaded.project["name"] == file.parent.name


def test_there_are_examples() -> None:
    assert {"demo", "web", "volume", "everywhere", "job"} <= {file.parent.name for file in EXAMPLES}
