"""References of images as an engine reads them: one whole form for each spelling, none for ours."""

import pytest

from kohakuriver.models.errors import InvalidInput
from kohakuriver.models.spec.image_references import parse_image_reference

DIGEST = "sha256:" + "ab" * 32


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("ubuntu", "docker.io/library/ubuntu:latest"),
        ("library/ubuntu:24.04", "docker.io/library/ubuntu:24.04"),
        ("docker.io/ubuntu", "docker.io/library/ubuntu:latest"),
        ("index.docker.io/a/b:1", "docker.io/a/b:1"),
        ("DOCKER.io:443/a/b:1", "docker.io/a/b:1"),
        ("a/b/c", "docker.io/a/b/c:latest"),
        ("localhost/a:1", "localhost/a:1"),
        ("LocalHost:5000/a", "localhost:5000/a:latest"),
        ("GHCR.io/a/b", "ghcr.io/a/b:latest"),
        ("10.0.0.7:5000/kohakuriver/x:1", "10.0.0.7:5000/kohakuriver/x:1"),
        ("registry:5000/abcdefabcdef", "registry:5000/abcdefabcdef:latest"),
        (f"ubuntu:24.04@{DIGEST}", f"docker.io/library/ubuntu@{DIGEST}"),
        ("cafe", "docker.io/library/cafe:latest"),
        ("kohaku-x/y", "docker.io/kohaku-x/y:latest"),
        ("a/kohakuriver", "docker.io/a/kohakuriver:latest"),
    ],
)
def test_each_spelling_has_one_whole_form(text: str, whole: str) -> None:
    assert parse_image_reference(text).whole == whole
    assert parse_image_reference(whole).whole == whole


@pytest.mark.parametrize("end", ["", ":base", f"@{DIGEST}", f":1@{DIGEST}"])
@pytest.mark.parametrize(
    "name",
    [
        "kohakuriver",
        "kohakuriver/base",
        "kohakuriver-snapshot/vps-7",
        "kohakuriver-x",
        "kohakuriver_x/y",
        "kohakuriver.x",
    ],
)
@pytest.mark.parametrize(
    "before",
    [
        *("", "library/", "docker.io/", "docker.io/library/", "index.docker.io/", "Index.Docker.IO/library/"),
        *("registry-1.docker.io/", "docker.io:443/", "localhost/", "LOCALHOST/"),
    ],
)
def test_names_of_ours_are_refused_in_every_spelling(before: str, name: str, end: str) -> None:
    with pytest.raises(InvalidInput, match="its own images") as caught:
        parse_image_reference(before + name + end)
    assert caught.value.field == "registry_image"


@pytest.mark.parametrize("before", ["", "library/", "docker.io/", "localhost/"])
@pytest.mark.parametrize(
    "name", ["a" * 12, "0" * 64, "1f" * 15 + "a", "a" * 12 + ":1", "sha256:abc", "sha512:1", "sha256"]
)
def test_ids_are_refused(before: str, name: str) -> None:
    with pytest.raises(InvalidInput, match="image's id"):
        parse_image_reference(before + name)


@pytest.mark.parametrize(
    "host",
    [
        *(
            "169.254.169.254",
            "169.254.169.254:80",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "2852039166:80",
        ),
        *("0xA9FEA9FE:80", "169.254.43518", "0251.0376.0251.0376", "127.1", "1.2.3.4.5", "1.2.3.256"),
    ],
)
def test_addresses_that_no_registry_has_are_refused(host: str) -> None:
    with pytest.raises(InvalidInput, match="registry"):
        parse_image_reference(f"{host}/a:1")


@pytest.mark.parametrize("host", ["127.0.0.1:5000", "10.1.2.3", "192.168.0.1:5000", "99.0.0.1", "v2:5000"])
def test_registries_of_a_site_are_taken(host: str) -> None:
    assert parse_image_reference(f"{host}/a:1").whole == f"{host}/a:1"


@pytest.mark.parametrize(
    "text",
    [
        "docker.io./kohakuriver/base",
        "docker..io/a",
        "-docker.io/a",
        "docker.io-/a",
        "docker__hub.io/a",
        "Kohakuriver/base",
        "kohakuriver/Base",
        "localhost:/a",
        "docker.io:/a",
        "user:pw@docker.io/a",
        "user@docker.io/a",
        "docker.io//kohakuriver/base",
        "/kohakuriver/base",
        "./kohakuriver/base",
        "https://docker.io/a",
        "a%2fb",
        "\uff4bohakuriver/base",
        "kohakuriver/base\n",
        "a@sha256:" + "AB" * 32,
        "a@sha512:" + "ab" * 64,
        "[::1]:5000/a",
    ],
)
def test_look_alikes_and_what_an_engine_would_refuse_are_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_image_reference(text)
