from __future__ import annotations

from pathlib import Path

import pytest

from motherlode.cli.access import Access
from motherlode.core.errors import ConfigError


@pytest.mark.parametrize("flag", ["tls_ca", "tls_cert", "tls_key", "key_file"])
def test_a_file_that_cannot_be_read_is_named_with_its_flag(flag: str, tmp_path: Path) -> None:
    option = f"--{flag.replace('_', '-')}"
    for file, why in ((tmp_path / "none", "No such file"), (tmp_path, "Is a directory")):
        access = Access(**{flag: file})
        with pytest.raises(
            ConfigError, match=f"{option}: expected a readable file .{why}"
        ) as error:
            access.key() if flag == "key_file" else access.encryption()
        assert str(file) in str(error.value)


def test_a_key_file_holds_one_key_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "key"
    for text in ("", "one two"):
        file.write_text(text, encoding="utf-8")
        with pytest.raises(ConfigError, match="--key-file: expected a file that holds one key"):
            Access(key_file=file).key()
    file.write_text("one\n", encoding="utf-8")
    assert Access(key_file=file).key() == "one"


def test_flags_of_files_imply_encryption(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.touch()
    assert Access().encryption() is None
    assert Access(tls=True).encryption() is not None
    tls = Access(tls_ca=file).encryption()
    assert tls is not None
    assert tls.ca == file
