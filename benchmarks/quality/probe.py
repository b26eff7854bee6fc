"""A linear probe: multinomial logistic regression on vectors that stay as they are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

# scikit-learn's C: the greater, the less the weights are held back.
STRENGTHS = (0.01, 0.1, 1.0)


def fit(vectors_ND: NDArray[np.float32], labels: Sequence[str], *, strength: float) -> Pipeline:
    """Return a probe of standardised vectors; nothing in it is drawn at random."""
    regression = LogisticRegression(C=strength, max_iter=300, tol=1e-3)
    return make_pipeline(StandardScaler(), regression).fit(vectors_ND, labels)


def chosen(
    train: tuple[NDArray[np.float32], Sequence[str]],
    dev: tuple[NDArray[np.float32], Sequence[str]],
    *,
    strengths: Sequence[float] = STRENGTHS,
) -> tuple[Pipeline, float]:
    """Return the probe that is most often right on `dev`, and its strength; of equals the one held back most."""
    probes = {strength: fit(*train, strength=strength) for strength in sorted(strengths)}
    best = max(probes, key=lambda strength: probes[strength].score(*dev))
    return probes[best], best
