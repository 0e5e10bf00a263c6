"""Spans: one answer to "which files does this run read?", the same for the executor and for whoever asks before it.

`data.path` is a glob in which `{SPAN}` stands for a span's number and `{VERSION}` for its delivery. Instead of it
`{YYYY}`, `{MM}` and `{DD}` may stand for a day, whose number is that of the days since 1970-01-01 (as in TFX). A folder
stands for the files in it. Guarantees: of each span only the latest version counts (a late re-delivery replaces the
span whole); without an explicit choice the window holds the latest `data.window` spans that exist; the fingerprint
changes whenever the chosen files do; files that are still being written (`*.tmp`, `*.part`, anything below a name that
starts with `.` or `_`) are not seen.

    selection = resolve(config.data)                 # the window of latest spans
    selection = resolve(config.data, spans="2-5")    # exactly these
    [file.path for file in selection.files], selection.fingerprint

Local paths need neither TensorFlow nor a network; a path with "://" is opened through `tf.io.gfile`.
"""

from __future__ import annotations

import dataclasses
import datetime
import glob
import hashlib
import itertools
import os
import re
from collections.abc import Iterable, Iterator, Sequence

from evergreen import settings
from evergreen.errors import BadInput, Problem

CONTENT_LIMIT = 64 << 20
"""Bytes up to which a local selection is fingerprinted by content; a larger one by size and modification time."""
_SHOWN = 5
_DATES_FROM = 10_000_000
"""From here on a span's number is taken for a date (YYYYMMDD), whose ranges have gaps."""
_PLACEHOLDER = re.compile(r"\{(\w+)\}")
_DAY = {"YYYY": r"\d{4}", "MM": r"\d{2}", "DD": r"\d{2}"}
"""The parts of a day in a path; they have a fixed width, as in TFX, so that one day has one spelling."""
_DIGITS = {"SPAN": r"\d+", "VERSION": r"\d+", **_DAY}
_EPOCH = datetime.date(1970, 1, 1)
_CHOICE = re.compile(r"\s*(\d{4}-\d{2}-\d{2}|\d+)\s*(?:-\s*(\d{4}-\d{2}-\d{2}|\d+)\s*)?")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataFile:
    """One file of a span."""

    path: str
    """Where to open it."""
    relative: str
    """The path below the fixed part of the pattern; the file's name in fingerprints and reports."""
    size: int
    """Bytes as stored."""
    modified: int
    """Modification time in nanoseconds since the epoch."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Span:
    """One span in the one version that counts."""

    number: int
    version: int
    files: Sequence[DataFile]
    """Sorted by path; at least one."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Selection:
    """The files that a run reads."""

    spans: Sequence[Span]
    """In ascending order; at least one."""
    fingerprint: str
    """SHA-256 in hexadecimal over names, sizes and content (or modification times) of all files."""

    @property
    def files(self) -> list[DataFile]:
        """All files, span by span."""
        return [file for span in self.spans for file in span.files]

    @property
    def newest(self) -> Span:
        """The span with the highest number."""
        return self.spans[-1]


def resolve(data: settings.Data, *, spans: str | None = None) -> Selection:
    """Finds the files of the chosen spans.

    Args:
        data: the section that says where the data lies and how many spans a run reads.
        spans: `None` for the window of the latest `data.window` spans, or numbers and ranges: `"3"`, `"2-5"`,
            `"1,3-4"`. Days are written as such: `"2024-02-29"`, `"2024-02-01 - 2024-02-29"`.

    Returns:
        The chosen spans, each in its latest version, with the fingerprint of their files.

    Raises:
        BadInput: the pattern cannot be used or matches nothing, or a span that was asked for is not there.
    """
    wanted = None if spans is None else ranges(spans)
    found = _latest_versions(data.path)
    chosen = found[-data.window :] if wanted is None else _choose(found, wanted, pattern=data.path)
    return Selection(spans=tuple(chosen), fingerprint=_fingerprint(chosen))


def dated(pattern: str) -> bool:
    """Tells whether the pattern's spans are days."""
    return "{YYYY}" in pattern


def name_of(number: int, *, pattern: str) -> str:
    """Writes a span's number as people know it: a day where the pattern has days."""
    return (_EPOCH + datetime.timedelta(number)).isoformat() if dated(pattern) else str(number)


def unchanged(file: DataFile) -> bool:
    """Tells whether the file is still as it was when it was chosen: of the same size and modification time."""
    try:
        return _stat(file.path, "") == dataclasses.replace(file, relative=file.path.lstrip("/"))
    except Exception as error:  # TensorFlow's errors are no OSErrors, and naming them would import it.
        if isinstance(error, OSError) or _remote(file.path):
            return False
        raise


def fixed_part(pattern: str) -> str:
    """Names the folder below which all files of `pattern` lie: everything before the first component that varies."""
    fixed = list(itertools.takewhile(lambda part: not _varies(part), pattern.split("/")))
    if len(fixed) == len(pattern.split("/")):
        fixed = fixed[:-1]
    return "/".join(fixed) or ("/" if pattern.startswith("/") else "")


# --- matching --------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Match:
    span: int
    version: int
    spelling: tuple[str, ...]
    """The numbers as they are written in the path: "7" and "07" are one span but not one folder."""
    path: str


def _varies(part: str) -> bool:
    return bool(_PLACEHOLDER.search(part)) or glob.has_magic(part)


def _latest_versions(pattern: str) -> list[Span]:
    """Lists all spans in ascending order, each with the files of its latest version."""
    _check_placeholders(pattern)
    base = fixed_part(pattern)
    matches, unfinished = _matches(pattern, base)
    if not matches:
        raise BadInput([_nothing_found(pattern, base, unfinished)])
    by_span: dict[int, dict[int, list[_Match]]] = {}
    for match in matches:
        by_span.setdefault(match.span, {}).setdefault(match.version, []).append(match)
    latest = {number: max(versions) for number, versions in by_span.items()}
    problems = [
        problem
        for number, version in sorted(latest.items())
        for problem in _ambiguous(number, by_span[number][version], pattern)
    ]
    if problems:
        raise BadInput(problems)
    return [
        Span(
            number=number,
            version=version,
            files=tuple(_stat(match.path, base) for match in sorted(by_span[number][version], key=lambda m: m.path)),
        )
        for number, version in sorted(latest.items())
    ]


def _check_placeholders(pattern: str) -> None:
    names = set(_PLACEHOLDER.findall(pattern))
    unknown = sorted(names - set(_DIGITS))
    parts = sorted(names & set(_DAY))
    problems = []
    if unknown:
        problems.append(
            Problem(
                where="data.path",
                found=", ".join(f"{{{name}}}" for name in unknown) + f" in {pattern!r}",
                expected="no other placeholders than {SPAN}, {VERSION} and {YYYY}, {MM}, {DD}",
                action="Write * for a part of the path that varies without being a number of span or version.",
            )
        )
    if parts and (len(parts) < len(_DAY) or "SPAN" in names):
        problems.append(
            Problem(
                where="data.path",
                found=", ".join(f"{{{name}}}" for name in parts) + (" and {SPAN}" if "SPAN" in names else ""),
                expected="either {SPAN} or all of {YYYY}, {MM} and {DD}",
                action="Let a span be a number or a day; write * for what varies besides.",
            )
        )
    if problems:
        raise BadInput(problems)


def _ambiguous(number: int, matches: Sequence[_Match], pattern: str) -> Iterator[Problem]:
    spellings = sorted({match.spelling for match in matches})
    if len(spellings) > 1:
        examples = [next(m.path for m in matches if m.spelling == spelling) for spelling in spellings]
        yield Problem(
            where=pattern,
            found=f"span {name_of(number, pattern=pattern)} written in {len(spellings)} ways: "
            f"{', '.join(examples[:_SHOWN])}",
            expected="one folder or file name for one span and version",
            action="Remove or rename the ones that are not meant.",
        )


def _matches(pattern: str, base: str) -> tuple[list[_Match], int]:
    """Lists the files that match, and counts those that would but are still being written."""
    found: list[_Match] = []
    unfinished = 0
    impossible = []
    for path, groups in _paths(pattern):
        if _unfinished(path, base):
            unfinished += 1
            continue
        days = {"".join(texts) for texts in zip(*(groups.get(part, ()) for part in _DAY), strict=True)}
        spans = groups.get("SPAN", [])
        versions = groups.get("VERSION", [])
        if len(days) > 1 or len(set(map(int, spans))) > 1 or len(set(map(int, versions))) > 1:
            continue
        try:
            number = _number_of_day(days.pop()) if days else int(spans[0]) if spans else 0
        except ValueError:
            impossible.append(_no_such_day(path))
            continue
        version = int(versions[0]) if versions else 0
        found.append(_Match(span=number, version=version, spelling=(*spans, *versions), path=path))
    if impossible:
        raise BadInput(impossible)
    return found, unfinished


def _paths(pattern: str) -> Iterator[tuple[str, dict[str, list[str]]]]:
    """Yields the files that match, each with the numbers in the places of the placeholders."""
    found = False
    # What matches may be folders: then it is the files in them that count.
    for pattern_ in (pattern, f"{pattern.rstrip('/')}/*"):
        regex = re.compile(_regex(pattern_))
        for path in _glob(_PLACEHOLDER.sub("*", pattern_)):
            match = regex.fullmatch(path)
            if match is None:
                continue
            found = True
            groups: dict[str, list[str]] = {}
            for name, text in match.groupdict().items():
                groups.setdefault(name.rstrip("0123456789"), []).append(text)
            yield path, groups
        if found:
            return


def _number_of_day(digits: str) -> int:
    day = datetime.date(int(digits[:4]), int(digits[4:6]), int(digits[6:]))
    return (day - _EPOCH).days


def _no_such_day(path: str) -> Problem:
    return Problem(
        where=path,
        found="no day of the calendar in this name",
        expected="year, month and day that exist",
        action="Rename or remove it, or correct the order of {YYYY}, {MM} and {DD} in data.path.",
    )


def _regex(pattern: str) -> str:
    """Translates the glob with its placeholders; a placeholder that comes twice gets two groups."""
    counters = itertools.count()

    def translate(token: str) -> str:
        if token.startswith("{"):
            return rf"(?P<{token[1:-1]}{next(counters)}>{_DIGITS[token[1:-1]]})"
        if token.startswith("["):
            inside = token[1:-1].replace("\\", r"\\").replace("[", r"\[")
            return "[" + ("^" + inside[1:] if inside.startswith("!") else inside) + "]"
        special = {"**/": "(?:[^/]+/)*", "**": ".*", "*": "[^/]*", "?": "[^/]"}
        return special.get(token, re.escape(token))

    tokens = re.findall(
        r"\{(?:SPAN|VERSION|YYYY|MM|DD)\}|\*\*/|\*\*|\*|\?|\[!?\]?[^\]/]*\]|.", pattern, flags=re.DOTALL
    )
    return "".join(translate(token) for token in tokens)


def _unfinished(path: str, base: str) -> bool:
    parts = path[len(base) :].strip("/").split("/")
    return any(part.startswith((".", "_")) or part.endswith((".tmp", ".part")) for part in parts)


# --- choosing --------------------------------------------------------------------------------------------------------


def ranges(text: str) -> list[tuple[int, int]]:
    """Reads `"1,3-4"` as inclusive ranges.

    Raises:
        BadInput: the text is no choice of spans.
    """
    found = []
    for part in text.split(","):
        try:
            ends = _ends_of(part)
        except ValueError:
            ends = None
        if ends is None or ends[0] > ends[1]:
            raise BadInput(
                [
                    Problem(
                        where="spans",
                        found=repr(text),
                        expected='a span ("3", "2024-02-29"), a range from the lower to the higher ("2-5"), or several '
                        '("1,3-4")',
                        action="Write the numbers of the spans to read, or leave the option out for the latest ones.",
                    )
                ]
            )
        found.append(ends)
    return found


def _ends_of(part: str) -> tuple[int, int] | None:
    """Reads a span or a range; None if it is neither, ValueError if it names a day that is none."""
    match = _CHOICE.fullmatch(part)
    if match is None:
        return None
    low, high = (
        _number_of_day(text.replace("-", "")) if "-" in text else int(text) for text in (match[1], match[2] or match[1])
    )
    return low, high


def _choose(found: Sequence[Span], wanted: Iterable[tuple[int, int]], *, pattern: str) -> list[Span]:
    existing = {span.number: span for span in found}
    chosen: set[int] = set()
    problems = []
    for low, high in wanted:
        gaps = dated(pattern) or low >= _DATES_FROM
        needed: Iterable[int] = (low, high) if gaps else range(low, high + 1)
        missing = list(itertools.islice((number for number in needed if number not in existing), _SHOWN + 1))
        if missing:
            problems.append(_span_missing(missing, existing, pattern))
        chosen.update(number for number in existing if low <= number <= high)
    if problems:
        raise BadInput(problems)
    return [existing[number] for number in sorted(chosen)]


def _span_missing(missing: Sequence[int], existing: Iterable[int], pattern: str) -> Problem:
    names = [name_of(number, pattern=pattern) for number in dict.fromkeys(missing)]
    shown = ", ".join(names[:_SHOWN]) + (" and more" if len(names) > _SHOWN else "")
    return Problem(
        where=pattern,
        found=f"no span {shown}; there are {_ranges(sorted(existing), pattern=pattern)}",
        expected="every span that was asked for",
        action="Ask for spans that are there, or deliver the missing ones.",
    )


def _ranges(numbers: Sequence[int], *, pattern: str) -> str:
    """Writes `[1, 2, 3, 7]` as `1-3, 7`."""
    between = " - " if dated(pattern) else "-"
    groups: list[list[int]] = []
    for number in numbers:
        if groups and number == groups[-1][-1] + 1:
            groups[-1].append(number)
        else:
            groups.append([number])
    texts = [
        between.join(name_of(number, pattern=pattern) for number in dict.fromkeys((group[0], group[-1])))
        for group in groups
    ]
    return ", ".join(texts if len(texts) <= 2 * _SHOWN else [*texts[:_SHOWN], "...", *texts[-_SHOWN:]])


# --- the filesystem --------------------------------------------------------------------------------------------------


def _remote(path: str) -> bool:
    return "://" in path


def _glob(pattern: str) -> list[str]:
    if _remote(pattern):
        import tensorflow as tf

        try:
            return [path for path in tf.io.gfile.glob(pattern) if not tf.io.gfile.isdir(path)]
        except tf.errors.NotFoundError:
            return []
        except tf.errors.OpError as error:
            raise BadInput([_out_of_reach(pattern, error.message)]) from error
    # Hidden names are not matched by `glob`; they are the ones still being written, so nothing is lost by that.
    return [path for path in glob.glob(pattern, recursive=True) if os.path.isfile(path)]


def _out_of_reach(pattern: str, message: str) -> Problem:
    scheme = pattern.partition("://")[0]
    if "not implemented" in message:
        return Problem(
            where=pattern,
            found=f"the filesystem {scheme}://, which TensorFlow does not open",
            expected="a local path, or a filesystem that TensorFlow knows here, such as gs:// or hdfs://",
            action="Copy the files to one of these, or mount what they lie on.",
        )
    return Problem(
        where=pattern,
        found=f"a filesystem that does not answer ({' '.join(message.split())[:200]})",
        expected="files that this machine can list",
        action="Look at the name, the network and the credentials; then run again.",
    )


def _stat(path: str, base: str) -> DataFile:
    if _remote(path):
        import tensorflow as tf

        remote = tf.io.gfile.stat(path)
        size, modified = int(remote.length), int(remote.mtime_nsec)
    else:
        local = os.stat(path)
        size, modified = local.st_size, local.st_mtime_ns
    return DataFile(path=path, relative=path[len(base) :].lstrip("/"), size=size, modified=modified)


def _fingerprint(chosen: Sequence[Span]) -> str:
    """Digests the selection: by content where that is cheap, so that a touched or copied file is no new data."""
    files = [file for span in chosen for file in span.files]
    by_content = sum(file.size for file in files) <= CONTENT_LIMIT and not any(_remote(file.path) for file in files)
    digest = hashlib.sha256()
    for file in files:
        state = _content_digest(file.path) if by_content else str(file.modified)
        digest.update(f"{file.relative}\0{file.size}\0{state}\0".encode())
    return digest.hexdigest()


def _content_digest(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _nothing_found(pattern: str, base: str, unfinished: int) -> Problem:
    folder = base
    exists = _exists(folder)
    while not exists and folder not in ("", "/"):
        folder = os.path.dirname(folder)
        exists = _exists(folder)
    shown = folder or "."
    if unfinished:
        found = f"no finished file ({unfinished} that matched are still being written)"
        action = "Wait for the delivery to end and run again."
    elif folder != base:
        found = f"no folder {base}; {shown} holds {_listing(folder)}"
        action = "Correct data.path in the configuration, or put the data there."
    else:
        found = f"no file that matches; {shown} holds {_listing(folder)}"
        action = "Compare data.path in the configuration, placeholders and ending included, with these names."
    return Problem(where=pattern, found=found, expected="at least one file", action=action)


def _exists(folder: str) -> bool:
    if _remote(folder):
        import tensorflow as tf

        return bool(tf.io.gfile.isdir(folder))
    return os.path.isdir(folder or ".")


def _listing(folder: str) -> str:
    """Names the first files below `folder`, or what else is there."""
    if _remote(folder):
        import tensorflow as tf

        walk = tf.io.gfile.walk(folder)
    else:
        walk = os.walk(folder or ".")
    files: list[str] = []
    folders: list[str] = []
    # A bounded look: enough names to recognise one's data, on any size of tree.
    for root, below, names in itertools.islice(walk, 200):
        below.sort()
        files += [os.path.relpath(os.path.join(root, name), folder or ".") for name in sorted(names)]
        folders += [os.path.relpath(os.path.join(root, name), folder or ".") + "/" for name in below]
        if len(files) > _SHOWN:
            break
    names = files or folders
    if not names:
        return "nothing"
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
