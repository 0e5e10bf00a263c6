"""Logs of a container: one JSON object a line, with the severity and the node, on standard error."""

from __future__ import annotations

import datetime
import json
import logging
import sys
from collections.abc import Mapping


def configure(labels: Mapping[str, str]) -> None:
    """Sends every record of this process to standard error as JSON.

    Args:
        labels: what every line says of where it comes from, for example ``{"task": "Trainer"}``.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json(labels))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)


class _Json(logging.Formatter):
    """Renders a record as one line of JSON, in the keys that log collectors know."""

    def __init__(self, labels: Mapping[str, str]) -> None:
        super().__init__()
        self._labels = {key: value for key, value in labels.items() if value}

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.datetime.fromtimestamp(record.created, tz=datetime.timezone.utc)
        line = {
            "time": moment.isoformat(timespec="milliseconds"),
            "severity": record.levelname,
            "logger": record.name,
            **self._labels,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)
