"""What a fine-tuned model must beat on its own rows: the shares of the classes, and a linear model of k-mer counts."""

import numpy as np

from dnagpt_fast.evaluation.baselines import choose_logistic, choose_ridge, kmer_counts
from dnagpt_fast.evaluation.scores import Score, classification_scores, regression_scores
from dnagpt_fast.finetune.language import Language
from dnagpt_fast.finetune.task_data import TaskData

K = 4
MOST_ROWS = 20_000
"""Training and validation rows of the linear model: more are thinned evenly, so that the report takes seconds."""


def rival_scores(
    sets: dict[str, TaskData], language: Language, *, seed: int = 0
) -> dict[str, dict[str, Score]]:
    """The scores of simple models on the test rows, by name; the same scores as those of the tuned model.

    Empty for other tasks than classification and regression. sets: train, validation and test, with labels. Side inputs
    (numbers) are features of the linear model too.
    """
    kind = language.template.kind
    if kind not in ("classification", "regression") or "test" not in sets:
        return {}
    features, targets = {}, {}
    for name in ("train", "validation", "test"):
        features[name], targets[name] = _rows(sets[name], None if name == "test" else MOST_ROWS)
    linear = f"on {K}-mer counts" + (" and the numbers" if sets["test"].examples.number_names else "")
    if kind == "regression":
        truth = language.natural_value(targets["test"])
        ridge = choose_ridge(
            features["train"], targets["train"], features["validation"], targets["validation"]
        )
        guess = language.natural_value(ridge.predict(features["test"]))
        return {f"ridge regression {linear}": regression_scores(truth, guess, seed=seed)}
    positive = 1 if len(language.classes) == 2 else None
    shares = np.bincount(targets["train"], minlength=len(language.classes)) / len(targets["train"])
    constant = np.broadcast_to(shares, (len(targets["test"]), len(shares))).copy()
    logistic = choose_logistic(
        features["train"], targets["train"], features["validation"], targets["validation"]
    )
    guesses = {"always the largest class": constant}
    if (np.bincount(targets["train"], minlength=len(shares)) > 0).all():
        guesses[f"logistic regression {linear}"] = logistic.predict(features["test"])
    return {
        name: classification_scores(targets["test"], guess, positive=positive, seed=seed)
        for name, guess in guesses.items()
    }


def only_class(values: np.ndarray, truth: np.ndarray | None) -> int | None:
    """The class that all rows are predicted as, although they are of several classes; otherwise None."""
    answers = set(values.argmax(1).tolist())
    if len(values) < 2 or len(answers) > 1 or (truth is not None and len(set(truth.tolist())) < 2):
        return None
    return answers.pop()


def _rows(data: TaskData, most: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Features (n, F) and targets (n,) of the sequences; windows of one sequence are averaged."""
    assert data.targets is not None
    _, first, row_of = np.unique(data.examples.parent, return_index=True, return_inverse=True)
    chosen = np.arange(len(first))
    if most is not None and len(first) > most:
        chosen = np.linspace(0, len(first) - 1, most).astype(int)
    place = np.full(len(first), -1)
    place[chosen] = np.arange(len(chosen))
    used = np.nonzero(place[row_of] >= 0)[0]
    counts = kmer_counts([data.examples.sequence[i] for i in used.tolist()], K)
    features = np.zeros((len(chosen), counts.shape[1]))
    np.add.at(features, place[row_of[used]], counts)
    features /= np.bincount(place[row_of[used]], minlength=len(chosen))[:, None]
    numbers = data.examples.numbers[first[chosen]]
    return np.concatenate([features, numbers], 1), np.asarray(data.targets)[first[chosen]]
