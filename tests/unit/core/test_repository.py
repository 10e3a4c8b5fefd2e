from __future__ import annotations

import errno
import json
import resource
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier

import pytest

from motherlode.core import bundle as bundle_module
from motherlode.core.errors import (
    BundleError,
    ConfigError,
    NotFoundError,
    UnsupportedFormatError,
)
from motherlode.core.repository import Repository, check_model_name, parse_model_ref
from motherlode.core.retriever import Retriever
from tests.support.bundles import publish_tiny, tiny_draft


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "repository")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template")
    for seed in range(3):
        publish_tiny(path, seed=seed, num_labels=5)
    Repository(path).set_alias("tiny", "stable", 2)
    return path


@pytest.fixture
def filled(repository: Repository, template: Path) -> Repository:
    """Versions 1 to 3 of `tiny`, of which 2 is `stable`."""
    shutil.copytree(template, repository.path)
    return repository


def entries(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if entry.name != ".lock")


def test_versions_count_up_from_one(filled: Repository) -> None:
    assert filled.models() == ["tiny"]
    assert filled.versions("tiny") == [1, 2, 3]
    assert filled.path_of("tiny", 3) == filled.path / "tiny" / "000003"
    assert entries(filled.path / "tiny") == ["000001", "000002", "000003", "aliases.json"]


def test_an_empty_repository_and_a_missing_one_hold_no_models(repository: Repository) -> None:
    assert repository.models() == []
    repository.path.mkdir()
    (repository.path / "not-a-model").touch()
    (repository.path / "empty").mkdir()
    assert repository.models() == []
    assert repository.versions("empty") == []


@pytest.mark.parametrize(
    ("reference", "version"), [(None, 3), ("stable", 2), (1, 1), ("1", 1), ("000001", 1)]
)
def test_a_reference_resolves(
    filled: Repository, reference: int | str | None, version: int
) -> None:
    assert filled.resolve("tiny", reference) == version


@pytest.mark.parametrize(
    ("model", "reference", "message"),
    [
        ("huge", None, "no model 'huge'; there is tiny"),
        ("tiny", 9, "no version 'tiny@9'; there is 1, 2, 3"),
        ("tiny", "0", "no version 'tiny@0'; there is 1, 2, 3"),
        ("tiny", "-1", "no alias 'tiny@-1'; there is stable, 1, 2, 3"),
        ("tiny", "canary", "no alias 'tiny@canary'; there is stable, 1, 2, 3"),
        ("../repository/tiny", None, "no model '../repository/tiny'; there is tiny"),
        ("", None, "no model ''; there is tiny"),
    ],
)
def test_what_is_missing_is_named_with_what_there_is(
    filled: Repository, model: str, reference: int | str | None, message: str
) -> None:
    with pytest.raises(NotFoundError) as caught:
        filled.resolve(model, reference)
    assert str(caught.value) == message


def test_a_missing_repository_is_named(repository: Repository) -> None:
    with pytest.raises(NotFoundError, match=r"no repository '.*repository'"):
        repository.resolve("tiny")


def test_an_alias_of_a_version_that_is_gone_is_not_found(filled: Repository) -> None:
    (filled.path_of("tiny", 2) / "manifest.json").unlink()
    with pytest.raises(NotFoundError, match=r"tiny@2, which the alias stable names.*there is 1, 3"):
        filled.resolve("tiny", "stable")


def test_readers_ignore_a_folder_without_a_valid_manifest(filled: Repository) -> None:
    (filled.path_of("tiny", 3) / "manifest.json").write_text("{")
    (filled.path_of("tiny", 4)).mkdir()
    (filled.path / "tiny" / "7").mkdir()
    (filled.path / "tiny" / "000000").mkdir()
    (filled.path / "tiny" / "000008").touch()
    assert filled.versions("tiny") == [1, 2]
    assert filled.resolve("tiny") == 2


def test_a_version_of_a_newer_format_is_seen_and_refused(filled: Repository) -> None:
    (filled.path_of("tiny", 3) / "manifest.json").write_text('{"format_version": 99}')
    assert filled.resolve("tiny") == 3
    with pytest.raises(UnsupportedFormatError, match=r"000003.*format version 99"):
        Retriever.load(filled, "tiny")


def test_an_alias_moves_and_goes(filled: Repository) -> None:
    assert filled.set_alias("tiny", "stable") == 3
    assert filled.set_alias("tiny", "canary-2", "stable") == 3
    assert filled.aliases("tiny") == {"stable": 3, "canary-2": 3}
    filled.remove_alias("tiny", "stable")
    assert json.loads((filled.path / "tiny" / "aliases.json").read_text()) == {"canary-2": 3}
    with pytest.raises(NotFoundError, match="no alias 'tiny@stable'"):
        filled.remove_alias("tiny", "stable")


@pytest.mark.parametrize("alias", ["", "7", "Stable", "a b", "../x", "-a", "a" * 101, "é"])
def test_a_name_that_cannot_be_an_alias_is_refused(filled: Repository, alias: str) -> None:
    with pytest.raises(ConfigError, match="alias: expected a lower-case letter"):
        filled.set_alias("tiny", alias, 1)


def test_an_alias_needs_a_version_that_exists(filled: Repository) -> None:
    with pytest.raises(NotFoundError, match="no version 'tiny@9'"):
        filled.set_alias("tiny", "stable", 9)
    assert filled.aliases("tiny") == {"stable": 2}


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", '{"stable": "2"}', '{"stable": true}', '{"stable": 0}', '{"7": 2}'),
        *('{"stable": 1000000000000000000}', "[" * 100_000),
    ],
    ids=range(8),
)
def test_a_broken_file_of_aliases_is_refused_by_path(filled: Repository, text: str) -> None:
    (filled.path / "tiny" / "aliases.json").write_text(text)
    with pytest.raises(BundleError, match=r"tiny/aliases\.json: "):
        filled.resolve("tiny", "stable")
    assert filled.resolve("tiny") == 3


def test_aliases_survive_a_failing_write(
    filled: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("motherlode.core.staging.os.fsync", no_space)
    with pytest.raises(BundleError, match=r"aliases\.json: cannot be written: No space left"):
        filled.set_alias("tiny", "stable", 3)
    assert filled.aliases("tiny") == {"stable": 2}
    assert entries(filled.path / "tiny") == ["000001", "000002", "000003", "aliases.json"]


def test_many_aliases_set_at_once_are_all_kept(filled: Repository) -> None:
    names = [f"alias{i}" for i in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: filled.set_alias("tiny", name, 1), names))
    assert filled.aliases("tiny") == {"stable": 2} | dict.fromkeys(names, 1)


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "-x", "a/b", "a b", "é", "x" * 101])
def test_a_name_that_cannot_be_a_model_is_refused(repository: Repository, name: str) -> None:
    with pytest.raises(ConfigError, match="model: expected a letter or digit"):
        repository.publish(name, tiny_draft(num_labels=5))
    assert not repository.path.exists()


@pytest.mark.parametrize("name", ["a", "7", "geonames-cities15000_v1.2", "x" * 100])
def test_a_plain_name_can_be_a_model(name: str) -> None:
    check_model_name(name)


@pytest.mark.parametrize(
    ("text", "parsed"),
    [("m", ("m", None)), ("m@7", ("m", "7")), ("m@stable", ("m", "stable"))],
)
def test_a_model_reference_is_taken_apart(text: str, parsed: tuple[str, str | None]) -> None:
    assert parse_model_ref(text) == parsed


@pytest.mark.parametrize("text", ["", "@7", "m@", "m@Stable", "m@7@8", "m@-1", "a/b@1"])
def test_a_wrong_model_reference_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="model: expected"):
        parse_model_ref(text)


def test_publishers_at_once_all_get_a_version_of_their_own(repository: Repository) -> None:
    drafts = [tiny_draft(seed, num_labels=5) for seed in range(4)]
    barrier = Barrier(len(drafts))

    def publish(number: int) -> int:
        barrier.wait()
        return repository.publish("tiny", drafts[number])

    with ThreadPoolExecutor(len(drafts)) as pool:
        versions = list(pool.map(publish, range(len(drafts))))
    assert sorted(versions) == [1, 2, 3, 4]
    for number, version in enumerate(versions):
        assert Retriever.load(repository, "tiny", version).manifest.config["seed"] == number
    assert entries(repository.path / "tiny") == ["000001", "000002", "000003", "000004"]


def test_a_number_that_is_taken_in_the_last_moment_is_left_alone(
    filled: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled.path_of("tiny", 4).mkdir()
    monkeypatch.setattr(Repository, "_folders", lambda *_: [1, 2])
    assert publish_tiny(filled.path, num_labels=5) == 5
    assert list(filled.path_of("tiny", 4).iterdir()) == []
    monkeypatch.undo()
    assert filled.versions("tiny") == [1, 2, 3, 5]


def no_space(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    "step", ["write_matrix", "sync_tree", "Manifest.save", "LabelTable.save", "Golden.save"]
)
def test_a_full_disk_is_named_and_leaves_nothing(
    filled: Repository, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    monkeypatch.setattr(f"{bundle_module.__name__}.{step}", no_space)
    with pytest.raises(BundleError, match=r"tiny: cannot publish: .*No space left on device"):
        publish_tiny(filled.path, num_labels=5)
    monkeypatch.undo()
    assert entries(filled.path / "tiny") == ["000001", "000002", "000003", "aliases.json"]
    assert publish_tiny(filled.path, num_labels=5) == 4


@pytest.mark.parametrize("limit_bytes", [100, 500, 2000])
def test_files_that_may_not_grow_fail_the_publish_and_leave_nothing(
    filled: Repository, limit_bytes: int
) -> None:
    draft = tiny_draft()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, hard))
    try:
        with pytest.raises(BundleError, match=r"cannot publish: .*cannot be written"):
            filled.publish("tiny", draft)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert entries(filled.path / "tiny") == ["000001", "000002", "000003", "aliases.json"]


def test_a_model_folder_that_cannot_be_made_is_named(repository: Repository) -> None:
    repository.path.write_text("a file where the folder should be")
    with pytest.raises(BundleError, match=r"repository/tiny: cannot publish: "):
        repository.publish("tiny", tiny_draft(num_labels=5))


def test_a_rename_that_fails_gives_the_number_back(
    filled: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "rename", no_space)
    with pytest.raises(BundleError, match="cannot publish: No space left"):
        publish_tiny(filled.path, num_labels=5)
    monkeypatch.undo()
    assert not filled.path_of("tiny", 4).exists()


def test_a_draft_that_does_not_give_its_golden_answers_is_not_published(
    repository: Repository,
) -> None:
    draft, other = tiny_draft(0), tiny_draft(1)
    with pytest.raises(BundleError, match=r"tiny: cannot publish: .*golden\.arrow"):
        repository.publish("tiny", replace(draft, golden=other.golden))
    assert repository.versions("tiny") == []


def test_the_oldest_versions_go_but_never_one_with_an_alias(filled: Repository) -> None:
    filled.set_alias("tiny", "stable", 1)
    assert publish_tiny(filled.path, num_labels=5, keep=2) == 4
    assert filled.versions("tiny") == [1, 3, 4]
    assert entries(filled.path / "tiny") == ["000001", "000003", "000004", "aliases.json"]


def test_a_removed_version_still_answers_where_it_is_loaded(filled: Repository) -> None:
    retriever = Retriever.load(filled, "tiny", 1)
    assert filled.retire("tiny", keep=1) == [1]
    retriever.check_golden()


def test_a_version_that_cannot_be_removed_is_named(
    filled: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "rename", no_space)
    with pytest.raises(BundleError, match="000001: cannot be removed: No space left"):
        filled.retire("tiny", keep=1)


@pytest.mark.parametrize("keep", [0, -1])
def test_to_keep_no_version_is_refused(repository: Repository, keep: int) -> None:
    with pytest.raises(ConfigError, match="keep: expected at least 1"):
        repository.publish("tiny", tiny_draft(num_labels=5), keep=keep)


def test_a_model_folder_that_cannot_be_read_is_listed_and_named(
    filled: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_access(_: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    listing = {filled.path: list(filled.path.iterdir())}
    monkeypatch.setattr(Path, "iterdir", lambda path: listing.get(path) or no_access(path))
    assert filled.models() == ["tiny"]
    with pytest.raises(BundleError, match="tiny: cannot be read: Permission denied"):
        filled.versions("tiny")


def test_aliases_that_cannot_be_read_stop_a_publish_that_would_retire(filled: Repository) -> None:
    (filled.path / "tiny/aliases.json").write_text("broken")
    with pytest.raises(BundleError, match=r"aliases\.json: cannot be read"):
        filled.publish("tiny", tiny_draft(num_labels=5), keep=1)
    assert filled.versions("tiny") == [1, 2, 3]


def test_versions_that_cannot_be_retired_are_a_warning_after_the_publish(
    filled: Repository, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("motherlode.core.repository.hide_folder", no_space)
    assert filled.publish("tiny", tiny_draft(num_labels=5), keep=1) == 4
    assert "older versions of tiny stay" in caplog.text


def test_what_would_stop_a_publish_is_found_before_it(
    filled: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled.check_publish("tiny", keep=1)
    assert entries(filled.path) == ["tiny"]
    with pytest.raises(ConfigError, match="model: expected"):
        filled.check_publish("../tiny")
    (tmp_path / "file").touch()
    with pytest.raises(BundleError, match="cannot publish"):
        Repository(tmp_path / "file").check_publish("tiny")
    lock = filled.path / "tiny" / ".lock"
    lock.unlink(missing_ok=True)
    lock.mkdir()
    with pytest.raises(BundleError, match="tiny: cannot publish: Is a directory"):
        filled.check_publish("tiny")
    monkeypatch.setattr("motherlode.core.repository.tempfile.TemporaryFile", no_space)
    with pytest.raises(BundleError, match="tiny: cannot publish: No space left"):
        filled.check_publish("tiny")
