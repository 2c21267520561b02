"""Reconstructions of several requests at once, on devices that are faster at groups."""

from __future__ import annotations

from dataclasses import dataclass

from ..pipeline import Runtime
from ..scene import Scene
from . import metrics
from .body import Upload
from .options import Options


@dataclass(eq=False)
class Member:
    """A request that wants a scene.

    Attributes:
        upload: its image, and perhaps a mask.
        settings: steps, sampler, background and silhouette; members of a group share them.
        seed: of the noise.
        made: the scene, once its group was made and until the request is answered.
    """

    upload: Upload
    settings: tuple[int | None, str | None, str, bool]
    seed: int
    made: Scene | None = None


class Groups:
    """Makes the scene of a request together with those of requests that wait behind it.

    A group is full, or has one member: a device prepares itself for each size anew. `join` and `leave` belong to the
    thread of the server's event loop, `scene` to the one thread that works.

    Args:
        rt: the runtime.
        size: of a full group; 1 makes each scene by itself.
    """

    def __init__(self, rt: Runtime, size: int) -> None:
        self._rt, self._size = rt, size
        # Single operations on a dict are safe between the two threads.
        self._waiting: dict[Member, None] = {}

    def join(self, upload: Upload, options: Options, seed: int) -> Member:
        """Lets a request wait for its turn, or for that of another one with the same settings."""
        member = Member(upload, (options.steps, options.sampler, options.background, options.silhouette), seed)
        self._waiting[member] = None
        return member

    def leave(self, member: Member) -> None:
        """Forgets a request that was answered or is wanted no more."""
        self._waiting.pop(member, None)
        member.made = None

    def scene(self, member: Member) -> Scene:
        """The scene of a member whose turn has come.

        Raises:
            WaveletTriplaneError: its image cannot be used, whatever the others' are.
        """
        made = member.made
        # Who does not wait any more was in a group that failed, and is made alone.
        if made is None and member in self._waiting:
            same = [m for m in list(self._waiting) if m is not member and m.settings == member.settings]
            made = self._first_of([member, *same[: self._size - 1]])
        if made is None:
            self._waiting.pop(member, None)
            (made,) = self._made([member])
        return made

    def _first_of(self, group: list[Member]) -> Scene | None:
        """Makes a full group, and returns the first member's scene: that one may have left by now. Else None."""
        if len(group) < max(2, self._size):
            return None
        for member in group:
            self._waiting.pop(member, None)
        try:
            scenes = self._made(group)
        except Exception:  # Of one image, or of all together: each is tried alone, and fails alone.
            return None
        for member, scene in zip(group, scenes, strict=True):
            member.made = scene
        return scenes[0]

    def _made(self, group: list[Member]) -> list[Scene]:
        steps, sampler, background, silhouette = group[0].settings
        images, masks = [m.upload.image for m in group], [m.upload.mask for m in group]
        scenes = self._rt.reconstruct(images, steps, [m.seed for m in group], sampler, background, masks, silhouette)
        metrics.GROUPS.observe(len(group))
        return scenes
