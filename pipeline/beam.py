"""Which Beam runner does the data work: the `beam` section of an environment, and the options that Beam gets.

    environment.beam.arguments()                           # for most nodes
    environment.beam.for_node("Evaluator").arguments()

Any runner of Beam is reached by naming it and its own options; a name that neither Beam nor its Flink job server knows
is refused, for Beam itself ignores it without a word. `python -m pipeline.beam` prints the names that Beam knows;
`pipeline/beam_options.txt` holds them, so that a mistake shows without importing Beam.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import pydantic

from evergreen import settings

_NAMES = Path(__file__).with_name("beam_options.txt")
_SET_HERE = ("runner", "direct_running_mode", "direct_num_workers")
"""What has a key of its own."""
_FLINK = (
    "allow_non_restored_state", "attached_mode", "auto_balance_write_files_sharding_enabled", "disable_metrics",
    "environment_expiration_millis", "execution_mode_for_batch", "execution_retry_delay", "faster_copy",
    "file_input_split_max_size_m_b", "files_to_stage", "flink_conf_dir", "job_check_interval_in_secs",
    "latency_tracking_interval", "load_balance_bundles", "max_bundle_size", "max_bundle_time_mills",
    "number_of_execution_retries", "object_reuse", "operator_chaining", "re_iterable_group_by_key_result",
    "use_data_stream_for_batch",
)  # fmt: skip
"""Options of batch jobs that Beam's job server for Flink adds to Beam's own (`DescribePipelineOptions` of 2.62)."""
_PACKAGES = frozenset(
    ("sdk_container_image", "setup_file", "requirements_file", "extra_package", "worker_harness_container_image")
)
"""Options that say where workers find what they import."""
_SECRET = ("s3_access_key_id", "s3_secret_access_key", "s3_session_token", "azure_connection_string")


@functools.cache
def known_options() -> frozenset[str]:
    """Returns the names of the options that may be passed on."""
    return frozenset(_NAMES.read_text(encoding="utf-8").split()) | frozenset(_FLINK)


def _known(name: str) -> str:
    if name in _SET_HERE:
        raise ValueError("another option: this one is set by `runner`, `mode` and `workers` of the section")
    if name in _SECRET:
        raise ValueError("no secrets in a file: the workers find credentials where their machine keeps them")
    if name not in known_options():
        close = difflib.get_close_matches(name, known_options(), n=1)
        raise ValueError("a pipeline option of Beam" + (f"; did you mean {close[0]!r}?" if close else ""))
    return name


OptionName = Annotated[str, pydantic.AfterValidator(_known)]
Option = bool | int | float | str | list[str]


class BeamRunner(settings.Section):
    """A Beam runner and its options."""

    runner: Literal["DirectRunner", "FlinkRunner", "PortableRunner", "SparkRunner", "DataflowRunner"] = "DirectRunner"
    """Beam's runner. `PortableRunner` hands the work to the job server at `job_endpoint`: so Flink is reached."""
    mode: Literal["in_memory", "multi_threading", "multi_processing"] = "in_memory"
    """How the DirectRunner works: in this thread, in several, in several processes (which each import TFX anew)."""
    workers: Annotated[int, pydantic.Field(ge=1)] = 1
    """The DirectRunner's threads or processes; the other runners have options for theirs."""
    options: dict[OptionName, Option] = pydantic.Field(default_factory=dict)
    """Beam's pipeline options by name, without dashes; `true` for a switch, a list for what may be repeated."""

    @pydantic.model_validator(mode="after")
    def _only_what_the_runner_takes(self) -> BeamRunner:
        if self.runner != "DirectRunner" and {"mode", "workers"} & self.model_fields_set:
            raise ValueError(f"mode and workers only with the DirectRunner; the {self.runner} has `options`")
        if self.mode == "in_memory" and self.workers > 1:
            raise ValueError("one worker in mode in_memory, or mode multi_threading or multi_processing")
        off = [name for name, value in self.options.items() if value is False]
        if off:
            raise ValueError(f"switches that are on; leave {', '.join(off)} out, or give Beam's no_... option")
        return self

    def arguments(self) -> list[str]:
        """Returns the options as Beam wants them; runner and mode are always named."""
        found = [f"--runner={self.runner}"]
        if self.runner == "DirectRunner":
            found += [f"--direct_running_mode={self.mode}", f"--direct_num_workers={self.workers}"]
        for name, value in self.options.items():
            if value is True:
                found.append(f"--{name}")
            else:
                found += [f"--{name}={item}" for item in (value if isinstance(value, list) else [value])]
        if not _PACKAGES & self.options.keys():
            # Without an image's name TFX packs itself into a source distribution for every Beam node, four seconds
            # each, to be shipped to workers that there are not, or that have what this project installed.
            found.append("--sdk_container_image=none")
        return found


Node = Literal["ExampleGen", "StatisticsGen", "Transform", "Evaluator"]


class Beam(BeamRunner):
    """Which Beam runner does the data work, and how."""

    nodes: dict[Node, BeamRunner] = pydantic.Field(default_factory=dict)
    """Nodes that have a runner, or options, of their own, by name; they get nothing of what stands beside this key."""

    def for_node(self, node: Node) -> BeamRunner:
        """Returns the runner of one node."""
        return self.nodes.get(node, self)


def names_of_beam() -> Sequence[str]:
    """Asks Beam for the names of all options that it knows, but for those that have a key or no place here."""
    from apache_beam.options import pipeline_options

    found: set[str] = set()
    for section in pipeline_options.PipelineOptions.__subclasses__():
        parser = pipeline_options._BeamArgumentParser(add_help=False)  # noqa: SLF001 there is no other way to ask
        section._add_argparse_args(parser)  # noqa: SLF001
        if section.__module__ == pipeline_options.__name__:
            found |= {name.lstrip("-") for action in parser._actions for name in action.option_strings}  # noqa: SLF001
    return sorted(found - {*_SET_HERE, *_SECRET})


if __name__ == "__main__":
    print("\n".join(names_of_beam()))
