"""Turns what the engine says of a container that it could not create or start into a sentence for users."""

import re

from kohakuriver.models.errors import (
    Conflict,
    EngineFault,
    KohakuRiverError,
    NotFound,
    ProgramMissing,
    ProgramNotExecutable,
    Unavailable,
)
from kohakuriver.runner.engines.contract.faults import (
    EngineFull,
    NodeFault,
    NoDiskSpace,
    says_broken,
    says_full,
)
from kohakuriver.runner.engines.contract.spec import WorkloadSpec
from kohakuriver.runner.engines.docker.output.init_words import not_executable, not_found

_SANDBOX_DOWN = "cannot join network of a non running container"
_FULL = (
    "the Docker engine of this node has no room left on its disk; make some "
    "(docker system df shows what uses it)"
)
_MAPPED = (
    "the engine of this node maps users (userns-remap), so that nothing privileged, and nothing that shares "
    "the node's own namespaces, starts there; leave that option out, or choose another node"
)
_PREFIX = re.compile(
    r"^(?:failed to create (?:shim|task)[^:]*: |OCI runtime \w+ failed: |runc \w+ failed: )+"
)


def is_sandbox_down(error: KohakuRiverError) -> bool:
    return _SANDBOX_DOWN in str(error)


def is_forgotten(error: KohakuRiverError) -> bool:
    """The engine does not know that it started the container before, or began to."""
    text = str(error)
    return ("already exists" in text and "task " in text) or ("start shim" in text and "file exists" in text)


def create_fault(error: KohakuRiverError, spec: WorkloadSpec, image: str) -> KohakuRiverError:
    text = str(error)
    if isinstance(error, Unavailable):
        return error
    if says_full(text):
        return NoDiskSpace(f"{_FULL}: {_plain(text)}")
    if "No such image" in text:
        named = spec.body.image.registry_image or spec.body.image.environment
        shown = named if image.startswith("sha256:") else image
        return NodeFault(f"image {shown} is not on this node any more; it was removed just now")
    source = re.search(r"bind source path does not exist: (\S+)", text)
    if source:
        return EngineFault(f"the mount of {source[1]} cannot work: there is no such path on this node")
    if "user namespaces" in text:
        return EngineFault(_MAPPED)
    if "not a directory" in text and spec.working_dir in text:
        return EngineFault(f"the working directory {spec.working_dir!r} is a file in the image, or below one")
    # A conflict: what has its name on this node is none of ours, or of another attempt.
    kind = NodeFault if isinstance(error, Conflict) or says_broken(text) else EngineFault
    return kind(f"the engine refused the container: {_plain(text)}")


def start_fault(error: KohakuRiverError, command: str, working_dir: str) -> KohakuRiverError:
    """`command` and `working_dir` as the container has them."""
    text = str(error)
    if isinstance(error, Unavailable) or (isinstance(error, NotFound) and "No such container" in text):
        return error
    if says_full(text):
        return EngineFull(f"{_FULL}: {_plain(text)}")
    if (
        "no such file or directory" in text and f"stat {command}" in text
    ) or "executable file not found" in text:
        return ProgramMissing(not_found(command))
    if "permission denied" in text and ("exec" in text or "starting container process" in text):
        return ProgramNotExecutable(not_executable(command))
    if "could not select device driver" in text:
        return NodeFault(
            "the engine of this node cannot give GPUs to containers; "
            "install nvidia-container-toolkit and restart the engine"
        )
    if "docker-init" in text:
        return NodeFault("the engine lacks its docker-init program; install the package tini or docker.io")
    if "exec format error" in text:
        return EngineFault(f"the command {command!r} is no program for this machine (exec format error)")
    if "chdir to cwd" in text or "Cannot mkdir" in text or ("mkdir" in text and working_dir in text):
        return EngineFault(f"the working directory {working_dir!r} cannot be used: {_plain(text)}")
    return _fault_of_options(text) or NodeFault(f"the container could not be started: {_plain(text)}")


def _fault_of_options(text: str) -> EngineFault | None:
    """What was asked for cannot be had here: the workload's own doing, and no fault of the node's."""
    if "rlimit" in text:
        return EngineFault(
            "the engine of this node may not give so high a limit; ask for less with --ulimit, or choose "
            f"another node ({_plain(text)})"
        )
    if "mqueue" in text and "operation not permitted" in text:
        return EngineFault(_MAPPED)
    if "creating device nodes" in text:
        return EngineFault(
            "a device cannot be given here; an engine that maps users (userns-remap) gives devices under "
            f"only their own names ({_plain(text)})"
        )
    if ("error during container init" in text and "mount" in text) or "error mounting" in text:
        return EngineFault(f"a mount of the container failed: {_plain(text)}")
    return None


def _plain(text: str) -> str:
    return _PREFIX.sub("", text).removesuffix(": unknown").strip()[:500]
