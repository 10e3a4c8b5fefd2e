"""What an index shall reach, such as `recall@10>=0.99` or `p99<=2ms`, and how far it is from it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import final

from motherlode.core.errors import ConfigError

_FORM = re.compile(r"\s*([a-z0-9]+)(?:@(\d{1,18}))?\s*(<=|>=)\s*([0-9.eE+-]+)\s*([a-zA-Zµ/%]*)\s*")
_SECONDS = {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0}
_DECIMAL_BYTES = {"B": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}
_BINARY_BYTES = {"KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30, "TiB": 2.0**40}
# To miss recall@k>=1 is measured by this instead of nothing.
_SMALLEST_MISS = 1e-4


@final
@dataclass(frozen=True, slots=True)
class Metric:
    """What can be aimed at.

    Attributes:
        sign: `<=` where less is better, else `>=`.
        units: What a bound may be given in, and how much of the metric's own unit each is.
        example: How a target of it looks.
    """

    sign: str
    units: Mapping[str, float]
    example: str


METRICS: Mapping[str, Metric] = {
    "recall": Metric(">=", {"": 1.0, "%": 0.01}, "recall@10>=0.99"),
    "p50": Metric("<=", _SECONDS, "p50<=1ms"),
    "p99": Metric("<=", _SECONDS, "p99<=2ms"),
    "qps": Metric(">=", {"": 1.0, "/s": 1.0}, "qps>=2000"),
    "memory": Metric("<=", _DECIMAL_BYTES | _BINARY_BYTES, "memory<=512MiB"),
    "build": Metric("<=", _SECONDS, "build<=60s"),
}
"""Recall as a share from 0 to 1, times in seconds, queries a second, and memory in bytes."""


@final
@dataclass(frozen=True, slots=True)
class Target:
    """One bound.

    Attributes:
        metric: Key of `METRICS`.
        bound: The least or the most, in the metric's own unit.
        k: Hits that recall is taken over; None for other metrics.
        text: As it was given, without spaces.
    """

    metric: str
    bound: float
    k: int | None
    text: str

    @property
    def name(self) -> str:
        """Such as `recall@10` or `p99`."""
        return self.metric if self.k is None else f"{self.metric}@{self.k}"

    def shortfall(self, value: float) -> float:
        """How far a value is from the bound, relative to it: 0 if it is met, 1 for twice as bad.

        Of recall, what is missed counts: 98 % found is twice as bad as the bound 99 %.
        """
        if self.metric == "recall":
            missed = self.bound - value
            # How a share was rounded must not decide whether it meets a bound.
            return missed / max(1 - self.bound, _SMALLEST_MISS) if missed > 1e-12 else 0.0
        is_most = METRICS[self.metric].sign == "<="
        ratio = value / self.bound if is_most else self.bound / max(value, 1e-12)
        return max(0.0, ratio - 1)

    def show(self, value: float) -> str:
        """A value of the metric for people, such as `2.1 ms` or `0.9871`."""
        units = METRICS[self.metric].units
        if units is _SECONDS:
            return f"{1e3 * value:.3g} ms" if value < 1 else f"{value:.3g} s"
        if self.metric == "memory":
            return f"{value / 2**20:,.1f} MiB"
        return f"{value:.4f}" if self.metric == "recall" else f"{value:,.0f}"


def parse_targets(texts: Iterable[str], *, num_labels: int) -> tuple[Target, ...]:
    """The targets that the texts stand for.

    Args:
        texts: Each a metric, `<=` or `>=`, and a number with a unit; see `METRICS`.
        num_labels: Labels of the model, which no k may exceed.

    Raises:
        ConfigError: If there is none, one is not of that form, cannot be met by any index, or the
            same is aimed at twice.
    """
    targets = tuple(_parse(text, num_labels) for text in texts)
    if not targets:
        raise ConfigError("target", expected="one or more, such as recall@10>=0.99", actual="none")
    names = [target.name for target in targets]
    for target in targets:
        if names.count(target.name) > 1:
            given = " and ".join(t.text for t in targets if t.name == target.name)
            raise ConfigError("target", expected=f"{target.name} once", actual=given)
    return targets


def _parse(text: str, num_labels: int) -> Target:
    matched = _FORM.fullmatch(text)
    if matched is None:
        raise ConfigError("target", expected=_forms(), actual=text)
    name, k, sign, number, unit = matched.groups()
    metric = METRICS.get(name)
    if metric is None or (k is not None) != (name == "recall"):
        raise ConfigError("target", expected=_forms(), actual=text)
    field = f"target {name}"
    _require(sign == metric.sign, field, f"{metric.sign} and a bound", text)
    _require(unit in metric.units, field, f"a unit of {_units(metric)}", text)
    bound = _number(number) * metric.units[unit]
    _require(math.isfinite(bound) and bound > 0, field, "a positive number", text)
    if k is None:
        return Target(name, bound, None, "".join(text.split()))
    _require(bound <= 1, field, "a share up to 1, or up to 100 %", text)
    _require(1 <= int(k) <= num_labels, f"{field}: k", f"1 to {num_labels:,}, the labels", text)
    return Target(name, bound, int(k), "".join(text.split()))


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _require(is_right: bool, field: str, expected: str, actual: str) -> None:
    if not is_right:
        raise ConfigError(field, expected=expected, actual=actual)


def _units(metric: Metric) -> str:
    return ", ".join(unit or "none" for unit in metric.units)


def _forms() -> str:
    forms: list[str] = [metric.example for metric in METRICS.values()]
    return f"one such as {', '.join(forms[:-1])} or {forms[-1]}"


def total_shortfall(targets: Iterable[Target], value_of: Callable[[Target], float]) -> float:
    """How far all targets together are missed; 0 if all are met.

    The sum of the logarithms of how many times as bad each value is as its bound, so that to be
    ten times nearer to one target outweighs to be a few times further from another.
    """
    return sum(math.log1p(target.shortfall(value_of(target))) for target in targets)
