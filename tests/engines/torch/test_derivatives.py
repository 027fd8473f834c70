"""Models that take derivatives of their own: forces, equations, sensitivities."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import assert_close
from torch import Tensor, nn

import deepshap

X = torch.randn(6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def explained(model, **options) -> np.ndarray:
    return deepshap.DeepExplainer(model, X[2:], progress=False, **options).shap_values(X[:2])


def by_grad(x: Tensor) -> Tensor:
    return torch.func.grad(lambda z: z.sin().sum())(x)


def by_jacobian(x: Tensor) -> Tensor:
    return torch.func.vmap(torch.func.jacrev(lambda z: z.sin().sum()))(x)


def by_hessian(x: Tensor) -> Tensor:
    return -torch.func.vmap(torch.func.hessian(lambda z: z.cos().sum()))(x).sum(2)


def by_forward_mode(x: Tensor) -> Tensor:
    return torch.func.jvp(torch.sin, (x,), (torch.ones_like(x),))[1]


def by_autograd(x: Tensor) -> Tensor:
    """As most models have it, which expect that gradients are recorded."""
    x = x.requires_grad_()
    return torch.autograd.grad(x.sin().sum(), x)[0]


def by_backward(x: Tensor) -> Tensor:
    with torch.enable_grad():
        z = x.detach().clone().requires_grad_()
        z.sin().sum().backward()
        return z.grad


def closing_over_the_input(x: Tensor) -> Tensor:
    doubled = x * 2
    return torch.func.grad(lambda z: (z.sin() + 0 * doubled).sum())(doubled - x)


@pytest.mark.parametrize(
    "model", [by_grad, by_jacobian, by_hessian, by_forward_mode, by_autograd, by_backward, closing_over_the_input]
)
def test_a_derivative_of_each_element_is_explained_by_that_element(model):
    """Of the cosine of one number the sum decides all."""
    wanted = (X[:2, None].cos() - X[2:].cos()).mean(1)
    assert_close(explained(model), torch.diag_embed(wanted).numpy())


def test_a_network_with_its_own_second_derivative():
    """As physics-informed networks have it: u'' + u u'."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double()

    def residual(x: Tensor) -> Tensor:
        x = x.requires_grad_()
        u = net(x)
        (slope,) = torch.autograd.grad(u.sum(), x, create_graph=True)
        (curvature,) = torch.autograd.grad(slope[:, 0].sum(), x, create_graph=True)
        return curvature[:, :1] + u * slope[:, 1:2]

    found = explained(residual)
    expected = residual(X[:2].clone()) - residual(X[2:].clone()).mean(0)
    assert_close(found.sum(1), expected.detach().numpy())
    assert all(p.requires_grad and p.grad is None for p in net.parameters())


def test_what_cannot_be_written_out_is_refused_with_its_place():
    def deciding(x: Tensor) -> Tensor:
        return torch.func.grad(lambda z: z.sin().sum() if z.sum() > 0 else z.cos().sum())(x)

    with pytest.raises(
        deepshap.UnsupportedOperationError,
        match=r"torch\.func .* at test_derivatives\.py:\d+, .*Write the derivative out",
    ):
        explained(deciding)


def test_rules_of_single_layers_are_not_lost():
    layer = nn.Tanh()

    def model(x: Tensor) -> Tensor:
        return torch.func.grad(lambda z: layer(z).sum())(x)

    deepshap.register_rule(layer, "smooth")
    try:
        with pytest.raises(deepshap.UnsupportedOperationError, match=r"derivative of its own .* registered"):
            explained(model)
    finally:
        deepshap.unregister_rule(layer)


def test_it_is_known_beforehand_what_they_use():
    assert "cos" in str(deepshap.check(by_grad, X[:1]))
