"""The command line as a user meets it: counts, files, messages and exit codes; every run is a process of its own."""

from __future__ import annotations

import gzip
import importlib
import json
import struct
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import click
import pytest

from akbypass import cli, truth
from akbypass.cli import demo, report
from akbypass.local.stack import Places
from akbypass.offline import RESULTS
from tests.support import ROOT, data


def akbypass(*arguments: object, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run one command to its end."""
    command = [sys.executable, "-m", "akbypass.cli", *map(str, arguments)]
    return subprocess.run(command, input=stdin, capture_output=True, cwd=ROOT, timeout=300, check=False)


def lines(path: Path) -> list[dict[str, object]]:
    """Rows of a JSON Lines file."""
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def pcap(*frames: bytes) -> bytes:
    """A nanosecond pcap of Ethernet frames, a microsecond apart."""
    out = struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 65_535, 1)
    for i, frame in enumerate(frames):
        out += struct.pack("<IIII", 1_700_000_000, 1_000 * i, len(frame), len(frame)) + frame
    return out


def ipv4(protocol: int, payload: bytes, src: bytes, dst: bytes) -> bytes:
    """An Ethernet frame with an IPv4 packet."""
    head = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(payload), 1, 0, 64, protocol, 0, src, dst)
    return bytes(12) + b"\x08\x00" + head + payload


def tcp(payload: bytes, seq: int, port: int = 40_000) -> bytes:
    """A TCP segment from a client to port 4001."""
    head = struct.pack(">HHIIBBHHH", port, 4_001, seq, 1, 0x50, 0x18, 512, 0, 0)
    return ipv4(6, head + payload, b"\x0a\0\0\1", b"\x0a\0\0\2")


def fix(body: bytes, harm: int = 0) -> bytes:
    """A FIX.4.2 message with right length and, unless harmed, right checksum; `|` stands for SOH."""
    body = body.replace(b"|", b"\x01")
    text = b"8=FIX.4.2\x01" + b"9=%d\x01" % len(body) + body
    return text + b"10=%03d\x01" % ((sum(text) + harm) % 256)


def order(number: int, harm: int = 0) -> bytes:
    """A new order."""
    body = b"35=D|49=C|56=V|34=%d|52=20231114-22:13:20|11=ord%d|55=AAPL|54=1|38=100|44=10.5|" % (number, number)
    return fix(body, harm)


def mold(sequence: int, *messages: bytes) -> bytes:
    """A MoldUDP64 packet to 233.54.12.1:26477."""
    blocks = b"".join(struct.pack(">H", len(m)) + m for m in messages)
    payload = b"SESSION001" + struct.pack(">QH", sequence, len(messages)) + blocks
    head = struct.pack(">HHHH", 5_000, 26_477, 8 + len(payload), 0)
    return ipv4(17, head + payload, b"\x0a\0\0\3", bytes([233, 54, 12, 1]))


def itch_delete(reference: int) -> bytes:
    """ITCH 5.0 order delete: type, locate, tracking, 6-byte time, reference (19 bytes)."""
    return b"D" + struct.pack(">HH", 1, 0) + (10**9 * 3600 * 17).to_bytes(6, "big") + struct.pack(">Q", reference)


def test_help_names_every_command() -> None:
    """`--help` lists the stable commands, and each has help with a description."""
    said = akbypass("--help").stdout.decode()
    wanted = (
        "demo up down status reset capture process sink decode analyze query tail topics rejected check simulate bench"
    )
    for name in wanted.split():
        assert f"  {name} " in said, name
    assert "Examples:" in said


@pytest.mark.parametrize("module", cli.MODULES)
def test_a_module_holds_the_commands_that_it_is_listed_with(module: str) -> None:
    """The list that saves the imports says the same as the modules."""
    commands = importlib.import_module(f"akbypass.cli.{module}").COMMANDS
    assert {command.name for command in commands} == set(cli.MODULES[module])


@pytest.mark.parametrize(
    ("name", "count"), [("marketdata/sai_test.pcap.gz", 48_325), ("marketdata/TOPS16.pcapng", 57_674)]
)
def test_decode_counts_the_messages_of_the_data_page(name: str, count: int) -> None:
    """decode prints one JSON object per message."""
    done = akbypass("decode", data(name), "--topic", "market_data", "--format", "jsonl")
    assert done.returncode == 0
    rows = done.stdout.splitlines()
    assert len(rows) == count
    assert {"kind", "symbol", "sequence", "ts_wire_ns"} <= set(json.loads(rows[0]))


def test_decode_reads_standard_input_and_gzip() -> None:
    """The same rows come from a file and from its decompressed bytes on standard input."""
    path = data("marketdata/sai_test.pcap.gz")
    piped = akbypass("decode", "-", stdin=gzip.decompress(path.read_bytes()))
    assert piped.stdout == akbypass("decode", path).stdout


def test_decode_writes_parquet(tmp_path: Path) -> None:
    """--format parquet writes a file with the row type's columns."""
    import polars

    out = tmp_path / "out.parquet"
    done = akbypass("decode", data("orderentry/fix.pcap"), "--topic", "packets", "--format", "parquet", "--out", out)
    assert done.returncode == 0
    assert polars.read_parquet(out).height == 1_261


def test_analyze_writes_every_result(tmp_path: Path) -> None:
    """One file per result topic, also for results without rows."""
    file = tmp_path / "a.pcap"
    file.write_bytes(pcap(tcp(order(1), 1)))
    done = akbypass("analyze", file, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert {p.stem for p in (tmp_path / "out").glob("*.jsonl")} == set(RESULTS)


@pytest.mark.parametrize(("content", "said"), [(b"just a text file\n" * 20, "expected"), (b"", "empty")])
def test_what_is_no_capture_is_refused(content: bytes, said: str, tmp_path: Path) -> None:
    """A text file and an empty file end with code 3 and say what was expected."""
    file = tmp_path / "file"
    file.write_bytes(content)
    done = akbypass("analyze", file, "--out", tmp_path / "out")
    assert done.returncode == 3
    assert said in done.stderr.decode()
    assert "Traceback" not in done.stderr.decode()


def test_cut_capture_delivers_what_is_readable(tmp_path: Path) -> None:
    """A capture cut within a record gives the records before it, the byte position, and code 6."""
    whole = pcap(tcp(order(1), 1), tcp(order(2), 1 + len(order(1))))
    file = tmp_path / "cut.pcap"
    file.write_bytes(whole[:-10])
    done = akbypass("decode", file, "--topic", "orders")
    assert done.returncode == 6
    assert [json.loads(r)["cl_ord_id"] for r in done.stdout.splitlines()] == ["ord1"]
    assert str(24 + 16 + len(tcp(order(1), 1))) in done.stderr.decode()


def test_wrong_checksum_rejects_one_message_only(tmp_path: Path) -> None:
    """Of three FIX messages the second has a wrong checksum: it is rejected, the others are decoded."""
    first, second, third = order(1), order(2, harm=1), order(3)
    file = tmp_path / "a.pcap"
    file.write_bytes(pcap(tcp(first, 1), tcp(second, 1 + len(first)), tcp(third, 1 + len(first) + len(second))))
    assert akbypass("analyze", file, "--out", tmp_path).returncode == 0
    rejected = lines(tmp_path / "rejected.jsonl")
    assert [r["reason"] for r in rejected] == ["fix_checksum"]
    assert [e["cl_ord_id"] for e in lines(tmp_path / "order_events.jsonl")] == ["ord1", "ord3"]


def test_short_itch_message_rejects_one_message_only(tmp_path: Path) -> None:
    """An ITCH message shorter than its type is rejected; the packet's other messages and the sequence stay right."""
    config = tmp_path / "c.yaml"
    config.write_text("feeds: [{name: XNAS, protocol: itch-5.0/moldudp64, lines: {A: '233.54.12.1:26477'}}]")
    file = tmp_path / "a.pcap"
    file.write_bytes(pcap(mold(1, itch_delete(7), itch_delete(8)[:-4], itch_delete(9)), mold(4, itch_delete(10))))
    rows = akbypass("decode", file, "--config", config).stdout.splitlines()
    assert [(json.loads(r)["sequence"], json.loads(r)["order_ref"]) for r in rows] == [(1, 7), (3, 9), (4, 10)]
    assert akbypass("analyze", file, "--config", config, "--out", tmp_path).returncode == 0
    assert [r["reason"] for r in lines(tmp_path / "rejected.jsonl")] == ["message_shorter_than_type"]
    assert lines(tmp_path / "feed_gaps.jsonl") == []


def test_unknown_key_is_named(tmp_path: Path) -> None:
    """A configuration with an unknown key ends with code 2 and names it."""
    config = tmp_path / "c.yaml"
    config.write_text("rulez: []")
    done = akbypass("check", "--config", config)
    assert done.returncode == 2
    assert "rulez: unknown key" in done.stderr.decode()


def test_missing_file_is_named(tmp_path: Path) -> None:
    """A capture that is not there ends with code 2 and its name."""
    done = akbypass("decode", tmp_path / "none.pcap")
    assert done.returncode == 2
    assert "none.pcap" in done.stderr.decode()


def test_dumped_configuration_is_a_configuration(tmp_path: Path) -> None:
    """`check --dump` prints what `--config` reads."""
    config = tmp_path / "c.yaml"
    config.write_bytes(akbypass("check", "--dump").stdout)
    assert akbypass("check", "--config", config, "--dump").stdout == config.read_bytes()


def test_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    """`decode FILE | head -1` ends with 0 and without a word, though most of the output was never read."""
    file = tmp_path / "a.pcap"
    file.write_bytes(pcap(*(tcp(order(1), 1, port) for port in range(40_000, 42_000))))
    command = [sys.executable, "-m", "akbypass.cli", "decode", str(file), "--topic", "orders"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None and process.stderr is not None
        assert b"ord1" in process.stdout.readline()
        process.stdout.close()
        said = process.stderr.read().decode()
        assert process.wait(60) == 0
    assert "Traceback" not in said and "Broken pipe" not in said and "Exception ignored" not in said


def test_wrong_arguments_end_with_usage() -> None:
    """An unknown option ends with code 2, its name and the usage; --help and --version with 0."""
    done = akbypass("decode", "--nonsense")
    assert done.returncode == 2
    assert "Usage: akbypass decode" in done.stderr.decode() and "--nonsense" in done.stderr.decode()
    assert akbypass("--help").returncode == akbypass("--version").returncode == 0


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt, 130), (click.Abort, 1)])
def test_interrupted_command_has_its_code(
    error: type[BaseException], code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C ends with 130 as shells have it; a question that was declined with 1."""

    def stop(_: click.Context) -> None:
        raise error

    monkeypatch.setattr(cli.cli, "invoke", stop)
    monkeypatch.setattr(sys, "argv", ["akbypass", "check"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == code


@pytest.mark.parametrize(("found", "code"), [([], 1), ([{"id": "x"}], 0)])
def test_demo_that_differs_from_the_truth_fails(
    found: list[object], code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Findings that are missing end the demo with 1; the same findings with 0."""
    (tmp_path / "truth.json").write_text("{}")
    (tmp_path / "c.yaml").write_text("{}")
    (tmp_path / "a.pcap").write_bytes(pcap(tcp(order(1), 1)))
    day = SimpleNamespace(capture=tmp_path / "a.pcap", truth=tmp_path / "truth.json", config=tmp_path / "c.yaml")
    monkeypatch.setattr(demo.Places, "default", lambda: Places(tmp_path))
    monkeypatch.setattr(demo, "_simulated_day", lambda *_: day)
    monkeypatch.setattr(demo, "_through", lambda *_: {"alerts": found})
    missing = [SimpleNamespace(missing=[] if found else ["an alert"], invented=[])]
    monkeypatch.setattr(truth, "compare", lambda *_: missing)
    monkeypatch.setattr(truth, "render", lambda _: "")
    monkeypatch.setattr(sys, "argv", ["akbypass", "demo"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == code
    assert ("1 findings differ from the truth" in capsys.readouterr().err) == bool(code)


def test_run_that_is_stored_already_has_no_rate() -> None:
    """A repeated run is shown as such; a first one with its packets a second."""
    assert report._pace(1_000, None, False) == "; already stored by an earlier run; shown again"
    assert report._pace(1_000, 2.0, False) == " in 2.0 s (500 packets/s from capture to stored result)"
    assert report._pace(1_000, 2.0, True) == " in 2.0 s"


def test_library_example_runs(tmp_path: Path) -> None:
    """examples/hft_demo.py prints latency and jitter and exports JSON and CSV."""
    command = [sys.executable, "examples/hft_demo.py", "--seconds", "3", "--export", str(tmp_path / "x")]
    done = subprocess.run(command, capture_output=True, cwd=ROOT, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert b"jitter" in done.stdout
    assert json.loads((tmp_path / "x.json").read_bytes())["latency"]
    assert (tmp_path / "x.latency.csv").read_text().startswith("run_ns,")
