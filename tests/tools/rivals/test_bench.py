"""Rivals on a real network: what is recorded, what a setting makes of it, how it is judged."""

import dataclasses

import pytest
import torch
from turbo4d.models.config import SV4DConfig
from turbo4d.models.random_weights import fill_random
from turbo4d.models.unet import SV4DUNet
from turbo4d.models.vae import NanoVAE
from turbo4d.tools.load_model import LoadedModel
from turbo4d.tools.rivals.bench import Bench
from turbo4d.tools.rivals.effort import Effort
from turbo4d.tools.rivals.schedule import every
from turbo4d.tools.rivals.setting import Setting, core_of, reusing, static
from turbo4d.tools.rivals.signals import record
from turbo4d.tools.sampling import sample_plain

STEPS = 3


@pytest.fixture
def model():
    config = dataclasses.replace(
        SV4DConfig.named("tiny"), channel_mult=(1,), attention_resolutions=()
    )
    network, vae = SV4DUNet(config), NanoVAE()
    for part in (network, vae):
        fill_random(part)
        part.eval().requires_grad_(False)
    return LoadedModel("smallest", network, vae, "random", "")


def test_rivals_run_on_the_networks_own_graphs(model, fresh_dynamo):
    bench = Bench(model, STEPS)
    asset = bench.held_out(0)
    latent, signals = record(model, asset, STEPS)
    assert torch.equal(latent, sample_plain(model, asset, STEPS))
    assert len(signals.modulated) == len(signals.output) == len(signals.growth) == STEPS - 1
    assert [len(row) for row in signals.first_block] == list(range(STEPS))
    assert all(0 < change < 10 for change in (*signals.modulated, *signals.output))
    assert not any(
        module._forward_hooks or module._forward_pre_hooks for module in model.network.modules()
    )

    core = [core_of(bench.turbo.regions)]
    whole = static("s", "all", reusing(every(STEPS, 1), core))
    rival = static("s", "one", reusing(every(STEPS, STEPS), core))
    fewer = Setting("fewer", "2", steps=2)
    judge = bench.judge(asset, latent)
    exact_db, rival_db, fewer_db = (
        judge.of(bench.sample(asset, bench.run_of(one, signals))) for one in (whole, rival, fewer)
    )
    assert exact_db > 90 > rival_db
    assert fewer_db < 90
    all_steps = bench.sample(asset, ("euler", STEPS))
    assert judge.of(all_steps) == exact_db
    assert torch.equal(bench.uncached(asset), latent)
    assert judge.of(latent) == 200
    efforts = [bench.effort(one, [signals]) for one in (rival, fewer, whole)]
    assert efforts[0] < efforts[1] < efforts[2]
    assert Effort(bench.turbo).of(("euler", 4)) == pytest.approx(2 * efforts[1])
