"""The administrators' API, `/api/v1` (contract §10): parse, call one use case, shape the answer.

It is imported when it is first called, so that a server process that nobody administers does not carry it.
"""
