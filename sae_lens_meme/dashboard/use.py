"""Which classifiers use a latent: the one definition that every page uses."""

from __future__ import annotations

from typing import Any, NamedTuple

from sae_lens_meme.report.blocks import number

DEFINITION = (
    "The classifier of a label uses a latent where taking the latent out changes the probability of its class by more than "
    "the largest step of any latent in a random direction and more than latents that fire as often; the end of the 95 % "
    "interval nearer to no change counts."
)

Row = dict[str, Any]


class Use(NamedTuple):
    """What an edit of a latent does to the classifier of one label."""

    label: str
    level: str
    """The class whose probability is read."""
    change: float
    control: float
    """The largest of the controls."""
    row: Row

    @property
    def beats(self) -> bool:
        return least_change(self.row) > self.control

    @property
    def measured(self) -> str:
        return f"{signed(self.change)}, controls {number(self.control)}"


def uses(effects: list[Row], kind: str = "ablation") -> list[Use]:
    """Of each label whose change was measured, in the order of the table."""
    return [use_of(row) for row in effects if row["kind"] == kind and row.get("delta_all") is not None]


def use_of(row: Row) -> Use:
    """Of one row of `influence`, with `largest_random` of its edit and class."""
    control = max(row.get(name) or 0.0 for name in ("largest_random", "delta_matched"))
    return Use(str(row["task"]), str(row["class"]), row["delta_all"], control, row)


def least_change(row: Row) -> float:
    """The end of the interval that is nearer to no change; 0 where the interval holds no change."""
    low, high = row.get("delta_all_low"), row.get("delta_all_high")
    if low is None or high is None:
        return 0.0
    return 0.0 if low <= 0 <= high else min(abs(low), abs(high))


def signed(value: float) -> str:
    return f"{'+' if value > 0 else '−' if value < 0 else ''}{number(abs(value))}"
