"""guest.json, and what load() and ensure() say when a guest is not ready."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path

import pytest

import guest
from cosim.errors import GuestImageError, StorageError, UsageError
from guest import registry, spec


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COSIM_CACHE", str(tmp_path))
    return tmp_path


def _ready(name: str) -> spec.GuestSpec:
    folder = spec.folder(name)
    folder.mkdir(parents=True)
    (folder / "kernel").write_bytes(b"kernel")
    made = spec.GuestSpec(
        name=name,
        kernel=folder / "kernel",
        append="a b",
        region_from="mark:x",
        region_to="power-off",
        sources=registry.recipe(name).sources(),
        versions={"package": "1"},
        checksums={"kernel": spec.checksum(folder / "kernel")},
    )
    spec.write(made)
    return made


def test_what_is_written_is_read(cache: Path) -> None:
    made = _ready("micro")
    assert spec.read("micro") == made == guest.load("micro")
    document = json.loads((spec.folder("micro") / "guest.json").read_text())
    assert document["region"] == {"from": "mark:x", "to": "power-off"}
    # Within the guest's folder, so that the cache may be moved.
    assert document == {**made.document(), "kernel": "kernel"}


@pytest.mark.parametrize("whole", [False, True], ids=["relative", "as older versions wrote it"])
@pytest.mark.parametrize("gone", [False, True], ids=["copied", "moved"])
def test_a_copied_or_moved_cache_is_itself(
    whole: bool, gone: bool, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = _ready("micro")
    if whole:
        (spec.folder("micro") / "guest.json").write_text(json.dumps(made.document()))
    other = tmp_path / "other"
    shutil.copytree(cache / "guests", other / "guests")
    if gone:
        shutil.rmtree(cache / "guests")
    monkeypatch.setenv("COSIM_CACHE", str(other))
    assert guest.load("micro").kernel == other / "guests" / "micro" / "kernel"


def test_a_missing_guest_names_the_command(cache: Path) -> None:
    with pytest.raises(GuestImageError, match="cosim guest fetch linux"):
        guest.load("linux")
    with pytest.raises(GuestImageError, match="cosim guest build micro"):
        guest.load("micro")
    assert guest.status("linux") == "missing"


def test_an_unknown_guest_is_a_usage_error(cache: Path) -> None:
    with pytest.raises(UsageError, match="linux"):
        guest.load("windows")


def test_other_sources_make_it_outdated(cache: Path) -> None:
    made = _ready("micro")
    path = spec.folder("micro") / "guest.json"
    path.write_text(path.read_text().replace(made.sources, "0" * 64))
    assert guest.status("micro") == "outdated"
    with pytest.raises(GuestImageError, match="out of date"):
        guest.load("micro")


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"name": "micro"}', "null"])
def test_a_damaged_description_counts_as_missing(cache: Path, damage: str) -> None:
    _ready("micro")
    (spec.folder("micro") / "guest.json").write_text(damage)
    assert guest.status("micro") == "missing"


def test_a_deleted_kernel_counts_as_missing(cache: Path) -> None:
    made = _ready("micro")
    made.kernel.unlink()
    assert guest.status("micro") == "missing"


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("COSIM_CACHE", str(blocked / "cache"))
    with pytest.raises(StorageError, match=r"cannot write .* choose a folder with COSIM_CACHE"):
        guest.ensure("micro", lambda *_: None)


def test_two_sessions_make_a_guest_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    makers = 0
    waiting = threading.Semaphore(0)
    said: list[str] = []

    def note(text: str) -> None:
        said.append(text)
        waiting.release()

    class Recipe:
        name = "slow"
        verb = "build"
        summary = ""

        def sources(self) -> str:
            return "s"

        def make(self, step: object, force: bool) -> spec.GuestSpec:
            nonlocal makers
            makers += 1
            kernel = spec.folder("slow") / "kernel"
            kernel.write_bytes(b"")
            made = spec.GuestSpec("slow", kernel, "", "boot", "power-off", "s")
            if makers == 1:
                # It goes on only when the others wait for it.
                assert all(waiting.acquire(timeout=30) for _ in range(2))
            spec.write(made)
            return made

    monkeypatch.setitem(registry._RECIPES, "slow", Recipe())
    monkeypatch.setattr(spec, "note", note)
    threads = [
        threading.Thread(target=guest.ensure, args=("slow", lambda *_: None)) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert makers == 1
    assert said == 2 * ["cosim: another cosim process makes the guest slow; waiting until it has"]
    guest.ensure("slow", lambda *_: None, force=True)
    assert makers == 2


def test_every_recipe_says_what_it_is() -> None:
    for name in guest.NAMES:
        recipe = guest.recipe(name)
        assert recipe.verb in ("fetch", "build")
        assert recipe.summary
        assert recipe.sources() == recipe.sources() != ""
