"""Probes are the optimum, by what defines one and by what scikit-learn finds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler
from sklearn.utils.class_weight import compute_sample_weight

from graftwork.errors import TrainingError
from graftwork.models import probe
from graftwork.models.probe import STRENGTHS, LabelledVectors, Probe, best_probe, fit_probes
from graftwork.targets.catalog import MULTI_LABEL, REGRESSION


def make_rows(rows: int, classes: int, seed: int, width: int = 5) -> LabelledVectors:
    """Overlapping clouds, one for each class, of features with unlike scales; one feature says nothing at all."""
    generator = np.random.default_rng(seed)
    labels = np.arange(rows) % classes
    centres = np.random.default_rng(1).normal(size=(classes, width))
    vectors = (centres[labels] + generator.normal(size=(rows, width))) * np.logspace(-3, 2, width) + 7
    return LabelledVectors(np.column_stack([vectors, np.ones(rows)]).astype(np.float32), labels)


@settings(max_examples=20, deadline=None)
@given(classes=st.integers(2, 4), seed=st.integers(0, 99), balance=st.sampled_from([None, "balanced"]))
def test_the_gradient_is_nil(classes: int, seed: int, balance: str | None) -> None:
    """Of the regularised loss, written out for standardised features; every strength, also where a class is rare."""
    rows = make_rows(60 + seed % 7, classes, seed)
    labels = np.where(rows.labels == classes - 1, (np.arange(len(rows.labels)) % 3 == 0) * (classes - 1), rows.labels)
    scaler = StandardScaler().fit(rows.vectors.astype(np.float64))
    scaled = scaler.transform(rows.vectors.astype(np.float64))
    weights = compute_sample_weight(balance, labels)
    weights = weights / weights.sum()
    for found in fit_probes(LabelledVectors(rows.vectors, labels), rows, classes, balance):
        residuals = (found.values(rows.vectors) - np.eye(classes)[labels]) * weights[:, None]
        pull = found.weight * scaler.scale_ / (found.strength * len(labels))
        assert np.abs(residuals.T @ scaled + pull).max() < 2e-6
        assert np.abs(residuals.sum(axis=0)).max() < 2e-6


@pytest.mark.parametrize("balance", [None, "balanced"])
def test_scikit_learn_finds_the_same(balance: str | None) -> None:
    """Its Newton solver on standardised features, three classes, each strength: the same probabilities."""
    rows, others = make_rows(200, 3, seed=0), make_rows(50, 3, seed=1)
    labels = np.minimum(rows.labels, np.arange(200) % 5)
    scaler = StandardScaler().fit(rows.vectors.astype(np.float64))
    for strength, found in zip(
        STRENGTHS, fit_probes(LabelledVectors(rows.vectors, labels), others, 3, balance), strict=True
    ):
        theirs = LogisticRegression(C=strength, solver="newton-cholesky", tol=1e-10, class_weight=balance)
        theirs.fit(scaler.transform(rows.vectors.astype(np.float64)), labels)
        expected = theirs.predict_proba(scaler.transform(others.vectors.astype(np.float64)))
        np.testing.assert_allclose(found.values(others.vectors), expected, atol=1e-5)
        assert found.strength == strength
        assert found.validation_loss == pytest.approx(-np.log(expected[np.arange(50), others.labels]).mean(), abs=1e-5)


def test_scikit_learn_finds_the_same_of_several_labels_and_of_numbers() -> None:
    """A logistic regression for each label, whose losses are averaged, and ridge regression, each strength."""
    rows, others = make_rows(200, 3, seed=0), make_rows(50, 3, seed=1)
    scaler = StandardScaler().fit(rows.vectors.astype(np.float64))
    known, new = (scaler.transform(each.vectors.astype(np.float64)) for each in (rows, others))
    flags = np.column_stack([rows.labels == 0, np.arange(200) % 5 > 2]).astype(float)
    numbers = known @ np.arange(known.shape[1])[:, None] + np.sin(np.arange(200.0))[:, None]
    for target, labels in ((MULTI_LABEL, flags), (REGRESSION, numbers)):
        given = LabelledVectors(rows.vectors, labels)
        found = fit_probes(given, given, labels.shape[1], fit=target.learning.fit)
        for strength, solved in zip(STRENGTHS, found, strict=True):
            if target is REGRESSION:
                expected = Ridge(alpha=1 / (2 * strength)).fit(known, labels).predict(new).reshape(50, 1)
            else:
                models = [LogisticRegression(C=strength / 2, solver="newton-cholesky", tol=1e-10) for _ in range(2)]
                fitted = [model.fit(known, truth) for model, truth in zip(models, labels.T, strict=True)]
                expected = np.column_stack([model.predict_proba(new)[:, 1] for model in fitted])
            np.testing.assert_allclose(solved.values(others.vectors), expected, atol=2e-5)


def test_the_validation_rows_choose() -> None:
    """Where they say the opposite the strongest regularisation is taken, where they are plain the weakest."""
    rows = make_rows(100, 2, seed=0)
    opposite = LabelledVectors(rows.vectors, 1 - rows.labels)
    plain = LabelledVectors(np.eye(2, dtype=np.float32)[rows.labels], rows.labels)
    assert best_probe(fit_probes(rows, opposite, 2)).strength == min(STRENGTHS)
    assert best_probe(fit_probes(plain, plain, 2)).strength == max(STRENGTHS)


def test_a_class_that_no_row_is_of_is_ruled_out() -> None:
    """It has a column, and hardly a probability."""
    rows = make_rows(60, 2, seed=0)
    found: Probe = best_probe(fit_probes(rows, rows, 3))
    assert found.values(rows.vectors)[:, 2].max() < 1e-4


def test_what_is_no_optimum_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two iterations are not enough, and that is said."""
    monkeypatch.setattr(probe, "MAX_ITERATIONS", 2)
    with pytest.raises(TrainingError, match=r"not reached in 2 iterations.*solver: adamw"):
        list(fit_probes(make_rows(60, 3, seed=0), make_rows(60, 3, seed=1), 3))
