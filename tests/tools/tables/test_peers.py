import pytest
from turbo4d.tools.tables import peers

from tests.tools.tables.test_bench import report, row


def at(system, seconds, decibels, share, label="", group="mid-UNet"):
    facts = {"psnr_db": decibels, "operations_share": share, "graph_breaks": 4, "recompiles": 2}
    return row(system, seconds, label=label, group=group, facts=facts)


ROWS = (
    row("eager", 9.0, group="mid-UNet"),
    at("peer:DeepCache", 3.0, 31.2, 0.5),
    at("peer:diffusers", 4.5, 45.0, 0.6, "PAB"),
    at("peer:cache-dit", 9.5, 200.0, 0.9),
    at("peer:diffusers", 8.5, 200.0, 1.0, "first-block"),
    at("turbo4d:exact", 6.0, 200.0, 1.0),
    at("turbo4d:fast", 2.0, 31.2, 0.3),
    at("turbo4d:faster", 1.0, 31.1, 0.2),
    at("peer:DeepCache", 1.0, 50.0, 0.2, group="Wan"),
    at("turbo4d:fast", 0.5, 49.0, 0.1, group="Wan"),
)


@pytest.fixture(scope="module")
def text():
    return peers.block(report(*ROWS))


def test_beside_a_package_stands_the_fastest_that_is_as_faithful(text):
    wanted = (
        "| `mid-UNet` | `DeepCache` | 3.00x | 31.2 dB | 50% | `fast` | **4.50x** | 31.2 dB | 30% |"
    )
    assert wanted in text.splitlines()


def test_where_a_package_is_faster_it_is_the_one_in_bold(text):
    wanted = "| `mid-UNet` | `diffusers` PAB | **2.00x** | 45.0 dB | 60% | `exact` | 1.50x |"
    assert any(line.startswith(wanted) for line in text.splitlines())
    assert "`Wan`" not in text
    everything = peers.beside_table(report(*ROWS))
    assert "| `Wan` | `DeepCache` | **9.00x** | 50.0 dB | 20% | none |  |  |  |" in everything
    assert everything.splitlines()[:4] == text.splitlines()[:4]


def test_rows_are_counted(text):
    assert "Of 3 rows on 2 networks turbo4d is at least as fast" in text
    assert "the same PSNR or better in 1;" in text
    assert "2 further settings of packages reused nothing or were no faster than eager" in text


def test_every_row_is_in_the_full_table():
    lines = peers.full_table(report(*ROWS)).splitlines()
    assert "| `peer:DeepCache` | 3 s | **3.00x** | 31.2 dB | 50% | 500 MB | 4 | 2 |  |" in lines
    assert sum(line.startswith("| `") for line in lines) == len(ROWS)
    assert [line for line in lines if line.startswith(("| mid-UNet", "| Wan"))]
