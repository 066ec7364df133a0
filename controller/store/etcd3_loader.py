"""Makes the `etcd3` package (0.12.0, of 2020) run on today's protobuf.

Why: its generated modules call a descriptor API that protobuf removed, so `import etcd3` fails. But each of them carries its
serialized file descriptor as one literal. Those literals are read from the source (nothing of it is run) and put into a pool
of their own (the default pool holds our own `etcdserverpb` messages of the same names); modules with the classes made from
them take the place of the broken ones before etcd3 is imported.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from model.store_port import StoreError

FILES: Final = ("kv", "auth", "rpc")
"""In the order in which they depend on each other."""


def load_etcd3() -> Any:
    """The `etcd3` module, ready to use. Raises StoreError when the optional package is not installed."""
    if "etcd3" in sys.modules:
        return sys.modules["etcd3"]
    found = importlib.util.find_spec("etcd3")
    if found is None or found.origin is None:
        raise StoreError("the optional package etcd3 is not installed: pip install 'shoal[etcd3]'")
    folder = Path(found.origin).parent / "etcdrpc"
    pool = descriptor_pool.DescriptorPool()
    for name in FILES:
        serialized = _serialized(folder / f"{name}_pb2.py")
        pool.AddSerializedFile(serialized)
        module = _module(f"etcd3.etcdrpc.{name}_pb2", pool, descriptor_pb2.FileDescriptorProto.FromString(serialized))
        sys.modules[module.__name__] = module
    return importlib.import_module("etcd3")


def _serialized(source: Path) -> bytes:
    """The value of `serialized_pb=_b('...')` in a generated module."""
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.keyword) and node.arg == "serialized_pb" and isinstance(node.value, ast.Call):
            literal = node.value.args[0]
            if isinstance(literal, ast.Constant) and isinstance(literal.value, str):
                return literal.value.encode("latin1")
    raise StoreError(f"{source} holds no serialized descriptor: this loader knows etcd3 0.12.0 only")


def _module(name: str, pool: descriptor_pool.DescriptorPool, file: descriptor_pb2.FileDescriptorProto) -> ModuleType:
    module = ModuleType(name)
    for message in file.message_type:
        found = pool.FindMessageTypeByName(f"{file.package}.{message.name}")
        setattr(module, message.name, message_factory.GetMessageClass(found))
    for enum in file.enum_type:
        for value in enum.value:
            setattr(module, value.name, value.number)
    return module
