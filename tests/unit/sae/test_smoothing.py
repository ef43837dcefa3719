import pytest
import torch

import saelab


def test_an_impulse_decays():
    z = torch.zeros(1, 40, 1)
    z[0, 5] = 2
    smoothed = saelab.smooth(z, 0.5)[0, :, 0]
    torch.testing.assert_close(smoothed[5:], 0.5 ** torch.arange(35.0))
    assert smoothed[:5].abs().sum() == 0
    torch.testing.assert_close(saelab.smooth(z, 0), z)


def test_a_new_document_starts_from_0_and_what_is_not_kept_is_passed_over():
    z = torch.ones(6, 1)
    doc = torch.tensor([0, 0, 0, 0, 1, 1])
    keep = torch.tensor([True, True, False, True, True, True])
    smoothed = saelab.smooth(z, 0.5, doc=doc, keep=keep)[:, 0]
    torch.testing.assert_close(smoothed, torch.tensor([0.5, 0.75, 0, 0.875, 0.5, 0.75]))


def test_a_factor_of_1_is_refused():
    with pytest.raises(ValueError, match=r"decay is 1; give a number from 0 \(no smoothing\)"):
        saelab.smooth(torch.ones(3, 1), 1)
