"""Compiles a system call filter to BPF with the libseccomp that crun itself needs.

Rules: called once per set of guarding capabilities, in the process, about 5 ms; no file is written. Calls that this libseccomp
does not know yet fail with ENOSYS instead of EPERM, so that newer C libraries fall back to the older call.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from functools import cache
from typing import Final

from agent.plan.seccomp import EPERM, Filter, Rule
from model.errors import RuntimeFailed

_ALLOW: Final = 0x7FFF0000
_ERRNO: Final = 0x00050000
_OPTIMIZE_ATTRIBUTE: Final = 8
_BINARY_TREE: Final = 2
_OPS: Final = {"SCMP_CMP_NE": 1, "SCMP_CMP_EQ": 4, "SCMP_CMP_MASKED_EQ": 7}
_TOKENS: Final = {
    "SCMP_ARCH_X86_64": 0xC000003E,
    "SCMP_ARCH_X86": 0x40000003,
    "SCMP_ARCH_AARCH64": 0xC00000B7,
    "SCMP_ARCH_ARM": 0x40000028,
}
_X32_BIT: Final = 0x40000000
_MAX_NUMBER: Final = 1024


class _Compare(ctypes.Structure):
    _fields_ = (("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64))


@cache
def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
    except OSError:
        raise RuntimeFailed("libseccomp.so.2 is missing: install the package libseccomp2") from None
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_init.argtypes = [ctypes.c_uint32]
    library.seccomp_release.argtypes = [ctypes.c_void_p]
    library.seccomp_release.restype = None
    library.seccomp_arch_add.argtypes = [ctypes.c_void_p, ctypes.c_uint32]
    library.seccomp_attr_set.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32]
    library.seccomp_export_bpf.argtypes = [ctypes.c_void_p, ctypes.c_int]
    library.seccomp_syscall_resolve_name.argtypes = [ctypes.c_char_p]
    library.seccomp_syscall_resolve_num_arch.argtypes = [ctypes.c_uint32, ctypes.c_int]
    library.seccomp_syscall_resolve_num_arch.restype = ctypes.c_void_p
    library.seccomp_rule_add_array.argtypes = [
        ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint, ctypes.POINTER(_Compare),
    ]  # fmt: skip
    return library


def compile_filter(profile: Filter) -> bytes:
    """The BPF program (struct sock_filter array, native byte order). Raises RuntimeFailed."""
    library = _library()
    context = library.seccomp_init(_ERRNO | EPERM)
    if not context:
        raise RuntimeFailed("libseccomp cannot make a filter")
    try:
        for name in profile.architectures[1:]:
            _check(library.seccomp_arch_add(context, _TOKENS[name]), f"architecture {name}")
        library.seccomp_attr_set(context, _OPTIMIZE_ATTRIBUTE, _BINARY_TREE)  # libseccomp before 2.5 cannot: slower calls only
        for rule in profile.rules:
            _add(context, rule)
        program = _export(context)
    finally:
        library.seccomp_release(context)
    return _prologue(_TOKENS[profile.architectures[0]]) + program


def _add(context: int, rule: Rule) -> None:
    library = _library()
    compares = (_Compare * len(rule.args))(*(_compare(arg.index, arg.op, arg.value, arg.value_two) for arg in rule.args))
    action = _ALLOW if rule.errno is None else _ERRNO | rule.errno
    for name in rule.names:
        number = library.seccomp_syscall_resolve_name(name.encode())
        if number == -1:  # newer than this libseccomp: the prologue answers ENOSYS
            continue
        result = library.seccomp_rule_add_array(context, action, number, len(rule.args), compares)
        if result not in (0, -errno.EDOM, -errno.EEXIST):  # EDOM: not a call of this architecture
            _check(result, f"rule for {name}")


def _compare(index: int, op: str, value: int, value_two: int) -> _Compare:
    return _Compare(index, _OPS[op], value, value_two)


def _export(context: int) -> bytes:
    fd = os.memfd_create("seccomp", os.MFD_CLOEXEC)
    try:
        _check(_library().seccomp_export_bpf(context, fd), "export")
        return os.pread(fd, os.fstat(fd).st_size, 0)
    finally:
        os.close(fd)


def _prologue(token: int) -> bytes:
    """`if native and not x32 and number > newest known: return ENOSYS`, put before libseccomp's own program."""
    newest = _newest_known(token)
    load, jump_equal, jump_greater_or_equal, answer = 0x20, 0x15, 0x35, 0x06
    steps = (
        (load, 0, 0, 4),
        (jump_equal, 0, 4, token),
        (load, 0, 0, 0),
        (jump_greater_or_equal, 2, 0, _X32_BIT),
        (jump_greater_or_equal, 0, 1, newest + 1),
        (answer, 0, 0, _ERRNO | errno.ENOSYS),
    )
    return b"".join(struct.pack("=HBBI", *step) for step in steps)


@cache
def _newest_known(token: int) -> int:
    library, free = _library(), ctypes.CDLL(None).free
    free.argtypes = [ctypes.c_void_p]
    for number in range(_MAX_NUMBER, 0, -1):
        name = library.seccomp_syscall_resolve_num_arch(token, number)
        if name:
            free(name)
            return number
    return _MAX_NUMBER


def _check(result: int, what: str) -> None:
    if result < 0:
        raise RuntimeFailed(f"seccomp filter: {what}: {os.strerror(-result)}")
