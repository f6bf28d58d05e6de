"""How a text over HTTP is cut into statement and data, and how errors of the engine are read."""

from __future__ import annotations

import pytest

from akbypass.local.answers import RefusedError
from akbypass.local.statement import parse

BINARY = b"\n\x00FORMAT CSV;' \xff\n"


@pytest.mark.parametrize(
    ("query", "text", "form", "data"),
    [
        (b"INSERT INTO t (a, b) FORMAT Native\n" + BINARY, "INSERT INTO t (a, b) ", "Native", BINARY),
        (b"INSERT INTO t FORMAT CSV \r\n1,2", "INSERT INTO t ", "CSV", b"1,2"),
        (b"insert into `my t`.`format` format CSV", "insert into `my t`.`format` ", "CSV", b""),
        (b"INSERT INTO format VALUES (1)", "INSERT INTO format ", "Values", b" (1)"),
        (b"INSERT INTO t (`values`, format) VALUES(';')", "INSERT INTO t (`values`, format) ", "Values", b"(';')"),
        (b"-- FORMAT X\nINSERT /* VALUES */ INTO t SETTINGS a = 'SELECT' FORMAT JSONEachRow\n{}",
         "-- FORMAT X\nINSERT /* VALUES */ INTO t SETTINGS a = 'SELECT' ", "JSONEachRow", b"{}"),
        (b"INSERT INTO FUNCTION null('a Int8') VALUES (1)", "INSERT INTO FUNCTION null('a Int8') ", "Values", b" (1)"),
    ],
)  # fmt: skip
def test_data_of_an_insert_is_told_from_its_statement(query: bytes, text: str, form: str, data: bytes) -> None:
    """FORMAT and VALUES outside of quotes, comments and parentheses end the statement; the bytes after are untouched."""
    found = parse(query)
    assert (found.text, found.data_format, bytes(found.data)) == (text, form, data)


@pytest.mark.parametrize(
    ("query", "result_format", "has_result"),
    [
        ("SELECT 1", "", True),
        ("SELECT 'FORMAT CSV' FORMAT JSON SETTINGS max_threads = 1 -- FORMAT TSV", "JSON", True),
        ("SELECT format('{}', 1) AS format;", "", True),
        ("# shell\nWITH 1 AS x SELECT x FORMAT Native;\n-- end\n", "Native", True),
        ("(SELECT 1) FORMAT Arrow", "Arrow", True),
        ("INSERT INTO t SELECT * FROM u", "", True),
        ("INSERT INTO t (a) WITH 1 AS x SELECT x", "", True),
        ("CREATE TABLE t (format String) ENGINE = Memory", "", False),
        ("SELECT $$; FORMAT X$$, $tag$;$$;$tag$", "", True),
    ],
)
def test_the_output_format_of_a_statement_is_found(query: str, result_format: str, has_result: bool) -> None:
    """The last FORMAT outside of quotes and comments counts; the text is the engine's unchanged."""
    found = parse(query.encode())
    assert (found.text, found.data_format, found.result_format) == (query, "", result_format)
    if not query.startswith("INSERT"):
        assert found.has_result is has_result


@pytest.mark.parametrize(
    ("query", "code"),
    [
        (b"", 62),
        (b" -- nothing\n/* here */", 62),
        (b"SELECT 1; SELECT 2", 62),
        (b"SELECT '\xff'", 62),
        (b"SELECT 1 INTO OUTFILE 'x'", 358),
        (b"INSERT INTO t FROM INFILE 'x' FORMAT CSV", 48),
        (b"SELECT * FROM Python (x)", 48),
    ],
)
def test_what_http_does_not_serve_is_refused(query: bytes, code: int) -> None:
    """None, two, or one that only a local client may run: each has ClickHouse's code."""
    with pytest.raises(RefusedError) as error:
        parse(query)
    assert error.value.code == code


@pytest.mark.parametrize(
    ("message", "code", "text", "status"),
    [
        ("Code: 60. DB::Exception: Table d.x does not exist. (UNKNOWN_TABLE)", 60,
         "Table d.x does not exist. (UNKNOWN_TABLE)", 404),
        ("Streaming insert finish failed: Code: 33. DB::Exception: Cannot read. (CANNOT_READ_ALL_DATA) "
         "(version 26.9.2.1 (official build))", 33, "Cannot read. (CANNOT_READ_ALL_DATA)", 500),
        ("Code: 1. DB::Exception: Code: 62. DB::Exception: Bad. (SYNTAX_ERROR) (version 26.9.2.1)", 62,
         "Bad. (SYNTAX_ERROR)", 400),
        ("it fell over", 1001, "it fell over (STD_EXCEPTION)", 500),
    ],
)  # fmt: skip
def test_errors_of_the_engine_keep_code_and_text(message: str, code: int, text: str, status: int) -> None:
    """What chDB wraps around the engine's error, and versions in it, are taken off."""
    error = RefusedError.from_engine(message)
    assert (error.code, error.text, error.status) == (code, text, status)
    assert error.body("1.2") == f"Code: {code}. DB::Exception: {text} (version 1.2 (embedded))\n".encode()
