"""How memory is kept for a process, by the C library and by Python."""

import ctypes
import gc

# glibc's malloc.h; another C library has no such call.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_LARGE_BYTES = 512 << 10
_KEPT_BYTES = 2 << 20


def keep_little() -> None:
    """Have what is freed go back to the system, but for a little. Call it before threads are started.

    Lists are answers of a megabyte. Once one was freed, glibc takes others of that size from its heap, and
    what is small then keeps the gaps between them; so it is with the programs that a runner reads for its
    sandboxes. And without a limit, each thread that works has a heap of its own. Buffers of streams, up to
    256 KiB, come and go thousands of times a second: each that goes back costs a page fault for each 4 KiB
    of the next one, half of a stream's time.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for name, value in (
            (_M_ARENA_MAX, 1),
            (_M_MMAP_THRESHOLD, _LARGE_BYTES),
            (_M_TRIM_THRESHOLD, _KEPT_BYTES),
        ):
            mallopt(name, value)


def spare_what_lives_long() -> None:
    """Keep the garbage collector off what was made at start, and from running at every few hundred objects.

    Measured: a full collection walks everything that the host has loaded, and answers that were being made
    waited for it (with 1,000 nodes, 440 instead of 58 ms at the 99th percentile).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
