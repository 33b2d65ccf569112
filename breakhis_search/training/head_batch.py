"""Several classification heads on cached features, trained at once by one batched computation.

A head is what `breakhis_search.models.heads.attach_head` builds: an optional dense layer with ReLU,
dropout, a dense layer to logits. Heads of equal size differ in their weights, data and
hyperparameters only, so that H of them are one matrix product with a leading axis. The gradients
are written out, which costs neither tracing nor compilation; they and AdamW are those of Keras 3
(`tests/training/test_head_batch.py` trains the same head with both).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-7  # defaults of keras.optimizers.AdamW
_TINY = 1e-7  # keras.backend.epsilon(): where Keras clips probabilities in the focal loss


@dataclass(frozen=True)
class HeadSettings:
    """What one head of a batch is trained with, apart from its learning rates.

    Attributes:
        dropout_rate: [0, 1), before the logits.
        weight_decay: Decoupled decay of the kernels; biases do not decay.
        label_smoothing: [0, 1).
        focal_gamma: Of the focal loss (Lin et al. 2017); ``None`` for cross-entropy.
    """

    dropout_rate: float
    weight_decay: float
    label_smoothing: float
    focal_gamma: float | None = None


class HeadBatch:
    """H heads of equal size.

    Args:
        settings: Of each head.
        features: Length d of a feature vector.
        units: Of the dense layer; 0 for none.
        classes: Number K of logits.
        seeds: One per head: of its initial weights and its dropout.
    """

    def __init__(
        self,
        settings: Sequence[HeadSettings],
        *,
        features: int,
        units: int,
        classes: int,
        seeds: Sequence[int],
    ) -> None:
        self.settings = tuple(settings)
        self.read_settings()
        self.rngs = [np.random.default_rng(seed) for seed in seeds]
        widths = [features, units, classes] if units else [features, classes]
        self.layers = [
            _Layer.glorot_uniform(self.rngs, inputs, outputs)
            for inputs, outputs in pairwise(widths)
        ]
        self.steps = np.zeros(len(settings), dtype=np.int64)

    def read_settings(self) -> None:
        """Bring what is computed with into line with the settings."""
        self._decay = np.array([s.weight_decay for s in self.settings], dtype=np.float32)
        smoothing = np.array([s.label_smoothing for s in self.settings], dtype=np.float32)
        self._smoothing = smoothing[:, None]

    @classmethod
    def stack(cls, heads: Sequence[tuple[HeadBatch, int]]) -> HeadBatch:
        """Return a batch of heads from other batches, each as far as it is there.

        Args:
            heads: Batch and place of each head, all of equal size.
        """
        batch = cls.__new__(cls)  # nothing is drawn: weights and momenta are there
        batch.settings = tuple(other.settings[place] for other, place in heads)
        batch.read_settings()
        batch.rngs = [other.rngs[place] for other, place in heads]
        batch.steps = np.array([other.steps[place] for other, place in heads])
        depth = len(heads[0][0].layers)
        batch.layers = [
            _Layer.stack([(other.layers[i], place) for other, place in heads]) for i in range(depth)
        ]
        return batch

    def __len__(self) -> int:
        """Return the number of heads."""
        return len(self.settings)

    def weights_of(self, head: int) -> list[FloatArray]:
        """Return copies of a head's weights as Keras orders them: kernel, bias, kernel, bias."""
        return [array[head].copy() for layer in self.layers for array in (layer.kernel, layer.bias)]

    def set_weights(self, head: int, weights: Sequence[FloatArray]) -> None:
        """Give a head weights as :meth:`weights_of` returns them; its momenta stay."""
        arrays = [array for layer in self.layers for array in (layer.kernel, layer.bias)]
        for array, value in zip(arrays, weights, strict=True):
            array[head] = value

    def logits(self, features: FloatArray, heads: slice = slice(None)) -> FloatArray:
        """Return the answers of every head in inference.

        Args:
            features: float32 [n, d], the same for all heads, or [H, n, d].
            heads: Those that are asked.

        Returns:
            float32 [H, n, K].
        """
        values = features
        for layer in self.layers[:-1]:
            values = np.maximum(layer.apply(values, heads), 0.0)
        return self.layers[-1].apply(values, heads)

    def step(
        self, features: FloatArray, targets: FloatArray, weights: FloatArray, rates: FloatArray
    ) -> FloatArray:
        """Train every head on a batch of its own.

        Args:
            features: float32 [H, b, d].
            targets: One-hot, float32 [H, b, K].
            weights: Of each image in the loss, float32 [H, b].
            rates: Learning rate of each head, float32 [H]; a head with rate 0 rests: nothing of it
                changes, its step count included.

        Returns:
            The loss of each head before the step, float32 [H].
        """
        hidden = features
        if len(self.layers) > 1:
            hidden = np.maximum(self.layers[0].apply(features), 0.0)
        kept = self._dropout_mask(hidden.shape, rates > 0)
        dropped = hidden * kept
        losses, gradient = self._loss(self.layers[-1].apply(dropped), targets)
        share = weights / weights.shape[1]  # Keras divides by the batch, not by the weights' sum
        gradient *= share[:, :, None]
        gradients = [_layer_gradients(dropped, gradient)]
        if len(self.layers) > 1:
            back = gradient @ self.layers[-1].kernel.transpose(0, 2, 1) * kept
            gradients.insert(0, _layer_gradients(features, back * (hidden > 0)))
        self._update(gradients, rates)
        return np.asarray((losses * share).sum(axis=1), dtype=np.float32)

    def _dropout_mask(self, shape: tuple[int, ...], active: npt.NDArray[np.bool_]) -> FloatArray:
        """0 where a unit is dropped, else 1 / (1 − rate), float32 [H, b, units]."""
        mask = np.ones(shape, dtype=np.float32)
        for head, (settings, rng) in enumerate(zip(self.settings, self.rngs, strict=True)):
            if settings.dropout_rate > 0 and active[head]:
                keep = 1.0 - settings.dropout_rate
                mask[head] = (rng.random(shape[1:], dtype=np.float32) < keep) / np.float32(keep)
        return mask

    def _loss(self, logits: FloatArray, targets: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Loss of every image, float32 [H, b], and its gradient by the logits, [H, b, K]."""
        smoothing = self._smoothing[:, :, None]
        targets = targets * (1.0 - smoothing) + smoothing / targets.shape[-1]
        shifted = logits - logits.max(axis=-1, keepdims=True)
        log_p = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
        p = np.exp(log_p)
        losses = -(targets * log_p).sum(axis=-1)
        gradient = p * targets.sum(axis=-1, keepdims=True) - targets
        for head, settings in enumerate(self.settings):
            if settings.focal_gamma is not None:
                losses[head], gradient[head] = _focal(p[head], targets[head], settings.focal_gamma)
        return losses, gradient

    def _update(
        self, gradients: Sequence[tuple[FloatArray, FloatArray]], rates: FloatArray
    ) -> None:
        """AdamW of Keras: decay first, then the step; a head with rate 0 is left as it is."""
        active = rates > 0
        self.steps += active
        steps = np.maximum(self.steps, 1)
        unbiased = np.sqrt(1.0 - BETA_2**steps) / (1.0 - BETA_1**steps)
        scale = (rates * unbiased).astype(np.float32)
        decay = rates * self._decay
        everyone = bool(active.all())
        for layer, (kernel, bias) in zip(self.layers, gradients, strict=True):
            which = slice(None) if everyone else active
            layer.update(kernel, bias, scale=scale, decay=decay, heads=which)


class _Layer:
    """A dense layer of every head, with its momenta.

    Attributes:
        kernel: float32 [H, inputs, outputs].
        bias: float32 [H, outputs].
    """

    def __init__(self, kernel: FloatArray) -> None:
        self.kernel = kernel
        self.bias = np.zeros((kernel.shape[0], kernel.shape[2]), dtype=np.float32)
        self.moments = [np.zeros_like(a) for a in (self.kernel, self.kernel, self.bias, self.bias)]

    @classmethod
    def glorot_uniform(
        cls, rngs: Sequence[np.random.Generator], inputs: int, outputs: int
    ) -> _Layer:
        """Kernels as Keras initialises them (Glorot & Bengio 2010), biases 0."""
        limit = np.sqrt(6.0 / (inputs + outputs))
        draws = [rng.uniform(-limit, limit, (inputs, outputs)) for rng in rngs]
        return cls(np.stack(draws).astype(np.float32))

    @classmethod
    def stack(cls, layers: Sequence[tuple[_Layer, int]]) -> _Layer:
        """The layers at these places as one, with their momenta."""
        stacked = cls(np.stack([layer.kernel[place] for layer, place in layers]))
        stacked.bias = np.stack([layer.bias[place] for layer, place in layers])
        stacked.moments = [
            np.stack([layer.moments[i][place] for layer, place in layers]) for i in range(4)
        ]
        return stacked

    def apply(self, values: FloatArray, heads: slice = slice(None)) -> FloatArray:
        """Return [H, b, outputs] of values [b, inputs] or [H, b, inputs]."""
        answers: FloatArray = values @ self.kernel[heads] + self.bias[heads, None, :]
        return answers

    def update(
        self,
        kernel: FloatArray,
        bias: FloatArray,
        *,
        scale: FloatArray,
        decay: FloatArray,
        heads: Any,
    ) -> None:
        """Take an AdamW step with the gradients of kernel and bias for the named heads."""
        first, second, first_bias, second_bias = self.moments
        shrink = (1.0 - decay)[:, None, None]
        self.kernel[heads] *= shrink[heads]
        pairs = ((self.kernel, kernel, first, second), (self.bias, bias, first_bias, second_bias))
        for variable, gradient, m, v in pairs:
            step = scale.reshape(-1, *[1] * (variable.ndim - 1))
            m[heads] += (gradient[heads] - m[heads]) * np.float32(1.0 - BETA_1)
            v[heads] += (np.square(gradient[heads]) - v[heads]) * np.float32(1.0 - BETA_2)
            variable[heads] -= m[heads] * step[heads] / (np.sqrt(v[heads]) + np.float32(EPSILON))


def _layer_gradients(inputs: FloatArray, gradient: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Gradients of kernel and bias, [H, inputs, outputs] and [H, outputs]."""
    return inputs.transpose(0, 2, 1) @ gradient, gradient.sum(axis=1)


def _focal(p: FloatArray, targets: FloatArray, gamma: float) -> tuple[FloatArray, FloatArray]:
    """Focal loss of every image, [b], and its gradient by the logits, [b, K], α = 1.

    L = −Σ y (1 − p)^γ ln p; by p: y (γ (1 − p)^(γ−1) ln p − (1 − p)^γ / p); then the softmax.
    """
    p = np.clip(p, _TINY, 1.0 - _TINY)
    rest, log_p = 1.0 - p, np.log(p)
    losses = -(targets * rest**gamma * log_p).sum(axis=-1)
    by_p = targets * (gamma * rest ** (gamma - 1.0) * log_p - rest**gamma / p)
    gradient = p * (by_p - (by_p * p).sum(axis=-1, keepdims=True))
    return losses, gradient
