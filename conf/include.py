"""include=FILE: Python files of the user, which add rows to registry/ before the options are made from these rows.

The import of this module runs the files that the command line names, so that `--help`, every check and every command
know what they add. The environment variable MOONWALK_INCLUDE names them to the processes that a command starts, and
to programs without such an option. Nothing is ever run because a checkpoint names it.
"""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, ModuleType

from conf.option import option
from registry.plugins import RegistrationError, shown

ROOT = Path(__file__).resolve().parent.parent
VARIABLE = "MOONWALK_INCLUDE"  # files in full, separated as in PATH
WORDS = ("include", "+include", "++include", "--include")
PROGRAM_FOLDERS = ("scripts", "loss", "benchmarks")  # their programs have parsers of their own


def included_files(arguments: Sequence[str]) -> tuple[list[str] | None, list[str]]:
    """The files that a command line includes, as typed, and the arguments without them.

    Of several `include=` the last counts, as for every option. None: there is no `include=`.
    """
    files = None
    others = []
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        name, equals, value = word.partition("=")
        if word == "--include" and rest:
            value = rest.pop(0)
        elif name not in WORDS or not equals:
            others.append(word)
            continue
        files = _listed(value)
    return files, others


def _listed(value: str) -> list[str]:
    """The files in a value such as a.py, [a.py,b.py] or 'a.py'."""
    if value.startswith("[") and value.endswith("]"):
        value = value[1:-1]
    files = [file.strip().strip("'\"") for file in value.split(",")]
    return [file for file in files if file and file != "null"]


def run_file(file: str) -> None:
    """Run a Python file of the user, unless this process has run it before.

    A missing file, one that is no Python, and a name that is taken end the program in one sentence. Any other error
    keeps its traceback, from the line in that file.
    """
    path = os.path.abspath(file)
    if any(getattr(module, "__included__", None) == path for module in list(sys.modules.values())):
        return
    code = _compiled(file, path)
    module = ModuleType(_free_name(Path(path).stem))
    module.__file__ = path
    vars(module)["__included__"] = path
    sys.modules[module.__name__] = module
    folder = os.path.dirname(path)
    if folder not in sys.path:
        sys.path.append(folder)  # last, so that modules beside the file replace none of ours

    try:
        exec(code, vars(module))
    except RegistrationError as error:
        sys.exit(str(error))
    except Exception as error:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        import traceback  # only here, because `--help` would take a tenth longer

        entry = error.__traceback__
        traceback.print_exception(type(error), error, entry.tb_next if entry else None)
        sys.exit(1)


def _compiled(file: str, path: str) -> CodeType:
    if os.path.isdir(path):
        sys.exit(f"include={file} is a folder: name a Python file")
    try:
        source = Path(path).read_bytes()
        return compile(source, path, "exec", dont_inherit=True)
    except OSError as error:
        sys.exit(f"include={file} cannot be read: {error.strerror}")
    except SyntaxError as error:
        line = f", line {error.lineno}" if error.lineno else ""
        sys.exit(f"include={file}{line}: it is no Python: {error.msg}")
    except ValueError as error:  # bytes that no source has
        sys.exit(f"include={file}: it is no Python: {error}")


def _free_name(stem: str) -> str:
    """The name of the module of a file: the same in every process that includes the same files."""
    name = f"include_{stem}"
    count = 1
    while name in sys.modules:
        count += 1
        name = f"include_{stem}_{count}"
    return name


def include_for_this_program() -> list[str]:
    """Run the files that the command line names, or else those of the environment, and return their names."""
    program = Path(getattr(sys.modules["__main__"], "__file__", None) or "").resolve()
    typed = None
    if program.parent == ROOT:
        typed, _ = included_files(sys.argv[1:])
    elif program.parent in [ROOT / folder for folder in PROGRAM_FOLDERS]:
        typed, sys.argv[1:] = included_files(sys.argv[1:])

    files = typed
    if files is None:
        files = [shown(file) for file in os.environ.get(VARIABLE, "").split(os.pathsep) if file]
    for file in files:
        run_file(file)
    if typed is not None:
        os.environ[VARIABLE] = os.pathsep.join(os.path.abspath(file) for file in typed)
    return files


FILES = include_for_this_program()


@dataclass
class Included:
    """plugins"""

    include: list[str] = option(
        FILES,
        "Python files of yours, such as [my_ideas.py], which may add samplers, networks, data sets and more; type it in"
        " every command that uses them",
    )
