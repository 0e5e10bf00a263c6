"""Which package the time of a profile goes to."""

from __future__ import annotations

import cProfile
import fnmatch
import pstats
from pathlib import Path

import yaml

from benchmarks import profile


def test_time_of_c_code_goes_to_who_called_it_and_named_work_is_added_up(tmp_path: Path) -> None:
    document = yaml.safe_dump(list(range(3000)))
    found = cProfile.Profile()
    found.runcall(lambda: (yaml.safe_load(document), fnmatch.filter([document], "*x*")))
    stats = pstats.Stats(found).stats  # type: ignore[attr-defined]
    own = profile.by_package(stats)
    assert own.most_common(1)[0][0] == "yaml"
    assert own["Python's own library"] > 0
    assert abs(own.total() - sum(seconds for _, _, seconds, _, _ in stats.values())) < 0.1 * own.total()
    found.dump_stats(tmp_path / "x.prof")
    lines = profile.told("ExampleGen", tmp_path / "x.prof")
    assert lines[0].startswith("ExampleGen: ")
    assert "yaml" in lines[1]


def test_work_is_found_by_its_functions() -> None:
    calls = (1, 1, 0.5, 2.0, {})
    stats = {
        ("/x/components/records/encoding.py", 37, "encode"): calls,
        ("/y/tfx_bsl/coders/example_coder.py", 60, "encode"): calls,
        ("/y/other.py", 1, "encode"): calls,
    }
    assert profile.by_work(stats) == {"tf.Examples, encoding": 4.0}
