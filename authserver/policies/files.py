"""The files of policies: `NAME.cedar` in the configured directory, and in its `library`, from which to choose."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from authserver.policies.states import State
from authserver.policy.catalogue import Catalogue
from authserver.policy.cedar import PolicySet
from authserver.policy.cedar_text import Policy, PolicyError, Problem, Source, read_policies

LIBRARY = "library"
Fingerprint = tuple[tuple[str, int, int], ...]


@dataclass(frozen=True, slots=True)
class PolicyFile:
    """One set of policies: a file. `state` is what it is in before anybody has moved it."""

    name: str
    path: Path
    state: State
    policies: tuple[Policy, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class InForce:
    """The policies that decide. `observed` are those together with what is only watched; None where nothing is."""

    enforced: PolicySet
    observed: PolicySet | None = None


def fingerprint(directory: Path) -> Fingerprint:
    """What changes when a file does, without reading it."""
    stats = ((str(path), path.stat()) for path in _paths(directory))
    return tuple((path, stat.st_mtime_ns, stat.st_size) for path, stat in stats)


def read_files(directory: Path) -> tuple[PolicyFile, ...]:
    """All sets of the directory by name, those of its library last. Raises `PolicyError` with all that is wrong.

    A set in the directory is enforced until somebody moves it; one in the library is a draft.
    """
    files, problems = dict[str, PolicyFile](), list[Problem]()
    if not directory.is_dir():
        raise PolicyError((Problem(str(directory), 0, None, "takes a directory with files NAME.cedar"),))
    for path in _paths(directory):
        try:
            policies = read_policies(Source(path.stem, str(path), path.read_text(encoding="utf-8")))
        except PolicyError as error:
            problems += error.problems
            continue
        except (OSError, ValueError) as error:
            problems.append(Problem(str(path), 0, None, str(error)))
            continue
        if path.stem in files:
            problems.append(Problem(str(path), 0, None, f"there is a set {path.stem} already"))
        state: State = "draft" if path.parent.name == LIBRARY else "enforce"
        files[path.stem] = PolicyFile(path.stem, path, state, policies)
    if problems:
        raise PolicyError(tuple(problems))
    return tuple(files.values())


def put_in_force(files: Sequence[PolicyFile], moved: Mapping[str, State], catalogue: Catalogue) -> InForce:
    """The policies of all sets, each in its state. Raises `PolicyError`; what is drafted must be sound, too.

    INVARIANT: a set whose state nobody knows is never skipped (test_a_set_that_nobody_has_moved_is_enforced), nor is
    one that was enforced and whose file went away (test_an_enforced_set_whose_file_is_gone_is_a_broken_reload).
    """
    names = {file.name for file in files}
    if gone := [name for name, state in moved.items() if state == "enforce" and name not in names]:
        problem = "is enforced, and there is no such file; policy draft  takes it out of use"
        raise PolicyError(tuple(Problem(f"{name}.cedar", 0, None, problem) for name in gone))
    PolicySet.build([policy for file in files for policy in file.policies], catalogue)
    states = {file.name: moved.get(file.name, file.state) for file in files}

    def built(*wanted: State) -> PolicySet:
        chosen = (file.policies for file in files if states[file.name] in wanted)
        return PolicySet.build([policy for policies in chosen for policy in policies], catalogue)

    enforced = built("enforce")
    if len(enforced.unpermitted()) == len(catalogue.names):
        place = str(files[0].path.parent) if files else "policies"
        raise PolicyError((Problem(place, 0, None, "no policy that is enforced permits anything"),))
    observed = built("enforce", "observe") if "observe" in states.values() else None
    return InForce(enforced, observed)


def _paths(directory: Path) -> Iterator[Path]:
    yield from sorted(directory.glob("*.cedar"))
    yield from sorted((directory / LIBRARY).glob("*.cedar"))
