"""The store through clickhouse-connect's ordinary client: what a server would do, what survives kill -9, what is refused."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import clickhouse_connect
import pyarrow as pa
import pytest
import urllib3
from clickhouse_connect.driver.exceptions import DatabaseError

from akbypass import store_client
from akbypass.config import ClickHouse, Config
from akbypass.errors import ConfigError, MissingError, ServiceError
from akbypass.local import children
from akbypass.local.store import StoreServer
from tests.backends import Store, probed
from tests.local.processes import Parent, gone

services = pytest.mark.services


@pytest.fixture(scope="module")
def database(store_server: Store) -> str:
    """A database of this module's own."""
    name = f"store_{uuid.uuid4().hex[:8]}"
    with store_client.connect(Config(), store_server.url, database="") as admin:
        admin.command(f"CREATE DATABASE {name}")
    return name


@pytest.fixture
def client(store_server: Store, database: str) -> Iterator[Any]:
    """A client as everybody else gets it."""
    with store_client.connect(Config(), store_server.url, database=database) as made:
        yield made


def table(client: Any, columns: str = "a Int64, b String", settings: str = "") -> str:
    """Make a table under a new name."""
    name = f"t_{uuid.uuid4().hex[:8]}"
    client.command(f"CREATE TABLE {name} ({columns}) ENGINE = MergeTree ORDER BY tuple() {settings}")
    return name


def code_of(client: Any, sql: str, **arguments: Any) -> int | None:
    """The error code that a statement gives."""
    with pytest.raises(DatabaseError) as error:
        client.query(sql, **arguments)
    return error.value.code  # type: ignore[no-any-return]


@services
@pytest.mark.parametrize("compress", ["lz4", "zstd", "gzip", False])
def test_rows_go_in_and_out_under_every_compression(store_server: Store, database: str, compress: str | bool) -> None:
    """insert, insert_arrow and raw inserts come back by query, query_arrow and raw_query, compressed or not."""
    with clickhouse_connect.get_client(dsn=store_server.url, database=database, compress=compress) as client:
        name = table(client)
        rows = [[i, f"row {i}" * 20] for i in range(1_000)]
        assert client.insert(name, rows, column_names=["a", "b"]).written_rows == 1_000
        client.insert_arrow(name, pa.table({"a": [1_000, 1_001], "b": ["x", "y"]}))
        stream = pa.BufferOutputStream()
        block = pa.record_batch({"a": [1_002], "b": ["z"]})
        with pa.ipc.new_stream(stream, block.schema) as writer:
            writer.write_batch(block)
        client.raw_insert(name, ["a", "b"], stream.getvalue().to_pybytes(), fmt="ArrowStream")
        client.command(f"INSERT INTO {name} VALUES (1003, 'a;b')")
        client.command(f"INSERT INTO {name} (a, b) FORMAT CSV", data="1004,c\n1005,d\n")
        found = client.query(f"SELECT a, b FROM {name} ORDER BY a")
        assert found.column_names == ("a", "b")
        ends = [(1_000, "x"), (1_001, "y"), (1_002, "z"), (1_003, "a;b"), (1_004, "c"), (1_005, "d")]
        assert found.result_rows == [(i, f"row {i}" * 20) for i in range(1_000)] + ends
        assert client.query_arrow(f"SELECT a FROM {name} ORDER BY a")["a"].to_pylist() == list(range(1_006))
        assert client.raw_query(f"SELECT max(a) FROM {name}", fmt="JSONEachRow") == b'{"max(a)":1005}\n'


@services
def test_ddl_and_empty_results_keep_their_shape(client: Any) -> None:
    """DDL returns a summary, LIMIT 0 the columns, a query without rows an empty result, EXISTS a number."""
    name = table(client)
    assert client.query(f"SELECT a, b FROM {name} LIMIT 0").column_names == ("a", "b")
    assert client.query(f"SELECT a, b FROM {name} WHERE a = 5").result_rows == []
    assert client.command(f"EXISTS TABLE {name}") == 1
    client.command(f"ALTER TABLE {name} ADD COLUMN c UInt8")
    client.command(f"DROP TABLE {name}")
    assert client.command(f"EXISTS TABLE {name}") == 0


@services
def test_settings_of_one_request_hold_for_it_alone(client: Any) -> None:
    """Settings in the address reach SELECT and INSERT, also beside a SETTINGS clause, and are gone with the request."""
    name = table(client)
    ask = "SELECT getSetting('max_block_size')"
    default = client.command(ask)
    assert client.query(ask, settings={"max_block_size": 77}).result_rows == [(77,)]
    both = client.query(f"{ask}, getSetting('max_threads') SETTINGS max_threads = 1", settings={"max_block_size": 78})
    assert both.result_rows == [(78, 1)]
    client.insert(
        name, [[1, "x"]], column_names=["a", "b"], settings={"async_insert": 0, "insert_deduplication_token": "t"}
    )
    assert client.command(ask) == default
    client.command("SET max_block_size = 79")
    assert client.command(ask) == default, "requests share no session"
    limit = {"max_result_rows": 1, "result_overflow_mode": "throw"}
    assert code_of(client, "SELECT number FROM numbers(9)", settings=limit) == 396


@services
def test_an_unknown_setting_is_refused_as_by_a_server(store_server: Store) -> None:
    """Error 115 with status 404, for queries and inserts, whether the name is a word or not."""
    for extra in ("no_such_setting=1", "x%20y=1"):
        answer = urllib3.request("POST", f"{store_server.url}/?{extra}", body=b"SELECT 1")
        assert (answer.status, answer.headers["X-ClickHouse-Exception-Code"]) == (404, "115")
        assert b"UNKNOWN_SETTING" in answer.data


@services
def test_parameters_are_bound_by_the_engine(client: Any) -> None:
    """Server-side parameters of several types, with quotes and tabs in them, in SELECT and INSERT."""
    text = "it's \t \\ \n {x:Int8}; DROP"
    found = client.query(
        "SELECT {a:Int64} + 1, {b:String}, {c:Array(String)}, {d:Identifier}.b FROM (SELECT 'q' AS b) AS t",
        parameters={"a": 41, "b": text, "c": ["x", "y'z"], "d": "t"},
    )
    assert found.result_rows == [(42, text, ["x", "y'z"], "q")]
    long = "z" * 50_000  # the client sends these as a form
    assert client.query("SELECT length({a:String})", parameters={"a": long}).result_rows == [(50_000,)]
    name = table(client)
    client.command(f"INSERT INTO {name} VALUES ({{a:Int64}}, {{b:String}})", parameters={"a": 5, "b": text})
    assert client.query(f"SELECT * FROM {name}").result_rows == [(5, text)]


@services
def test_bad_statements_carry_the_engines_code_and_words(client: Any) -> None:
    """Syntax, unknown names, a bad cast, an exception while running: each its own code; the client stays usable."""
    name = table(client)
    cases = {
        "SELEC 1": 62,
        "SELECT 1; SELECT 2": 62,
        "SELECT nope": 47,
        "SELECT nope()": 46,
        "SELECT * FROM nope": 60,
        "SELECT * FROM nowhere.nope": 81,
        "SELECT CAST('x' AS Int64)": 6,
        "SELECT throwIf(number = 3) FROM numbers(10)": 395,
        f"INSERT INTO {name} (zz) VALUES (1)": 16,
        f"INSERT INTO {name} (a, b) SELECT 1": 20,
    }
    assert {sql: code_of(client, sql) for sql in cases} == cases
    with pytest.raises(DatabaseError, match=r"Unknown expression identifier `?nope`?.*UNKNOWN_IDENTIFIER"):
        client.query("SELECT nope")
    assert client.command("SELECT 1") == 1


@services
def test_broken_data_changes_nothing(store_server: Store, client: Any) -> None:
    """A cut Arrow stream, a body that is not what its encoding says and a bad CSV line are errors, and no row is there."""
    name = table(client)
    stream = pa.BufferOutputStream()
    block = pa.record_batch({"a": list(range(1_000)), "b": ["x" * 50] * 1_000})
    with pa.ipc.new_stream(stream, block.schema) as writer:
        writer.write_batch(block)
    whole = stream.getvalue().to_pybytes()
    with pytest.raises(DatabaseError):
        client.raw_insert(name, ["a", "b"], whole[: len(whole) // 2], fmt="ArrowStream")
    with pytest.raises(DatabaseError, match="CANNOT_DECOMPRESS"):
        client.raw_insert(name, ["a", "b"], b"no lz4", fmt="ArrowStream", compression="lz4")
    with pytest.raises(DatabaseError):
        client.command(f"INSERT INTO {name} (a, b) FORMAT CSV", data="1,x\nword,y\n")
    assert client.command(f"SELECT count() FROM {name}") == 0


@services
def test_headers_and_statuses_are_those_of_the_protocol(store_server: Store, database: str) -> None:
    """Ping, format, time zone, query id, summary, error code and status; GET may only read."""
    url = store_server.url
    assert urllib3.request("GET", f"{url}/ping").data == b"Ok.\n"
    fields = {"query": "SELECT 1 AS x", "default_format": "JSONEachRow", "query_id": "mine"}
    answer = urllib3.request("GET", url, fields=fields)
    assert (answer.status, answer.data) == (200, b'{"x":1}\n')
    assert answer.headers["X-ClickHouse-Format"] == "JSONEachRow"
    assert answer.headers["X-ClickHouse-Query-Id"] == "mine"
    assert answer.headers["X-ClickHouse-Timezone"]
    assert json.loads(answer.headers["X-ClickHouse-Summary"])["result_rows"] == "1"
    zipped = urllib3.request(
        "POST",
        f"{url}/?enable_http_compression=1",
        body=b"SELECT repeat('x', 9000)",
        headers={"Accept-Encoding": "gzip"},
    )
    assert zipped.headers["Content-Encoding"] == "gzip"
    assert zipped.data == b"x" * 9_000 + b"\n"
    for query, status, code in [
        ("SELEC 1", 400, "62"),
        ("SELECT * FROM nope", 404, "60"),
        ("SELECT throwIf(1)", 500, "395"),
    ]:
        answer = urllib3.request("POST", f"{url}/?database={database}", body=query.encode())
        assert (answer.status, answer.headers["X-ClickHouse-Exception-Code"]) == (status, code)
        assert answer.data.startswith(f"Code: {code}. DB::Exception: ".encode())
    assert (
        urllib3.request("GET", url, fields={"query": f"CREATE TABLE {database}.g (a Int8) ENGINE = Memory"}).status
        == 500
    )
    assert urllib3.request("GET", f"{url}/nothing").status == 404


@services
def test_an_insert_that_the_engine_does_not_keep_is_an_error(client: Any) -> None:
    """Rows that break a constraint are refused, and their neighbours with them; the same rows without it are taken."""
    name = table(client, "a Int64, b String, CONSTRAINT small CHECK a < 10")
    client.insert(name, [[1, "x"]], column_names=["a", "b"])
    assert code_of_insert(client, name, [[2, "y"], [11, "z"]]) == 469
    assert client.query(f"SELECT a FROM {name}").result_rows == [(1,)]
    client.insert(name, [[2]], column_names=["a"])  # a column that is left out gets its default
    assert client.query(f"SELECT a, b FROM {name} ORDER BY a").result_rows == [(1, "x"), (2, "")]


def code_of_insert(client: Any, name: str, rows: list[list[Any]]) -> int | None:
    """ClickHouse's code of the error that an insert gives, None when it gives none."""
    try:
        client.insert(name, rows, column_names=["a", "b"])
    except DatabaseError as error:
        found = re.search(r"[Cc]ode: (\d+)", str(error))
        return int(found[1]) if found else -1
    return None


@services
@pytest.mark.skipif(os.geteuid() != 0, reason="needs the right to mount a small file system")
def test_an_insert_into_a_full_disk_is_an_error_and_works_when_there_is_space_again(tmp_path: Path) -> None:
    """With no byte free the store says NOT_ENOUGH_SPACE (243) and keeps nothing; afterwards the same insert is kept."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=192m", "tmpfs", str(tmp_path)], check=True)
    try:
        with (
            StoreServer(tmp_path / "store") as server,
            store_client.connect(Config(), server.url, database="") as admin,
        ):
            admin.command("CREATE DATABASE d")
            admin.command("CREATE TABLE d.t (a Int64, b String) ENGINE = MergeTree ORDER BY a")
            rows = [[i, "x" * 20] for i in range(20_000)]
            with (tmp_path / "ballast").open("wb", buffering=0) as ballast, contextlib.suppress(OSError):
                while ballast.write(bytes(4096)):
                    pass
            assert code_of_insert(admin, "d.t", rows) == 243
            (tmp_path / "ballast").unlink()
            assert code_of_insert(admin, "d.t", rows) is None
            assert admin.command("SELECT count(), sum(a) FROM d.t") == [str(len(rows)), str(sum(range(len(rows))))]
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)


@services
def test_answers_of_one_moment_are_not_mixed(client: Any) -> None:
    """Eight clients ask for different texts at once; every answer is its own, byte for byte."""

    def ask(number: int) -> bool:
        size = (1, 60, 2_000, 30_000)[number % 4]
        text = f"{number:08}" * 12
        sql = f"SELECT '{text}' FROM numbers({size})"
        return bool(client.raw_query(sql, fmt="TabSeparated") == f"{text}\n".encode() * size)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(600)))


@services
def test_reads_run_while_others_insert(store_server: Store, database: str) -> None:
    """Four readers see whole blocks only, never fewer than before, while two writers insert; threads share one client."""
    blocks, size = 15, 1_000
    with store_client.connect(Config(), store_server.url, database=database) as client:
        name = table(client)
        block = pa.table({"a": list(range(size)), "b": ["x"] * size})
        writing = threading.Event()
        writing.set()

        def write() -> None:
            for _ in range(blocks):
                client.insert_arrow(name, block, settings={"async_insert": 0})

        def read() -> list[int]:
            seen = [0]
            while writing.is_set():
                seen.append(client.command(f"SELECT count() FROM {name}"))
            return seen

        with ThreadPoolExecutor(6) as pool:
            readers = [pool.submit(read) for _ in range(4)]
            for writer in [pool.submit(write) for _ in range(2)]:
                writer.result(60)
            writing.clear()
            seen = [reader.result(30) for reader in readers]
        assert all(counts == sorted(counts) and all(c % size == 0 for c in counts) for counts in seen)
        assert all(len(counts) > 3 for counts in seen)
        assert client.command(f"SELECT count() FROM {name}") == 2 * blocks * size


@services
def test_a_slow_query_does_not_hold_up_others(store_server: Store, database: str) -> None:
    """Four sleeps of half a second take less than two seconds together."""
    with store_client.connect(Config(), store_server.url, database=database) as client, ThreadPoolExecutor(4) as pool:
        started_s = time.monotonic()
        assert list(pool.map(lambda _: client.command("SELECT sleep(0.5)"), range(4))) == [0] * 4
        assert time.monotonic() - started_s < 1.9


@services
def test_a_token_makes_a_repeated_insert_harmless(client: Any) -> None:
    """With a deduplication window, the same token inserts once, another token again, also in several blocks."""
    name = table(client, settings="SETTINGS non_replicated_deduplication_window = 100")
    block = pa.table({"a": list(range(5_000)), "b": ["x"] * 5_000})
    for token in ("p0:1:2", "p0:1:2", "p0:3:4"):
        settings = {"insert_deduplication_token": token, "async_insert": 0, "max_insert_block_size": 1_000}
        client.insert_arrow(name, block, settings=settings)
    assert client.command(f"SELECT count() FROM {name}") == 10_000


@services
def test_acknowledged_rows_survive_kill_9(tmp_path: Path) -> None:
    """A store that is killed between inserts has every acknowledged block after its restart, and no half of one."""
    server = StoreServer(tmp_path)
    with probed():
        url = server.start()
    try:
        client = store_client.connect(Config(), url, database="")
        client.command("CREATE DATABASE d")
        client.command(
            "CREATE TABLE d.t (a Int64) ENGINE = MergeTree ORDER BY a SETTINGS non_replicated_deduplication_window = 100"
        )
        acknowledged, pid = [0], server.pid
        assert pid is not None

        def write() -> None:
            for i in range(10_000):
                settings = {"insert_deduplication_token": str(i)}
                client.insert_arrow("d.t", pa.table({"a": [i] * 100}), settings=settings)
                acknowledged[0] = i + 1

        with ThreadPoolExecutor(1) as pool:
            writer = pool.submit(write)
            while acknowledged[0] < 20:
                time.sleep(0.001)
            os.kill(pid, signal.SIGKILL)
            assert writer.exception(30) is not None
        assert server.start() == url, "the port is kept"
        assert server.pid != pid
        count = client.command("SELECT count() FROM d.t")
        assert count in (acknowledged[0] * 100, acknowledged[0] * 100 + 100), "the last one may lack only its answer"
        last = acknowledged[0] - 1
        client.insert_arrow("d.t", pa.table({"a": [last] * 100}), settings={"insert_deduplication_token": str(last)})
        assert client.command("SELECT count() FROM d.t") == count, "a token is remembered over the restart"
    finally:
        server.stop()


@services
def test_a_store_dies_with_its_killed_parent_and_the_next_one_has_its_data(tmp_path: Path) -> None:
    """kill -9 of the parent takes the store along; a second start at once finds the data at the same address."""
    with probed(), StoreServer(tmp_path):
        pass
    parent = Parent("akbypass.local.store", "StoreServer", tmp_path)
    with store_client.connect(Config(), parent.address, database="") as client:
        client.command("CREATE DATABASE d")
        client.command("CREATE TABLE d.t (a Int64) ENGINE = MergeTree ORDER BY a")
        client.insert("d.t", [[1]], column_names=["a"])
    parent.kill()
    with StoreServer(tmp_path) as server, store_client.connect(Config(), server.url, database="d") as client:
        assert gone(parent.server_pid)
        assert client.command("SELECT count() FROM t") == 1


@services
def test_a_directory_takes_one_process_and_a_bound_of_queries(tmp_path: Path) -> None:
    """A second process is refused with the first one's number; a query beyond the bound gets 503 and error 202."""
    options = ["--path", str(tmp_path), "--queries-max", "1", "--queue-wait-s", "0.2"]
    command = [sys.executable, "-m", "akbypass.local.store_server", *options]
    with probed():
        child = children.spawn(command, output=tmp_path / "out", cwd=tmp_path)
        ready = lambda: len(children.kept_ports(tmp_path / "ports")) == 2  # noqa: E731
        children.wait_until(ready, child, what="it", logs=[tmp_path / "out"], timeout_s=30)
    url = f"http://127.0.0.1:{children.kept_ports(tmp_path / 'ports')[0]}/"
    try:
        with pytest.raises(ServiceError, match=f"the embedded store in .* is in use by process {child.pid}"):
            StoreServer(tmp_path).start()
        with ThreadPoolExecutor(1) as pool:
            slow = pool.submit(urllib3.request, "POST", url, body=b"SELECT sleep(2)")
            while True:
                answer = urllib3.request("POST", url, body=b"SELECT 1", retries=False)
                if answer.status != 200:
                    break
            assert (answer.status, answer.headers["X-ClickHouse-Exception-Code"]) == (503, "202")
            assert b"Too many simultaneous queries. Maximum: 1." in answer.data
            assert slow.result().status == 200
        assert urllib3.request("POST", url, body=b"SELECT 1").data == b"1\n"
    finally:
        children.stop(child)
    assert child.returncode == 0


def embedded(store_server: Store) -> StoreServer:
    """The embedded store behind the fixture; skips for a container, which has rules of its own."""
    if not isinstance(store_server, StoreServer):
        pytest.skip("about the embedded store only; the backend is a container")
    return store_server


@services
def test_what_would_harm_the_machine_or_the_directory_is_refused(store_server: Store) -> None:
    """Files, URLs, other servers, engines that do not work here and dropping `default` are denied; the store lives on."""
    url = embedded(store_server).url
    with store_client.connect(Config(), url, database="") as client:
        denied = [
            "SELECT * FROM file('/etc/hostname', 'LineAsString')", "SELECT * FROM url('http://127.0.0.1:1/', 'CSV')",
            "SELECT * FROM remote('127.0.0.1', 'system', 'one')", "INSERT INTO FUNCTION file('/tmp/x', 'CSV', 'a Int8') SELECT 1",
            "CREATE TABLE system.k (a Int8) ENGINE = Kafka", "SYSTEM SHUTDOWN", "DROP DATABASE default",
        ]  # fmt: skip
        assert [code_of(client, sql) for sql in denied] == [497] * len(denied)
        assert code_of(client, "SELECT * FROM python(client)") == 48
        assert client.command("SELECT 1") == 1
    for body, code in [
        (b"SELECT 1 INTO OUTFILE '/tmp/x'", "358"),
        (b"INSERT INTO t FROM INFILE '/tmp/x' FORMAT CSV", "48"),
    ]:
        answer = urllib3.request("POST", url, body=body)
        assert answer.headers["X-ClickHouse-Exception-Code"] == code


@services
def test_web_pages_and_strangers_are_refused(store_server: Store) -> None:
    """A request with a page's Origin, under another host's name (DNS rebinding), or as another user gets 403."""
    url = embedded(store_server).url
    for headers in ({"Origin": "https://example.org"}, {"Host": "example.org"}, {"X-ClickHouse-User": "root"}):
        answer = urllib3.request("POST", url, body=b"SELECT 1", headers=headers)
        assert (answer.status, answer.headers["X-ClickHouse-Exception-Code"]) == (403, "516")


@services
def test_a_body_beyond_the_limit_is_refused_with_an_answer(store_server: Store) -> None:
    """A body announced as larger than 256 MiB gets 413 and code 229 before it is sent."""
    embedded(store_server)
    with contextlib.closing(http.client.HTTPConnection(store_server.url.removeprefix("http://"))) as connection:
        connection.putrequest("POST", "/")
        connection.putheader("Content-Length", str(300 << 20))
        connection.endheaders()
        answer = connection.getresponse()
        assert (answer.status, answer.headers["X-ClickHouse-Exception-Code"]) == (413, "229")


def test_connecting_says_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """No server, no address of ours, a proxy in the environment: a clear error, and loopback never goes to the proxy."""
    port = children.free_ports(1)[0]
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with pytest.raises(ServiceError, match=f"the store at http://127.0.0.1:{port} does not take us: .*refused"):
        store_client.connect(Config(), f"http://127.0.0.1:{port}")
    with pytest.raises(ConfigError, match=r"expected http://user@host:8123/database, found 'clickhouse:9000'"):
        store_client.connect(Config(clickhouse=ClickHouse(url="clickhouse:9000")))


@services
def test_a_store_that_is_away_is_waited_for_and_one_that_refuses_is_not(
    store_server: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody listens: tried until the time is over. Somebody listens and has no such database: an error at once."""
    tries: list[str] = []
    monkeypatch.setattr(store_client, "PAUSE_S", 0.01)
    monkeypatch.setattr(store_client.log, "warning", lambda text, *_: tries.append(text))
    port = children.free_ports(1)[0]
    with pytest.raises(ServiceError, match="refused"):
        store_client.connect_when_up(Config(), f"http://127.0.0.1:{port}", 0.3, database="")
    assert len(tries) > 1
    tries.clear()
    with pytest.raises(ServiceError, match="UNKNOWN_DATABASE"):
        store_client.connect_when_up(Config(), store_server.url, 60, database="nowhere")
    assert tries == []
    with store_client.connect_when_up(Config(), store_server.url, 0, database="") as client:
        assert client.command("SELECT 1") == 1


@services
def test_connecting_takes_database_and_password_from_where_they_are_configured(
    store_server: Store, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The path of the address wins over the configuration; a missing database is a ServiceError; a password is sent."""
    config = Config(clickhouse=ClickHouse(url=f"{store_server.url}/{database}", password_env="THEIR_PASSWORD"))
    monkeypatch.setenv("THEIR_PASSWORD", "s3cret")
    with store_client.connect(config) as client:
        assert client.command("SELECT currentDatabase()") == database
        assert client.headers["Authorization"] == "Basic ZGVmYXVsdDpzM2NyZXQ="  # base64 of default:s3cret
    with pytest.raises(ServiceError, match="UNKNOWN_DATABASE"):
        store_client.connect(config, store_server.url)


def test_missing_chdb_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the package, both the caller and the process say which extra brings it."""
    code = "import sys; sys.modules['chdb'] = None; from akbypass.local.store_server import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", code, "--path", str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, "akbypass[local]" in done.stdout) == (MissingError.exit_code, True)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingError, match=r"pip install 'akbypass\[local\]'"):
        StoreServer(tmp_path / "s").start()


def test_nothing_but_the_store_process_loads_chdb() -> None:
    """The client side and the starter import no chdb."""
    code = "import sys, akbypass.store_client, akbypass.local.store; sys.exit('chdb' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
