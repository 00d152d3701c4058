"""What has changed in a workspace is told once, within bounds, at no cost while nothing has."""

from __future__ import annotations

import os
import resource
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from kernels import changes
from kernels.changes import Changes, Watches

SHM = "/dev/shm"  # noqa: S108 - a tmpfs, as workspaces are


class Place:
    """A workspace, and who watches it."""

    def __init__(self, home: Path, watches: Watches | None = None) -> None:
        self.home = home
        self.root = os.open(home, os.O_RDONLY | os.O_DIRECTORY)
        self.watches = watches or Watches()
        self.changes = Changes(self.watches)
        self.changes.begin(self.root)

    def take(self) -> dict[str, Any]:
        return self.changes.take(self.root)

    def told(self) -> list[tuple[str, int | None, str]]:
        return [(one["path"], one["size"], one["change"]) for one in self.take().get("files", [])]

    def close(self) -> None:
        self.watches.close()
        os.close(self.root)


@pytest.fixture
def place() -> Iterator[Place]:
    with tempfile.TemporaryDirectory(prefix="kb-", dir=SHM) as home:
        found = Place(Path(home))
        yield found
        found.close()


def test_what_was_made_written_and_removed_is_told_once(place: Place) -> None:
    assert place.take() == {}
    (place.home / "a").write_text("x")
    (place.home / "b").write_text("yy")
    assert place.told() == [("a", 1, "created"), ("b", 2, "created")]
    assert place.take() == {}
    (place.home / "a").write_text("xyz")
    (place.home / "b").unlink()
    (place.home / "c").write_text("")
    assert place.told() == [("a", 3, "modified"), ("b", None, "deleted"), ("c", 0, "created")]
    assert place.take() == {}


def test_what_is_made_and_removed_between_is_not_told(place: Place) -> None:
    (place.home / "a").write_text("x")
    (place.home / "a").unlink()
    assert place.take() == {}


def test_what_was_there_before_is_no_change() -> None:
    with tempfile.TemporaryDirectory(prefix="kb-", dir=SHM) as home:
        (Path(home) / "d").mkdir()
        (Path(home) / "d" / "old").write_text("x")
        place = Place(Path(home))
        assert place.take() == {}
        (Path(home) / "d" / "old").write_text("xx")
        assert place.told() == [("d/old", 2, "modified")]
        place.close()


def test_directories_made_meanwhile_are_looked_into_and_watched_from_then_on(place: Place) -> None:
    (place.home / "a" / "b").mkdir(parents=True)
    (place.home / "a" / "b" / "c").write_text("x")
    assert place.told() == [("a/b/c", 1, "created")]
    (place.home / "a" / "b" / "d").write_text("x")
    assert place.told() == [("a/b/d", 1, "created")]
    os.rename(place.home / "a" / "b", place.home / "e")
    assert place.told() == [
        ("a/b/c", None, "deleted"),
        ("a/b/d", None, "deleted"),
        ("e/c", 1, "created"),
        ("e/d", 1, "created"),
    ]
    (place.home / "e" / "c").write_text("xx")
    assert place.told() == [("e/c", 2, "modified")]


def test_a_directory_that_takes_anothers_place_is_watched_too(place: Place) -> None:
    (place.home / "a").mkdir()
    place.take()
    (place.home / "a").rmdir()
    (place.home / "a").mkdir()
    place.take()
    (place.home / "a" / "f").write_text("x")
    assert place.told() == [("a/f", 1, "created")]


def test_what_programs_keep_for_themselves_is_not_told(place: Place) -> None:
    for name in (".cache", ".ipython", "__pycache__"):
        (place.home / name).mkdir()
        (place.home / name / "f").write_text("x")
    (place.home / ".broker-part-0").write_text("x")
    (place.home / "link").symlink_to("/etc/passwd")
    os.mkfifo(place.home / "fifo")
    assert place.take() == {}
    (place.home / ".env").write_text("x")
    assert place.told() == [(".env", 1, "created")]


def test_links_out_of_the_workspace_are_not_followed(place: Place) -> None:
    with tempfile.TemporaryDirectory(prefix="kb-", dir=SHM) as outside:
        (Path(outside) / "secret").write_text("x")
        (place.home / "out").symlink_to(outside)
        assert place.take() == {}
        (Path(outside) / "secret").write_text("xx")
        assert place.take() == {}


def test_a_replaced_file_of_the_same_size_is_modified(place: Place) -> None:
    (place.home / "a").write_text("x")
    place.take()
    (place.home / "b").write_text("y")
    os.utime(place.home / "b", ns=(0, (place.home / "a").stat().st_mtime_ns))
    os.replace(place.home / "b", place.home / "a")
    assert place.told() == [("a", 1, "modified")]


def test_the_list_is_bounded_by_count_and_by_bytes(place: Place) -> None:
    for number in range(150):
        (place.home / f"{number:03}").write_text("")
    told = place.take()
    assert (len(told["files"]), told["files_more"]) == (100, 50)
    for number in range(100):
        (place.home / (f"{number:03}" + "x" * 240)).write_text("")
    told = place.take()
    assert len(told["files"]) + told["files_more"] == 100
    assert sum(len(one["path"]) for one in told["files"]) <= changes.TOLD_BYTES


def test_a_name_that_is_no_text_is_told_as_far_as_it_is(place: Place) -> None:
    (place.home / os.fsdecode(b"a\xff")).write_text("")
    assert place.told() == [("a?", 0, "created")]


@pytest.mark.parametrize("kind", ["files", "directories"])
def test_twenty_thousand_names_cost_no_more_than_the_bound(place: Place, kind: str) -> None:
    for number in range(20_000):
        if kind == "files":
            os.close(os.open(place.home / f"{number}", os.O_CREAT | os.O_WRONLY))
        else:
            os.mkdir(place.home / f"{number}")
    began = time.monotonic()
    told = place.take()
    assert told["files_cut"]
    assert len(told.get("files", [])) <= 100
    assert len(place.changes.watches) <= changes.DIRECTORIES
    looked = 0.0
    for number in range(200):
        (place.home / "0").touch()
        (place.home / f"new{number}").touch()
        before = time.thread_time()
        place.take()
        looked += time.thread_time() - before
    # Its share of the time there was, and what it may have ahead; else it would be a walk each.
    elapsed = time.monotonic() - began
    assert looked < changes.CREDIT + 2 * changes.SHARE * elapsed + 0.1


def test_who_changes_files_without_end_raises_few_events(place: Place) -> None:
    for number in range(50):
        (place.home / f"d{number}").mkdir()
    place.take()
    for _ in range(200):
        for number in range(50):
            (place.home / f"d{number}" / "f").write_text("x")
    pending = 0
    while True:
        try:
            pending += len(os.read(place.watches._descriptor, 1 << 20))
        except BlockingIOError:
            break
    assert pending < 51 * 2 * 64


def test_one_workspace_is_none_of_anothers_business(place: Place) -> None:
    with tempfile.TemporaryDirectory(prefix="kb-", dir=SHM) as home:
        other = Place(Path(home), place.watches)
        (place.home / "a").write_text("x")
        assert other.take() == {}
        assert place.told() == [("a", 1, "created")]
        (other.home / "a").write_text("xx")
        other.changes.stop()
        assert other.told() == [("a", 2, "created")]
        other.changes.stop()
        os.close(other.root)
    assert place.take() == {}


def test_what_others_than_the_kernel_do_is_not_told(place: Place) -> None:
    for path in ("a", "d/b", "d/c"):
        (place.home / path).parent.mkdir(exist_ok=True)
        (place.home / path).write_text("x")
    place.take()
    (place.home / "a").write_text("uploaded")
    place.changes.settle(place.root, "./a")
    os.rename(place.home / "d", place.home / "e")
    place.changes.moved("d/", "e")
    assert place.take() == {}
    (place.home / "e" / "b").unlink()
    (place.home / "e" / "c").unlink()
    place.changes.settle(place.root, "e")
    (place.home / "f").write_text("the kernel's own")
    assert place.told() == [("f", 16, "created")]


def test_where_nothing_can_be_watched_nothing_is_told(caplog: pytest.LogCaptureFixture) -> None:
    watches = Watches()
    watches.close()
    with tempfile.TemporaryDirectory(prefix="kb-", dir=SHM) as home:
        place = Place(Path(home), watches)
        (place.home / "a").write_text("x")
        assert place.take() == {}
        place.changes.stop()
        assert place.take() == {}
        os.close(place.root)
    with_limit = Watches()
    os.close(with_limit._descriptor)
    with_limit._descriptor = os.open(os.devnull, os.O_RDONLY)  # no inotify: each watch fails
    with tempfile.TemporaryDirectory(prefix="kb-", dir=SHM) as home:
        for _ in range(3):
            place = Place(Path(home), with_limit)
            os.close(place.root)
    with_limit.close()
    assert len([one for one in caplog.records if "will not be told" in one.message]) == 1


@contextmanager
def no_more_descriptors() -> Iterator[None]:
    """Have none opened; those that are open stay so."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_host_without_descriptors_delays_what_is_told_and_fails_nobody(place: Place) -> None:
    (place.home / "a").write_text("x")
    with no_more_descriptors():
        assert place.take() == {"files_cut": True}
    assert place.told() == [("a", 1, "created")]


def test_files_that_could_not_be_read_at_first_are_no_change_later(place: Place) -> None:
    (place.home / "old").write_text("x")
    later = Changes(place.watches)
    with no_more_descriptors():
        later.begin(place.root)
        assert later.take(place.root) == {"files_cut": True}
    assert later.take(place.root) == {"files_cut": True}
    (place.home / "new").write_text("x")
    [told] = later.take(place.root)["files"]
    assert (told["path"], told["change"]) == ("new", "created")
    later.stop()


def test_a_workspace_without_a_watch_is_looked_through_instead(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "MAX_WATCHES", 1)
    monkeypatch.setattr(changes, "MAX_DEEP", 1)
    with tempfile.TemporaryDirectory(prefix="kb-", dir=SHM) as home:
        late = Place(Path(home), place.watches)
        (late.home / "a").write_text("x")
        assert late.told() == [("a", 1, "created")]
        assert late.take() == {}
        (late.home / "a").unlink()
        assert late.take() == {"files": [{"path": "a", "size": None, "change": "deleted"}]}
        place.changes.stop()  # its watch is free
        assert late.take() == {}
        assert late.changes.watches
        (late.home / "b").write_text("x")
        assert late.told() == [("b", 1, "created")]
        os.close(late.root)


def test_directories_deep_down_leave_watches_for_the_workspaces_of_others(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "MAX_WATCHES", 8)
    monkeypatch.setattr(changes, "MAX_DEEP", 4)
    for number in range(20):
        (place.home / f"d{number}").mkdir()
    place.take()
    assert len(place.changes.watches) <= 5
    with tempfile.TemporaryDirectory(prefix="kb-", dir=SHM) as home:
        other = Place(Path(home), place.watches)
        assert other.changes.watches
        os.close(other.root)
    (place.home / "d19" / "a").write_text("x")
    assert place.told() == [("d19/a", 1, "created")]


def test_an_owner_of_many_directories_leaves_watches_for_those_of_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(changes, "MAX_WATCHES", 64)
    monkeypatch.setattr(changes, "MAX_DEEP", 48)
    watches = Watches()
    with ExitStack() as stack:

        def place_of(owner: str, count: int) -> Place:
            home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kb-", dir=SHM)))
            found = Place(home, watches)
            stack.callback(os.close, found.root)
            found.changes.owner = owner
            for number in range(count):
                (home / f"d{number}").mkdir()
            found.take()
            return found

        greedy = [place_of("greedy", 20) for _ in range(6)]
        assert 30 < sum(len(one.changes.watches) for one in greedy) < 48
        modest = place_of("modest", 2)
        assert len(modest.changes.watches) == 3
        assert modest.take() == {}
        assert not modest.changes.dirty  # it is not looked through at each end
        greedy[0].changes.stop()
        again = place_of("greedy", 10)  # others of the same owner have what it had
        assert len(again.changes.watches) > 5
        given = len(greedy[1].changes.watches)
        greedy[1].changes.owner = "modest"
        assert watches.held == {
            "greedy": sum(len(one.changes.watches) for one in [*greedy[2:], again]),
            "modest": 3 + given,
        }
        for one in [*greedy, modest, again]:
            one.changes.stop()
        assert not watches.held
    watches.close()


def test_a_watch_that_has_ended_is_its_owners_no_more(place: Place) -> None:
    place.changes.owner = "acme"
    (place.home / "d").mkdir()
    place.take()
    assert place.watches.held == {"acme": 2}
    (place.home / "d").rmdir()
    place.take()
    place.take()
    assert place.watches.held == {"acme": 1}
