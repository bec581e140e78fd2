"""Settings: defaults, then a file, then the environment, then flags; a wrong one stops the start."""

from pathlib import Path
from typing import Any

import pytest

from scheduler import config
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
