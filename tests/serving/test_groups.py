"""Requests whose scenes are made together: the same scenes, whoever else is in the group."""

import io

import numpy as np
import pytest
from PIL import Image

import runtime
from runtime.serving.body import Upload
from runtime.serving.groups import Groups
from runtime.serving.options import Options


@pytest.fixture(scope="module")
def rt(tiny_bundle):
    with runtime.load(tiny_bundle, threads=1) as opened:
        yield opened


@pytest.fixture
def uploads(pictures):
    made = []
    for picture in pictures:
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, "PNG")
        made.append(Upload(buffer.getvalue()))
    return made


KEEP = Options(background="keep")


def planes(groups, member):
    return groups.scene(member).triplane


def test_a_group_gives_the_scenes_of_requests_alone(rt, uploads, monkeypatch):
    expected = [rt.reconstruct(u.image, seed=n, background="keep").triplane for n, u in enumerate(uploads)]
    monkeypatch.setattr(rt.backend, "largest_group", 4, raising=False)
    groups = Groups(rt, 4)
    members = [groups.join(upload, KEEP, seed) for seed, upload in enumerate(uploads)]
    np.testing.assert_array_equal(planes(groups, members[2]), expected[2])
    assert all(member.made is not None for member in members), "the others were made along"
    for member, triplane in zip(members, expected, strict=True):
        np.testing.assert_array_equal(planes(groups, member), triplane)


def test_only_requests_with_the_same_settings_are_made_together(rt, uploads):
    groups = Groups(rt, 3)
    steps = Options(background="keep", steps=2)
    members = [groups.join(uploads[0], options, 0) for options in (KEEP, steps, KEEP, KEEP, KEEP)]
    groups.scene(members[0])
    assert [member.made is not None for member in members] == [True, False, True, True, False]


def test_a_group_of_one_leaves_the_others_waiting(rt, uploads):
    groups = Groups(rt, 1)
    first, second = groups.join(uploads[0], KEEP, 0), groups.join(uploads[1], KEEP, 0)
    groups.scene(first)
    assert second.made is None


def test_one_bad_image_is_no_matter_of_the_others(rt, uploads):
    groups = Groups(rt, 4)
    good, bad, late = (groups.join(u, KEEP, 0) for u in (uploads[0], Upload(b"no image"), uploads[1]))
    groups.scene(good)
    assert late.made is not None
    with pytest.raises(runtime.ImageError, match="no known format"):
        groups.scene(bad)


def test_who_leaves_is_not_made_and_keeps_nothing(rt, uploads):
    groups = Groups(rt, 4)
    here, gone = groups.join(uploads[0], KEEP, 0), groups.join(uploads[1], KEEP, 0)
    groups.leave(gone)
    groups.scene(here)
    assert gone.made is None
    groups.leave(here)
    assert here.made is None
