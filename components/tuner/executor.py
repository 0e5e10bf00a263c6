"""Runs the search of `tuner_fn` and writes down every trial; what a killed search is taken up from goes last."""

from __future__ import annotations

import json
import os
from typing import Any

from tfx import types
from tfx.components.tuner import executor
from tfx.dsl.components.base import base_executor
from tfx.types import artifact_utils, standard_component_specs
from tfx.utils import io_utils

TRIALS_FILE = "trials.json"
"""Beside TFX's `tuner_results.json`: the best values, and of every trial values, score, curves, epochs and seconds."""


class Executor(base_executor.BaseExecutor):
    """TFX's executor, with `trials.json`."""

    def Do(  # noqa: N802 - TFX calls it so
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Searches.

        Args:
            input_dict: as TFX's Tuner has them; `base_model` is the champion.
            output_dict: `best_hyperparameters` and `tuner_results`.
            exec_properties: as TFX's Tuner has them.

        Raises:
            BadInput: when no trial succeeds, or the train split cannot be used.
        """
        self._log_startup(input_dict, output_dict, exec_properties)
        search = executor.search(input_dict, exec_properties, self._get_tmp_dir(), print_tuning_summary=False)
        executor.write_best_hyperparameters(search, output_dict)
        results = artifact_utils.get_single_uri(output_dict[standard_component_specs.TUNER_RESULTS_KEY])
        io_utils.write_string_file(os.path.join(results, TRIALS_FILE), json.dumps(search.table(), indent=1) + "\n")
        search.remove()
