from __future__ import annotations

from pathlib import Path

import pytest
from made_up import write_line

from mert_core.config import Config
from mert_core.errors import MertError
from mert_core.paths import Layout
from mert_core.report.leaderboard import leaderboard


def test_best_first_floors_last_and_stars_above_every_floor(tmp_path: Path, config: Config) -> None:
    layout = write_line(tmp_path, runs=("tiny", "95m"))
    lines = leaderboard(config, layout).splitlines()
    assert [line.split()[0] for line in lines[2:6]] == ["95m", "tiny", "random-weights", "mel-statistics"]
    assert lines[0].split("  ")[0] == "run"
    assert "0.520* [0.490, 0.550]" in lines[3]
    assert "0.810  [0.780, 0.840]" in lines[3]
    assert "*" not in lines[4] + lines[5]
    assert len({line.index("[") for line in lines[2:6]}) == 1


def test_nothing_probed_is_an_error(tmp_path: Path, config: Config) -> None:
    with pytest.raises(MertError, match="nothing has been probed"):
        leaderboard(config, Layout.at(tmp_path))
