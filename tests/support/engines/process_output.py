"""What a process that was opened in a workload writes."""

from kohakuriver.runner.engines.contract.processes import Process


async def until_shown(process: Process, wanted: bytes) -> bytes:
    """Read until it has written that; return all that came."""
    shown = b""
    while wanted not in shown:
        piece = await process.read()
        assert piece is not None, shown
        shown += piece[1]
    return shown
