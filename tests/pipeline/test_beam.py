"""The `beam` section: what a runner gets, for all nodes or one, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from evergreen.errors import BadInput
from evergreen.revision import ROOT
from pipeline import beam, config


def _load(tmp_path: Path, text: str) -> config.Environment:
    path = tmp_path / "environment.yaml"
    path.write_text(text)
    return config.load_environment(path)


def test_runner_and_mode_are_always_named() -> None:
    assert beam.Beam().arguments() == [
        "--runner=DirectRunner",
        "--direct_running_mode=in_memory",
        "--direct_num_workers=1",
        "--sdk_container_image=none",
    ]


@pytest.mark.slow
def test_options_of_any_runner_reach_beam(tmp_path: Path) -> None:
    made = _load(
        tmp_path,
        """\
beam:
  runner: DataflowRunner
  options: {project: p, region: europe-west1, experiments: [a, b], enable_streaming_engine: true, num_workers: 3,
            setup_file: ./setup.py}
""",
    ).beam.arguments()
    assert made[0] == "--runner=DataflowRunner"
    assert sorted(made[1:]) == sorted(
        [
            "--project=p",
            "--region=europe-west1",
            "--experiments=a",
            "--experiments=b",
            "--enable_streaming_engine",
            "--num_workers=3",
            "--setup_file=./setup.py",
        ]
    )
    from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions, WorkerOptions

    parsed = PipelineOptions(made)
    assert parsed.view_as(GoogleCloudOptions).region == "europe-west1"
    assert parsed.view_as(WorkerOptions).num_workers == 3


def test_a_node_may_have_a_runner_of_its_own(tmp_path: Path) -> None:
    environment = _load(
        tmp_path,
        """\
beam:
  runner: SparkRunner
  options: {spark_master_url: "spark://127.0.0.1:7077"}
  nodes:
    Evaluator: {runner: DirectRunner}
""",
    )
    assert environment.beam.for_node("Transform").arguments()[0] == "--runner=SparkRunner"
    assert environment.beam.for_node("Evaluator").arguments() == beam.Beam().arguments()


def test_every_mistake_is_told_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(BadInput) as caught:
        _load(
            tmp_path,
            """\
beam:
  runner: PortableRunner
  options:
    paralelism: 2
    runner: FlinkRunner
    s3_secret_access_key: x
  nodes:
    Trainer: {}
""",
        )
    told = {problem.where.split(", ", 1)[1]: problem.expected for problem in caught.value.problems}
    assert told["line 4, beam.options.paralelism"] == "a pipeline option of Beam; did you mean 'parallelism'?"
    assert "set by `runner`" in told["line 5, beam.options.runner"]
    assert "no secrets" in told["line 6, beam.options.s3_secret_access_key"]
    assert "line 8, beam.nodes.Trainer" in told


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{runner: PortableRunner, workers: 2}", "mode and workers only with the DirectRunner"),
        ("{workers: 2}", "one worker in mode in_memory"),
        ("{options: {save_main_session: false}}", "switches that are on; leave save_main_session out"),
    ],
)
def test_what_would_be_ignored_is_refused(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(BadInput) as caught:
        _load(tmp_path, f"beam: {text}\n")
    assert caught.value.problems[0].expected.startswith(expected)


@pytest.mark.slow
def test_the_names_of_the_options_are_those_of_this_beam() -> None:
    found = (ROOT / "pipeline" / "beam_options.txt").read_text(encoding="utf-8").split()
    assert found == list(beam.names_of_beam()), "python -m pipeline.beam > pipeline/beam_options.txt"
