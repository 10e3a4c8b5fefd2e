from __future__ import annotations

import sys

import pytest

from tests.support.source import ROLES, all_role_files, imported_modules, relative, role_files

# The last word on which way imports go. Generated code lives in `v1` and `inference`.
MAY_IMPORT = {
    "core": {"core"},
    "trainer": {"trainer", "core"},
    "scoring": {"scoring", "core"},
    "server": {"server", "core", "v1", "inference"},
    "clients": {"clients", "v1"},
    "cli": {*ROLES, "v1"},
}

# What the extra `client` installs, and what comes with gRPC.
CLIENT_DEPENDENCIES = {"google", "grpc", "numpy", "typing_extensions"}


@pytest.mark.parametrize("role", ROLES)
def test_imports_between_roles_go_one_way(role):
    wrong = [
        f"{relative(path)} imports {name}"
        for path in role_files(role)
        for name in imported_modules(path)
        if name.startswith("motherlode.") and name.split(".")[1] not in MAY_IMPORT[role]
    ]
    assert wrong == []


def test_every_role_has_files_to_look_at():
    assert [role for role in ROLES if len(role_files(role)) < 2] == []


def test_a_client_needs_nothing_but_its_own_extra():
    foreign = {
        name.partition(".")[0]
        for path in role_files("clients")
        for name in imported_modules(path)
        if name.partition(".")[0] not in sys.stdlib_module_names
    }
    assert foreign - {"motherlode"} <= CLIENT_DEPENDENCIES


def test_faiss_is_imported_in_the_index_package_alone():
    importers = [
        relative(path)
        for path in all_role_files()
        if any(name.partition(".")[0] == "faiss" for name in imported_modules(path))
    ]
    assert importers
    assert [p for p in importers if not p.startswith("core/motherlode/core/index/")] == []


def test_no_module_brings_objects_back_from_pickles():
    wrong = [
        f"{relative(path)} imports {name}"
        for path in all_role_files()
        for name in imported_modules(path)
        if name.partition(".")[0]
        in {"pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
    ]
    assert wrong == []
