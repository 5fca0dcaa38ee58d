"""A column of vectors in PostgreSQL, of pgvector's types or plain arrays, read in one snapshot."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fliplens.errors import FliplensError, InputError, MissingExtraError, reason_of
from fliplens.sources.specs import SourceSpec, listed
from fliplens.sources.stores import Page

__all__ = ["Table", "connect"]

_ARRAYS = {"float4": "float32", "float8": "float64"}
_VECTORS = {"vector": "float32", "halfvec": "float16"}
_TEXTS = ("text", "varchar", "bpchar")
_ORDERS = ("int2", "int4", "int8", *_TEXTS, "uuid")
SKIP = "name a view without it"
SECONDS = 30
"""To wait for a connection."""


def connect(source: SourceSpec) -> Table:
    """Connect to the database that `pgvector:DSN` names; without a DSN the usual PG variables do.

    The password comes from the DSN or from where libpq looks for it (PGPASSWORD, the password file), and is never
    part of a message or a record.

    Raises:
        InputError: no such table or column, of another type, or the order is not that of a unique column.
        FliplensError: no connection.
        MissingExtraError: psycopg or pgvector is not installed.
    """
    try:
        import pgvector.psycopg
        import psycopg
    except ImportError as error:
        raise MissingExtraError("a table of PostgreSQL", "pgvector") from error

    try:
        given = psycopg.conninfo.conninfo_to_dict(source.place)
    except psycopg.ProgrammingError:
        # The reason quotes the DSN, and the password in it.
        raise InputError(
            f"expected a connection string of PostgreSQL (postgresql://USER@HOST/DB, or host=... dbname=...), found "
            f"another one in {source}: write one of these, or none for the PG variables"
        ) from None
    if "@" in str(given.get("host", "")):
        # The end of a password that was not written as a URL writes it; it would be shown as a part of the host.
        raise InputError(f"expected a host without @ in {source}: write the @ of a password as %40")
    table = source.option("table", needed_for="the table")
    column = source.option("column", needed_for="the column of vectors")
    order = source.option("order", needed_for="the unique column that rows are ordered by")
    place = f"{given.get('dbname', '')}@{given.get('host', '')}:{given.get('port', '')}".rstrip(":@")
    name = f"pgvector:{place}#" + ",".join(f"{key}={value}" for key, value in source.options.items())
    try:
        given.setdefault("connect_timeout", SECONDS)
        connection = psycopg.connect(**given)
    except psycopg.Error as error:
        raise FliplensError(
            f"expected a connection to {name}, could not have one ({_reason(error)}): check host, port, database, "
            "user and password (in the DSN, PGPASSWORD or the password file), and that the server runs"
        ) from None
    try:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.read_only = True
        if psycopg.types.TypeInfo.fetch(connection, "vector") is not None:
            pgvector.psycopg.register_vector(connection)
        return Table(connection, source.options.get("schema"), table, column, order, source.options.get("text"), name)
    except psycopg.Error as error:
        connection.close()
        raise FliplensError(
            f"expected to read {name}, could not ({_reason(error)}): the same command tries again"
        ) from None
    except BaseException:
        connection.close()
        raise


def _reason(error: BaseException) -> str:
    """Return the server's first line: what follows quotes the query."""
    return reason_of(str(error).strip().partition("\n")[0] or type(error).__name__)


class Table:
    """One table, in a transaction that sees it as it was at the start."""

    def __init__(
        self, connection: Any, schema: str | None, table: str, column: str, order: str, text: str | None, name: str
    ) -> None:
        from psycopg import sql

        self.name = name
        self.state = None
        self._connection = connection
        names = [*([schema] if schema else []), table]
        # Nothing that the caller names becomes part of a query but as a quoted identifier.
        self._fill = {
            "table": sql.Identifier(*names),
            "column": sql.Identifier(column),
            "order": sql.Identifier(order),
            "columns": sql.SQL(", ").join(sql.Identifier(one) for one in (order, column, *([text] if text else []))),
        }
        self._text = text
        self._names = (order, column, *([text] if text else []))
        self.dtype = self._types()
        counted = self._one("SELECT count(*), count({order}), count(DISTINCT {order}) FROM {table}")
        self.rows = int(counted[0])
        if not self.rows:
            raise InputError(f"expected at least one vector in {name}, found an empty table: name another")
        if counted[1] != self.rows or counted[2] != self.rows:
            raise InputError(
                f"expected a different value of {order} in each of {self.rows} rows of {name}, found {counted[2]} "
                f"values and {self.rows - counted[1]} nulls: name a unique column by order=NAME"
            )
        known = self._one("SELECT {order}, {column} FROM {table} WHERE {column} IS NOT NULL ORDER BY {order} LIMIT 1")
        if known is None:
            raise InputError(
                f"expected vectors in column {column} of {name}, found nulls alone: write them first, or name "
                "another by column=NAME"
            )
        self.dim = len(self._vector(*known))

    def _one(self, query: str) -> Any:
        from psycopg import sql

        with self._connection.cursor(binary=True) as cursor:
            return cursor.execute(sql.SQL(query).format(**self._fill)).fetchone()

    def _types(self) -> str:
        """Check the columns' types; return the number type of the vectors.

        Raises:
            InputError: no such table or column, one that may not be read, or of another type.
        """
        import psycopg
        from psycopg import sql

        with self._connection.cursor() as cursor:
            try:
                cursor.execute(sql.SQL("SELECT {columns} FROM {table} LIMIT 0").format(**self._fill))
            except psycopg.errors.InsufficientPrivilege as error:
                raise InputError(
                    f"expected to read {self.name}, may not ({_reason(error)}): connect as a user who may, or let "
                    "this one by GRANT SELECT"
                ) from None
            except psycopg.ProgrammingError as error:
                self._connection.rollback()
                raise InputError(
                    f"expected a table with these columns in {self.name}, found otherwise ({_reason(error)}): "
                    f"{self._others()}"
                ) from None
            found = []
            for one in list(cursor.description):
                cursor.execute(
                    "SELECT t.typname, e.typname FROM pg_type t LEFT JOIN pg_type e ON t.typelem = e.oid "
                    "WHERE t.oid = %s",
                    [one.type_code],
                )
                found.append(cursor.fetchone())
        (order, _), (vector, element) = found[:2]
        if order not in _ORDERS:
            raise self._of_type("whole numbers, text or uuid", "order", order, _ORDERS)
        dtype = _VECTORS.get(vector) or _ARRAYS.get(element)
        if dtype is None:
            advice = f"name a view that casts it ({self._names[1]}::vector)" if vector == "sparsevec" else None
            types = (*_VECTORS, *(f"_{one}" for one in _ARRAYS))
            raise self._of_type("vector, halfvec, real[] or double precision[]", "column", vector, types, advice)
        if len(found) > 2 and found[2][0] not in _TEXTS:
            raise self._of_type("text", "text", found[2][0], _TEXTS)
        return dtype

    def _of_type(
        self, what: str, option: str, found: str, types: Sequence[str], advice: str | None = None
    ) -> InputError:
        """Return the error that the column which an option names is of another type than those that fit."""
        good = listed(name for name, kind in self._fields() if kind in types)
        name = self._names[("order", "column", "text").index(option)]
        return InputError(
            f"expected {what} in column {name} of {self.name}, found {found}: "
            + (advice or f"name another by {option}=NAME (of such a type: {good})")
        )

    def _fields(self) -> list[tuple[str, str]]:
        """Return name and type of every column; none of a table that is not there."""
        with self._connection.cursor() as cursor:
            found: list[tuple[str, str]] = cursor.execute(
                "SELECT a.attname, t.typname FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid "
                "WHERE a.attrelid = to_regclass(%s) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum",
                [self._fill["table"].as_string(self._connection)],
            ).fetchall()
        return found

    def _others(self) -> str:
        """Return what to name instead of a table or column that is not there."""
        if fields := self._fields():
            return f"name columns out of {listed(name for name, _ in fields)}"
        with self._connection.cursor() as cursor:
            tables = cursor.execute(
                "SELECT table_schema || '.' || table_name FROM information_schema.tables "
                "WHERE table_schema NOT IN ('information_schema', 'pg_catalog') ORDER BY 1 LIMIT 9"
            ).fetchall()
        return f"name a table by table=NAME, perhaps with schema=NAME (there are {listed(one for (one,) in tables)})"

    def _vector(self, row: Any, value: Any) -> NDArray[Any]:
        if value is None:
            # What has no vector yet keeps its place among the ids, as a row of NaN does that came as one.
            return np.full(self.dim, np.nan, dtype=self.dtype)
        if hasattr(value, "to_numpy"):
            value = value.to_numpy()
        try:
            vector: NDArray[Any] = np.asarray(value, dtype=self.dtype)
        except (TypeError, ValueError):
            raise InputError(f"expected numbers in {self.name}, found a null inside row {row}: {SKIP}") from None
        if vector.ndim != 1 or not len(vector):
            raise InputError(
                f"expected one vector in each row of {self.name}, found shape {vector.shape} in row {row}: {SKIP}"
            )
        return vector

    def pages(self, start: Any, rows: int) -> Iterator[Page]:
        """Yield rows in ascending order of the order column, from behind the id `start` on."""
        import psycopg
        from psycopg import sql

        where = sql.SQL("") if start is None else sql.SQL("WHERE {order} > %(after)s").format(**self._fill)
        query = sql.SQL("SELECT {columns} FROM {table} {where} ORDER BY {order}").format(**self._fill, where=where)
        try:
            with self._connection.cursor("fliplens", binary=True) as cursor:
                cursor.itersize = rows
                cursor.execute(query, None if start is None else {"after": start})
                found = cursor.fetchmany(rows)
                while found:
                    following = cursor.fetchmany(rows)
                    yield self._page(found, last=not following)
                    found = following
        except psycopg.Error as error:
            raise FliplensError(
                f"expected to read {self.name} to its end, was cut off ({_reason(error)}): "
                "the same command goes on from here"
            ) from None

    def _page(self, found: list[Any], *, last: bool) -> Page:
        ids = [row[0] if isinstance(row[0], int) else str(row[0]) for row in found]
        vectors = []
        for one, row in zip(ids, found, strict=True):
            vector = self._vector(one, row[1])
            if len(vector) != self.dim:
                raise InputError(
                    f"expected {self.dim} numbers in each row of {self.name}, found {len(vector)} in row {one}: "
                    f"{SKIP}"
                )
            vectors.append(vector)
            if self._text is not None and row[2] is None:
                raise InputError(f"expected a text in each row of {self.name}, found null in row {one}: {SKIP}")
        texts = None if self._text is None else [row[2] for row in found]
        return Page(np.stack(vectors), ids, texts, None if last else ids[-1])

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()
