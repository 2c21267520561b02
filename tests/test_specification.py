"""The specification's own code blocks, run one after another as they stand: SPECIFICATION names its Markdown file.

What the blocks leave open (data, a criterion, an epoch) gets small stand-ins. Names that a block needs and the block
before has changed to another size are made anew.
"""

import os
import re
from pathlib import Path

import pytest
import torch

import wavelet_triplane_diffusion
from wavelet_triplane_diffusion import Targets, WaveletTriplaneDiffusion, rendering_loss

SPECIFICATION = os.environ.get("SPECIFICATION")


@pytest.mark.slow
@pytest.mark.skipif(SPECIFICATION is None, reason="SPECIFICATION names no file")
def test_every_python_block_runs():
    text = Path(SPECIFICATION).read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) > 20
    torch.manual_seed(0)
    names = {
        **vars(wavelet_triplane_diffusion),
        "torch": torch,
        "B": 1,
        "C": 32,
        "N": 5,
        "plane_idx": 0,
        "train_epoch": lambda *_: None,
    }
    ran = 0
    for block in blocks:
        # Blocks are of the default size, but for those that say another.
        if "model" not in names or names["model"].config.triplane_channels != 32:
            model = names["model"] = WaveletTriplaneDiffusion(triplane_channels=32)
            images = names["images"] = torch.rand(1, 3, 256, 256) * 2 - 1
            with torch.no_grad():
                outputs = model(images, return_intermediate=True)
            names["triplane"] = names["triplane_highres"] = outputs["triplane_highres"]
            names["triplane_LL"], names["triplane_details"] = outputs["triplane_LL"], outputs["triplane_details"]
            targets = Targets(torch.randn(1, 3, 32, 128, 128), torch.rand(1, 3, 64, 64))
            names["dataloader"], names["targets"] = [(images, targets)], targets
            names["criterion"] = lambda outputs, wanted: rendering_loss(outputs["rendered_image"], wanted)
        names.setdefault("x", torch.randn(1, 32, 128, 128))
        names["optimizer"] = names.get("optimizer") or torch.optim.Adam(names["model"].parameters(), lr=1e-5)
        if "dwt2d(x)" in block and "x =" not in block:
            names["x"] = torch.randn(1, 32, 128, 128)
        if "idwt2d(LL, LH, HL, HH)" in block and "LL, LH" not in block.split("idwt2d")[0]:
            names["LL"] = torch.randn(1, 32, 64, 64)
        exec(compile(block, f"block {ran}", "exec"), names)
        ran += 1
    assert ran == len(blocks)
    outputs = names["outputs"]
    assert tuple(outputs["rendered_image"].shape) == (1, 3, 64, 64)
