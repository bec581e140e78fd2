"""The Python client package of a spec: what is in it, and what no document makes of it."""

import ast
import asyncio
import io
import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import psutil
import pytest

from conftest import eventually
from scheduler.errors import TooManyRequests, Unavailable
from scheduler.specs import package
from scheduler.specs.package import project_name, written

PET = {
    "type": "object",
    "required": ["name"],
    "properties": {"name": {"type": "string"}, "kind": {"type": "string", "enum": ["cat", "dog"]}},
}


def document(**more: Any) -> dict[str, Any]:
    return {
        "openapi": "3.0.3",
        "info": {"title": "Pets", "version": "1.2"},
        "paths": {
            "/pets/{id}": {
                "get": {
                    "operationId": "getPet",
                    "parameters": [
                        {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}
                    ],
                    "responses": {
                        "200": {
                            "description": "It",
                            "content": {"application/json": {"schema": PET}},
                        }
                    },
                }
            }
        },
        **more,
    }


ALICE, BOB = UUID(int=1), UUID(int=2)


async def zip_of(fields: dict[str, Any], name: str = "pets", service: UUID = ALICE) -> bytes:
    return await written(service, json.dumps(fields).encode(), name, 60)


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files of this test are made."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def unpacked(body: bytes, folder: Path) -> Path:
    with zipfile.ZipFile(io.BytesIO(body)) as archive:
        archive.extractall(folder)
    return folder


def python(code: str, path: Path, cwd: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=cwd, env={"PYTHONPATH": str(path)}, check=False,
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


# What is in it ------------------------------------------------------------------------------------


async def test_the_package_is_imported_and_calls_what_the_document_describes(receiver, tmp_path):
    receiver.then(body='{"name": "Tom", "kind": "cat"}')
    folder = unpacked(await zip_of(document()), tmp_path / "out") / "pets-client"
    code = (
        "from pets_client import Client; from pets_client.api.default import get_pet\n"
        f"pet = get_pet.sync('a b', client=Client(base_url={receiver.url!r}))\n"
        "print(pet.name, pet.kind)"
    )
    said = await asyncio.to_thread(python, code, folder, tmp_path)
    assert said == "Tom cat\n"
    assert [(call.method, call.path) for call in receiver.requests] == [("GET", "/pets/a%20b")]


async def test_a_package_of_what_the_generator_writes_wrongly_is_imported_too(tmp_path):
    patch = {"type": "object", "properties": {"seven": {"type": "integer", "const": 7}}}
    kinds = ("application/json-patch+json", "application/merge-patch+json")
    content = {kind: {"schema": {"$ref": "#/components/schemas/Patch"}} for kind in kinds}
    fields = document(components={"schemas": {"Patch": patch}}, openapi="3.1.0")
    fields["paths"]["/pets"] = {
        "patch": {
            "operationId": "patchPets",
            "requestBody": {"required": True, "content": content},
            "responses": {"200": {"description": "ok"}},
        }
    }
    folder = unpacked(await zip_of(fields), tmp_path / "out") / "pets-client"
    code = (
        "import warnings; warnings.simplefilter('error')\n"
        "from pets_client.api.default import patch_pets; from pets_client.models import Patch\n"
        "print(patch_pets.sync_detailed.__name__, Patch(seven=7).to_dict())"
    )
    assert await asyncio.to_thread(python, code, folder, tmp_path) == "sync_detailed {'seven': 7}\n"


async def test_the_same_document_is_the_same_zip_and_nothing_is_left_behind(temporary):
    bodies = await asyncio.gather(*(zip_of(document()) for _ in range(3)))
    assert len(set(bodies)) == 1
    with zipfile.ZipFile(io.BytesIO(bodies[0])) as archive:
        names = archive.namelist()
        assert names == sorted(names) and all(name.startswith("pets-client/") for name in names)
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert "pets-client/setup.py" not in names
    assert not list(temporary.iterdir())


async def test_a_document_without_paths_has_a_package_of_its_models():
    fields = document(components={"schemas": {"Pet": PET}})
    del fields["paths"]
    with zipfile.ZipFile(io.BytesIO(await zip_of(fields))) as archive:
        assert "pets-client/pets_client/client.py" in archive.namelist()


async def test_what_the_generator_left_out_is_named_in_the_package():
    fields = document()
    fields["paths"]["/odd"] = {
        "post": {
            "requestBody": {"content": {"application/x-odd": {"schema": {"type": "string"}}}},
            "responses": {"200": {"description": "It"}},
        }
    }
    with zipfile.ZipFile(io.BytesIO(await zip_of(fields))) as archive:
        assert b"/odd" in archive.read("pets-client/LEFT_OUT.txt")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("filmot", "filmot-client"),
        ("../../etc/passwd", "etc-passwd-client"),
        ("1password", "api-1password-client"),
        ("käse & wein", "k-se-wein-client"),
        ("日本", "api-client"),
        ("a" * 300, "a" * 60 + "-client"),
        ("import os; os", "import-os-os-client"),
    ],
)
def test_any_name_of_a_spec_becomes_a_name_of_a_package(name, expected):
    assert project_name(name) == expected
    assert project_name(name).replace("-", "_").isidentifier()


# What is refused ----------------------------------------------------------------------------------


async def test_a_refusal_says_why_and_names_nothing_of_this_machine(temporary):
    with pytest.raises(ValueError, match=r"Failed to parse OpenAPI document.*info") as caught:
        await zip_of({"openapi": "3.0.3", "paths": {}})
    assert str(temporary) not in str(caught.value) and len(str(caught.value)) <= 500
    assert not list(temporary.iterdir())


async def test_one_that_takes_too_long_is_killed_and_leaves_nothing(temporary):
    with pytest.raises(ValueError, match=r"took longer than 0\.01 s"):
        await written(ALICE, json.dumps(document()).encode(), "pets", 0.01)
    assert not list(temporary.iterdir())
    assert not children()


@pytest.mark.parametrize("yields", range(12))
async def test_one_that_is_given_up_before_it_has_begun_leaves_nothing(temporary, yields):
    asked = asyncio.create_task(zip_of(document()))
    while not any(temporary.iterdir()):
        await asyncio.sleep(0)
    for _ in range(yields):
        await asyncio.sleep(0)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    assert not list(temporary.iterdir())
    assert not children()


async def test_one_that_nobody_waits_for_any_more_is_killed_and_leaves_nothing(temporary):
    asked = asyncio.create_task(zip_of(document()))
    await eventually(lambda: children()[0])
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    assert not list(temporary.iterdir())
    assert not children()


def children() -> list[psutil.Process]:
    def ours(child: psutil.Process) -> bool:
        try:
            return "scheduler.specs.packaging" in child.cmdline()
        except psutil.Error:
            return False

    return [child for child in psutil.Process().children() if ours(child)]


async def test_packages_are_written_one_at_a_time_and_few_may_wait(monkeypatch):
    monkeypatch.setattr(package, "WAITING_MOST", 1)
    first, second = (asyncio.create_task(zip_of(document())) for _ in range(2))
    await eventually(lambda: children()[0])
    with pytest.raises(Unavailable, match="wait to be written"):
        await zip_of(document())
    assert len(children()) == 1
    assert await first == await second


async def test_services_take_turns_and_none_fills_the_line():
    done: list[str] = []

    async def wait(name: str, service: UUID) -> None:
        await zip_of(document(), name, service)
        done.append(name)

    tasks = [asyncio.create_task(wait(f"alice{n}", ALICE)) for n in range(4)]
    await eventually(lambda: children()[0])
    with pytest.raises(TooManyRequests, match="3 packages of this service wait to be written"):
        await zip_of(document())
    tasks.append(asyncio.create_task(wait("bob", BOB)))
    await asyncio.gather(*tasks)
    assert done.index("bob") <= 2


# Hostile documents --------------------------------------------------------------------------------

RUN = "__import__('pathlib').Path('PWNED').touch()"
PAYLOADS = (
    RUN,
    f'"""\n{RUN}\n"""',
    f'"; {RUN}; "',
    f"'; {RUN}; '",
    f'\\"; {RUN} #',
    f'")\n{RUN}\n(',
    f"\n{RUN}\n",
    f"{{{RUN}}}",
    f"{{{{ {RUN} }}}}",
    f"{{% set x = {RUN} %}}",
    f"#\n{RUN}",
    f"x\r{RUN}",
    f"x\u2028{RUN}",
    "../../PWNED",
    "/tmp/PWNED",
    "..",
    "a/b\\c",
    "\\",
    "\x00",
    "__init__",
    "class",
    "",
)


def operations(n: int, text: str) -> dict[str, Any]:
    """Paths with a text in each place where a text may stand, and one place in each."""
    plain: dict[str, Any] = {"responses": {"200": {"description": "It"}}}

    def parameter(**more: Any) -> dict[str, Any]:
        one = {"name": "p", "in": "query", "schema": {"type": "string"}, **more}
        return {**plain, "operationId": f"op{n}", "parameters": [one]}

    def sent(schema: dict[str, Any], content: str = "application/json") -> dict[str, Any]:
        return {**plain, "requestBody": {"content": {content: {"schema": schema}}}}

    def with_property(**schema: Any) -> dict[str, Any]:
        return sent({"type": "object", "properties": {"a": {"type": "string", **schema}}})

    places = {
        "id": {**plain, "operationId": text},
        "tag": {**plain, "tags": [text]},
        "summary": {**plain, "summary": text},
        "description": {**plain, "description": text},
        "answer": {"responses": {"200": {"description": text}}},
        "query": parameter(name=text),
        "header": parameter(name=text, **{"in": "header"}),
        "cookie": parameter(name=text, **{"in": "cookie"}),
        "about": parameter(description=text),
        "default": parameter(schema={"type": "string", "default": text}),
        "enum": parameter(schema={"type": "string", "enum": [text, "b"]}),
        "items": parameter(schema={"type": "array", "items": {"enum": [text]}}),
        "date": parameter(schema={"type": "string", "format": "date", "default": text}),
        "number": parameter(schema={"type": "number", "default": text}),
        "title": sent({"type": "object", "title": text, "properties": {"a": {"type": "string"}}}),
        "said": sent({"type": "object", "description": text, "properties": {}}),
        "property": sent({"type": "object", "properties": {text: {"type": "string"}}}),
        "its default": with_property(default=text),
        "its enum": with_property(enum=[text, "b"]),
        "its const": with_property(const=text),
        "its format": with_property(format=text),
        "its example": with_property(example=text),
        "form": sent({"type": "object", "properties": {text: {"type": "string"}}}, "multipart/form-data"),
        "content": sent({"type": "string"}, text),
        "answered": {"responses": {"200": {"description": "It", "content": {
            "application/json": {"schema": {"type": "object", "title": f"{text}_", "properties": {text: PET}}}
        }}}},
    }  # fmt: skip
    paths = {f"/{n}/{place}": {"post": operation} for place, operation in places.items()}
    return paths | {f"/{n}/{text}": {"get": plain}}


def hostile(texts: Sequence[str], info: str = "It") -> dict[str, Any]:
    found: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": info, "version": info, "description": info},
        "servers": [{"url": text} for text in texts],
        "tags": [{"name": text, "description": text} for text in texts],
        "paths": {},
        "components": {"schemas": dict.fromkeys(texts, PET)},
    }
    for n, text in enumerate(texts):
        found["paths"].update(operations(n, text))
    return found


WALK = """
import importlib, inspect, pkgutil
import it_client
names = [found.name for found in pkgutil.walk_packages(it_client.__path__, "it_client.")]
for name in names:
    module = importlib.import_module(name)
    for made in vars(module).values():
        if inspect.isclass(made) and made.__module__ == name and ".models." in name:
            try:
                made.from_dict({})
            except (KeyError, TypeError, AttributeError):
                pass
print(len(names))
"""


async def harmless(fields: dict[str, Any], tmp_path: Path) -> tuple[int, int]:
    """Import all of a package; return how many modules it has, and what was left out."""
    body = await zip_of(fields, "it")
    left_out = 0
    with zipfile.ZipFile(io.BytesIO(body)) as archive:
        for name in archive.namelist():
            assert name.startswith("it-client/") and ".." not in name.split("/"), name
            if name.endswith(".py"):
                ast.parse(archive.read(name))
            if name.endswith("LEFT_OUT.txt"):
                left_out = len(archive.read(name).splitlines())
    folder = unpacked(body, tmp_path / "out") / "it-client"
    empty = tmp_path / "empty"
    empty.mkdir()
    modules = int(await asyncio.to_thread(python, WALK, folder, empty))
    assert not list(empty.iterdir()) and not list(tmp_path.rglob("PWNED*"))
    assert not list(Path("/tmp").glob("PWNED*"))
    return modules, left_out


async def test_no_text_of_a_document_is_run_or_leaves_the_package(tmp_path, temporary):
    modules, left_out = await harmless(hostile(PAYLOADS), tmp_path)
    assert modules > 20 * len(PAYLOADS) and left_out < 5 * len(PAYLOADS)
    assert not list(temporary.iterdir())


@pytest.mark.parametrize("at", [0, 1, 2, 4, 9, 12, 18])
async def test_no_text_about_a_document_is_run(at, tmp_path):
    modules, _ = await harmless({**document(), **hostile((), PAYLOADS[at])}, tmp_path)
    assert modules > 3


FENCED = """
import pathlib, sys
from scheduler.specs.packaging import Fence, Unwritten
sys.addaudithook(Fence(pathlib.Path.cwd().resolve()))
try:
    {}
except Unwritten as e:
    print("refused", e)
"""


@pytest.mark.parametrize(
    ("code", "allowed"),
    [
        ("open('in', 'w').close()", True),
        ("pathlib.Path('folder').mkdir()", True),
        ("open('/etc/hosts').read()", True),
        ("open('../out', 'w')", False),
        ("pathlib.Path('/tmp/PWNED').touch()", False),
        ("pathlib.Path('../folder').mkdir()", False),
        ("pathlib.Path('in').symlink_to('/etc')", False),
        ("pathlib.Path('../x').unlink()", False),
        ("pathlib.Path('x').rename('../y')", False),
        ("import os; os.system('true')", False),
        ("import subprocess; subprocess.run(['true'])", False),
        ("import socket; socket.create_connection(('127.0.0.1', 9))", False),
        ("import urllib.request; urllib.request.urlopen('http://127.0.0.1:9')", False),
    ],
)
def test_the_generator_is_fenced_in(code, allowed, tmp_path):
    source = Path(package.__file__).parents[2]
    said = python(FENCED.format(code), source, tmp_path)
    assert said.startswith("refused") is not allowed


def test_the_server_imports_nothing_of_the_generator():
    code = (
        "import sys, scheduler.server, scheduler.specs.package\n"
        "print([name for name in sys.modules if name.startswith('openapi_python_client')])"
    )
    source = Path(package.__file__).parents[2]
    assert python(code, source, source) == "[]\n"
