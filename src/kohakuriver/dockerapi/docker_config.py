"""The engine's own credentials of a user: `config.json` of its command line, and the helpers that it names.

Rules: read anew for each pull, since people log in and out; a helper is a program of the user's PATH, is told
the registry on its standard input, and has a bounded time and a bounded answer. What it says is a secret and
is shown to nobody; what is wrong is logged without it.
"""

import asyncio
import base64
import contextlib
import os
import re
import shutil
import signal
import stat
from collections.abc import Mapping
from pathlib import Path

import msgspec
import structlog

from kohakuriver.dockerapi.registry_auth import CredentialUnread, RegistryAuth, registry_auth
from kohakuriver.models.errors import InvalidInput
from kohakuriver.models.spec.image_references import registry_name
from kohakuriver.oom_score import expendable

_HUB = registry_name("docker.io")
_HUB_SERVER = "https://index.docker.io/v1/"
"""What engines call that one where it is about credentials."""
_MOST_CONFIG_BYTES = 1 << 20
_MOST_ANSWER_BYTES = 64 << 10
HELPER_SECONDS = 20.0
_END_SECONDS = 5.0
_HELPER_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
_TOKEN_USER = "<token>"  # noqa: S105 - the name by which helpers say that the secret is a token
_log = structlog.get_logger(__name__)


class _Entry(msgspec.Struct, frozen=True):
    """Of one registry; `auth` is base64 of `user:password`."""

    auth: str = ""
    username: str = ""
    password: str = ""
    identitytoken: str = ""
    registrytoken: str = ""


class _Config(msgspec.Struct, frozen=True, rename="camel"):
    auths: dict[str, _Entry] = {}
    creds_store: str = ""
    cred_helpers: dict[str, str] = {}


class _HelperAnswer(msgspec.Struct, frozen=True, rename="pascal"):
    username: str
    secret: str


def config_path(environment: Mapping[str, str] = os.environ) -> Path:
    """Where the engine's command line of this user keeps its settings."""
    folder = environment.get("DOCKER_CONFIG")
    return (Path(folder) if folder else Path.home() / ".docker") / "config.json"


async def own_credential(registry: str, path: Path | None = None) -> RegistryAuth | None:
    """This user's credential for a registry (`host[:port]`, or `docker.io`); None without one.

    A helper for the registry comes before the store of all, and that before what stands in the file. Raises
    CredentialUnread where there is none, and one of them could not be asked.
    """
    path = path or config_path()
    config = await asyncio.to_thread(_read, path)
    if config is None:
        return None
    origin = f"the credentials of {path}"
    by_name = {_registry_of(server): name for server, name in config.cred_helpers.items()}
    unread: CredentialUnread | None = None
    for name in dict.fromkeys((by_name.get(registry, ""), config.creds_store)):
        try:
            found = await _ask_helper(name, registry) if name else None
        except CredentialUnread as error:
            unread = unread or error
        else:
            if found is not None:
                return _of_helper(found, f"{origin} (helper {name})", registry)
    entry = {_registry_of(server): entry for server, entry in config.auths.items()}.get(registry)
    if entry is None and unread is not None:
        raise unread
    return None if entry is None else _of_entry(entry, origin, registry)


def _registry_of(server: str) -> str:
    """The registry that a key of the file means; they may be URLs."""
    try:
        return registry_name(re.sub(r"^https?://", "", server).split("/", 1)[0])
    except InvalidInput:
        return ""


def server_of(registry: str) -> str:
    """What engines call a registry where it is about credentials."""
    return _HUB_SERVER if registry == _HUB else registry


def _read(path: Path) -> _Config | None:
    try:
        # Without O_NONBLOCK, a named pipe would hold us up for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise _config_unread(path, "it is not a regular file")
            return msgspec.json.decode(file.read(_MOST_CONFIG_BYTES), type=_Config)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _config_unread(path, error.strerror or "it cannot be read") from error
    except (msgspec.MsgspecError, ValueError, RecursionError):
        # The error quotes what it found, which may be a password.
        raise _config_unread(path, "it is not as Docker writes it") from None


def _config_unread(path: Path, reason: str) -> CredentialUnread:
    _log.warning("docker_config_unreadable", path=str(path), reason=reason)
    return CredentialUnread(f"the credentials of {path} could not be read: {reason}")


def _of_entry(entry: _Entry, origin: str, registry: str) -> RegistryAuth | None:
    username, password = entry.username, entry.password
    if entry.auth:
        try:
            username, _, password = base64.b64decode(entry.auth).decode().rstrip("\0").partition(":")
        except ValueError:
            _log.warning("docker_config_entry_unreadable", registry=registry)
            raise CredentialUnread(f"what {origin} have for {registry} is not as Docker writes it") from None
    fields = {
        "username": username,
        "password": password,
        "identitytoken": entry.identitytoken,
        "registrytoken": entry.registrytoken,
    }
    given = {name: value for name, value in fields.items() if value}
    return registry_auth(origin, server_of(registry), **given) if given else None


def _of_helper(answer: _HelperAnswer, origin: str, registry: str) -> RegistryAuth:
    server = server_of(registry)
    if answer.username == _TOKEN_USER:
        return registry_auth(origin, server, identitytoken=answer.secret)
    return registry_auth(origin, server, username=answer.username, password=answer.secret)


async def _ask_helper(name: str, registry: str) -> _HelperAnswer | None:
    program = shutil.which(f"docker-credential-{name}") if _HELPER_NAME.fullmatch(name) else None
    if program is None:
        _log.warning("credential_helper_missing", helper=name[:100], registry=registry)
        raise CredentialUnread(f"the credential helper docker-credential-{name[:100]} is not on the PATH")
    process = await asyncio.create_subprocess_exec(
        *expendable(program, "get"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env={"HOME": str(Path.home()), **os.environ},
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(HELPER_SECONDS):
            answer = await _answer_of(process, server_of(registry))
    except TimeoutError:
        _log.warning("credential_helper_too_slow", helper=name, registry=registry)
        raise CredentialUnread(
            f"the credential helper docker-credential-{name} gave no answer within {HELPER_SECONDS:g} s"
        ) from None
    finally:
        await asyncio.shield(_end(process))
    if answer is None:
        _log.info("credential_helper_has_none", helper=name, registry=registry, status=process.returncode)
    return answer


async def _end(process: asyncio.subprocess.Process) -> None:
    """End it with what it started, so that nothing of it is left behind."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_END_SECONDS):
            # What nobody reads would keep it from being waited for.
            while process.stdout is not None and await process.stdout.read(_MOST_ANSWER_BYTES):
                pass
            await process.wait()


async def _answer_of(process: asyncio.subprocess.Process, server: str) -> _HelperAnswer | None:
    if process.stdin is None or process.stdout is None:
        raise AssertionError("both were asked for")
    with contextlib.suppress(ConnectionError):
        process.stdin.write(server.encode() + b"\n")
        await process.stdin.drain()
        process.stdin.close()
    text = b""
    while len(text) <= _MOST_ANSWER_BYTES and (chunk := await process.stdout.read(_MOST_ANSWER_BYTES)):
        text += chunk
    if len(text) > _MOST_ANSWER_BYTES or await process.wait() != 0:
        return None
    try:
        return msgspec.json.decode(text, type=_HelperAnswer)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
