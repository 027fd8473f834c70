"""What is compared, in the way its documentation shows: one class for each, the same rows for all.

Every example is explained against the whole background, by single inputs. Methods that treat the model as a black box
would take a thousand times longer than a gradient for these: they explain windows of steps (``Case.groups``).
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from problems import Case, LastStep
from torch import Tensor, nn


class Peer:
    """Imports its library when it is made, and no other; so its process has its memory and nothing else."""

    name: ClassVar[str]
    budget: ClassVar[int | None] = None  # how much to sample where time is measured
    budgets: ClassVar[tuple[int | None, ...]] = (None,)  # and where accuracy is

    def prepare(self, case: Case) -> None:
        """Do what can be done before there is anything to explain."""
        raise NotImplementedError

    def explain(self, x: Tensor, budget: int | None) -> np.ndarray | None:
        """Return attributions (examples, steps, features, outputs), or of players (examples, players, outputs)."""
        raise NotImplementedError


# ---------------------------------------------------------------------- what the others are held against
class Native(Peer):
    """Torch's own forward pass and input gradient of all pairs."""

    name = "forward + gradient"

    def prepare(self, case: Case) -> None:
        self.model, self.references = case.model, len(case.background)

    def explain(self, x: Tensor, budget: int | None) -> None:
        rows = x.repeat_interleave(self.references, 0).requires_grad_()
        totals = self.model(rows).sum(0)
        for k, total in enumerate(totals):
            torch.autograd.grad(total, rows, retain_graph=k + 1 < len(totals))


class Floor(Peer):
    """Only the matrix products that the multipliers of a recurrent network cannot do without."""

    name = "matrix products alone"

    def prepare(self, case: Case) -> None:
        assert isinstance(case.model, LastStep)
        network = case.model.recurrent
        self.levels, self.references, self.outputs = [], len(case.background), case.model.read_out.out_features
        for name, weights in network.named_parameters():
            if name.startswith("weight_ih"):
                both = torch.cat([weights, getattr(network, name.replace("ih", "hh", 1))], 1)
                self.levels.append(both.detach())

    def explain(self, x: Tensor, budget: int | None) -> None:
        rows = len(x) * self.references * self.outputs
        for weights in self.levels:
            multipliers, result = torch.ones(rows, len(weights)), torch.empty(rows, weights.shape[1])
            for _ in range(x.shape[1]):
                torch.mm(multipliers, weights, out=result)


# ---------------------------------------------------------------------- by multipliers
class DeepShap(Peer):
    name = "deepshap"

    def __init__(self, **options: Any) -> None:
        import deepshap.engines.torch.engine

        self.explainer_class = deepshap.DeepExplainer  # imported when it is asked for, and its engine when it is used
        self.options = {"progress": False, **options}

    def prepare(self, case: Case) -> None:
        self.explainer = self.explainer_class(case.model, case.background, **self.options)

    def explain(self, x: Tensor, budget: int | None) -> np.ndarray:
        return self.explainer.shap_values(x)


class _Shap(Peer):
    def __init__(self) -> None:
        import shap

        self.shap = shap


class ShapDeep(_Shap):
    name = "shap.DeepExplainer"

    def prepare(self, case: Case) -> None:
        self.explainer = self.shap.DeepExplainer(case.model, case.background)

    def explain(self, x: Tensor, budget: int | None) -> np.ndarray:
        return np.asarray(self.explainer.shap_values(x, check_additivity=False))  # the check would raise


class _Captum(Peer):
    def __init__(self) -> None:
        import captum.attr

        self.captum = captum.attr

    def prepare(self, case: Case) -> None:
        self.background, self.players = case.background, torch.as_tensor(np.array(case.groups))
        self.outputs = case.model(case.background[:1]).shape[1]
        self.method = self.new(case.model)

    def new(self, model: nn.Module) -> Any:
        raise NotImplementedError

    def of_outputs(self, x: Tensor, baselines: Tensor, **options: Any) -> np.ndarray:
        """Captum explains one output at a time."""
        found = [self.method.attribute(x, baselines, target=k, **options) for k in range(self.outputs)]
        return torch.stack(found, -1).detach().numpy()

    def of_pairs(self, x: Tensor, **options: Any) -> np.ndarray:
        """Of methods that take one baseline per row."""
        examples, references = len(x), len(self.background)
        rows, baselines = x.repeat_interleave(references, 0), torch.cat([self.background] * examples)
        return self.of_outputs(rows, baselines, **options).reshape(examples, references, *x.shape[1:], -1).mean(1)


class CaptumDeepLiftShap(_Captum):
    name = "captum.DeepLiftShap"

    def new(self, model: nn.Module) -> Any:
        return self.captum.DeepLiftShap(model)

    def explain(self, x: Tensor, budget: int | None) -> np.ndarray:
        return self.of_outputs(x, self.background)


# ---------------------------------------------------------------------- by gradients along a path
class CaptumIntegratedGradients(_Captum):
    """From every reference to every example; the budget is the number of points on the way."""

    name = "captum.IntegratedGradients"
    budget, budgets = 5, (2, 5, 20, 50)

    def new(self, model: nn.Module) -> Any:
        return self.captum.IntegratedGradients(model)

    def explain(self, x: Tensor, budget: int | None) -> np.ndarray:
        return self.of_pairs(x, n_steps=budget, internal_batch_size=len(x) * len(self.background))


class CaptumGradientShap(_Captum):
    """The budget is the number of random points per example, each on the way from a random reference."""

    name = "captum.GradientShap"
    budget, budgets = 100, (50, 200, 800)

    def new(self, model: nn.Module) -> Any:
        return self.captum.GradientShap(model)

    def explain(self, x: Tensor, budget: int | None) -> np.ndarray:
        return self.of_outputs(x, self.background, n_samples=budget)


class ShapGradient(_Shap):
    """The budget is the number of random points per example, each on the way from a random reference."""

    name = "shap.GradientExplainer"
    budget, budgets = 100, (50, 200, 800)

    def prepare(self, case: Case) -> None:
        self.explainer = self.shap.GradientExplainer(case.model, case.background)

    def explain(self, x: Tensor, budget: int | None) -> np.ndarray:
        return np.asarray(self.explainer.shap_values(x, nsamples=budget))


# ---------------------------------------------------------------------- by trying coalitions
class _BlackBox(_Shap):
    def prepare(self, case: Case) -> None:
        self.case, self.groups = case, np.array(case.groups)

    def predict(self, rows: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return self.case.model(torch.as_tensor(rows).float().view(-1, *self.groups.shape)).numpy()


class ShapKernel(_BlackBox):
    """The budget is the number of coalitions per example."""

    name = "shap.KernelExplainer"
    budget, budgets = 32, (32, 128, 512)

    def prepare(self, case: Case) -> None:
        super().prepare(case)
        from shap.utils._legacy import DenseData

        names = [f"player {k}" for k in range(case.players)]
        members = [np.flatnonzero(self.groups.ravel() == k) for k in range(case.players)]
        data = DenseData(case.background.flatten(1).numpy(), names, members)
        self.explainer = self.shap.KernelExplainer(self.predict, data)

    def explain(self, x: Tensor, budget: int | None) -> np.ndarray:
        rows = x.flatten(1).numpy()
        return np.asarray(self.explainer.shap_values(rows, nsamples=budget, l1_reg=False, silent=True))


class ShapPermutation(_BlackBox):
    """The budget is the number of orders per example, each taken forwards and backwards."""

    name = "shap.PermutationExplainer"
    budget, budgets = 1, (1, 4, 16)

    def prepare(self, case: Case) -> None:
        super().prepare(case)
        self.explainer = self.shap.PermutationExplainer(self.predict, _Masker(case))

    def explain(self, x: Tensor, budget: int | None) -> np.ndarray:
        assert budget is not None
        evaluations = budget * (2 * self.case.players + 1)
        found = [self.explainer(row[None].numpy(), max_evals=evaluations, silent=True).values for row in x]
        return np.concatenate(found).reshape(len(x), self.case.players, -1)  # shap drops the axis of a single output


class ShapExact(ShapPermutation):
    """All coalitions, which it takes up to some fifteen players."""

    name = "shap.ExactExplainer"
    budget, budgets = 1, (1,)

    def prepare(self, case: Case) -> None:
        super().prepare(case)
        self.explainer = self.shap.explainers.ExactExplainer(self.predict, _Masker(case))

    def explain(self, x: Tensor, budget: int | None) -> np.ndarray:
        if self.case.players > 15:
            raise ValueError("too many players")
        found = [self.explainer(row[None].numpy(), max_evals=2**self.case.players, silent=True).values for row in x]
        return np.concatenate(found).reshape(len(x), self.case.players, -1)


class ShapSampling(_BlackBox):
    """The budget is the number of samples per player. A player's value is the number of the row that its inputs come from."""

    name = "shap.SamplingExplainer"
    budget, budgets = 16, (4, 16, 64)

    def prepare(self, case: Case) -> None:
        super().prepare(case)
        self.rows = torch.cat([case.background, case.x])
        numbers = np.arange(len(case.background))[:, None].repeat(case.players, 1)
        self.explainer = self.shap.SamplingExplainer(self.predict_of, numbers.astype(float))

    def predict_of(self, numbers: np.ndarray) -> np.ndarray:
        own = torch.as_tensor(numbers).long()[:, self.groups]
        return self.predict(torch.take_along_dim(self.rows, own, 0).numpy())

    def explain(self, x: Tensor, budget: int | None) -> np.ndarray:
        assert budget is not None
        numbers = len(self.case.background) + np.arange(len(x), dtype=float)[:, None].repeat(self.case.players, 1)
        found = self.explainer.shap_values(numbers, nsamples=budget * self.case.players, silent=True)
        return np.asarray(found).reshape(len(x), self.case.players, -1)


class _Masker:
    """Puts the background in the place of absent players."""

    def __init__(self, case: Case) -> None:
        self.background, self.groups, self.players = case.background.numpy(), np.array(case.groups), case.players

    def shape(self, row: np.ndarray) -> tuple[int, int]:
        return len(self.background), self.players

    def mask_shapes(self, row: np.ndarray) -> list[tuple[int, ...]]:
        return [(self.players,)]

    def __call__(self, mask: np.ndarray, row: np.ndarray) -> tuple[np.ndarray]:
        return (np.where(np.asarray(mask, bool)[self.groups], row, self.background),)


class _CaptumCoalitions(_Captum):
    @torch.no_grad()
    def explain(self, x: Tensor, budget: int | None) -> np.ndarray:
        values = self.of_pairs(x, feature_mask=self.players[None], n_samples=budget)
        _, first = np.unique(self.players, return_index=True)  # all inputs of a player have its value
        return values.reshape(len(x), -1, values.shape[-1])[:, first]


class CaptumShapleyValueSampling(_CaptumCoalitions):
    """The budget is the number of orders, the same for all pairs."""

    name = "captum.ShapleyValueSampling"
    budget, budgets = 1, (2, 8, 32)

    def new(self, model: nn.Module) -> Any:
        return self.captum.ShapleyValueSampling(model)


class CaptumKernelShap(_CaptumCoalitions):
    """The budget is the number of coalitions of each pair."""

    name = "captum.KernelShap"
    budget, budgets = 64, (32, 128)

    def new(self, model: nn.Module) -> Any:
        return self.captum.KernelShap(model)


PEERS: dict[str, type[Peer]] = {
    peer.name: peer
    for peer in (
        Native,
        Floor,
        DeepShap,
        ShapDeep,
        CaptumDeepLiftShap,
        CaptumIntegratedGradients,
        CaptumGradientShap,
        ShapGradient,
        ShapKernel,
        ShapPermutation,
        CaptumShapleyValueSampling,
    )
}
YARDSTICKS = (Native.name, Floor.name)
OF_WINDOWS = tuple(name for name, peer in PEERS.items() if issubclass(peer, (_BlackBox, _CaptumCoalitions)))
NEAREST = Native.name, DeepShap.name, ShapDeep.name, CaptumDeepLiftShap.name  # by multipliers, beside the gradient
