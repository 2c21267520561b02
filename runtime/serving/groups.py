"""Reconstructions of several requests at once, on devices that are faster at groups."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import WaveletTriplaneError
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
        settings: steps, sampler and background; members of a group share them.
        seed: of the noise.
        made: the scene, or why there is none; None until its group was made.
    """

    upload: Upload
    settings: tuple[int | None, str | None, str]
    seed: int
    made: Scene | WaveletTriplaneError | None = None


class Groups:
    """Makes the scene of a request together with those of requests that wait behind it.

    `join` and `leave` belong to the thread of the server's event loop, `scene` to the one thread that works.

    Args:
        rt: the runtime.
        most: members of a group; 1 makes each scene by itself.
    """

    def __init__(self, rt: Runtime, most: int) -> None:
        self._rt, self._most = rt, most
        # Single operations on a dict are safe between the two threads.
        self._waiting: dict[Member, None] = {}

    def join(self, upload: Upload, options: Options, seed: int) -> Member:
        """Lets a request wait for its turn, or for that of another one with the same settings."""
        member = Member(upload, (options.steps, options.sampler, options.background), seed)
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
        if made is None:
            others = [m for m in list(self._waiting) if m is not member and m.settings == member.settings]
            made = self._make([member, *others[: self._most - 1]])
        if isinstance(made, WaveletTriplaneError):
            raise made
        return made

    def _make(self, group: list[Member]) -> Scene | WaveletTriplaneError:
        """Makes the scenes of a group, and returns the first member's: that one may have left by now."""
        for member in group:
            self._waiting.pop(member, None)
        steps, sampler, background = group[0].settings
        images, masks = [m.upload.image for m in group], [m.upload.mask for m in group]
        made: list[Scene | WaveletTriplaneError]
        try:
            made = [*self._rt.reconstruct(images, steps, [m.seed for m in group], sampler, background, masks)]
            metrics.GROUPS.observe(len(group))
        except WaveletTriplaneError as error:
            if len(group) > 1:  # One bad image is no matter of the others.
                first, *_ = [self._make([member]) for member in group]
                return first
            made = [error]
        for member, each in zip(group, made, strict=True):
            member.made = each
        return made[0]
