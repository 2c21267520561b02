"""The specification's three training loops as it writes them, and its losses against hand-made figures."""

import torch
from torch.utils.data import DataLoader, TensorDataset

from model.losses import bands
from model.wavelet import WaveletTransform
from tests.conftest import TINY
from wavelet_triplane_diffusion import (
    Targets,
    WaveletTriplaneDiffusion,
    compute_loss,
    diffusion_loss,
    diffusion_training_step,
    reconstruction_loss,
    rendering_loss,
)


def batches():
    torch.manual_seed(0)
    side, channels = TINY["resolution"], TINY["triplane_channels"]
    images = torch.rand(4, 3, 4 * side, 4 * side) * 2 - 1
    planes = torch.randn(4, 3, channels, 2 * side, 2 * side)
    pictures = torch.rand(4, 3, 32, 32)
    for image, plane, picture in DataLoader(TensorDataset(images, planes, pictures), batch_size=2):
        yield image, Targets(plane, picture)


def test_the_three_loops_run_as_written_and_learn():
    torch.manual_seed(0)
    model = WaveletTriplaneDiffusion(**TINY)
    first, last = [], []
    optimizer = torch.optim.Adam(model.coarse_gen.parameters(), lr=1e-2)
    for _ in range(8):
        for images, targets in batches():
            triplane_LL = model.coarse_gen(images)
            loss = compute_loss(triplane_LL, targets)
            (first if len(first) < 2 else last).append(loss.item())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert sum(last[-2:]) < sum(first)
    optimizer = torch.optim.Adam(model.detail_diffusion.parameters(), lr=1e-3)
    for images, targets in batches():
        with torch.no_grad():
            triplane_LL = model.coarse_gen(images)
        loss = diffusion_training_step(model, triplane_LL, targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert all(p.grad is not None for p in model.detail_diffusion.parameters())
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-5)
    for images, targets in batches():
        outputs = model(images, return_intermediate=True)
        loss = (
            diffusion_loss(outputs)
            + 0.1 * reconstruction_loss(outputs, targets)
            + rendering_loss(outputs["rendered_image"], targets)
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert torch.isfinite(loss)


def test_a_perfect_denoiser_has_no_loss():
    """With x0 known the velocity is; a network that knows it loses nothing, one that says 0 loses what v has."""
    torch.manual_seed(0)
    model = WaveletTriplaneDiffusion(**TINY)
    _, targets = next(batches())
    ll, details = bands(targets.triplane)
    x0 = details.flatten(0, 1)
    network = model.detail_diffusion

    def perfect(noisy, timestep, condition):
        alpha, sigma = (values[timestep][:, None, None, None] for values in (network.alpha, network.sigma))
        return (alpha * noisy - x0) / sigma

    network.velocity = perfect
    assert diffusion_training_step(model, ll, targets).item() < 1e-3
    network.velocity = lambda noisy, timestep, condition: torch.zeros_like(noisy)
    assert 0.7 < diffusion_training_step(model, ll, targets).item() < 1.3


def test_losses_are_zero_where_nothing_is_wrong():
    _, targets = next(batches())
    ll, details = bands(targets.triplane)
    assert compute_loss(ll, targets) == 0
    outputs = {"triplane_LL": ll, "triplane_details": 0 * details, "triplane_highres": targets.triplane}
    assert diffusion_loss(outputs) == 0
    assert reconstruction_loss(outputs, targets) == 0
    assert rendering_loss(targets.image, targets) == 0
    joined = WaveletTransform().idwt2d(ll[:, 1], *details[:, 1].chunk(3, dim=1))
    torch.testing.assert_close(joined, targets.triplane[:, 1], atol=1e-5, rtol=1e-5)
