"""A column of vectors in PostgreSQL, of pgvector's types or plain arrays, read in one snapshot."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fliplens.errors import FliplensError, InputError, MissingExtraError
from fliplens.sources.specs import SourceSpec
from fliplens.sources.stores import Page

__all__ = ["Table", "connect"]

_ARRAYS = {"float4": "float32", "float8": "float64"}
_VECTORS = {"vector": "float32", "halfvec": "float16"}
_ORDERS = ("int2", "int4", "int8", "text", "varchar", "bpchar", "uuid")
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
            f"another one in {source}"
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
        raise FliplensError(f"expected a connection to {name}, could not have one ({_reason(error)})") from None
    try:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.read_only = True
        if psycopg.types.TypeInfo.fetch(connection, "vector") is not None:
            pgvector.psycopg.register_vector(connection)
        return Table(connection, source.options.get("schema"), table, column, order, source.options.get("text"), name)
    except psycopg.Error as error:
        connection.close()
        raise InputError(
            f"expected a table with these columns in {name}, found otherwise ({_reason(error)}): name a schema by "
            "schema=NAME"
        ) from None
    except BaseException:
        connection.close()
        raise


def _reason(error: BaseException) -> str:
    """Return the server's first line: what follows quotes the query."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


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
        self.dtype = self._types()
        counted = self._one("SELECT count(*), count({order}), count(DISTINCT {order}) FROM {table}")
        self.rows = int(counted[0])
        if not self.rows:
            raise InputError(f"expected at least one vector in {name}, found an empty table")
        if counted[1] != self.rows or counted[2] != self.rows:
            raise InputError(
                f"expected a different value of {order} in each of {self.rows} rows of {name}, found {counted[2]} "
                f"values and {self.rows - counted[1]} nulls: name a unique column by order=NAME"
            )
        self.dim = len(self._vector(*self._one("SELECT {order}, {column} FROM {table} ORDER BY {order} LIMIT 1")))

    def _one(self, query: str) -> Any:
        from psycopg import sql

        with self._connection.cursor(binary=True) as cursor:
            return cursor.execute(sql.SQL(query).format(**self._fill)).fetchone()

    def _types(self) -> str:
        """Check the columns' types; return the number type of the vectors."""
        from psycopg import sql

        with self._connection.cursor() as cursor:
            cursor.execute(sql.SQL("SELECT {columns} FROM {table} LIMIT 0").format(**self._fill))
            described = list(cursor.description)
            found = []
            for one in described:
                cursor.execute(
                    "SELECT t.typname, e.typname FROM pg_type t LEFT JOIN pg_type e ON t.typelem = e.oid "
                    "WHERE t.oid = %s",
                    [one.type_code],
                )
                found.append(cursor.fetchone())
        (order, _), (vector, element) = found[:2]
        if order not in _ORDERS:
            raise InputError(
                f"expected whole numbers, text or uuid in column {described[0].name} of {self.name}, found {order}"
            )
        dtype = _VECTORS.get(vector) or _ARRAYS.get(element)
        if dtype is None:
            raise InputError(
                f"expected vector, halfvec, real[] or double precision[] in column {described[1].name} of "
                f"{self.name}, found {vector}"
            )
        if len(found) > 2 and found[2][0] not in ("text", "varchar", "bpchar"):
            raise InputError(f"expected text in column {described[2].name} of {self.name}, found {found[2][0]}")
        return dtype

    def _vector(self, row: Any, value: Any) -> NDArray[Any]:
        if value is None:
            raise InputError(f"expected a vector in each row of {self.name}, found null in row {row}")
        if hasattr(value, "to_numpy"):
            value = value.to_numpy()
        try:
            vector: NDArray[Any] = np.asarray(value, dtype=self.dtype)
        except (TypeError, ValueError):
            raise InputError(f"expected numbers in {self.name}, found a null inside row {row}") from None
        if vector.ndim != 1 or not len(vector):
            raise InputError(
                f"expected one vector in each row of {self.name}, found shape {vector.shape} in row {row}"
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
                    f"expected {self.dim} numbers in each row of {self.name}, found {len(vector)} in row {one}"
                )
            vectors.append(vector)
            if self._text is not None and row[2] is None:
                raise InputError(f"expected a text in each row of {self.name}, found null in row {one}")
        texts = None if self._text is None else [row[2] for row in found]
        return Page(np.stack(vectors), ids, texts, None if last else ids[-1])

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()
