"""The runtime behind a Gradio page: `pip install '.[cpu,mesh]' gradio`, then `python examples/gradio_app.py`.

`wavelet-triplane serve` has a page of its own that needs no Gradio; this is for those who know it, and for Spaces.
"""

from __future__ import annotations

import secrets
import tempfile
import time
from pathlib import Path

import gradio as gr
import numpy as np
from numpy.typing import NDArray
from PIL import Image

import runtime

EXAMPLES, FOLDER = Path(__file__).parent, tempfile.TemporaryDirectory()
rt = runtime.load()


def reconstruct(
    image: Image.Image | None, background: str, seed: float, steps: float
) -> tuple[NDArray[np.uint8], list[NDArray[np.uint8]], str]:
    """Returns what the model was given, four views, and the path of a GLB file."""
    if image is None:
        raise gr.Error("First give a picture.")
    try:
        scene = rt.reconstruct(image, int(steps), int(seed), background=background, silhouette=True)
        mesh = scene.mesh(projected=True, faces=20_000, texture=1024)
    except runtime.WaveletTriplaneError as error:
        raise gr.Error(str(error)) from None
    assert scene.source is not None
    views = [view.to_uint8() for view in scene.orbit(4, image_size=256, projected=True)]
    # Gradio copies what it sends: older ones have been.
    for sent in Path(FOLDER.name).iterdir():
        if time.time() - sent.stat().st_mtime > 600:
            sent.unlink(missing_ok=True)
    path = Path(FOLDER.name) / f"{secrets.token_hex(8)}.glb"
    mesh.save(path)
    return scene.source.to_uint8(), views, str(path)


# Gradio deletes its copies after an hour or two.
with gr.Blocks(title="Image to 3-D", analytics_enabled=False, delete_cache=(3600, 3600)) as demo:
    gr.Markdown("# Image to 3-D\nA picture of one object in, a textured mesh out.")
    with gr.Row():
        with gr.Column():
            image = gr.Image(type="pil", image_mode="RGBA", label="Picture")
            background = gr.Radio(["auto", "plain", "keep"], value="auto", label="Background")
            seed = gr.Number(0, label="Seed", precision=0, minimum=0)
            steps = gr.Slider(1, 20, rt.bundle.default_steps, step=1, label="Steps")
            button = gr.Button("Reconstruct", variant="primary")
        with gr.Column():
            mesh = gr.Model3D(label="Object")
            views = gr.Gallery(label="Views", columns=4, height=160)
            given = gr.Image(label="What the model sees", height=160)
    gr.Examples([[str(EXAMPLES / f"{name}.png")] for name in ("chair", "mug", "car", "lamp")], [image])
    # One at a time: the runtime uses all cores for one picture.
    button.click(
        reconstruct, [image, background, seed, steps], [given, views, mesh], api_name="reconstruct", concurrency_limit=1
    )

if __name__ == "__main__":
    demo.launch(server_name="127.0.0.1")
