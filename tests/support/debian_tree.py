"""A Debian tree with python3 for tests that need more than busybox: made once, kept under `.cache/`."""

import asyncio
import fcntl
import hashlib
import os
from pathlib import Path

from kohakuriver.host.environments.local_tree import DebianRecipe, debian_recipe, make_debian_tree

CACHE = Path(__file__).parents[2] / ".cache"


async def debian_tree_tar(cache: Path = CACHE) -> Path:
    """Return the tree's tar archive (about 130 MB), made now if the cache has none of this recipe.

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


def _key(recipe: DebianRecipe) -> str:
    return hashlib.sha256(repr(recipe).encode()).hexdigest()[:16]
