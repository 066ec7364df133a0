"""`shoal config`: print the resolved model of Compose files.

Rules: standard output holds only the model, in a form that can be loaded again (`$` as `$$`); warnings and all problems
go to standard error, one line each. Exit code 1 when the files cannot be taken.
"""

from __future__ import annotations

from typing import Any

import click


@click.command("config")
@click.option("-f", "--file", "files", multiple=True, metavar="FILE", help="Compose file; several are laid over another.")
@click.option("-p", "--project-name", metavar="NAME", help="Name of the project (default: the folder's name).")
@click.option("--profile", "profiles", multiple=True, metavar="NAME", help="Also take services of this profile ('*': all).")
@click.option("--env-file", "env_files", multiple=True, metavar="FILE", help="Take variables from FILE instead of .env.")
@click.option("--project-directory", metavar="DIR", help="Folder that relative paths are relative to.")
@click.option("-o", "--output", type=click.Choice(["yaml", "json"]), default="yaml", show_default=True)
@click.option("--strict", is_flag=True, help="Treat warnings (what shoal does not do) as errors.")
@click.option("--no-path-resolution", is_flag=True, help="Leave relative paths as they are written.")
@click.option("--services", "listing", flag_value="services", help="Print only the names of the services.")
@click.option("--volumes", "listing", flag_value="volumes", help="Print only the names of the volumes.")
@click.option("--networks", "listing", flag_value="networks", help="Print only the names of the networks.")
@click.option("--images", "listing", flag_value="images", help="Print only the images.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing, only check.")
def config_command(
    files: tuple[str, ...],
    project_name: str | None,
    profiles: tuple[str, ...],
    env_files: tuple[str, ...],
    project_directory: str | None,
    output: str,
    strict: bool,
    no_path_resolution: bool,
    listing: str | None,
    quiet: bool,
) -> None:
    """Check Compose files and print what shoal makes of them."""
    from cli.compose_files import load_compose
    from model.errors import BadInput

    try:
        loaded = load_compose(
            files,
            project_name=project_name,
            profiles=profiles,
            env_files=env_files,
            project_directory=project_directory,
            strict=strict,
            resolve_paths=not no_path_resolution,
        )
    except BadInput as error:
        for line in error.problems:
            click.echo(f"shoal: {line}", err=True)
        raise SystemExit(1) from None
    for warning in loaded.warnings if not quiet else ():
        click.echo(f"warning: {warning}", err=True)
    if not quiet:
        click.echo(render(loaded.project, output) if listing is None else listed(loaded.project, listing), nl=False)


def listed(project: dict[str, Any], what: str) -> str:
    """One name a line: services, volumes, networks, or the images of the services."""
    if what == "images":
        names = [service["image"] for service in project["services"].values() if service.get("image")]
    else:
        names = list(project.get(what) or ())
    return "".join(f"{name}\n" for name in sorted(dict.fromkeys(names)))


def render(project: dict[str, Any], output: str) -> str:
    """The project as text that loads back to the same project."""
    safe = escape(project)
    if output == "json":
        import json

        return json.dumps(safe, indent=2, ensure_ascii=False, sort_keys=True) + "\n"
    import yaml

    return str(yaml.dump(safe, Dumper=_dumper(), sort_keys=True, allow_unicode=True, width=120))


def escape(value: Any) -> Any:
    """`$` as `$$` in every text, so that no variable is seen when the output is read again."""
    if isinstance(value, dict):
        return {key: escape(item) for key, item in value.items()}
    if isinstance(value, list):
        return [escape(item) for item in value]
    return value.replace("$", "$$") if isinstance(value, str) else value


def _dumper() -> Any:
    """A YAML writer whose output reads the same under YAML 1.1 and 1.2 (`0o17`, `1e3`, `22:22` are quoted)."""
    import yaml

    from model.compose.yamlread import resolve_plain

    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True

    def text(dumper: yaml.SafeDumper, value: str) -> Any:
        style = "|" if "\n" in value and not value[0].isspace() else None
        if style is None and (not value or not isinstance(resolve_plain(value), str)):
            style = '"'
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)

    Dumper.add_representer(str, text)
    return Dumper
