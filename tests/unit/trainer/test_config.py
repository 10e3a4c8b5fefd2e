from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from motherlode.core.errors import ConfigError, NotFoundError
from motherlode.core.rankers import Whitening
from motherlode.trainer.config import check_config, load_config, recipe_names
from motherlode.trainer.negatives import NearestConfig, Proposal
from motherlode.trainer.step import new_sampler
from tests.support.label_trees import random_tree


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_is_valid(name: str) -> None:
    assert load_config(name).loop.batch_size > 0


def test_there_is_a_default_recipe() -> None:
    assert "default" in recipe_names()


REGULARIZATION = "loss.regularization"


def tree(settings: dict[str, object]) -> dict[str, object]:
    return {"negatives": {"kind": "adversarial", "tree": settings}}


def owl(weights: dict[str, object]) -> dict[str, object]:
    return {"loss": {"kind": "pairwise_owl", "weights": weights}}


@pytest.mark.parametrize(
    ("document", "path"),
    [
        ({"looop": {}}, "looop"),
        ({"loop": {"epoch": 3}}, "loop.epoch"),
        ({"loop": {"epochs": "many"}}, "loop.epochs"),
        ({"loop": {"batch_size": 0}}, "loop.batch_size"),
        ({"negatives": {"num_candidates": 8, "keep": 9}}, "negatives.keep"),
        ({"negatives": {"kind": "frequency", "num_candidates": 8, "keep": 9}}, "negatives.keep"),
        ({"negatives": {"kind": "nearest", "num_candidates": 8, "keep": 9}}, "negatives.keep"),
        ({"negatives": {"kind": "nearest", "num_candidates": 64, "num_mined": 31}}, "negatives"),
        ({"negatives": {"kind": "nearest", "uniform_share": 0.999}}, "negatives"),
        ({"negatives": {"kind": "nearest", "uniform_share": 1}}, "negatives.uniform_share"),
        ({"negatives": {"kind": "nearest", "refresh_steps": 0}}, "negatives.refresh_steps"),
        ({"negatives": {"kind": "nearest", "shared": False}}, "negatives.shared"),
        ({"negatives": {"kind": "nearest", "index": {"nprobe": 0}}}, "negatives.index.nprobe"),
        ({"negatives": {"kind": "nearest", "index": {"kind": "tree"}}}, "negatives.index.kind"),
        ({"negatives": {"kind": "adversarial", "num_candidates": 8, "keep": 9}}, "negatives.keep"),
        ({"negatives": {"kind": "adversarial", "num_candidates": 0}}, "negatives.num_candidates"),
        ({"negatives": {"kind": "adversarial", "keep": 0}}, "negatives.keep"),
        ({"negatives": {"kind": "adversarial", "shared": True}}, "negatives.shared"),
        (tree({"num_components": 0}), "negatives.tree.num_components"),
        (tree({"num_components": 10**6}), "negatives.tree.num_components"),
        (tree({"regularization": 0.0}), "negatives.tree.regularization"),
        (tree({"regularization": math.inf}), "negatives.tree.regularization"),
        (tree({"max_rounds": 0}), "negatives.tree.max_rounds"),
        (tree({"depth": 3}), "negatives.tree.depth"),
        ({"negatives": {"tree": {}}}, "negatives.tree"),
        ({"negatives": {"kind": "in_batch", "shared": False}}, "negatives.shared"),
        ({"negatives": {"kind": "in_batch", "num_candidates": 8}}, "negatives.num_candidates"),
        ({"negatives": {"kind": "in_batch", "keep": 0}}, "negatives.keep"),
        ({"negatives": {"kind": "frequency", "alpha": -1}}, "negatives.alpha"),
        ({"negatives": {"kind": "frequency", "smoothing": -1}}, "negatives.smoothing"),
        ({"negatives": {"kind": "uniform", "alpha": 1}}, "negatives.alpha"),
        ({"negatives": {"alpha": 1}}, "negatives.alpha"),
        ({"negatives": {"kind": "popular"}}, "negatives.kind"),
        ({"loss": {"kind": "hinge"}}, "loss.kind"),
        ({"loss": {"margin": "hinge"}}, "loss.margin"),
        ({"encoder": {"bag": 3}}, "encoder.bag"),
        ({"encoder": {"width": 0}}, "encoder.width"),
        ({"encoder": {"kind": "dense"}}, "encoder.kind"),
        ({"loop": {"epochs": math.inf}}, "loop.epochs"),
        ({"loop": {"epochs": 1e300}}, "loop.epochs"),
        ({"loop": {"epochs": True}}, "loop.epochs"),
        ({"loop": {"epochs": "2"}}, "loop.epochs"),
        ({"loop": {"evaluations": 10**12}}, "loop.evaluations"),
        ({"labels": {"scale": math.inf}}, "labels.scale"),
        ({"labels": {"scale": 1e300}}, "labels.scale"),
        ({"optimizer": {"head_lr": math.nan}}, "optimizer.head_lr"),
        ({"regularizer": {"kind": "glas", "weight": math.inf}}, "regularizer.weight"),
        ({"propensity": {"a": 1e308}}, "propensity.a"),
        ({"propensity": {"b": 1e308}}, "propensity.b"),
        ({"loss": {"kind": "pairwise_owl", "margin": "cubic"}}, "loss.margin"),
        ({"loss": {"kind": "cosine_contrastive", "nu": 0}}, "loss.nu"),
        ({"loss": {"kind": "regularized_negative_sampling", "regularization": -1}}, REGULARIZATION),
        ({"loss": {"temperature": 1}}, "loss.temperature"),
        (owl({"values": [1]}), "loss.weights"),
        (owl({"kind": "top_k", "k": 0}), "loss.weights.k"),
        (owl({"kind": "top_k", "values": [1]}), "loss.weights.k"),
        (owl({"kind": "explicit", "values": []}), "loss.weights.values"),
        (owl({"kind": "explicit", "values": [0.0]}), "loss.weights.values"),
        (owl({"kind": "explicit", "values": [0.5, 1]}), "loss.weights.values"),
        (owl({"kind": "explicit", "values": [1, -0.5]}), "loss.weights.values"),
        (owl({"kind": "explicit", "values": [float("inf"), 1]}), "loss.weights.values"),
        (owl({"kind": "explicit", "values": [1, float("nan")]}), "loss.weights.values"),
        (owl({"kind": "explicit", "values": [1, "low"]}), "loss.weights.values.1"),
        (owl({"kind": "snm", "num_draws": 8, "keep": 9}), "loss.weights.keep"),
        (owl({"kind": "snm", "num_draws": 0, "keep": 0}), "loss.weights.num_draws"),
        ({"encoder": {"kind": "bag", "head": {"dropout": 1.0}}}, "encoder.head.dropout"),
        ({"index": {"kind": "hnsw", "ef": 3}}, "index.ef"),
        ({"seed": -1}, "seed"),
    ],
)
def test_a_wrong_key_or_value_is_an_error_with_its_path(
    document: dict[str, object], path: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        check_config(document)
    assert caught.value.field == path


def test_the_encoder_must_take_the_features() -> None:
    with pytest.raises(ConfigError, match=r"expected 'dense' for dense features, got 'bag'"):
        check_config({"features": {"kind": "dense"}, "encoder": {"kind": "bag"}})


@pytest.mark.parametrize(
    "other",
    [
        {},
        {"labels": {"scale": 1.0, "normalize": False}},
        {"labels": {"scale": 1.0}, "encoder": {"head": {"normalize": False}}},
    ],
)
def test_the_cosine_contrastive_loss_wants_cosines(other: dict[str, object]) -> None:
    loss = {"kind": "cosine_contrastive", "nu": 1.5}
    with pytest.raises(ConfigError, match=r"^loss\.kind: expected .* labels\.scale = 1"):
        check_config({"loss": loss, **other})
    assert check_config({"loss": loss, "labels": {"scale": 1}}).loss.model_dump()["nu"] == 1.5


def test_weights_by_rank_can_be_set_one_key_at_a_time() -> None:
    settings = [
        "loss.kind=pairwise_owl",
        "loss.weights.kind=explicit",
        "loss.weights.values=[2, 1]",
    ]
    config = load_config("default", settings)
    assert config.loss.model_dump()["weights"] == {"kind": "explicit", "values": (2.0, 1.0)}
    assert check_config(config.model_dump()) == config


def test_overrides_are_parsed_as_toml_and_applied_in_order() -> None:
    config = load_config(
        "default", ["loop.epochs=3", "loop.epochs=0.5", "index.kind=hnsw", "features.words=[1, 2]"]
    )
    assert config.loop.epochs == 0.5
    assert config.index.kind == "hnsw"
    assert config.features.model_dump()["words"] == (1, 2)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"loss": {"kind": "hinge"}}, "expected one of 'pairwise_owl', .*, got 'hinge'"),
        ({"features": 3}, "expected an object, got 3"),
        ({"loss": {"kind": "\udcff"}}, "config: expected UTF-8, .*surrogate"),
        ({"features": {"words": [2, 1]}}, "features: expected words: the least must not be above"),
    ],
)
def test_a_message_says_in_one_piece_what_was_expected(
    document: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        check_config(document)


def test_another_kind_of_a_section_drops_what_the_recipe_says_of_the_old_one(
    tmp_path: Path,
) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text('[loss]\nkind = "pairwise_owl"\nmargin = "hinge"\n[index]\n', encoding="utf8")
    config = load_config(
        str(path), ["index.nprobe=3", "loss.kind=decoupled_softmax", "index.kind=ivf_flat"]
    )
    assert config.loss.model_dump() == {"kind": "decoupled_softmax"}
    assert config.index.model_dump() == {"kind": "ivf_flat", "nlist": None, "nprobe": 3}
    kept = load_config(str(path), ["loss.kind=pairwise_owl"])
    assert kept.loss.model_dump(exclude={"weights"}) == {"kind": "pairwise_owl", "margin": "hinge"}


@pytest.mark.parametrize(("kind", "encoder"), [("text", "bag"), ("sparse", "bag"), ("dense",) * 2])
def test_the_default_recipe_fits_data_of_every_kind(kind: str, encoder: str) -> None:
    config = load_config("default", ["encoder.width=8"], data_kind=kind)
    assert (config.features.kind, config.encoder.kind) == (kind, encoder)
    assert load_config("geonames", data_kind=kind).features.kind == "text"


def test_the_default_recipe_has_the_texts_features_where_the_data_is_text() -> None:
    assert load_config("default", data_kind="text") == load_config("default")


@pytest.mark.parametrize(
    "override",
    ["seed=1\nfoo=2", "seed=" + "[" * 5000, f"seed={'[' * 400}{']' * 400}"],
    ids=range(3),
)
def test_a_value_of_an_override_is_one_value_and_not_nested_deeply(override: str) -> None:
    with pytest.raises(ConfigError, match=r"one value|nested less deeply"):
        load_config("default", [override])


@pytest.mark.parametrize("content", [b"\xff\xfe", b"a = " + b"[" * 5000], ids=range(2))
def test_a_recipe_that_is_not_utf8_or_nested_too_deeply_is_an_error(
    tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "recipe.toml").write_bytes(content)
    with pytest.raises(ConfigError, match=r"recipe\.toml: expected (UTF-8|brackets)"):
        load_config(str(tmp_path / "recipe.toml"))


@pytest.mark.parametrize("override", ["loop.epochs", "=3", ".epochs=3", "seed.low=3=4"])
def test_a_broken_override_is_an_error(override: str) -> None:
    with pytest.raises(ConfigError):
        load_config("default", ["seed=1", override])


def test_an_unknown_recipe_names_those_there_are() -> None:
    with pytest.raises(NotFoundError, match="default"):
        load_config("defualt")


def test_a_file_that_is_missing_or_no_toml_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        load_config(str(tmp_path / "none.toml"))
    (tmp_path / "broken.toml").write_text("loop = [", encoding="utf8")
    with pytest.raises(ConfigError, match="TOML"):
        load_config(str(tmp_path / "broken.toml"))


def test_the_digest_tells_configurations_apart() -> None:
    assert load_config("default").digest() == load_config("default").digest()
    assert load_config("default").digest() != load_config("default", ["seed=1"]).digest()


def test_a_section_without_its_kind_has_the_default_one() -> None:
    config = load_config("default", ["encoder.width=64", "loop.epochs=1"])
    assert (config.encoder.kind, config.encoder.width) == ("bag", 64)
    dense = check_config({"features": {"kind": "dense"}, "encoder": {"width": 8}})
    assert dense.encoder.kind == "dense"
    assert check_config({"negatives": {"num_candidates": 512}}).negatives.kind == "uniform"
    mined = check_config({"negatives": {"kind": "nearest", "index": {"nprobe": 4}}}).negatives
    assert isinstance(mined, NearestConfig)
    assert mined.index.kind == "ivf_flat"


@pytest.mark.parametrize(
    ("negatives", "is_enough"),
    [
        ({"kind": "uniform", "num_candidates": 8, "keep": 8}, True),
        ({"kind": "uniform", "num_candidates": 8, "keep": 7}, False),
        ({"kind": "frequency", "num_candidates": 8, "keep": 8, "shared": False}, True),
        ({"kind": "frequency", "num_candidates": 8, "keep": 7}, False),
        ({"kind": "in_batch"}, True),
        ({"kind": "in_batch", "keep": 8}, False),
        ({"kind": "nearest"}, False),
        ({"kind": "nearest", "keep": 8}, False),
        ({"kind": "adversarial"}, True),
        ({"kind": "adversarial", "num_candidates": 8, "keep": 8}, True),
        ({"kind": "adversarial", "num_candidates": 8, "keep": 7}, False),
    ],
    ids=str,
)
def test_a_loss_in_need_of_log_q_is_refused_where_negatives_come_without_it(
    negatives: dict[str, object], is_enough: bool
) -> None:
    config = check_config({"negatives": negatives})
    assert config.negatives.gives_log_q == is_enough
    # What a configuration says is what its sampler does.
    proposal = Proposal(Whitening(np.ones((4, 3), "f4"), np.zeros(3, "f4")), random_tree(20))
    sampler = new_sampler(config, np.ones(20, np.int64), proposal)
    assert sampler.gives_log_q == is_enough
    document = {"loss": {"kind": "noise_contrastive"}, "negatives": negatives}
    if is_enough:
        check_config(document)
        return
    with pytest.raises(ConfigError, match="'noise_contrastive'") as caught:
        check_config(document)
    assert f"negatives.kind '{negatives['kind']}'" in str(caught.value)


def test_weights_of_snm_are_refused_where_negatives_are_not_all_labels() -> None:
    weights = {"kind": "snm", "num_draws": 20, "keep": 4}
    document = {
        "loss": {"kind": "pairwise_owl", "weights": weights},
        "negatives": {"kind": "frequency", "num_candidates": 64, "keep": 64},
    }
    with pytest.raises(ConfigError, match=r"^negatives\.kind: expected 'uniform'"):
        check_config(document)
