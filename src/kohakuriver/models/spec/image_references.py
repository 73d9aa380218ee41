"""References of images of registries, read as an engine reads them (the grammar of distribution/reference).

An engine looks up a text among its tags and then among the beginnings of its images' ids, and adds to a short
name what it leaves out. So that no look-alike passes, a reference is read once, here, and everybody goes on
with its whole form. What the engine holds for this system (environments, snapshots, sandboxes) is no image of
a registry, and neither is an id: with them anybody could take somebody else's disk.
"""

import re
from dataclasses import dataclass

from kohakuriver.models.enums import PullPolicy
from kohakuriver.models.errors import InvalidInput

_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_PART = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_REFERENCE = re.compile(
    rf"(?:(?P<host>{_LABEL}(?:\.{_LABEL})*)(?P<port>:[0-9]{{1,5}})?/)?"
    rf"(?P<path>{_PART}(?:/{_PART})*)"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)
_NAME = re.compile(rf"{_PART}(?:/{_PART})*")
_MOST_CHARACTERS = 512
_DEFAULT_HOST = "docker.io"
_DEFAULT_HOSTS = ("docker.io", "index.docker.io", "registry-1.docker.io", "registry.hub.docker.com")
"""Other names of the registry that short names mean."""
_ID = re.compile(r"[0-9a-f]{12,64}")
_DIGESTS = ("sha256", "sha384", "sha512")
"""As a name before a colon, an engine takes these for the algorithm of an id."""
_OURS = re.compile(r"kohakuriver(?:[._-].*)?")
_NO_REGISTRY = re.compile(r"(?:0|169\.254|2(?:2[4-9]|[345][0-9]))\..*")
"""Addresses that no machine has, and those of clouds' metadata services (link-local)."""


@dataclass(frozen=True, slots=True)
class ImageReference:
    """`registry` with its port; with a digest the tag has no say."""

    registry: str
    path: str
    tag: str
    digest: str | None

    @property
    def whole(self) -> str:
        """The reference with nothing left out, which an engine cannot take for anything else."""
        end = f":{self.tag}" if self.digest is None else f"@{self.digest}"
        return f"{self.registry}/{self.path}{end}"


def parse_image_reference(text: str) -> ImageReference:
    """Read `[registry/]name[:tag][@sha256:…]`; InvalidInput for other texts, names of ours and ids."""
    match = _REFERENCE.fullmatch(text) if len(text) <= _MOST_CHARACTERS else None
    if match is None:
        raise _no_reference(text)
    host, port, path = match["host"] or "", match["port"] or "", match["path"]
    if not (port or "." in host or host.lower() == "localhost"):
        # No registry but the first part of a name.
        path = f"{host}/{path}" if host else path
        host = _DEFAULT_HOST
        first, _, rest = path.partition("/")
        if _NAME.fullmatch(path) is None or (rest and "." in first):
            raise _no_reference(text)
    host = host.lower()
    _check_host(text, host)
    if host in _DEFAULT_HOSTS:
        host, port = _DEFAULT_HOST, ""
        path = path if "/" in path else f"library/{path}"
    registry = f"{host}{port}"
    if registry in (_DEFAULT_HOST, "localhost"):
        _check_path(text, path)
    return ImageReference(registry, path, match["tag"] or "latest", match["digest"])


def registry_name(text: str) -> str:
    """Read `host[:port]`; other names of the registry that short names mean become its own. InvalidInput."""
    name = text.strip().removesuffix("/")
    try:
        found = parse_image_reference(f"{name}/x/y").registry if "/" not in name else ""
    except InvalidInput:
        found = ""
    if not found or (found == _DEFAULT_HOST and name.lower() not in _DEFAULT_HOSTS):
        raise InvalidInput(
            f"{text[:100]!r} is not the name of a registry: give host or host:port, as in image names",
            field="registry",
        )
    return found


def check_pull(pull: PullPolicy | None, registry_image: str | None) -> PullPolicy:
    """Return the policy; raises InvalidInput where there is nothing that it could be about."""
    if pull is not None and registry_image is None:
        raise InvalidInput(
            "pull is about an image of a registry (registry_image); an environment is always the current one",
            field="pull",
        )
    return pull or PullPolicy.MISSING


def _check_host(text: str, host: str) -> None:
    last = host.rpartition(".")[2]
    is_number = last.isdecimal() or last.startswith("0x")
    if is_number and (not _is_ipv4(host) or _NO_REGISTRY.fullmatch(host)):
        raise InvalidInput(
            f"{text[:100]!r} names no machine that can be a registry: give its name or its own address",
            field="registry_image",
        )


def _is_ipv4(host: str) -> bool:
    parts = host.split(".")
    return len(parts) == 4 and all(
        part.isdecimal() and int(part) < 256 and part == str(int(part)) for part in parts
    )


def _check_path(text: str, path: str) -> None:
    """Of what a short name means, or what an engine holds; elsewhere a name is the registry's affair."""
    name = path.removeprefix("library/")
    if _OURS.fullmatch(name.partition("/")[0]):
        raise InvalidInput(
            f"{text[:100]!r} is a name that KohakuRiver gives to its own images; use an environment by its "
            "name (container_name), a snapshot with `kohakuriver vps restore`",
            field="registry_image",
        )
    if _ID.fullmatch(name) or name in _DIGESTS:
        raise InvalidInput(
            f"{text[:100]!r} is or looks like an image's id; name the image as its registry does",
            field="registry_image",
        )


def _no_reference(text: str) -> InvalidInput:
    return InvalidInput(
        f"{text[:100]!r} is not an image reference of the form [registry/]name[:tag]", field="registry_image"
    )
