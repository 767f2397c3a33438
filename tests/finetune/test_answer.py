"""A fine-tuned model's answer as one number: the same as `predict`'s, and its gradient at the embeddings."""

from pathlib import Path

import numpy as np
import pytest

from dnagpt_fast.finetune.answer import Answer
from dnagpt_fast.finetune.data.examples import LabelError
from dnagpt_fast.finetune.predict import is_finetuned, predict
from dnagpt_fast.finetune.settings import ConfigError
from tests.finetune.labelled import config_for, quick_finetune, write_motif_table, write_number_table


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    folder = tmp_path_factory.mktemp("classes")
    config = config_for(write_motif_table(folder), "task.positive=yes", "run.epochs=1")
    quick_finetune(config, folder / "run")
    return config, folder / "run"


@pytest.fixture(scope="module")
def regressor(tmp_path_factory):
    folder = tmp_path_factory.mktemp("numbers")
    more = ("task.kind=regression", "data.number_columns=['x', 'y']", "run.epochs=1")
    config = config_for(write_number_table(folder), *more)
    quick_finetune(config, folder / "run")
    return config, folder / "run"


def rows_of(config):
    lines = [line.split(",") for line in Path(config.data.path).read_text().splitlines()]
    return [dict(zip(lines[0], line, strict=True)) for line in lines[1:]]


def test_of_a_classifier_it_is_the_log_odds_of_the_prediction(classifier, tmp_path):
    config, run = classifier
    found, language = predict(run, config.data, tmp_path / "p.tsv", device="cpu")
    sequences = [row["sequence"] for row in rows_of(config)]
    for label in language.classes:
        answer = Answer(run, label=label, device="cpu", batch_size=7)
        p = found.values[:, language.classes.index(label)]
        np.testing.assert_allclose(answer.values(sequences), np.log(p / (1 - p)), rtol=1e-4, atol=1e-4)
    assert Answer(run, device="cpu").label == "yes"
    assert is_finetuned(run)
    assert not is_finetuned(run / "checkpoints")


def test_of_a_regression_it_is_the_value(regressor, tmp_path):
    config, run = regressor
    found, _ = predict(run, config.data, tmp_path / "p.tsv", device="cpu")
    for i in (0, 3):
        row = rows_of(config)[i]
        answer = Answer(run, numbers=(float(row["x"]), float(row["y"])), device="cpu")
        assert answer.values([row["sequence"]])[0] == pytest.approx(found.values[i], rel=1e-5)


@pytest.mark.parametrize("kind", ["classifier", "regressor"])
def test_the_gradient_is_the_slope_of_the_answer(kind, request):
    """Central differences along the line from the baseline, and the answer itself at its end."""
    config, run = request.getfixturevalue(kind)
    numbers = () if kind == "classifier" else (0.5, -1.0)
    answer, sequence = Answer(run, numbers=numbers, device="cpu"), rows_of(config)[0]["sequence"]
    step = 0.02
    found = answer.gradients(sequence, [0.5, 0.5 - step, 0.5 + step, 1.0])
    along = float(((found.embeddings - found.baseline) * found.gradients[0]).sum())
    slope = (found.answers[2] - found.answers[1]) / (2 * step)
    assert along == pytest.approx(slope, rel=0.02, abs=1e-3)
    assert found.answers[3] == pytest.approx(answer.values([sequence])[0], rel=1e-5, abs=1e-6)
    assert "".join(found.pieces) == sequence
    assert found.gradients.shape == (4, len(found.pieces), len(found.baseline))
    assert answer.embedding_of(found.pieces[0]).equal(found.embeddings[0])


def test_what_it_refuses(classifier, regressor, tmp_path):
    (_, classes), (_, values) = classifier, regressor
    for run, settings, message in (
        (classes, {"label": "maybe"}, "'maybe': wanted one of no, yes"),
        (classes, {"numbers": (1.0,)}, "1 number"),
        (values, {"label": "yes", "numbers": (1.0, 2.0)}, "has no classes"),
        (values, {}, "was tuned with 2"),
        (tmp_path, {}, "holds no finished epoch"),
    ):
        with pytest.raises(ConfigError, match=message):
            Answer(run, **settings, device="cpu")
    answer = Answer(classes, device="cpu")
    with pytest.raises(LabelError, match=r"peak: .* this model with its prompt reads"):
        answer.values(["A" * (answer.longest_bp + 1)], name="peak")
    with pytest.raises(LabelError, match="peak 2: base 1 is '!'"):
        answer.values(["ACG", "A!G"], name="peak")
