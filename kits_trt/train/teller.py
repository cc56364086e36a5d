"""Tells people how a training goes: one line that moves on a terminal, plain lines elsewhere."""

import time
from typing import TYPE_CHECKING, TextIO

from kits_runtime.cli.console import ProgressLine, clock_time

if TYPE_CHECKING:
    from kits_trt.train.course import Course, Validation

_PLAIN_EVERY_S = 30.0


class Teller:
    """What ``kits-train`` writes for people; silent when ``quiet``."""

    def __init__(self, stream: TextIO, *, quiet: bool = False, progress: bool = True) -> None:
        self._stream = stream
        self._quiet = quiet
        self._moves = progress and not quiet and stream.isatty()
        self._line = ProgressLine(stream, enabled=self._moves)
        self._plain = progress and not quiet and not self._moves
        self._told_at = time.monotonic()
        self._since: tuple[int, float] | None = None

    def say(self, text: str) -> None:
        """Writes a line that stays."""
        if not self._quiet:
            self._line.clear()
            self._stream.write(text + "\n")
            self._stream.flush()

    def stepped(self, course: "Course", loss: float, steps: int) -> None:
        """Tells of a step: how many of how many, its loss, and how long the rest will take."""
        now = time.monotonic()
        if self._since is None or course.step <= self._since[0]:
            self._since = (course.step, now)
        done, begun = course.step - self._since[0], self._since[1]
        pace = done / (now - begun) if done and now > begun else 0.0
        rest = f", {clock_time((steps - course.step) / pace)} left" if pace else ""
        told = f"{course.net}: step {course.step} of {steps}, loss {loss:.4f}{rest}"
        if self._moves:
            self._line.show_bar(course.step / steps, told)
        elif self._plain and now - self._told_at >= _PLAIN_EVERY_S:
            self._told_at = now
            self.say(told)

    def validated(self, course: "Course", found: "Validation") -> None:
        """Tells what a validation found."""
        dices = ", ".join(f"{dice:.4f}" for dice in found.dice)
        loss = "-" if course.last_loss is None else f"{course.last_loss:.4f}"
        self.say(
            f"{course.net}: epoch {course.epoch}, step {course.step}: loss {loss}, "
            f"validation loss {found.loss:.4f}, Dice {dices}"
        )
        self._since = None

    def validating(self, net: str, done: int, total: int) -> None:
        """Tells how many cases have been validated."""
        self._line.show_bar(done / total, f"{net}: validating case {done} of {total}")

    def checking(self, done: int, total: int, case: str) -> None:
        """Tells which case has been checked."""
        self._count(done, total, f"checked {done} of {total} cases: {case}")

    def preparing(self, done: int, total: int, case: str) -> None:
        """Tells which case has been prepared."""
        self._count(done, total, f"prepared {done} of {total} cases: {case}")

    def hashing(self, done: int, total: int) -> None:
        """Tells how many cases have been read for their hashes."""
        self._count(done, total, f"read {done} of {total} cases")

    def scoring(self, done: int, total: int) -> None:
        """Tells how many cases the whole system has segmented."""
        self._count(done, total, f"segmented {done} of {total} cases with the whole system")

    def end(self) -> None:
        """Removes what moves."""
        self._line.clear()

    def _count(self, done: int, total: int, text: str) -> None:
        if self._moves:
            self._line.show_bar(done / total, text)
        elif self._plain and (done == total or time.monotonic() - self._told_at > _PLAIN_EVERY_S):
            self._told_at = time.monotonic()
            self.say(text)
