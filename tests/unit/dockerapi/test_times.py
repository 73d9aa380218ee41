"""The engine's times."""

from kohakuriver.dockerapi.times import engine_time


def test_the_engines_times_are_read() -> None:
    assert engine_time("0001-01-01T00:00:00Z") is None
    moment = engine_time("2026-11-23T20:57:29.435765859Z")
    assert moment is not None
    assert moment.isoformat() == "2026-11-23T20:57:29.435765+00:00"
