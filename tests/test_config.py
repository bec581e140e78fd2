"""Settings: defaults, then a file, then the environment, then flags; a wrong one stops the start."""

import json
import re
import stat
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from scheduler import config, configpage
from scheduler.cli import cli
from scheduler.errors import StartupError


@pytest.fixture(autouse=True)
def _nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No config.yaml but the test's own."""
    monkeypatch.chdir(tmp_path)


def load(**environ: str) -> config.Settings:
    return config.load(environ=environ)


def refusal(**arguments: Any) -> str:
    with pytest.raises(StartupError) as caught:
        config.load(**{"environ": {}, **arguments})
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_the_defaults_are_those_of_the_contract():
    settings = load()
    assert (settings.server.host, settings.server.port) == ("127.0.0.1", 8080)
    assert settings.prequeuer.ticker_interval_seconds == 1
    assert settings.prequeuer.event_timeframe_minutes == 10
    assert (settings.worker.count, settings.worker.max_retries) == (200, 3)
    assert (settings.log.level, settings.log.format, settings.log.stdout) == ("info", "text", True)
    assert settings.history.retention_days == 30
    assert settings.runs.response_max_bytes == 64 << 10
    assert settings.auth.anonymous_service == settings.metrics.token == settings.database.url == ""
    assert settings.auth.anonymous_from == ["127.0.0.0/8", "::1/128"]
    assert settings.worker.service_share == 0.75


@pytest.mark.parametrize(
    ("name", "text", "path", "value"),
    [
        ("PREQUEUER_TICKER_INTERVAL_SECONDS", "0.5", "prequeuer.ticker_interval_seconds", 0.5),
        ("PREQUEUER_EVENT_TIMEFRAME_MINUTES", "5", "prequeuer.event_timeframe_minutes", 5),
        ("WORKER_COUNT", "10", "worker.count", 10),
        ("WORKER_MAX_RETRIES", "0", "worker.max_retries", 0),
        ("LOG_LEVEL", "error", "log.level", "error"),
        ("LOG_LEVEL", "WARN", "log.level", "warn"),
        ("LOG_LEVEL", "Debug", "log.level", "debug"),
        ("LOG_FORMAT", "json", "log.format", "json"),
        ("GLOGS_LOG_TYPE", "json", "log.format", "json"),
        ("LOG_STDOUT", "false", "log.stdout", False),
        ("GLOGS_WRITE_STDOUT", "false", "log.stdout", False),
        ("GLOGS_WRITE_STDOUT", "true", "log.stdout", True),
        ("HISTORY_RETENTION_DAYS", "7", "history.retention_days", 7),
        ("SERVER_HOST", "0.0.0.0", "server.host", "0.0.0.0"),
        ("SERVER_PORT", "9999", "server.port", 9999),
        ("DATABASE_URL", "postgresql://a/b", "database.url", "postgresql://a/b"),
        ("DATA_DIR", "/some where", "data.dir", "/some where"),
        ("AUTH_BOOTSTRAP_TOKEN", "123", "auth.bootstrap_token", "123"),
        ("API_SCHEDULER_AUTH_USERNAME", "u", "auth.bootstrap_service", "u"),
        ("API_SCHEDULER_AUTH_PASSWORD", "p", "auth.bootstrap_token", "p"),
        ("AUTH_ANONYMOUS_FROM", "10.0.0.0/8, ::1", "auth.anonymous_from", ["10.0.0.0/8", "::1"]),
        ("EGRESS_DENY", "", "egress.deny", []),
        ("EGRESS_PUBLIC_ONLY", "true", "egress.public_only", True),
    ],
)
def test_the_environment_sets_what_it_names(name, text, path, value):
    section, setting = path.split(".")
    assert getattr(getattr(load(**{name: text}), section), setting) == value


def test_a_name_of_today_comes_before_its_older_one():
    settings = load(LOG_FORMAT="text", GLOGS_LOG_TYPE="json")
    assert settings.log.format == "text"


def test_the_order_is_defaults_file_environment_flags(tmp_path):
    (tmp_path / "config.yaml").write_text(
        "worker: {count: 1, max_retries: 1, poll_seconds: 1}\nlog: {level: debug}\n"
    )
    environ = {"WORKER_COUNT": "2", "WORKER_MAX_RETRIES": "2"}

    settings = config.load(environ=environ, flags={"worker.count": 3, "worker.max_retries": None})

    assert (settings.worker.count, settings.worker.max_retries) == (3, 2)
    assert (settings.worker.poll_seconds, settings.log.level) == (1, "debug")
    assert settings.worker.claim_batch == 500


def test_the_file_is_looked_for_in_two_places(tmp_path):
    (tmp_path / "config").mkdir()
    (tmp_path / "config/config.yaml").write_text("server: {port: 1}\n")
    assert load().server.port == 1
    (tmp_path / "config.yaml").write_text("server: {port: 2}\n")
    assert load().server.port == 2
    (tmp_path / "mine.yaml").write_text("server: {port: 3}\n")
    assert config.load(file="mine.yaml", environ={}).server.port == 3


@pytest.mark.parametrize("text", ["", "# nothing\n", "{}", "---\n"])
def test_an_empty_file_sets_nothing(tmp_path, text):
    (tmp_path / "config.yaml").write_text(text)
    assert load() == config.Settings()


def test_a_file_that_was_named_must_be_there():
    assert "mine.yaml" in refusal(file="mine.yaml")


@pytest.mark.parametrize(
    "text",
    [
        "[",
        "- a\n",
        "5\n",
        "worker: 5\n",
        "worker:\n",
        "a: b\n",
        "\x00",
        "worker: {count: {a: 1}}\n",
    ],
)
def test_a_file_that_is_no_tree_stops_the_start(tmp_path, text):
    (tmp_path / "config.yaml").write_text(text)
    if text == "worker:\n":  # a section whose settings are all comments
        assert load() == config.Settings()
        return
    with pytest.raises(StartupError, match=r"config\.yaml|worker\.count|\ba\b"):
        load()


@pytest.mark.parametrize(
    ("text", "wrong", "right"),
    [
        ("worker: {max_retrys: 1}", "worker.max_retrys", "worker.max_retries"),
        ("worker: {Count: 1}", "worker.Count", "worker.count"),
        ("wroker: {count: 1}", "wroker.count", "worker.count"),
        ("server: {prot: 1}", "server.prot", "server.port"),
        ("nonsense: {foo: 1}", "nonsense.foo", ""),
        ("worker: {1: 1}", "worker.1", ""),
    ],
)
def test_a_wrong_name_in_the_file_is_told_with_the_nearest_right_one(tmp_path, text, wrong, right):
    (tmp_path / "config.yaml").write_text(text)
    message = refusal()
    assert wrong in message and right in message


@pytest.mark.parametrize(
    ("name", "value", "path"),
    [
        ("SERVER_PORT", "http", "server.port"),
        ("SERVER_PORT", "65536", "server.port"),
        ("SERVER_PORT", "-1", "server.port"),
        ("SERVER_PORT", "", "server.port"),
        ("WORKER_COUNT", "0", "worker.count"),
        ("WORKER_COUNT", "1.5", "worker.count"),
        ("WORKER_MAX_RETRIES", "-1", "worker.max_retries"),
        ("WORKER_SERVICE_SHARE", "2", "worker.service_share"),
        ("LOG_LEVEL", "loud", "log.level"),
        ("LOG_FORMAT", "xml", "log.format"),
        ("LOG_STDOUT", "maybe", "log.stdout"),
        ("PREQUEUER_TICKER_INTERVAL_SECONDS", "nan", "prequeuer.ticker_interval_seconds"),
        ("PREQUEUER_TICKER_INTERVAL_SECONDS", "inf", "prequeuer.ticker_interval_seconds"),
        ("PREQUEUER_TICKER_INTERVAL_SECONDS", "0", "prequeuer.ticker_interval_seconds"),
        ("HISTORY_RETENTION_DAYS", "forever", "history.retention_days"),
        ("AUTH_ANONYMOUS_FROM", "somewhere", "auth.anonymous_from"),
    ],
)
def test_a_wrong_value_in_the_environment_is_told_with_its_path(name, value, path):
    message = refusal(environ={name: value})
    assert path in message


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("worker: {count: many}", "worker.count"),
        ("worker: {count: null}", "worker.count"),
        ("worker: {count: [1]}", "worker.count"),
        ("egress: {deny: [1]}", "egress.deny"),
        ("log: {level: loud}", "log.level"),
        ("data: {dir: {a: b}}", "data.dir"),
    ],
)
def test_a_wrong_value_in_the_file_is_told_with_its_path(tmp_path, text, path):
    (tmp_path / "config.yaml").write_text(text)
    message = refusal()
    assert path in message
    assert "xpected" in message or "must" in message


def test_a_wrong_flag_is_told_with_its_path():
    assert "worker.count" in refusal(flags={"worker.count": 0})


def test_no_message_shows_a_secret(tmp_path):
    (tmp_path / "config.yaml").write_text("auth: {bootstrap_token: [hidden-1]}\n")
    assert "hidden-1" not in refusal()


def test_what_other_schedulers_had_is_ignored_with_a_warning(tmp_path, capsys):
    (tmp_path / "config.yaml").write_text(
        "mongo: {uri: 'mongodb://x'}\nredis: {addr: 'x:1', db: 0}\nworker: {count: 7}\n"
    )
    settings = config.load(
        environ={
            "MONGO_URI": "x",
            "REDIS_ADDR": "y",
            "RABBITMQ_URL": "z",
            "WORKER_MAX_RETRIES": "4",
        }
    )
    assert (settings.worker.count, settings.worker.max_retries) == (7, 4)
    said = "".join(capsys.readouterr())
    for name in ("mongo", "redis", "MONGO_URI", "REDIS_ADDR", "RABBITMQ_URL"):
        assert name in said


def test_every_setting_has_a_name_in_the_environment():
    names = [config.environment_name(section, name) for section, name, _ in config.paths()]
    assert "WORKER_MAX_RETRIES" in names
    assert len(set(names)) == len(names)


def test_other_variables_of_the_environment_do_no_harm():
    assert load(PATH="/bin", HOME="/", WORKER="1", SERVER="x", LOG="y") == config.Settings()


# Where a value comes from ------------------------------------------------------------------------


def test_every_value_knows_where_it_comes_from(tmp_path):
    (tmp_path / "config.yaml").write_text("worker: {count: 1, batch_of_nothing: 1}\nlog:\n")
    assert config.read(environ={}).wrong[0].startswith("config.yaml: there is no setting")
    (tmp_path / "config.yaml").write_text("worker: {count: 1, max_retries: 1}\nserver: {port: 1}\n")
    loaded = config.read(
        environ={"SERVER_PORT": "2", "GLOGS_LOG_TYPE": "json", "WORKER_MAX_RETRIES": "2"},
        flags={"worker.max_retries": 3, "log.level": None},
    )
    assert {path: (at.kind, at.name) for path, at in loaded.sources.items()} == {
        "worker.count": ("file", "config.yaml"),
        "worker.max_retries": ("flag", "--worker-max-retries"),
        "server.port": ("environment", "SERVER_PORT"),
        "log.format": ("alias", "GLOGS_LOG_TYPE"),
    }
    assert loaded.settings.worker.max_retries == 3


@pytest.mark.parametrize(
    ("value", "wanted"),
    [("yes", True), ("On", True), ("no", False), ("OFF", False), ("1", True), ("false", False)],
)
def test_a_boolean_is_taken_as_people_write_it(tmp_path, value, wanted):
    assert load(LOG_STDOUT=value).log.stdout is wanted
    (tmp_path / "config.yaml").write_text(f"log: {{stdout: {value}}}\n")
    assert load().log.stdout is wanted


def test_a_key_that_stands_twice_is_an_error_with_its_line(tmp_path):
    for text, name in (
        ("worker:\n  count: 1\nlog: {}\nworker:\n  count: 2\n", "worker"),
        ("worker:\n  count: 1\n  poll_seconds: 1\n  count: 2\n", "count"),
    ):
        (tmp_path / "config.yaml").write_text(text)
        said = refusal()
        assert f"{name} stands there twice" in said and "line 4" in said


@pytest.mark.parametrize(
    "name",
    ["WORKER_MAX_RETRYS", "SERVER_PROT", "LOG_LEVLE", "DATABASE_STATEMENT_TIMEOUT", "LOG_FORMATS"],
)
def test_a_variable_that_is_nearly_a_setting_gets_a_warning(name, capsys):
    assert load(**{name: "1"}) == config.Settings()
    said = "".join(capsys.readouterr())
    right = {
        "WORKER_MAX_RETRYS": "WORKER_MAX_RETRIES",
        "SERVER_PROT": "SERVER_PORT",
        "LOG_LEVLE": "LOG_LEVEL",
        "LOG_FORMATS": "LOG_FORMAT",
    }.get(name, "DATABASE_STATEMENT_TIMEOUT_SECONDS")
    assert said == f"scheduler: {name} sets nothing; did you mean {right}?\n"


COMMON = """
    SERVER_SOFTWARE SERVER_NAME SERVER_ADDR SERVER_ADMIN SERVER_PROTOCOL SERVER_PATH
    DATABASE_HOST DATABASE_NAME DATABASE_USER DATABASE_PASSWORD DATABASE_PORT DATABASE_SCHEMA
    DATA_PATH DATA_HOME SECRET_KEY_BASE SECRET_NAME AUTH_TOKEN AUTH_URL WORKER_CLASS WORKER_ID
    WORKER_CONNECTIONS HTTP_PROXY HTTP_HOST HTTP_USER_AGENT TASKS_MAX HISTORY_FILE HISTSIZE LOG_FILE
    LOG_DIR LOG_PATH METRICS_PORT ADMIN_EMAIL ADMIN_PASSWORD LOGNAME DATABASE RUNS QUOTAS_
"""


def test_other_programs_variables_are_passed_by_in_silence(capsys):
    load(**dict.fromkeys(COMMON.split(), "x"))
    assert "".join(capsys.readouterr()) == ""


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("WORKER_COUNT", "many", "expected a whole number from 1 to 10000, got 'many'"),
        ("WORKER_POLL_SECONDS", "0", "expected a number above 0 and at most 86400, got '0'"),
        ("LOG_LEVEL", "loud", "expected one of debug, info, warn, error, got 'loud'"),
        ("LOG_STORE", "maybe", "expected true or false, got 'maybe'"),
        ("SERVER_TRUSTED_PROXIES", "there", "expected CIDRs like 10.0.0.0/8"),
    ],
)
def test_what_was_expected_is_said_once_and_in_words(name, value, said):
    message = refusal(environ={name: value})
    assert said in message and f"({name})" in message
    assert message.count("got") <= 1 and message.count("xpected") == 1


# The command -------------------------------------------------------------------------------------


def run(*words: str, code: int = 0) -> Any:
    found = CliRunner().invoke(cli, ["config", *words])
    assert found.exit_code == code, found.output
    return found


def test_config_show_prints_what_is_in_force_with_secrets_masked(monkeypatch, tmp_path):
    (tmp_path / "config.yaml").write_text("worker: {count: 5}\nadmin: {token: hidden-1}\n")
    monkeypatch.setenv("DATABASE_URL", "postgresql://someone:hidden-2@there/db")
    monkeypatch.setenv("GLOGS_LOG_TYPE", "json")
    shown = run("show", "--log-level", "debug").stdout
    assert "hidden" not in shown
    lines = {line.split(":")[0].strip(): line for line in shown.splitlines()}
    assert lines["count"].split() == ["count:", "5", "#", "file", "config.yaml"]
    assert lines["url"].endswith("# DATABASE_URL")
    assert lines["level"].split()[1:] == ["debug", "#", "flag", "--log-level"]
    assert lines["format"].endswith("# GLOGS_LOG_TYPE (an older name)")
    assert lines["port"].endswith("# default")

    told = json.loads(run("show", "-o", "json").stdout)
    assert told["file"] == "config.yaml"
    assert set(told["settings"]) == {f"{s}.{n}" for s, n, _ in config.paths()}
    assert told["settings"]["admin.token"]["value"] == "********"
    assert told["settings"]["worker.count"] == {
        "value": 5, "source": "file", "name": "config.yaml", "environment": "WORKER_COUNT",
    }  # fmt: skip


def test_what_config_show_prints_is_a_file_that_sets_the_same(monkeypatch, tmp_path):
    monkeypatch.setenv("EGRESS_DENY", "10.0.0.0/8, *.internal")
    monkeypatch.setenv("AUTH_BOOTSTRAP_SERVICE", "no")
    before = config.load()
    (tmp_path / "config.yaml").write_text(run("show").stdout)
    monkeypatch.delenv("EGRESS_DENY")
    monkeypatch.delenv("AUTH_BOOTSTRAP_SERVICE")
    assert config.load() == before


def test_config_init_writes_every_setting_and_each_default(tmp_path):
    run("init")
    file = tmp_path / "config.yaml"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert load() == config.Settings()
    text = file.read_text()
    assert max(map(len, text.splitlines())) <= 100
    for section, name, _ in config.paths():
        assert config.environment_name(section, name) in text
    for word in (*config.ALIASES, *config.FLAGS.values()):
        assert word in text

    # Each of them without its #: the same, and all of them there.
    file.write_text(re.sub(r"^  # ([a-z_]+: )", r"  \1", text, flags=re.MULTILINE))
    assert load() == config.Settings()
    assert len(config.read(environ={}).sources) == len(list(config.paths()))

    again = CliRunner().invoke(cli, ["config", "init"])
    assert isinstance(again.exception, StartupError) and "--force" in str(again.exception)
    run("init", "--force")
    assert file.read_text() == text
    assert isinstance(
        CliRunner().invoke(cli, ["config", "init", "no/such/folder.yaml"]).exception, StartupError
    )


def test_config_check_says_all_that_is_wrong(tmp_path, monkeypatch):
    file = tmp_path / "mine.yaml"
    file.write_text("worker: {cuont: 1, max_retries: -1}\nserver: {prot: 1}\nredis: {addr: x}\n")
    said = run("check", "mine.yaml", code=1).stdout
    for words in ("worker.cuont; did you mean worker.count", "server.port", "worker.max_retries",
                  "redis is ignored"):  # fmt: skip
        assert words in said
    file.write_text("worker: {count: 1}\n")
    monkeypatch.setenv("WORKER_COUNT", "many")
    assert run("check", "mine.yaml").stdout == "mine.yaml: 1 setting, all right\n"
    assert "WORKER_COUNT" in run("check", code=1).stdout
    file.write_text("egress: {deny: [10.0.0.0/99]}\n")
    assert "egress.deny" in run("check", "mine.yaml", code=1).stdout
    file.write_text("[")
    assert "YAML" in run("check", "mine.yaml", code=1).stdout


# The page ----------------------------------------------------------------------------------------


def test_the_page_of_settings_is_the_one_that_make_docs_writes():
    assert (Path(__file__).parent.parent / configpage.PAGE).read_text() == configpage.page()


def test_every_setting_and_every_section_has_a_sentence():
    for _, about, settings in configpage.sections():
        assert about.endswith("."), about
        for each in settings:
            assert each.words.rstrip(")").endswith((".", "]")), each.path


@given(
    st.dictionaries(
        st.sampled_from([f"{s}.{n}" for s, n, _ in config.paths()] + ["worker.cuont"]),
        st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(),
                  st.lists(st.text(), max_size=2)),
        max_size=4,
    )
)  # fmt: skip
def test_no_tree_breaks_the_reader(values):
    """Whatever stands in a file is read, or refused in one sentence."""
    tree: dict[str, dict[str, Any]] = {}
    for path, value in values.items():
        section, name = path.split(".")
        tree.setdefault(section, {})[name] = value
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "c.yaml"
        file.write_text(yaml.safe_dump(tree, allow_unicode=True))
        try:
            loaded = config.read(file=str(file), environ={})
            assert loaded.settings == config.read(file=str(file), environ={}).settings
        except StartupError as e:
            assert "\n" not in str(e)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SERVER_HOST", ""),
        ("SERVER_HOST", " "),
        ("ADMIN_TOKEN", " "),
        ("METRICS_TOKEN", "a\n"),
        ("AUTH_BOOTSTRAP_TOKEN", " a"),
    ],
)
def test_a_text_that_would_open_what_was_to_be_closed_is_refused(name, value):
    # No host is every address of the machine, and a blank token is what nobody sends.
    with pytest.raises(StartupError, match=name):
        config.load(environ={name: value})


def test_a_wrong_value_is_told_with_the_older_name_that_set_it():
    with pytest.raises(StartupError, match=r"log.format \(GLOGS_LOG_TYPE\): expected one of text"):
        config.load(environ={"GLOGS_LOG_TYPE": "xml"})


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("secret: {key: short}", "secret.key"),
        ("database: {url: 'mysql://u:hidden@h/x'}", "database.url"),
        ("auth: {bootstrap_service: 'a:b'}", "auth.bootstrap_service"),
        ("egress: {deny: [10/8]}", "egress.deny"),
        ("x: " + "[" * 5000, "nested too deep"),
    ],
    ids=["key", "url", "service", "egress", "deep"],
)
def test_config_check_knows_what_serve_would_refuse(tmp_path, text, what):
    (tmp_path / "c.yaml").write_text(text)
    run = CliRunner().invoke(cli, ["config", "check", str(tmp_path / "c.yaml")])
    assert run.exit_code == 1
    assert what in run.output
    assert "hidden" not in run.output
