"""Cuts what came over HTTP into a statement and its data; knows ClickHouse's tokens, not its grammar.

The engine takes data of an INSERT apart from the statement, and the protocol gives both as one text:

    INSERT INTO t (a, b) FORMAT Native\\n<bytes>      statement up to FORMAT, format name, bytes after one line end
    INSERT INTO t VALUES (1, 2)                      statement up to VALUES, format Values, the tuples
    anything else                                    a statement without data

What only a client on the server's machine may do (INTO OUTFILE, FROM INFILE, chDB's python()) is refused here, the
rest is the engine's to judge.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from akbypass.local.answers import RefusedError

NOT_IMPLEMENTED, SYNTAX_ERROR, OUTFILE_NOT_ALLOWED = 48, 62, 358  # ClickHouse's ErrorCodes

_TOKEN = re.compile(
    rb"""(?P<space>\s+ | --[^\n]* | \#[\ !][^\n]* | /\*.*?\*/)
       | (?P<quoted>'(?:[^'\\]|\\.|'')*' | "(?:[^"\\]|\\.|"")*" | `(?:[^`\\]|\\.|``)*` | \$(?P<tag>\w*)\$.*?\$(?P=tag)\$)
       | (?P<word>[A-Za-z_]\w*)
       | (?P<other>\w+ | .)""",
    re.VERBOSE | re.DOTALL,
)
_LINE_END = re.compile(rb"[ \t\f]*\r?\n?")
_WITH_RESULT = {b"SELECT", b"WITH", b"FROM", b"SHOW", b"DESCRIBE", b"DESC", b"EXISTS", b"EXPLAIN", b"CHECK", b"("}


@dataclass(frozen=True)
class Statement:
    """One statement.

    `text` is what the engine gets; `data_format` with `data` is set for an INSERT that brings data, `target` is its
    table as written ("" for a table function) and `columns` what stands between the parentheses behind it;
    `result_format` is the name after FORMAT of a statement that returns rows, "" for the default;
    `has_result` tells whether rows come back at all.
    """

    text: str
    data_format: str = ""
    data: bytes | memoryview = b""
    result_format: str = ""
    has_result: bool = False
    target: str = ""
    columns: str = ""


@dataclass(frozen=True)
class _Token:
    kind: str
    text: bytes
    end: int
    depth: int

    def says(self, *words: bytes) -> bool:
        return self.kind in ("word", "other") and self.text.upper() in words


_END = _Token("end", b"", 0, 0)


def _tokens(query: bytes, start: int = 0) -> Iterator[_Token]:
    depth = 0
    for match in _TOKEN.finditer(query, start):
        kind = match.lastgroup if match.lastgroup != "tag" else "quoted"
        if kind == "space":
            continue
        text = match[0]
        depth -= text in (b")", b"]", b"}")
        yield _Token(kind or "other", text, match.end(), depth)
        depth += text in (b"(", b"[", b"{")


def parse(query: bytes) -> Statement:
    """Cut one statement; raises RefusedError for more than one, for none, and for what is not allowed here."""
    first = next(_tokens(query), None)
    if first is None:
        raise RefusedError(SYNTAX_ERROR, "Syntax error: Empty query. (SYNTAX_ERROR)")
    return _insert(query) if first.says(b"INSERT") else _plain(query, first)


def _insert(query: bytes) -> Statement:
    target, columns = _target(query)
    tokens = _tokens(query)
    previous = next(tokens)
    while previous.says(b"INSERT", b"INTO", b"TABLE", b"FUNCTION"):  # a table may be called `format`: skip its name
        previous = next(tokens, previous)
    for token in tokens:
        if token.depth == 0 and not (previous.says(b".") or previous.says(b"AS")):
            if token.says(b"SELECT", b"WITH"):
                return _plain(query, token)
            if token.says(b"INFILE"):
                raise RefusedError(NOT_IMPLEMENTED, "FROM INFILE is for a client, not for HTTP. (NOT_IMPLEMENTED)")
            if token.says(b"VALUES"):
                head = query[: token.end - len(token.text)]
                return Statement(_text(head), "Values", memoryview(query)[token.end :], target=target, columns=columns)
            if previous.says(b"FORMAT") and token.kind == "word":
                data = _LINE_END.match(query, token.end)
                assert data is not None  # the pattern matches nothing, too
                head = query[: token.end - len(token.text)].rstrip()[: -len(b"FORMAT")]
                return Statement(
                    _text(head), token.text.decode(), memoryview(query)[data.end() :], target=target, columns=columns
                )
        previous = token
    return _plain(query, previous)


def _target(query: bytes) -> tuple[str, str]:
    """Table of an INSERT and its list of columns, both as written; empty for a table function, and for no list."""
    tokens = _tokens(query)
    token = next(tokens)
    while token.says(b"INSERT", b"INTO", b"TABLE"):
        token = next(tokens, _END)
    if token.says(b"FUNCTION"):
        return "", ""
    name = token.text
    token = next(tokens, _END)
    while token.says(b"."):
        name += b"." + next(tokens, _END).text
        token = next(tokens, _END)
    if not token.says(b"("):
        return _text(name), ""
    start = token.end
    close = next((t for t in tokens if t.text == b")" and t.depth == 0), _END)
    return _text(name), _text(query[start : max(start, close.end - 1)])


def _plain(query: bytes, first: _Token) -> Statement:
    result_format, previous, ended = "", None, False
    for token in _tokens(query):
        if ended:
            raise RefusedError(SYNTAX_ERROR, "Syntax error: Multi-statements are not allowed. (SYNTAX_ERROR)")
        ended = token.text == b";"
        if previous is not None and token.depth == 0:
            if previous.says(b"INTO") and token.says(b"OUTFILE"):
                raise RefusedError(OUTFILE_NOT_ALLOWED, "INTO OUTFILE is not allowed. (INTO_OUTFILE_NOT_ALLOWED)")
            if previous.says(b"FORMAT") and token.kind == "word":
                result_format = token.text.decode()
        if previous is not None and previous.says(b"PYTHON") and token.text == b"(":
            raise RefusedError(NOT_IMPLEMENTED, "Table function python is not served over HTTP. (NOT_IMPLEMENTED)")
        previous = token
    return Statement(_text(query), result_format=result_format, has_result=first.says(*_WITH_RESULT))


def _text(query: bytes) -> str:
    try:
        return query.decode()
    except UnicodeDecodeError as error:
        raise RefusedError(SYNTAX_ERROR, f"Syntax error: not UTF-8 at byte {error.start}. (SYNTAX_ERROR)") from error
