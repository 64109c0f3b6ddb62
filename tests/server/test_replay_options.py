"""`picker replay`: each option ends up in what is replayed."""

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from picker.server import replay_command
from picker.server.replay_command import replay
from picker.simulator.migration import Migration
from picker.simulator.replay_run import Setting
from picker.simulator.signals import Signals
from picker.simulator.summary import Slo

TRACE, POOL = "gen:shared?groups=5&share=0.3&rate=8&requests=40", "h100_sxm/llama-3-8b tp1:2"


@pytest.fixture
def replayed(monkeypatch: pytest.MonkeyPatch) -> list[Setting]:
    """What would have been replayed."""
    asked: list[Setting] = []

    def grid(setting: Setting, *_: Any) -> list[dict[str, Any]]:
        asked.append(setting)
        raise ValueError("enough is known")

    monkeypatch.setattr(replay_command, "replay_grid", grid)
    return asked


def ask(tmp_path: Path, *options: str) -> None:
    result = CliRunner().invoke(replay, [TRACE, "--pool", POOL, "--json", str(tmp_path / "out.json"), *options])
    assert result.output == "Error: enough is known\n"


def test_without_options_the_defaults_hold(replayed: list[Setting], tmp_path: Path) -> None:
    ask(tmp_path)
    assert replayed == [Setting(TRACE, POOL)]


def test_workload_and_engines_are_as_asked_for(replayed: list[Setting], tmp_path: Path) -> None:
    ask(tmp_path, "--alpha", "0.2", "--host-ms", "3", "--limit", "30", "--skip", "5", "--turns", "4", "--share-system")
    ask(tmp_path, "--warm-up", "7", "--regret-stride", "2", "--known-steps")
    assert replayed == [
        Setting(TRACE, POOL, alpha=0.2, host_ms=3.0, limit=30, skip=5, turns=4, share_system=True),
        Setting(TRACE, POOL, warm_up=7, regret_stride=2, known_steps=True),
    ]


def test_files_are_read(replayed: list[Setting], tmp_path: Path) -> None:
    events, shipped = tmp_path / "events.yaml", Path(replay_command.__file__).parents[1] / "simulator" / "data"
    events.write_text("[{at_s: 1, kind: leave, engine: 0}]")
    (models,) = shipped.glob("*.csv")
    ask(tmp_path, "--events", str(events), "--engine-models", str(models))
    assert replayed == [Setting(TRACE, POOL, engine_models=models.read_text(), events=events.read_text())]


def test_signals_are_as_late_as_asked_for(replayed: list[Setting], tmp_path: Path) -> None:
    delays = ("--decision-ms", "2", "--response-ms", "3", "--scrape-s", "0.2", "--event-lag-ms", "4")
    ask(tmp_path, *delays, "--detection-ms", "5", "--matching", "text")
    signals = Signals(
        decision_ms=2.0, response_ms=3.0, scrape_s=0.2, event_lag_ms=4.0, detection_ms=5.0, matching="text"
    )
    assert replayed == [Setting(TRACE, POOL, signals=signals)]


def test_moves_are_as_asked_for(replayed: list[Setting], tmp_path: Path) -> None:
    ask(tmp_path, "--kv", "compute", "--link-gbps", "10", "--transfers", "2", "--message-ms", "1")
    ask(tmp_path, "--handover-ms", "40", "--move-ahead")
    assert [setting.migration for setting in replayed] == [
        Migration(kv="compute", link_gbps=10.0, transfers=2, message_ms=1.0),
        Migration(handover_ms=40.0, ahead=True),
    ]


def test_what_counts_as_good_is_as_asked_for(replayed: list[Setting], tmp_path: Path) -> None:
    ask(tmp_path, "--slo-ttft-ms", "500", "--slo-ttft-ms-per-1k", "40", "--slo-tpot-ms", "30")
    assert [setting.slo for setting in replayed] == [Slo(500.0, 40.0, 30.0)]
