"""Sampler tables against diffusers' schedulers of the same name: whole trajectories in float64."""

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler
from hypothesis import given, settings
from hypothesis import strategies as st

import runtime
from runtime.diffusion.noise import draw, seeds_of
from runtime.diffusion.samplers import COLUMNS, SAMPLERS, sampler_table, trailing_timesteps
from runtime.diffusion.schedule import cosine_schedule

T = 1000
ALPHA, SIGMA = cosine_schedule(T)


def denoiser(x, timestep):
    """Stands in for the network: not linear, and different at every timestep."""
    return np.tanh(0.7 * x + 0.3 * np.sin(timestep / 150))


def our_trajectory(sampler, timesteps, x, fresh=None):
    states, previous = [], np.zeros_like(x)
    for index, (t, _, _, a, b, c, d) in enumerate(sampler_table(sampler, ALPHA, SIGMA, timesteps)):
        x0 = denoiser(x, t)
        x = a * x + b * x0 + c * previous + (d * fresh[index] if fresh is not None else 0)
        previous = x0
        states.append(x)
    return states


def in_float64(scheduler):
    """Gives a scheduler our schedule in full precision, so that its own float32 betas do not blur the comparison."""
    scheduler.alphas_cumprod = torch.from_numpy(ALPHA**2)
    return scheduler


class Gap(int):
    """Stands in for a number of steps: diffusers' DDIM finds where a step ends by T // steps, evenly spaced always."""

    def __rfloordiv__(self, _):
        return int(self)


@pytest.mark.parametrize("steps", [1, 2, 4, 7, 20, 50])
def test_ddim_follows_diffusers(steps):
    timesteps = trailing_timesteps(T, steps)
    reference = in_float64(
        DDIMScheduler(T, beta_schedule="squaredcos_cap_v2", prediction_type="sample", clip_sample=False,
                      timestep_spacing="trailing")
    )  # fmt: skip
    reference.set_timesteps(steps)
    assert reference.timesteps.tolist() == timesteps.tolist()
    noise = np.random.default_rng(0).standard_normal(64)
    x = torch.from_numpy(noise)
    for ours, t, following in zip(
        our_trajectory("ddim", timesteps, noise), timesteps, [*timesteps[1:], -1], strict=True
    ):
        reference.num_inference_steps = Gap(t - following)
        x = reference.step(torch.from_numpy(denoiser(x.numpy(), t)), int(t), x).prev_sample
        np.testing.assert_allclose(ours, x.numpy(), atol=1e-5)


@pytest.mark.parametrize("steps", [1, 2, 4, 7, 20, 50])
def test_ddpm_is_ddim_with_full_noise(steps):
    timesteps = trailing_timesteps(T, steps)
    reference = in_float64(DDIMScheduler(T, prediction_type="sample", clip_sample=False))
    noise, fresh = np.random.default_rng(0).standard_normal(64), np.random.default_rng(1).standard_normal((steps, 64))
    x = torch.from_numpy(noise)
    for index, ours in enumerate(our_trajectory("ddpm", timesteps, noise, fresh)):
        t, following = timesteps[index], timesteps[index + 1] if index + 1 < steps else -1
        reference.num_inference_steps = Gap(t - following)
        x = reference.step(
            torch.from_numpy(denoiser(x.numpy(), t)), int(t), x, eta=1.0, variance_noise=torch.from_numpy(fresh[index])
        ).prev_sample
        np.testing.assert_allclose(ours, x.numpy(), atol=1e-5)


@pytest.mark.parametrize("steps", [1, 2, 4, 7, 14, 15, 20, 50])
def test_dpmpp_2m_follows_diffusers(steps):
    timesteps = trailing_timesteps(T, steps)
    reference = in_float64(
        DPMSolverMultistepScheduler(T, prediction_type="sample", algorithm_type="dpmsolver++", solver_order=2,
                                    solver_type="midpoint", final_sigmas_type="zero")
    )  # fmt: skip
    reference.set_timesteps(timesteps=timesteps.tolist())
    # Its own table of noise levels is float32; this is the same one in float64.
    reference.sigmas = torch.from_numpy(np.append(SIGMA[timesteps] / ALPHA[timesteps], 0.0))
    noise = np.random.default_rng(0).standard_normal(64)
    x = torch.from_numpy(noise)
    for ours, t in zip(our_trajectory("dpmpp_2m", timesteps, noise), reference.timesteps, strict=True):
        x = reference.step(torch.from_numpy(denoiser(x.numpy(), t.item())), t, x).prev_sample
        np.testing.assert_allclose(ours, x.numpy(), atol=1e-5)


@pytest.mark.parametrize("steps", [1, 2, 4, 7, 20, 50])
def test_euler_follows_diffusers(steps):
    timesteps = trailing_timesteps(T, steps)
    reference = in_float64(EulerDiscreteScheduler(T, prediction_type="sample"))
    reference.set_timesteps(timesteps=timesteps.tolist())
    levels = np.append(SIGMA[timesteps] / ALPHA[timesteps], 0.0)
    reference.sigmas = torch.from_numpy(levels)
    noise = np.random.default_rng(0).standard_normal(64)
    # diffusers' Euler works on y = x / alpha; the last state has alpha 1.
    y = torch.from_numpy(noise / ALPHA[timesteps[0]])
    ends = np.append(ALPHA[timesteps[1:]], 1.0)
    for index, ours in enumerate(our_trajectory("euler", timesteps, noise)):
        t = reference.timesteps[index]
        x0 = torch.from_numpy(denoiser(y.numpy() * ALPHA[timesteps[index]], t.item()))
        y = reference.step(x0, t, y).prev_sample.double()
        np.testing.assert_allclose(ours, y.numpy() * ends[index], atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(SAMPLERS)), st.integers(1, 60), st.floats(-3, 3))
def test_a_constant_prediction_is_reached_whatever_the_sampler(sampler, steps, target):
    table = sampler_table(sampler, ALPHA, SIGMA, trailing_timesteps(T, steps))
    assert table.shape == (steps, len(COLUMNS))
    x = previous = np.float64(1.7)
    for row in table:
        x = row[3] * x + row[4] * target + row[5] * (previous if row is not table[0] else 0)
        previous = target
    assert x == pytest.approx(target, abs=1e-9)


def test_schedule_is_that_of_diffusers():
    scheduler = DDIMScheduler(T, beta_schedule="squaredcos_cap_v2")
    np.testing.assert_allclose(ALPHA**2, scheduler.alphas_cumprod.numpy(), atol=1e-6)
    np.testing.assert_allclose(ALPHA**2 + SIGMA**2, 1)


@pytest.mark.parametrize("steps", [0, -1, T + 1, 2.5, True, "4"])
def test_steps_out_of_range_are_refused(steps):
    with pytest.raises(runtime.OptionError, match="1 to 1000"):
        trailing_timesteps(T, steps)


def test_bad_tables_are_refused():
    for name in ("heun", "", ["ddim"], None):
        with pytest.raises(runtime.OptionError, match="ddim, dpmpp_2m, euler, ddpm"):
            sampler_table(name, ALPHA, SIGMA, [5])
    for timesteps in ([5, 5], [5, 6], [1000], [3, -1], []):
        with pytest.raises(runtime.OptionError, match="decrease"):
            sampler_table("ddim", ALPHA, SIGMA, timesteps)


def test_noise_depends_on_the_seed_alone():
    first, again = draw(7, (3, 4)), draw(7, (3, 4))
    np.testing.assert_array_equal(first, again)
    assert first.dtype == np.float32
    assert np.abs(draw(8, (3, 4)) - first).max() > 0.1
    np.testing.assert_array_equal(draw(7, (3, 4), 5)[0], first[0])
    normals = draw(3, (100_000,))
    assert abs(normals.mean()) < 0.02
    assert abs(normals.std() - 1) < 0.02


def test_seeds_are_checked():
    assert seeds_of(4, 3) == [4, 4, 4]
    assert seeds_of([1, 2], 2) == [1, 2]
    with pytest.raises(runtime.OptionError, match="2 seeds for 3"):
        seeds_of([1, 2], 3)
    assert seeds_of(np.int64(3), 2) == seeds_of(np.array([3, 3]), 2) == [3, 3]
    for bad in (-1, True, 1.5, None, "7", [1.5], np.array(2.5)):
        with pytest.raises(runtime.OptionError):
            seeds_of(bad, 1)
