"""The images of the digits example: those that come with scikit-learn, and those that a client posts.

An image has 8 x 8 pixels from 0 (paper) to 16 (ink); models get it as a row of 64 numbers from 0 to 1.

This module imports its libraries where it uses them. Salver forks replicas from a process that has imported
the application, which is safe while that process has a single thread, and importing numpy starts more.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias

Array: TypeAlias = Any  # a numpy array

MAX_IMAGES = 1000


@dataclass(frozen=True)
class Digits:
    """Images as rows of 64 numbers, and the digit that each of them shows."""

    images: Array
    labels: Array

    def sample(self, index: int) -> dict[str, Any]:
        """Return one image in the form that a client posts, with its label."""
        if not 0 <= index < len(self.labels):
            raise ValueError(f"index goes from 0 to {len(self.labels) - 1}")
        pixels = (self.images[index] * 16).astype(int).reshape(8, 8)
        return {"image": pixels.tolist(), "label": int(self.labels[index])}


@cache
def bundled_digits() -> tuple[Digits, Digits]:
    """Return the digits to train on and the held-out quarter; the split is the same in every process."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    pixels, labels = load_digits(return_X_y=True)
    images = (pixels / 16).astype("float32")
    seen, held_out, seen_labels, held_out_labels = train_test_split(
        images, labels, test_size=0.25, stratify=labels, random_state=0
    )
    return Digits(seen, seen_labels), Digits(held_out, held_out_labels)


def posted_images(payload: Any) -> Array:
    """Return the images of a request's JSON, one a row.

    Raises:
        ValueError: The payload is not what it should be; the message is written for the client.
    """
    import numpy

    match payload:
        case {"image": image, **rest} if "images" not in rest:
            return numpy.stack([_row(image, "image")])
        case {"images": [_, *_] as images, **rest} if "image" not in rest and len(images) <= MAX_IMAGES:
            return numpy.stack([_row(image, f"images[{index}]") for index, image in enumerate(images)])
        case _:
            raise ValueError(f'post {{"image": ...}}, or {{"images": [...]}} with 1 to {MAX_IMAGES} of them')


def _row(image: Any, name: str) -> Array:
    import numpy

    expected = "expected 8 rows of 8 numbers, or one list of 64"
    try:
        pixels = numpy.asarray(image)
    except ValueError as error:
        raise ValueError(f"{name} has rows of unequal length; {expected}") from error
    if pixels.shape not in {(8, 8), (64,)}:
        raise ValueError(f"{name} has shape {list(pixels.shape)}; {expected}")
    if pixels.dtype.kind not in "iuf":
        raise ValueError(f"{name} holds something other than plain numbers")
    if not ((pixels >= 0) & (pixels <= 16)).all():
        raise ValueError(f"{name} has a pixel outside the range from 0 (paper) to 16 (ink)")
    return pixels.reshape(64).astype("float32") / 16
