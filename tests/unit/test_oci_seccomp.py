"""The default system call filter: what it lets through, whom, and that it compiles."""

from __future__ import annotations

import json
import struct

import pytest

from agent.plan.capabilities import DEFAULT
from agent.plan.oci import HostFacts, seccomp_filter
from agent.plan.seccomp import Filter, default_filter, oci_seccomp
from agent.runtime.seccomp_bpf import compile_filter
from model.errors import RuntimeFailed
from model.spec import ContainerSpec

_X86_64, _ALLOW, _EPERM, _ENOSYS = 0xC000003E, 0x7FFF0000, 0x00050001, 0x00050026


def default(*more: str) -> Filter:
    found = default_filter("x86_64", (*DEFAULT, *more))
    assert found is not None
    return found


def allowed(profile: Filter) -> set[str]:
    return {name for rule in profile.rules if rule.errno is None and not rule.args for name in rule.names}


def run(program: bytes, number: int, *args: int, architecture: int = _X86_64) -> int:
    """What the kernel would answer: an interpreter of the few instructions filters use."""
    data = struct.pack("=IIQ6Q", number, architecture, 0, *(args + (0,) * 6)[:6])
    steps = [struct.unpack_from("=HBBI", program, offset) for offset in range(0, len(program), 8)]
    accumulator, at = 0, 0
    while True:
        code, yes, no, value = steps[at]
        at += 1
        match code:
            case 0x20:
                accumulator = struct.unpack_from("=I", data, value)[0]
            case 0x54:
                accumulator &= value
            case 0x05:
                at += value
            case 0x06:
                return int(value)
            case 0x15:
                at += yes if accumulator == value else no
            case 0x25:
                at += yes if accumulator > value else no
            case 0x35:
                at += yes if accumulator >= value else no
            case 0x45:
                at += yes if accumulator & value else no
            case _:
                raise AssertionError(f"instruction {code:#x}")


def test_dangerous_calls_are_not_allowed_by_default() -> None:
    names = allowed(default())
    refused = (
        "mount umount2 bpf setns unshare reboot kexec_load init_module ptrace_never keyctl add_key io_uring_setup userfaultfd"
    )
    assert not names & (set(refused.split()) - {"ptrace_never"})
    assert {"read", "execve", "openat", "futex", "clone"} - names == {"clone"}, "clone is allowed with conditions only"


@pytest.mark.parametrize(
    ("capability", "call"), [("CAP_SYS_ADMIN", "mount"), ("CAP_SYS_PTRACE", "kcmp"), ("CAP_SYS_TIME", "settimeofday")]
)
def test_a_capability_opens_its_calls(capability: str, call: str) -> None:
    assert call not in allowed(default())
    assert call in allowed(default(capability))


def test_the_compiled_filter_answers_as_the_rules_say() -> None:
    program = compile_filter(default())
    assert run(program, 0) == _ALLOW  # read
    assert run(program, 165) == _EPERM  # mount
    assert run(program, 425) == _EPERM  # io_uring_setup
    assert run(program, 56, 0x11) == _ALLOW  # clone: a plain fork
    assert run(program, 56, 0x10000000) == _EPERM  # clone: a user namespace
    assert run(program, 435) == _ENOSYS  # clone3
    assert run(program, 41, 2) == _ALLOW  # socket: AF_INET
    assert run(program, 41, 40) == _EPERM  # socket: AF_VSOCK
    assert run(program, 135, 0xFFFFFFFF) == _ALLOW  # personality: only look
    assert run(program, 135, 0x0040000) == _EPERM  # personality: no address randomisation
    assert run(program, 900) == _ENOSYS  # a call from the future
    assert run(program, 0, architecture=0xC00000B7) not in (_ALLOW, _EPERM), "another architecture is killed"
    assert run(program, 0x40000000) != _ALLOW, "x32"
    assert run(compile_filter(default("CAP_SYS_ADMIN")), 165) == _ALLOW


def test_an_arm_filter_is_made_too() -> None:
    found = default_filter("aarch64", DEFAULT)
    assert found is not None
    assert found.architectures == ("SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM")


def test_an_unknown_machine_has_no_filter_and_says_so() -> None:
    facts = HostFacts("sparc", 1, DEFAULT)
    assert default_filter("sparc", ()) is None
    with pytest.raises(RuntimeFailed, match="sparc"):
        seccomp_filter(ContainerSpec(image="x"), facts)
    assert seccomp_filter(ContainerSpec(image="x", security_opt=("seccomp=unconfined",)), facts) is None


def test_the_oci_form_names_the_same_rules() -> None:
    profile = default()
    plain = oci_seccomp(profile)
    assert plain["defaultAction"] == "SCMP_ACT_ERRNO"
    assert len(plain["syscalls"]) == len(profile.rules)
    json.dumps(plain)
