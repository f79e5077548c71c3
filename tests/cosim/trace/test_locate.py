from __future__ import annotations

from pathlib import Path

import pytest

from cosim.trace.locate import is_uri, locate


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("t", "t"),
        ("/a/b", "/a/b"),
        ("./s3://x", "./s3://x"),
        ("file:///a/b%20c", "/a/b c"),
        ("file://localhost/a", "/a"),
    ],
)
def test_paths(text: str, path: str) -> None:
    assert locate(text) == Path(path)


def test_what_is_a_uri() -> None:
    assert is_uri("s3://b/t")
    assert not is_uri("s3:/b/t") and not is_uri("./s3://b/t") and not is_uri("linux")
