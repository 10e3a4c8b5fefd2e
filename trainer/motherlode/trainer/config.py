"""The whole configuration of a training run: TOML in, one checked object out."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha256
from importlib import resources
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from motherlode.core.encoders import AnyEncoderConfig, BagEncoderConfig
from motherlode.core.errors import ConfigError, NotFoundError
from motherlode.core.features import FeaturesConfig, TextFeaturesConfig
from motherlode.core.index import ExactConfig, IndexConfig
from motherlode.core.records.messages import Words
from motherlode.trainer.device import DeviceName
from motherlode.trainer.evaluation import PropensityConfig
from motherlode.trainer.learned_index.config import LearnedIndexConfig, check_moving_parts
from motherlode.trainer.losses import (
    DecoupledSoftmaxConfig,
    LossConfig,
    SnmWeightsConfig,
    needs_log_q,
)
from motherlode.trainer.negatives import NegativesConfig, UniformConfig
from motherlode.trainer.ranker import NoRankerConfig, RankerConfig, check_ranker
from motherlode.trainer.regularizers import NoRegularizerConfig, RegularizerConfig

RECIPES = resources.files("motherlode.trainer") / "recipes"


class Section(BaseModel):
    """A part of the configuration: fixed once read, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class LabelsConfig(Section):
    """What label embeddings are made of, and how they meet the queries."""

    embedding: Literal["free", "text", "sum"] = Field(
        default="free", description="a learned row, an encoder of the label's text, or their sum"
    )
    text_encoder: Literal["shared", "own"] = Field(
        default="shared", description="the query's encoder or one of its own; with text or sum"
    )
    normalize: bool = Field(default=True, description="unit l2 norm of label embeddings")
    scale: float = Field(default=20.0, gt=0, le=1e6, description="factor on scores in the loss")


class OptimizerConfig(Section):
    """Row-wise Adagrad on the two tables, AdamW on the head."""

    features_lr: float = Field(default=0.1, gt=0, description="learning rate of feature rows")
    labels_lr: float = Field(default=0.1, gt=0, description="learning rate of label rows")
    head_lr: float = Field(default=1e-3, gt=0, description="learning rate of the residual network")
    weight_decay: float = Field(default=0.01, ge=0, description="on the residual network only")
    warmup: float = Field(default=0.05, ge=0, lt=1, description="part of all steps; then decay")


class LoopConfig(Section):
    """How long and how often."""

    epochs: float = Field(default=5, gt=0, le=1e6)
    batch_size: int = Field(default=512, ge=1)
    feature_dropout: float = Field(default=0.0, ge=0, lt=1, description="of a query's features")
    held_out: int = Field(default=2000, ge=0, description="training queries kept for validation")
    evaluations: int = Field(default=5, ge=1, le=100_000, description="validations in the run")
    patience: int | None = Field(default=None, ge=1, description="stop after so many no better")
    matmul: Literal["float32", "bfloat16", "auto"] = Field(
        default="float32",
        description="type of the products of queries and shared negatives; auto is bfloat16 where "
        "the processor multiplies such matrices (AMX)",
    )
    device: DeviceName = Field(
        default="auto",
        description="where the arithmetic runs; auto is the GPU where torch sees one",
    )
    checkpoint_every_s: float = Field(default=60.0, gt=0, description="seconds between checkpoints")


class WarmStartConfig(Section):
    """What changes when a run starts from a published bundle."""

    lr_factor: float = Field(default=0.3, gt=0, description="on all learning rates")


class TrainConfig(Section):
    """Everything that decides the outcome besides the data."""

    seed: int = Field(default=0, ge=0, lt=2**63)
    features: FeaturesConfig = TextFeaturesConfig()
    encoder: AnyEncoderConfig = BagEncoderConfig()
    labels: LabelsConfig = LabelsConfig()
    negatives: NegativesConfig = UniformConfig()
    loss: LossConfig = DecoupledSoftmaxConfig()
    regularizer: RegularizerConfig = NoRegularizerConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    loop: LoopConfig = LoopConfig()
    warm_start: WarmStartConfig = WarmStartConfig()
    index: IndexConfig = ExactConfig()
    learned_index: LearnedIndexConfig = LearnedIndexConfig()
    ranker: RankerConfig = NoRankerConfig()
    propensity: PropensityConfig = PropensityConfig()

    @model_validator(mode="after")
    def _encoder_takes_the_features(self) -> Self:
        needed = "dense" if self.features.kind == "dense" else "bag"
        if self.encoder.kind != needed:
            expected = f"{needed!r} for {self.features.kind} features"
            raise ConfigError("encoder.kind", expected=expected, actual=self.encoder.kind)
        return self

    @model_validator(mode="after")
    def _label_texts_have_features(self) -> Self:
        if self.labels.embedding != "free" and self.features.kind != "text":
            expected = f"'free' for {self.features.kind} features, which texts do not have"
            raise ConfigError("labels.embedding", expected=expected, actual=self.labels.embedding)
        return self

    @model_validator(mode="after")
    def _loss_gets_what_it_needs(self) -> Self:
        if needs_log_q(self.loss) and not self.negatives.gives_log_q:
            expected = (
                f"a loss without log_q, which negatives.kind {self.negatives.kind!r} does not give "
                "here; of those kinds that draw at random, those that keep all draws give it"
            )
            raise ConfigError("loss.kind", expected=expected, actual=self.loss.kind)
        return self

    @model_validator(mode="after")
    def _snm_weights_have_all_labels(self) -> Self:
        weights = getattr(self.loss, "weights", None)
        if isinstance(weights, SnmWeightsConfig) and self.negatives.kind != "uniform":
            expected = "'uniform' for loss.weights of kind 'snm'"
            raise ConfigError("negatives.kind", expected=expected, actual=self.negatives.kind)
        return self

    @model_validator(mode="after")
    def _cosines_stay_cosines(self) -> Self:
        is_unit = self.labels.normalize and self.encoder.head.normalize
        if self.loss.kind == "cosine_contrastive" and not (is_unit and self.labels.scale == 1.0):
            needs = "labels.scale = 1, and labels.normalize and encoder.head.normalize"
            expected = f"another loss, or what this one needs: {needs}"
            raise ConfigError("loss.kind", expected=expected, actual=self.loss.kind)
        return self

    @model_validator(mode="after")
    def _ranker_has_what_it_ranks_by(self) -> Self:
        check_ranker(
            self.ranker,
            features=self.features.kind,
            negatives=self.negatives.kind,
            loss=self.loss.kind,
            held_out=self.loop.held_out,
        )
        return self

    @model_validator(mode="after")
    def _learned_index_moves_what_it_may(self) -> Self:
        check_moving_parts(self.learned_index, self.labels.embedding)
        return self

    def digest(self) -> str:
        """sha256 of the resolved configuration."""
        return sha256(json.dumps(self.model_dump(), sort_keys=True).encode()).hexdigest()


def recipe_names() -> list[str]:
    """Names of the recipes that come with Motherlode."""
    return sorted(
        entry.name.removesuffix(".toml")
        for entry in RECIPES.iterdir()
        if entry.name.endswith(".toml")
    )


def load_config(
    recipe: str, overrides: Iterable[str] = (), *, data_kind: str | None = None
) -> TrainConfig:
    """A configuration from a recipe's name or a TOML file, then `a.b=value` overrides.

    An override that changes the `kind` of a section drops what the recipe says of the old one.

    Args:
        recipe: Name of a recipe, or a path ending in `.toml`.
        overrides: Applied in their order, but those of a `kind` before the others.
        data_kind: `features.kind` of the recipe `default`, which fits data of every kind.

    Raises:
        ConfigError: If a key is unknown or a value wrong; names its path.
        NotFoundError: If there is no such recipe or file.
    """
    document = _read_toml(recipe)
    if recipe == "default" and data_kind is not None:
        overrides = [f"features.kind={data_kind}", *overrides]
    for override in sorted(overrides, key=lambda override: not _names_kind(override)):
        _apply(document, override)
    return check_config(document)


def check_config(document: Mapping[str, Any]) -> TrainConfig:
    """The checked form of a configuration read from anywhere.

    Raises:
        ConfigError: If a key is unknown or a value wrong; names its path.
    """
    whole = _with_kinds(document)
    try:
        # As JSON, which tells 2 from "2" and from true, and arrays from nothing but themselves.
        return TrainConfig.model_validate_json(json.dumps(whole, default=str), strict=True)
    except RecursionError:
        raise _nested_too_deeply("config") from None
    except ValidationError as error:
        raise _config_error(error.errors()[0], whole) from None


def _with_kinds(document: Mapping[str, Any]) -> dict[str, Any]:
    """The document with the default kind in each section that leaves its kind out."""
    # The default encoder depends on the features, so that it is there even if nobody names it.
    whole = {"encoder": {}, **document}
    whole |= _sections_with_kinds(whole, _default_kinds(document))
    if isinstance(negatives := whole.get("negatives"), dict):
        index = _sections_with_kinds(negatives, {"index": "ivf_flat"})
        whole["negatives"] = {**negatives, **index}
    return whole


def _default_kinds(document: Mapping[str, Any]) -> dict[str, str]:
    features = document.get("features")
    is_dense = isinstance(features, dict) and features.get("kind") == "dense"
    return {
        "features": "text",
        "encoder": "dense" if is_dense else "bag",
        "negatives": "uniform",
        "loss": "decoupled_softmax",
        "regularizer": "none",
        "index": "exact",
        "ranker": "none",
    }


def _sections_with_kinds(
    document: Mapping[str, Any], kinds: Mapping[str, str]
) -> dict[str, dict[str, Any]]:
    """Those sections that are there and have a kind, with it."""
    return {
        name: {"kind": kind, **document[name]}
        for name, kind in kinds.items()
        if isinstance(document.get(name), dict)
    }


def _config_error(error: ErrorDetails, document: Mapping[str, Any]) -> ConfigError:
    parts = list(_without_union_tags(document, error["loc"]))
    match error["type"]:
        case "union_tag_invalid":
            path, expected = [*parts, "kind"], f"one of {error['ctx']['expected_tags']}"
            return ConfigError(".".join(path), expected=expected, actual=error["ctx"]["tag"])
        case "extra_forbidden":
            expected = "no such key"
        case "union_tag_not_found":
            expected = "a kind"
        case "json_invalid":
            expected, actual = "UTF-8, and brackets nested less deeply", error["ctx"]["error"]
            return ConfigError("config", expected=expected, actual=Words(actual))
        case _:
            message = error["msg"].removeprefix("Value error, ")
            expected = message.removeprefix("Input should be ")
    return ConfigError(".".join(parts) or "config", expected=expected, actual=error["input"])


def _nested_too_deeply(place: str) -> ConfigError:
    return ConfigError(place, expected="brackets nested less deeply", actual=Words("too many"))


def _without_union_tags(document: Mapping[str, Any], parts: Iterable[str | int]) -> Iterator[str]:
    """The user's path to a value: pydantic adds the member of each union that it tried."""
    node: Any = document
    may_be_tag = False
    for part in parts:
        if may_be_tag and part == node.get("kind"):
            may_be_tag = False
            continue
        yield str(part)
        node = node.get(part) if isinstance(node, Mapping) else None
        may_be_tag = isinstance(node, Mapping)


def _read_toml(recipe: str) -> dict[str, Any]:
    path = Path(recipe)
    if path.suffix == ".toml":
        if not path.is_file():
            raise NotFoundError("configuration file", recipe)
        text = _read_text(path)
    elif recipe in recipe_names():
        text = (RECIPES / f"{recipe}.toml").read_text(encoding="utf8")
    else:
        raise NotFoundError("recipe", recipe, known=[*recipe_names(), "or a path ending in .toml"])
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(recipe, expected="valid TOML", actual=Words(str(error))) from None
    except RecursionError:
        raise _nested_too_deeply(recipe) from None


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf8")
    except UnicodeDecodeError as error:
        actual = f"byte 0x{error.object[error.start]:02x} at place {error.start}"
        raise ConfigError(str(path), expected="UTF-8", actual=Words(actual)) from None


def _names_kind(override: str) -> bool:
    return override.partition("=")[0].strip().endswith(".kind")


def _apply(document: dict[str, Any], override: str) -> None:
    path, equals, text = override.partition("=")
    *sections, key = path.strip().split(".")
    if not equals or not key or not all(sections):
        raise ConfigError("--set", expected="section.key=value", actual=override)
    value = _parse_value(path, text.strip())
    if key == "kind" and len(sections) == 1:
        _change_kind(document, sections[0], value)
    for section in sections:
        document = document.setdefault(section, {})
        if not isinstance(document, dict):
            raise ConfigError(f"--set {path}", expected=f"{section} to be a section", actual=text)
    document[key] = value


def _change_kind(document: dict[str, Any], name: str, kind: object) -> None:
    """Empties a section whose kind becomes another: its keys are those of the old kind."""
    section = document.get(name)
    if isinstance(section, dict) and kind != section.get(
        "kind", _default_kinds(document).get(name)
    ):
        document[name] = {}


def _parse_value(path: str, text: str) -> Any:
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    except RecursionError:
        raise _nested_too_deeply(f"--set {path}") from None
    if len(parsed) > 1:
        raise ConfigError(f"--set {path}", expected="one value", actual=text)
    return parsed["value"]
