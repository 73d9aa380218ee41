"""The heap: what large answers took goes back to the system, and what streams need stays."""

import subprocess
import sys

import pytest

LARGE_BLOCKS = """
import ctypes
from kohakuriver.heap import keep_little
libc = ctypes.CDLL(None)
names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()
class Figures(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in names]
libc.mallinfo2.restype = Figures
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
keep_little() if {called} else None
libc.free(libc.malloc(1 << 20))
before = libc.mallinfo2().hblks
libc.malloc(1 << 20)
print(libc.mallinfo2().hblks - before)
"""

BUFFERS = """
import resource
from kohakuriver.heap import keep_little
keep_little()
held = []
def come_and_go(times):
    for _ in range(times):
        held.append(b"x" * (256 << 10))
        del held[:-3]
come_and_go(10)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
come_and_go(200)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def large_blocks_beside_the_heap(*, called: bool) -> int:
    code = LARGE_BLOCKS.replace("{called}", str(called))
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    if "undefined symbol: mallinfo2" in done.stderr:
        pytest.skip("this C library does not tell how it keeps memory")
    assert not done.returncode, done.stderr
    return int(done.stdout)


def test_a_large_block_stays_beside_the_heap_also_after_one_was_freed() -> None:
    assert large_blocks_beside_the_heap(called=True) == 1
    assert large_blocks_beside_the_heap(called=False) == 0


def test_buffers_of_streams_come_and_go_without_the_system() -> None:
    done = subprocess.run(
        [sys.executable, "-c", BUFFERS], capture_output=True, text=True, check=True, timeout=60
    )
    assert int(done.stdout) < 200  # a buffer that is new to the process takes 64
