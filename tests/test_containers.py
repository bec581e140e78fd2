"""The image, the compose file and the examples of deploy/: read, and held against the settings."""

import asyncio
import configparser
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from scheduler import config
from scheduler.cli import COMMANDS

ROOT = Path(__file__).parent.parent
SETTINGS = {config.environment_name(section, name) for section, name, _ in config.paths()}
POSTGRES = {"PGUSER", "PGPASSWORD", "PGPORT", "POSTGRES_USER", "POSTGRES_PASSWORD", "POSTGRES_DB"}
OUTSIDE = {"PATH", "PYTHONUNBUFFERED", "PYTHONPATH", "DEV_PORT"}
DRAIN_S = config.Settings().worker.drain_seconds
UNITS = sorted((ROOT / "deploy").glob("*.service"))


def stages() -> list[tuple[str, str, list[tuple[str, str]]]]:
    """(name, base, instructions) of each stage of the Dockerfile."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    found: list[tuple[str, str, list[tuple[str, str]]]] = []
    for line in text.replace("\\\n", " ").splitlines():
        word, _, rest = line.strip().partition(" ")
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            found.append((name, base, []))
        elif word:
            found[-1][2].append((word, " ".join(rest.split())))
    return found


STAGES = {name: instructions for name, _, instructions in stages()}
APP = dict(STAGES["app"])


def test_the_last_stage_is_what_runs():
    names = [name for name, _, _ in stages()]
    assert names == ["build", "app", "test", ""]
    assert stages()[-1][1:] == ("app", [])


def test_every_base_is_slim_debian_of_a_named_version():
    outside = {base for _, base, _ in stages() if base not in STAGES}
    assert outside
    for base in outside:
        assert re.fullmatch(r"python:3\.\d+-slim-[a-z]+", base)


def test_what_runs_has_no_build_tools_and_is_not_root():
    ran = " ".join(rest for word, rest in STAGES["app"] if word == "RUN")
    assert "pip" not in ran and "gcc" not in ran and "build-essential" not in ran
    assert "--no-install-recommends tini" in ran
    assert int(APP["USER"]) > 0 and f"--uid {APP['USER']}" in ran
    assert STAGES["app"][-1][0] == "CMD"
    assert STAGES["test"][-3][0] != "USER" or STAGES["test"][-3][1] == APP["USER"]


def test_the_image_says_where_it_listens_and_where_its_data_is():
    values = dict(pair.split("=", 1) for pair in APP["ENV"].split())
    assert values["SERVER_HOST"] == "0.0.0.0"
    assert values["DATA_DIR"] == APP["VOLUME"] == "/data"
    assert values.keys() <= SETTINGS | OUTSIDE
    assert int(APP["EXPOSE"]) == config.Settings().server.port
    assert APP["STOPSIGNAL"] == "SIGTERM"
    assert json.loads(APP["ENTRYPOINT"]) == ["tini", "--", "scheduler"]
    assert json.loads(APP["CMD"])[0] in COMMANDS
    assert "org.opencontainers.image.licenses" in APP["LABEL"]


async def test_the_health_check_asks_the_port_that_is_set(receiver):
    command = json.loads(APP["HEALTHCHECK"].partition("CMD ")[2])
    for port, well in ((receiver.port, True), (1, False)):
        asking = await asyncio.create_subprocess_exec(
            sys.executable, *command[1:], env={"SERVER_PORT": str(port)}, stderr=subprocess.DEVNULL
        )
        assert (await asking.wait() == 0) is well
    assert [request.path for request in receiver.requests] == ["/health"]


def test_everything_that_is_copied_is_there():
    ignored = set((ROOT / ".dockerignore").read_text().split())
    for name in ("build", "test"):
        for word, rest in STAGES[name]:
            if word == "COPY":
                for source in rest.split()[:-1]:
                    assert (ROOT / source).exists() and source not in ignored


# Compose -----------------------------------------------------------------------------------------

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


def seconds(text: str) -> float:
    found = re.fullmatch(r"(\d+)(s|m|min)?", text)
    assert found is not None, text
    return int(found[1]) * (60 if found[2] in ("m", "min") else 1)


def test_a_plain_up_starts_the_app_and_a_postgres():
    plain = {name for name, service in SERVICES.items() if "profiles" not in service}
    assert plain == {"api", "worker", "postgres"}
    assert SERVICES["worker"]["deploy"]["replicas"] == 0
    assert {n: s["profiles"] for n, s in SERVICES.items() if "profiles" in s} == {
        "dev": ["dev"], "test": ["test"],
    }  # fmt: skip


def test_every_port_is_on_the_loopback_interface():
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert len(published) == 3
    assert all(port.startswith("127.0.0.1:") for port in published)
    assert SERVICES["postgres"]["ports"] == ["127.0.0.1:${PGPORT:-5434}:5432"]
    assert "ports" not in SERVICES["worker"]


@pytest.mark.parametrize("name", SERVICES)
def test_every_name_in_an_environment_is_a_setting(name):
    environment = SERVICES[name].get("environment", {})
    assert set(environment) <= SETTINGS | POSTGRES | OUTSIDE
    used = set(re.findall(r"\$\{(\w+)", json.dumps(SERVICES[name])))
    assert used <= SETTINGS | POSTGRES | OUTSIDE


def test_every_service_that_drains_may_finish():
    for name, service in SERVICES.items():
        assert seconds(service["stop_grace_period"]) > DRAIN_S, name


def test_the_workers_have_the_apis_key_and_answer_its_health_check():
    api, worker = SERVICES["api"], SERVICES["worker"]
    assert worker["volumes"] == api["volumes"] == ["data:/data"]
    assert worker["environment"] == api["environment"]
    assert worker["depends_on"]["api"]["condition"] == "service_healthy"
    words = worker["command"]
    assert words[0] == "worker" and words[0] in COMMANDS
    assert words[words.index("--health-port") + 1] == str(config.Settings().server.port)


def test_the_database_asks_for_a_password_and_lies_in_a_volume():
    postgres = SERVICES["postgres"]
    assert postgres["environment"]["POSTGRES_PASSWORD"].startswith("${POSTGRES_PASSWORD:-")
    assert "POSTGRES_HOST_AUTH_METHOD" not in postgres["environment"]
    assert "healthcheck" in postgres and "shm_size" in postgres
    assert (
        SERVICES["api"]["environment"]["PGPASSWORD"]
        == (postgres["environment"]["POSTGRES_PASSWORD"])
    )
    volumes = {v.split(":")[0] for s in SERVICES.values() for v in s.get("volumes", [])} - {"."}
    assert volumes == set(COMPOSE["volumes"])
    assert not any("pgadmin" in json.dumps(service) for service in SERVICES.values())


def test_every_image_has_a_major_version_or_is_built_here():
    for service in SERVICES.values():
        assert "build" in service or re.fullmatch(r"[a-z]+:\d+", service["image"])


def test_dev_runs_the_source_that_is_mounted():
    dev = SERVICES["dev"]
    assert ".:/app:ro" in dev["volumes"]
    assert dev["environment"]["PYTHONPATH"] == "/app/src"
    assert dev["command"] == ["serve", "--reload"]


# deploy/ -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_a_unit_stops_the_program_alone_and_waits_for_it(path):
    unit = configparser.RawConfigParser(strict=False)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(path.read_text())
    service = unit["Service"]
    assert service["KillMode"] == "mixed"
    assert seconds(service["TimeoutStopSec"]) > DRAIN_S
    assert service["StateDirectory"] == "scheduler" and service["User"] != "root"
    assert service["NoNewPrivileges"] == "yes" and service["ProtectSystem"] == "strict"
    program, command = service["ExecStart"].split()
    assert program.endswith("/bin/scheduler") and command in COMMANDS
    names = re.findall(r"^Environment=(\w+)=", path.read_text(), re.MULTILINE)
    assert names and set(names) <= SETTINGS


@pytest.mark.parametrize("path", sorted((ROOT / "deploy").iterdir()), ids=lambda path: path.name)
def test_every_setting_that_an_example_names_exists(path):
    text = path.read_text()
    words = set(
        re.findall(r"\b((?:SERVER|METRICS|DATABASE|SECRET|DATA|LOG|ADMIN)_[A-Z_]+)\b", text)
    )
    assert words <= SETTINGS
    for section, name in re.findall(r"\b(server|worker|database)\.([a-z_]+[a-z])\b", text):
        if name != "service":
            assert f"{section}_{name}".upper() in SETTINGS


def test_a_proxy_passes_the_headers_takes_the_bodies_and_waits():
    defaults = config.Settings()
    nginx = (ROOT / "deploy/nginx.conf").read_text()
    assert re.search(r"^\s*underscores_in_headers on;", nginx, re.MULTILINE)
    assert re.search(r"^\s*proxy_buffering off;", nginx, re.MULTILINE)
    assert "X-Forwarded-For $remote_addr;" in nginx
    size = re.search(r"client_max_body_size (\d+)m;", nginx)
    assert size is not None and int(size[1]) << 20 >= defaults.server.max_body_bytes
    assert nginx.count("{") == nginx.count("}")
    longest = 3600
    for path in ("nginx.conf", "Caddyfile"):
        waits = re.findall(r"timeout (\d+)s", (ROOT / "deploy" / path).read_text())
        assert max(map(int, waits)) > longest
    traefik = yaml.safe_load((ROOT / "deploy/traefik.yaml").read_text())["http"]
    limit = traefik["middlewares"]["scheduler-body"]["buffering"]["maxRequestBodyBytes"]
    assert limit >= defaults.server.max_body_bytes


# The wheel ---------------------------------------------------------------------------------------


def test_the_wheel_has_the_migrations_and_every_file_of_the_package():
    """What makes it leaves out what git ignores, and nothing else."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["packages"] == ["src/scheduler"]
    assert wheel["force-include"] == {"migrations": "scheduler/_migrations"}
    files = [
        str(path.relative_to(ROOT))
        for folder in ("src/scheduler", "migrations")
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    ]
    done = subprocess.run(
        ["git", "check-ignore", "--no-index", "--stdin"],
        cwd=ROOT, input="\n".join(files), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
