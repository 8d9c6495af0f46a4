"""A path in a bucket: what `pathlib.Path` is for a folder, as far as a store needs it."""

from __future__ import annotations

from storage.objects.bucket import BucketObjects

__all__ = ["BucketPath"]


class BucketPath:
    """An object of a bucket, or the prefix of several, by its name below a location.

    It is not `os.PathLike`: what would open it as a file of this machine fails.

    Attributes:
        objects: The objects at the location.
        key: Name below it; empty: the location itself.
    """

    __slots__ = ("key", "objects")

    def __init__(self, objects: BucketObjects, key: str = "") -> None:
        """Name an object; nothing is asked of the bucket."""
        self.objects = objects
        self.key = key

    def __truediv__(self, name: str) -> BucketPath:
        return BucketPath(self.objects, f"{self.key}/{name}" if self.key else name)

    @property
    def name(self) -> str:
        """The last part of the name."""
        return self.key.rpartition("/")[2]

    @property
    def stem(self) -> str:
        """The last part of the name without its suffix."""
        return self.name.rpartition(".")[0] or self.name

    @property
    def parent(self) -> BucketPath:
        """The prefix that this object is below."""
        return BucketPath(self.objects, self.key.rpartition("/")[0])

    def __str__(self) -> str:
        return f"{self.objects.shown}/{self.key}" if self.key else self.objects.shown

    def __repr__(self) -> str:
        return f"BucketPath({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BucketPath) and (self.objects.address, self.key) == (
            other.objects.address,
            other.key,
        )

    def __hash__(self) -> int:
        return hash((self.objects.address.shown, self.key))

    def __lt__(self, other: BucketPath) -> bool:
        return str(self) < str(other)

    def __reduce__(self) -> tuple[type[BucketPath], tuple[BucketObjects, str]]:
        return type(self), (self.objects, self.key)
