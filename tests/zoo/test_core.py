"""The recurrent and forecasting models of the zoo that install light: exact in every test run. All of them: make zoo."""

from __future__ import annotations

import pytest
from case import examine
from table import MODELS

CORE = {
    "ncps": ["CfC", "CfC, pure", "CfC, mixed memory", "CfC, wired", "LTC"],
    "mambapy": ["Mamba, scan", "Mamba, steps"],
    "torchdiffeq": ["odeint, rk4", "odeint_adjoint, rk4"],
    "pytorch-tcn": ["TCN, causal", "TCN, gated"],
    "transformers, series": ["PatchTST", "PatchTSMixer", "TimeSeriesTransformer", "Informer"],
    "transformers, recurrent": ["Mamba", "RWKV"],
    "transformers, experts": ["Mixtral", "Qwen3-MoE", "Switch"],
}


@pytest.mark.parametrize(("library", "name"), [(library, name) for library, names in CORE.items() for name in names])
@pytest.mark.filterwarnings("ignore")  # of the libraries
def test_exact(library, name):
    found = examine(library, name, MODELS[library][name], timed=False)
    assert (found.outcome, found.why) == ("exact", "")
