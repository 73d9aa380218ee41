"""Two images for the engine's tests, made in a second without a registry and kept under fixed tags.

`busybox_image` has a shell and the usual tools in /bin; `bare_image` holds one static program under three
names (/sleep, /true, /cat) and no shell.
"""

import hashlib

from kohakuriver.dockerapi.client import DockerApi
from kohakuriver.models.errors import NotFound
from kohakuriver.runner.engines.docker.sandboxes.image import find_pause_binary
from support.engines.static_images import import_bytes, tree

_APPLETS = [
    "sh",
    "cat",
    "cp",
    "dd",
    "echo",
    "env",
    "false",
    "grep",
    "head",
    "hostname",
    "id",
    "ip",
    "kill",
    "ls",
    "mkdir",
    "mv",
    "nc",
    "printf",
    "ps",
    "pwd",
    "rm",
    "seq",
    "sleep",
    "stat",
    "tail",
    "tee",
    "touch",
    "true",
    "tr",
    "wc",
    "whoami",
    "yes",
]


async def busybox_image(api: DockerApi) -> str:
    binary = find_pause_binary().read_bytes()
    links = {f"bin/{name}": "busybox" for name in _APPLETS}
    return await _ensured(api, "river-test/busybox", tree({"bin/busybox": binary}, links))


async def bare_image(api: DockerApi) -> str:
    binary = find_pause_binary().read_bytes()
    return await _ensured(api, "river-test/bare", tree({"sleep": binary, "true": binary, "cat": binary}))


async def changed_image(api: DockerApi, name: str, *program: str, **config: object) -> None:
    """Make an image of `busybox_image` as the program leaves it, if there is one, and with other settings."""
    body = {"Image": await busybox_image(api), "Entrypoint": list(program) or ["/not-run"]}
    made = await api.json("POST", "containers/create", json=body)
    if program:
        await api.json("POST", f"containers/{made['Id']}/start")
        await api.json("POST", f"containers/{made['Id']}/wait")
    repository, _, tag = name.rpartition(":")
    params = {"container": made["Id"], "repo": repository, "tag": tag}
    await api.json("POST", "commit", params=params, json=config)
    await api.json("DELETE", f"containers/{made['Id']}", params={"force": "1"})


async def _ensured(api: DockerApi, repository: str, archive: bytes) -> str:
    reference = f"{repository}:{hashlib.sha256(archive).hexdigest()[:12]}"
    try:
        await api.json("GET", f"images/{reference}/json")
    except NotFound:
        await import_bytes(api, archive, reference)
    return reference
