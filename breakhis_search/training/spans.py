"""The phases of a training: which part learns, in which epochs, at which peak rate."""

from __future__ import annotations

from dataclasses import dataclass

from breakhis_search.training.plan import TrainingPlan


@dataclass(frozen=True)
class Span:
    """A phase, its epochs and its peak learning rate.

    Attributes:
        name: ``head`` (frozen backbone), ``fine_tune`` or ``all``.
        part: What learns; ``None`` where nothing is pretrained.
        first_epoch: Its first epoch.
        last_epoch: The epoch behind its last one.
        peak_rate: Learning rate after warming up.
    """

    name: str
    part: str | None
    first_epoch: int
    last_epoch: int
    peak_rate: float


def spans_of(plan: TrainingPlan, *, head_epochs: int, epochs: int) -> list[Span]:
    """Return the phases of a training in order.

    Args:
        plan: Hyperparameters.
        head_epochs: In which only the head learns, before a backbone is fine-tuned.
        epochs: In all.
    """
    if plan.trainable is None:
        return [Span("all", None, 0, epochs, plan.learning_rate)]
    if not plan.fine_tunes:
        return [Span("head", "head", 0, epochs, plan.learning_rate)]
    switch = min(head_epochs, epochs)
    fine_rate = plan.backbone_learning_rate or plan.learning_rate
    spans = [
        Span("head", "head", 0, switch, plan.learning_rate),
        Span("fine_tune", plan.trainable, switch, epochs, fine_rate),
    ]
    return [span for span in spans if span.last_epoch > span.first_epoch]
