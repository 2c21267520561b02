"""The model's signatures, shapes, sizes and gradients; the checkpoint."""

import numpy as np
import pytest
import torch

from model import PRESETS, ModelConfig, WaveletTriplaneDiffusion
from model.checkpoint import CheckpointError
from runtime import Camera


def test_the_specification_imports_work_as_written():
    import wavelet_triplane_diffusion as seed

    for name in ("WaveletTransform", "CoarseTriplaneGen", "DetailDiffusion", "TriplaneRenderer"):
        assert hasattr(seed, name)
    assert seed.WaveletTriplaneDiffusion is WaveletTriplaneDiffusion


@pytest.mark.parametrize(("preset", "millions"), [("small", 5), ("medium", 15), ("large", 60)])
def test_presets_have_the_promised_size(preset, millions):
    with torch.device("meta"):
        model = WaveletTriplaneDiffusion.from_config(PRESETS[preset])
    count = sum(p.numel() for p in model.parameters())
    assert abs(count / 1e6 - millions) <= 0.25 * millions


def test_the_stages_have_the_specified_signatures_and_shapes():
    from wavelet_triplane_diffusion import CoarseTriplaneGen, DetailDiffusion, TriplaneRenderer

    with torch.no_grad():
        ll = CoarseTriplaneGen(input_channels=3, triplane_channels=16, resolution=64)(torch.randn(2, 3, 256, 256))
        assert ll.shape == (2, 3, 16, 64, 64)
        diffusion = DetailDiffusion(triplane_channels=16, time_embed_dim=128)
        predicted = diffusion(torch.randn(2, 48, 64, 64), torch.randint(0, 1000, (2,)), ll[:, 0])
        assert predicted.shape == (2, 48, 64, 64)
        renderer = TriplaneRenderer(triplane_channels=16, hidden_dim=128)
        rgb, density = renderer(torch.randn(2, 3, 16, 128, 128), torch.rand(2, 7, 3) * 2 - 1)
        assert rgb.shape == (2, 7, 3)
        assert density.shape == (2, 7, 1)
        assert rgb.min() >= 0
        assert rgb.max() <= 1
        assert density.min() > 0
        assert renderer.render_volume(torch.randn(2, 3, 16, 128, 128), num_samples=4, image_size=9).shape == (
            2,
            3,
            9,
            9,
        )


@pytest.mark.parametrize("batch", [1, 3])
def test_the_full_pass_has_the_specified_outputs(tiny_model, batch):
    images = torch.randn(batch, 3, 64, 64)
    with torch.no_grad():
        outputs = tiny_model(images, return_intermediate=True, steps=2)
        alone = tiny_model(images, steps=2)
    assert {name: tuple(value.shape) for name, value in outputs.items()} == {
        "input_images": (batch, 3, 64, 64),
        "triplane_LL": (batch, 3, 8, 16, 16),
        "triplane_details": (batch, 3, 24, 16, 16),
        "triplane_highres": (batch, 3, 8, 32, 32),
        "rendered_image": (batch, 3, 64, 64),
    }
    assert list(alone) == ["rendered_image"]
    torch.testing.assert_close(alone["rendered_image"], outputs["rendered_image"])


def test_highres_is_the_inverse_transform_of_its_bands(tiny_model):
    with torch.no_grad():
        outputs = tiny_model(torch.randn(2, 3, 64, 64), return_intermediate=True)
    for plane in range(3):
        bands = outputs["triplane_details"][:, plane].chunk(3, dim=1)
        expected = tiny_model.wavelet.idwt2d(outputs["triplane_LL"][:, plane], *bands)
        torch.testing.assert_close(outputs["triplane_highres"][:, plane], expected)


def test_details_change_with_the_seed_and_with_the_picture(tiny_model):
    images = torch.randn(2, 3, 64, 64)

    def details(images, seed):
        with torch.no_grad():
            return tiny_model(images, True, seed=seed)["triplane_details"]

    torch.testing.assert_close(details(images, 3), details(images, 3), rtol=0, atol=0)
    assert (details(images, 3) - details(images, 4)).abs().max() > 0.01
    assert (details(images[:1], 3) - details(images[1:], 3)).abs().max() > 0.01


def test_gradients_reach_every_parameter():
    torch.manual_seed(0)
    model = WaveletTriplaneDiffusion(8, resolution=16)
    model.train()
    model(torch.randn(2, 3, 64, 64), return_intermediate=True)["rendered_image"].mean().backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None or p.grad.abs().max() == 0]
    assert silent == []


def test_the_picture_informs_every_plane(tiny_model):
    picture = torch.zeros(1, 3, 64, 64)
    with torch.no_grad():
        base = tiny_model.coarse_gen(picture)
        picture[..., 20:30, 40:50] = 1
        change = (tiny_model.coarse_gen(picture) - base).abs().amax(dim=(0, 2, 3, 4))
    assert (change > 1e-3).all()


def test_a_lifted_feature_lands_where_the_camera_saw_it():
    from model.lift import Lift

    lift = Lift(1, 32, resolution=32, depths=32, channels_per_depth=1)
    torch.nn.init.ones_(lift.reduce.weight)
    torch.nn.init.zeros_(lift.reduce.bias)
    lift.join.weight.data = torch.eye(32)[..., None, None]
    torch.nn.init.zeros_(lift.join.bias)
    point = np.array([0.4, -0.2, 0.3])
    x, y = (Camera.orbit().project(point) + 1) / 2 * 64
    picture = torch.zeros(1, 1, 64, 64)
    picture[0, 0, int(y) - 1 : int(y) + 2, int(x) - 1 : int(x) + 2] = 1
    planes = lift(picture).detach()
    for plane, (column, row) in enumerate([(point[0], -point[1]), (point[0], point[2]), (point[2], -point[1])]):
        texel = int((row + 1) * 16), int((column + 1) * 16)
        assert planes[plane, :, texel[0], texel[1]].max() > 0.3
    # The far left of the cube shows on the left of the picture only.
    assert planes[:2, :, :, 2].abs().max() == 0


def test_wrong_pictures_are_refused_with_the_allowed_shape(tiny_model):
    with pytest.raises(ValueError, match=r"\(B, 3, 64, 64\), not \(1, 3, 32, 64\)"):
        tiny_model(torch.zeros(1, 3, 32, 64))


@pytest.mark.parametrize(
    "bad", [{"resolution": 20}, {"triplane_channels": 0}, {"num_diffusion_steps": 1}, {"hidden_dim": -1}]
)
def test_impossible_configurations_are_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        ModelConfig(**bad)


def test_checkpoints_round_trip(tiny_model, tmp_path):
    path = tmp_path / "deep" / "tiny.safetensors"
    tiny_model.save(path)
    again = WaveletTriplaneDiffusion.load(path)
    assert again.config == tiny_model.config
    assert not again.training
    for name, value in tiny_model.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], value, rtol=0, atol=0)
    assert [p.name for p in path.parent.iterdir()] == ["tiny.safetensors"]
    assert again.notes == {"trained": False}
    again.notes["objects"] = 3
    again.save(path, trained=True)
    assert WaveletTriplaneDiffusion.load(path).notes == {"trained": True, "objects": 3}


def test_what_is_no_checkpoint_is_refused(tiny_model, tmp_path):
    path = tmp_path / "bad.safetensors"
    with pytest.raises(CheckpointError, match="cannot be read"):
        WaveletTriplaneDiffusion.load(path)
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(CheckpointError, match="cannot be read"):
        WaveletTriplaneDiffusion.load(path)
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match="no checkpoint of format"):
        WaveletTriplaneDiffusion.load(path)
