"""A worker of a search: reads the search from standard input, asks the oracle for trials until there are none."""

from __future__ import annotations

import sys

from trainer import trials


def main() -> None:
    """Runs trials; where the oracle is, Keras Tuner's environment variables say."""
    setting = trials.Setting.from_json(sys.stdin.read())
    trials.TrialRunner(setting, trials.oracle(setting)).search()


if __name__ == "__main__":
    main()
