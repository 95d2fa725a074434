"""The part of the room that keeps its rows in PostgreSQL, over asyncpg (the extra `pg`).

Same rows, same columns, same order as in SQLite: times are text in the "C" order, so a row, its place in a
list and its audit hash are the same in both. Only what differs between the two is here.
"""
