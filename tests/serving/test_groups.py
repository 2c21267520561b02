"""Requests whose scenes are made together: each gets its own, whoever else is in the group."""

import gc
import io
import weakref

import numpy as np
import pytest
from PIL import Image

import runtime
from runtime.serving.app import Service
from runtime.serving.body import Upload
from runtime.serving.groups import Groups
from runtime.serving.options import Limits, Options

KEEP = Options(background="keep", size=16, samples=4)


@pytest.fixture(scope="module")
def rt(tiny_bundle):
    with runtime.load(tiny_bundle, threads=1) as opened:
        yield opened


@pytest.fixture
def uploads(pictures):
    made = []
    for picture in pictures:
        buffer = io.BytesIO()
        alpha = 255 * (np.hypot(*np.indices(picture.shape[:2]) - len(picture) // 2) < len(picture) / 3)
        Image.fromarray(np.dstack([picture, alpha]).astype(np.uint8)).save(buffer, "PNG")
        made.append(Upload(buffer.getvalue()))
    return made


def test_a_group_gives_each_request_its_own_scene(rt, uploads):
    expected = [rt.reconstruct(u.image, seed=n, background="keep").triplane for n, u in enumerate(uploads)]
    groups = Groups(rt, 4)
    members = [groups.join(upload, KEEP, seed) for seed, upload in enumerate(uploads)]
    np.testing.assert_array_equal(groups.scene(members[2]).triplane, expected[2])
    assert all(member.made is not None for member in members), "the others were made along"
    for member, triplane in zip(members, expected, strict=True):
        np.testing.assert_array_equal(groups.scene(member).triplane, triplane)


def test_a_service_answers_each_of_a_group(rt, uploads, monkeypatch):
    monkeypatch.setattr(rt.backend, "largest_group", 4, raising=False)
    service = Service(rt, Limits())
    members = [service.groups.join(upload, KEEP, seed) for seed, upload in enumerate(uploads)]
    answers = [service.reconstruct(member, KEEP, lambda: False) for member in members]
    assert all(member.made is not None for member in members)
    monkeypatch.undo()
    for seed, (upload, (name, content, headers)) in enumerate(zip(uploads, answers, strict=True)):
        assert (name, headers["X-Seed"]) == ("object.png", str(seed))
        camera = runtime.Camera.orbit(KEEP.azimuth, KEEP.elevation)
        frame = rt.reconstruct(upload.image, seed=seed, background="keep", silhouette=True).render(
            camera, 16, 4, projected=True
        )
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(content)).convert("RGB")), frame.to_uint8())


def test_only_full_groups_of_the_same_settings_are_made_together(rt, uploads):
    groups = Groups(rt, 3)
    steps, bare = Options(background="keep", steps=2), Options(background="keep", silhouette=False)
    members = [groups.join(uploads[0], options, 0) for options in (KEEP, steps, bare, KEEP, KEEP, KEEP)]
    groups.scene(members[0])
    assert [member.made is not None for member in members] == [True, False, False, True, True, False]
    groups.scene(members[5])
    assert members[1].made is None, "one that waits is not enough"


def test_one_bad_image_is_no_matter_of_the_others(rt, uploads):
    groups = Groups(rt, 3)
    good, bad, late = (groups.join(u, KEEP, 0) for u in (uploads[0], Upload(b"no image"), uploads[1]))
    assert groups.scene(good).triplane.shape == groups.scene(late).triplane.shape
    with pytest.raises(runtime.ImageError, match=r"^The 8 bytes given cannot be read.*no known format"):
        groups.scene(bad)


def test_memory_that_a_group_lacks_may_be_enough_for_one(rt, uploads, monkeypatch):
    original = rt.reconstruct

    def reconstruct(images, *arguments):
        if len(images) > 1:
            raise MemoryError
        return original(images, *arguments)

    monkeypatch.setattr(rt, "reconstruct", reconstruct)
    groups = Groups(rt, 2)
    members = [groups.join(upload, KEEP, 0) for upload in uploads[:2]]
    assert all(groups.scene(member).triplane.ndim == 4 for member in members)


def test_who_leaves_keeps_nothing(rt, uploads, monkeypatch):
    groups = Groups(rt, 2)
    here, gone = (groups.join(upload, KEEP, 0) for upload in uploads[:2])
    groups.leave(gone)
    groups.scene(here)
    assert gone.made is None
    first, second = (groups.join(upload, KEEP, 0) for upload in uploads[:2])
    original = rt.reconstruct

    def reconstruct(*arguments):
        scenes = original(*arguments)
        groups.leave(first)
        return scenes

    monkeypatch.setattr(rt, "reconstruct", reconstruct)
    assert groups.scene(first).triplane.ndim == 4, "it left while its group was made"
    assert second.made is not None


def test_a_refused_image_is_not_kept(rt):
    groups = Groups(rt, 1)
    member = groups.join(Upload(b"no image"), KEEP, 0)
    watched = weakref.ref(member)
    gc.disable()
    try:
        with pytest.raises(runtime.ImageError) as caught:
            groups.scene(member)
        groups.leave(member)
        del caught, member
        assert watched() is None
    finally:
        gc.enable()
