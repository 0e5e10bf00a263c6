"""Executors that do what a test asks for, with files and exit as real ones do."""

from __future__ import annotations

import importlib
import json
import os

from tfx.dsl.components.base import base_executor

from evergreen import settings as settings_of_ours
from evergreen.errors import BadInput, GateRefusal, Problem

PROBLEM = Problem(where="data.csv, line 7", found="3 fields", expected="5 fields", action="Repair the line.")


class Executor(base_executor.BaseExecutor):
    """Counts its calls in the file that `settings` names, writes its outputs, then ends as `settings` says."""

    def Do(self, input_dict, output_dict, exec_properties):  # noqa: N802 - TFX's name
        settings = json.loads(exec_properties["settings"])
        with open(settings["calls"], "a") as file:
            file.write(f"{os.path.exists(input_dict['model'][0].uri)}\n")
        assert input_dict["examples"][0].split_names == '["eval", "test", "train"]'
        assert input_dict["examples"][0].span == 4
        for key, artifacts in output_dict.items():
            if key in settings.get("leave_out", ()):
                continue
            os.makedirs(artifacts[0].uri)
            with open(os.path.join(artifacts[0].uri, "result"), "w") as file:
                file.write(key)
        output_dict["blessing"][0].set_string_custom_property("current_model", input_dict["model"][0].uri)
        output_dict["blessing"][0].set_int_custom_property("blessed", 1)
        how = settings.get("end", "")
        if how == "bad input":
            raise BadInput([PROBLEM])
        if how == "refused":
            raise GateRefusal([PROBLEM])
        if how == "wrapped":
            try:
                raise BadInput([PROBLEM])
            except BadInput as error:
                raise RuntimeError("while running a stage") from error
        if how == "unknown setting":
            settings_of_ours.Training.model_validate({"warmup_rows": 7})
        if how == "unknown module":
            importlib.import_module("trainer.of_tomorrow")
        if how == "missing input":
            input_dict["of_tomorrow"]
        if how == "fault":
            raise OSError("disk full")
