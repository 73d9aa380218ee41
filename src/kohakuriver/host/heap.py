"""How the C library keeps memory for this process."""

import ctypes

# glibc's malloc.h; another C library has no such call.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_LARGE_BYTES = 128 << 10


def keep_little() -> None:
    """Have what is freed go back to the system. Call it before threads are started.

    Lists are answers of a megabyte. Once one was freed, glibc takes others of that size from its heap, and
    what is small then keeps the gaps between them. And without a limit, each thread that reads from the
    store has a heap of its own.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for name, value in (
            (_M_ARENA_MAX, 1),
            (_M_MMAP_THRESHOLD, _LARGE_BYTES),
            (_M_TRIM_THRESHOLD, _LARGE_BYTES),
        ):
            mallopt(name, value)
