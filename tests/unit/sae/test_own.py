"""A module of somebody's own, as evaluations see it."""

import torch
from torch import nn

from saelab.sae.own import OwnSAE


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.W = nn.Parameter(torch.rand(4, 6, generator=torch.Generator().manual_seed(0)))

    def encode(self, x):
        return torch.relu(x @ self.W)

    def decode(self, z):
        return z @ self.W.T


def test_directions_are_those_of_the_weights_now_and_read_once():
    sae = OwnSAE(Tied(), 4)
    first = sae.directions
    torch.testing.assert_close(first, sae.W.T.detach())
    assert sae.directions is first
    with torch.no_grad():
        sae.W.mul_(2)
    torch.testing.assert_close(sae.directions, sae.W.T.detach())
    sae.load_state_dict({name: 3 * value for name, value in sae.state_dict().items()})
    torch.testing.assert_close(sae.directions, sae.W.T.detach())


def test_codes_and_reconstructions_are_in_the_units_of_x():
    sae, x = OwnSAE(Tied(), 4), torch.rand(2, 3, 4)
    sae.fold_scale_(0.25)
    z = sae.module.encode(0.25 * x)
    torch.testing.assert_close(sae.encode(x), z / 0.25)
    torch.testing.assert_close(sae.decode(sae.encode(x)), sae.module.decode(z) / 0.25)
