"""Several comparisons at once: Holm's adjustment."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtn_det.metrics.resampling import holm

P_VALUES = st.lists(st.floats(0, 1), max_size=30)


def test_holms_own_steps():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx((0.03, 0.06, 0.06, 0.02))
    assert holm([]) == ()
    assert holm([0.2]) == (0.2,)


@given(P_VALUES)
def test_adjusted_p_values_keep_their_order_and_lie_between_none_and_bonferroni(p_values):
    adjusted = holm(p_values)
    for p_value, one in zip(p_values, adjusted, strict=True):
        assert p_value <= one <= min(1, len(p_values) * p_value) + 1e-12
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    assert [adjusted[place] for place in order] == sorted(adjusted)


@given(P_VALUES, st.floats(0.001, 0.5))
def test_what_is_rejected_is_what_holms_procedure_rejects(p_values, level):
    rejected = 0
    for p_value in sorted(p_values):
        if p_value * (len(p_values) - rejected) > level:
            break
        rejected += 1
    assert sum(one <= level for one in holm(p_values)) == rejected


def test_what_is_no_p_value():
    with pytest.raises(ValueError, match=r"expected p-values in \[0, 1\], got 1.5"):
        holm([0.1, 1.5])
