"""Which files a run reads: windows, versions, explicit spans, and what the user is told when there are none."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from evergreen import settings, spans
from evergreen.errors import BadInput


@pytest.fixture
def tree(tmp_path):
    """Makes files with their own name as content."""

    def make(*names):
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(name)
        return tmp_path

    return make


def resolve(root, pattern, choice=None, window=100):
    return spans.resolve(settings.Data(path=f"{root}/{pattern}", window=window), spans=choice)


def names(selection):
    return [file.relative for file in selection.files]


def numbers(selection):
    return [span.number for span in selection.spans]


STANDARD = "span-{SPAN}/v-{VERSION}/*.csv"


def test_window_holds_the_latest_spans_by_number(tree):
    root = tree(*(f"span-{n}/v-1/a.csv" for n in (1, 2, 9, 10, 11)))
    assert numbers(resolve(root, STANDARD, window=3)) == [9, 10, 11]
    assert numbers(resolve(root, STANDARD, window=99)) == [1, 2, 9, 10, 11]


def test_a_late_version_replaces_the_whole_span(tree):
    root = tree("span-1/v-1/a.csv", "span-1/v-1/b.csv", "span-1/v-10/a.csv", "span-1/v-9/c.csv", "span-2/v-1/a.csv")
    selection = resolve(root, STANDARD)
    assert names(selection) == ["span-1/v-10/a.csv", "span-2/v-1/a.csv"]
    assert [span.version for span in selection.spans] == [10, 1]
    assert selection.newest.number == 2


def test_leading_zeros_are_numbers(tree):
    root = tree("day-007/x.csv", "day-010/x.csv")
    assert numbers(resolve(root, "day-{SPAN}/*.csv")) == [7, 10]
    assert names(resolve(root, "day-{SPAN}/*.csv", "7")) == ["day-007/x.csv"]


def test_one_span_spelled_twice_is_refused(tree):
    root = tree("day-07/x.csv", "day-7/x.csv")
    with pytest.raises(BadInput, match=r"span 7 written in 2 ways: .*day-07.*day-7"):
        resolve(root, "day-{SPAN}/*.csv")


def test_a_number_that_comes_twice_has_to_agree(tree):
    root = tree("span-1/data-1.csv", "span-2/data-1.csv", "span-3/data-03.csv")
    assert numbers(resolve(root, "span-{SPAN}/data-{SPAN}.csv")) == [1, 3]


def test_without_span_everything_is_one_span_zero(tree):
    root = tree("b.csv", "a.csv", "c.txt")
    selection = resolve(root, "*.csv")
    assert numbers(selection) == [0]
    assert names(selection) == ["a.csv", "b.csv"]


def test_glob_characters_keep_their_meaning(tree):
    root = tree("x/a1.csv", "x/ab.csv", "x/deep/er/a2.csv", "x/a+3.csv")
    assert names(resolve(root, "**/a[0-9].csv")) == ["x/a1.csv", "x/deep/er/a2.csv"]
    assert names(resolve(root, "x/a[!0-9].csv")) == ["ab.csv"]
    assert names(resolve(root, "x/a?.csv")) == ["a1.csv", "ab.csv"]
    assert names(resolve(root, "x/a+3.csv")) == ["a+3.csv"]


def test_files_still_being_written_are_not_seen(tree):
    root = tree(
        "span-1/v-1/a.csv",
        "span-1/v-1/b.csv.tmp",
        "span-1/v-1/c.part",
        "span-1/v-1/.hidden",
        "span-1/v-1/_SUCCESS",
        "span-1/_temporary/v-2/a.csv",
        ".span-2.tmp/v-1/a.csv",
    )
    (root / "span-1/v-1/folder.csv").mkdir()
    assert names(resolve(root, "span-{SPAN}/v-{VERSION}/*")) == ["span-1/v-1/a.csv"]
    assert numbers(resolve(root, "*span-{SPAN}*/v-{VERSION}/*")) == [1]


def test_hidden_folders_above_the_pattern_do_not_matter(tree):
    root = tree(".cache/_x/span-1/v-1/a.csv")
    assert numbers(resolve(root / ".cache/_x", STANDARD)) == [1]


@pytest.mark.parametrize(
    ("choice", "expected"),
    [("3", [3]), ("2-5", [2, 3, 4, 5]), ("1,3-4", [1, 3, 4]), (" 4 - 5 , 1 ", [1, 4, 5]), ("02", [2]), ("3,3", [3])],
)
def test_explicit_spans_ignore_the_window(tree, choice, expected):
    root = tree(*(f"span-{n}/v-1/a.csv" for n in range(1, 7)))
    assert numbers(resolve(root, STANDARD, choice, window=1)) == expected


def test_a_range_of_dates_may_have_gaps_but_has_its_ends(tree):
    root = tree(*(f"{n}/a.csv" for n in (20240130, 20240131, 20240201)))
    assert numbers(resolve(root, "{SPAN}/a.csv", "20240130-20240201")) == [20240130, 20240131, 20240201]
    with pytest.raises(BadInput, match="no span 20240202"):
        resolve(root, "{SPAN}/a.csv", "20240130-20240202")


def test_all_missing_spans_are_told_with_what_exists(tree):
    root = tree(*(f"span-{n}/v-1/a.csv" for n in (1, 2, 3, 7)))
    with pytest.raises(BadInput) as caught:
        resolve(root, STANDARD, "2-5,9")
    assert [problem.found for problem in caught.value.problems] == [
        "no span 4, 5; there are 1-3, 7",
        "no span 9; there are 1-3, 7",
    ]


@pytest.mark.parametrize("choice", ["", "x", "5-2", "1-", "-3", "1;2", "1.5"])
def test_an_illegal_choice_says_how_to_write_it(tree, choice):
    root = tree("span-1/v-1/a.csv")
    with pytest.raises(BadInput, match=r'\("2-5"\)'):
        resolve(root, STANDARD, choice)


def test_no_folder_names_the_nearest_one(tree):
    root = tree("humid/span-1/a.csv")
    with pytest.raises(BadInput) as caught:
        resolve(root, "humidity/span-{SPAN}/*.csv")
    (problem,) = caught.value.problems
    assert problem.where == f"{root}/humidity/span-{{SPAN}}/*.csv"
    assert problem.found == f"no folder {root}/humidity; {root} holds humid/span-1/a.csv"
    assert "data.path" in problem.action


def test_no_match_names_what_is_there(tree):
    root = tree("span-1/a.CSV", "span-2/a.CSV")
    with pytest.raises(BadInput, match=r"holds span-1/a\.CSV, span-2/a\.CSV"):
        resolve(root, "span-{SPAN}/*.csv")


def test_only_unfinished_files_are_told_as_such(tree):
    root = tree("_incoming/a.csv")
    with pytest.raises(BadInput, match="1 that matched are still being written"):
        resolve(root, "*/a.csv")


def test_an_unknown_placeholder_is_refused(tree):
    with pytest.raises(BadInput, match=r"\{DATE\}"):
        resolve(tree("a"), "{DATE}/*.csv")


def test_fingerprint_follows_content_name_and_choice(tree):
    root = tree("span-1/v-1/a.csv", "span-2/v-1/a.csv")
    first = resolve(root, STANDARD).fingerprint
    assert resolve(root, STANDARD).fingerprint == first
    os.utime(root / "span-1/v-1/a.csv", (1, 1))
    assert resolve(root, STANDARD).fingerprint == first, "a touched file is no new data"
    (root / "span-1/v-1/a.csv").write_text("span-1/v-1/b.csv")
    changed = resolve(root, STANDARD).fingerprint
    (root / "span-1/v-1/a.csv").rename(root / "span-1/v-1/z.csv")
    renamed = resolve(root, STANDARD).fingerprint
    assert len({first, changed, renamed, resolve(root, STANDARD, "1").fingerprint}) == 4


def test_fingerprint_does_not_depend_on_where_the_data_lie(tree, tmp_path):
    root = tree("a/span-1/v-1/a.csv")
    (root / "b/span-1/v-1").mkdir(parents=True)
    (root / "b/span-1/v-1/a.csv").write_bytes((root / "a/span-1/v-1/a.csv").read_bytes())
    assert resolve(root / "a", STANDARD).fingerprint == resolve(root / "b", STANDARD).fingerprint


def test_a_large_selection_goes_by_modification_time(tree, monkeypatch):
    root = tree("span-1/v-1/a.csv")
    monkeypatch.setattr(spans, "CONTENT_LIMIT", 3)
    os.utime(root / "span-1/v-1/a.csv", (1, 1))
    first = resolve(root, STANDARD).fingerprint
    os.utime(root / "span-1/v-1/a.csv", (2, 2))
    assert resolve(root, STANDARD).fingerprint != first


def test_relative_paths(tree, monkeypatch):
    monkeypatch.chdir(tree("span-1/v-1/a.csv"))
    selection = spans.resolve(settings.Data(path=STANDARD))
    assert [file.path for file in selection.files] == ["span-1/v-1/a.csv"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("data/h/span-{SPAN}/v-{VERSION}/*.csv", "data/h"),
        ("/data/x.csv", "/data"),
        ("*.csv", ""),
        ("x.csv", ""),
        ("/{SPAN}.csv", "/"),
        ("gs://bucket/a/{SPAN}/*", "gs://bucket/a"),
    ],
)
def test_fixed_part(pattern, expected):
    assert spans.fixed_part(pattern) == expected


@pytest.mark.slow
def test_remote_paths_go_through_tensorflow(tree):
    root = tree("span-1/v-1/a.csv", "span-2/v-1/a.csv")
    selection = spans.resolve(settings.Data(path=f"file://{root}/{STANDARD}", window=1))
    assert names(selection) == ["span-2/v-1/a.csv"]
    assert selection.files[0].size == len("span-2/v-1/a.csv")


def test_local_paths_need_no_tensorflow(tree):
    root = tree("span-1/v-1/a.csv")
    code = (
        "import sys; from evergreen import settings, spans; "
        f"spans.resolve(settings.Data(path={str(root / STANDARD)!r})); "
        "sys.exit('tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- days ------------------------------------------------------------------------------------------------------------

DAYS = "{YYYY}/{MM}/{DD}/v{VERSION}/*.csv"


def test_a_day_is_a_span_with_tfxs_number(tree):
    root = tree("2024/02/28/v1/a.csv", "2024/03/01/v1/a.csv", "2024/02/29/v1/a.csv", "2024/02/29/v2/a.csv")
    selection = resolve(root, DAYS, window=2)
    # What tfx.components.example_gen.utils.date_to_span_number gives.
    assert numbers(selection) == [19782, 19783]
    assert selection.spans[0].version == 2


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("2024-02-28", ["2024-02-28"]),
        ("2024-02-28-2024-03-01", ["2024-02-28", "2024-03-01"]),
        ("2024-02-28 - 2024-03-01, 19784", ["2024-02-28", "2024-03-01", "2024-03-02"]),
    ],
)
def test_days_are_asked_for_as_days(tree, choice, expected):
    root = tree("x-20240228.csv", "x-20240301.csv", "x-20240302.csv")
    pattern = "x-{YYYY}{MM}{DD}.csv"
    assert [spans.name_of(n, pattern=pattern) for n in numbers(resolve(root, pattern, choice))] == expected


def test_a_missing_day_is_told_as_a_day(tree):
    root = tree("2024-02-28.csv", "2024-02-29.csv", "2024-03-05.csv")
    with pytest.raises(BadInput, match=r"no span 2024-03-02; there are 2024-02-28 - 2024-02-29, 2024-03-05"):
        resolve(root, "{YYYY}-{MM}-{DD}.csv", "2024-02-28 - 2024-03-02")


def test_a_day_that_is_none_is_refused(tree):
    with pytest.raises(BadInput, match=r"2024-02-30\.csv: found no day of the calendar"):
        resolve(tree("2024-02-30.csv", "2024-02-28.csv"), "{YYYY}-{MM}-{DD}.csv")
    with pytest.raises(BadInput, match='"2024-02-29"'):
        resolve(tree("2024-02-28.csv"), "{YYYY}-{MM}-{DD}.csv", "2024-02-30")


def test_a_day_that_comes_twice_has_to_agree(tree):
    root = tree("2024/01/02/x-20240102.csv", "2024/01/03/x-20240102.csv")
    assert names(resolve(root, "{YYYY}/{MM}/{DD}/x-{YYYY}{MM}{DD}.csv")) == ["2024/01/02/x-20240102.csv"]


@pytest.mark.parametrize("pattern", ["{YYYY}/{MM}/x.csv", "{SPAN}/{YYYY}{MM}{DD}.csv"])
def test_half_a_day_or_a_day_and_a_number_is_refused(tree, pattern):
    with pytest.raises(BadInput, match=r"either \{SPAN\} or all of \{YYYY\}, \{MM\} and \{DD\}"):
        resolve(tree("2024/01/x.csv"), pattern)


# --- folders ---------------------------------------------------------------------------------------------------------


def test_a_folder_stands_for_its_files(tree):
    root = tree("x/a.csv", "x/b.csv", "x/.c.csv", "x/d.csv.tmp", "span-1/a.csv", "span-2/a.csv")
    assert names(resolve(root, "x")) == ["x/a.csv", "x/b.csv"]
    assert names(resolve(root, "x/")) == ["a.csv", "b.csv"]
    assert numbers(resolve(root, "span-{SPAN}")) == [1, 2]


def test_a_file_that_grew_or_went_is_not_unchanged(tree):
    root = tree("a.csv", "b.csv")
    first, second = resolve(root, "*.csv").files
    assert spans.unchanged(first)
    assert spans.unchanged(second)
    with open(first.path, "a") as stream:
        stream.write("more")
    os.remove(second.path)
    assert not spans.unchanged(first)
    assert not spans.unchanged(second)
