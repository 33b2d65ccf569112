"""The reference searches R1 to R3 as their users would write them: data, model and its space.

Written with care and without this project: ``tf.data`` with cache and prefetch, Keras layers for
augmentation, one ``compile`` and ``fit`` a trial. The two peers differ in who proposes and tracks.
``hp`` has keras-tuner's API; ``optuna_mlflow.py`` gives it an Optuna trial in that shape.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

BATCH = 32
VALIDATION = ("14134", "3411", "12465", "11031", "13413", "16196")
DEMO_FOLDS = 3


@dataclass(frozen=True)
class Search:
    """One reference search.

    Attributes:
        trials: How many.
        epochs: Of a trial.
        size: Height and width in px.
        backbones: To choose from; empty for a CNN from scratch.
        head_epochs: In how many of the epochs the head learns alone, before the last third of the
            backbone does too; all of them where the backbone stays frozen.
    """

    trials: int
    epochs: int
    size: tuple[int, int]
    backbones: tuple[str, ...]
    head_epochs: int

    @property
    def fine_tunes(self) -> bool:
        """Whether the last third of the backbone learns in the end."""
        return bool(self.backbones) and self.head_epochs < self.epochs


SEARCHES = {
    "r1": Search(64, 12, (160, 240), ("mobilenet", "densenet121"), head_epochs=12),
    "r2": Search(16, 6, (160, 240), ("mobilenet",), head_epochs=3),
    "r3": Search(16, 8, (96, 144), (), head_epochs=8),
}


def use_backbone(name: str, backbone: str | None) -> None:
    """Let a search try one of its backbones alone, to time each."""
    if backbone is not None:
        SEARCHES[name] = replace(SEARCHES[name], backbones=(backbone,))


@dataclass
class Fold:
    """Images as they are on the disk and their classes, for training and for validation."""

    train: tuple[list[str], np.ndarray]
    validation: tuple[list[str], np.ndarray]
    classes: int


def read_folds(name: str, data: Path) -> list[Fold]:
    """Return the one fold of R1 and R2 (named patients), or the three by patient of R3."""
    files = sorted(str(f) for f in data.rglob("SOB_*.png"))
    if name != "r3":
        files = [f for f in files if Path(f).stem.split("-")[3] == "100"]
    accessions = [_accession(f) for f in files]
    kinds = sorted({Path(f).stem.split("-")[0] for f in files})
    if name == "r3":
        y = np.array([kinds.index(Path(f).stem.split("-")[0]) for f in files])
        patients = sorted(set(accessions))
        rng = np.random.default_rng(0)
        turn = {p: i % DEMO_FOLDS for i, p in enumerate(rng.permutation(patients))}
        held = [np.array([turn[a] == k for a in accessions]) for k in range(DEMO_FOLDS)]
    else:
        y = np.array([int("_M_" in Path(f).name) for f in files])
        held = [np.array([a in VALIDATION for a in accessions])]
    names = np.array(files)
    return [
        Fold((list(names[~h]), y[~h]), (list(names[h]), y[h]), len(kinds) if name == "r3" else 2)
        for h in held
    ]


def _accession(file: str) -> str:
    slide = Path(file).stem.split("-")[2]
    return "".join(c for c in slide if c.isdigit())


def _dataset(files: list[str], y: np.ndarray, size: tuple[int, int]) -> tf.data.Dataset:
    def decode(path: Any, label: Any) -> Any:
        image = tf.io.decode_png(tf.io.read_file(path), channels=3)
        return tf.cast(tf.image.resize(image, size, antialias=True), tf.uint8), label

    pairs = tf.data.Dataset.from_tensor_slices((files, y))
    return pairs.map(decode, num_parallel_calls=tf.data.AUTOTUNE).cache()


class Pipelines:
    """Decoded images of every fold, cached once for all trials of the process."""

    def __init__(self, name: str, data: Path) -> None:
        self.folds = read_folds(name, data)
        size = SEARCHES[name].size
        self._train = [_dataset(*f.train, size) for f in self.folds]
        self._validation = [
            _dataset(*f.validation, size).batch(BATCH).prefetch(tf.data.AUTOTUNE)
            for f in self.folds
        ]

    def training(self, fold: int, sampling: str) -> tuple[tf.data.Dataset, dict[int, float] | None]:
        """Return the training batches of a fold and its class weights."""
        y = self.folds[fold].train[1]
        counts = np.bincount(y)
        weights = None
        images = self._train[fold]
        if sampling == "oversample":
            parts = [
                images.filter(lambda _, label, c=c: tf.equal(label, c)).repeat()
                for c in np.flatnonzero(counts)
            ]
            images = tf.data.Dataset.sample_from_datasets(parts, seed=0).take(len(y))
        elif sampling == "class_weights":
            weights = {
                c: len(y) / (np.count_nonzero(counts) * n) for c, n in enumerate(counts) if n
            }
        shuffled = images.shuffle(len(y), seed=0)
        return shuffled.batch(BATCH).prefetch(tf.data.AUTOTUNE), weights

    def validation(self, fold: int) -> tuple[tf.data.Dataset, np.ndarray]:
        """Return the validation batches of a fold and their classes."""
        return self._validation[fold], self.folds[fold].validation[1]


def build(hp: Any, name: str, classes: int, weights_dir: Path) -> keras.Model:
    """Return a compiled model with the values that ``hp`` proposes."""
    search = SEARCHES[name]
    strength = hp.Float("augmentation", 0.0, 1.0)
    image = keras.Input((*search.size, 3))
    x = keras.layers.RandomFlip()(image)
    x = keras.layers.RandomRotation(0.125 * strength)(x)
    x = keras.layers.RandomContrast(0.4 * strength)(x)
    features = _backbone(x, hp, search, weights_dir) if search.backbones else _small_cnn(x)
    if search.backbones and (units := hp.Choice("units", [0, 128])):
        features = keras.layers.Dense(units, activation="relu")(features)
    features = keras.layers.Dropout(hp.Float("dropout", 0.0, 0.6))(features)
    model = keras.Model(image, keras.layers.Dense(classes, activation="softmax")(features))
    _compile(model, hp.Float("rate", 1e-4, 1e-2, sampling="log"))
    return model


def _compile(model: keras.Model, rate: float) -> None:
    model.compile(
        keras.optimizers.AdamW(rate, weight_decay=1e-4),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )


def unfreeze(model: keras.Model, hp: Any) -> None:
    """Let the last third of the backbone learn too, at a rate of its own (Keras' guide)."""
    [network] = [layer for layer in model.layers if isinstance(layer, keras.Model)]
    network.trainable = True
    frozen = network.layers[: 2 * len(network.layers) // 3]
    for layer in network.layers:
        norm = isinstance(layer, keras.layers.BatchNormalization)
        layer.trainable = layer not in frozen and not norm
    _compile(model, hp.Float("backbone_rate", 1e-6, 3e-4, sampling="log"))


def _backbone(x: Any, hp: Any, search: Search, weights_dir: Path) -> Any:
    name = hp.Choice("backbone", list(search.backbones))
    file = next(weights_dir.glob(f"{name}*.h5"))
    if name == "mobilenet":
        x = keras.layers.Rescaling(1 / 127.5, offset=-1.0)(x)
        network = keras.applications.MobileNet(
            include_top=False, weights=str(file), input_shape=(*search.size, 3)
        )
    else:
        x = keras.layers.Rescaling(1 / 255)(x)
        x = keras.layers.Normalization(
            mean=[0.485, 0.456, 0.406], variance=[0.229**2, 0.224**2, 0.225**2]
        )(x)
        network = keras.applications.DenseNet121(
            include_top=False, weights=str(file), input_shape=(*search.size, 3)
        )
    network.trainable = False
    return keras.layers.GlobalAveragePooling2D()(network(x, training=False))


def _small_cnn(x: Any) -> Any:
    x = keras.layers.Rescaling(1 / 127.5, offset=-1.0)(x)
    for filters in (16, 32, 64, 128):
        x = keras.layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
        x = keras.layers.BatchNormalization(momentum=0.9)(x)
        x = keras.layers.ReLU()(x)
        x = keras.layers.MaxPooling2D()(x)
    return keras.layers.GlobalAveragePooling2D()(x)


def score(name: str, y: np.ndarray, probabilities: np.ndarray) -> float:
    """Return AUROC (R1, R2) or balanced accuracy (R3)."""
    if name == "r3":
        return float(balanced_accuracy_score(y, probabilities.argmax(axis=1)))
    return float(roc_auc_score(y, probabilities[:, 1]))


class BestScore(keras.callbacks.Callback):
    """The best validation score of all epochs, and the answers it was reached with."""

    def __init__(self, name: str, batches: tf.data.Dataset, y: np.ndarray) -> None:
        super().__init__()
        self._name, self._batches, self._y = name, batches, y
        self.value, self.probabilities = -1.0, np.empty(0)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002 - Keras' own
        probabilities = self.model.predict(self._batches, verbose=0)
        value = score(self._name, self._y, probabilities)
        if logs is not None:
            logs["val_score"] = value
        if value > self.value:
            self.value, self.probabilities = value, probabilities


def train(hp: Any, name: str, pipelines: Pipelines, weights_dir: Path) -> float:
    """Train one trial over all folds and return its pooled score."""
    sampling = hp.Choice("sampling", ["none", "class_weights", "oversample"])
    answers, truth = [], []
    for fold, content in enumerate(pipelines.folds):
        keras.backend.clear_session()
        model = build(hp, name, content.classes, weights_dir)
        batches, class_weight = pipelines.training(fold, sampling)
        validation, y = pipelines.validation(fold)
        best = BestScore(name, validation, y)
        search = SEARCHES[name]
        fit = {"class_weight": class_weight, "callbacks": [best], "verbose": 0}
        model.fit(batches, epochs=search.head_epochs, **fit)
        if search.fine_tunes:
            unfreeze(model, hp)
            model.fit(batches, epochs=search.epochs, initial_epoch=search.head_epochs, **fit)
        answers.append(best.probabilities)
        truth.append(y)
    return score(name, np.concatenate(truth), np.concatenate(answers))
