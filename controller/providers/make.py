"""From a group's specification to its provider."""

from __future__ import annotations

from pathlib import Path

from controller.providers.commands import CommandProvider
from controller.providers.lab import LabProvider
from controller.providers.port import Provider
from controller.providers.ssh import SshProvider
from model.autoscale import NodeGroupSpec


def make_provider(spec: NodeGroupSpec, data_dir: Path, lab_socket: str) -> Provider:
    """`data_dir`: the controller's, for what is known of hosts; `lab_socket`: that of the lab's helper, if this is a lab."""
    match spec.provider.kind:
        case "exec":
            return CommandProvider(spec.provider)
        case "lab":
            return LabProvider(lab_socket)
        case "ssh":
            return SshProvider(spec, data_dir)
