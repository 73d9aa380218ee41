import pytest
from hypothesis import given
from hypothesis import strategies as st

from kohakuriver.models.errors import InvalidInput
from kohakuriver.models.spec.mounts import Mount, parse_mount


@pytest.mark.parametrize(
    ("text", "mount"),
    [
        ("/data:/data", Mount("/data", "/data")),
        ("/data:/mnt:ro", Mount("/data", "/mnt", read_only=True)),
        ("/data:/mnt:rw", Mount("/data", "/mnt")),
        ("//data/./set/:/mnt//x/", Mount("/data/set", "/mnt/x")),
        ("/my data:/größe", Mount("/my data", "/größe")),
        ("/:/host", Mount("/", "/host")),
    ],
)
def test_a_mount_is_read_with_its_paths_made_plain(text: str, mount: Mount) -> None:
    assert parse_mount(text) == mount
    assert parse_mount(str(mount)) == mount


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/a",
        "/a:",
        ":/a",
        "/a:/b:",
        "/a:/b:rx",
        "/a:/b:RO",
        "/a:/b:ro:ro",
        "a:/b",
        "/a:b",
        "/a:./b",
        "/a,readonly=off:/b",
        "/a:/b,bind-propagation=shared",
        "/a/../b:/c",
        "/a:/b/..",
        "/a:/b/../../etc",
        "/a\n:/b",
        "/a:/b\0",
        "/a\x7f:/b",
        "/a:/b\x9b2J",
        "/a\u2028:/b",
        "/a\ud800:/b",
        pytest.param("/" + "a" * 4096 + ":/b", id="long"),
        pytest.param("/" + "ä" * 2048 + ":/b", id="long in bytes"),
    ],
)
def test_what_could_mislead_an_engine_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="mount") as caught:
        parse_mount(text)
    assert len(str(caught.value)) < 1500


@pytest.mark.parametrize(
    "destination",
    [
        "/",
        "//",
        "/proc",
        "/proc/1",
        "/sys",
        "/sys/fs/cgroup",
        "/dev",
        "/dev/shm",
        "/./dev//null",
        "/etc/hosts",
        "/etc/hostname",
        "/etc/resolv.conf",
        "/etc//hosts/",
    ],
)
def test_what_belongs_to_the_system_cannot_be_covered(destination: str) -> None:
    with pytest.raises(InvalidInput, match="belongs to the system"):
        parse_mount(f"/data:{destination}")


@given(st.text(alphabet="/a.:,ro\n ", max_size=30))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        mount = parse_mount(text)
    except InvalidInput:
        return
    for path in (mount.source, mount.destination):
        assert path.startswith("/")
        assert not {"", ".", ".."}.intersection(path[1:].split("/")) or path == "/"
        assert not {",", ":", "\n"}.intersection(path)
