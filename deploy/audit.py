"""Looks for known holes in what is installed: `make audit`, and what of it needs no network.

Exit status: 0 nothing found, 1 something found, 4 the advisories could not be had, so nobody knows.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import tomllib
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
FOUND, UNKNOWN = 1, 4

# The first sound version of what had a hole that mattered here. No range may reach below it.
FIRST_SOUND = {
    "grpcio": ("1.66.2", "CVE-2024-11407"),
    "protobuf": ("6.31.1", "CVE-2025-4565"),
    "pyarrow": ("14.0.1", "CVE-2023-47248"),
    "pydantic": ("2.4.0", "CVE-2024-3772"),
    "scikit-learn": ("1.5.0", "CVE-2024-5206"),
    "torch": ("2.6.0", "CVE-2025-32434"),
}

# A version with holes that every source of advisories has known for years. A source that does not
# name one has not been asked, whatever it says of others.
KNOWN_BAD = "pyyaml==5.1"


def main(arguments: list[str]) -> int:
    """Checks the ranges and the installation, and unless told `--offline` asks for advisories."""
    wrong = [*_too_wide_ranges(), *_broken_requirements()]
    _tell(wrong)
    if wrong:
        return FOUND
    return 0 if "--offline" in arguments else _ask_for_advisories()


def _too_wide_ranges() -> list[str]:
    document = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    groups = [document["dependencies"], *document["optional-dependencies"].values()]
    requirements = [Requirement(text) for group in groups for text in group]
    return [
        f"pyproject.toml: {requirement} allows versions before {version}, which mended {hole}"
        for requirement in requirements
        for version, hole in [FIRST_SOUND.get(requirement.name, ("0", ""))]
        if _lowest(requirement) < Version(version)
    ]


def _lowest(requirement: Requirement) -> Version:
    bounds = [one.version for one in requirement.specifier if one.operator in {">=", "==", "~="}]
    return max(map(Version, bounds), default=Version("0"))


def _broken_requirements() -> list[str]:
    command = [sys.executable, "-m", "pip", "check", "--disable-pip-version-check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.splitlines() if done.returncode else []


def _ask_for_advisories() -> int:
    try:
        [canary] = _audit([KNOWN_BAD])
        if not canary.get("vulns"):
            raise ConnectionError(f"{KNOWN_BAD} has known holes, and none was named")
        found = _audit(_installed())
    except ConnectionError as error:
        _tell([f"the advisories cannot be had: {error}", "nothing is known of what is installed"])
        return UNKNOWN
    holes = [
        f"{one['name']} {one['version']}: {hole['id']}, mended in {hole['fix_versions']}"
        for one in found
        for hole in one.get("vulns", [])
    ]
    skipped = [f"{one['name']}: {one['skip_reason']}" for one in found if "skip_reason" in one]
    _tell([*holes, *skipped])
    return FOUND if holes else UNKNOWN if skipped else 0


def _installed() -> list[str]:
    # A build's own mark, as in 2.13.0+cpu, is not in any advisory.
    pins = {(one.name, one.version.partition("+")[0]) for one in distributions()}
    return sorted(f"{name}=={version}" for name, version in pins if name != "motherlode")


def _audit(pins: list[str]) -> list[dict[str, Any]]:
    """What pip-audit says of each.

    Raises:
        ConnectionError: If it says nothing.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as file:
        file.write("\n".join(pins) + "\n")
        file.flush()
        command = [sys.executable, "-m", "pip_audit", "--requirement", file.name]
        command += ["--no-deps", "--disable-pip", "--format", "json", "--progress-spinner", "off"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        dependencies: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except ValueError:
        lines = re.findall(r"\S.*", done.stderr) or ["no answer"]
        raise ConnectionError(lines[-1]) from None
    return dependencies


def _tell(lines: list[str]) -> None:
    sys.stderr.writelines(f"audit: {line}\n" for line in lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
