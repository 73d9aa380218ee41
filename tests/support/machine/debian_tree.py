"""A Debian tree for tests that need more than busybox: made once, kept under `.cache/`."""

import asyncio
import fcntl
import hashlib
import os
from pathlib import Path

from kohakuriver.dockerapi.client import DockerApi
from kohakuriver.dockerapi.images import file_chunks, import_tree, tag_image
from kohakuriver.host.environments.local_tree import DebianRecipe, debian_recipe, make_debian_tree
from kohakuriver.models.errors import NotFound

CACHE = Path(__file__).parents[3] / ".cache"
_SSH_REPOSITORY = "river-test/debian-ssh"
SSH_IMAGE = f"{_SSH_REPOSITORY}:newest"


async def debian_tree_tar(cache: Path = CACHE) -> Path:
    """Return the tree's tar archive (about 200 MB), made now if the cache has none of this recipe.

    Raises Unavailable on a machine that cannot make one.
    """
    recipe = await asyncio.to_thread(debian_recipe)
    path = cache / f"debian-tree-{_key(recipe)}.tar"
    cache.mkdir(exist_ok=True)
    # One process makes it, the others wait for it.
    with (cache / "debian-tree.lock").open("w") as lock:
        await asyncio.to_thread(fcntl.flock, lock, fcntl.LOCK_EX)
        if not path.exists():
            draft = path.with_name(f"{path.name}.{os.getpid()}.draft")
            try:
                await make_debian_tree(recipe, draft, print)
                draft.rename(path)
            finally:
                draft.unlink(missing_ok=True)
    return path


async def ssh_image(api: DockerApi) -> str:
    """An image of a Debian system with sshd, sftp and rsync, which is `SSH_IMAGE` then."""
    archive = await debian_tree_tar()
    tag = archive.stem.rpartition("-")[2]
    try:
        await api.json("GET", f"images/{_SSH_REPOSITORY}:{tag}/json")
    except NotFound:
        image_id = await import_tree(api, file_chunks(archive), (), lambda _sentence: None)
        await tag_image(api, image_id, _SSH_REPOSITORY, tag)
    await tag_image(api, f"{_SSH_REPOSITORY}:{tag}", _SSH_REPOSITORY, "newest")
    return SSH_IMAGE


def _key(recipe: DebianRecipe) -> str:
    return hashlib.sha256(repr(recipe).encode()).hexdigest()[:16]
