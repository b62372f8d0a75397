"""The two models of the digits example: trained once, kept on disk, measured on images they never saw.

Nothing here knows about serving. Libraries are imported where they are used; `digits_images` says why.
"""

import fcntl
import os
import pickle
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from examples.digits_images import Array, Digits, bundled_digits


@dataclass(frozen=True)
class Model:
    """A trained classifier: rows of 64 pixels in; for each, the probabilities of the ten digits out."""

    library: str
    probabilities: Callable[[Array], Array]

    def accuracy(self, digits: Digits) -> float:
        """Return the share of *digits* that the model recognises."""
        guesses = self.probabilities(digits.images).argmax(axis=1)
        return float((guesses == digits.labels).mean())


def sklearn_model() -> Model:
    """Return a support vector machine, calibrated so that its confidence is a probability."""
    import numpy
    import sklearn

    name = f"sklearn-{sklearn.__version__}-numpy-{numpy.__version__}.pickle"
    classifier = pickle.loads(trained_once(name, _train_sklearn).read_bytes())
    return Model(f"scikit-learn {sklearn.__version__}", classifier.predict_proba)


def _train_sklearn(path: Path) -> None:
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.svm import SVC

    seen, _ = bundled_digits()
    classifier = CalibratedClassifierCV(SVC(C=10), ensemble=False).fit(seen.images, seen.labels)
    path.write_bytes(pickle.dumps(classifier))


def cnn_model() -> Model:
    """Return a small convolutional network, loaded as an exported program: graph and weights, no code."""
    import torch

    torch.set_num_threads(1)  # a deployment grows by replicas; threads of one would take the others' cores
    path = trained_once(f"torch-{torch.__version__}.pt2", _train_cnn)
    network = torch.export.load(path).module()

    def probabilities(images: Array) -> Array:
        with torch.inference_mode():
            return network(torch.tensor(images)).numpy()

    return Model(f"PyTorch {torch.__version__}", probabilities)


def _train_cnn(path: Path) -> None:
    import torch
    from torch import nn

    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        *(nn.Conv2d(1, 16, kernel_size=3, padding=1), nn.ReLU()),
        *(nn.Conv2d(16, 32, kernel_size=3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Dropout(0.25), nn.Linear(32 * 4 * 4, 10)),
    )
    optimizer = torch.optim.Adam(network.parameters(), lr=0.005)
    seen, _ = bundled_digits()
    images, labels = torch.tensor(seen.images), torch.tensor(seen.labels)
    for _epoch in range(10):
        for chosen in torch.randperm(len(images)).split(32):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(images[chosen]), labels[chosen]).backward()
            optimizer.step()
    classifier = nn.Sequential(network, nn.Softmax(dim=1)).eval()
    any_number_of_rows = ({0: torch.export.Dim("rows")},)
    program = torch.export.export(classifier, (images[:2],), dynamic_shapes=any_number_of_rows)
    torch.export.save(program, path)


def trained_once(name: str, train: Callable[[Path], None]) -> Path:
    """Return the cached file called *name*, written by *train* if it is missing.

    Replicas that start together train once: the others wait for the first. A checksum of this module is in
    the file's name, so a model that you change here is trained anew.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "salver-examples"
    cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = cache / f"digits-{zlib.crc32(Path(__file__).read_bytes()):08x}-{name}"
    with path.with_name(f"{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the kernel lets go when the file closes or the process dies
        if not path.exists():
            unfinished = path.with_name(f"unfinished-{path.name}")
            train(unfinished)
            unfinished.replace(path)
    return path
