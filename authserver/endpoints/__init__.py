"""OAuth over HTTP: parse, call one use case, shape the answer."""
