"""What a configuration may say of the stage after the index."""

from __future__ import annotations

import pytest

from motherlode.core.errors import ConfigError
from motherlode.core.rankers import TreeCorrection
from motherlode.trainer.config import check_config, load_config
from motherlode.trainer.ranker import NoRankerConfig, TreeRankerConfig, new_correction

ADVERSARIAL: dict[str, object] = {"kind": "adversarial"}
CORRECTION: dict[str, object] = {"kind": "tree_correction"}


def test_labels_are_ranked_by_the_index_alone_unless_the_user_says_otherwise() -> None:
    assert check_config({}).ranker == NoRankerConfig()
    assert check_config({"negatives": ADVERSARIAL}).ranker == NoRankerConfig()
    assert new_correction(NoRankerConfig(), None, 20.0) is None


@pytest.mark.parametrize("kind", ["uniform", "frequency", "in_batch", "nearest"])
def test_a_correction_without_label_tree_is_refused(kind: str) -> None:
    document = {"negatives": {"kind": kind}, "ranker": CORRECTION}
    with pytest.raises(
        ConfigError, match=f"ranker.kind: expected 'none' for negatives.kind '{kind}': .*, got 't"
    ):
        check_config(document)


@pytest.mark.parametrize("loss", ["softmax", "noise_contrastive"])
def test_a_correction_of_scores_that_are_corrected_in_training_is_refused(loss: str) -> None:
    document = {"negatives": ADVERSARIAL, "loss": {"kind": loss}}
    check_config(document)
    with pytest.raises(
        ConfigError, match=f"ranker.kind: expected 'none' for loss.kind '{loss}', which corrects"
    ):
        check_config({**document, "ranker": CORRECTION})


@pytest.mark.parametrize(
    "loss", ["regularized_negative_sampling", "decoupled_softmax", "pairwise_owl"]
)
def test_other_losses_take_a_correction(loss: str) -> None:
    config = check_config(
        {"negatives": ADVERSARIAL, "loss": {"kind": loss}, "ranker": {**CORRECTION, "shortlist": 7}}
    )
    assert config.ranker == TreeRankerConfig(shortlist=7)
    assert check_config(config.model_dump()) == config


@pytest.mark.parametrize(
    ("section", "path"),
    [
        ({"kind": "sparse"}, "ranker.kind"),
        ({"shortlist": 3}, "ranker.shortlist"),
        ({**CORRECTION, "shortlist": 0}, "ranker.shortlist"),
        ({**CORRECTION, "scale": 2.0}, "ranker.scale"),
        (3, "ranker"),
    ],
)
def test_a_wrong_key_or_value_is_an_error_with_its_path(section: object, path: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_config({"negatives": ADVERSARIAL, "ranker": section})
    assert caught.value.field == path


def test_it_can_be_set_one_key_at_a_time_and_taken_back() -> None:
    settings = [
        "ranker.shortlist=30",
        "negatives.tree.num_components=4",
        "ranker.kind=tree_correction",
        "negatives.kind=adversarial",
    ]
    config = load_config("default", settings)
    assert config.ranker == TreeRankerConfig(shortlist=30)
    assert config.negatives.model_dump()["tree"]["num_components"] == 4
    assert load_config("default", ["ranker.kind=none"]).ranker == NoRankerConfig()


def test_the_scale_of_a_correction_is_not_a_setting_of_its_own() -> None:
    assert "scale" not in TreeRankerConfig.model_fields
    assert TreeCorrection.kind == TreeRankerConfig().kind
