"""The house rules catch what they are for: each is broken once here, and its exception is granted."""

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

_ROOT = Path(__file__).parents[3]


def _load_check_shape() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check_shape", _ROOT / "tools" / "check_shape.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["check_shape"] = module
    spec.loader.exec_module(module)
    return module


check_shape = _load_check_shape()

_LONG = "    x = 1\n" * 41
_ANY = "src/kohakuriver/host/control/loop.py"
_TEST = "tests/unit/host/control/test_loop.py"
# Put together here, so that this file does not break the rules that it tests.
_OPEN = "TO" + "DO"
_HOME = "/ho" + "me/someone/data"


def _sentences(path: str, text: str) -> list[str]:
    return [fault.sentence for fault in check_shape.faults_in(check_shape.Source(path, text))]


@pytest.mark.parametrize(
    ("path", "text", "expected"),
    [
        ("src/kohakuriver/host/utils.py", "", "names no subject"),
        ("src/kohakuriver/host/task_manager.py", "", "names no subject"),
        ("tests/support/common/lab.py", "", "names no subject"),
        (_ANY, "x = 1\n" * 401, "more than one subject"),
        (_ANY, f"def f():\n{_LONG}", "at most 40"),
        (_ANY, f"async def f():\n{_LONG}", "at most 40"),
        (_ANY, f"# {_OPEN}: later\n", "number of its issue"),
        ("docs/install.md", f"{_OPEN}\n", "number of its issue"),
        ("docs/install.md", f"cd {_HOME}\n", "particular machine"),
        ("requirements.lock", "--index-url https://mirror.example/simple\n", "names a server"),
        ("pyproject.toml", 'url = "https://mirror.example"\n', "names a server"),
        (_ANY, "asyncio.create_task(work())\n", "without an owner"),
        (_ANY, "asyncio.get_running_loop().create_task(work())\n", "without an owner"),
        (_ANY, "asyncio.ensure_future(work())\n", "without an owner"),
        (_ANY, "def f():\n    kept = asyncio.create_task(work())\n", "without an owner"),
        (_ANY, "try:\n    f()\nexcept Exception:\n    pass\n", "swallowed"),
        (
            _ANY,
            "def f():\n    try:\n        g()\n    except BaseException:\n        return None\n",
            "swallowed",
        ),
        (_ANY, "try:\n    f()\nexcept:\n    ...\n", "swallowed"),
        (_ANY, "try:\n    f()\nexcept (SystemExit, Exception):\n    ...\n", "swallowed"),
        (_ANY, "with contextlib.suppress(KeyError, Exception):\n    f()\n", "swallowed"),
        (_ANY, "if task.state == 'running':\n    f()\n", "compared as a string"),
        (_ANY, "ok = node_status in ('online', 'pending')\n", "compared as a string"),
        ("src/kohakuriver/models/tasks.py", "import pydantic\n", "may not import pydantic"),
        ("src/kohakuriver/scheduling/queue.py", "from attrs import define\n", "may not import attrs"),
        ("src/kohakuriver/config/host.py", "import yaml\n", "may not import yaml"),
        ("src/kohakuriver/wire/messages.py", "import pydantic\n", "may not import pydantic"),
        (_ANY, "import sqlite3\n", "nowhere else in the host"),
        (_ANY, "from sqlalchemy.dialects import sqlite\n", "nowhere else in the host"),
        (
            "src/kohakuriver/host/store/writes.py",
            "from sqlalchemy.dialects.sqlite import insert\n",
            "nowhere else",
        ),
        (_TEST, "assert pool._idle\n", "_idle is a part's own"),
        (_TEST, "part._link = link\n", "_link is a part's own"),
        (_TEST, "patch.setattr(module, '_PAUSE_SECONDS', 0)\n", "_PAUSE_SECONDS is a part's own"),
        (_TEST, "patch.setattr('kohakuriver.serving._x', 0)\n", "_x is a part's own"),
    ],
)
def test_a_broken_rule_is_found(path: str, text: str, expected: str) -> None:
    sentences = _sentences(path, text)
    assert len(sentences) == 1, sentences
    assert expected in sentences[0]


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (_ANY, "# shape: one table, made by a program\n" + "x = 1\n" * 401),
        (_ANY, f"def f():  # shape: one long table\n{_LONG}"),
        (_ANY, 'def f():\n    """' + "text\n" * 60 + '    """\n    return 1\n'),
        ("tests/unit/test_long.py", f"def test_story():\n{_LONG}"),
        (_ANY, f"# {_OPEN} (#12): later\n"),
        (_ANY, "async with asyncio.TaskGroup() as group:\n    group.create_task(work())\n"),
        (_ANY, "self._task = asyncio.create_task(work())\n"),
        (_ANY, "tasks.add(asyncio.create_task(work()))\n"),
        (_ANY, "async def f():\n    kept = asyncio.create_task(work())\n    await kept\n"),
        (_ANY, "try:\n    f()\nexcept KeyError:\n    pass\n"),
        (_ANY, "with contextlib.suppress(KeyError):\n    f()\n"),
        (_ANY, "try:\n    f()\nexcept Exception:\n    log.exception('request')\n"),
        (_ANY, "ok = task.state is TaskState.RUNNING\n"),
        (_ANY, "ok = container.state == 'exited'  # shape: the engine's own word\n"),
        ("tests/unit/test_api.py", "assert task.state == 'running'\n"),
        ("src/kohakuriver/config/loading.py", "from kohakuengine import Config\n"),
        ("src/kohakuriver/wire/messages.py", "import msgspec\nfrom kohakuriver.models import enums\n"),
        ("src/kohakuriver/host/app.py", "import fastapi\n"),
        (
            "src/kohakuriver/host/store/sqlite/disk.py",
            "import sqlite3\nfrom sqlalchemy.dialects import sqlite\n",
        ),
        (_ANY, "import sqlalchemy\nfrom sqlalchemy import dialects\n"),
        ("tools/setup.sh", "curl --unix-socket x http://localhost/_ping\n"),
        ("src/kohakuriver/host/commons_licence.py", ""),
        (_ANY, "other._x = 1\n"),
        (_TEST, "class Own:\n    def __init__(self):\n        self._x = 1\nassert Own()._x\n"),
        (_TEST, "usage = usage._replace(free=0)\nassert self._x and super()._y and x.__class__\n"),
        (_TEST, "ssh = connection._transport  # shape: of a library that offers nothing else\n"),
    ],
)
def test_what_the_rules_permit_passes(path: str, text: str) -> None:
    assert _sentences(path, text) == []


_FILES = {
    "kohakuriver/__init__.py": "",
    "kohakuriver/host/__init__.py": "",
    "kohakuriver/host/queue.py": '# shape: small\n"""Places."""\n\n\nclass Place:\n    number = 1\n',
    "kohakuriver/host/control/__init__.py": "",
    "kohakuriver/host/control/loop.py": "# shape: small\nfrom kohakuriver.host import queue\n",
    "kohakuriver/host/store/__init__.py": "",
    "kohakuriver/host/store/rows.py": "# shape: small\nfrom kohakuriver.host.queue import Place\n",
}
_IMPORTS_ROWS = "# shape: small\nif TYPE_CHECKING:\n    import kohakuriver.host.store.rows\n"
_LONG_FUNCTION = "def f{0}():\n" + "".join(f"    x = {{0}} + {number}\n" for number in range(30))
_SIX_LINES = "".join(f"    x[{number}] = f(x)\n" for number in range(6))


def _faults_among(changed: dict[str, str]) -> list[str]:
    files = {**_FILES, **changed}
    sources = [check_shape.Source(f"src/{path}", text) for path, text in files.items()]
    return [fault.sentence for fault in check_shape.faults_among(sources)]


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        (
            {
                "kohakuriver/host/store/rows.py": "# shape: small\nfrom kohakuriver.host.store import size\n",
                "kohakuriver/host/store/size.py": _IMPORTS_ROWS,
            },
            "a circle of imports: kohakuriver.host.store.rows -> kohakuriver.host.store.size -> kohakuriver",
        ),
        (
            {
                "kohakuriver/host/store/rows.py": "# shape: small\nimport kohakuriver.host.control.loop\n",
                "kohakuriver/host/control/turn.py": "def f():\n    from kohakuriver.host.store import size\n",
                "kohakuriver/host/store/size.py": "# shape: small\n",
            },
            "kohakuriver.host.control and kohakuriver.host.store import each other",
        ),
        (
            {
                "kohakuriver/host/store/tables/users.py": "# shape: small\n",
                "kohakuriver/host/store/tables/tasks.py": "import kohakuriver.host.store.queries.lists\n",
                "kohakuriver/host/store/queries/lists.py": "# shape: small\n",
                "kohakuriver/host/store/queries/names.py": "import kohakuriver.host.store.tables.users\n",
            },
            "kohakuriver.host.store.queries and kohakuriver.host.store.tables import each other",
        ),
        (
            {f"kohakuriver/host/store/rows_{number}.py": "" for number in range(15)},
            "16 modules in one folder",
        ),
        (
            {
                "kohakuriver/host/store/size.py": "",
                "kohakuriver/host/store/rows.py": "import kohakuriver.host.store.size\n",
            },
            "0 lines that only kohakuriver.host.store.rows imports",
        ),
        ({"kohakuriver/many.py": "\n".join(map(_LONG_FUNCTION.format, range(9)))}, "up to 31 lines"),
        ({"kohakuriver/broad.py": "try:\n    f()\nexcept Exception:\n    log()\n"}, "1 broad handlers"),
        ({f"kohakuriver/{name}.py": f"def {name}(x):\n{_SIX_LINES}" for name in "ab"}, "12 of the 24 lines"),
        ({"kohakuriver/a.py": '"""See `host.store.cells`."""\n'}, "nothing is named host.store.cells"),
        ({"kohakuriver/a.py": "# See `Place.size`.\n"}, "nothing is named Place.size"),
        ({"kohakuriver/a.py": "x = 1  # as `read_place` says\n"}, "nothing is named read_place"),
        ({"kohakuriver/a.py": 'x = 1\n"""An `OldPlace`."""\n'}, "nothing is named OldPlace"),
        ({"kohakuriver/a.py": '"""See `host/cells.py`."""\n'}, "there is no host/cells.py"),
    ],
)
def test_what_is_wrong_with_files_together_is_found(changed: dict[str, str], expected: str) -> None:
    sentences = _faults_among(changed)
    assert len(sentences) == 1, sentences
    assert expected in sentences[0]


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"kohakuriver/a.py": '"""`host.queue.Place.number`, `queue.Place`, `Place.number`."""\n'},
        {"kohakuriver/a.py": 'KIND = "host.v2"\n"""`host.v2`, and `asyncio.timeout` of somebody else."""\n'},
        {"kohakuriver/a.py": '"""`host/queue.py`, `host/store`."""\n'},
        {f"kohakuriver/{name}.py": f"def {name}(x):\n{_SIX_LINES}" + "\n" * 600 for name in "ab"},
        {"kohakuriver/a.py": 'FIELD = "some_name: what"\n"""`some_name`."""\n'},
        {"kohakuriver/host/store/size.py": "from kohakuriver.host.store.rows import Place\n"},
        {
            "kohakuriver/host/store/tables/users.py": "# shape: small\n",
            "kohakuriver/host/store/state.py": "# shape: small\nimport kohakuriver.host.store.tables.users\n",
            "kohakuriver/host/store/tables/tasks.py": "import kohakuriver.host.store.state\n",
        },
    ],
)
def test_files_that_fit_together_pass(changed: dict[str, str]) -> None:
    assert _faults_among(changed) == []


# One line in one file for each import contract of pyproject.toml.
_FORBIDDEN_IMPORTS = {
    "models stand on": ("models/enums.py", "kohakuriver.wire.messages"),
    "scheduling knows": ("scheduling/__init__.py", "kohakuriver.wire.messages"),
    "config knows": ("config/__init__.py", "kohakuriver.dockerapi.client"),
    "wire knows": ("wire/__init__.py", "kohakuriver.scheduling"),
    "the idioms at": ("pauses.py", "kohakuriver.wire.messages"),
    "streams know": ("streams/__init__.py", "kohakuriver.files"),
    "files knows": ("files/__init__.py", "kohakuriver.dockerapi.client"),
    "network knows": ("network/__init__.py", "kohakuriver.wire.messages"),
    "the front door knows": ("front_door/__init__.py", "kohakuriver.wire.messages"),
    "dockerapi knows": ("dockerapi/__init__.py", "kohakuriver.wire.messages"),
    "only engines": ("runner/agent/__init__.py", "kohakuriver.dockerapi.client"),
    "host and runner": ("host/control/__init__.py", "kohakuriver.runner.engines.contract.engine"),
    "client knows": ("client/__init__.py", "kohakuriver.config"),
    "cli knows": ("cli/__init__.py", "kohakuriver.wire.messages"),
    "host/api knows": ("host/api/__init__.py", "kohakuriver.host.store"),
    "nothing below": ("host/store/__init__.py", "kohakuriver.host.api"),
    "backups know": ("host/backup/__init__.py", "kohakuriver.host.control"),
    "only who opens": ("host/control/vps/__init__.py", "kohakuriver.host.store.sqlite.dialect"),
    "engines know neither": ("runner/engines/docker/__init__.py", "kohakuriver.runner.engines.fake"),
    "the contract knows": ("runner/engines/contract/__init__.py", "kohakuriver.runner.engines.fake"),
    "rooms of the": ("host/control/tasks/__init__.py", "kohakuriver.host.control.cluster_control"),
    "engines do not": ("runner/engines/__init__.py", "kohakuriver.runner.agent"),
    "the runner stays": ("runner/api/__init__.py", "pydantic"),
}


@pytest.mark.parametrize(
    ("path", "fits"),
    [
        ("tests/unit/host/control/test_loop.py", True),
        ("tests/unit/test_version.py", True),
        ("tests/unit/tools/test_soak.py", True),
        ("tests/unit/host/queues/test_queue.py", False),
        ("tests/unit/test_data/test_queue.py", False),
        ("tests/engine/parts/test_pool.py", True),
    ],
)
def test_unit_tests_lie_where_the_program_does(path: str, fits: bool) -> None:
    program = ["__init__", "host/__init__", "host/control/__init__", "host/control/loop"]
    sources = [check_shape.Source(f"src/kohakuriver/{name}.py", "") for name in program]
    faults = check_shape.faults_among([*sources, check_shape.Source(path, "")])
    assert [fault.path for fault in faults] == ([] if fits else [path])


def test_every_import_contract_breaks_on_a_forbidden_import(tmp_path: Path) -> None:
    shutil.copytree(
        _ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info", "static")
    )
    shutil.copy(_ROOT / "pyproject.toml", tmp_path)
    for path, imported in _FORBIDDEN_IMPORTS.values():
        with (tmp_path / "src" / "kohakuriver" / path).open("a") as file:
            file.write(f"\nimport {imported}\n")
    lint = Path(sys.executable).with_name("lint-imports")
    result = subprocess.run(
        [lint, "--no-cache"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path / "src"), "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    broken = [line for line in result.stdout.splitlines() if " BROKEN" in line]
    kept = [line for line in result.stdout.splitlines() if " KEPT" in line]
    assert kept == [], result.stdout
    for contract in _FORBIDDEN_IMPORTS:
        assert any(line.startswith(contract) for line in broken), f"{contract} did not break: {result.stdout}"
